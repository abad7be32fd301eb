//! One token, explained to a person: what `holdfast inspect` shows.
//!
//! The verdict is the server's own: [`Verifier::verify`](crate::verifier::Verifier::verify), [`Identities`],
//! [`Pass`] and the responder of an instance without records. The rows are derived from that verdict: the
//! checks have an order, the refusal says which one failed, the checks before it passed, and the checks after
//! it were not reached. So no row can contradict the answer. Nothing that could be used again is shown:
//! neither the token, nor a part of it in base64, nor a signature.
//!
//! [`Identities`]: crate::identity::Identities

mod required;
mod rows;
mod sender;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::HeaderMap;
use serde::Serialize;

pub use self::rows::Check;
use self::rows::{Outline, Stop};
pub use self::sender::Presented;
use crate::credential::Credential;
use crate::decision::{Decision, Pass, Unmet};
use crate::identity::{Attempt, Identity, Resolved};
use crate::instance::Instance;
use crate::issuer::Issuer;
use crate::issuer::userinfo::Reach;
use crate::route::Required;
use crate::sender::Unproven;
use crate::token::compact::UnverifiedHeader;
use crate::token::email::{self, EmailRules};
use crate::token::json::Object;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verified};

/// The explanation of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `jws`, `jwe`, `opaque` or `malformed`.
    pub format: &'static str,
    /// The fields of its header that are read; they are not verified.
    pub header: Option<UnverifiedHeader>,
    /// The header of the JWS inside a JWE, if the JWE could be decrypted here.
    pub nested_header: Option<UnverifiedHeader>,
    /// The configured issuer whose rules apply.
    pub issuer: Option<String>,
    /// Every check, in the order in which they are made.
    pub checks: Vec<Check>,
    /// Where the email was looked for; `None` without verified claims.
    pub email: Option<EmailReport>,
    /// What holdfast would answer.
    pub answer: AnswerReport,
}

/// Where the email was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EmailReport {
    /// The email that was found.
    pub found: Option<String>,
    /// `claims`, or `userinfo`; `None` if none was found.
    pub source: Option<&'static str>,
    /// `email_verified`, as the issuer says.
    pub email_verified: Option<bool>,
    /// Whether a later place names another email.
    pub conflict: bool,
    /// Each entry of `email_claims`, in order.
    pub tried: Vec<Tried>,
}

/// One entry of `email_claims`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The entry.
    pub entry: String,
    /// What was found there, or why it was skipped.
    pub result: String,
}

/// What holdfast would answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerReport {
    /// The status; `None` if it depends on the issuer, which was not asked.
    pub status: Option<u16>,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// Why, in one sentence.
    pub reason: String,
}

impl Report {
    /// Whether the token would be accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.answer.status == Some(200)
    }
}

/// Whether the issuer may be asked about the token, which sends the token to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Yes.
    Allowed,
    /// No. Then the answer for some tokens stays open.
    Withheld,
}

/// The steps to the answer.
struct Trace {
    stop: Stop,
    /// `None` if the issuer would have to be asked, but may not be.
    decision: Option<Decision>,
    reason: String,
    issuer: Option<Arc<Issuer>>,
    claims: Option<Object>,
    identity: Option<Identity>,
    /// Whether the request comes from the sender of its token; `None` if that does not matter.
    sender: Option<Result<(), Unproven>>,
    /// What the route requires of the token.
    required: Vec<Check>,
}

/// Checks `token` as a server would that has never seen it, for a route that requires `required`, and
/// explains the result.
pub async fn inspect(
    instance: &Instance,
    token: &str,
    asking: Asking,
    required: &Required<'_>,
    presented: &Presented,
) -> Report {
    let outline = Outline::of(instance, token);
    let trace = run(instance, &outline, (token, presented), asking, required).await;
    let issuer = trace.issuer.or_else(|| outline.issuer.clone());
    let email = trace.claims.as_ref().zip(issuer.as_ref()).map(|(claims, issuer)| {
        let require_verified = instance.settings.policy.require_verified_email;
        explain_email(claims, issuer.settings().email_rules(require_verified), trace.identity.as_ref())
    });
    let mut checks = outline.checks(instance, issuer.as_ref(), &trace.stop);
    checks.extend(trace.sender.map(sender::row));
    checks.extend(trace.required);
    Report {
        checks,
        format: outline.format(),
        header: outline.header,
        nested_header: outline.nested_header,
        issuer: issuer.map(|issuer| issuer.name().to_string()),
        email,
        answer: answer(instance, trace.decision, trace.reason),
    }
}

