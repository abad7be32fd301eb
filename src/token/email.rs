//! Which email the claims name, and whether it may be put into a header.
//!
//! The search order is the configuration's `email_claims`; this file follows it. The caller decides what
//! comes after the claims (the profile tiers, then `/userinfo`), and "no email here" is an ordinary result
//! for it.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::json::Object;
use super::lenient;
use super::pointer::ClaimPath;

/// The longest email, in bytes (RFC 5321 §4.5.3.1.3, less the angle brackets).
const MAX_BYTES: usize = 254;

/// An email address that is safe in a header by construction: one `@`, no control characters, no white space,
/// at most 254 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

/// The email that was found in the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEmail {
    /// The email.
    pub email: Email,
    /// The value of the claim beside it: `email_verified` in the same object, or under the same namespace.
    pub verified: Option<bool>,
    /// Which entry of `email_claims` it came from.
    pub path: String,
    /// Whether a later place has another email. The first one counts, and the difference is reported.
    pub conflict: bool,
}

/// Which emails in an issuer's claims count.
#[derive(Clone, Copy, Debug)]
pub struct EmailRules<'r> {
    /// The places to look for an email, in this order.
    pub paths: &'r [ClaimPath],
    /// Whether only verified emails count.
    pub require_verified: bool,
    /// The domains of the addresses that the issuer may name; empty for any domain.
    pub domains: &'r [String],
}

impl EmailRules<'_> {
    /// Whether the issuer may name this address.
    #[must_use]
    pub fn allow(&self, email: &Email) -> bool {
        let of = |domain: &String| is_of_domain(email.0.as_bytes(), domain.as_bytes());
        self.domains.is_empty() || self.domains.iter().any(of)
    }
}

/// Whether the address is of exactly this domain. Only ASCII letters are compared without regard to case:
/// Unicode folds other letters into them (the Kelvin sign into `k`), so that an address of another domain
/// would count as one of this.
#[must_use]
pub fn is_of_domain(email: &[u8], domain: &[u8]) -> bool {
    email.rsplit(|byte| *byte == b'@').next().unwrap_or_default().eq_ignore_ascii_case(domain)
}

impl Email {
    /// Accepts a plausible address.
    ///
    /// Quoted local parts, comments and address literals are legal (RFC 5322 §3.4.1) but refused: no login
    /// has one, and `"a@evil.example"@example.com` has deceived domain checks before.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let (local, domain) = text.split_once('@')?;
        let local_fits = !local.is_empty() && local.len() <= 64 && local.chars().all(is_plain);
        let label_fits = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || (!c.is_ascii() && is_plain(c)))
        };
        (local_fits && domain.split('.').all(label_fits)).then(|| Self(text.to_owned()))
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Keeps addresses out of logs that print a whole structure.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// No controls, white space, quotes, brackets or separators, no look-alikes of `@`, no invisible characters.
fn is_plain(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    let looks_like_at = matches!(c, '@' | '\u{ff20}' | '\u{fe6b}');
    let separator = matches!(c, '"' | '(' | ')' | '<' | '>' | '[' | ']' | ',' | ';' | ':' | '\\');
    !(c.is_control() || c.is_whitespace() || invisible || looks_like_at || separator)
}

/// `%` too, so that encoded and unencoded text differ.
const HEADER_UNSAFE: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// `text` as a header value: unchanged if it is visible ASCII, else as percent-encoded UTF-8 (RFC 3986 §2.1);
/// then the second value is true.
#[must_use]
pub fn for_header(text: &str) -> (String, bool) {
    if text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        (text.to_owned(), false)
    } else {
        (percent_encoded(text), true)
    }
}

/// `text` as a header value that can always be decoded: unchanged if it is visible ASCII without `%`.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, HEADER_UNSAFE).to_string()
}

/// Walks the paths in order and returns the first usable email. A value counts as absent if it is not a
/// plausible address, is not verified although that is required, or is of a domain that the issuer may not
/// name.
#[must_use]
pub fn find(claims: &Object, rules: EmailRules<'_>) -> Option<FoundEmail> {
    let mut candidates = rules.paths.iter().flat_map(|path| {
        path.places(claims).filter_map(move |(holder, name)| {
            let email = Email::parse(holder.get(name)?.as_str()?)?;
            let verified = holder.get(&companion(name)).and_then(lenient::truth);
            let counts = (!rules.require_verified || verified == Some(true)) && rules.allow(&email);
            counts.then_some((path, email, verified))
        })
    });
    let (path, email, verified) = candidates.next()?;
    let conflict = candidates.any(|(_, other, _)| !other.0.eq_ignore_ascii_case(&email.0));
    Some(FoundEmail { email, verified, path: path.as_str().to_owned(), conflict })
}

