//! Whether a 401 or 403 is the issuer's own.
//!
//! A firewall, a content network or a gateway in front of the issuer also refuses requests, by address,
//! country or load, and knows nothing about the token. If its refusal counted as the issuer's, users would be
//! locked out, and their records would be missing in the next outage. So a refusal counts only if it has the
//! form in which an issuer refuses a token. Everything else is "cannot tell".
//!
//! Auth0 answers a token that it does not know, that has expired, or whose user is blocked, with 401, the
//! text `Unauthorized`, and `WWW-Authenticate: Bearer realm="Users", error="invalid_token",
//! error_description="…"`; in older tenants with `{"error":"unauthorized","error_description":"…"}`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde_json::Value;

use super::client::Reply;
use crate::token::json;

/// What the issuer says about the token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It gives the reason as RFC 6750 §3.1 defines it (`invalid_token`, `insufficient_scope`), or in Auth0's
    /// own form. Records of the token are no longer valid.
    Certain,
    /// It refuses without a reason. That refuses this request only: a gateway before the issuer may have sent
    /// it, so records stay.
    Uncertain,
}

/// The errors by which an issuer refuses a token: RFC 6750 §3.1, and Auth0's own.
const CERTAIN: [&str; 3] = ["invalid_token", "insufficient_scope", UNAUTHORIZED];

/// Auth0's own, with an `error_description`.
const UNAUTHORIZED: &str = "unauthorized";

/// RFC 6749 §4.1.2.1; gateways say it as well.
const UNCERTAIN: &str = "access_denied";

impl Rejection {
    /// Whether it gives a reason.
    #[must_use]
    pub fn is_certain(self) -> bool {
        self == Self::Certain
    }

    /// Reads an answer of status 401 or 403; `None` if it is not the issuer's. A challenge (RFC 6750 §3, RFC
    /// 9449 §7.1) counts for a 401 and a 403, and so does an OAuth error in JSON.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Rejection> = lines.filter_map(challenge).collect();
        let error = oauth_error(status, body);
        let says_why = challenges.contains(&Self::Certain);
        if says_why || error.as_deref().is_some_and(|error| CERTAIN.contains(&error)) {
            Some(Self::Certain)
        } else {
            (!challenges.is_empty() || error.is_some()).then_some(Self::Uncertain)
        }
    }
}

/// Whether an answer to a call with our own credentials as a client refuses these (RFC 6749 §5.2, RFC 7662
/// §2.3), and not the request. A page of a firewall is neither.
#[must_use]
pub fn refuses_client(reply: &Reply) -> bool {
    let body = json::object(&reply.body).ok();
    let error = body.as_ref().and_then(|body| body.get("error")).and_then(Value::as_str);
    match reply.status {
        400 => matches!(error, Some("invalid_client" | "unauthorized_client")),
        401 | 403 => error.is_some() || reply.headers.contains_key(WWW_AUTHENTICATE),
        _ => false,
    }
}

/// What the challenges for a token in this line (RFC 9110 §11.6.1) say; `None` if none is for a token.
fn challenge(line: &str) -> Option<Rejection> {
    let (mut is_for_a_token, mut said) = (false, None);
    for part in parts(line) {
        let (word, rest) = part.split_once([' ', '\t']).unwrap_or((part, ""));
        // A first word without `=`, and with none after it, is a scheme and begins a challenge.
        let parameter = if word.contains('=') || rest.trim_start().starts_with('=') {
            part
        } else {
            is_for_a_token = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("dpop");
            rest
        };
        if !is_for_a_token {
            continue;
        }
        said = said.or(Some(Rejection::Uncertain));
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("error")
            && CERTAIN.contains(&value.trim().trim_matches('"'))
        {
            said = Some(Rejection::Certain);
        }
    }
    said
}

