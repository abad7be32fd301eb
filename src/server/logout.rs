//! `POST /backchannel-logout` on the auth listener.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tracing::{info, warn};

use super::plain::{is_of_type, whole};
use crate::instance::Instance;
use crate::logout::{BackchannelLogout, LogoutContext, LogoutError};
use crate::respond::Answer;

/// The path that the issuer posts to.
pub const LOGOUT_PATH: &str = "/backchannel-logout";

/// The longest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive. Auth0 waits 5 s for the answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers one logout request (§2.5 to §2.8 of the specification): 200 when the logout is in force and
/// stored, 400 if it is refused, 503 if repeating it may succeed.
pub(super) async fn answer(
    instance: &Instance,
    logout: &BackchannelLogout,
    parts: Parts,
    body: Incoming,
) -> Answer {
    if parts.method != Method::POST {
        let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    let read = match logout.try_read() {
        Some(_turn) => token(&parts, body).await.map_err(|problem| (StatusCode::BAD_REQUEST, problem)),
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "too many bodies are being read")),
    };
    let done = match read {
        Err((status, problem)) => Err((status, problem.to_owned())),
        Ok(token) => {
            let with = LogoutContext {
                verifier: &instance.verifier,
                revocations: &instance.revocations,
                digester: &instance.digester,
                clock: &instance.clock,
                leeway: instance.settings.policy.leeway,
                keep: instance.settings.revocation.keep,
            };
            logout.receive(&token, with).await.map_err(|error| (status(&error), error.to_string()))
        }
    };
    match done {
        Ok(()) => {
            instance.metrics.logged_out("done");
            info!("a logout from the issuer is in force");
            empty(StatusCode::OK)
        }
        Err((status, problem)) => {
            instance.metrics.logged_out(if status == StatusCode::BAD_REQUEST {
                "refused"
            } else {
                "undecided"
            });
            if let Some(suppressed) = instance.refused_logouts.allow(instance.clock.now()) {
                warn!(suppressed, "a logout request was answered with {}: {problem}", status.as_u16());
            }
            let mut answer = empty(status);
            if status != StatusCode::BAD_REQUEST {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            answer
        }
    }
}

const fn status(error: &LogoutError) -> StatusCode {
    match error {
        LogoutError::Refused(_) | LogoutError::Repeated => StatusCode::BAD_REQUEST,
        LogoutError::CannotTell(_) | LogoutError::Busy | LogoutError::NotStored(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The only `logout_token` of a form. A form does not escape the characters of a token, so an escaped value
/// is not a token.
async fn token(parts: &Parts, body: Incoming) -> Result<String, &'static str> {
    if !is_of_type(&parts.headers, "application/x-www-form-urlencoded") {
        return Err("its Content-Type is not application/x-www-form-urlencoded");
    }
    let body = whole(body, MAX_BODY_BYTES, BODY_TIMEOUT).await;
    let body = body.ok_or("its body did not arrive in time, or is longer than 64 KiB")?;
    let text = std::str::from_utf8(&body).map_err(|_| "its body is not text")?;
    let mut fields = text.split('&').filter_map(|field| field.strip_prefix("logout_token="));
    match (fields.next(), fields.next()) {
        (Some(token), None) if !token.is_empty() => Ok(token.to_owned()),
        (Some(_), Some(_)) => Err("it has more than one logout_token"),
        _ => Err("it has no logout_token"),
    }
}

/// An answer without a body. It closes the connection, because the request's body may not be read to its end.
fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
