//! An issuer's public keys, as far as we can verify with them (RFC 7517 §5).
//!
//! **Keys of the previous fetch stay for a while.** While an issuer deploys, or where its edge servers
//! disagree, its answers alternate between two sets, and each set verifies about half of the tokens. So a key
//! that an answer lacks is held until one `jwks_refresh` after the first answer without it, and longer only
//! if an answer lists it again. If an issuer revokes a key by removing it, the key is revoked within that
//! time; a reload keeps only what the newest answer lists.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::clock::Ticks;
use crate::token::algorithm::SignatureAlgorithm;
use crate::token::json;
use crate::token::jws::VerificationKey;

/// The most keys that are read: a document with more is a mistake, and each costs memory.
const MAX_KEYS: usize = 100;

/// The most keys that are tried for one token, if its `kid` names several.
const MAX_TRIES: usize = 4;

/// The members of a key that are read. Others are ignored.
const MEMBERS: [&str; 10] = ["kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y"];

/// The most characters of a `kid` that are shown.
const MAX_SHOWN: usize = 80;

/// A set of keys; never empty.
#[derive(Default)]
pub struct KeySet {
    listed: Vec<Arc<VerificationKey>>,
    /// Keys that the newest answer lacks, and until when they are held.
    held: Vec<(Arc<VerificationKey>, Ticks)>,
    skipped: Vec<Skipped>,
    document: Vec<u8>,
}

/// A skipped key of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its `kid`, if that is a text, truncated.
    pub kid: Option<String>,
    /// Why.
    pub why: &'static str,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "{kid:?}: {}", self.why),
            None => write!(f, "without kid: {}", self.why),
        }
    }
}

/// The result of a key lookup.
pub enum KeyLookup {
    /// The fitting keys; at least one, at most four.
    Found(Vec<Arc<VerificationKey>>),
    /// There is a key of that `kid`, but for another algorithm or use.
    Unfit,
    /// There is none; or the token has no `kid` and more than one key fits.
    Unknown,
}

