//! Chooses the keys for a token, and decrypts it.

use std::sync::Arc;

use josekit::jwe::enc::aescbc_hmac::AescbcHmacJweEncryption;
use josekit::jwe::enc::aesgcm::AesgcmJweEncryption;
use josekit::jwe::{JweContentEncryption, JweHeader};

use super::algorithm::{ContentEncryption, KeyManagement};
use super::content::{Ciphertext, inflate};
use super::error::JweError;
use super::key::{Key, MAX_TRIES, Opener};
use super::keys::DecryptionKeys;
use super::opened::Opened;
use crate::token::compact::{Malformed, UnopenedJwe, UnverifiedHeader, decode};
use crate::token::json;

impl DecryptionKeys {
    /// The cheap check, without any cryptography: whether the token's algorithms are accepted and a key fits.
    ///
    /// # Errors
    /// Those of [`Self::open`] that the header alone decides: an algorithm that is not accepted, or no
    /// fitting key.
    pub fn can_open(&self, header: &UnverifiedHeader) -> Result<(), JweError> {
        Plan::new(&self.sets, header).map(drop)
    }

    /// Decrypts a token, and inflates its content if it was deflated.
    ///
    /// If the header's `kid` is that of a fitting key, only keys of that `kid` are tried; if it is unknown,
    /// the fitting keys without `kid`; if there is none in the header, all fitting keys, those without `kid`
    /// first. Of several issuers' keys, each issuer's are chosen in this way. Never more than four.
    ///
    /// # Errors
    /// [`JweError`]. A `dir` token that no key opens is [`JweError::NoKey`] unless its `kid` is ours, because
    /// it may be one that the issuer made for itself.
    pub fn open(&self, jwe: &UnopenedJwe<'_>) -> Result<Opened, JweError> {
        let plan = Plan::new(&self.sets, &jwe.header)?;
        let parts = Parts::decode(jwe.token, plan.alg)?;
        for (key, opener) in &plan.candidates {
            let Some(content_key) = opener.content_key(&parts.sealed_key, plan.enc, &parts.agreement) else {
                continue;
            };
            let Some(content) = plan.enc.decrypt(&content_key, &parts.ciphertext) else {
                continue;
            };
            let sealed_with = plan.alg.sealed_with();
            let most = sealed_with.max_content_bytes();
            let payload = if plan.deflated { inflate(&content, most)? } else { content };
            return Ok(Opened { payload, sealed_with, key: key.label(), id: key.id });
        }
        if plan.alg == KeyManagement::Dir && !plan.kid_is_ours {
            return Err(no_key(plan.alg, &jwe.header));
        }
        Err(JweError::Decryption)
    }
}

/// All choices for one token, made from its header's `alg`, `enc`, `zip` and `kid` alone.
struct Plan<'k> {
    alg: KeyManagement,
    enc: ContentEncryption,
    deflated: bool,
    kid_is_ours: bool,
    /// At least one, at most [`MAX_TRIES`].
    candidates: Vec<(&'k Key, &'k Opener)>,
}

impl<'k> Plan<'k> {
    fn new(sets: &'k [Arc<[Key]>], header: &UnverifiedHeader) -> Result<Self, JweError> {
        let alg = KeyManagement::parse(&header.alg)
            .ok_or_else(|| JweError::AlgorithmNotAllowed { alg: excerpt(&header.alg) })?;
        let enc = header.enc.as_deref().and_then(ContentEncryption::parse);
        let enc =
            enc.ok_or_else(|| JweError::EncryptionNotAllowed { enc: header.enc.as_deref().map(excerpt) })?;
        let deflated = match header.zip.as_deref() {
            None => false,
            Some("DEF") => true,
            Some(zip) => return Err(JweError::CompressionNotAllowed { zip: excerpt(zip) }),
        };

        let mut kid_is_ours = false;
        let mut fitting: Vec<(&'k Key, &'k Opener)> = Vec::new();
        for set in sets {
            let opener = |key: &'k Key| key.openers.iter().find(|opener| opener.fits(alg, enc));
            let of_set = set.iter().filter_map(|key| Some((key, opener(key)?)));
            let is_named = |key: &Key| header.kid.is_some() && key.kid == header.kid;
            let has_named = of_set.clone().any(|(key, _)| is_named(key));
            kid_is_ours |= has_named;
            fitting.extend(of_set.filter(|(key, _)| match has_named {
                true => is_named(key),
                false => header.kid.is_none() || key.kid.is_none(),
            }));
        }
        // First those with just this `kid`, or without one if the token has none.
        fitting.sort_by_key(|(key, _)| key.kid != header.kid);
        let mut candidates: Vec<(&'k Key, &'k Opener)> = Vec::new();
        for (key, opener) in fitting {
            if candidates.len() < MAX_TRIES && candidates.iter().all(|(other, _)| other.id != key.id) {
                candidates.push((key, opener));
            }
        }
        if candidates.is_empty() {
            return Err(no_key(alg, header));
        }
        Ok(Self { alg, enc, deflated, kid_is_ours, candidates })
    }
}

