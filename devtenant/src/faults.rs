//! The faults of a remote service, on demand.

use std::time::Duration;

use hyper::Response;
use serde_json::json;

use crate::body::{self, AnswerBody};
use crate::serve::{answer, json_answer};

/// The endpoint of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`
    Discovery,
    /// `/.well-known/jwks.json`
    Jwks,
    /// `/userinfo`
    Userinfo,
    /// All three.
    All,
}

/// A fault. It stays until another is set or [`clear_faults`](crate::Tenant::clear_faults).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, as for the tenant's limit.
    RateLimited {
        /// `Retry-After` as it stands: seconds, an HTTP date, or nonsense.
        retry_after: Option<String>,
        /// `X-RateLimit-Reset`, Unix seconds.
        reset: Option<u64>,
    },
    /// 429, as for one user's limit: `X-RateLimit-Limit: 10`, a slot again in 12 seconds.
    UserRateLimited,
    /// This status, with a short JSON body.
    Status(u16),
    /// The right answer, but late.
    Slow(Duration),
    /// No answer; the connection stays open.
    Hang,
    /// The request is read, then the connection reset (TCP RST).
    Reset,
    /// 200 with a page of HTML.
    Garbage,
    /// 200 with JSON that is a list.
    WrongShape,
    /// 200 with a JSON object of this many bytes, sent in chunks.
    Huge(usize),
    /// 200 with a length that the body does not reach before the connection closes.
    Truncated,
    /// JWKS only: the same key ids over keys that sign nothing.
    WrongKey,
    /// JWKS only: `{"keys":[]}`.
    EmptyKeys,
    /// `/userinfo` only: the right answer for somebody else, `auth0|somebody-else`.
    WrongSubject,
    /// `/userinfo` only: the right answer without `sub`.
    NoSubject,
    /// 302 to this URL.
    Redirect(String),
    /// 403.
    Forbidden,
    /// `/userinfo` only: 431 to an `Authorization` of more than this many bytes, as an edge gives it; else
    /// the right answer.
    TooLong(usize),
    /// Exactly this answer. Headers that HTTP does not allow are left out.
    Custom {
        /// The status.
        status: u16,
        /// The headers, in order.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
}

impl Fault {
    /// The answer of a fault that needs neither the connection nor the right answer; `None` for the others.
    pub(crate) fn canned_answer(&self, now: u64) -> Option<Response<AnswerBody>> {
        Some(match self {
            Self::RateLimited { retry_after, reset } => {
                let mut headers = vec![
                    ("x-ratelimit-limit".to_owned(), "300".to_owned()),
                    ("x-ratelimit-remaining".to_owned(), "0".to_owned()),
                ];
                headers.extend(reset.map(|reset| ("x-ratelimit-reset".to_owned(), reset.to_string())));
                headers.extend(retry_after.clone().map(|value| ("retry-after".to_owned(), value)));
                too_many_requests("Global limit has been reached", &headers)
            }
            Self::UserRateLimited => too_many_requests(
                "User limit has been reached",
                &[
                    ("x-ratelimit-limit".to_owned(), "10".to_owned()),
                    ("x-ratelimit-remaining".to_owned(), "0".to_owned()),
                    ("x-ratelimit-reset".to_owned(), now.saturating_add(12).to_string()),
                    ("retry-after".to_owned(), "12".to_owned()),
                ],
            ),
            Self::Status(status) => json_answer(*status, &json!({ "error": "dev_fault" })),
            Self::Garbage => {
                let page = "<!doctype html><title>Maintenance</title><p>We will be back soon.";
                answer(200, &[header("content-type", "text/html; charset=utf-8")], body::full(page))
            }
            Self::WrongShape => json_answer(200, &json!(["this", "is", "no", "object"])),
            Self::Huge(size) => answer(200, &[header("content-type", "application/json")], body::huge(*size)),
            Self::Truncated => answer(
                200,
                &[header("content-type", "application/json"), header("content-length", "4096")],
                body::truncated(r#"{"sub":"auth0|alice","email":"al"#),
            ),
            Self::Redirect(to) => answer(302, &[header("location", to)], body::full("")),
            Self::Forbidden => json_answer(403, &json!({ "error": "access_denied" })),
            Self::Custom { status, headers, body } => answer(*status, headers, body::full(body.clone())),
            Self::Slow(_)
            | Self::Hang
            | Self::Reset
            | Self::WrongKey
            | Self::EmptyKeys
            | Self::WrongSubject
            | Self::NoSubject
            | Self::TooLong(_) => return None,
        })
    }
}

/// 429 in Auth0's words.
pub(crate) fn too_many_requests(description: &str, headers: &[(String, String)]) -> Response<AnswerBody> {
    let body = json!({ "error": "too_many_requests", "error_description": description });
    let mut all = vec![header("content-type", "application/json")];
    all.extend_from_slice(headers);
    answer(429, &all, body::full(body.to_string()))
}

pub(crate) fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The faults that are set now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    discovery: Option<Fault>,
    jwks: Option<Fault>,
    userinfo: Option<Fault>,
}

impl Faults {
    pub(crate) fn set(&mut self, endpoint: Endpoint, fault: &Fault) {
        let chosen = |one: Endpoint| endpoint == one || endpoint == Endpoint::All;
        if chosen(Endpoint::Discovery) {
            self.discovery = Some(fault.clone());
        }
        if chosen(Endpoint::Jwks) {
            self.jwks = Some(fault.clone());
        }
        if chosen(Endpoint::Userinfo) {
            self.userinfo = Some(fault.clone());
        }
    }

    pub(crate) fn of(&self, endpoint: Endpoint) -> Option<Fault> {
        match endpoint {
            Endpoint::Discovery => self.discovery.clone(),
            Endpoint::Jwks => self.jwks.clone(),
            Endpoint::Userinfo => self.userinfo.clone(),
            Endpoint::All => None,
        }
    }
}