/// `email` → `email_verified`, `https://api.example.com/email` → `https://api.example.com/email_verified`.
fn companion(name: &str) -> String {
    format!("{name}_verified")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::json;

    fn claims(text: &str) -> Object {
        json::object(text.as_bytes()).unwrap()
    }

    fn found(text: &str, require_verified: bool, domains: &[&str]) -> Option<FoundEmail> {
        let domains: Vec<_> = domains.iter().map(|domain| (*domain).to_owned()).collect();
        let paths = ClaimPath::email_default();
        find(&claims(text), EmailRules { paths: &paths, require_verified, domains: &domains })
    }

    #[test]
    fn an_address_of_a_domain_that_the_issuer_may_not_name_is_no_email() {
        let two = r#"{"email":"a@evil.org","user":{"email":"a@x.org"}}"#;
        for (text, domains, expected) in [
            (r#"{"email":"a@x.org"}"#, &["x.org"][..], Some("a@x.org")),
            (r#"{"email":"a@X.Org"}"#, &["y.org", "x.org"], Some("a@X.Org")),
            (r#"{"email":"a@sub.x.org"}"#, &["x.org"], None),
            (r#"{"email":"a@x.org.evil.org"}"#, &["x.org"], None),
            (r#"{"email":"a@evilx.org"}"#, &["x.org"], None),
            ("{\"email\":\"a@\u{212a}.org\"}", &["k.org"], None),
            (two, &["x.org"], Some("a@x.org")),
            (two, &[], Some("a@evil.org")),
        ] {
            let found = found(text, false, domains);
            assert_eq!(found.as_ref().map(|found| found.email.as_str()), expected, "{text} {domains:?}");
            assert!(domains.is_empty() || found.is_none_or(|found| !found.conflict), "{text}");
        }
    }

    #[test]
    fn the_first_usable_place_in_order_wins() {
        for (text, expected) in [
            (r#"{"email":"d@x.org","user":{"email":"n@x.org"}}"#, Some(("d@x.org", "email", true))),
            (
                r#"{"user":{"email":"n@x.org"},"https://a.b/email":"n@x.org"}"#,
                Some(("n@x.org", "/user/email", false)),
            ),
            (r#"{"https://a.b/email":"s@x.org"}"#, Some(("s@x.org", "*/email", false))),
            (r#"{"https://a.b/user":{"email":"u@x.org"}}"#, Some(("u@x.org", "/*~1user/email", false))),
            (r#"{"email":"D@x.org","user":{"email":"d@X.org"}}"#, Some(("D@x.org", "email", false))),
            (
                r#"{"email":"a\r\nb@x.org","user":{"email":"n@x.org"}}"#,
                Some(("n@x.org", "/user/email", false)),
            ),
            (r#"{"email":["a@x.org"],"user":"a@x.org"}"#, None),
            (r#"{"email":7}"#, None),
            (r#"{"email":null}"#, None),
            (r#"{}"#, None),
        ] {
            let found = found(text, false, &[]);
            let found = found.as_ref().map(|f| (f.email.as_str(), f.path.as_str(), f.conflict));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn verified_is_read_from_beside_the_email_that_was_chosen() {
        for (text, required, expected) in [
            (r#"{"email":"a@x.org","email_verified":true}"#, true, Some(Some(true))),
            (r#"{"email":"a@x.org","email_verified":false}"#, true, None),
            (r#"{"email":"a@x.org"}"#, true, None),
            (r#"{"email":"a@x.org","email_verified":"true"}"#, true, Some(Some(true))),
            (r#"{"email":"a@x.org","email_verified":"false"}"#, true, None),
            (r#"{"email":"a@x.org","email_verified":"yes"}"#, true, None),
            (r#"{"email":"a@x.org","email_verified":1}"#, true, None),
            (r#"{"email":"a@x.org","email_verified":false}"#, false, Some(Some(false))),
            (r#"{"user":{"email":"a@x.org"},"email_verified":true}"#, true, None),
            (r#"{"https://a.b/email":"a@x.org","https://a.b/email_verified":true}"#, true, Some(Some(true))),
            (
                r#"{"email":"a@x.org","user":{"email":"b@x.org","email_verified":true}}"#,
                true,
                Some(Some(true)),
            ),
        ] {
            let found = found(text, required, &[]).map(|found| found.verified);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn implausible_addresses_are_refused() {
        let long = format!("{}@x.org", "a".repeat(250));
        for text in [
            "",
            "@",
            "a@",
            "@x.org",
            "a",
            "a@b@c",
            "attacker@evil.com@company.com",
            "\"a@b\"@x.org",
            "a@x.org.",
            "a@.x.org",
            "a@x..org",
            "a b@x.org",
            "a@x.org\r\nX-Admin: 1",
            "a@x\0.org",
            "a@[127.0.0.1]",
            "<a@x.org>",
            "a,b@x.org",
            "a@-x.org",
            "a@x_y.org",
            "a\u{200b}@x.org",
            "a\u{202e}@x.org",
            "a\u{ff20}b@x.org",
            &long,
        ] {
            assert!(Email::parse(text).is_none(), "{text:?}");
        }
        for text in ["a@x.org", "a.b+c%d@x.co", "o'brien@x.org", "jürgen@exämple.de", "a@localhost"] {
            assert!(Email::parse(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_ascii_is_percent_encoded_and_says_so() {
        assert_eq!(for_header("a+b%c@x.org"), ("a+b%c@x.org".to_owned(), false));
        assert_eq!(for_header("jü%@x.org"), ("j%C3%BC%25@x.org".to_owned(), true));
        // A Cyrillic а is not a Latin a, and is not turned into one.
        assert_eq!(for_header("\u{430}@x.org"), ("%D0%B0@x.org".to_owned(), true));
    }

    proptest! {
        #[test]
        fn every_email_makes_a_header_value(text in "\\PC{0,8}@\\PC{0,8}|.{0,20}") {
            if let Some(email) = Email::parse(&text) {
                let (value, _) = for_header(email.as_str());
                prop_assert!(!value.is_empty() && value.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            }
        }
    }
}
