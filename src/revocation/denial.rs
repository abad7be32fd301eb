//! A deny record and its key.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey, TokenDigester};
use crate::tiers::policy::{Known, RecordKind};
use crate::tiers::record::{self, Family, Record};
use crate::tiers::seal::{OpenError, Place, Sealer};
use crate::token::compact::without_signature;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// All tokens of a subject.
    Subject = 1,
    /// All tokens of a session (`sid`).
    Session,
    /// One token.
    Token,
    /// All tokens signed with a key (`kid`).
    Key,
    /// All tokens of an issuer.
    Everybody,
    /// All tokens of a subject that name no session. A logout that names a subject and a session revokes the
    /// tokens of the session, and these tokens.
    Sessionless,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Subject, Self::Session, Self::Token, Self::Key, Self::Everybody, Self::Sessionless];

    /// The metric label, and the name in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Session => "session",
            Self::Token => "token",
            Self::Key => "kid",
            Self::Everybody => "everybody",
            Self::Sessionless => "sessionless",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// How many bytes of a digest a key holds: 128 bits, for which nobody finds a collision.
pub(super) const DIGEST_PART: usize = 16;

/// The key of a deny record: its kind, and a part of the keyed digest of whom or what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RevocationKey {
    /// What is revoked.
    pub kind: Kind,
    /// The digest's first 16 bytes.
    pub digest: [u8; DIGEST_PART],
}

impl RevocationKey {
    /// The length of [`RevocationKey::to_bytes`].
    pub const LENGTH: usize = DIGEST_PART + 1;

    /// The key of a subject.
    #[must_use]
    pub fn subject(key: &SubjectKey) -> Self {
        Self::new(Kind::Subject, &key.0)
    }

    /// The key of a subject's tokens that name no session.
    #[must_use]
    pub fn sessionless(key: &SubjectKey) -> Self {
        Self::new(Kind::Sessionless, &key.0)
    }

    /// The key of one token: of what it signs, because an ECDSA signature has a second form that holds, too.
    #[must_use]
    pub fn token(digester: &TokenDigester, token: &str) -> Self {
        Self::new(Kind::Token, &digester.token(without_signature(token).as_bytes()).0)
    }

    /// The key of a session of an issuer.
    #[must_use]
    pub fn session(digester: &TokenDigester, issuer: &str, session: &str) -> Self {
        Self::new(Kind::Session, &digester.revocation(Kind::Session.name(), issuer, session))
    }

    /// The key of a signing key of an issuer.
    #[must_use]
    pub fn kid(digester: &TokenDigester, issuer: &str, kid: &str) -> Self {
        Self::new(Kind::Key, &digester.revocation(Kind::Key.name(), issuer, kid))
    }

    /// The key of all tokens of an issuer.
    #[must_use]
    pub fn everybody(digester: &TokenDigester, issuer: &str) -> Self {
        Self::new(Kind::Everybody, &digester.revocation(Kind::Everybody.name(), issuer, ""))
    }

    /// The form in the stores: the kind, then the digest.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [self.kind as u8; Self::LENGTH];
        bytes[1..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads the form of [`RevocationKey::to_bytes`]; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, digest) = bytes.split_first()?;
        Some(Self { kind: Kind::from_byte(*kind)?, digest: digest.try_into().ok()? })
    }

    fn new(kind: Kind, digest: &[u8; DIGEST_LENGTH]) -> Self {
        let mut part = [0; DIGEST_PART];
        part.copy_from_slice(&digest[..DIGEST_PART]);
        Self { kind, digest: part }
    }
}

/// A deny record: which tokens are refused by their time of issue, and how long the record is kept. Its key
/// says whose tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Tokens issued at or before this time are refused. The Unix epoch means that the revocation was undone.
    pub issued_before: Timestamp,
    /// When the record was last changed. Of two records with the same key the later one counts.
    pub changed_at: Timestamp,
    /// When the record expires.
    pub until: Timestamp,
    /// Whom or what it is about, for lists; empty if only the digest is known.
    pub label: String,
}

