//! Request → token: exactly one credential, by an unambiguous grammar.
//!
//! There are exactly two places: `Authorization` with the scheme `Bearer` or `DPoP` (RFC 9449 §7.1), and one
//! configured cookie. If there is an `Authorization` header, the cookie is ignored, whatever the header says.
//! A browser keeps 4 KiB in a cookie, so a long token may come in pieces. Their names are those of libraries
//! that split cookies: `name.0` (express-openid-connect, NextAuth), `name_0` (oauth2-proxy), `name__0`
//! (nextjs-auth0). Only the complete set of pieces counts.
//!
//! Two readers may disagree about a second `Authorization` header, a second scheme on one line, or
//! a byte outside the token grammar. So none of these is read; each is a defined 401.

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use thiserror::Error;

pub use crate::token::compact::MAX_TOKEN_BYTES;

/// `[credential]`.
#[derive(Clone, Debug, Default)]
pub struct CredentialSettings {
    /// `cookie`: name of a cookie that carries the token when there is no `Authorization` header. None by
    /// default.
    pub cookie: Option<String>,
}

/// The most pieces of a cookie that are read: [`MAX_TOKEN_BYTES`] in pieces of 1 KiB, a quarter of what a
/// cookie holds.
const MAX_PIECES: usize = 16;

/// The separators between a cookie's name and the number of a piece. If one is a prefix of another, the
/// longer one is first.
const SEPARATORS: [&str; 3] = ["__", "_", "."];

/// A token whose grammar was checked (RFC 6750 §2.1 `b64token`), and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'r> {
    token: Cow<'r, str>,
    scheme: Scheme,
}

/// How the request carries the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer`, or the cookie.
    Bearer,
    /// `Authorization: DPoP`.
    Dpop,
}

/// Why a request has no usable credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// There is none.
    #[error("the request carries no credential")]
    Missing,
    /// More than one `Authorization` header.
    #[error("the request carries more than one Authorization header")]
    Several,
    /// The cookie came more than once, and not with the same value.
    #[error("the request carries the cookie more than once, with different values or in different forms")]
    SeveralCookies,
    /// A cookie in pieces, of which some are missing or too many.
    #[error("the cookie is split into parts, of which some are missing or too many")]
    Incomplete,
    /// Another scheme than Bearer and DPoP.
    #[error("the Authorization header has another scheme than Bearer and DPoP")]
    OtherScheme,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not in the token grammar.
    #[error("the token contains bytes that are not allowed in a token")]
    Grammar,
}

impl CredentialError {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no_credential",
            Self::Several | Self::SeveralCookies => "several_credentials",
            Self::Incomplete => "incomplete_cookie",
            Self::OtherScheme => "other_scheme",
            Self::TooLong => "token_too_long",
            Self::Grammar => "token_grammar",
        }
    }
}

impl<'r> Credential<'r> {
    /// Takes the credential out of a request: `Authorization`, else the configured cookie.
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

    /// Checks a token from another source, such as a file.
    ///
    /// # Errors
    /// [`CredentialError`], if it does not have the grammar of a token.
    pub fn parse(token: &'r str) -> Result<Self, CredentialError> {
        Self::check(Cow::Borrowed(token), Scheme::Bearer)
    }

