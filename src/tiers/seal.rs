//! Sealed records. An attacker who can write to a store can destroy a record, but can neither read nor forge
//! one.
//!
//! A sealed record is, byte by byte:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | expiry, seconds since the Unix epoch, big-endian; in clear, so that a store needs no key |
//! | 1 | version of this layout and of the record inside |
//! | 12 | nonce, random |
//! | n | the record, AES-256-GCM |
//! | 16 | tag |
//!
//! The associated data is everything that says *where* and *how long*: expiry, version, column family and the
//! record's key. So a record does not open if it is moved to another key or family, or if its expiry is
//! changed. A record that does not open is a miss, never an error for the request.
//!
//! Random nonces allow 2^32 seals under one AES-GCM key (NIST SP 800-38D §8.3). Several instances that share
//! a secret would reach that within months. So there are 256 keys, chosen by the first byte of the record's
//! key, which is uniform where records are many. That allows 2^40 seals: centuries at the highest rate that
//! Auth0 sells.

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use aws_lc_rs::rand;

use super::family::Family;
use super::secret::{DerivationFailed, InstanceSecret};
use crate::clock::Timestamp;

/// The version of the layout and of the records inside. A record of another version is a miss.
pub const VERSION: u8 = 1;

/// The length of the clear expiry in front, in bytes.
pub const EXPIRY_LENGTH: usize = 8;

const HEADER_LENGTH: usize = EXPIRY_LENGTH + 1;
const CIPHERTEXT_START: usize = HEADER_LENGTH + NONCE_LEN;
const TAG_LENGTH: usize = 16;

/// The overhead of sealing, in bytes.
pub const OVERHEAD: usize = CIPHERTEXT_START + TAG_LENGTH;

/// The place of a record. It opens only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The column family, or its part of the shared store.
    pub family: Family,
    /// The key under which the store keeps it.
    pub key: &'a [u8],
}

const KEYS: usize = 256;

/// Seals and opens records under one instance's keys.
pub struct Sealer(Box<[LessSafeKey; KEYS]>);

impl Sealer {
    /// A sealer under the keys of this secret.
    ///
    /// # Errors
    /// Never in practice: see [`DerivationFailed`].
    pub fn new(secret: &InstanceSecret) -> Result<Self, DerivationFailed> {
        let key = |key| Ok(LessSafeKey::new(secret.aead_key(&format!("record 1 {key:02x}"))?));
        let keys = (0..KEYS).map(key).collect::<Result<Box<[_]>, _>>()?;
        keys.try_into().map(Self).map_err(|_| DerivationFailed)
    }

    /// Seals `plaintext` for `place`. The expiry is rounded up to a second.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(
        &self,
        place: Place<'_>,
        useless_from: Timestamp,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealFailed> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealFailed::Random)?;
        let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
        sealed.extend_from_slice(&useless_from.as_millis().div_ceil(1000).to_be_bytes());
        sealed.push(VERSION);
        let mut data = Vec::new();
        push_associated_data(&mut data, &sealed, place);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let (_, in_place) = sealed.split_at_mut(CIPHERTEXT_START);
        let tag = self
            .key(place)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(data), in_place)
            .map_err(|_| SealFailed::Encoding)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a sealed record from `place`.
    ///
    /// # Errors
    /// When it differs in any bit from what was sealed for this place under this secret.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.open_into(place, sealed, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    /// The same into `room`, whose content is replaced. Allocates nothing if `room` is large enough.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn open_into<'r>(
        &self,
        place: Place<'_>,
        sealed: &[u8],
        room: &'r mut Vec<u8>,
    ) -> Result<&'r [u8], OpenError> {
        let (header, rest) = sealed.split_at_checked(HEADER_LENGTH).ok_or(OpenError::Truncated)?;
        if header.last() != Some(&VERSION) {
            return Err(OpenError::Version);
        }
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Truncated)?;
        let length = rest.len().checked_sub(TAG_LENGTH).ok_or(OpenError::Truncated)?;
        let (ciphertext, tag) = rest.split_at(length);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Truncated)?;
        room.clear();
        push_associated_data(room, header, place);
        let start = room.len();
        room.resize(start + length, 0);
        let (data, plaintext) = room.split_at_mut(start);
        self.key(place)
            .open_separate_gather(nonce, Aad::from(&*data), ciphertext, tag, plaintext)
            .map_err(|_| OpenError::Unsealable)?;
        Ok(plaintext)
    }

    fn key(&self, place: Place<'_>) -> &LessSafeKey {
        &self.0[usize::from(place.key.first().copied().unwrap_or_default())]
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// The expiry in the clear prefix of a sealed record; `None` if it is too short to be a record. The prefix is
/// only a hint for dropping useless records: the record inside decides what is served.
#[must_use]
pub fn useless_from(sealed: &[u8]) -> Option<Timestamp> {
    let prefix = sealed.first_chunk::<EXPIRY_LENGTH>()?;
    Some(Timestamp::from_secs(u64::from_be_bytes(*prefix)))
}

/// Expiry and version, then the family's name, which contains no NUL, then NUL, then the key. So no two
/// places have the same encoding.
fn push_associated_data(data: &mut Vec<u8>, header: &[u8], place: Place<'_>) {
    let family = place.family.name().as_bytes();
    data.reserve(header.len() + family.len() + 1 + place.key.len());
    data.extend_from_slice(header);
    data.extend_from_slice(family);
    data.push(0);
    data.extend_from_slice(place.key);
}

/// Why a record could not be sealed. Neither happens in practice; the record is then not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFailed {
    /// There is no randomness for a nonce.
    #[error("the record is not stored: the system gives no random bytes")]
    Random,
    /// It cannot be encoded or encrypted.
    #[error("the record is not stored: it cannot be encoded")]
    Encoding,
}

