//! The decryption keys of one issuer, from files to a checked set; and those of all issuers together.
//!
//! Loading is strict, since it happens at start and on reload, where an operator sees the error: everything
//! that would make a key useless later (a public key, a passphrase, inconsistent numbers, the wrong `use`) is
//! an error now.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::pkey::PKey;
use serde_json::Value;
use thiserror::Error;

use super::key::{Key, KeyProblem, MAX_TRIES};
use super::opened::Opened;
use crate::private_file;
use crate::token::json;

/// The longest key file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The checked set of an issuer's decryption keys, or of several issuers': immutable, and cheap to clone.
#[derive(Clone, Default)]
pub struct DecryptionKeys {
    /// One for each issuer.
    pub(super) sets: Arc<[Arc<[Key]>]>,
}

/// The public description of a key; no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// Its `kid`, if it came from a JWK that has one.
    pub kid: Option<String>,
    /// Its type: `RSA`, `EC` or `oct`.
    pub kty: &'static str,
    /// The algorithms that it is used for.
    pub algs: Vec<&'static str>,
    /// The file that it came from.
    pub file: PathBuf,
}

/// Why a key file cannot be used.
#[derive(Debug, Error)]
#[error(
    "decryption key file {}{}: {problem}",
    file.display(),
    key.as_ref().map_or(String::new(), |key| format!(", {key}"))
)]
pub struct KeyFileError {
    /// The file.
    pub file: PathBuf,
    /// Which of its keys, if it holds several.
    pub key: Option<String>,
    /// What is wrong with it.
    pub problem: KeyProblem,
}

impl DecryptionKeys {
    /// Reads all keys from `paths`: private keys in PEM (PKCS #8, PKCS #1, SEC 1), or a JWK or JWK set in
    /// JSON.
    ///
    /// # Errors
    /// [`KeyFileError`], for the first key that cannot be used as it is.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for path in paths {
            let in_file = |problem| KeyFileError { file: path.clone(), key: None, problem };
            let text = read(path).map_err(in_file)?;
            read_keys(&text, path, &mut keys)?;
        }
        Self::checked(vec![keys.into()])
    }

    /// The keys of all issuers, for tokens that do not name an issuer: the keys of every issuer are then
    /// tried.
    ///
    /// # Errors
    /// [`KeyFileError`], if there are more keys than are ever tried for one token.
    pub fn union<'k>(sets: impl IntoIterator<Item = &'k Self>) -> Result<Self, KeyFileError> {
        let sets: Vec<_> = sets.into_iter().flat_map(|keys| keys.sets.iter().cloned()).collect();
        Self::checked(sets)
    }

    /// Whether the key that decrypted the token is among these.
    #[must_use]
    pub fn have_opened(&self, opened: &Opened) -> bool {
        self.all().any(|key| key.id == opened.id)
    }

    /// Takes keys in PEM, several one after the other.
    ///
    /// # Errors
    /// [`KeyFileError`], with `(pem)` for a file name.
    pub fn from_pem(pem: &str) -> Result<Self, KeyFileError> {
        Self::from_text(pem, "(pem)")
    }

    /// Takes a JWK or a JWK set.
    ///
    /// # Errors
    /// [`KeyFileError`], with `(jwks)` for a file name.
    pub fn from_jwks_json(jwks: &str) -> Result<Self, KeyFileError> {
        Self::from_text(jwks, "(jwks)")
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Descriptions of all keys.
    pub fn describe(&self) -> impl Iterator<Item = KeyDescription> {
        self.all().map(|key| KeyDescription {
            kid: key.kid.clone(),
            kty: key.kty,
            algs: key.openers.iter().map(|opener| opener.alg.name()).collect(),
            file: key.file.to_path_buf(),
        })
    }

    fn from_text(text: &str, name: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        read_keys(text, Path::new(name), &mut keys)?;
        Self::checked(vec![keys.into()])
    }

    fn checked(sets: Vec<Arc<[Key]>>) -> Result<Self, KeyFileError> {
        let mut nameless: Vec<&Key> = Vec::new();
        for key in sets.iter().flat_map(|set| &**set).filter(|key| key.kid.is_none()) {
            if nameless.iter().any(|other| other.id == key.id) {
                continue;
            }
            if nameless.iter().filter(|other| other.kty == key.kty).count() == MAX_TRIES {
                let file = key.file.to_path_buf();
                return Err(KeyFileError { file, key: None, problem: KeyProblem::TooMany });
            }
            nameless.push(key);
        }
        Ok(Self { sets: sets.into() })
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        self.sets.iter().flat_map(|set| &**set)
    }
}

