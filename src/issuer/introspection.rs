//! Token introspection (RFC 7662): the issuer's answer about a token that only it can judge, for which
//! holdfast authenticates as a client.
//!
//! Unlike `/userinfo`, the answer names the audience, the end and the binding of the token, and the
//! credentials of the call are not the token's. So a refusal of the call is never a no about the token.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::client::CallError;
use super::settings::IssuerSettings;
use super::userinfo::{UserinfoAnswer, subject_of};
use crate::clock::Timestamp;
use crate::private_file;
use crate::token::binding::Binding;
use crate::token::claims::{check_audience, date};
use crate::token::json::{self, Object};
use crate::token::refusal::Refusal;

/// The `token_type` of an access token that a client presents here (§2.2, RFC 6749 §5.1).
const ACCESS_TOKEN_TYPES: [&str; 2] = ["Bearer", "DPoP"];

/// The longest file of a client secret, in bytes.
const MAX_SECRET_BYTES: u64 = 4096;

/// No issuer has issued it: it only tests the endpoint and our credentials.
pub const TEST_TOKEN: &str = "holdfast-asks-only-whether-introspection-works";

/// The id and the secret of holdfast as a client, encoded as in a form. Has no `Debug`, so that no log shows
/// it.
pub struct ClientCredentials {
    id: String,
    secret: String,
}

impl ClientCredentials {
    /// Reads the secret.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(id: &str, secret_file: &Path) -> Result<Self, String> {
        let secret =
            private_file::read_line(secret_file, MAX_SECRET_BYTES).map_err(|error| error.to_string())?;
        if secret.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Self { id: form_encoded(id.as_bytes()), secret: form_encoded(&secret) })
    }

    /// Asks about a token (§2.1), as a client that authenticates by `client_secret_basic` or, if `by_post`,
    /// by `client_secret_post` (RFC 6749 §2.3.1, which has id and secret encoded as in a form for both).
    ///
    /// # Errors
    /// [`CallError::Unsendable`].
    pub fn call(&self, endpoint: &Url, by_post: bool, token: &str) -> Result<Request, CallError> {
        let mut form = format!("token={}&token_type_hint=access_token", form_encoded(token.as_bytes()));
        let mut call = Request::new(Method::POST, endpoint.clone());
        if by_post {
            form.push_str(&format!("&client_id={}&client_secret={}", self.id, self.secret));
        } else {
            let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.id, self.secret)));
            let mut basic = HeaderValue::from_str(&basic).map_err(|_| CallError::Unsendable)?;
            basic.set_sensitive(true);
            call.headers_mut().insert(AUTHORIZATION, basic);
        }
        call.headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        *call.body_mut() = Some(form.into());
        Ok(call)
    }
}

/// `application/x-www-form-urlencoded`, with `%20` for a space: some servers decode no `+`.
fn form_encoded(bytes: &[u8]) -> String {
    form_urlencoded::byte_serialize(bytes).collect::<String>().replace('+', "%20")
}

/// Whether these claims of a foreign token come from introspection, so that they are the token's own. Those
/// from `/userinfo`, as in a record from before introspection was configured, are its subject's.
#[must_use]
pub fn are_own(claims: &Object, settings: &IssuerSettings) -> bool {
    settings.introspection.is_some() && claims.get("active") == Some(&Value::Bool(true))
}

/// Whether the audience of an introspected token was checked. It cannot be checked if the answer names none
/// (§2.2: `aud` is optional).
///
/// # Errors
/// [`Refusal::AudienceMismatch`], [`Refusal::ClaimUnfit`].
pub fn is_for_us(claims: &Object, settings: &IssuerSettings) -> Result<bool, Refusal> {
    if !are_own(claims, settings) || !claims.contains_key("aud") {
        return Ok(false);
    }
    check_audience(claims, &settings.audience).map(|()| true)
}

/// What an answer is checked against.
#[derive(Clone, Copy)]
pub struct Expected<'e> {
    /// The issuer's settings.
    pub settings: &'e IssuerSettings,
    /// The subject of the token, if it is known.
    pub subject: Option<&'e str>,
    /// Tolerated clock skew.
    pub leeway: Duration,
}

