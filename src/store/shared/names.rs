//! The names of records in Redis: `holdfast:v1:<namespace>:<family>:<digest>`.
//!
//! In a cluster they begin with `holdfast:v1:{holdfast}:`. Only the part between the braces decides in which
//! of the 16384 slots a name is. So all names are in one slot, on one node: scripts may use several names, a
//! scan of all names needs one node, and the times of all marks are by one clock.
//!
//! A name does not reveal what its record is about. All stores know tokens and subjects by keyed digests; a
//! name has the digest in hexadecimal, so that a purge can derive the record's key from it. An issuer, whose
//! URL is the key of its public keys in other stores, becomes a keyed digest as well. The namespace is
//! derived from the instance secret: two systems with different secrets may use one Redis, and a purge of one
//! never affects the other.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::record::Family;
use crate::tiers::secret::{DerivationFailed, InstanceSecret};

/// How all names in a cluster begin. It is also a name that no server has.
pub(super) const IN_CLUSTER: &str = "holdfast:v1:{holdfast}:";

/// The names under one instance secret.
pub(super) struct Names {
    prefix: String,
    issuers: hmac::Key,
}

impl Names {
    /// The names under this secret.
    pub(super) fn new(secret: &InstanceSecret, in_cluster: bool) -> Result<Self, DerivationFailed> {
        let namespace = hmac::sign(&secret.hmac_key("shared namespace 1")?, b"");
        let start = if in_cluster { IN_CLUSTER } else { "holdfast:v1:" };
        let prefix = format!("{start}{}:", hex(namespace.as_ref().get(..8).unwrap_or_default()));
        Ok(Self { prefix, issuers: secret.hmac_key("shared issuer 1")? })
    }

    /// The name of a record.
    pub(super) fn of(&self, family: Family, key: &[u8]) -> String {
        let digest = match family {
            Family::Keys => hex(hmac::sign(&self.issuers, key).as_ref()),
            Family::Verdicts | Family::Profiles | Family::Revocations => hex(key),
        };
        format!("{}{}:{digest}", self.prefix, family.name())
    }

    /// The name of a lease. `key` is a digest.
    pub(super) fn lease(&self, key: &[u8; DIGEST_LENGTH]) -> String {
        format!("{}lease:{}", self.prefix, hex(key))
    }

    /// The name of the mark of a purge of everybody. It is no record's name and matches no pattern that is
    /// purged.
    pub(super) fn purged(&self) -> String {
        format!("{}purged", self.prefix)
    }

    /// The name of the value that tests whether Redis accepts writes. Nothing reads it.
    pub(super) fn trial(&self) -> String {
        format!("{}trial", self.prefix)
    }

    /// A name that no server has.
    pub(super) fn absent(&self) -> String {
        self.prefix.clone()
    }

    /// The name of the log of revocations.
    pub(super) fn revocations(&self) -> String {
        format!("{}revocation_log", self.prefix)
    }

    /// The name under which the use of a DPoP proof is recorded.
    pub(super) fn replay(&self, id: &[u8]) -> String {
        format!("{}once:{}", self.prefix, hex(id))
    }

    /// The pattern that matches all names of a family, for `SCAN`. The prefix has no special characters.
    pub(super) fn pattern(&self, family: Family) -> String {
        format!("{}{}:*", self.prefix, family.name())
    }

    /// The key of a record, a digest, from its name. `None` if the name is not of that form.
    pub(super) fn key_of(&self, family: Family, name: &[u8]) -> Option<[u8; DIGEST_LENGTH]> {
        let name = std::str::from_utf8(name).ok()?;
        let digest = name.strip_prefix(&self.prefix)?.strip_prefix(family.name())?.strip_prefix(':')?;
        if digest.len() != 2 * DIGEST_LENGTH || !digest.is_ascii() {
            return None;
        }
        let mut key = [0; DIGEST_LENGTH];
        for (byte, digits) in key.iter_mut().zip(digest.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        (hex(&key) == digest).then_some(key)
    }

    /// The channel of the messages between instances.
    pub(super) fn channel(&self) -> String {
        format!("{}forget", self.prefix)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(secret: u8) -> Names {
        Names::new(&InstanceSecret::from_bytes(&[secret; 32]), false).unwrap()
    }

    #[test]
    fn names_are_fixed_by_secret_family_and_key() {
        // Fixed on purpose: instances of several versions share one Redis. Computed apart, by RFC 5869 and
        // RFC 2104.
        let name = names(1).of(Family::Verdicts, &[0xab; 32]);
        assert_eq!(name, format!("{}verdicts:{}", names(1).prefix, "ab".repeat(32)));
        assert_ne!(names(1).prefix, names(2).prefix);
        assert_ne!(name, names(1).of(Family::Profiles, &[0xab; 32]));
        assert_eq!(names(1).prefix.len(), "holdfast:v1:0123456789abcdef:".len());
    }

    #[test]
    fn an_issuers_url_is_not_in_the_name_of_its_keys() {
        let issuer = b"https://tenant.example/";
        let name = names(1).of(Family::Keys, issuer);
        assert!(!name.contains("tenant") && !name.contains(&hex(issuer)), "{name}");
        assert_ne!(name, names(1).of(Family::Keys, b"https://other.example/"));
        assert!(name.contains(":keys:"), "{name}");
    }

    #[test]
    fn in_a_cluster_all_names_lie_in_one_slot() {
        let of = |secret| Names::new(&InstanceSecret::from_bytes(&[secret; 32]), true).unwrap();
        for names in [of(1), of(2)] {
            for name in [
                names.of(Family::Verdicts, &[1; 32]),
                names.of(Family::Keys, b"https://t/"),
                names.purged(),
                names.revocations(),
                names.channel(),
                names.absent(),
            ] {
                assert!(name.starts_with(IN_CLUSTER), "{name}");
            }
        }
        assert_ne!(of(1).prefix, of(2).prefix);
        assert_eq!(
            of(1).key_of(Family::Verdicts, of(1).of(Family::Verdicts, &[3; 32]).as_bytes()),
            Some([3; 32])
        );
    }

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_name_and_from_no_other(key: [u8; 32], other: String) {
            let names = names(1);
            let name = names.of(Family::Verdicts, &key);
            prop_assert_eq!(names.key_of(Family::Verdicts, name.as_bytes()), Some(key));
            prop_assert_eq!(names.key_of(Family::Profiles, name.as_bytes()), None);
            prop_assert_eq!(names.key_of(Family::Verdicts, other.as_bytes()), None);
            let strange = format!("{}verdicts:{other}", names.prefix);
            let back = names.key_of(Family::Verdicts, strange.as_bytes());
            prop_assert!(back.is_none_or(|key| names.of(Family::Verdicts, &key) == strange));
        }
    }
}
