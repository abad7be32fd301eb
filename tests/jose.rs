//! Tokens that are encrypted to us are decrypted, and nothing else is: the examples of RFC 7520, tokens of
//! two independent JOSE implementations for every `alg` and `enc` that we accept, and one row for every known
//! attack.
//!
//! The implementations are the npm package `jose` and the Python package `jwcrypto`; `make setup` installs
//! them. `HOLDFAST_TEST_NODE_MODULES` (a directory with `node_modules` in it) and `HOLDFAST_TEST_PYTHON` (an
//! interpreter) say where they are, if not in `tests/jose/`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Ticks;
use holdfast::issuer::jwks::{KeyLookup, KeySet};
use holdfast::token::algorithm::SignatureAlgorithm;
use holdfast::token::compact::{Compact, Malformed, UnverifiedJws};
use holdfast::token::jwe::{DecryptionKeys, Opened, SealedWith};
use holdfast::token::jws::{self, VerificationKey};
use holdfast::token::refusal::Refusal;
use serde_json::{Value, json};

#[path = "jose/attacks.rs"]
mod attacks;

/// Parses and opens a token; the error is the reason label.
fn open(keys: &DecryptionKeys, token: &str) -> Result<Opened, &'static str> {
    match Compact::parse(token) {
        Ok(Compact::Jwe(jwe)) => keys.open(&jwe).map_err(|error| error.reason()),
        Ok(_) => Err("not a JWE"),
        Err(malformed) => Err(malformed.reason()),
    }
}

fn keys(jwk: &Value) -> DecryptionKeys {
    DecryptionKeys::from_jwks_json(&jwk.to_string()).unwrap()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The token with one bit flipped in its first, middle or last byte of each part; the number is that of the
/// part.
fn flipped(token: &str) -> Vec<(usize, String)> {
    let parts: Vec<Vec<u8>> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    let mut tokens = Vec::new();
    for (number, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
        for (byte, bit) in [(0, 0), (part.len() / 2, 3), (part.len() - 1, 7)] {
            let mut parts = parts.clone();
            parts[number][byte] ^= 1 << bit;
            tokens.push((number, parts.iter().map(b64).collect::<Vec<_>>().join(".")));
        }
    }
    tokens
}

/// The token with another spelling of the same header, which is authenticated as it is spelt.
fn respelt(token: &str) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    format!("{}.{rest}", b64(header.replacen('{', "{ ", 1)))
}

fn assert_no_flipped_bit_opens(keys: &DecryptionKeys, token: &str, refusal: &str) {
    for (part, forged) in flipped(token) {
        let reason = open(keys, &forged).map(drop).unwrap_err();
        assert!(part == 0 || reason == refusal, "part {part}: {reason}: {forged}");
    }
    assert_eq!(open(keys, &respelt(token)).unwrap_err(), refusal, "{token}");
}

mod rfc7520 {
    use std::sync::LazyLock;

    use super::*;

    static KEYLESS: LazyLock<DecryptionKeys> = LazyLock::new(DecryptionKeys::default);

    fn example(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/rfc7520").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn every_example_that_we_accept_opens_and_no_flipped_bit_does() {
        for (name, sealed_with) in [
            ("5_2.key_encryption_using_rsa-oaep_with_aes-gcm.json", SealedWith::PublicKey),
            (
                "5_4.key_agreement_with_key_wrapping_using_ecdh-es_and_aes-keywrap_with_aes-gcm.json",
                SealedWith::PublicKey,
            ),
            ("5_5.key_agreement_using_ecdh-es_with_aes-cbc-hmac-sha2.json", SealedWith::PublicKey),
            ("5_6.direct_encryption_using_aes-gcm.json", SealedWith::SharedKey),
            ("5_8.key_wrap_using_aes-keywrap_with_aes-gcm.json", SealedWith::SharedKey),
            ("5_9.compressed_content.json", SealedWith::SharedKey),
        ] {
            let example = example(name);
            let (keys, token) =
                (keys(&example["input"]["key"]), example["output"]["compact"].as_str().unwrap());
            let opened = open(&keys, token).unwrap_or_else(|reason| panic!("{name}: {reason}"));
            assert_eq!(opened.payload, example["input"]["plaintext"].as_str().unwrap().as_bytes(), "{name}");
            assert_eq!(opened.sealed_with, sealed_with, "{name}");
            assert_eq!(opened.key, example["input"]["key"]["kid"].as_str().unwrap(), "{name}");
            assert_no_flipped_bit_opens(&keys, token, "jwe_decryption_failed");
        }
    }

