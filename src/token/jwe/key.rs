//! One decryption key, and exactly what it may be used for.
//!
//! A key becomes one [`Opener`] for each algorithm that its type allows and its JWK does not exclude (`alg`,
//! `use`, `key_ops`). No other check of key against algorithm is needed later, and no key material is parsed
//! during a request.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use josekit::JoseError;
use josekit::jwe::alg::aeskw::AeskwJweAlgorithm;
use josekit::jwe::alg::direct::DirectJweAlgorithm;
use josekit::jwe::alg::ecdh_es::EcdhEsJweAlgorithm;
use josekit::jwe::alg::rsaes::RsaesJweAlgorithm;
use josekit::jwe::{JweDecrypter, JweHeader};
use josekit::jwk::alg::ec::EcKeyPair;
use josekit::jwk::alg::rsa::RsaKeyPair;
use josekit::jwk::{Jwk, KeyPair as _};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use serde_json::Value;
use thiserror::Error;

use super::algorithm::{ContentEncryption, KeyManagement};
use crate::private_file::PrivateFileError;
use crate::token::compact;
use crate::token::json::Object;

/// The most keys that are tried for one token, so that a forged one costs bounded time.
pub(super) const MAX_TRIES: usize = 4;

/// NIST SP 800-131A: shorter RSA keys are not to be used.
const MIN_RSA_BITS: u32 = 2048;

/// A key, ready to decrypt tokens.
pub(super) struct Key {
    pub id: KeyId,
    pub kid: Option<String>,
    pub kty: &'static str,
    pub file: Arc<Path>,
    pub openers: Vec<Opener>,
}

/// The digest of a shared secret, or of the public half of a key: the same for the same key in different
/// files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 32]);

impl KeyId {
    fn of(bytes: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(id)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(…)")
    }
}

/// A key in its use for one algorithm.
pub(super) struct Opener {
    pub alg: KeyManagement,
    /// With `dir` those for which the key has the right length, else all.
    encs: Vec<ContentEncryption>,
    /// The length in bytes of an RSA ciphertext, which is that of the modulus; 0 for other keys.
    modulus_len: usize,
    decrypter: Box<dyn JweDecrypter>,
}

impl Opener {
    /// Whether it decrypts tokens of this kind.
    pub fn fits(&self, alg: KeyManagement, enc: ContentEncryption) -> bool {
        self.alg == alg && self.encs.contains(&enc)
    }

    /// Recovers the content key from the token's second part.
    pub fn content_key(&self, sealed: &[u8], enc: ContentEncryption, header: &JweHeader) -> Option<Vec<u8>> {
        if sealed.len() != self.sealed_key_len(enc) {
            return None;
        }
        let sealed = Some(sealed).filter(|sealed| !sealed.is_empty());
        let key = self.decrypter.decrypt(sealed, enc.josekit(), header).ok()?;
        (key.len() == enc.key_len()).then(|| key.into_owned())
    }

    /// The only length in bytes that the token's second part can have.
    fn sealed_key_len(&self, enc: ContentEncryption) -> usize {
        match self.alg {
            KeyManagement::Dir | KeyManagement::EcdhEs => 0,
            KeyManagement::A128kw
            | KeyManagement::A256kw
            | KeyManagement::EcdhEsA128kw
            | KeyManagement::EcdhEsA256kw => enc.key_len() + 8,
            KeyManagement::RsaOaep
            | KeyManagement::RsaOaep256
            | KeyManagement::RsaOaep384
            | KeyManagement::RsaOaep512 => self.modulus_len,
        }
    }
}

impl Key {
    /// Its label in messages.
    pub fn label(&self) -> String {
        self.kid
            .clone()
            .unwrap_or_else(|| PathBuf::from(self.file.file_name().unwrap_or_default()).display().to_string())
    }

    /// The key of a PEM file, which may be used for everything that its type allows.
    pub fn from_private_key(key: &PKey<Private>, file: Arc<Path>) -> Result<Self, KeyProblem> {
        let (id, kty, openers) = asymmetric_openers(key, &Restrictions::default())?;
        Ok(Self { id, kid: None, kty, file, openers })
    }