impl KeySet {
    /// Reads a JWKS document. Unusable keys are skipped (as RFC 7517 §5 says) and listed; equal keys count as
    /// one. A document without any usable key is an error, so that it never replaces good keys. With
    /// `pss_too`, a key for RS256 is for PS256 as well.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub fn read(document: &[u8], pss_too: bool) -> Result<Self, &'static str> {
        let mut fields = json::object(document).map_err(|_| "the JWKS is not a JSON object")?;
        let Some(Value::Array(entries)) = fields.remove("keys") else {
            return Err("the JWKS has no list of keys");
        };
        let mut set = Self { document: document.to_vec(), ..Self::default() };
        for (number, entry) in entries.into_iter().enumerate() {
            let kid =
                entry.get("kid").and_then(Value::as_str).map(|kid| kid.chars().take(MAX_SHOWN).collect());
            let key = if number < MAX_KEYS {
                read_key(entry, pss_too)
            } else {
                Err("there are more than 100 keys; this one and all after it are not read")
            };
            match key {
                Ok(key) if set.listed.iter().any(|other| other.equals(&key)) => {}
                Ok(key) => set.listed.push(Arc::new(key)),
                Err(why) => set.skipped.push(Skipped { kid, why }),
            }
            if number == MAX_KEYS {
                break;
            }
        }
        if set.listed.is_empty() { Err("the JWKS has no key that can verify signatures") } else { Ok(set) }
    }

    /// A set of one shared secret.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        Self { listed: vec![Arc::new(VerificationKey::from_secret(secret))], ..Self::default() }
    }

    /// This set, which was fetched at `now`, holding what `before` listed and this does not for as long as
    /// `hold_for`.
    #[must_use]
    pub fn after(mut self, before: &Self, now: Ticks, hold_for: Duration) -> Self {
        let gone = before.listed.iter().map(|key| (key.clone(), now.after(hold_for)));
        let held = before.held.iter().filter(|(_, until)| now < *until).cloned();
        self.held = held.chain(gone).filter(|(key, _)| !self.lists(key)).take(MAX_KEYS).collect();
        self
    }

    fn lists(&self, key: &VerificationKey) -> bool {
        self.listed.iter().any(|own| own.equals(key))
    }

    /// The keys for a token with this `kid` and algorithm. A secret has no `kid` of its own and fits any.
    #[must_use]
    pub fn find(&self, kid: Option<&str>, algorithm: SignatureAlgorithm, now: Ticks) -> KeyLookup {
        let named =
            |key: &&Arc<VerificationKey>| algorithm.is_symmetric() || kid.is_none() || key.id() == kid;
        let fitting = |keys: &mut dyn Iterator<Item = &Arc<VerificationKey>>| {
            let mut different: Vec<Arc<VerificationKey>> = Vec::new();
            for key in keys.filter(named).filter(|key| key.fits(algorithm)) {
                if !different.iter().any(|other| other.is_same_as(key)) {
                    different.push(key.clone());
                }
            }
            different
        };
        let mut found = fitting(&mut self.listed.iter());
        let held = fitting(&mut self.held_at(now));
        // Without a `kid`, there is no guessing among the keys of one answer.
        let ambiguous = kid.is_none() && (found.len() > 1 || held.len() > 1);
        found.extend(held.into_iter().filter(|key| self.listed.iter().all(|own| !own.is_same_as(key))));
        found.truncate(MAX_TRIES);
        match found.is_empty() || ambiguous {
            false => KeyLookup::Found(found),
            true if kid.is_some() && self.listed.iter().any(|key| key.id() == kid) => KeyLookup::Unfit,
            true => KeyLookup::Unknown,
        }
    }

    fn held_at(&self, now: Ticks) -> impl Iterator<Item = &Arc<VerificationKey>> {
        self.held.iter().filter(move |(_, until)| now < *until).map(|(key, _)| key)
    }

    /// The `kid`s of the newest answer, for `/status`.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(|key| key.id().unwrap_or("(no kid)"))
    }

    /// The `kid`s of keys that are held although the newest answer lacks them.
    pub fn held_ids(&self, now: Ticks) -> impl Iterator<Item = &str> {
        self.held_at(now).map(|key| key.id().unwrap_or("(no kid)"))
    }

    /// The keys of the newest answer that are skipped.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The newest answer, unchanged; empty for a secret.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// How many keys the newest answer lists.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listed.len()
    }
}