    #[test]
    fn the_examples_of_algorithms_that_we_refuse_are_refused_before_any_cryptography() {
        for name in [
            "5_1.key_encryption_using_rsa_v15_and_aes-hmac-sha2.json",
            "5_3.key_wrap_using_pbes2-aes-keywrap_with-aes-cbc-hmac-sha2.json",
            "5_7.key_wrap_using_aes-gcm_keywrap_with_aes-cbc-hmac-sha2.json",
        ] {
            let example = example(name);
            let mut jwk = example["input"]["key"].clone();
            let keys = if jwk.is_object() {
                jwk.as_object_mut().unwrap().remove("alg");
                keys(&jwk)
            } else {
                DecryptionKeys::default()
            };
            let token = example["output"]["compact"].as_str().unwrap();
            assert_eq!(open(&keys, token).unwrap_err(), "jwe_alg_not_allowed", "{name}");
            let Ok(Compact::Jwe(jwe)) = Compact::parse(token) else { panic!("{name}") };
            assert_eq!(keys.can_open(&jwe.header).unwrap_err().reason(), "jwe_alg_not_allowed", "{name}");
        }
    }

    /// Checks the signature of a compact JWS. The examples contain prose instead of claims. That is detected
    /// only after the signature check, and so shows that the signature is good.
    fn verify(key: &Value, alg: &str, token: &str) -> Result<(), &'static str> {
        let jws = UnverifiedJws::parse(token).map_err(|malformed| malformed.reason())?;
        let algorithm: SignatureAlgorithm = alg.parse().map_err(|_| "algorithm_not_allowed")?;
        let algorithm = jws::allowed_algorithm(&jws, jws::TokenUse::Access, &[algorithm])
            .map_err(|refusal| refusal.reason())?;
        let keys = if key["kty"] == "oct" {
            let bytes = URL_SAFE_NO_PAD.decode(key["k"].as_str().unwrap()).unwrap();
            vec![Arc::new(VerificationKey::from_secret(&bytes))]
        } else {
            let set = KeySet::read(json!({ "keys": [key] }).to_string().as_bytes(), false).unwrap();
            match set.find(jws.header.kid.as_deref(), algorithm, Ticks::ZERO) {
                KeyLookup::Found(keys) => keys,
                KeyLookup::Unfit | KeyLookup::Unknown => return Err("key_unknown"),
            }
        };
        let keys = keys.iter().map(|key| &**key);
        match jws::verify_by_any(jws.signing_input, jws.signature, keys, algorithm) {
            Ok(_) | Err(Refusal::Malformed(Malformed::Claims(_))) => Ok(()),
            Err(refusal) => Err(refusal.reason()),
        }
    }

    #[test]
    fn every_signature_that_we_accept_verifies_and_no_flipped_bit_does() {
        for (name, alg) in [
            ("4_1.rsa_v15_signature.json", "RS256"),
            ("4_2.rsa-pss_signature.json", "PS384"),
            ("4_4.hmac-sha2_integrity_protection.json", "HS256"),
        ] {
            let example = example(name);
            let (key, token) = (&example["input"]["key"], example["output"]["compact"].as_str().unwrap());
            assert_eq!(verify(key, alg, token), Ok(()), "{name}");
            for (part, forged) in flipped(token) {
                let reason = verify(key, alg, &forged).unwrap_err();
                assert!(part == 0 || reason == "signature_invalid", "{name}, part {part}: {reason}");
            }
            assert_eq!(verify(key, alg, &respelt(token)), Err("signature_invalid"), "{name}");
        }
    }

    #[test]
    fn signatures_of_another_kind_are_refused() {
        let token = |name: &str| example(name)["output"]["compact"].as_str().unwrap().to_owned();
        let key = &example("4_4.hmac-sha2_integrity_protection.json")["input"]["key"];
        for (name, alg, reason) in [
            ("4_3.ecdsa_signature.json", "ES512", "algorithm_not_allowed"),
            ("4_5.signature_with_detached_content.json", "HS256", "malformed"),
            ("hmac-sha2_b64_false.json", "HS256", "crit_unsupported"),
        ] {
            assert_eq!(verify(key, alg, &token(name)), Err(reason), "{name}");
        }
        for name in [
            "4_6.protecting_specific_header_fields.json",
            "4_7.protecting_content_only.json",
            "4_8.multiple_signatures.json",
            "5_10.including_additional_authentication_data.json",
            "5_11.protecting_specific_header_fields.json",
            "5_12.protecting_content_only.json",
            "5_13.encrypting_to_multiple_recipients.json",
            "4.2.hmac-sha2_b64_false.json",
        ] {
            let example = example(name);
            assert!(example["output"].get("compact").is_none(), "{name} has no compact form");
            for form in ["json", "json_flat"] {
                let token = example["output"][form].to_string();
                assert!(verify(key, "HS256", &token).is_err(), "{name} {form}");
                assert!(open(&KEYLESS, &token).is_err(), "{name} {form}");
            }
        }
    }

    #[test]
    fn the_nested_example_opens_and_what_is_in_it_verifies() {
        let example = example("6.nesting_signatures_and_encryption.json");
        let token = example["encrypt"]["output"]["compact"].as_str().unwrap();
        let mut key = example["encrypt"]["input"]["key"].clone();
        // The example spells it RSA-OAEP in the token and otherwise in the key.
        key.as_object_mut().unwrap().remove("alg");
        let keys = keys(&key);
        let opened = open(&keys, token).unwrap();
        assert_eq!(opened.sealed_with, SealedWith::PublicKey);
        let inner = std::str::from_utf8(&opened.payload).unwrap();
        assert_eq!(inner, example["sign"]["output"]["compact"].as_str().unwrap());
        let signer = &example["sign"]["input"]["key"];
        assert_eq!(verify(signer, "PS256", inner), Ok(()));
        let jws = UnverifiedJws::parse(inner).unwrap();
        assert_eq!(jws::named_issuer(&jws).unwrap().as_deref(), Some("hobbiton.example"));
        for (part, forged) in flipped(inner) {
            assert!(part == 0 || verify(signer, "PS256", &forged) == Err("signature_invalid"), "part {part}");
        }
        assert_no_flipped_bit_opens(&keys, token, "jwe_decryption_failed");
    }

    #[test]
    fn the_json_serialization_is_no_token() {
        let example = example("5_2.key_encryption_using_rsa-oaep_with_aes-gcm.json");
        for form in ["json", "json_flat"] {
            let token = example["output"][form].to_string();
            assert_eq!(open(&keys(&example["input"]["key"]), &token).unwrap_err(), "not a JWE", "{form}");
        }
    }
}