async fn run(
    instance: &Instance,
    outline: &Outline,
    (token, presented): (&str, &Presented),
    asking: Asking,
    required: &Required<'_>,
) -> Trace {
    let mut trace = Trace {
        stop: Stop::End,
        decision: None,
        reason: String::new(),
        issuer: None,
        claims: None,
        identity: None,
        sender: None,
        required: Vec::new(),
    };
    let credential = match Credential::parse(token) {
        Ok(credential) => credential,
        Err(error) => {
            trace.reason = error.to_string();
            trace.stop = Stop::Credential(trace.reason.clone());
            trace.decision = Some(Decision::NoCredential(error));
            return trace;
        }
    };
    let verified = match instance.verifier.verify(token).await {
        Ok(verified) => verified,
        Err(failure) => {
            if matches!(failure, Failure::No(Refusal::ForeignRefused { .. })) {
                trace.issuer = outline.issuer.clone().or_else(|| instance.issuers.iter().next().cloned());
            }
            return trace.failed(failure, None);
        }
    };
    let (mut asks, mut local) = (false, None);
    match &verified {
        Verified::Local { issuer, claims, binding, .. } => {
            trace.sender = presented.check(instance, credential.clone(), *binding).await;
            let rules = issuer.settings().email_rules(instance.settings.policy.require_verified_email);
            let names_one = email::find(claims.all(), EmailRules { domains: &[], ..rules }).is_some();
            asks |= !names_one && issuer.reach(claims.all()) != Reach::None;
            trace.issuer = Some(issuer.clone());
            trace.claims = Some(claims.all().clone());
        }
        Verified::Foreign { issuer, why } => {
            asks = true;
            trace.issuer = Some(issuer.clone());
            let what = if outline.format() == "jwe" { "local decryption" } else { "local check" };
            local = Some(format!("{what}: {why}"));
        }
    }
    if let Some(Err(unproven)) = trace.sender {
        return trace.unproven(unproven);
    }
    if asks && asking == Asking::Withheld {
        trace.reason = match &local {
            Some(why) => format!("would ask the issuer whether it accepts the token ({why})"),
            None => "would ask the issuer for the email, since the token names none".to_owned(),
        } + "; --ask does that, and sends the token to it";
        trace.stop = Stop::Asking { local, word: None };
        return trace;
    }
    let digest = instance.digester.token(token.as_bytes());
    match instance
        .identities
        .resolve(verified, Attempt { token, digest, since: instance.stores.epoch(&digest), oldest: None })
        .await
    {
        Ok(resolved) => {
            if local.is_some() {
                trace.sender = presented.check(instance, credential, resolved.identity.binding).await;
            }
            let sender = trace.sender;
            let trace = trace.resolved(instance, outline, resolved, required, asks, local);
            match sender {
                Some(Err(unproven)) => trace.unproven(unproven),
                _ => trace,
            }
        }
        Err(failure) => trace.failed(failure, Some(local)),
    }
}

impl Trace {
    /// `asked`: the issuer was asked, and this is the result without its answer.
    fn failed(mut self, failure: Failure, asked: Option<Option<String>>) -> Self {
        let says = match &failure {
            Failure::No(Refusal::IssuerRejects { said, certain, .. }) => {
                Refusal::IssuerRejects { said, local: String::new(), certain: *certain }.to_string()
            }
            other => other.to_string(),
        };
        self.reason = match asked.as_ref().and_then(Option::as_ref) {
            Some(why) => format!("{why}; issuer: {says}"),
            None => says.clone(),
        };
        self.stop = match (asked, &failure) {
            (Some(local), Failure::No(_)) => Stop::Asking { local, word: Some(Err((Some(false), says))) },
            (Some(local), Failure::CannotTell(_)) => Stop::Asking { local, word: Some(Err((None, says))) },
            (None, Failure::No(refusal)) => Stop::Refused(refusal.clone()),
            (None, Failure::CannotTell(error)) => Stop::NoKeys(error.to_string()),
        };
        self.decision = Some(match failure {
            Failure::No(refusal) => Decision::Refused(Arc::new(refusal)),
            Failure::CannotTell(error) => Decision::from(&error),
        });
        self
    }

    /// The token is good, and its sender is not.
    fn unproven(mut self, unproven: Unproven) -> Self {
        self.reason = format!("the token is good, but {unproven}");
        self.decision = Some(unproven.into());
        self
    }

