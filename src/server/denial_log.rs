//! What the log says of requests that are not let in.
//!
//! Each is a line at `debug`. Once a minute one of a kind is a line that is seen by default: what the proxy's
//! configuration or ours gets wrong, which the operator alone can change, and what users will ask about. A
//! line names what it is about: the token by its digest, the request by its `X-Request-Id`. It never holds a
//! token, a user's id or an address.

use hyper::HeaderMap;
use tracing::{debug, error, info, warn};

use crate::credential::{Credential, CredentialError};
use crate::decision::{Decision, Unmet};
use crate::instance::Instance;
use crate::route::requirement::{BadRequirement, Requirement};
use crate::route::{Closed, Required};
use crate::tiers::digest::TokenDigest;

/// The longest request id and the longest value of a requirement that are shown, in bytes. What is longer is
/// not shown in part: a part of a token is too much.
const MAX_SHOWN: usize = 64;

/// What a line says of a request.
struct Denial<'r> {
    instance: &'r Instance,
    headers: &'r HeaderMap,
    required: &'r Required<'r>,
}

/// Tells of a request that got this decision. `required` is what its route asks for, as far as that is known.
pub(super) fn log_denial(
    instance: &Instance,
    headers: &HeaderMap,
    required: &Required<'_>,
    decision: &Decision,
) {
    let (now, about) = (instance.clock.now(), Denial { instance, headers, required });
    match decision {
        Decision::Misconfigured(bad) => {
            if let Some(held_back) = instance.wrong_requirements.allow(now) {
                let values = match bad {
                    BadRequirement::Value(name) => about.values(name),
                    _ => String::new(),
                };
                let request_id = about.request_id();
                error!(
                    held_back,
                    request_id,
                    "a proxy asks with wrong requirements, so its requests are refused: {bad}{values}"
                );
            }
        }
        Decision::Forbidden(unmet @ Unmet::TooLarge { .. }) => {
            if let Some(held_back) = instance.large_answers.allow(now) {
                let (digest, request_id) = (about.digest(), about.request_id());
                warn!(
                    held_back,
                    ?digest,
                    request_id,
                    "users with good tokens are refused, since no proxy would take the answer: {unmet}"
                );
            }
        }
        Decision::Forbidden(unmet) => about.forbidden(unmet),
        Decision::Closed(closed @ (Closed::Untrusted | Closed::Missing(_))) => {
            if let Some(held_back) = instance.untold_requests.allow(now) {
                let request_id = about.request_id();
                warn!(held_back, request_id, "requests of a proxy are refused: {closed}");
            }
        }
        Decision::NoCredential(
            error
            @ (CredentialError::Several | CredentialError::SeveralCookies | CredentialError::Incomplete),
        ) => {
            if let Some(held_back) = instance.unclear_credentials.allow(now) {
                let request_id = about.request_id();
                info!(held_back, request_id, reason = error.reason(), "a request is refused: {error}");
            }
        }
        _ => {}
    }
}

impl Denial<'_> {
    /// At info once a minute, for all of them at debug.
    fn forbidden(&self, unmet: &Unmet) {
        let turn = self.instance.forbidden.allow(self.instance.clock.now());
        if turn.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (digest, request_id) = (self.digest(), self.request_id());
        let values = match unmet {
            Unmet::Requirement(name) => self.values(name),
            Unmet::TooOld => self.values(Requirement::MaxTier.name()),
            _ => String::new(),
        };
        match turn {
            Some(held_back) => {
                info!(held_back, ?digest, request_id, "a good token may not pass: {unmet}{values}");
            }
            None => debug!(?digest, request_id, "a good token may not pass: {unmet}{values}"),
        }
    }

    /// Of the token that the request came with. It is made again here rather than kept: this is rare.
    fn digest(&self) -> Option<TokenDigest> {
        let credential = Credential::extract(self.headers, &self.instance.settings.credential).ok()?;
        Some(self.instance.digester.token(credential.token().as_bytes()))
    }

    /// As the proxy, or whoever is before it, named the request. A client may have written it, so what is no
    /// plain id is not shown.
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

    /// What the route asks for under this name. Not an address: that is a user's.
    fn values(&self, name: &str) -> String {
        let values = self.required.values_of(name);
        if values.is_empty() {
            return String::new();
        }
        let shown = values.iter().take(8).map(|value| match value.len() {
            _ if name == Requirement::Email.name() => "(an address)".to_owned(),
            0..=MAX_SHOWN => value.escape_debug().to_string(),
            bytes => format!("({bytes} bytes)"),
        });
        format!(": {name}={}", shown.collect::<Vec<_>>().join(" or "))
    }
}
