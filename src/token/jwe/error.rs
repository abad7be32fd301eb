//! Why a JWE was not opened.

use thiserror::Error;

use crate::token::compact::Malformed;

/// Why a JWE was not opened.
///
/// All cryptographic failures are one variant with one message, so that an attacker
/// cannot learn which step failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JweError {
    /// `alg` is not one that holdfast decrypts. A definitive no.
    #[error(
        "the token's `alg` is {alg:?}; accepted are RSA-OAEP, RSA-OAEP-256, -384 and -512, ECDH-ES, \
         ECDH-ES+A128KW, ECDH-ES+A256KW, A128KW, A256KW and dir"
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
    #[error("the token's `zip` is {zip:?}; only DEF is allowed (RFC 7516 §4.1.3)")]
    CompressionNotAllowed {
        /// Its first 32 characters.
        zip: String,
    },
    /// No configured key fits: the token is *foreign*, and only its issuer can open it.
    #[error(
        "no decryption key fits a token with alg {alg} and {}; if it is sealed for this service, add its \
         private key to `decryption_keys`, else only the issuer can open it",
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
    /// A key fits, but does not decrypt the token. A definitive refusal.
    #[error("the token does not decrypt: it is damaged or forged, or it is encrypted to another key")]
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