    /// The same token, carried by this scheme.
    #[must_use]
    pub fn carried_by(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    fn check(token: Cow<'r, str>, scheme: Scheme) -> Result<Self, CredentialError> {
        let end = token.trim_end_matches('=').len();
        if token.is_empty() {
            Err(CredentialError::Missing)
        } else if token.len() > MAX_TOKEN_BYTES {
            Err(CredentialError::TooLong)
        } else if end == 0 || !in_grammar(&token.as_bytes()[..end]) {
            Err(CredentialError::Grammar)
        } else {
            Ok(Self { token, scheme })
        }
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// How the request carries it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// RFC 9110 §11.4: the scheme is case-insensitive, one or more spaces follow.
    fn from_authorization(line: &'r HeaderValue) -> Result<Self, CredentialError> {
        let line = line.to_str().map_err(|_| CredentialError::Grammar)?;
        let (scheme, rest) = line.split_once(' ').unwrap_or((line, ""));
        if scheme.is_empty() {
            return Err(CredentialError::Missing);
        }
        let schemes = [("bearer", Scheme::Bearer), ("dpop", Scheme::Dpop)];
        let known = schemes.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let (_, scheme) = known.ok_or(CredentialError::OtherScheme)?;
        Self::check(Cow::Borrowed(rest.trim_start_matches(' ')), scheme)
    }

    /// RFC 6265 §4.2. A browser sends a cookie once for each domain and path that it was set for, so the same
    /// name may come twice. With equal values, or with one empty value, which a logout leaves, that is one
    /// credential. With different values there is no credential, because two readers would disagree about it.
    /// The same holds for a whole cookie beside pieces.
    fn from_cookies(headers: &'r HeaderMap, name: &str) -> Result<Self, CredentialError> {
        let mut whole = None;
        let mut pieces = Pieces::default();
        // As bytes: other cookies are not checked, and browsers send whatever a page has put into them.
        for line in headers.get_all(COOKIE) {
            for (key, value) in line.as_bytes().split(|byte| *byte == b';').filter_map(name_and_value) {
                match key.strip_prefix(name.as_bytes()) {
                    None => {}
                    Some(b"") => one_of(&mut whole, value)?,
                    Some(rest) => pieces.take(rest, value)?,
                }
            }
        }
        // An empty whole cookie beside pieces is ignored, as is an empty one beside another.
        match (whole.filter(|whole| pieces.is_empty() || !whole.is_empty()), pieces.is_empty()) {
            (None, true) => Err(CredentialError::Missing),
            (Some(whole), true) => {
                Self::parse(std::str::from_utf8(whole).map_err(|_| CredentialError::Grammar)?)
            }
            (None, false) => Self::check(Cow::Owned(pieces.join()?), Scheme::Bearer),
            (Some(_), false) => Err(CredentialError::SeveralCookies),
        }
    }
}

/// Adds a value of the same name: an equal one changes nothing, and an empty one is ignored.
fn one_of<'r>(known: &mut Option<&'r [u8]>, value: &'r [u8]) -> Result<(), CredentialError> {
    match *known {
        Some(before) if before == value || value.is_empty() => Ok(()),
        Some(before) if !before.is_empty() => Err(CredentialError::SeveralCookies),
        _ => {
            *known = Some(value);
            Ok(())
        }
    }
}

fn name_and_value(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let place = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair[..place].trim_ascii(), pair[place + 1..].trim_ascii()))
}

/// Whether all bytes are of RFC 6750's `b64token`, but for the `=` at its end. Every request's token passes
/// here, so the loop has no branch: the compiler vectorizes it.
fn in_grammar(token: &[u8]) -> bool {
    token.iter().fold(true, |good, byte| {
        // `-`, `.`, `/` and the digits are neighbours in ASCII.
        let one = byte.is_ascii_alphabetic() | matches!(byte, b'-'..=b'9');
        good & (one | (*byte == b'_') | (*byte == b'~') | (*byte == b'+'))
    })
}

/// The pieces of a cookie that have been seen, by number.
#[derive(Default)]
struct Pieces<'r> {
    separator: Option<&'static str>,
    values: [Option<&'r [u8]>; MAX_PIECES],
}

