//! An issuer's public keys, as far as we can verify with them (RFC 7517 §5).

use serde_json::Value;

use crate::token::algorithm::SignatureAlgorithm;
use crate::token::json;
use crate::token::jws::VerificationKey;

/// More keys than this are not read: a document with more is a mistake, and each costs memory.
const MAX_KEYS: usize = 100;

/// A set of keys; never empty.
pub struct KeySet(Vec<VerificationKey>);

/// What a look for a key finds.
pub enum Lookup<'k> {
    /// The key.
    Found(&'k VerificationKey),
    /// There is a key of that `kid`, but for something else.
    Unfit,
    /// There is none, or without a `kid` more than one would fit.
    Unknown,
}

impl KeySet {
    /// Reads a JWKS document. Keys that we cannot use are passed over (RFC 7517 §5 says to); a document without any
    /// that we can is an error, so that it never replaces good keys.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub fn read(document: &[u8]) -> Result<Self, &'static str> {
        let mut fields = json::object(document).map_err(|_| "the JWKS is not a JSON object")?;
        let Some(Value::Array(entries)) = fields.remove("keys") else {
            return Err("the JWKS has no list of keys");
        };
        let keys: Vec<_> = entries
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(|entry| VerificationKey::from_jwk(&serde_json::from_value(entry).ok()?))
            .collect();
        if keys.is_empty() { Err("the JWKS has no key that can verify signatures") } else { Ok(Self(keys)) }
    }

    /// A set of one shared secret.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        Self(vec![VerificationKey::from_secret(secret)])
    }

    /// The key for a token with this `kid` and algorithm. A secret has no `kid` of its own and fits any.
    #[must_use]
    pub fn find(&self, kid: Option<&str>, algorithm: SignatureAlgorithm) -> Lookup<'_> {
        let named = |key: &&VerificationKey| algorithm.is_symmetric() || kid.is_none() || key.id() == kid;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.fits(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Lookup::Found(key),
            (None, _) if kid.is_some() && self.0.iter().any(|key| key.id() == kid) => Lookup::Unfit,
            _ => Lookup::Unknown,
        }
    }

    /// The `kid`s, for a person.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id().unwrap_or("(no kid)"))
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;

    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;

    fn set(entries: &[String]) -> Result<KeySet, &'static str> {
        KeySet::read(format!(r#"{{"keys":[{}]}}"#, entries.join(",")).as_bytes())
    }

    fn es256() -> SignatureAlgorithm {
        "ES256".parse().unwrap()
    }

    #[test]
    fn a_document_without_a_usable_key_is_an_error() {
        assert!(KeySet::read(b"{}").is_err());
        assert!(KeySet::read(b"[]").is_err());
        assert!(set(&[]).is_err());
        assert!(set(&[r#"{"kty":"oct","k":"AAAA","kid":"a"}"#.to_owned()]).is_err());
        assert!(set(&[format!(r#"{EC},"use":"enc"}}"#)]).is_err());
        assert!(set(&[format!(r#"{EC},"alg":"RS256"}}"#)]).is_err());
    }

    #[test]
    fn an_rsa_key_of_fewer_than_2048_bits_is_passed_over() {
        let of_bits = |bits: u32| {
            let rsa = openssl::rsa::Rsa::generate(bits).unwrap();
            let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
            format!(r#"{{"kty":"RSA","kid":"{bits}","n":"{}","e":"{}"}}"#, number(rsa.n()), number(rsa.e()))
        };
        assert!(set(&[of_bits(1024)]).is_err());
        let keys = set(&[of_bits(1024), of_bits(2048)]).unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["2048"]);
    }

    #[test]
    fn a_key_is_found_by_its_id_and_only_for_its_algorithm() {
        let keys = set(&[
            r#"{"kty":"unheard-of"}"#.to_owned(),
            format!(r#"{EC},"kid":"a","alg":"ES256","use":"sig"}}"#),
            format!(r#"{EC},"kid":"b"}}"#),
        ])
        .unwrap();
        assert_eq!(keys.count(), 2);
        assert!(matches!(keys.find(Some("a"), es256()), Lookup::Found(key) if key.id() == Some("a")));
        assert!(matches!(keys.find(Some("a"), SignatureAlgorithm::RS256), Lookup::Unfit));
        assert!(matches!(keys.find(Some("../../etc/passwd"), es256()), Lookup::Unknown));
        // Without a `kid`, two keys would fit, and guessing is not our trade.
        assert!(matches!(keys.find(None, es256()), Lookup::Unknown));
        let one = set(&[format!(r#"{EC},"kid":"a"}}"#)]).unwrap();
        assert!(matches!(one.find(None, es256()), Lookup::Found(_)));
    }
}
