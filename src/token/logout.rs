//! Logout tokens: the claims of OpenID Connect Back-Channel Logout 1.0 §2.4, checked by the rules of §2.6.
//! This module does no I/O.

use std::time::Duration;

use serde_json::Value;

use super::claims::{AuthenticatedPayload, check_audience, date};
use super::json::Object;
use super::refusal::Refusal;
use crate::clock::Timestamp;

/// The member of `events` that makes a token a logout token (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The longest `jti` and `sid`, in bytes.
const MAX_NAME: usize = 512;

/// The longest `sub`, in bytes (OpenID Connect Core §2).
const MAX_SUBJECT: usize = 255;

/// A valid logout token: who is logged out, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// `sub`, if present. A logout token names a subject, a session, or both.
    pub subject: Option<String>,
    /// `sid`, if present.
    pub session: Option<String>,
    /// `iat`: tokens issued later are not revoked.
    pub issued_at: Timestamp,
    /// `exp` plus leeway: from this time the logout token is refused as expired.
    pub not_after: Timestamp,
    /// `jti`, which identifies a repetition.
    pub id: String,
}

impl LogoutToken {
    /// Checks a payload whose signature is valid.
    ///
    /// # Errors
    /// The first rule that the payload breaks.
    pub fn check(
        payload: AuthenticatedPayload,
        audience: &[String],
        leeway: Duration,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let claims = payload.into_claims();
        let issued_at = date(&claims, "iat")?.ok_or(Refusal::ClaimUnfit { claim: "iat" })?;
        if issued_at > now.after(leeway) {
            return Err(Refusal::NotYetValid { claim: "iat", in_secs: issued_at.since(now).as_secs() });
        }
        let expires_at = date(&claims, "exp")?.ok_or(Refusal::ClaimUnfit { claim: "exp" })?;
        let not_after = expires_at.after(leeway);
        if now >= not_after {
            return Err(Refusal::Expired { ago_secs: now.since(expires_at).as_secs() });
        }
        check_audience(&claims, audience)?;
        if claims.contains_key("nonce") {
            return Err(Refusal::NotALogoutToken("it has a `nonce`, so it is an ID token"));
        }
        let event = claims.get("events").and_then(Value::as_object).and_then(|events| events.get(EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(Refusal::NotALogoutToken("its `events` do not say that somebody was logged out"));
        }
        let subject = name(&claims, "sub", MAX_SUBJECT)?;
        let session = name(&claims, "sid", MAX_NAME)?;
        if subject.is_none() && session.is_none() {
            return Err(Refusal::NotALogoutToken("it names neither a `sub` nor a `sid`"));
        }
        let id = name(&claims, "jti", MAX_NAME)?.ok_or(Refusal::ClaimUnfit { claim: "jti" })?;
        Ok(Self { subject, session, issued_at, not_after, id })
    }
}

/// A claim that is a non-empty text of at most `longest` bytes; `None` if it is absent.
///
/// # Errors
/// [`Refusal::ClaimUnfit`] for any other value.
fn name(claims: &Object, claim: &'static str, longest: usize) -> Result<Option<String>, Refusal> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::ClaimUnfit { claim }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::jws::authenticated_by_shared_key;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn check(change: impl FnOnce(&mut Value)) -> Result<LogoutToken, Refusal> {
        // As Auth0 sends it.
        let mut claims = json!({
            "iss": "https://t.example/", "aud": "client", "sub": "auth0|a", "sid": "s", "iat": NOW,
            "exp": NOW + 120, "jti": "j", "trace_id": "t", "events": { EVENT: {} },
        });
        change(&mut claims);
        let payload = authenticated_by_shared_key(claims.to_string().as_bytes()).unwrap();
        let audience = ["other".to_owned(), "client".to_owned()];
        LogoutToken::check(payload, &audience, Duration::from_secs(30), Timestamp::from_secs(NOW))
    }

    #[test]
    fn auth0s_form_is_taken_and_names_subject_and_session() {
        let token = check(|_| ()).unwrap();
        assert_eq!((token.subject.as_deref(), token.session.as_deref()), (Some("auth0|a"), Some("s")));
        assert_eq!(token.issued_at, Timestamp::from_secs(NOW));
        for (missing, subject, session) in [("sid", Some("auth0|a"), None), ("sub", None, Some("s"))] {
            let token = check(|claims| drop(claims.as_object_mut().unwrap().remove(missing))).unwrap();
            assert_eq!((token.subject.as_deref(), token.session.as_deref()), (subject, session));
        }
        assert!(check(|claims| claims["aud"] = json!(["x", "client"])).is_ok());
    }

    #[test]
    fn each_rule_that_is_broken_refuses() {
        for (claim, value) in [
            ("aud", json!("https://api")),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("iat", Value::Null),
            ("iat", json!(NOW + 31)),
            ("iat", json!("now")),
            ("exp", Value::Null),
            ("exp", json!(NOW - 31)),
            ("jti", Value::Null),
            ("jti", json!("")),
            ("jti", json!(7)),
            ("jti", json!("j".repeat(513))),
            ("nonce", json!("n")),
            ("nonce", Value::Null),
            ("events", Value::Null),
            ("events", json!({})),
            ("events", json!([EVENT])),
            ("events", json!({ EVENT: true })),
            ("events", json!({ "http://schemas.openid.net/event/other": {} })),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("a".repeat(256))),
            ("sid", json!("")),
            ("sid", json!(["s"])),
        ] {
            let said = check(|claims| claims[claim] = value.clone());
            assert!(said.is_err(), "{claim} = {value}: {said:?}");
        }
        let nobody = check(|claims| {
            let claims = claims.as_object_mut().unwrap();
            claims.remove("sub");
            claims.remove("sid");
        });
        assert!(matches!(nobody, Err(Refusal::NotALogoutToken(_))), "{nobody:?}");
    }
}
