//! Decision → HTTP. The only place that knows status codes and the names of the headers that are not
//! configured.
//!
//! Every body is empty with `Content-Length: 0`, because nginx keeps the connection to an auth server only
//! then. No proxy on the way may cache an answer, because it would ignore revocation and `exp`. The one
//! exception is the metadata of the resource, which is the same for everybody.

mod age;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Response, StatusCode};

use self::age::Ages;
use crate::clock::Timestamp;
use crate::credential::CredentialError;
use crate::decision::header_rule::HeaderRule;
use crate::decision::names::AGE;
use crate::decision::{Anonymous, Decision, Pass, StepUp, Unmet};
use crate::login::LoginAnswer;
use crate::resource::ProtectedResource;
use crate::sender::Unproven;
use crate::token::dpop;
use crate::token::refusal::Refusal;

const LOGIN_URL: HeaderName = HeaderName::from_static("x-auth-login-url");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Short, because after a change of the issuers clients should soon find the new one.
const METADATA_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The methods that the metadata of the resource answers.
const METADATA_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// An answer. Only the metadata of the resource has a body.
pub type Answer = Response<Full<Bytes>>;

/// Outcome and reason, for the metric.
pub type Label = (&'static str, &'static str);

/// Turns decisions into answers.
pub struct Responder {
    undecided: StatusCode,
    rules: Arc<[HeaderRule]>,
    ages: Ages,
    resource: Option<ProtectedResource>,
}

impl Responder {
    /// A responder with this status for "cannot tell", these headers of an allow, and the resource that
    /// challenges point to.
    #[must_use]
    pub fn new(undecided_status: u16, rules: Arc<[HeaderRule]>, resource: Option<ProtectedResource>) -> Self {
        let undecided = StatusCode::from_u16(undecided_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Self { undecided, rules, ages: Ages::new(), resource }
    }

    /// The metadata of the resource, if this is its path (RFC 9728 §3). Scripts of any origin may read it:
    /// it is public, and it is the same for everybody. `*` lets them send `MCP-Protocol-Version`.
    pub fn metadata(&self, path: &str, method: &Method, close: bool) -> Option<Answer> {
        let resource = self.resource.as_ref().filter(|resource| resource.path() == path)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let (status, body) = match *method {
            Method::GET | Method::HEAD => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(CACHE_CONTROL, METADATA_CACHE);
                (StatusCode::OK, resource.document())
            }
            Method::OPTIONS => {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METADATA_METHODS);
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
                headers.insert(ALLOW, METADATA_METHODS);
                (StatusCode::NO_CONTENT, Bytes::new())
            }
            _ => {
                headers.insert(ALLOW, METADATA_METHODS);
                (StatusCode::METHOD_NOT_ALLOWED, Bytes::new())
            }
        };
        let mut answer = finish(status, headers, close);
        *answer.body_mut() = Full::new(body);
        Some(answer)
    }

    /// An allow. `headers` is the request's own map, emptied and filled again: hyper keeps it from request to
    /// request, so that an answer needs no memory of its own.
    pub fn allow(&self, mut headers: HeaderMap, pass: &Pass, now: Timestamp, close: bool) -> Answer {
        headers.clear();
        for (name, value) in pass.headers(&self.rules) {
            headers.insert(name, value);
        }
        headers.insert(AGE, self.ages.value(pass.age_secs(now)));
        finish(StatusCode::OK, headers, close)
    }

    /// An allow without an identity.
    pub fn allow_anonymous(&self, mut headers: HeaderMap, anonymous: &Anonymous, close: bool) -> Answer {
        headers.clear();
        for (name, value) in anonymous.headers() {
            headers.insert(name.clone(), value.clone());
        }
        finish(StatusCode::OK, headers, close)
    }

    /// Any other decision.
    pub fn decline(&self, mut headers: HeaderMap, decision: &Decision, close: bool) -> (Answer, Label) {
        headers.clear();
        let (status, label) = match decision {
            // `allow` answers an allow. An allow here would be a bug, and a bug must not let a request in.
            Decision::Allow(_) | Decision::Misconfigured(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, ("error", "bad_requirement"))
            }
            Decision::NoCredential(error) => {
                headers.insert(WWW_AUTHENTICATE, self.challenge(no_credential_challenge(*error).into()));
                (StatusCode::UNAUTHORIZED, ("unauthenticated", error.reason()))
            }
            Decision::Refused(refusal) => {
                let (status, challenge) = refusal_challenge(refusal);
                headers.insert(WWW_AUTHENTICATE, self.challenge(challenge.into()));
                let outcome = if status == StatusCode::FORBIDDEN { "forbidden" } else { "unauthenticated" };
                (status, (outcome, refusal.reason()))
            }
            Decision::Unproven(unproven) => {
                headers.insert(WWW_AUTHENTICATE, self.challenge(unproven_challenge(*unproven).into()));
                (StatusCode::UNAUTHORIZED, ("unauthenticated", unproven.reason()))
            }
            // No credential would help, so there is no challenge.
            Decision::Closed(closed) => (StatusCode::FORBIDDEN, ("forbidden", closed.reason())),
            Decision::Forbidden(Unmet::TooOld) => {
                headers.insert(RETRY_AFTER, seconds(Duration::from_secs(5)));
                (self.undecided, ("undecided", "max_tier"))
            }
            Decision::Forbidden(Unmet::StepUp(login)) => {
                headers.insert(WWW_AUTHENTICATE, self.challenge(login_challenge(login).into()));
                (StatusCode::UNAUTHORIZED, ("unauthenticated", login.requirement))
            }
            Decision::Forbidden(unmet) => {
                headers.insert(WWW_AUTHENTICATE, self.challenge(INSUFFICIENT_SCOPE.into()));
                let reason = match unmet {
                    Unmet::Requirement(name) | Unmet::Unknowable(name) => name,
                    Unmet::EmailNotAllowed => "email_not_allowed",
                    Unmet::TooLarge { .. } => "headers_too_large",
                    Unmet::Header(_) | Unmet::TooOld | Unmet::StepUp(_) => "missing_claim",
                };
                (StatusCode::FORBIDDEN, ("forbidden", reason))
            }
            Decision::Undecided { reason, retry_after } => {
                headers.insert(RETRY_AFTER, seconds(*retry_after));
                (self.undecided, ("undecided", *reason))
            }
        };
        (finish(status, headers, close), label)
    }

    /// A challenge, which says where the metadata of the resource is (RFC 9728 §5.1).
    fn challenge(&self, text: Cow<'static, str>) -> HeaderValue {
        let text = match (&self.resource, text) {
            (None, Cow::Borrowed(text)) => return HeaderValue::from_static(text),
            (None, Cow::Owned(text)) => text,
            (Some(resource), text) => format!("{text}, resource_metadata=\"{}\"", resource.metadata_url()),
        };
        // The text is visible ASCII: a URL in its normal form is, and a requirement that is not is refused.
        HeaderValue::try_from(text).unwrap_or(const { HeaderValue::from_static("Bearer") })
    }

    /// Sends the browser that would get this 401 to the login page.
    #[must_use]
    pub fn offer_login(&self, mut answer: Answer, url: HeaderValue, by: LoginAnswer) -> Answer {
        match by {
            LoginAnswer::Header => _ = answer.headers_mut().insert(LOGIN_URL, url),
            LoginAnswer::Redirect => {
                *answer.status_mut() = StatusCode::FOUND;
                answer.headers_mut().remove(WWW_AUTHENTICATE);
                answer.headers_mut().insert(LOCATION, url);
            }
        }
        answer
    }

    /// 404: nothing is served at this path.
    pub fn not_found(&self, mut headers: HeaderMap, close: bool) -> Answer {
        headers.clear();
        finish(StatusCode::NOT_FOUND, headers, close)
    }
}

