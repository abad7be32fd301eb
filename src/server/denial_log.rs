//! Log lines about refused requests.
//!
//! Each refused request is a line at `debug`. Some kinds are also logged at a level that is shown by default,
//! once a minute: errors in the configuration of the proxy or of holdfast, which only the operator can mend,
//! and refusals that users will ask about. A line names the token by its digest and the request by its
//! `X-Request-Id`. It never contains a token, a user's id or an email address.

use hyper::HeaderMap;
use tracing::{debug, error, info, warn};

use crate::credential::{Credential, CredentialError};
use crate::decision::{Decision, Unmet};
use crate::instance::Instance;
use crate::route::requirement::{BadRequirement, Requirement, claim};
use crate::route::{Closed, Required};
use crate::tiers::digest::TokenDigest;

/// The longest request id and the longest value of a requirement that are shown, in bytes. A longer one is
/// not shown at all, because it may be a token, and no part of a token may be logged.
const MAX_SHOWN: usize = 64;

/// The request that a line is about.
struct Denial<'r> {
    instance: &'r Instance,
    headers: &'r HeaderMap,
    required: &'r Required<'r>,
}

/// Logs a request that got this decision. `required` is what its route requires, as far as that is known.
pub(super) fn log_denial(
    instance: &Instance,
    headers: &HeaderMap,
    required: &Required<'_>,
    decision: &Decision,
) {
    let (now, about) = (instance.clock.now(), Denial { instance, headers, required });
    match decision {
        Decision::Misconfigured(bad) => {
            if let Some(suppressed) = instance.wrong_requirements.allow(now) {
                let values = match bad {
                    BadRequirement::Value(name) => about.values(name),
                    _ => String::new(),
                };
                let request_id = about.request_id();
                error!(
                    suppressed,
                    request_id,
                    "a proxy asks with wrong requirements, so its requests are refused: {bad}{values}"
                );
            }
        }
        Decision::Forbidden(unmet @ Unmet::TooLarge { .. }) => {
            if let Some(suppressed) = instance.large_answers.allow(now) {
                let (digest, request_id) = (about.digest(), about.request_id());
                warn!(
                    suppressed,
                    ?digest,
                    request_id,
                    "users with good tokens are refused, because no proxy would accept the answer: {unmet}"
                );
            }
        }
        Decision::Forbidden(unmet) => about.forbidden(unmet),
        Decision::Closed(closed @ (Closed::Untrusted | Closed::Missing(_))) => {
            if let Some(suppressed) = instance.undescribed_requests.allow(now) {
                let request_id = about.request_id();
                warn!(suppressed, request_id, "requests of a proxy are refused: {closed}");
            }
        }
        Decision::NoCredential(
            error
            @ (CredentialError::Several | CredentialError::SeveralCookies | CredentialError::Incomplete),
        ) => {
            if let Some(suppressed) = instance.unclear_credentials.allow(now) {
                let request_id = about.request_id();
                info!(suppressed, request_id, reason = error.reason(), "a request is refused: {error}");
            }
        }
        _ => {}
    }
}

impl Denial<'_> {
    /// Logs at `info` once a minute, and the others at `debug`.
    fn forbidden(&self, unmet: &Unmet) {
        let turn = self.instance.forbidden.allow(self.instance.clock.now());
        if turn.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (digest, request_id) = (self.digest(), self.request_id());
        let values = match unmet {
            Unmet::Requirement(name) | Unmet::Unknowable(name) => self.values(name),
            Unmet::TooOld => self.values(Requirement::MaxTier.name()),
            _ => String::new(),
        };
        match turn {
            Some(suppressed) => {
                info!(suppressed, ?digest, request_id, "a valid token does not suffice: {unmet}{values}");
            }
            None => debug!(?digest, request_id, "a valid token does not suffice: {unmet}{values}"),
        }
    }

    /// The digest of the request's token. It is computed again here, because this is rare.
    fn digest(&self) -> Option<TokenDigest> {
        let credential = Credential::extract(self.headers, &self.instance.settings.credential).ok()?;
        Some(self.instance.digester.token(credential.token().as_bytes()))
    }

    /// The request id that a proxy set. A client may have written it, so it is shown only if it is a plain
    /// id.
    fn request_id(&self) -> &str {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
        let mut ids = self.headers.get_all("x-request-id").iter();
        match (ids.next().map(|id| id.to_str()), ids.next()) {
            (None, _) => "none",
            (Some(Ok(id)), None)
                if (1..=MAX_SHOWN).contains(&id.len()) && id.bytes().all(plain) && !id.starts_with("eyJ") =>
            {
                id
            }
            _ => "(not shown)",
        }
    }

    /// The values that the route requires under this name. Email addresses and values of claims are not
    /// shown: they may identify users.
    fn values(&self, name: &str) -> String {
        let values = self.required.values_of(name);
        if values.is_empty() {
            return String::new();
        }
        let shown = values.iter().take(8).map(|value| match value.len() {
            _ if name == Requirement::Email.name() => "(an address)".to_owned(),
            0..=MAX_SHOWN if name == Requirement::Claim.name() => {
                claim(value).map_or(value.as_str(), |(pointer, _)| pointer).escape_debug().to_string()
            }
            0..=MAX_SHOWN => value.escape_debug().to_string(),
            bytes => format!("({bytes} bytes)"),
        });
        format!(": {name}={}", shown.collect::<Vec<_>>().join(" or "))
    }
}
