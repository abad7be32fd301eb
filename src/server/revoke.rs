//! `POST /revoke`, `POST /unrevoke` or `DELETE /revoke`, and `GET /revocations` on the admin listener.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};
use url::form_urlencoded;

use super::operator::{self, OperatorError};
use super::plain::{Reply, date, respond, text};
use crate::clock::Timestamp;
use crate::instance::Instance;
use crate::revocation::{Denial, Kind, RevocationKey};
use crate::store::revocations::{NotStored, Revocations, Source};
use crate::store::target::{Target, label};
use crate::tiers::digest::TokenDigester;

const UNKNOWN: OperatorError = OperatorError::Unknown(
    "{\"subject\": \"…\"}, {\"session\": \"…\"}, {\"kid\": \"…\"}, {\"all\": true}, each with \"issuer\" or \
     for every issuer, and {\"token\": \"…\"}; names have 1 to 512 bytes",
);

/// How far `issued_before` may be ahead of the clock, because the clocks of issuers and instances differ.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// The longest name of a subject, a session or a key, in bytes. No token names a longer subject.
const LONGEST_NAME: usize = 512;

/// A request to revoke: exactly one of `subject`, `session`, `token`, `kid`, `all`.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// `sub`.
    pub subject: Option<String>,
    /// `sid`, or the claim that `revocation.session_claims` names.
    pub session: Option<String>,
    /// The token itself.
    pub token: Option<String>,
    /// The `kid` of the key that signed the tokens.
    pub kid: Option<String>,
    /// Whether to revoke the tokens of all users.
    #[serde(default)]
    pub all: bool,
    /// The issuer of the subject, session, key or users. By default, every configured issuer.
    pub issuer: Option<String>,
    /// Tokens issued at or before this time (RFC 3339) are refused. By default, tokens issued until now.
    pub issued_before: Option<String>,
}

/// Revokes, or lifts a revocation, and answers after the change is stored.
pub(super) async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
    unrevoke: bool,
) -> Result<Reply, OperatorError> {
    let asked = match request.uri().query() {
        // Many clients send no body with a DELETE, and some servers on the way drop it (RFC 9110 §9.3.5).
        Some(query) if request.method() == Method::DELETE => {
            operator::refuse_web_pages(request.headers())?;
            if request.body().is_end_stream() { RevocationRequest::from_query(query) } else { Err(UNKNOWN) }
        }
        _ => operator::read(request, UNKNOWN).await,
    }?;
    let before = asked.issued_before(&instance, unrevoke)?;
    let what = asked.what();
    let mut targets = asked.targets(&instance)?;
    if unrevoke {
        // This also lifts what a back-channel logout revoked for the same subject.
        let subjects = targets.iter().filter(|target| target.key.kind == Kind::Subject);
        let sessionless = subjects.map(|target| {
            let of = |key| RevocationKey { kind: Kind::Sessionless, ..key };
            Target { key: of(target.key), former: target.former.map(of), label: target.label.clone() }
        });
        targets.extend(sessionless.collect::<Vec<_>>());
    }
    let said = match unrevoke {
        false => format!("revoked: {what}"),
        true => unrevoked(&instance.revocations, &what, &targets),
    };
    // As a task: a revocation is stored even if its caller disconnects.
    let keep = instance.settings.revocation.keep;
    let done = tokio::spawn(async move {
        let revocations = &instance.revocations;
        match unrevoke {
            false => revocations.revoke(targets, before, keep, Source::Admin).await,
            true => revocations.unrevoke(targets, keep).await,
        }
    });
    Ok(match done.await {
        Ok(Ok(())) => {
            info!("{said}");
            text(StatusCode::OK, format!("{said}\n"))
        }
        Ok(Err(error @ NotStored::Pending(..))) => {
            warn!("not stored everywhere yet: {said}: {error}");
            text(StatusCode::ACCEPTED, format!("{said}; {error}\n"))
        }
        Ok(Err(error @ NotStored::Nowhere(_))) => {
            warn!("in memory only: {said}: {error}");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("in memory only: {said}; {error}\n"))
        }
        Err(error) => {
            warn!("a revocation ended half-way: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "not done: repeat it\n")
        }
    })
}

/// The result of lifting these revocations: whether any was in force, and what else stays in force. Without
/// this, an operator who mistypes a name would believe that it is done.
fn unrevoked(revocations: &Revocations, what: &str, targets: &[Target]) -> String {
    let (set, former) = (revocations.set(), revocations.former().map(|former| former.set()));
    let is_in_force = |target: &Target| {
        let formerly = former.as_ref().zip(target.former).and_then(|(set, key)| set.get(&key));
        set.get(&target.key).or(formerly).is_some_and(|denial| denial.is_in_force())
    };
    let was_revoked = targets.iter().any(is_in_force);
    let said = match was_revoked {
        true => format!("lifted: {what}"),
        false => {
            format!("nothing to lift: {what} that is not revoked; is it named as in `revoke --list`?")
        }
    };
    let is_other = |kind: &Kind| targets.iter().all(|target| target.key.kind != *kind);
    let others = Kind::ALL.into_iter().filter(is_other).map(|kind| (set.count_in_force(kind), kind.name()));
    let others: Vec<String> =
        others.filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    match others.is_empty() {
        true => said,
        false => format!(
            "{said}; other revocations stay in force, maybe of the same tokens: {}",
            others.join(", ")
        ),
    }
}

