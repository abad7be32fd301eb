//! What stores keep: verdicts, profiles, keys, and deny records.
//!
//! A record is a plain struct, encoded by postcard (compact, fixed by its fields in order) and then sealed.
//! Fields are never reordered or removed without a new [`VERSION`](super::seal::VERSION), because postcard
//! has no field names.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use super::family::Family;
use super::policy::{Known, RecordKind};
use super::seal::{OpenError, Place, SealFailed, Sealer};
use crate::clock::Timestamp;

/// A record that can be sealed into its family and opened from it.
pub trait Record: Serialize + DeserializeOwned {
    /// The family of records of this type.
    const FAMILY: Family;

    /// What the policy needs to know of it, without any token that it may be used for.
    fn kept(&self) -> Known;

    /// This record in compact form, not sealed.
    ///
    /// # Errors
    /// Never in practice: there are no records that cannot be encoded.
    fn encode(&self) -> Result<Vec<u8>, SealFailed> {
        postcard::to_stdvec(self).map_err(|_| SealFailed::Encoding)
    }

    /// Decodes an [encoded](Self::encode) record.
    ///
    /// # Errors
    /// When the bytes are no such record, or bytes are left over.
    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        decode(bytes)
    }

    /// Seals this record under `key`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    fn seal(&self, sealer: &Sealer, key: &[u8], useless_from: Timestamp) -> Result<Vec<u8>, SealFailed> {
        sealer.seal(Place { family: Self::FAMILY, key }, useless_from, &self.encode()?)
    }

    /// Opens the record that was found under `key`.
    ///
    /// # Errors
    /// When it is not such a record, sealed for this key under this secret. That is a miss.
    fn open(sealer: &Sealer, key: &[u8], sealed: &[u8]) -> Result<Self, OpenError> {
        Self::decode(&sealer.open(Place { family: Self::FAMILY, key }, sealed)?)
    }
}

/// Decodes a value that has exactly these bytes.
///
/// # Errors
/// As [`Record::decode`].
pub fn decode<'b, R: Deserialize<'b>>(bytes: &'b [u8]) -> Result<R, OpenError> {
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        Ok(_) | Err(_) => Err(OpenError::Undecodable),
    }
}

/// Where an identity's email came from: the value of `X-Auth-Source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdentitySource {
    /// From the token's own claims.
    Claims,
    /// From the issuer's `/userinfo`.
    Userinfo,
}

impl IdentitySource {
    /// The value of `X-Auth-Source` and of the metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::Userinfo => "userinfo",
        }
    }
}

/// "This exact token was accepted, for this identity."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// When the issuer or a signature confirmed it.
    pub verified_at: Timestamp,
    /// The token's `exp`, if it can be read; without leeway.
    pub not_after: Option<Timestamp>,
    /// Whether only the issuer can judge the token.
    pub foreign: bool,
    /// The issuer.
    pub issuer: String,
    /// The subject, `sub`.
    pub subject: String,
    /// The email, if there is one.
    pub email: Option<String>,
    /// Whether the issuer says that the email is verified, if it says.
    pub email_verified: Option<bool>,
    /// Where the email came from.
    pub source: IdentitySource,
    /// The claims that headers and route rules need, as a JSON object.
    pub claims: String,
    /// When the issuer first vouched for this token: a revocation compares with it. The Unix epoch in a
    /// record of a version that did not keep it: such a token is refused by any revocation of its subject.
    pub first_verified_at: Timestamp,
}

impl VerdictRecord {
    /// What the policy needs to know of it. A verdict of holdfast's own verification ages like a profile: its
    /// token's own life bounds it.
    #[must_use]
    pub const fn known(&self) -> Known {
        let kind = if self.foreign { RecordKind::ForeignVerdict } else { RecordKind::Profile };
        Known { kind, verified_at: self.verified_at, not_after: self.not_after }
    }
}

impl Record for VerdictRecord {
    const FAMILY: Family = Family::Verdicts;

    fn kept(&self) -> Known {
        self.known()
    }

    /// Reads records without `first_verified_at`, too.
    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        type Before = (
            Timestamp,
            Option<Timestamp>,
            bool,
            String,
            String,
            Option<String>,
            Option<bool>,
            IdentitySource,
            String,
        );
        let (before, rest): (Before, _) =
            postcard::take_from_bytes(bytes).map_err(|_| OpenError::Undecodable)?;
        let (verified_at, not_after, foreign, issuer, subject, email, email_verified, source, claims) =
            before;
        let first_verified_at = if rest.is_empty() { Timestamp::EPOCH } else { decode(rest)? };
        Ok(Self {
            verified_at,
            not_after,
            foreign,
            issuer,
            subject,
            email,
            email_verified,
            source,
            claims,
            first_verified_at,
        })
    }
}

/// The answer of `/userinfo` about a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRecord {
    /// When `/userinfo` answered.
    pub verified_at: Timestamp,
    /// The email, if there is one.
    pub email: Option<String>,
    /// Whether the issuer says that the email is verified, if it says.
    pub email_verified: Option<bool>,
    /// The name, if there is one.
    pub name: Option<String>,
    /// A part of the digest of the `email_claims` by which the email was found. With other `email_claims` it
    /// might be another email, or none.
    pub email_rules: [u8; 4],
}

