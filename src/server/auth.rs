//! One auth request from start to end. [`answer`] is the whole path, in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{HeaderMap, Request};
use tracing::{debug, warn};

use super::denial_log::log_denial;
use super::logout::LOGOUT_PATH;
use crate::clock::Timestamp;
use crate::credential::Credential;
use crate::decision::{ClaimsAsked, Decision, Pass, Unmet};
use crate::identity::{Attempt, Resolved};
use crate::instance::Instance;
use crate::login::LoginAnswer;
use crate::respond::Answer;
use crate::route::forwarded::Subrequest;
use crate::route::peer::Peer;
use crate::route::{AUTH_PATH, Demand, Required};
use crate::sender::{Sender, Unproven};
use crate::store::invalidation::Epoch;
use crate::store::refused::Refused;
use crate::tiers::digest::TokenDigest;
use crate::tiers::record::IdentitySource;
use crate::tiers::table::TierIndex;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, NotLocal, Verified};

/// `Retry-After` when a revocation may have been missed: Redis is tried again every few seconds.
const BEHIND_RETRY: Duration = Duration::from_secs(5);

/// Answers one request of a proxy.
///
/// # Errors
/// Never: every failure is an answer.
pub async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<Answer, Infallible> {
    let started = instance.clock.ticks();
    let (parts, body) = request.into_parts();
    if let Some(logout) = instance.logout.as_ref().filter(|_| parts.uri.path() == LOGOUT_PATH) {
        return Ok(super::logout::answer(&instance, logout, parts, body).await);
    }
    let _body_that_is_never_read = body;
    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
    let subrequest = Subrequest { method: &method, uri: &uri, headers: &headers };
    let close = must_close(&headers);
    if let Some(metadata) = instance.responder.metadata(uri.path(), &method, close) {
        return Ok(metadata);
    }

    let answer = if !is_auth_path(uri.path()) {
        instance.metrics.answered("error", "not_found");
        instance.responder.not_found(headers, close)
    } else {
        match Demand::of(subrequest, uri.query(), peer, &instance.settings.routes) {
            Demand::Identity(required) => match identify(&instance, (subrequest, peer), &required).await {
                (Decision::Allow(pass), seen) => allow(&instance, headers, &pass, seen, &required, close),
                (other, _) => {
                    let login = login_for(&instance, &other, subrequest, peer);
                    let answer = decline(&instance, headers, &other, &required, close);
                    match login {
                        Some((url, by)) => instance.responder.offer_login(answer, url, by),
                        None => answer,
                    }
                }
            },
            Demand::Public => match identify(&instance, (subrequest, peer), &Required::Nothing).await {
                (Decision::Allow(pass), seen) => {
                    allow(&instance, headers, &pass, seen, &Required::Nothing, close)
                }
                _ => allow_anonymous(&instance, headers, "public", close),
            },
            Demand::Preflight => allow_anonymous(&instance, headers, "preflight", close),
            Demand::Closed(closed) => {
                decline(&instance, headers, &Decision::Closed(closed), &Required::Nothing, close)
            }
            Demand::Unclear(bad) => {
                decline(&instance, headers, &Decision::Misconfigured(bad), &Required::Nothing, close)
            }
        }
    };
    instance.metrics.request_duration.observe(instance.clock.ticks().since(started).as_secs_f64());
    Ok(answer)
}

/// The login page, if the client is a browser and another credential could be accepted.
fn login_for(
    instance: &Instance,
    decision: &Decision,
    subrequest: Subrequest<'_>,
    peer: Peer,
) -> Option<(HeaderValue, LoginAnswer)> {
    let login = instance.login.as_ref().filter(|_| decision.invites_login())?;
    let url = login.url_for(subrequest, peer, &instance.settings.routes, instance.clock.now())?;
    Some((url, login.answer()))
}

/// Whether the answer came from memory or was made for this request.
#[derive(Clone, Copy)]
enum AnswerOrigin {
    Before(Timestamp),
    Now,
}