    fn resolved(
        mut self,
        instance: &Instance,
        outline: &Outline,
        resolved: Resolved,
        required: &Required<'_>,
        asked: bool,
        local: Option<String>,
    ) -> Self {
        let Resolved { identity, serving, email_unknown, .. } = resolved;
        let table = instance.identities.policy().table();
        let now = instance.clock.now();
        let claims = Pass::claims_asked(required, None);
        let made = Pass::new(&identity, &instance.settings.headers, (table, serving), &claims);
        if let Ok(pass) = &made {
            let typ = outline.signed_header().and_then(|header| header.typ.as_deref());
            self.required = required::rows(required, pass, (&identity, typ), table, now);
        }
        let decision = match made {
            Ok(pass) => match pass.meets_required(required, table, now) {
                Ok(()) => {
                    self.reason = "the token is good".to_owned();
                    Decision::Allow(pass)
                }
                Err(rejection) => {
                    self.reason = format!("the token is good, but {rejection}");
                    rejection.into()
                }
            },
            Err(unmet) => match (&email_unknown, &unmet) {
                (Some(error), Unmet::Header(_)) => {
                    self.reason = format!("{unmet}; the issuer was asked for the email: {error}");
                    Decision::from(error)
                }
                _ => {
                    self.reason = unmet.to_string();
                    Decision::Forbidden(unmet)
                }
            },
        };
        self.stop = match (asked, email_unknown) {
            (true, Some(error)) => Stop::Asking { local, word: Some(Err((None, error.to_string()))) },
            (true, None) => Stop::Asking { local, word: Some(Ok(())) },
            (false, _) => Stop::End,
        };
        if self.claims.is_none() {
            self.claims = Some(identity.claims.clone());
        }
        self.identity = Some(identity);
        self.decision = Some(decision);
        self
    }
}

/// Status and headers come from the server's own responder.
fn answer(instance: &Instance, decision: Option<Decision>, reason: String) -> AnswerReport {
    let Some(decision) = decision else {
        return AnswerReport { status: None, headers: BTreeMap::new(), reason };
    };
    let answer = match &decision {
        Decision::Allow(pass) => {
            instance.responder.allow(HeaderMap::new(), pass, instance.clock.now(), false)
        }
        other => instance.responder.decline(HeaderMap::new(), other, false).0,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    AnswerReport { status: Some(answer.status().as_u16()), headers: headers.collect(), reason }
}

/// Each entry is given alone to [`email::find`], so that the explanation is what that function does with it.
fn explain_email(claims: &Object, rules: EmailRules<'_>, identity: Option<&Identity>) -> EmailReport {
    let chosen = email::find(claims, rules);
    let mut is_chosen_yet = false;
    let tried = rules.paths.iter().map(|path| {
        let alone = EmailRules { paths: std::slice::from_ref(path), ..rules };
        let result = match (email::find(claims, alone), path.value(claims)) {
            (Some(found), _) if !is_chosen_yet => {
                is_chosen_yet = true;
                format!("found {}", found.email.as_str())
            }
            (Some(found), _) => {
                let same = chosen
                    .as_ref()
                    .is_some_and(|first| first.email.as_str().eq_ignore_ascii_case(found.email.as_str()));
                let compared = if same { "the same" } else { "a conflict, the first in order wins" };
                format!("also names {}: {compared}", found.email.as_str())
            }
            (None, None) => "there is no such claim".to_owned(),
            (None, Some(_)) if email::find(claims, EmailRules { domains: &[], ..alone }).is_some() => {
                "skipped: its domain is not in the issuer's `email_domains`".to_owned()
            }
            (None, Some(_))
                if email::find(claims, EmailRules { require_verified: false, domains: &[], ..alone })
                    .is_some() =>
            {
                "skipped: its email is not verified, and `require_verified_email` is on".to_owned()
            }
            (None, Some(value)) if value.is_string() => {
                format!("skipped: {} is not a valid address", rows::shown(value))
            }
            (None, Some(_)) => "skipped: it is not a text".to_owned(),
        };
        Tried { entry: path.as_str().to_owned(), result }
    });
    let tried = tried.collect();
    let conflict = chosen.as_ref().is_some_and(|found| found.conflict);
    match identity {
        Some(identity) => EmailReport {
            found: identity.email.as_ref().map(|email| email.as_str().to_owned()),
            source: identity.email.as_ref().map(|_| identity.source.name()),
            email_verified: identity.email_verified,
            conflict,
            tried,
        },
        None => EmailReport {
            source: chosen.as_ref().map(|_| "claims"),
            email_verified: chosen.as_ref().and_then(|found| found.verified),
            found: chosen.map(|found| found.email.as_str().to_owned()),
            conflict,
            tried,
        },
    }
}
