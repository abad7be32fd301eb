//! Decrypting a JWE with keys that we hold (RFC 7516, RFC 7518 §4 and §5).
//!
//! The one idea: every choice is made from configured keys, before any cryptography. The header's `alg` and `enc` only
//! select among what a key was loaded for; `jwk`, `jku`, `x5c`, `x5u` are never looked at. So a token can ask for no
//! algorithm, key or amount of work that the owner did not provide, and a refusal of that kind costs nothing.
//!
//! The content key is recovered by `josekit`, the content itself is decrypted here with AWS-LC, and the deflate stream
//! is inflated here. We do not let josekit (0.10.3) read whole tokens, because its reader
//! - takes a GCM tag of any length, so that a tag of one byte is guessed in 256 tries;
//! - panics on a wrapped key shorter than eight bytes and on a missing or short IV;
//! - removes the CBC padding before it checks the tag, and compares tags byte by byte, which is a padding oracle;
//! - inflates without bound.
//!
//! Every length is therefore checked here, to the byte, before josekit sees a part.
//!
//! What was opened is not yet believed. **A JWE sealed to a public key proves nothing about its sender**, so [`Opened`]
//! says by [`SealedWith`] what the caller must still demand.

mod content;
mod key;
mod keys;
mod open;

use thiserror::Error;

use self::key::KeyId;
use super::compact::{MAX_TOKEN_BYTES, Malformed};

pub use key::KeyProblem;
pub use keys::{DecryptionKeys, KeyDescription, KeyFileError};

/// The decrypted content of a JWE.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext, inflated if it was deflated: a nested JWS, or claims.
    pub payload: Vec<u8>,
    /// Whether decryption says anything about the sender.
    pub sealed_with: SealedWith,
    /// The key that opened it, for people: its `kid`, or the name of its file.
    pub key: String,
    pub(super) id: KeyId,
}

impl SealedWith {
    /// The longest content, in bytes. What anybody can have sealed must be a token, so it is no longer than one; what the
    /// issuer vouches for may be as long as [`json`](super::json) reads.
    #[must_use]
    pub fn max_content_bytes(self) -> usize {
        match self {
            Self::PublicKey => MAX_TOKEN_BYTES,
            Self::SharedKey => 256 * 1024,
        }
    }
}

/// Who can have made a JWE that opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedWith {
    /// Anybody: the key to seal it is public. The payload must be a JWS that verifies.
    PublicKey,
    /// A holder of the secret that we share with the issuer.
    SharedKey,
}

/// Why a JWE was not opened.
///
/// All cryptographic failures are one variant with one message, so that nobody learns by asking which step failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JweError {
    /// `alg` is not one that holdfast decrypts. A definitive no.
    #[error(
        "the token's `alg` is {alg:?}; accepted are RSA-OAEP, RSA-OAEP-256, -384 and -512, ECDH-ES, ECDH-ES+A128KW, \
         ECDH-ES+A256KW, A128KW, A256KW and dir"
    )]
    AlgorithmNotAllowed {
        /// Its first 32 characters.
        alg: String,
    },
    /// `enc` is missing or not one that holdfast decrypts. A definitive no.
    #[error(
        "the token's `enc` is {}; accepted are A128GCM, A256GCM, A128CBC-HS256 and A256CBC-HS512",
        enc.as_ref().map_or("missing".to_owned(), |enc| format!("{enc:?}"))
    )]
    EncryptionNotAllowed {
        /// Its first 32 characters, if there is one.
        enc: Option<String>,
    },
    /// `zip` is not `DEF`. A definitive no.
    #[error("the token's `zip` is {zip:?}; the only compression there is is DEF (RFC 7516 §4.1.3)")]
    CompressionNotAllowed {
        /// Its first 32 characters.
        zip: String,
    },
    /// No configured key fits: the token is *foreign*, and only its issuer can open it.
    #[error(
        "no decryption key fits a token with alg {alg} and {}; if it is sealed for this service, add its private key \
         to `decryption_keys`, else only the issuer can open it",
        kid.as_ref().map_or("no kid".to_owned(), |kid| format!("kid {kid:?}"))
    )]
    NoKey {
        /// The token's `alg`.
        alg: &'static str,
        /// The token's `kid`.
        kid: Option<String>,
    },
    /// A part is not base64url. A definitive no.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A key fits, but does not open it. A definitive no.
    #[error("the token does not decrypt: it is damaged or forged, or it was sealed to another key")]
    Decryption,
    /// The content is too long. A definitive no.
    #[error("the token's content is longer than {} KiB", most / 1024)]
    TooLarge {
        /// The most bytes that it may have.
        most: usize,
    },
}

impl JweError {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AlgorithmNotAllowed { .. } => "jwe_alg_not_allowed",
            Self::EncryptionNotAllowed { .. } => "jwe_enc_not_allowed",
            Self::CompressionNotAllowed { .. } => "jwe_zip_not_allowed",
            Self::NoKey { .. } => "jwe_no_key",
            Self::Malformed(malformed) => malformed.reason(),
            Self::Decryption => "jwe_decryption_failed",
            Self::TooLarge { .. } => "jwe_too_large",
        }
    }
}

/// How the content key is conveyed: the `alg` values that holdfast decrypts (RFC 7518 §4.1).
///
/// RSA1_5 is left out for its padding oracle, PBES2 because the token would choose how long we compute, and the
/// AES-GCM key wraps because no issuer uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyManagement {
    RsaOaep,
    RsaOaep256,
    RsaOaep384,
    RsaOaep512,
    EcdhEs,
    EcdhEsA128kw,
    EcdhEsA256kw,
    A128kw,
    A256kw,
    Dir,
}

impl KeyManagement {
    const ALL: [Self; 10] = [
        Self::RsaOaep,
        Self::RsaOaep256,
        Self::RsaOaep384,
        Self::RsaOaep512,
        Self::EcdhEs,
        Self::EcdhEsA128kw,
        Self::EcdhEsA256kw,
        Self::A128kw,
        Self::A256kw,
        Self::Dir,
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::RsaOaep384 => "RSA-OAEP-384",
            Self::RsaOaep512 => "RSA-OAEP-512",
            Self::EcdhEs => "ECDH-ES",
            Self::EcdhEsA128kw => "ECDH-ES+A128KW",
            Self::EcdhEsA256kw => "ECDH-ES+A256KW",
            Self::A128kw => "A128KW",
            Self::A256kw => "A256KW",
            Self::Dir => "dir",
        }
    }

    fn sealed_with(self) -> SealedWith {
        match self {
            Self::A128kw | Self::A256kw | Self::Dir => SealedWith::SharedKey,
            _ => SealedWith::PublicKey,
        }
    }
}

/// How the content is encrypted: the `enc` values that holdfast decrypts (RFC 7518 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentEncryption {
    A128gcm,
    A256gcm,
    A128cbcHs256,
    A256cbcHs512,
}

impl ContentEncryption {
    const ALL: [Self; 4] = [Self::A128gcm, Self::A256gcm, Self::A128cbcHs256, Self::A256cbcHs512];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|enc| enc.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::A128gcm => "A128GCM",
            Self::A256gcm => "A256GCM",
            Self::A128cbcHs256 => "A128CBC-HS256",
            Self::A256cbcHs512 => "A256CBC-HS512",
        }
    }

    /// The length of the content key in bytes.
    fn key_len(self) -> usize {
        match self {
            Self::A128gcm => 16,
            Self::A256gcm | Self::A128cbcHs256 => 32,
            Self::A256cbcHs512 => 64,
        }
    }
}