/// A token's five parts, decoded.
struct Parts<'t> {
    /// The header's fields for key agreement, and no others; empty for other algorithms.
    agreement: JweHeader,
    sealed_key: Vec<u8>,
    ciphertext: Ciphertext<'t>,
}

impl<'t> Parts<'t> {
    fn decode(token: &'t str, alg: KeyManagement) -> Result<Self, JweError> {
        let mut parts = token.split('.');
        let header = parts.next().unwrap_or_default();
        let mut part = || parts.next().ok_or(Malformed::Parts).and_then(decode);
        let (sealed_key, iv, text, tag) = (part()?, part()?, part()?, part()?);
        let agreement = match alg {
            KeyManagement::EcdhEs | KeyManagement::EcdhEsA128kw | KeyManagement::EcdhEsA256kw => {
                let mut fields = json::object(&decode(header)?).map_err(Malformed::Header)?;
                fields.retain(|name, _| matches!(name.as_str(), "epk" | "apu" | "apv"));
                JweHeader::from_map(fields).map_err(|_| JweError::Decryption)?
            }
            _ => JweHeader::new(),
        };
        Ok(Self { agreement, sealed_key, ciphertext: Ciphertext { aad: header.as_bytes(), iv, text, tag } })
    }
}

impl ContentEncryption {
    /// josekit's name for it, by which its decrypters know how long a content key to derive.
    pub(super) fn josekit(self) -> &'static dyn JweContentEncryption {
        match self {
            Self::A128gcm => &AesgcmJweEncryption::A128gcm,
            Self::A256gcm => &AesgcmJweEncryption::A256gcm,
            Self::A128cbcHs256 => &AescbcHmacJweEncryption::A128cbcHs256,
            Self::A256cbcHs512 => &AescbcHmacJweEncryption::A256cbcHs512,
        }
    }
}

fn no_key(alg: KeyManagement, header: &UnverifiedHeader) -> JweError {
    JweError::NoKey { alg: alg.name(), kid: header.kid.clone() }
}