fn finish(status: StatusCode, mut headers: HeaderMap, close: bool) -> Answer {
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// A challenge with an error code (RFC 6750 §3).
macro_rules! bearer {
    ($error:literal, $description:literal) => {
        concat!("Bearer realm=\"holdfast\", error=\"", $error, "\", error_description=\"", $description, "\"")
    };
}

/// RFC 6750 §3.1: without credentials, no error code; else `invalid_request`.
fn no_credential_challenge(error: CredentialError) -> &'static str {
    match error {
        CredentialError::Missing | CredentialError::OtherScheme => r#"Bearer realm="holdfast""#,
        CredentialError::Several | CredentialError::SeveralCookies => {
            bearer!("invalid_request", "More than one credential")
        }
        CredentialError::Incomplete => {
            bearer!("invalid_request", "The cookie is incomplete")
        }
        CredentialError::TooLong => {
            bearer!("invalid_request", "The access token is too long")
        }
        CredentialError::Grammar => {
            bearer!("invalid_request", "The access token is malformed")
        }
    }
}

/// The client learns that the token is refused and whether a new one would help; the exact reason is in the
/// log.
fn refusal_challenge(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::IssuerForbids { .. } => (StatusCode::FORBIDDEN, INSUFFICIENT_SCOPE),
        Refusal::Expired { .. } => {
            (StatusCode::UNAUTHORIZED, bearer!("invalid_token", "The access token expired"))
        }
        _ => (StatusCode::UNAUTHORIZED, bearer!("invalid_token", "The access token is invalid")),
    }
}

/// RFC 9449 §7.1 if the token should be bound to a key, RFC 8705 §3 if to a certificate. The client learns
/// the reason, because only it can make a better proof.
fn unproven_challenge(unproven: Unproven) -> String {
    let reason = unproven.reason();
    match unproven {
        Unproven::NoCertificate
        | Unproven::UnclearCertificate
        | Unproven::OtherCertificate
        | Unproven::Unreadable => format!(bearer!("invalid_token", "The sender is not proven ({})"), reason),
        _ => {
            let error = if unproven.is_about_the_proof() { "invalid_dpop_proof" } else { "invalid_token" };
            let algorithms = dpop::algorithm_names().join(" ");
            format!(
                "DPoP realm=\"holdfast\", algs=\"{algorithms}\", error=\"{error}\", \
                 error_description=\"The sender is not proven ({reason})\""
            )
        }
    }
}

/// RFC 9470 §3: the login with which the same request would be let in.
fn login_challenge(login: &StepUp) -> String {
    let error = bearer!("insufficient_user_authentication", "Another login is required here");
    let wanted = [("acr_values", &login.acr_values), ("max_age", &login.max_age)];
    let wanted = wanted.iter().filter(|(_, value)| !value.is_empty());
    let wanted: String = wanted.map(|(name, value)| format!(", {name}=\"{value}\"")).collect();
    // A requirement whose values are not visible ASCII without quotes is refused before.
    format!("{error}{wanted}")
}

const INSUFFICIENT_SCOPE: &str = bearer!("insufficient_scope", "The access token does not suffice here");

/// Rounded up: a client that asks too early would only have to wait again.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_millis().div_ceil(1000).clamp(1, 86_400) as u64)
}
