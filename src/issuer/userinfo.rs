//! Calls to `/userinfo`, and the issuer's answer about a token (OpenID Connect Core 1.0 §5.3).

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Request};
use serde_json::Value;
use url::Url;

use super::client::CallError;
use super::rejection::Rejection;
use crate::clock::Timestamp;
use crate::guard::{Priority, SubjectKey};
use crate::token::json::Object;
use crate::token::lenient;
use crate::token::refusal::Refusal;

/// What `/userinfo` says of a token that it does not accept.
const REFUSAL: &str = "401 from /userinfo";

/// Whether `/userinfo` may have the email of a token that was verified here.
///
/// Auth0 accepts a token there only if its `aud` lists the endpoint, which it does if the client asked for
/// `openid` ("Access Token Profiles"). The `aud` of a machine's token never does, nor that of a token that is
/// bound to another resource (RFC 8707). A call with such a token gets a 401 that says nothing about the
/// token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `aud` lists the endpoint: its answer about the token counts.
    Listed,
    /// `scope` has `openid`, and `aud` does not list the endpoint: it may answer, and a 401 or 403 only means
    /// that there is no email.
    Possible,
    /// The endpoint would refuse the token.
    None,
}

impl Reach {
    /// By the claims of a verified token; `endpoint` is the address of `/userinfo`.
    #[must_use]
    pub fn of(claims: &Object, endpoint: &str) -> Self {
        let listed = claims.get("aud").is_some_and(|aud| lenient::texts(aud).any(|aud| aud == endpoint));
        let openid = || {
            let scopes = ["scope", "scp"].into_iter().filter_map(|name| claims.get(name));
            scopes.flat_map(lenient::words).any(|scope| scope == "openid")
        };
        match listed {
            true => Self::Listed,
            false if openid() => Self::Possible,
            false => Self::None,
        }
    }
}

/// Asks about a token, which is its own credential (§5.3.1).
///
/// # Errors
/// [`CallError::Unsendable`].
pub fn call(endpoint: &Url, token: &str) -> Result<Request, CallError> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| CallError::Unsendable)?;
    bearer.set_sensitive(true);
    let mut call = Request::new(Method::GET, endpoint.clone());
    call.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(call)
}

/// A query about a token.
#[derive(Clone)]
pub struct UserinfoQuery {
    /// The token. For `/userinfo` it is the credential, too.
    pub token: String,
    /// The subject that the token names, if that was verified; the answer must be about it.
    pub subject: Option<String>,
    /// The subject of the issuer's per-user limit.
    pub about: Option<SubjectKey>,
    /// Whether a request waits for the answer.
    pub priority: Priority,
}

/// The issuer's answer about a token.
#[derive(Clone, Debug, PartialEq)]
pub enum UserinfoAnswer {
    /// It accepts the token; these are the claims about its subject.
    Accepted {
        /// `sub`, not empty.
        subject: String,
        /// All claims.
        claims: Object,
        /// When the token was issued, if the answer says so; `/userinfo` does not.
        issued_at: Option<Timestamp>,
        /// When the token ends, if the answer says so; `/userinfo` does not.
        expires_at: Option<Timestamp>,
    },
    /// A definitive no.
    Refused(Refusal),
}

impl From<Refusal> for UserinfoAnswer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl UserinfoAnswer {
    /// The acceptance that these claims are. If the token's own subject is known, they must be about the same
    /// (§5.3.2 demands it).
    ///
    /// # Errors
    /// What is wrong with the claims; then nothing in them counts.
    pub fn accepted(claims: Object, expected_subject: Option<&str>) -> Result<Self, &'static str> {
        let subject = subject_of(&claims).ok_or("the answer of /userinfo has no subject")?.to_owned();
        if expected_subject.is_some_and(|expected| expected != subject) {
            return Err("the answer of /userinfo is about another subject");
        }
        Ok(Self::Accepted { subject, claims, issued_at: None, expires_at: None })
    }

    /// The refusal that a 401 or 403 is.
    #[must_use]
    pub fn refused(status: u16, rejection: Rejection) -> Self {
        Refusal::of_issuer(REFUSAL, status == 403, rejection.is_certain()).into()
    }
}

/// Whom claims are about; `None` if `sub` is empty or longer than a subject may be (OpenID Connect Core 1.0
/// §2).
#[must_use]
pub fn subject_of(claims: &Object) -> Option<&str> {
    claims.get("sub").and_then(Value::as_str).filter(|subject| (1..=255).contains(&subject.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::json;

    #[test]
    fn only_an_answer_about_the_right_subject_counts() {
        let read =
            |body: &str| UserinfoAnswer::accepted(json::object(body.as_bytes()).unwrap(), Some("auth0|a"));
        assert!(matches!(read(r#"{"sub":"auth0|a"}"#), Ok(UserinfoAnswer::Accepted { .. })));
        for body in [r#"{"sub":"auth0|b"}"#, r#"{"sub":7}"#, r#"{"sub":""}"#, "{}"] {
            assert!(read(body).is_err(), "{body}");
        }
        let refused = |status| UserinfoAnswer::refused(status, Rejection::Certain);
        assert_eq!(refused(401), Refusal::of_issuer(REFUSAL, false, true).into());
        assert_eq!(refused(403), Refusal::IssuerForbids { certain: true }.into());
    }

    #[test]
    fn userinfo_is_in_reach_by_audience_or_scope() {
        let reach = |text: &str| Reach::of(&json::object(text.as_bytes()).unwrap(), "https://t/userinfo");
        for (text, expected) in [
            (r#"{"aud":["https://api","https://t/userinfo"]}"#, Reach::Listed),
            (r#"{"aud":"https://t/userinfo","scope":"read"}"#, Reach::Listed),
            (r#"{"aud":"https://api","scope":"read openid"}"#, Reach::Possible),
            (r#"{"aud":"https://api","scp":["read","openid"]}"#, Reach::Possible),
            (r#"{"aud":"https://api","scope":"read"}"#, Reach::None),
            (r#"{"aud":["https://api","https://t/userinfo/"],"scope":"openidx"}"#, Reach::None),
            (r#"{"aud":"https://api"}"#, Reach::None),
        ] {
            assert_eq!(reach(text), expected, "{text}");
        }
    }
}
