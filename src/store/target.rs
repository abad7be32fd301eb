//! What a revocation is about: its key, under both instance secrets while the secret is rotated, and the
//! label that lists show.

use crate::revocation::{Kind, RevocationKey};
use crate::tiers::digest::TokenDigester;

/// The subject, session, token, key or issuer that a change applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its key.
    pub key: RevocationKey,
    /// Its key under the old instance secret, while the secret is rotated.
    pub former: Option<RevocationKey>,
    /// The text that lists show.
    pub label: String,
}

impl Target {
    /// The target with the key that `key` makes by a digester.
    #[must_use]
    pub fn of(
        digester: &TokenDigester,
        key: impl Fn(&TokenDigester) -> RevocationKey,
        label: String,
    ) -> Self {
        Self { key: key(digester), former: digester.former().map(&key), label }
    }
}

/// The label of a record about `name` of an issuer; an empty name is everybody.
#[must_use]
pub fn label(name: &str, issuer: &str) -> String {
    let space = if name.is_empty() { "" } else { " " };
    format!("{name}{space}of {issuer}")
}

/// The key of what a [`label`] names. An issuer is a URL and has no spaces. `None` for a single token, which
/// no label names.
pub(super) fn named_by(label: &str, kind: Kind, digester: &TokenDigester) -> Option<RevocationKey> {
    let (rest, issuer) = label.rsplit_once(' ')?;
    let name = rest.strip_suffix("of")?;
    let name = name.strip_suffix(' ').unwrap_or(name);
    match kind {
        Kind::Subject => Some(RevocationKey::subject(&digester.subject(issuer, name))),
        Kind::Sessionless => Some(RevocationKey::sessionless(&digester.subject(issuer, name))),
        Kind::Session => Some(RevocationKey::session(digester, issuer, name)),
        Kind::Key => Some(RevocationKey::kid(digester, issuer, name)),
        Kind::Everybody => Some(RevocationKey::everybody(digester, issuer)),
        Kind::Token => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::secret::InstanceSecret;

    #[test]
    fn a_label_leads_back_to_the_key_that_it_was_made_with() {
        let digester = TokenDigester::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap();
        let issuer = "https://t.example/";
        for name in ["auth0|1", "a of b", "of", " x ", "of of"] {
            let named = |kind| named_by(&label(name, issuer), kind, &digester);
            let subject = digester.subject(issuer, name);
            assert_eq!(named(Kind::Subject), Some(RevocationKey::subject(&subject)), "{name}");
            assert_eq!(named(Kind::Sessionless), Some(RevocationKey::sessionless(&subject)));
            assert_eq!(named(Kind::Session), Some(RevocationKey::session(&digester, issuer, name)));
            assert_eq!(named(Kind::Key), Some(RevocationKey::kid(&digester, issuer, name)));
        }
        let everybody = named_by(&label("", issuer), Kind::Everybody, &digester);
        assert_eq!(everybody, Some(RevocationKey::everybody(&digester, issuer)));
        assert_eq!(named_by("", Kind::Token, &digester), None);
    }
}