/// Every deny record, as JSON. It names subjects where their labels are kept.
pub(super) async fn list(instance: &Instance) -> Reply {
    let mut all = instance.revocations.list().await;
    if let Some(former) = instance.revocations.former() {
        // The records of single tokens, which cannot be copied to the new instance secret.
        let mut tokens = former.list().await;
        tokens.retain(|(key, denial)| {
            let is_it = |(known, of): &(RevocationKey, Denial)| {
                known.kind == key.kind && of.changed_at == denial.changed_at
            };
            key.kind == Kind::Token && !all.iter().any(is_it)
        });
        all.extend(tokens);
    }
    all.sort_by_key(|(key, denial)| (std::cmp::Reverse(denial.changed_at), key.to_bytes()));
    let rows: Vec<_> = all
        .into_iter()
        .map(|(key, denial)| {
            let digest: String = key.digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            json!({
                "kind": key.kind.name(),
                "what": if denial.label.is_empty() { format!("({digest}…)") } else { denial.label.clone() },
                "issued_before": denial.is_in_force().then(|| date(denial.issued_before)),
                "changed_at": date(denial.changed_at),
                "kept_until": date(denial.until),
            })
        })
        .collect();
    let body = format!("{:#}\n", json!({ "behind": instance.revocations.is_behind(), "revocations": rows }));
    respond(StatusCode::OK, "application/json", body.into_bytes())
}

impl RevocationRequest {
    /// Reads `subject=…&issuer=…`, percent-encoded. A token is not read from a URL, because URLs are logged.
    fn from_query(query: &str) -> Result<Self, OperatorError> {
        let mut members = serde_json::Map::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = match (&*name, &*value) {
                ("token", _) => return Err(UNKNOWN),
                ("all", "true") => true.into(),
                (_, value) => value.into(),
            };
            if members.insert(name.into_owned(), value).is_some() {
                return Err(UNKNOWN);
            }
        }
        serde_json::from_value(members.into()).map_err(|_| UNKNOWN)
    }

    fn what(&self) -> String {
        let of = self.issuer.as_ref().map_or_else(String::new, |issuer| format!(" of {issuer}"));
        match self {
            Self { subject: Some(_), .. } => format!("a subject{of}"),
            Self { session: Some(_), .. } => format!("a session{of}"),
            Self { token: Some(_), .. } => "a token".to_owned(),
            Self { kid: Some(_), .. } => format!("a key{of}"),
            _ => format!("everybody{of}"),
        }
    }

    fn issued_before(&self, instance: &Instance, unrevoke: bool) -> Result<Timestamp, OperatorError> {
        match &self.issued_before {
            None => Ok(instance.clock.now()),
            Some(_) if unrevoke => Err(UNKNOWN),
            Some(text) => {
                let time = humantime::parse_rfc3339_weak(text).ok();
                let time = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                let time = time.map(|time| Timestamp::from_secs(time.as_secs()));
                // A later time would refuse future logins.
                let latest = instance.clock.now().after(MAX_AHEAD);
                time.filter(|time| *time <= latest).ok_or(OperatorError::IssuedBefore)
            }
        }
    }

    fn targets(self, instance: &Instance) -> Result<Vec<Target>, OperatorError> {
        let Self { subject, session, token, kid, all, issuer, .. } = self;
        let digester = &instance.digester;
        if let (None, None, Some(token), None, false, None) = (&subject, &session, &token, &kid, all, &issuer)
        {
            let key = |digester: &TokenDigester| RevocationKey::token(digester, token);
            return Ok(vec![Target::of(digester, key, String::new())]);
        }
        let issuers = operator::issuers(issuer, instance)?.into_iter();
        let targets = |key: &dyn Fn(&TokenDigester, &str) -> RevocationKey, name: &str| {
            let target = |issuer: String| {
                Target::of(digester, |digester| key(digester, &issuer), label(name, &issuer))
            };
            issuers.map(target).collect()
        };
        let is_good = |name: &str| (1..=LONGEST_NAME).contains(&name.len());
        match (subject, session, token, kid, all) {
            (Some(name), None, None, None, false) if is_good(&name) => {
                Ok(targets(&|by, issuer| RevocationKey::subject(&by.subject(issuer, &name)), &name))
            }
            (None, Some(name), None, None, false) if is_good(&name) => {
                Ok(targets(&|by, issuer| RevocationKey::session(by, issuer, &name), &name))
            }
            (None, None, None, Some(name), false) if is_good(&name) => {
                Ok(targets(&|by, issuer| RevocationKey::kid(by, issuer, &name), &name))
            }
            (None, None, None, None, true) => {
                Ok(targets(&|by, issuer| RevocationKey::everybody(by, issuer), ""))
            }
            _ => Err(UNKNOWN),
        }
    }
}