mod independent {
    use super::*;

    const ENCRYPTIONS: [&str; 4] = ["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"];
    const ALGORITHMS: [&str; 8] = [
        "RSA-OAEP",
        "RSA-OAEP-256",
        "ECDH-ES",
        "ECDH-ES+A128KW",
        "ECDH-ES+A256KW",
        "A128KW",
        "A256KW",
        "dir",
    ];

    /// A path from the environment or, if that says nothing, one in `tests/jose`.
    fn set_up(variable: &str, default: &str) -> PathBuf {
        std::env::var_os(variable).map_or(in_tests_jose(default), PathBuf::from)
    }

    fn in_tests_jose(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jose").join(name)
    }

    /// Runs a generator, opens all that it made, and answers with every pair of `alg` and `enc` that there
    /// was.
    fn open_all_of(generator: &mut Command) -> BTreeSet<(String, String)> {
        let output = match generator.output() {
            Ok(output) if output.status.success() => output,
            failure => panic!("cannot make tokens; was `make setup` run? {generator:?}: {failure:?}"),
        };
        let mut seen = BTreeSet::new();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let made: Value = serde_json::from_slice(line).unwrap();
            let text = |name: &str| made[name].as_str().unwrap().to_owned();
            let (alg, enc, token) = (text("alg"), text("enc"), text("token"));
            let keys = keys(&made["key"]);
            let opened = open(&keys, &token).unwrap_or_else(|reason| panic!("{alg} {enc}: {reason}: {made}"));
            assert_eq!(opened.payload, text("payload").as_bytes(), "{alg} {enc}");
            let shared = matches!(alg.as_str(), "A128KW" | "A256KW" | "dir");
            assert_eq!(opened.sealed_with == SealedWith::SharedKey, shared, "{alg}");
            let refusal = if alg == "dir" { "jwe_no_key" } else { "jwe_decryption_failed" };
            assert_no_flipped_bit_opens(&keys, &token, refusal);
            seen.insert((alg, enc));
        }
        seen
    }

    fn pairs(algorithms: &[&str]) -> BTreeSet<(String, String)> {
        let pair = |alg: &&str| ENCRYPTIONS.map(|enc| ((*alg).to_owned(), enc.to_owned()));
        algorithms.iter().flat_map(pair).collect()
    }

    #[test]
    fn every_token_made_by_npm_jose_opens_and_no_flipped_bit_does() {
        let modules = set_up("HOLDFAST_TEST_NODE_MODULES", "");
        let seen = open_all_of(
            Command::new("node")
                .arg(in_tests_jose("make_tokens.mjs"))
                .env("HOLDFAST_TEST_NODE_MODULES", modules),
        );
        assert_eq!(seen, pairs(&[&ALGORITHMS[..], &["RSA-OAEP-384", "RSA-OAEP-512"]].concat()));
    }

    #[test]
    fn every_token_made_by_jwcrypto_opens_deflated_or_not_and_no_flipped_bit_does() {
        let python = set_up("HOLDFAST_TEST_PYTHON", ".venv/bin/python3");
        let seen = open_all_of(Command::new(python).arg(in_tests_jose("make_tokens.py")));
        assert_eq!(seen, pairs(&ALGORITHMS));
    }
}