/// The beginning of an untrusted text, enough to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use josekit::jwe::alg::direct::DirectJweAlgorithm;
    use josekit::jwe::alg::rsaes::RsaesJweAlgorithm;
    use josekit::jwe::{JweEncrypter, serialize_compact};
    use josekit::jwk::KeyPair as _;
    use josekit::jwk::alg::rsa::RsaKeyPair;
    use serde_json::json;

    use super::*;
    use crate::token::compact::Compact;
    use crate::token::jwe::SealedWith;

    fn open(keys: &DecryptionKeys, token: &str) -> Result<Opened, JweError> {
        let Compact::Jwe(jwe) = Compact::parse(token).unwrap() else { panic!("not a JWE: {token}") };
        let opened = keys.open(&jwe);
        match keys.can_open(&jwe.header) {
            Ok(()) => assert!(!matches!(opened, Err(JweError::AlgorithmNotAllowed { .. }))),
            Err(early) => assert_eq!(opened.as_ref().unwrap_err(), &early),
        }
        opened
    }

    /// The label of the key that opened it.
    fn opened_by(keys: &DecryptionKeys, token: &str) -> Result<String, &'static str> {
        open(keys, token).map(|opened| opened.key).map_err(|error| error.reason())
    }

    fn seal(encrypter: &dyn JweEncrypter, kid: Option<&str>) -> String {
        let mut header = JweHeader::new();
        header.set_content_encryption("A256GCM");
        if let Some(kid) = kid {
            header.set_key_id(kid);
        }
        serialize_compact(b"payload", &header, encrypter).unwrap()
    }

    fn dir(byte: u8) -> Box<dyn JweEncrypter> {
        Box::new(DirectJweAlgorithm::Dir.encrypter_from_bytes([byte; 32]).unwrap())
    }

    fn secrets(secrets: &[(u8, Option<&str>)]) -> DecryptionKeys {
        let jwks: Vec<_> = secrets
            .iter()
            .map(|(byte, kid)| {
                let mut jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([*byte; 32])});
                if let Some(kid) = kid {
                    jwk["kid"] = (*kid).into();
                }
                jwk
            })
            .collect();
        DecryptionKeys::from_jwks_json(&json!({ "keys": jwks }).to_string()).unwrap()
    }

    #[test]
    fn a_known_kid_decides_alone() {
        let keys = secrets(&[(1, Some("a")), (2, Some("b")), (3, None)]);
        assert_eq!(opened_by(&keys, &seal(&*dir(2), Some("b"))), Ok("b".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(2), Some("a"))), Err("jwe_decryption_failed"));
        assert_eq!(opened_by(&keys, &seal(&*dir(3), Some("a"))), Err("jwe_decryption_failed"));
    }

    #[test]
    fn an_unknown_kid_is_tried_with_the_keys_that_have_none() {
        let keys = secrets(&[(1, Some("a")), (3, None)]);
        assert_eq!(opened_by(&keys, &seal(&*dir(3), Some("c"))), Ok("(jwks)".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(1), Some("c"))), Err("jwe_no_key"));
    }

    #[test]
    fn without_kid_every_fitting_key_is_tried_but_no_more_than_four() {
        let keys = secrets(&[(1, Some("a")), (2, Some("b")), (3, Some("c")), (4, Some("d")), (5, None)]);
        assert_eq!(opened_by(&keys, &seal(&*dir(5), None)), Ok("(jwks)".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(3), None)), Ok("c".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(4), None)), Err("jwe_no_key"), "it would be the fifth");
        assert_eq!(opened_by(&keys, &seal(&*dir(4), Some("d"))), Ok("d".into()));
    }

    #[test]
    fn of_several_issuers_each_has_its_own_keys_tried() {
        let union = |sets: &[&[(u8, Option<&str>)]]| {
            let sets: Vec<_> = sets.iter().map(|set| secrets(set)).collect();
            DecryptionKeys::union(&sets).unwrap()
        };
        let keys = union(&[&[(1, None)], &[(2, None)], &[(3, Some("c"))]]);
        for byte in 1..=3 {
            assert!(opened_by(&keys, &seal(&*dir(byte), None)).is_ok(), "{byte}");
        }
        // A key of this `kid` at one issuer does not exclude a key without `kid` at another.
        let keys = union(&[&[(1, Some("a")), (9, None)], &[(2, None)]]);
        assert_eq!(opened_by(&keys, &seal(&*dir(1), Some("a"))), Ok("a".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(2), Some("a"))), Ok("(jwks)".into()));
        assert_eq!(opened_by(&keys, &seal(&*dir(9), Some("a"))), Err("jwe_decryption_failed"));
        // A key that all issuers hold counts once.
        let keys = union(&[&[(1, None)], &[(1, None)], &[(1, Some("a")), (2, Some("b"))], &[(3, Some("c"))]]);
        assert_eq!(opened_by(&keys, &seal(&*dir(3), None)), Ok("c".into()));
        let opened = open(&keys, &seal(&*dir(1), None)).unwrap();
        assert!(secrets(&[(1, Some("other"))]).have_opened(&opened));
        assert!(!secrets(&[(2, None)]).have_opened(&opened));
    }

    #[test]
    fn a_dir_token_that_no_key_opens_is_left_to_the_issuer() {
        let token = seal(&*dir(9), None);
        assert_eq!(opened_by(&DecryptionKeys::default(), &token), Err("jwe_no_key"));
        assert_eq!(opened_by(&secrets(&[(1, None)]), &token), Err("jwe_no_key"));
    }

    #[test]
    fn a_token_sealed_to_another_public_key_is_refused() {
        let (ours, theirs) = (RsaKeyPair::generate(2048).unwrap(), RsaKeyPair::generate(2048).unwrap());
        let keys = DecryptionKeys::from_pem(&String::from_utf8(ours.to_pem_private_key()).unwrap()).unwrap();
        let seal_to = |pair: &RsaKeyPair, kid| {
            seal(&RsaesJweAlgorithm::RsaOaep256.encrypter_from_der(pair.to_der_public_key()).unwrap(), kid)
        };
        for kid in [None, Some("x")] {
            let opened = open(&keys, &seal_to(&ours, kid)).unwrap();
            assert_eq!(
                (opened.payload.as_slice(), opened.sealed_with),
                (&b"payload"[..], SealedWith::PublicKey)
            );
            assert_eq!(opened_by(&keys, &seal_to(&theirs, kid)), Err("jwe_decryption_failed"));
        }
        assert_eq!(opened_by(&secrets(&[(1, None)]), &seal_to(&ours, None)), Err("jwe_no_key"));
    }

    #[test]
    fn messages_quote_a_stranger_escaped_and_in_part() {
        let header = json!({"alg": format!("\r\n{}", "x".repeat(2000)), "enc": "A256GCM"}).to_string();
        let token = format!("{}..aa.aa.aa", URL_SAFE_NO_PAD.encode(header));
        let sentence = open(&DecryptionKeys::default(), &token).unwrap_err().to_string();
        assert!(sentence.contains(r#""\r\nxxx"#) && sentence.len() < 250, "{sentence}");
    }
}