/// The parts of a line, split at commas outside quoted strings (RFC 9110 §5.6.4).
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = line.split(move |c| {
        let ends = c == ',' && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// The error that a JSON body names (RFC 6749 §5.2), or Auth0's form with the status in it.
fn oauth_error(status: u16, body: &[u8]) -> Option<String> {
    let object = json::object(body).ok()?;
    let error = object.get("error").and_then(Value::as_str)?;
    let is_auth0s = object.get("statusCode").and_then(Value::as_u64) == Some(u64::from(status))
        && object.get("message").is_some_and(Value::is_string);
    // Gateways say this as well; Auth0 says why.
    let says_why = error != UNAUTHORIZED || object.get("error_description").is_some_and(Value::is_string);
    (is_auth0s || error == UNCERTAIN || CERTAIN.contains(&error) && says_why).then(|| error.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn read(status: u16, challenge: &str, body: &str) -> Option<Rejection> {
        let mut headers = HeaderMap::new();
        if !challenge.is_empty() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
        }
        Rejection::read(status, &headers, body.as_bytes())
    }

    #[test]
    fn what_stands_before_the_issuer_says_nothing_about_a_token() {
        for body in [
            "",
            "error code: 1020",
            r#"{"message":"Forbidden"}"#,
            r#"{"error":"Forbidden"}"#,
            r#"{"error":{"code":403}}"#,
            r#"{"error":"rate limited","message":"blocked by rule 17"}"#,
            r#"{"statusCode":500,"error":"Unauthorized","message":"x"}"#,
            r#"{"error":"unauthorized"}"#,
            r#"["access_denied"]"#,
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
            "<html><title>403 Forbidden</title></html>",
            "Unauthorized",
        ] {
            for challenge in [
                "",
                "Basic realm=\"edge\"",
                "Negotiate",
                "Digest realm=\"Bearer\"",
                "Basic realm=\"a, Bearer error=invalid_token\"",
                "Basic realm=\"a \\\", Bearer error=invalid_token\"",
            ] {
                for status in [401, 403] {
                    assert_eq!(read(status, challenge, body), None, "{status} {challenge} {body}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_of_a_client_is_one_that_speaks_of_clients_or_asks_for_credentials() {
        let refuses = |status, challenge: &'static str, body: &'static str| {
            let mut headers = HeaderMap::new();
            if !challenge.is_empty() {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            refuses_client(&Reply { status, headers, body: body.into() })
        };
        let invalid = r#"{"error":"invalid_client"}"#;
        for (status, challenge, body) in [
            (401, "Basic realm=\"x\"", ""),
            (401, "", invalid),
            (403, "", r#"{"error":"access_denied"}"#),
            (400, "", invalid),
            (400, "", r#"{"error":"unauthorized_client"}"#),
            (401, "Bearer error=\"invalid_token\"", ""),
        ] {
            assert!(refuses(status, challenge, body), "{status} {challenge} {body}");
        }
        for (status, body) in
            [(401, "<html>"), (403, ""), (400, r#"{"error":"invalid_request"}"#), (500, invalid)]
        {
            assert!(!refuses(status, "", body), "{status} {body}");
        }
        assert!(!refuses(200, "", invalid));
    }

    #[test]
    fn what_the_issuer_says_about_a_token_is_a_no() {
        let expired =
            r#"Bearer realm="Users", error="invalid_token", error_description="The token has expired""#;
        for (status, challenge, body, expected) in [
            (401, expired, "Unauthorized", Rejection::Certain),
            (401, "Bearer error=\"invalid_token\"", "", Rejection::Certain),
            (401, "DPoP error=\"invalid_token\", algs=\"ES256\"", "", Rejection::Certain),
            (401, "Basic realm=\"x\", bearer error=\"invalid_token\"", "<html>", Rejection::Certain),
            (401, "", r#"{"error":"invalid_token"}"#, Rejection::Certain),
            (
                401,
                "",
                r#"{"error":"unauthorized","error_description":"user is blocked"}"#,
                Rejection::Certain,
            ),
            (401, "Bearer error = \"invalid_token\"", "", Rejection::Certain),
            (401, "Bearer realm=\"x\"", "", Rejection::Uncertain),
            (401, "Bearer realm=\"error=invalid_token\"", "", Rejection::Uncertain),
            (401, "Bearer realm=\"x\", Basic error=\"invalid_token\"", "", Rejection::Uncertain),
            (
                401,
                "",
                r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid token"}"#,
                Rejection::Uncertain,
            ),
            (403, "Bearer error=\"insufficient_scope\"", "", Rejection::Certain),
            (403, expired, "", Rejection::Certain),
            (403, "", r#"{"error":"access_denied"}"#, Rejection::Uncertain),
        ] {
            assert_eq!(read(status, challenge, body), Some(expected), "{status} {challenge} {body}");
        }
    }
}
