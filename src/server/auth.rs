//! One auth request, in a straight line: who reads this function knows what holdfast does.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use hyper::{HeaderMap, Request};
use tracing::debug;

use super::respond::Answer;
use crate::clock::Timestamp;
use crate::credential::Credential;
use crate::decision::{Decision, Pass, Rejection};
use crate::identity::{Resolved, Subjected};
use crate::instance::Instance;
use crate::tiers::digest::TokenDigest;
use crate::tiers::stores::Refused;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// The path that is asked. Below it too: Envoy appends the original path.
const PATH: &str = "/auth";

/// Answers one request of a proxy.
///
/// # Errors
/// Never: everything that can go wrong is an answer.
pub async fn answer(instance: Arc<Instance>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let started = instance.clock.ticks();
    let (parts, _body_that_is_never_read) = request.into_parts();
    let (uri, headers) = (parts.uri, parts.headers);
    let query = uri.query().unwrap_or_default();
    let close = must_close(&headers);
    let now = instance.clock.now();

    let answer = if !is_auth_path(uri.path()) {
        instance.metrics.answered("error", "not_found");
        instance.responder.not_found(headers, close)
    } else {
        match Credential::extract(&headers, &instance.settings.credential) {
            Err(error) => decline(&instance, headers, &Decision::NoCredential(error), close),
            Ok(credential) => {
                let digest = instance.digester.token(credential.token().as_bytes());
                match instance.stores.answer(&digest).filter(|pass| pass.holds_at(now)) {
                    Some(pass) => allow(&instance, headers, &pass, Seen::Before, query, now, close),
                    None => {
                        let token = credential.token().to_owned();
                        match judge(&instance, &token, digest, now).await {
                            Decision::Allow(pass) => allow(
                                &instance,
                                headers,
                                &pass,
                                Seen::Now,
                                query,
                                instance.clock.now(),
                                close,
                            ),
                            other => decline(&instance, headers, &other, close),
                        }
                    }
                }
            }
        }
    };
    instance.metrics.request_duration.observe(instance.clock.ticks().since(started).as_secs_f64());
    Ok(answer)
}

/// Whether an answer lay ready or was made for this request.
#[derive(Clone, Copy)]
enum Seen {
    Before,
    Now,
}

/// At first sight, or when the answer in memory is no longer fresh: verify, resolve the email, decide, remember.
async fn judge(instance: &Instance, token: &str, digest: TokenDigest, now: Timestamp) -> Decision {
    if let Some(refusal) = instance.stores.refusal(&digest, now) {
        instance.metrics.looked_up("negative", "hit");
        return Decision::Refused(refusal);
    }
    let format = format_of(token);
    let result = match instance.verifier.verify(token).await {
        Ok(verified) => instance.identities.resolve(verified, Subjected { token, digest }).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(resolved) => {
            instance.metrics.judged(format, "accepted");
            decide(instance, digest, resolved)
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

fn decide(instance: &Instance, digest: TokenDigest, resolved: Resolved) -> Decision {
    let Resolved { identity, serving, store, email_unknown } = resolved;
    let table = instance.identities.policy().table();
    match Pass::new(&identity, &instance.settings.headers, table, serving) {
        Ok(pass) => {
            let tier = table.row(serving.tier).map_or("unknown", |row| row.name.as_str());
            if let Some(store) = store {
                instance.metrics.tier_hit(tier, store);
            }
            if serving.stale {
                instance.metrics.served_stale(tier);
            }
            debug!(?digest, tier, source = identity.source.name(), stale = serving.stale, "accepted");
            let pass = Arc::new(pass);
            instance.stores.keep_answer(digest, pass.clone());
            Decision::Allow(pass)
        }
        Err(unmet) => match email_unknown {
            Some(error) => {
                debug!(?digest, reason = error.reason(), "cannot tell the email: {error}");
                Decision::from(&error)
            }
            None => {
                debug!(?digest, "forbidden: {unmet}");
                Decision::Forbidden(unmet)
            }
        },
    }
}

/// A definitive no is remembered, unless time or a new key may change it.
fn remember(instance: &Instance, digest: TokenDigest, refusal: Refusal) -> Decision {
    let refusal = Arc::new(refusal);
    if refusal.is_lasting() {
        let until = instance.clock.now().after(instance.settings.policy.negative_ttl);
        instance.stores.refuse(digest, Refused { refusal: refusal.clone(), until });
    }
    Decision::Refused(refusal)
}

/// What the route requires is checked on the way out, since one token is used on many routes.
fn allow(
    instance: &Instance,
    headers: HeaderMap,
    pass: &Arc<Pass>,
    seen: Seen,
    query: &str,
    now: Timestamp,
    close: bool,
) -> Answer {
    if matches!(seen, Seen::Before) {
        instance.metrics.found_in_memory();
        instance.tier_hits.memory(pass.tier()).inc();
    }
    let met = if query.is_empty() { Ok(()) } else { pass.meets(query, instance.identities.policy().table()) };
    match met {
        Ok(()) => {
            match seen {
                Seen::Before => instance.metrics.allowed_from_memory(),
                Seen::Now => instance.metrics.answered("allow", "judged"),
            }
            instance.responder.allow(headers, pass, now, close)
        }
        Err(Rejection::Unmet(unmet)) => decline(instance, headers, &Decision::Forbidden(unmet), close),
        Err(Rejection::Bad(bad)) => {
            tracing::error!("a proxy's auth URL is wrong, so its requests are refused: {bad}");
            decline(instance, headers, &Decision::Misconfigured(bad), close)
        }
    }
}

fn decline(instance: &Instance, headers: HeaderMap, decision: &Decision, close: bool) -> Answer {
    let (answer, (outcome, reason)) = instance.responder.decline(headers, decision, close);
    instance.metrics.answered(outcome, reason);
    answer
}

fn is_auth_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A body that was announced is not read, so the connection cannot be used again (a naive nginx configuration announces
/// one that never comes). A wish to upgrade is not granted; some proxies then wait for the connection to end.
fn must_close(headers: &HeaderMap) -> bool {
    let announces_body = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    announces_body || headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(UPGRADE)
}

fn format_of(token: &str) -> &'static str {
    match token.bytes().filter(|byte| *byte == b'.').count() {
        0 => "opaque",
        2 => "jws",
        4 => "jwe",
        _ => "malformed",
    }
}
