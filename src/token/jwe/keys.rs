//! The decryption keys of one issuer, from files to a checked set.
//!
//! Loading is strict, since it happens at start-up and on reload, where a person reads the answer: whatever could make
//! a key useless later (a public key, a passphrase, numbers that do not belong together, the wrong `use`) is said now.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::pkey::PKey;
use serde_json::Value;
use thiserror::Error;

use super::key::Key;
use super::open::MAX_TRIES;
use crate::token::json;

/// The longest key file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The checked set of an issuer's decryption keys: immutable, and cheap to clone.
#[derive(Clone, Default)]
pub struct DecryptionKeys {
    pub(super) keys: Arc<[Key]>,
}

/// What may be told about a key; no secrets.
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

/// What is wrong with a key or its file.
#[derive(Debug, Error)]
pub enum KeyProblem {
    /// The operating system does not let us read it.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Not a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// Other users can get at it.
    #[error("is open to other users (mode {mode:04o}); run `chmod 600` on it")]
    Permissions {
        /// Its permission bits.
        mode: u32,
    },
    /// Neither PEM nor JSON, or too long, or without any key.
    #[error("holds neither a private key in PEM nor a JWK or JWK set in JSON")]
    Unrecognised,
    /// Protected by a passphrase.
    #[error(
        "is protected by a passphrase, which nobody can enter here; write it out with `openssl pkey` and mode 600"
    )]
    Encrypted,
    /// The public half only.
    #[error("holds only a public key; to decrypt, the private key is needed")]
    Public,
    /// Cannot be parsed, or its numbers do not belong together.
    #[error("is damaged or incomplete: it does not make a valid private key")]
    Malformed,
    /// A type that no accepted algorithm uses.
    #[error("is of the type {found:?}; usable are RSA, EC and oct")]
    Type {
        /// Its `kty`, or OpenSSL's name for it.
        found: String,
    },
    /// Too short.
    #[error("is an RSA key of {bits} bits; at least 2048 are required")]
    ShortRsa {
        /// The length of its modulus.
        bits: u32,
    },
    /// A curve that JOSE has not, or that we do not take.
    #[error("is on a curve other than P-256, P-384 and P-521")]
    Curve,
    /// A length that no accepted algorithm has.
    #[error("is a shared key of {bytes} bytes; usable are 16, 32 and 64")]
    SecretLength {
        /// Its length.
        bytes: usize,
    },
    /// Meant for signatures.
    #[error("says `use` {found:?}; a decryption key says \"enc\" or nothing")]
    Use {
        /// Its `use`.
        found: String,
    },
    /// `alg` or `key_ops` leave nothing that we could do with it.
    #[error("may not be used for any accepted algorithm, by its own `alg` or `key_ops`")]
    NoUse,
    /// More keys than are ever tried.
    #[error(
        "is one too many: of each type there can be at most {MAX_TRIES} keys without `kid`; give them one, in a JWK"
    )]
    TooMany,
}

impl DecryptionKeys {
    /// Reads all keys from `paths`: private keys in PEM (PKCS #8, PKCS #1, SEC 1), or a JWK or JWK set in JSON.
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
        Self::new(keys)
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
        self.keys.is_empty()
    }

    /// What there is, for people.
    pub fn describe(&self) -> impl Iterator<Item = KeyDescription> {
        self.keys.iter().map(|key| KeyDescription {
            kid: key.kid.clone(),
            kty: key.kty,
            algs: key.openers.iter().map(|opener| opener.alg.name()).collect(),
            file: key.file.to_path_buf(),
        })
    }

    fn from_text(text: &str, name: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        read_keys(text, Path::new(name), &mut keys)?;
        Self::new(keys)
    }

    fn new(keys: Vec<Key>) -> Result<Self, KeyFileError> {
        for (at, key) in keys.iter().enumerate() {
            let alike = |other: &&Key| other.kid.is_none() && other.kty == key.kty;
            if key.kid.is_none() && keys[..at].iter().filter(alike).count() == MAX_TRIES {
                let file = key.file.to_path_buf();
                return Err(KeyFileError { file, key: None, problem: KeyProblem::TooMany });
            }
        }
        Ok(Self { keys: keys.into() })
    }
}

/// Shows no secrets, unlike the `Debug` of josekit's decrypters.
impl fmt::Debug for DecryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.describe()).finish()
    }
}

fn read(path: &Path) -> Result<String, KeyProblem> {
    let file = File::open(path).map_err(KeyProblem::Read)?;
    // Asked of the open file, not of the path, so that nobody can exchange it in between.
    let metadata = file.metadata().map_err(KeyProblem::Read)?;
    if !metadata.is_file() {
        return Err(KeyProblem::NotAFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyProblem::Permissions { mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(KeyProblem::Read)?;
    String::from_utf8(bytes).map_err(|_| KeyProblem::Unrecognised)
}

fn read_keys(text: &str, file: &Path, keys: &mut Vec<Key>) -> Result<(), KeyFileError> {
    let shared_file: Arc<Path> = file.into();
    let in_file = |problem| KeyFileError { file: file.to_path_buf(), key: None, problem };
    if !text.trim_start().starts_with('{') {
        return read_pem(text, &shared_file, keys).map_err(in_file);
    }
    let mut object = json::object(text.as_bytes()).map_err(|_| in_file(KeyProblem::Unrecognised))?;
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

/// Takes every private key of a PEM file; certificates, public keys and curve parameters beside them are passed over.
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