    /// The key of a JWK (RFC 7517, RFC 7518 §6).
    pub fn from_jwk(mut jwk: Object, file: Arc<Path>) -> Result<Self, KeyProblem> {
        let restrictions = Restrictions::take(&mut jwk)?;
        let kid = take_text(&mut jwk, "kid")?;
        let (id, kty, openers) = match jwk.get("kty").and_then(Value::as_str) {
            Some("oct") => {
                let (id, openers) = symmetric_openers(&mut jwk, &restrictions)?;
                (id, "oct", openers)
            }
            Some(kty @ ("RSA" | "EC")) => {
                if !jwk.contains_key("d") {
                    return Err(KeyProblem::Public);
                }
                let is_rsa = kty == "RSA";
                let jwk = Jwk::from_map(jwk).map_err(malformed)?;
                let der = if is_rsa {
                    RsaKeyPair::from_jwk(&jwk).map_err(malformed)?.to_der_private_key()
                } else {
                    EcKeyPair::from_jwk(&jwk).map_err(malformed)?.to_der_private_key()
                };
                let key = PKey::private_key_from_der(&der).map_err(|_| KeyProblem::Malformed)?;
                asymmetric_openers(&key, &restrictions)?
            }
            Some(kty) => return Err(KeyProblem::Type { found: kty.to_owned() }),
            None => return Err(KeyProblem::Malformed),
        };
        if openers.is_empty() {
            return Err(KeyProblem::NoUse);
        }
        Ok(Self { id, kid, kty, file, openers })
    }
}

/// What is wrong with a key or its file.
#[derive(Debug, Error)]
pub enum KeyProblem {
    /// The file cannot be read, or is not private.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Neither PEM nor JSON, or without any key.
    #[error("holds neither a private key in PEM nor a JWK or JWK set in JSON")]
    Unrecognised,
    /// Protected by a passphrase.
    #[error(
        "is protected by a passphrase, which nobody can enter here; write it out with `openssl pkey` and \
         mode 600"
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
    /// A curve that JOSE does not have, or that we do not accept.
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
    /// `alg` or `key_ops` exclude every use.
    #[error("may not be used for any accepted algorithm, by its own `alg` or `key_ops`")]
    NoUse,
    /// More keys than are ever tried.
    #[error(
        "is one too many: at most {MAX_TRIES} keys of each type may lack a `kid`, counted over all issuers; \
         give the keys a `kid`, in a JWK"
    )]
    TooMany,
}

fn asymmetric_openers(
    key: &PKey<Private>,
    restrictions: &Restrictions,
) -> Result<(KeyId, &'static str, Vec<Opener>), KeyProblem> {
    let (kty, openers) = match key.id() {
        Id::RSA => ("RSA", rsa_openers(key, restrictions)?),
        Id::EC => ("EC", ec_openers(key, restrictions)?),
        other => {
            let name = Nid::from_raw(other.as_raw()).short_name().unwrap_or("?");
            return Err(KeyProblem::Type { found: name.into() });
        }
    };
    let public = key.public_key_to_der().map_err(|_| KeyProblem::Malformed)?;
    Ok((KeyId::of(&public), kty, openers))
}

fn rsa_openers(key: &PKey<Private>, restrictions: &Restrictions) -> Result<Vec<Opener>, KeyProblem> {
    let rsa = key.rsa().map_err(|_| KeyProblem::Malformed)?;
    let bits = rsa.n().num_bits().unsigned_abs();
    if bits < MIN_RSA_BITS {
        return Err(KeyProblem::ShortRsa { bits });
    }
    // A key with inconsistent numbers would refuse every token. That is better reported now.
    if !rsa.check_key().unwrap_or(false) {
        return Err(KeyProblem::Malformed);
    }
    let der = key.private_key_to_pkcs8().map_err(|_| KeyProblem::Malformed)?;
    [
        (KeyManagement::RsaOaep, RsaesJweAlgorithm::RsaOaep),
        (KeyManagement::RsaOaep256, RsaesJweAlgorithm::RsaOaep256),
        (KeyManagement::RsaOaep384, RsaesJweAlgorithm::RsaOaep384),
        (KeyManagement::RsaOaep512, RsaesJweAlgorithm::RsaOaep512),
    ]
    .into_iter()
    .filter(|(alg, _)| restrictions.allow(*alg, &["decrypt", "unwrapKey"]))
    .map(|(alg, josekit)| {
        let decrypter = Box::new(josekit.decrypter_from_der(&der).map_err(malformed)?);
        Ok(Opener { alg, encs: ContentEncryption::ALL.into(), modulus_len: rsa.size() as usize, decrypter })
    })
    .collect()
}