/// Shows no secrets, unlike the `Debug` of josekit's decrypters.
impl fmt::Debug for DecryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.describe()).finish()
    }
}

fn read(path: &Path) -> Result<String, KeyProblem> {
    String::from_utf8(private_file::read(path, MAX_FILE_BYTES)?).map_err(|_| KeyProblem::Unrecognised)
}

fn read_keys(text: &str, file: &Path, keys: &mut Vec<Key>) -> Result<(), KeyFileError> {
    let shared_file: Arc<Path> = file.into();
    let in_file = |problem| KeyFileError { file: file.to_path_buf(), key: None, problem };
    if !text.trim_start().starts_with('{') {
        return read_pem(text, &shared_file, keys).map_err(in_file);
    }
    let mut object = json::strict_object(text.as_bytes()).map_err(|_| in_file(KeyProblem::Unrecognised))?;
    let Some(set) = object.remove("keys") else {
        keys.push(Key::from_jwk(object, shared_file).map_err(in_file)?);
        return Ok(());
    };
    let Value::Array(set) = set else { return Err(in_file(KeyProblem::Unrecognised)) };
    if set.is_empty() {
        return Err(in_file(KeyProblem::Unrecognised));
    }
    for (at, jwk) in set.into_iter().enumerate() {
        let name = match jwk.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("key {kid:?}"),
            None => format!("key number {}", at + 1),
        };
        let in_set = |problem| KeyFileError { file: file.to_path_buf(), key: Some(name), problem };
        let Value::Object(jwk) = jwk else { return Err(in_set(KeyProblem::Malformed)) };
        keys.push(Key::from_jwk(jwk, shared_file.clone()).map_err(in_set)?);
    }
    Ok(())
}