impl Denial {
    /// Whether it refuses any token.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.issued_before != Timestamp::EPOCH
    }

    /// Opens a record as [`Record::open`] does, but for its label. To read a million records, it allocates
    /// nothing: `room` is for what is decrypted.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub fn open_unlabelled(
        sealer: &Sealer,
        key: &[u8],
        sealed: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<Self, OpenError> {
        let opened = sealer.open_into(Place { family: Self::FAMILY, key }, sealed, room)?;
        let (issued_before, changed_at, until, _): (_, _, _, &str) = record::decode(opened)?;
        Ok(Self { issued_before, changed_at, until, label: String::new() })
    }

    /// Merges what two instances know of one key. The later record counts. If both are revocations, neither
    /// is lost: a token that either of them refuses is refused. If both have the same time of change, the
    /// revocation counts.
    #[must_use]
    pub fn merged_with(self, other: Self) -> Self {
        let rank = |denial: &Self| (denial.changed_at, denial.issued_before, denial.until);
        let (later, earlier) = if rank(&self) >= rank(&other) { (self, other) } else { (other, self) };
        if !later.is_in_force() || !earlier.is_in_force() {
            return later;
        }
        Self {
            issued_before: later.issued_before.max(earlier.issued_before),
            changed_at: later.changed_at,
            until: later.until.max(earlier.until),
            label: if later.label.is_empty() { earlier.label } else { later.label },
        }
    }
}

impl Record for Denial {
    const FAMILY: Family = Family::Revocations;

    fn kept(&self) -> Known {
        Known { kind: RecordKind::Profile, verified_at: self.changed_at, not_after: Some(self.until) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tiers::secret::InstanceSecret;

    fn digester() -> TokenDigester {
        TokenDigester::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap()
    }

    #[test]
    fn a_key_comes_back_from_its_bytes_and_nothing_else_is_one() {
        let digester = digester();
        let keys = [
            RevocationKey::subject(&digester.subject("i", "s")),
            RevocationKey::token(&digester, "t"),
            RevocationKey::session(&digester, "i", "s"),
            RevocationKey::kid(&digester, "i", "s"),
            RevocationKey::everybody(&digester, "i"),
        ];
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(RevocationKey::from_bytes(&key.to_bytes()), Some(*key));
            assert!(keys[number + 1..].iter().all(|other| other.digest != key.digest), "{key:?}");
        }
        for wrong in [&[][..], &[0; 17], &[7; 17], &[1; 16], &[1; 18]] {
            assert_eq!(RevocationKey::from_bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn issuer_and_name_are_told_apart() {
        let digester = digester();
        let session = |issuer, name| RevocationKey::session(&digester, issuer, name);
        assert_ne!(session("ab", "c"), session("a", "bc"));
    }

    fn any_denial() -> impl Strategy<Value = Denial> {
        (0..4_u64, 0..4_u64, 0..4_u64).prop_map(|(before, changed, until)| Denial {
            issued_before: Timestamp::from_millis(before),
            changed_at: Timestamp::from_millis(changed),
            until: Timestamp::from_millis(until),
            label: String::new(),
        })
    }

    proptest! {
        #[test]
        fn two_instances_agree_whoever_hears_of_which_record_first(
            one in any_denial(), other in any_denial()
        ) {
            let merged = one.clone().merged_with(other.clone());
            prop_assert_eq!(&merged, &other.clone().merged_with(one.clone()));
            prop_assert_eq!(&merged, &merged.clone().merged_with(one.clone()));
            prop_assert_eq!(&merged, &merged.clone().merged_with(other.clone()));
            if one.is_in_force() && other.is_in_force() {
                prop_assert_eq!(merged.issued_before, one.issued_before.max(other.issued_before));
            }
        }
    }
}