/// Only the members of a key that count are read. A null member counts as absent, because some servers write
/// absent members so.
fn read_key(entry: Value, pss_too: bool) -> Result<VerificationKey, &'static str> {
    let Value::Object(mut fields) = entry else { return Err("it is not an object") };
    fields.retain(|name, value| MEMBERS.contains(&name.as_str()) && !value.is_null());
    let jwk = serde_json::from_value(Value::Object(fields));
    let jwk = jwk.map_err(|_| "it is not a JWK, or its type is unknown")?;
    VerificationKey::from_jwk(&jwk, pss_too)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;

    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;

    const OTHER: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn set(entries: &[String]) -> Result<KeySet, &'static str> {
        KeySet::read(format!(r#"{{"keys":[{}]}}"#, entries.join(",")).as_bytes(), false)
    }

    fn rsa(bits: u32, kid: &str, more: &str) -> String {
        let rsa = openssl::rsa::Rsa::generate(bits).unwrap();
        let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
        format!(r#"{{"kty":"RSA","kid":"{kid}","n":"{}","e":"{}"{more}}}"#, number(rsa.n()), number(rsa.e()))
    }

    /// How many keys are found.
    fn found(keys: &KeySet, kid: Option<&str>, at: u64) -> usize {
        match keys.find(kid, SignatureAlgorithm::RS256, secs(at)) {
            KeyLookup::Found(keys) => keys.len(),
            KeyLookup::Unfit | KeyLookup::Unknown => 0,
        }
    }

    fn secs(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    #[test]
    fn equal_keys_are_one_and_different_ones_of_a_kid_are_all_found_up_to_four() {
        let key = rsa(2048, "a", "");
        let twice = set(&[key.clone(), key.clone()]).unwrap();
        assert_eq!((twice.count(), found(&twice, Some("a"), 0), found(&twice, None, 0)), (1, 1, 1));
        // The same key under another name, or once with `alg`, is still one key.
        let other = key.replace("\"kid\":\"a\"", "\"kid\":\"b\"");
        let named = key.replace("\"kid\"", "\"alg\":\"RS256\",\"kid\"");
        let keys = set(&[key.clone(), other, named]).unwrap();
        assert_eq!(
            (found(&keys, Some("a"), 0), found(&keys, Some("b"), 0), found(&keys, None, 0)),
            (1, 1, 1)
        );
        let mut six: Vec<_> = (0..6).map(|_| rsa(2048, "a", "")).collect();
        assert_eq!(found(&set(&six).unwrap(), Some("a"), 0), 4);
        six.truncate(2);
        let two = set(&six).unwrap();
        assert_eq!((found(&two, Some("a"), 0), found(&two, None, 0)), (2, 0));
    }

    #[test]
    fn a_key_that_is_skipped_is_named_with_the_reason() {
        let keys = set(&[
            rsa(1024, "short", ""),
            rsa(2048, "enc", r#","use":"enc""#),
            rsa(2048, "oaep", r#","alg":"RSA-OAEP""#),
            rsa(2048, "es", r#","alg":"ES256""#),
            r#"{"kty":"oct","k":"AAAA","kid":"secret"}"#.to_owned(),
            r#"{"kty":"unheard-of","kid":"new"}"#.to_owned(),
            r#"{"kid":7}"#.to_owned(),
            "7".to_owned(),
            rsa(2048, "good", r#","x5c":"odd","x5t":null,"alg":null,"ext":1e999,"note":"\ud83d""#),
        ])
        .unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["good"]);
        let skipped: Vec<_> = keys.skipped().iter().map(ToString::to_string).collect();
        let expected = [
            ("\"short\"", "fewer than 2048 bits"),
            ("\"enc\"", "`use`"),
            ("\"oaep\"", "`alg`"),
            ("\"es\"", "`alg`"),
            ("\"secret\"", "type or curve"),
            ("\"new\"", "type"),
            ("without kid", "not a JWK"),
            ("without kid", "not an object"),
        ];
        assert_eq!(skipped.len(), expected.len(), "{skipped:#?}");
        for (skipped, (kid, why)) in skipped.iter().zip(expected) {
            assert!(skipped.starts_with(kid) && skipped.contains(why), "{skipped}");
        }
    }

    #[test]
    fn what_an_answer_lacks_is_held_for_one_refresh_and_no_longer_unless_it_comes_back() {
        let (a, b) = (rsa(2048, "a", ""), rsa(2048, "b", ""));
        let fetch = |entry: &String| set(std::slice::from_ref(entry)).unwrap();
        let hold_for = Duration::from_secs(600);
        // Removed for good, whatever is fetched meanwhile.
        let one = fetch(&b).after(&fetch(&a), secs(1_000), hold_for);
        let two = fetch(&b).after(&one, secs(1_300), hold_for);
        for keys in [&one, &two] {
            assert_eq!((found(keys, Some("a"), 1_599), found(keys, Some("a"), 1_600)), (1, 0));
            assert_eq!(found(keys, Some("b"), 9_999), 1);
            assert_eq!((keys.ids().count(), keys.held_ids(secs(1_599)).count()), (1, 1));
        }
        let three = fetch(&b).after(&two, secs(1_600), hold_for);
        assert_eq!((found(&three, Some("a"), 1_600), three.held_ids(secs(0)).count()), (0, 0));
        // Alternating answers, with a fetch each refresh: both sets are good at any time.
        let mut keys = fetch(&a);
        for round in 1..20 {
            keys = fetch(if round % 2 == 0 { &a } else { &b }).after(&keys, secs(round * 600), hold_for);
            for at in [round * 600, round * 600 + 599] {
                assert_eq!((found(&keys, Some("a"), at), found(&keys, Some("b"), at)), (1, 1), "{at}");
                assert_eq!(found(&keys, None, at), 2, "without a kid, the one of each answer");
            }
        }
        // The same `kid` for two keys.
        let other = rsa(2048, "a", "");
        let keys = fetch(&other).after(&fetch(&a), secs(0), hold_for);
        assert_eq!((found(&keys, Some("a"), 1), found(&keys, Some("a"), 600)), (2, 1));
    }

    #[test]
    fn a_key_for_rs256_is_for_ps256_only_where_that_is_said() {
        let document = format!(r#"{{"keys":[{}]}}"#, rsa(2048, "a", r#","alg":"RS256""#));
        for (pss_too, expected) in [(false, [true, false, false]), (true, [true, true, false])] {
            let keys = KeySet::read(document.as_bytes(), pss_too).unwrap();
            let fits = ["RS256", "PS256", "PS384"].map(|name| {
                matches!(keys.find(Some("a"), name.parse().unwrap(), Ticks::ZERO), KeyLookup::Found(_))
            });
            assert_eq!(fits, expected, "{pss_too}");
        }
    }

    fn es256() -> SignatureAlgorithm {
        "ES256".parse().unwrap()
    }

    #[test]
    fn a_document_without_a_usable_key_is_an_error() {
        assert!(KeySet::read(b"{}", false).is_err());
        assert!(KeySet::read(b"[]", false).is_err());
        assert!(set(&[]).is_err());
        assert!(set(&[r#"{"kty":"oct","k":"AAAA","kid":"a"}"#.to_owned()]).is_err());
        assert!(set(&[format!(r#"{EC},"use":"enc"}}"#)]).is_err());
        assert!(set(&[format!(r#"{EC},"alg":"RS256"}}"#)]).is_err());
    }

    #[test]
    fn an_rsa_key_of_fewer_than_2048_bits_is_passed_over() {
        let of_bits = |bits: u32| rsa(bits, &bits.to_string(), "");
        assert!(set(&[of_bits(1024)]).is_err());
        let keys = set(&[of_bits(1024), of_bits(2048)]).unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["2048"]);
    }

    #[test]
    fn a_key_is_found_by_its_id_and_only_for_its_algorithm() {
        let keys = set(&[
            r#"{"kty":"unheard-of"}"#.to_owned(),
            format!(r#"{EC},"kid":"a","alg":"ES256","use":"sig"}}"#),
            format!(r#"{OTHER},"kid":"b"}}"#),
        ])
        .unwrap();
        assert_eq!(keys.count(), 2);
        let found = keys.find(Some("a"), es256(), Ticks::ZERO);
        assert!(matches!(found, KeyLookup::Found(keys) if keys[0].id() == Some("a")));
        assert!(matches!(keys.find(Some("a"), SignatureAlgorithm::RS256, Ticks::ZERO), KeyLookup::Unfit));
        assert!(matches!(keys.find(Some("../../etc/passwd"), es256(), Ticks::ZERO), KeyLookup::Unknown));
        // Without a `kid`, two keys would fit, and there is no guessing.
        assert!(matches!(keys.find(None, es256(), Ticks::ZERO), KeyLookup::Unknown));
        let one = set(&[format!(r#"{EC},"kid":"a"}}"#)]).unwrap();
        assert!(matches!(one.find(None, es256(), Ticks::ZERO), KeyLookup::Found(_)));
    }
}