/// Why a record does not open. All count as a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// It is of another version.
    #[error("the record is of another version than {VERSION}: it is treated as missing")]
    Version,
    /// It is too short to be a record.
    #[error("the record is cut short: it is treated as missing")]
    Truncated,
    /// It was changed, moved from another key, or sealed under another secret.
    #[error(
        "the record does not open: it was changed, moved, or sealed under another instance secret; it \
         is treated as missing"
    )]
    Unsealable,
    /// It opens, but is no record of this kind inside: a fault of the program that wrote it.
    #[error("the record opens but does not decode: it is treated as missing")]
    Undecodable,
}

impl OpenError {
    /// The metric label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Truncated => "truncated",
            Self::Unsealable => "unsealable",
            Self::Undecodable => "undecodable",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LATER: Timestamp = Timestamp::from_secs(1_900_000_000);

    fn sealer(secret: u8) -> Sealer {
        Sealer::new(&InstanceSecret::from_bytes(&[secret; 32])).unwrap()
    }

    fn at(key: &[u8]) -> Place<'_> {
        Place { family: Family::Verdicts, key }
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_and_says_when_it_is_useless() {
        let sealed = sealer(1).seal(at(b"key"), LATER, b"plaintext").unwrap();
        assert_eq!(sealer(1).open(at(b"key"), &sealed).unwrap(), b"plaintext");
        assert_eq!(sealed.len(), b"plaintext".len() + OVERHEAD);
        assert_eq!(useless_from(&sealed), Some(LATER));
        let sealed = sealer(1).seal(at(b"key"), Timestamp::from_millis(1001), b"").unwrap();
        assert_eq!(
            useless_from(&sealed),
            Some(Timestamp::from_secs(2)),
            "an expiry must never be rounded down"
        );
        assert_eq!(sealer(1).open(at(b"key"), &sealed).unwrap(), b"");
    }

    #[test]
    fn it_opens_nowhere_else_and_under_no_other_secret() {
        let sealed = sealer(1).seal(at(b"key"), LATER, b"plaintext").unwrap();
        let elsewhere = Place { family: Family::Profiles, key: b"key" };
        for other in [&b"kex"[..], b"ke", b"keyy", b"other", b""] {
            assert_eq!(sealer(1).open(at(other), &sealed), Err(OpenError::Unsealable));
        }
        assert_eq!(sealer(1).open(elsewhere, &sealed), Err(OpenError::Unsealable));
        assert_eq!(sealer(2).open(at(b"key"), &sealed), Err(OpenError::Unsealable));
    }

    #[test]
    fn every_changed_bit_and_every_shorter_length_is_a_miss() {
        let sealed = sealer(1).seal(at(b"key"), LATER, b"plaintext").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit / 8 == EXPIRY_LENGTH { OpenError::Version } else { OpenError::Unsealable };
            assert_eq!(sealer(1).open(at(b"key"), &changed), Err(expected), "bit {bit}");
        }
        for length in 0..sealed.len() {
            let expected = if length < OVERHEAD { OpenError::Truncated } else { OpenError::Unsealable };
            assert_eq!(sealer(1).open(at(b"key"), &sealed[..length]), Err(expected), "length {length}");
        }
        assert_eq!(useless_from(&sealed[..7]), None);
    }

    #[test]
    fn two_seals_of_one_record_share_no_nonce() {
        let seal = || sealer(1).seal(at(b"key"), LATER, b"plaintext").unwrap();
        assert_ne!(seal()[HEADER_LENGTH..CIPHERTEXT_START], seal()[HEADER_LENGTH..CIPHERTEXT_START]);
    }

    proptest! {
        #[test]
        fn whatever_a_store_returns_opens_only_if_it_was_sealed(
            key: Vec<u8>, plaintext: Vec<u8>, millis in 0..u64::MAX / 2, found: Vec<u8>,
        ) {
            let expiry = Timestamp::from_millis(millis);
            let sealed = sealer(1).seal(at(&key), expiry, &plaintext).unwrap();
            prop_assert_eq!(sealer(1).open(at(&key), &sealed), Ok(plaintext));
            prop_assert!(sealer(1).open(at(&key), &found).is_err());
        }
    }
}
