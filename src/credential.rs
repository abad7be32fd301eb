//! Request → token: exactly one credential, by a grammar that leaves nothing to guess.
//!
//! A second `Authorization` header, a second scheme on one line, a byte outside the token grammar: whoever sends such
//! a thing hopes that two readers disagree about it. None is read; each is a defined 401.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use thiserror::Error;

use crate::config::CredentialSettings;

/// The longest token that is read, in bytes. nginx takes header lines up to 8 KiB by default, Traefik far longer ones.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token whose grammar was checked (RFC 6750 §2.1 `b64token`), and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'r>(&'r str);

/// Why a request has no usable credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// There is none.
    #[error("the request carries no credential")]
    Missing,
    /// More than one.
    #[error("the request carries more than one credential")]
    Several,
    /// Another scheme than Bearer.
    #[error("the Authorization header has another scheme than Bearer")]
    OtherScheme,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not of the token grammar.
    #[error("the token contains bytes that no token has")]
    Grammar,
}

impl CredentialError {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no_credential",
            Self::Several => "several_credentials",
            Self::OtherScheme => "other_scheme",
            Self::TooLong => "token_too_long",
            Self::Grammar => "token_grammar",
        }
    }
}

impl<'r> Credential<'r> {
    /// Takes the credential out of a request: `Authorization: Bearer`, else the configured cookie.
    ///
    /// # Errors
    /// [`CredentialError`], if there is not exactly one good credential.
    pub fn extract(headers: &'r HeaderMap, settings: &CredentialSettings) -> Result<Self, CredentialError> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        match (lines.next(), lines.next()) {
            (Some(_), Some(_)) => Err(CredentialError::Several),
            (Some(line), None) => Self::from_authorization(line),
            (None, _) => match &settings.cookie {
                Some(name) => Self::from_cookies(headers, name),
                None => Err(CredentialError::Missing),
            },
        }
    }

    /// Checks a token that came in some other way, such as a file.
    ///
    /// # Errors
    /// [`CredentialError`], if it does not have the grammar of a token.
    pub fn parse(token: &'r str) -> Result<Self, CredentialError> {
        let end = token.trim_end_matches('=').len();
        let in_grammar = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if token.is_empty() {
            Err(CredentialError::Missing)
        } else if token.len() > MAX_TOKEN_BYTES {
            Err(CredentialError::TooLong)
        } else if end == 0 || !token.as_bytes()[..end].iter().copied().all(in_grammar) {
            Err(CredentialError::Grammar)
        } else {
            Ok(Self(token))
        }
    }

    /// The token.
    #[must_use]
    pub fn token(self) -> &'r str {
        self.0
    }

    /// RFC 9110 §11.4: the scheme is case-insensitive, one or more spaces follow.
    fn from_authorization(line: &'r HeaderValue) -> Result<Self, CredentialError> {
        let line = line.to_str().map_err(|_| CredentialError::Grammar)?;
        let (scheme, rest) = line.split_once(' ').unwrap_or((line, ""));
        if scheme.is_empty() {
            return Err(CredentialError::Missing);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(CredentialError::OtherScheme);
        }
        Self::parse(rest.trim_start_matches(' '))
    }

    /// RFC 6265 §4.2. The same name twice is not one credential, whatever the values.
    fn from_cookies(headers: &'r HeaderMap, name: &str) -> Result<Self, CredentialError> {
        let mut found = None;
        for line in headers.get_all(COOKIE) {
            let line = line.to_str().map_err(|_| CredentialError::Grammar)?;
            for pair in line.split(';') {
                if let Some((key, value)) = pair.split_once('=')
                    && key.trim() == name
                    && found.replace(value.trim()).is_some()
                {
                    return Err(CredentialError::Several);
                }
            }
        }
        Self::parse(found.ok_or(CredentialError::Missing)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extract(lines: &[(&'static str, &[u8])], cookie: Option<&str>) -> Result<String, CredentialError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let settings = CredentialSettings { cookie: cookie.map(str::to_owned) };
        Credential::extract(&headers, &settings).map(|credential| credential.token().to_owned())
    }

    fn bearer(value: &str) -> Result<String, CredentialError> {
        extract(&[("authorization", value.as_bytes())], None)
    }

    #[test]
    fn the_scheme_may_be_of_any_case() {
        for line in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"] {
            assert_eq!(bearer(line), Ok("a.b.c".to_owned()), "{line}");
        }
    }

    #[test]
    fn everything_else_has_a_defined_error() {
        use CredentialError::{Grammar, Missing, OtherScheme, Several, TooLong};
        assert_eq!(extract(&[], None), Err(Missing));
        let two: [(&'static str, &[u8]); 2] =
            [("authorization", b"Bearer a"), ("authorization", b"Bearer a")];
        assert_eq!(extract(&two, None), Err(Several));
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        for (line, error) in [
            ("", Missing),
            ("Bearer", Missing),
            ("Bearer ", Missing),
            (" Bearer a", Missing),
            ("Basic YTpi", OtherScheme),
            ("Bearera", OtherScheme),
            ("bea\trer a", OtherScheme),
            ("Bearer a, Bearer b", Grammar),
            ("Bearer a b", Grammar),
            ("Bearer \"a\"", Grammar),
            ("Bearer ====", Grammar),
            ("Bearer a=b", Grammar),
            ("Bearer {\"alg\":1}", Grammar),
            (&long, TooLong),
        ] {
            assert_eq!(bearer(line), Err(error), "{line:.40}");
        }
        assert_eq!(extract(&[("authorization", b"Bearer \xc3\xa9")], None), Err(Grammar));
    }

    #[test]
    fn a_cookie_counts_only_if_configured_and_only_once() {
        let line: &[u8] = b"theme=dark; session=a.b.c; x=y";
        assert_eq!(extract(&[("cookie", line)], None), Err(CredentialError::Missing));
        assert_eq!(extract(&[("cookie", line)], Some("session")), Ok("a.b.c".to_owned()));
        assert_eq!(extract(&[("cookie", line)], Some("Session")), Err(CredentialError::Missing));
        let twice: [(&'static str, &[u8]); 2] = [("cookie", b"session=a"), ("cookie", b"session=b")];
        assert_eq!(extract(&twice, Some("session")), Err(CredentialError::Several));
        let both: [(&'static str, &[u8]); 2] = [("cookie", line), ("authorization", b"Bearer z")];
        assert_eq!(extract(&both, Some("session")), Ok("z".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_be_sent_on(value in ".{0,40}") {
            if let Ok(credential) = Credential::parse(&value) {
                prop_assert!(HeaderValue::from_str(&format!("Bearer {}", credential.token())).is_ok());
            }
        }
    }
}