/// Takes every private key of a PEM file; certificates, public keys and curve parameters beside them are
/// skipped.
fn read_pem(text: &str, file: &Arc<Path>, keys: &mut Vec<Key>) -> Result<(), KeyProblem> {
    let before = keys.len();
    let mut public = false;
    for block in text.split("-----BEGIN ").skip(1) {
        let label = block.split("-----").next().unwrap_or_default();
        match label {
            _ if block.contains("ENCRYPTED") => return Err(KeyProblem::Encrypted),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                let block = format!("-----BEGIN {block}");
                // The empty passphrase keeps OpenSSL from ever asking for one at the terminal.
                let key = PKey::private_key_from_pem_passphrase(block.as_bytes(), b"")
                    .map_err(|_| KeyProblem::Malformed)?;
                keys.push(Key::from_private_key(&key, file.clone())?);
            }
            _ => public |= label.ends_with("PUBLIC KEY") || label.ends_with("CERTIFICATE"),
        }
    }
    match (keys.len() > before, public) {
        (true, _) => Ok(()),
        (false, true) => Err(KeyProblem::Public),
        (false, false) => Err(KeyProblem::Unrecognised),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use josekit::jwk::KeyPair as _;
    use josekit::jwk::alg::ec::{EcCurve, EcKeyPair};
    use josekit::jwk::alg::rsa::RsaKeyPair;
    use openssl::symm::Cipher;
    use serde_json::json;

    use super::*;
    use crate::private_file::PrivateFileError;

    fn load(name: &str, text: impl AsRef<[u8]>, mode: u32) -> Result<DecryptionKeys, KeyFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        DecryptionKeys::load(&[path])
    }

    fn problem(text: impl AsRef<[u8]>) -> KeyProblem {
        load("key", text, 0o600).unwrap_err().problem
    }

    fn algs(keys: &DecryptionKeys) -> Vec<Vec<&'static str>> {
        keys.describe().map(|key| key.algs).collect()
    }

    fn secret(bytes: usize, extra: &Value) -> String {
        let mut jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(vec![7; bytes])});
        jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        jwk.to_string()
    }

    const RSA_ALGS: [&str; 4] = ["RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512"];
    const EC_ALGS: [&str; 3] = ["ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"];

    #[test]
    fn every_common_form_of_a_private_key_is_loaded() {
        let rsa = RsaKeyPair::generate(2048).unwrap();
        for text in [
            rsa.to_pem_private_key(),
            rsa.to_traditional_pem_private_key(),
            rsa.to_jwk_private_key().to_string().into_bytes(),
            [&b"a comment\n"[..], &rsa.to_pem_public_key(), &rsa.to_pem_private_key()].concat(),
        ] {
            assert_eq!(algs(&load("rsa", text, 0o600).unwrap()), [RSA_ALGS]);
        }
        for curve in [EcCurve::P256, EcCurve::P384, EcCurve::P521] {
            let ec = EcKeyPair::generate(curve).unwrap();
            let parameters =
                b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
            for text in [
                ec.to_pem_private_key(),
                [&parameters[..], &ec.to_traditional_pem_private_key()].concat(),
                ec.to_jwk_private_key().to_string().into_bytes(),
            ] {
                assert_eq!(algs(&load("ec", text, 0o400).unwrap()), [EC_ALGS]);
            }
        }
        assert_eq!(algs(&load("oct", secret(16, &json!({})), 0o600).unwrap()), [["A128KW", "dir"]]);
        assert_eq!(algs(&load("oct", secret(32, &json!({})), 0o600).unwrap()), [["A256KW", "dir"]]);
        assert_eq!(algs(&load("oct", secret(64, &json!({})), 0o600).unwrap()), [["dir"]]);
    }

    #[test]
    fn a_file_may_hold_several_keys() {
        let (rsa, ec) = (RsaKeyPair::generate(2048).unwrap(), EcKeyPair::generate(EcCurve::P256).unwrap());
        let pem = [rsa.to_pem_private_key(), ec.to_pem_private_key()].concat();
        assert_eq!(algs(&load("both.pem", pem, 0o600).unwrap()), [&RSA_ALGS[..], &EC_ALGS[..]]);
        let set =
            format!(r#"{{"keys":[{},{}]}}"#, secret(16, &json!({"kid": "old"})), secret(32, &json!({})));
        let keys = load("set.json", set, 0o600).unwrap();
        let kids: Vec<_> = keys.describe().map(|key| key.kid).collect();
        assert_eq!(kids, [Some("old".to_owned()), None]);
        assert!(keys.describe().all(|key| key.file.ends_with("set.json")));
    }

    #[test]
    fn a_jwk_is_used_only_for_what_it_says() {
        let allowed = |bytes, extra| algs(&DecryptionKeys::from_jwks_json(&secret(bytes, &extra)).unwrap());
        assert_eq!(allowed(32, json!({"alg": "A256KW"})), [["A256KW"]]);
        assert_eq!(allowed(32, json!({"alg": "dir", "use": "enc"})), [["dir"]]);
        assert_eq!(allowed(32, json!({"alg": "A256GCM"})), [["dir"]]);
        assert_eq!(allowed(32, json!({"key_ops": ["unwrapKey"]})), [["A256KW"]]);
        assert_eq!(allowed(32, json!({"key_ops": ["encrypt", "decrypt"]})), [["dir"]]);
        let rsa = RsaKeyPair::generate(2048).unwrap();
        let mut jwk = rsa.to_jwk_private_key();
        jwk.set_algorithm("RSA-OAEP-256");
        jwk.set_key_operations(vec!["unwrapKey"]);
        assert_eq!(algs(&DecryptionKeys::from_jwks_json(&jwk.to_string()).unwrap()), [["RSA-OAEP-256"]]);

        for extra in [
            json!({"alg": "HS256"}),
            json!({"alg": "A128KW"}),
            json!({"alg": "A128GCM"}),
            json!({"alg": "A256GCMKW"}),
            json!({"key_ops": ["verify"]}),
            json!({"key_ops": []}),
        ] {
            assert!(matches!(problem(secret(32, &extra)), KeyProblem::NoUse), "{extra}");
        }
        assert!(matches!(problem(secret(32, &json!({"use": "sig"}))), KeyProblem::Use { .. }));
        assert!(matches!(problem(secret(32, &json!({"alg": 1}))), KeyProblem::Malformed));
        assert!(matches!(problem(secret(32, &json!({"key_ops": "decrypt"}))), KeyProblem::Malformed));
    }

    #[test]
    fn a_file_that_others_can_open_is_refused_by_name() {
        for mode in [0o604, 0o602, 0o620, 0o644, 0o777] {
            let error = load("open-to-all.jwk", secret(16, &json!({})), mode).unwrap_err();
            let KeyProblem::File(PrivateFileError::Permissions { mode: found }) = error.problem else {
                panic!("{error}")
            };
            assert_eq!(found, mode);
            let sentence = error.to_string();
            assert!(sentence.contains("open-to-all.jwk") && sentence.contains("chmod 600"), "{sentence}");
        }
    }

    #[test]
    fn a_key_that_could_never_work_is_refused_at_once() {
        let rsa = RsaKeyPair::generate(2048).unwrap();
        let ec = EcKeyPair::generate(EcCurve::P256).unwrap();
        let private = PKey::private_key_from_der(&rsa.to_der_private_key()).unwrap();
        let encrypted = [
            private.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret").unwrap(),
            private.rsa().unwrap().private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"secret").unwrap(),
        ];
        for text in encrypted {
            assert!(matches!(problem(text), KeyProblem::Encrypted));
        }
        for text in [
            rsa.to_pem_public_key(),
            rsa.to_traditional_pem_public_key(),
            rsa.to_jwk_public_key().to_string().into_bytes(),
            ec.to_jwk_public_key().to_string().into_bytes(),
        ] {
            assert!(matches!(problem(&text), KeyProblem::Public), "{}", String::from_utf8_lossy(&text));
        }
        let short = RsaKeyPair::generate(2040).unwrap();
        assert!(matches!(problem(short.to_pem_private_key()), KeyProblem::ShortRsa { bits: 2040 }));
        let jwk = short.to_jwk_private_key().to_string();
        assert!(matches!(problem(jwk), KeyProblem::ShortRsa { bits: 2040 }));
        let koblitz = EcKeyPair::generate(EcCurve::Secp256k1).unwrap();
        assert!(matches!(problem(koblitz.to_pem_private_key()), KeyProblem::Curve));
        assert!(matches!(problem(koblitz.to_jwk_private_key().to_string()), KeyProblem::Curve));
        let ed25519 = PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8().unwrap();
        assert!(matches!(problem(ed25519), KeyProblem::Type { .. }));
        assert!(matches!(problem(r#"{"kty":"OKP","crv":"X25519","d":"AA"}"#), KeyProblem::Type { .. }));
        for bytes in [0, 15, 24, 48, 65] {
            let found = problem(secret(bytes, &json!({})));
            assert!(matches!(found, KeyProblem::SecretLength { bytes: found } if found == bytes));
        }
    }

    #[test]
    fn numbers_that_do_not_belong_together_are_refused() {
        let rsa = (RsaKeyPair::generate(2048).unwrap(), RsaKeyPair::generate(2048).unwrap());
        let ec = (EcKeyPair::generate(EcCurve::P256).unwrap(), EcKeyPair::generate(EcCurve::P256).unwrap());
        for (jwk, other, number) in [
            (rsa.0.to_jwk_private_key(), rsa.1.to_jwk_private_key(), "d"),
            (rsa.0.to_jwk_private_key(), rsa.1.to_jwk_private_key(), "n"),
            (rsa.0.to_jwk_private_key(), rsa.1.to_jwk_private_key(), "qi"),
            (ec.0.to_jwk_key_pair(), ec.1.to_jwk_key_pair(), "d"),
            (ec.0.to_jwk_key_pair(), ec.1.to_jwk_key_pair(), "y"),
        ] {
            let mut mixed = jwk.clone();
            mixed.set_parameter(number, other.parameter(number).cloned()).unwrap();
            assert!(DecryptionKeys::from_jwks_json(&jwk.to_string()).is_ok());
            assert!(matches!(problem(mixed.to_string()), KeyProblem::Malformed), "{number}");
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let pem = RsaKeyPair::generate(2048).unwrap().to_pem_private_key();
        assert!(matches!(problem(&pem[..pem.len() / 2]), KeyProblem::Malformed));
        for text in ["", "key", "[]", "{", r#"{"keys":[]}"#, r#"{"keys":{}}"#, r#"{"kty":"oct","kty":"oct"}"#]
        {
            assert!(matches!(problem(text), KeyProblem::Unrecognised), "{text}");
        }
        assert!(matches!(problem(b"\xff\xfe"), KeyProblem::Unrecognised));
        let long = [pem, vec![b'\n'; 256 * 1024]].concat();
        assert!(matches!(problem(long), KeyProblem::File(PrivateFileError::TooLong { .. })));
        for text in
            ["{}", r#"{"kty":1}"#, r#"{"kty":"oct"}"#, r#"{"kty":"oct","k":"/w=="}"#, r#"{"keys":[1]}"#]
        {
            assert!(matches!(problem(text), KeyProblem::Malformed), "{text}");
        }
        let set = format!(r#"{{"keys":[{},{}]}}"#, secret(16, &json!({})), secret(17, &json!({"kid": "b"})));
        assert_eq!(load("set", set, 0o600).unwrap_err().key.unwrap(), r#"key "b""#);
        let missing = DecryptionKeys::load(&["/nowhere/jwe.pem".into()]).unwrap_err();
        assert!(missing.to_string().starts_with("decryption key file /nowhere/jwe.pem: cannot be read"));
        let directory = DecryptionKeys::load(&["/".into()]).unwrap_err();
        assert!(matches!(directory.problem, KeyProblem::File(PrivateFileError::NotAFile)));
    }

    #[test]
    fn a_key_that_would_never_be_tried_is_refused() {
        let secret = |number: usize, extra: &Value| {
            let mut jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([number as u8; 16])});
            jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            jwk.to_string()
        };
        let of = |numbers: std::ops::Range<usize>, extra: &Value| {
            let keys = numbers.map(|number| secret(number, extra)).collect::<Vec<_>>().join(",");
            DecryptionKeys::from_jwks_json(&format!(r#"{{"keys":[{keys}]}}"#))
        };
        let set = |number: usize, extra: &Value| of(0..number, extra);
        assert!(set(MAX_TRIES, &json!({})).is_ok());
        assert!(matches!(set(MAX_TRIES + 1, &json!({})).unwrap_err().problem, KeyProblem::TooMany));
        assert!(set(MAX_TRIES + 1, &json!({"kid": "a"})).is_ok());

        let union = |one: std::ops::Range<usize>, other: std::ops::Range<usize>, extra: &Value| {
            let sets = [of(one, extra).unwrap(), of(other, extra).unwrap()];
            DecryptionKeys::union(&sets).map(|keys| keys.describe().count())
        };
        assert_eq!(union(0..2, 2..4, &json!({})).unwrap(), 4);
        assert_eq!(union(0..4, 1..4, &json!({})).unwrap(), 7, "each of them is one key");
        let error = union(0..3, 3..5, &json!({})).unwrap_err();
        assert!(matches!(error.problem, KeyProblem::TooMany), "{error}");
        assert_eq!(union(0..3, 3..5, &json!({"kid": "a"})).unwrap(), 5);
    }

    #[test]
    fn debug_shows_no_secret() {
        let keys = DecryptionKeys::from_jwks_json(&secret(16, &json!({"kid": "a"}))).unwrap();
        let shown = format!("{keys:?}");
        assert!(shown.contains("A128KW") && !shown.contains("7, 7"), "{shown}");
    }
}