impl ProfileRecord {
    /// What the policy needs to know of it, for a token of this `exp`.
    #[must_use]
    pub const fn known(&self, not_after: Option<Timestamp>) -> Known {
        Known { kind: RecordKind::Profile, verified_at: self.verified_at, not_after }
    }
}

impl Record for ProfileRecord {
    const FAMILY: Family = Family::Profiles;

    fn kept(&self) -> Known {
        self.known(None)
    }
}

/// The keys of an issuer, so that tokens can be verified after a restart during an outage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysRecord {
    /// When they were fetched.
    pub verified_at: Timestamp,
    /// The JWKS document, as it was fetched.
    pub jwks: Vec<u8>,
    /// The discovery document, as it was fetched; empty if there was none.
    pub discovery: Vec<u8>,
}

impl KeysRecord {
    /// What the policy needs to know of it.
    #[must_use]
    pub const fn known(&self) -> Known {
        Known { kind: RecordKind::Keys, verified_at: self.verified_at, not_after: None }
    }
}

impl Record for KeysRecord {
    const FAMILY: Family = Family::Keys;

    fn kept(&self) -> Known {
        self.known()
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::InstanceSecret;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn sealer() -> Sealer {
        Sealer::new(&InstanceSecret::from_bytes(&[1; 32])).unwrap()
    }

    fn verdict() -> VerdictRecord {
        VerdictRecord {
            verified_at: NOW,
            not_after: Some(NOW.after(std::time::Duration::from_secs(86_400))),
            foreign: true,
            issuer: "https://tenant.example/".to_owned(),
            subject: "auth0|5f7c8ec7c33c6c004bbafe82".to_owned(),
            email: Some("ada@example.com".to_owned()),
            email_verified: Some(true),
            source: IdentitySource::Userinfo,
            claims: r#"{"scope":"openid email"}"#.to_owned(),
            first_verified_at: NOW,
        }
    }

    #[test]
    fn each_record_comes_back_as_it_was() {
        let profile = ProfileRecord {
            verified_at: NOW,
            email: None,
            email_verified: None,
            name: Some("Ada".to_owned()),
            email_rules: [1, 2, 3, 4],
        };
        let keys = KeysRecord { verified_at: NOW, jwks: b"{}".to_vec(), discovery: vec![] };
        let sealed = verdict().seal(&sealer(), b"key", NOW).unwrap();
        assert_eq!(VerdictRecord::open(&sealer(), b"key", &sealed), Ok(verdict()));
        let sealed = profile.seal(&sealer(), b"key", NOW).unwrap();
        assert_eq!(ProfileRecord::open(&sealer(), b"key", &sealed), Ok(profile));
        let sealed = keys.seal(&sealer(), b"key", NOW).unwrap();
        assert_eq!(KeysRecord::open(&sealer(), b"key", &sealed), Ok(keys));
    }

    #[test]
    fn the_email_is_not_in_what_is_stored() {
        let sealed = verdict().seal(&sealer(), b"key", NOW).unwrap();
        for secret in [&b"ada@example.com"[..], b"auth0|5f7c", b"openid", b"tenant.example"] {
            assert!(!sealed.windows(secret.len()).any(|window| window == secret));
        }
    }

    #[test]
    fn bytes_that_are_left_over_or_missing_are_a_miss() {
        let place = Place { family: Family::Verdicts, key: b"key" };
        let plaintext = postcard::to_stdvec(&verdict()).unwrap();
        let longer = [plaintext.as_slice(), b"!"].concat();
        for wrong in [longer.as_slice(), &plaintext[..plaintext.len() - 1], b""] {
            let sealed = sealer().seal(place, NOW, wrong).unwrap();
            assert_eq!(VerdictRecord::open(&sealer(), b"key", &sealed), Err(OpenError::Undecodable));
        }
    }

    #[test]
    fn a_verdict_without_the_time_of_the_first_is_read_and_counts_as_the_oldest() {
        let encoded = verdict().encode().unwrap();
        let before = &encoded[..encoded.len() - 6];
        assert_eq!(
            VerdictRecord::decode(before),
            Ok(VerdictRecord { first_verified_at: Timestamp::EPOCH, ..verdict() })
        );
    }

    #[test]
    fn the_encoding_of_this_version_is_fixed() {
        // A later version must read this or have another version byte.
        let profile = ProfileRecord {
            verified_at: Timestamp::from_millis(300),
            email: Some("a@b".to_owned()),
            email_verified: Some(true),
            name: None,
            email_rules: [1, 2, 3, 4],
        };
        let expected = [0xac, 0x02, 1, 3, b'a', b'@', b'b', 1, 1, 0, 1, 2, 3, 4];
        assert_eq!(postcard::to_stdvec(&profile).unwrap(), expected);
        assert_eq!(postcard::to_stdvec(&verdict()).unwrap().len(), 120);
    }
}