impl<'r> Pieces<'r> {
    /// Adds a cookie whose name is the configured one and then `rest`, if it is a piece. Another separator
    /// than before, or a number in another spelling, would be a second reading of the same name.
    fn take(&mut self, rest: &[u8], value: &'r [u8]) -> Result<(), CredentialError> {
        let number = |separator: &&'static str| {
            let digits = std::str::from_utf8(rest.strip_prefix(separator.as_bytes())?).ok()?;
            let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            all_digits.then_some((*separator, digits))
        };
        let Some((separator, digits)) = SEPARATORS.iter().find_map(number) else { return Ok(()) };
        if *self.separator.get_or_insert(separator) != separator {
            return Err(CredentialError::SeveralCookies);
        }
        let place = digits.parse().ok().filter(|_| digits.len() == 1 || !digits.starts_with('0'));
        let place = place.and_then(|number: usize| self.values.get_mut(number));
        one_of(place.ok_or(CredentialError::Incomplete)?, value)
    }

    /// Whether all pieces are empty, or there are none.
    fn is_empty(&self) -> bool {
        self.values.iter().flatten().all(|value| value.is_empty())
    }

    /// All pieces, from number 0 on without a gap, one after the other.
    fn join(&self) -> Result<String, CredentialError> {
        let end = self.values.iter().position(Option::is_none).unwrap_or(MAX_PIECES);
        let (there, beyond) = self.values.split_at(end);
        if there.is_empty() || beyond.iter().any(Option::is_some) || there.contains(&Some(b"")) {
            return Err(CredentialError::Incomplete);
        }
        // Checked before they are copied: more bytes are never a token.
        if there.iter().flatten().map(|piece| piece.len()).sum::<usize>() > MAX_TOKEN_BYTES {
            return Err(CredentialError::TooLong);
        }
        let whole: Vec<u8> = there.iter().flatten().copied().flatten().copied().collect();
        String::from_utf8(whole).map_err(|_| CredentialError::Grammar)
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
        for line in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", "DPoP a.b.c", "dpop  a.b.c"] {
            assert_eq!(bearer(line), Ok("a.b.c".to_owned()), "{line}");
        }
    }

    #[test]
    fn a_token_has_letters_digits_and_six_other_characters() {
        for byte in 0..=u8::MAX {
            let allowed = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(in_grammar(&[b'a', byte, b'a']), allowed, "{byte:#x}");
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
            ("DPoPa", OtherScheme),
            ("DPoP", Missing),
            ("DPoP a, DPoP b", Grammar),
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
        assert_eq!(extract(&twice, Some("session")), Err(CredentialError::SeveralCookies));
        let both: [(&'static str, &[u8]); 2] = [("cookie", line), ("authorization", b"Bearer z")];
        assert_eq!(extract(&both, Some("session")), Ok("z".to_owned()));
    }

    #[test]
    fn the_same_cookie_again_or_empty_is_one_credential_and_another_value_is_none() {
        for line in [
            "session=a.b.c; session=a.b.c",
            "session=; session=a.b.c",
            "session=a.b.c; session=",
            "session=; session=a.b.c; session=; session=a.b.c",
            "session.0=a.b; session.1=.c; session.0=a.b",
            "session.0=; session.0=a.b; session.1=.c; session.1=",
            "session=; session.0=a.b; session.1=.c",
            "session=a.b.c; session.0=; session.1=",
        ] {
            assert_eq!(split(line), Ok("a.b.c".to_owned()), "{line}");
        }
        let lines: [(&'static str, &[u8]); 2] = [("cookie", b"session=a.b.c"), ("cookie", b"session=a.b.c")];
        assert_eq!(extract(&lines, Some("session")), Ok("a.b.c".to_owned()));
        assert_eq!(split("session=; session="), Err(CredentialError::Missing));
        for line in [
            "session=a; session=b",
            "session=a; session=; session=b",
            "session.0=a; session.0=b",
            "session=a; session.0=a",
        ] {
            assert_eq!(split(line), Err(CredentialError::SeveralCookies), "{line}");
        }
    }

    #[test]
    fn what_other_cookies_say_does_not_matter() {
        for line in [
            "name=José; session=a.b.c; x=\u{1f600}".as_bytes(),
            b"name=Jos\xe9; session=a.b.c",
            b"session=a.b.c; session_theme=\xff; session\xff=1; \xff",
            b"session.0=a.; session.1=b.c; session.x=\xff; \xffsession=x",
        ] {
            assert_eq!(extract(&[("cookie", line)], Some("session")), Ok("a.b.c".to_owned()), "{line:?}");
        }
        for line in [&b"session=\xff"[..], b"session=a\xc3\xa9", b"session.0=a; session.1=\xff"] {
            let found = extract(&[("cookie", line)], Some("session"));
            assert_eq!(found, Err(CredentialError::Grammar), "{line:?}");
        }
    }

    fn split(line: &str) -> Result<String, CredentialError> {
        extract(&[("cookie", line.as_bytes())], Some("session"))
    }

    #[test]
    fn a_split_cookie_is_joined_by_number_whatever_the_order() {
        for line in [
            "session.0=a.b; session.1=.c",
            "session_1=.c; x=y; session_0=a.b",
            "session__0=a.b; session__1=.c; session_id=7; session_state_0=q; sessions.0=z; session.=w",
        ] {
            assert_eq!(split(line), Ok("a.b.c".to_owned()), "{line}");
        }
        let lines: [(&'static str, &[u8]); 2] = [("cookie", b"session.1=b"), ("cookie", b"session.0=a")];
        assert_eq!(extract(&lines, Some("session")), Ok("ab".to_owned()));
        assert_eq!(extract(&lines, None), Err(CredentialError::Missing));
        let both: [(&'static str, &[u8]); 2] = [("cookie", b"session.7=b"), ("authorization", b"Bearer z")];
        assert_eq!(extract(&both, Some("session")), Ok("z".to_owned()));
    }

    #[test]
    fn pieces_that_do_not_make_one_whole_are_refused() {
        use CredentialError::{Grammar, Incomplete, Missing, SeveralCookies, TooLong};
        let long = format!("session.0={}; session.1={}", "a".repeat(9000), "b".repeat(9000));
        for (line, error) in [
            ("session.1=b", Incomplete),
            ("session.0=a; session.2=c", Incomplete),
            ("session.0=a; session.1=", Incomplete),
            ("session.0=a; session.01=b", Incomplete),
            ("session.0=a; session.16=b", Incomplete),
            ("session.0=a; session.99999999999999999999999=b", Incomplete),
            ("session.0=a; session.0=b", SeveralCookies),
            ("session.0=a; session_1=b", SeveralCookies),
            ("session_0=a; session__1=b", SeveralCookies),
            ("session.0=a; session=a", SeveralCookies),
            ("session=a; session.5=a", SeveralCookies),
            ("session.0=a b; session.1=c", Grammar),
            ("session.0=a; session.1=\"b\"", Grammar),
            ("session.+0=a", Missing),
            ("Session.0=a", Missing),
            (&long, TooLong),
        ] {
            assert_eq!(split(line), Err(error), "{line:.60}");
        }
    }

    proptest! {
        #[test]
        fn a_split_cookie_is_what_was_split(
            token in "[A-Za-z0-9._~+/-]{1,200}",
            cuts in proptest::collection::vec(1..200_usize, 0..12),
            separator in proptest::sample::select(&SEPARATORS[..]),
            rotation in 0..16_usize,
        ) {
            let mut ends: Vec<usize> = cuts.into_iter().filter(|cut| *cut < token.len()).collect();
            ends.push(token.len());
            ends.sort_unstable();
            ends.dedup();
            let mut begin = 0;
            let mut pairs = Vec::new();
            for (number, end) in ends.into_iter().enumerate() {
                pairs.push(format!("session{separator}{number}={}", &token[begin..end]));
                begin = end;
            }
            let rotation = rotation % pairs.len();
            pairs.rotate_left(rotation);
            prop_assert_eq!(split(&pairs.join("; ")), Ok(token.clone()));
            // A repeated piece changes nothing; with another value, or beside a whole cookie, there is no
            // token; without one of the pieces there is none, or (without the last) another one.
            let again = format!("{}; {}", pairs.join("; "), pairs[0]);
            prop_assert_eq!(split(&again), Ok(token.clone()));
            let other = format!("{again}x");
            prop_assert_eq!(split(&other), Err(CredentialError::SeveralCookies));
            let whole = format!("{}; session={token}", pairs.join("; "));
            prop_assert_eq!(split(&whole), Err(CredentialError::SeveralCookies));
            pairs.retain(|pair| !pair.starts_with(&format!("session{separator}0=")));
            prop_assert!(split(&pairs.join("; ")).is_err());
        }

        #[test]
        fn whatever_cookies_come_there_is_one_good_token_or_an_error(
            pairs in proptest::collection::vec("(session)?[._]{0,2}[0-9]{0,2}=[a-c.;= ]{0,3}", 0..6),
        ) {
            if let Ok(token) = split(&pairs.join("; ")) {
                prop_assert!(Credential::parse(&token).is_ok());
                let pieces = pairs.join("; ");
                let values: Vec<&str> = pieces
                    .split(';')
                    .filter_map(|pair| pair.split_once('='))
                    .filter(|(key, _)| key.trim().starts_with("session"))
                    .map(|(_, value)| value.trim())
                    .collect();
                // Nothing comes from another cookie.
                let mut rest = values.concat();
                for byte in token.chars() {
                    let found = rest.find(byte);
                    prop_assert!(found.is_some(), "{token} of {pieces}");
                    rest.remove(found.unwrap_or_default());
                }
            }
        }

        #[test]
        fn what_is_accepted_can_be_sent_on(value in ".{0,40}") {
            if let Ok(credential) = Credential::parse(&value) {
                let line = format!("Bearer {}", credential.token());
                prop_assert!(HeaderValue::from_str(&line).is_ok());
            }
        }
    }
}
