//! Operator requests: JSON objects that are posted to the admin listener and change something.
//!
//! An operator request needs the token of `admin.token_file`. Without such a file, requests are accepted over
//! loopback, and over connections whose client has shown a certificate of `admin.tls.client_ca`: either
//! proves who sends them. With both settings, both are needed, so that a monitoring system with a certificate
//! cannot change anything.
//!
//! An operator request must have the media type of JSON, and must not come from a web page. A page in an
//! operator's browser can post a form to a loopback address. It can also post JSON if its own name resolves
//! there (DNS rebinding).

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::{HeaderMap, Request, StatusCode};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::listener::Client;
use super::plain::{Reply, is_of_type, text, whole};
use crate::admin_token::AdminToken;
use crate::credential::MAX_TOKEN_BYTES;
use crate::instance::Instance;

/// The longest request, in bytes: a token, and the JSON around it.
const MAX_BODY_BYTES: usize = 2 * MAX_TOKEN_BYTES;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum OperatorError {
    /// Its `Content-Type` is not JSON.
    #[error("send JSON, with Content-Type: application/json")]
    MediaType,
    /// It has an `Origin` header. Browsers send it with every POST (Fetch Standard §3.1); `holdfast` never
    /// does.
    #[error("operator requests are not accepted from web pages: send no Origin header")]
    WebPage,
    /// The body did not arrive, or is too long.
    #[error("the body did not arrive within 5 s, or is longer than {} KiB", .0 / 1024)]
    Body(usize),
    /// It is none of these objects. The error does not repeat the body, which may contain a token.
    #[error("the body is none of {0}")]
    Unknown(&'static str),
    /// It has no token, or a wrong one.
    #[error("send the token in admin.token_file of this instance, as Authorization: Bearer")]
    Token,
    /// It does not come over loopback, and nothing is configured that proves who sends it.
    #[error("operator requests are accepted over loopback only: set admin.token_file or admin.tls.client_ca")]
    Remote,
    /// It is an import, which says who users are, and nothing proves who sends it.
    #[error(
        "an import says who users are, so it needs admin.token_file or admin.tls.client_ca; or stop \
         holdfast, and import into its data directory"
    )]
    Untokened,
    /// Its time cannot be read, or is too far ahead.
    #[error("\"issued_before\" is a time such as 2026-01-31T12:00:00Z, at most 5 minutes from now")]
    IssuedBefore,
    /// Its `for` cannot be read, or is too short or too long.
    #[error(r#""for" is a duration from 1s to 24h, such as 90s, 10m, 2h"#)]
    Duration,
    /// It is a reset with a `for`.
    #[error(r#"a reset has no end: leave out "for""#)]
    ResetForATime,
    /// It names a breaker that does not exist; these do.
    #[error("there is no such breaker; the breakers are {0}")]
    NoSuchBreaker(String),
    /// It names an issuer that is not configured: a request about it would do nothing.
    #[error(
        "no issuer {named:?} is configured{}",
        .nearest.as_ref().map_or_else(String::new, |nearest| format!("; is {nearest:?} meant?"))
    )]
    NoSuchIssuer {
        /// The issuer that it names.
        named: String,
        /// The configured issuer with the most similar name.
        nearest: Option<String>,
    },
}

impl OperatorError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::WebPage | Self::Remote | Self::Untokened => StatusCode::FORBIDDEN,
            Self::NoSuchBreaker(_) => StatusCode::NOT_FOUND,
            Self::Body(_)
            | Self::Unknown(_)
            | Self::IssuedBefore
            | Self::Duration
            | Self::ResetForATime
            | Self::NoSuchIssuer { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer to a refused request.
    pub(super) fn answer(&self) -> Reply {
        text(self.status(), format!("{self}\n"))
    }
}

/// Checks whether `client` may send operator requests.
pub(super) fn check(headers: &HeaderMap, client: Client, instance: &Instance) -> Result<(), OperatorError> {
    check_with(instance.admin_token.as_ref(), headers, client)
}

fn check_with(token: Option<&AdminToken>, headers: &HeaderMap, client: Client) -> Result<(), OperatorError> {
    match token {
        None if client.is_certified || client.peer.is_loopback() => Ok(()),
        None => Err(OperatorError::Remote),
        Some(token) if token.is_in(headers) => Ok(()),
        Some(_) => Err(OperatorError::Token),
    }
}

/// The issuers that a request applies to: the named one, or all.
pub(super) fn issuers(named: Option<String>, instance: &Instance) -> Result<Vec<String>, OperatorError> {
    match named {
        Some(named) => match instance.issuers.named(Some(&named)) {
            Ok(issuer) => Ok(vec![issuer.name().to_string()]),
            Err(_) => Err(no_such(named, instance)),
        },
        None => Ok(instance.issuers.iter().map(|issuer| issuer.name().to_string()).collect()),
    }
}

fn no_such(named: String, instance: &Instance) -> OperatorError {
    let distance = |issuer: &str| strsim::damerau_levenshtein(issuer, &named);
    let names = instance.issuers.iter().map(|issuer| issuer.name().to_string());
    let nearest = names.min_by_key(|issuer| distance(issuer));
    OperatorError::NoSuchIssuer { named, nearest }
}

/// Refuses a request that a browser sends for a web page.
pub(super) fn refuse_web_pages(headers: &HeaderMap) -> Result<(), OperatorError> {
    if headers.contains_key(ORIGIN) { Err(OperatorError::WebPage) } else { Ok(()) }
}

/// Reads a request. `unknown` is the error if the body is not a `T`.
pub(super) async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    unknown: OperatorError,
) -> Result<T, OperatorError> {
    read_up_to(MAX_BODY_BYTES, request, unknown).await
}

/// Like [`read`], for a request of at most `max_bytes`.
pub(super) async fn read_up_to<T: DeserializeOwned>(
    max_bytes: usize,
    request: Request<Incoming>,
    unknown: OperatorError,
) -> Result<T, OperatorError> {
    refuse_web_pages(request.headers())?;
    if !is_of_type(request.headers(), "application/json") {
        return Err(OperatorError::MediaType);
    }
    let body = whole(request.into_body(), max_bytes, BODY_TIMEOUT).await;
    let body = body.ok_or(OperatorError::Body(max_bytes))?;
    serde_json::from_slice(&body).map_err(|_| unknown)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;
    use crate::route::peer::Peer;

    #[test]
    fn an_order_needs_the_token_or_else_loopback_or_a_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "0123456789abcdef").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let token = AdminToken::load(&file).unwrap();
        let with_token =
            HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef"))]);
        let remote = Peer::Address([10, 0, 0, 1].into());
        let local = Peer::Address([127, 0, 0, 1].into());
        for (peer, is_certified, without_file, with_file) in [
            (remote, false, Err(OperatorError::Remote), Err(OperatorError::Token)),
            (remote, true, Ok(()), Err(OperatorError::Token)),
            (local, false, Ok(()), Err(OperatorError::Token)),
            (local, true, Ok(()), Err(OperatorError::Token)),
        ] {
            let client = Client { peer, is_certified };
            let what = format!("{client:?}");
            assert_eq!(check_with(None, &HeaderMap::new(), client), without_file, "{what}");
            assert_eq!(check_with(None, &with_token, client), without_file, "{what}, with some token");
            assert_eq!(check_with(Some(&token), &HeaderMap::new(), client), with_file, "{what}");
            assert_eq!(check_with(Some(&token), &with_token, client), Ok(()), "{what}");
        }
    }
}