fn ec_openers(key: &PKey<Private>, restrictions: &Restrictions) -> Result<Vec<Opener>, KeyProblem> {
    let ec = key.ec_key().map_err(|_| KeyProblem::Malformed)?;
    match ec.group().curve_name() {
        Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1 | Nid::SECP521R1) => {}
        _ => return Err(KeyProblem::Curve),
    }
    ec.check_key().map_err(|_| KeyProblem::Malformed)?;
    let der = key.private_key_to_pkcs8().map_err(|_| KeyProblem::Malformed)?;
    [
        (KeyManagement::EcdhEs, EcdhEsJweAlgorithm::EcdhEs),
        (KeyManagement::EcdhEsA128kw, EcdhEsJweAlgorithm::EcdhEsA128kw),
        (KeyManagement::EcdhEsA256kw, EcdhEsJweAlgorithm::EcdhEsA256kw),
    ]
    .into_iter()
    .filter(|(alg, _)| restrictions.allow(*alg, &["deriveKey", "deriveBits"]))
    .map(|(alg, josekit)| {
        let decrypter = Box::new(josekit.decrypter_from_der(&der).map_err(malformed)?);
        Ok(Opener { alg, encs: ContentEncryption::ALL.into(), modulus_len: 0, decrypter })
    })
    .collect()
}

fn symmetric_openers(
    jwk: &mut Object,
    restrictions: &Restrictions,
) -> Result<(KeyId, Vec<Opener>), KeyProblem> {
    let secret = take_text(jwk, "k")?.ok_or(KeyProblem::Malformed)?;
    let secret = compact::decode(&secret).map_err(|_| KeyProblem::Malformed)?;
    let mut openers = Vec::new();
    let wrap = match secret.len() {
        16 => Some((KeyManagement::A128kw, AeskwJweAlgorithm::A128kw)),
        32 => Some((KeyManagement::A256kw, AeskwJweAlgorithm::A256kw)),
        64 => None,
        bytes => return Err(KeyProblem::SecretLength { bytes }),
    };
    if let Some((alg, josekit)) = wrap.filter(|(alg, _)| restrictions.allow(*alg, &["unwrapKey"])) {
        let decrypter = Box::new(josekit.decrypter_from_bytes(&secret).map_err(malformed)?);
        openers.push(Opener { alg, encs: ContentEncryption::ALL.into(), modulus_len: 0, decrypter });
    }
    let encs = restrictions.allow_dir_with(secret.len());
    if !encs.is_empty() {
        let decrypter = Box::new(DirectJweAlgorithm::Dir.decrypter_from_bytes(&secret).map_err(malformed)?);
        openers.push(Opener { alg: KeyManagement::Dir, encs, modulus_len: 0, decrypter });
    }
    Ok((KeyId::of(&secret), openers))
}

/// The uses that a JWK allows (RFC 7517 §4.2 to §4.4). A PEM file does not restrict them.
#[derive(Default)]
struct Restrictions {
    alg: Option<String>,
    operations: Option<Vec<Value>>,
}

impl Restrictions {
    /// Removes them from `jwk`, so that josekit's own, narrower reading of `key_ops` never applies.
    fn take(jwk: &mut Object) -> Result<Self, KeyProblem> {
        if let Some(purpose) = take_text(jwk, "use")?.filter(|purpose| purpose != "enc") {
            return Err(KeyProblem::Use { found: purpose });
        }
        let operations = match jwk.remove("key_ops") {
            None => None,
            Some(Value::Array(operations)) => Some(operations),
            Some(_) => return Err(KeyProblem::Malformed),
        };
        Ok(Self { alg: take_text(jwk, "alg")?, operations })
    }

    fn allow(&self, alg: KeyManagement, operations: &[&str]) -> bool {
        self.alg.as_ref().is_none_or(|only| only == alg.name()) && self.allow_one_of(operations)
    }

    /// The content encryptions that a shared key of this length serves with `dir`. Such a key's `alg` may
    /// also be the name of the content encryption, as in RFC 7520 §5.6.
    fn allow_dir_with(&self, key_len: usize) -> Vec<ContentEncryption> {
        let allowed = |enc: &ContentEncryption| {
            enc.key_len() == key_len
                && self
                    .alg
                    .as_ref()
                    .is_none_or(|only| only == KeyManagement::Dir.name() || only == enc.name())
                && self.allow_one_of(&["decrypt"])
        };
        ContentEncryption::ALL.into_iter().filter(allowed).collect()
    }

    fn allow_one_of(&self, operations: &[&str]) -> bool {
        self.operations
            .as_ref()
            .is_none_or(|allowed| operations.iter().any(|operation| allowed.contains(&(*operation).into())))
    }
}

fn take_text(jwk: &mut Object, name: &str) -> Result<Option<String>, KeyProblem> {
    match jwk.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyProblem::Malformed),
    }
}

/// josekit's own messages can quote key material.
fn malformed(_: JoseError) -> KeyProblem {
    KeyProblem::Malformed
}