/// Identifies the user by the credential. Uses the answer in memory if it is young enough, and checks the
/// sender in any case.
async fn identify(
    instance: &Instance,
    (subrequest, peer): (Subrequest<'_>, Peer),
    required: &Required<'_>,
) -> (Decision, AnswerOrigin) {
    let credential = match Credential::extract(subrequest.headers, &instance.settings.credential) {
        Ok(credential) => credential,
        Err(error) => return (Decision::NoCredential(error), AnswerOrigin::Now),
    };
    let sender = Sender { credential: &credential, subrequest, peer, routes: &instance.settings.routes };
    let now = instance.clock.now();
    let digest = instance.digester.token(credential.token().as_bytes());
    instance.stores.catch_up(&digest);
    let table = instance.identities.policy().table();
    let ready = instance.answers.get(&digest).filter(|pass| pass.holds_at(now));
    let is_young = |pass: &Pass| pass.cannot_be_younger() || !required.is_younger_than(pass.tier(), table);
    match ready {
        Some(pass) if is_young(&pass) && pass.covers_claims(required) => {
            match instance.senders.check(pass.binding(), sender).await {
                Ok(()) => (Decision::Allow(pass), AnswerOrigin::Before(now)),
                Err(unproven) => (unproven.into(), AnswerOrigin::Before(now)),
            }
        }
        before => {
            let asked = Pass::claims_asked(required, before.as_ref());
            let oldest = required.oldest_tier(table);
            (judge(instance, sender, digest, oldest, &asked).await, AnswerOrigin::Now)
        }
    }
}

/// Verifies a token, resolves the email, decides and remembers. Runs if memory has no answer, or none that is
/// fresh enough and covers what is required.
async fn judge(
    instance: &Instance,
    sender: Sender<'_>,
    digest: TokenDigest,
    oldest: Option<TierIndex>,
    asked: &ClaimsAsked,
) -> Decision {
    let token = sender.credential.token();
    let since = instance.stores.epoch(&digest);
    if let Some(refusal) = instance.stores.refusal(&digest, &instance.clock) {
        instance.metrics.looked_up("negative", "hit");
        return Decision::Refused(refusal);
    }
    let format = format_of(token);
    let (mut not_here, result) = (None, instance.verifier.verify(token).await);
    let result = match result {
        Ok(verified) => {
            not_here = verified.not_here().cloned();
            if let Verified::Local { binding, .. } = &verified
                && let Err(unproven) = instance.senders.check(*binding, sender).await
            {
                return decline_sender(instance, digest, format, unproven);
            }
            instance.identities.resolve(verified, Attempt { token, digest, since, oldest }).await
        }
        Err(failure) => Err(failure),
    };
    if let Some(why) = &not_here {
        log_foreign(instance, digest, why, &result);
    }
    match result {
        Ok(resolved) => {
            // The binding of a foreign token is known only now.
            if not_here.is_some()
                && let Err(unproven) = instance.senders.check(resolved.identity.binding, sender).await
            {
                return decline_sender(instance, digest, format, unproven);
            }
            instance.metrics.judged(format, "accepted");
            decide(instance, digest, since, resolved, asked)
        }
        Err(Failure::No(refusal)) => {
            instance.metrics.judged(format, refusal.reason());
            debug!(?digest, format, reason = refusal.reason(), "refused: {refusal}");
            remember(instance, digest, refusal)
        }
        Err(Failure::CannotTell(error)) => {
            instance.metrics.judged(format, "undecided");
            debug!(?digest, format, reason = error.reason(), "cannot tell: {error}");
            Decision::from(&error)
        }
    }
}

/// Declines a request that is not proven to come from the sender of its token. Nothing is remembered: the
/// same token is good with a proof.
fn decline_sender(
    instance: &Instance,
    digest: TokenDigest,
    format: &'static str,
    unproven: Unproven,
) -> Decision {
    instance.metrics.judged(format, unproven.reason());
    debug!(?digest, format, reason = unproven.reason(), "the sender is not proven: {unproven}");
    unproven.into()
}

/// Counts and logs a token that only its issuer could judge: why it was not judged here, and the issuer's
/// answer. A JWE that fails both here and there may need a key that is missing here, so it is also logged as
/// a warning, at a limited rate.
fn log_foreign(instance: &Instance, digest: TokenDigest, why: &NotLocal, result: &Result<Resolved, Failure>) {
    let (local, issuer) = (why.reason(), result.as_ref().map_or_else(Failure::reason, |_| "accepted"));
    instance.metrics.foreign(local, issuer);
    let Err(failure) = result else { return };
    debug!(?digest, local, issuer, "judged neither here nor by its issuer; here: {why}; issuer: {failure}");
    if matches!(why, NotLocal::Sealed(_))
        && let Some(suppressed) = instance.unopened_tokens.allow(instance.clock.now())
    {
        warn!(
            suppressed,
            local,
            issuer,
            "an encrypted token was judged neither here nor by its issuer; here: {why}; issuer: {failure}"
        );
    }
}

fn decide(
    instance: &Instance,
    digest: TokenDigest,
    since: Epoch,
    resolved: Resolved,
    asked: &ClaimsAsked,
) -> Decision {
    let Resolved { identity, serving, store, checked, email_unknown } = resolved;
    let table = instance.identities.policy().table();
    match Pass::new(&identity, &instance.settings.headers, (table, serving), asked) {
        Ok(pass) => {
            let tier = table.row(serving.tier).map_or("unknown", |row| row.name.as_str());
            if let Some(store) = store {
                instance.metrics.tier_hit(tier, store);
            }
            if identity.source == IdentitySource::Userinfo {
                let user = (&*identity.issuer, identity.subject.as_str());
                instance.metrics.condition.served(user, tier, serving.stale, instance.clock.ticks());
            }
            let stale = serving.stale.is_some();
            if stale {
                instance.metrics.served_stale(tier);
            }
            debug!(?digest, tier, source = identity.source.name(), stale, "accepted");
            instance.answers.keep(digest, pass.clone(), checked, since);
            Decision::Allow(pass)
        }
        Err(unmet) => match (email_unknown, &unmet) {
            (Some(error), Unmet::Header(_)) => {
                debug!(?digest, reason = error.reason(), "cannot tell the email: {error}");
                Decision::from(&error)
            }
            _ => {
                debug!(?digest, "forbidden: {unmet}");
                Decision::Forbidden(unmet)
            }
        },
    }
}

/// Remembers a definitive refusal, unless time or a new key may change it.
fn remember(instance: &Instance, digest: TokenDigest, refusal: Refusal) -> Decision {
    let refusal = Arc::new(refusal);
    if refusal.is_lasting() {
        let ttl = instance.settings.policy.negative_ttl;
        instance.stores.refuse(digest, Refused::new(refusal.clone(), ttl, &instance.clock));
    }
    Decision::Refused(refusal)
}

/// Checks the route's requirements last, because one token is used on many routes. Then allows or declines.
fn allow(
    instance: &Instance,
    headers: HeaderMap,
    pass: &Pass,
    seen: AnswerOrigin,
    required: &Required<'_>,
    close: bool,
) -> Answer {
    if matches!(seen, AnswerOrigin::Before(_)) {
        instance.metrics.found_in_memory();
        instance.tier_hits.memory(pass.tier()).inc();
    }
    let now = match seen {
        AnswerOrigin::Before(then) => then,
        AnswerOrigin::Now => instance.clock.now(),
    };
    match pass.meets_required(required, instance.identities.policy().table(), now) {
        Ok(()) if instance.revocations.is_behind() && required.needs_current_revocations() => {
            let behind = Decision::Undecided { reason: "revocations_behind", retry_after: BEHIND_RETRY };
            decline(instance, headers, &behind, required, close)
        }
        Ok(()) => {
            match seen {
                AnswerOrigin::Before(_) => instance.metrics.allowed_from_memory(),
                AnswerOrigin::Now => instance.metrics.answered("allow", "judged"),
            }
            instance.responder.allow(headers, pass, now, close)
        }
        Err(rejection) => decline(instance, headers, &rejection.into(), required, close),
    }
}

/// Allows a request without a user. [`Demand`] documents when this is allowed.
fn allow_anonymous(instance: &Instance, headers: HeaderMap, reason: &'static str, close: bool) -> Answer {
    instance.metrics.answered("allow", reason);
    instance.responder.allow_anonymous(headers, &instance.anonymous, close)
}

fn decline(
    instance: &Instance,
    headers: HeaderMap,
    decision: &Decision,
    required: &Required<'_>,
    close: bool,
) -> Answer {
    log_denial(instance, &headers, required, decision);
    let (answer, (outcome, reason)) = instance.responder.decline(headers, decision, close);
    instance.metrics.answered(outcome, reason);
    debug!(outcome, reason, "declined");
    answer
}

fn is_auth_path(path: &str) -> bool {
    path.strip_prefix(AUTH_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the connection must be closed after the answer. An announced body is not read, so the connection
/// cannot be used again (a naive nginx configuration announces a body that never comes). An upgrade is not
/// granted, and some proxies then wait for the connection to end.
fn must_close(headers: &HeaderMap) -> bool {
    let announces_body = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    announces_body || headers.contains_key(TRANSFER_ENCODING) || wants_upgrade(headers)
}

/// Whether the client asks for an upgrade. One of the two headers is enough: not every proxy passes both on.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let says_so = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"upgrade");
    let mut connection = headers.get_all(CONNECTION).iter();
    headers.contains_key(UPGRADE)
        || connection.any(|line| line.as_bytes().split(|byte| *byte == b',').any(says_so))
}

fn format_of(token: &str) -> &'static str {
    match token.bytes().filter(|byte| *byte == b'.').count() {
        0 => "opaque",
        2 => "jws",
        4 => "jwe",
        _ => "malformed",
    }
}