/// Reads an answer (§2.2). The answer decides about the token together with `exp`, `nbf`, `iat`, `iss`,
/// `aud`, `token_type` and `cnf`, as far as it has them; `sub` it must have.
///
/// # Errors
/// What is wrong with the answer; then nothing in it counts.
pub fn read(body: &[u8], expected: Expected<'_>, now: Timestamp) -> Result<UserinfoAnswer, &'static str> {
    let claims = json::object(body).map_err(|_| "the answer of introspection is not a JSON object")?;
    match claims.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            let said = "introspection says that it is not active";
            return Ok(Refusal::of_issuer(said, false, true).into());
        }
        _ => return Err("the answer of introspection has no `active` that is true or false"),
    }
    match accept(claims, expected, now) {
        Ok(UserinfoAnswer::Accepted { subject, .. })
            if expected.subject.is_some_and(|known| known != subject) =>
        {
            Err("the answer of introspection is about another subject than before")
        }
        Ok(accepted) => Ok(accepted),
        Err(refusal) => Ok(refusal.into()),
    }
}

/// Checks the claims of an active token.
fn accept(claims: Object, expected: Expected<'_>, now: Timestamp) -> Result<UserinfoAnswer, Refusal> {
    let Expected { settings, leeway, .. } = expected;
    let kind = claims.get("token_type");
    let is_access = |kind: &str| ACCESS_TOKEN_TYPES.iter().any(|access| access.eq_ignore_ascii_case(kind));
    if kind.is_some_and(|kind| !kind.as_str().is_some_and(is_access)) {
        return Err(Refusal::NotAnAccessToken(
            "introspection names another `token_type` than Bearer or DPoP",
        ));
    }
    // Not in RFC 7662, and issuers of refresh tokens that they introspect as active say it here.
    if claims.get("token_use").is_some_and(|token_use| token_use != "access_token") {
        return Err(Refusal::NotAnAccessToken("introspection names another `token_use` than access_token"));
    }
    if claims.get("iss").is_some_and(|iss| !iss.as_str().is_some_and(|iss| settings.is_named(iss))) {
        return Err(Refusal::IssuerUnknown { configured: settings.url.clone() });
    }
    let expires_at = date(&claims, "exp")?;
    if let Some(expired) = expires_at.filter(|end| now >= *end) {
        return Err(Refusal::Expired { ago_secs: now.since(expired).as_secs() });
    }
    let issued_at = date(&claims, "iat")?;
    for (claim, start) in [("nbf", date(&claims, "nbf")?), ("iat", issued_at)] {
        if let Some(start) = start.filter(|start| *start > now.after(leeway)) {
            return Err(Refusal::NotYetValid { claim, in_secs: start.since(now).as_secs() });
        }
    }
    is_for_us(&claims, settings)?;
    let subject = subject_of(&claims).ok_or(Refusal::ClaimUnfit { claim: "sub" })?.to_owned();
    let binding = Binding::of(&claims, settings.sender_constrained)?;
    let is_bound = kind.and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("dpop"));
    if is_bound && binding == Binding::Bearer {
        return Err(Refusal::ClaimUnfit { claim: "cnf" });
    }
    Ok(UserinfoAnswer::Accepted { subject, claims, issued_at, expires_at })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Settings, Source};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn settings() -> IssuerSettings {
        let text = "[[issuer]]\nurl = \"https://t/\"\naudience = [\"https://api\"]\n[issuer.introspection]\n\
                    client_id = \"c\"\nclient_secret_file = \"/s\"\n";
        Settings::read(&Source::text("test.toml", text)).unwrap().issuers.remove(0)
    }

    /// The answer to this JSON: the reason of a no, `None` for an acceptance, or what is wrong.
    fn reason(body: &str) -> Result<Option<&'static str>, &'static str> {
        let settings = settings();
        let expected =
            Expected { settings: &settings, subject: Some("alice"), leeway: Duration::from_secs(30) };
        read(body.as_bytes(), expected, NOW).map(|answer| match answer {
            UserinfoAnswer::Accepted { .. } => None,
            UserinfoAnswer::Refused(refusal) => Some(refusal.reason()),
        })
    }

    #[test]
    fn what_is_not_clearly_active_or_inactive_says_nothing_about_the_token() {
        for body in [
            "",
            "[]",
            "<html>",
            "{}",
            r#"{"sub":"alice"}"#,
            r#"{"active":"true","sub":"alice"}"#,
            r#"{"active":"false"}"#,
            r#"{"active":1,"sub":"alice"}"#,
            r#"{"active":null,"sub":"alice"}"#,
            r#"{"active":true,"active":true,"sub":"alice"}"#,
            r#"{"active":false,"active":true,"sub":"alice"}"#,
            r#"{"active":true,"sub":"alice","sub":"alice"}"#,
            r#"{"active":true,"sub":"alice","exp":1800000001,"exp":1900000000}"#,
            r#"{"active":true,"sub":"alice","aud":"https://other","aud":"https://api"}"#,
            r#"{"active":true,"sub":"bob"}"#,
        ] {
            assert!(reason(body).is_err(), "{body}: {:?}", reason(body));
        }
    }

    #[test]
    fn everything_that_an_active_token_says_of_itself_is_honoured() {
        let active = |more: &str| reason(&format!(r#"{{"active":true,"sub":"alice"{more}}}"#));
        for more in [
            "",
            r#","aud":"https://api""#,
            r#","aud":["https://other","https://api"]"#,
            r#","iss":"https://t/","exp":1800000001,"nbf":1800000030,"iat":1799999999"#,
            r#","iat":1800000030"#,
            r#","token_type":"bearer","token_use":"access_token""#,
            r#","token_type":"DPoP","cnf":{"jkt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        ] {
            assert_eq!(active(more), Ok(None), "{more}");
        }
        for (more, expected) in [
            (r#","iss":"https://evil/""#, "issuer_unknown"),
            (r#","iss":"https://t""#, "issuer_unknown"),
            (r#","iss":7"#, "issuer_unknown"),
            (r#","exp":1800000000"#, "expired"),
            (r#","exp":"1900000000""#, "claim_unfit"),
            (r#","exp":-1"#, "claim_unfit"),
            (r#","nbf":1800000031"#, "not_yet_valid"),
            (r#","iat":1800000031,"auth_time":1800000031"#, "not_yet_valid"),
            (r#","iat":"x""#, "claim_unfit"),
            (r#","aud":"https://other""#, "audience_mismatch"),
            (r#","aud":[]"#, "audience_mismatch"),
            (r#","aud":null"#, "claim_unfit"),
            (r#","aud":["https://api",7]"#, "claim_unfit"),
            (r#","token_type":"N_A""#, "not_an_access_token"),
            (r#","token_type":"refresh_token""#, "not_an_access_token"),
            (r#","token_type":["Bearer"]"#, "not_an_access_token"),
            (r#","token_use":"refresh_token""#, "not_an_access_token"),
            (r#","token_type":"DPoP""#, "claim_unfit"),
            (r#","cnf":{}"#, "claim_unfit"),
            (r#","cnf":{"jkt":"x"},"cnf":{}"#, "claim_unfit"),
            (r#","cnf":{"kid":"x"}"#, "binding_unknown"),
        ] {
            assert_eq!(active(more), Ok(Some(expected)), "{more}");
        }
        for body in [r#"{"active":true}"#, r#"{"active":true,"sub":""}"#, r#"{"active":true,"sub":7}"#] {
            assert_eq!(reason(body), Ok(Some("claim_unfit")), "{body}");
        }
        assert_eq!(reason(r#"{"active":false}"#), Ok(Some("issuer_rejects")));
        assert_eq!(reason(r#"{"active":false,"sub":"alice","exp":1900000000}"#), Ok(Some("issuer_rejects")));
    }

    #[test]
    fn id_and_secret_are_encoded_as_in_a_form_before_they_are_joined() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("a:b c+%/ä&=\n".as_bytes()).unwrap();
        let mode = |mode| file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let refused = ClientCredentials::load("x", file.path()).err().unwrap();
        assert!(refused.contains("644"), "{refused}");
        mode(0o600);
        let client = ClientCredentials::load("https://holdfast:1", file.path()).unwrap();
        let url = Url::parse("https://t/introspect").unwrap();
        let body =
            |call: &Request| String::from_utf8(call.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
        let basic = client.call(&url, false, "to+k/n=").unwrap();
        let sent = basic.headers()[AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(
            String::from_utf8(STANDARD.decode(sent).unwrap()).unwrap(),
            "https%3A%2F%2Fholdfast%3A1:a%3Ab%20c%2B%25%2F%C3%A4%26%3D"
        );
        assert_eq!(body(&basic), "token=to%2Bk%2Fn%3D&token_type_hint=access_token");
        assert!(basic.headers()[AUTHORIZATION].is_sensitive());
        assert!(!format!("{basic:?}").contains(sent), "{basic:?}");
        let post = client.call(&url, true, "t").unwrap();
        assert!(!post.headers().contains_key(AUTHORIZATION));
        assert_eq!(
            body(&post),
            "token=t&token_type_hint=access_token&client_id=https%3A%2F%2Fholdfast%3A1&\
             client_secret=a%3Ab%20c%2B%25%2F%C3%A4%26%3D"
        );
    }
}
