//! What the issuer says of a token (OpenID Connect Core 1.0 §5.3).

use serde_json::Value;

use crate::token::json::{self, Object};

/// The issuer's word on a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// It accepts the token; these are the claims about its subject.
    Accepted {
        /// `sub`, not empty.
        subject: String,
        /// All claims.
        claims: Object,
    },
    /// 401: it does not accept the token. A definitive no.
    Rejected,
    /// 403: it accepts the token, but not for this. A definitive no.
    Forbidden,
}

impl Word {
    /// Reads an answer of status 200, 401 or 403. If the token's own subject is known, the answer must be about the
    /// same (§5.3.2 demands it).
    ///
    /// # Errors
    /// What is wrong with the answer; then nothing in it counts.
    pub fn read(status: u16, body: &[u8], expected_subject: Option<&str>) -> Result<Self, &'static str> {
        match status {
            200 => {}
            401 => return Ok(Self::Rejected),
            403 => return Ok(Self::Forbidden),
            _ => return Err("an unexpected status"),
        }
        let claims = json::object(body).map_err(|_| "the answer of /userinfo is not a JSON object")?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if (1..=255).contains(&subject.len()) => subject.clone(),
            _ => return Err("the answer of /userinfo has no subject"),
        };
        if expected_subject.is_some_and(|expected| expected != subject) {
            return Err("the answer of /userinfo is about another subject");
        }
        Ok(Self::Accepted { subject, claims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_about_the_right_subject_counts() {
        let read = |body: &str| Word::read(200, body.as_bytes(), Some("auth0|a"));
        assert!(matches!(read(r#"{"sub":"auth0|a"}"#), Ok(Word::Accepted { .. })));
        for body in [
            r#"{"sub":"auth0|b"}"#,
            r#"{"sub":7}"#,
            r#"{"sub":""}"#,
            "{}",
            "[]",
            "<html>",
            "",
            r#"{"sub":"auth0|a","sub":"auth0|a"}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        assert_eq!(Word::read(401, b"Unauthorized", None), Ok(Word::Rejected));
        assert_eq!(Word::read(403, b"", None), Ok(Word::Forbidden));
    }
}
