//! The algorithms of a JWE that holdfast decrypts, and what each says about the sender.

use crate::token::compact::MAX_TOKEN_BYTES;

/// Who can have made a JWE that decrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedWith {
    /// Anybody: the encryption key is public. The payload must be a JWS that verifies.
    PublicKey,
    /// A holder of the secret that we share with the issuer.
    SharedKey,
}

impl SealedWith {
    /// The longest content, in bytes. If anybody can have encrypted it, it must be a token, so it is no
    /// longer than one; content that the issuer vouches for may be as long as [`json`](crate::token::json)
    /// reads.
    #[must_use]
    pub fn max_content_bytes(self) -> usize {
        match self {
            Self::PublicKey => MAX_TOKEN_BYTES,
            Self::SharedKey => 256 * 1024,
        }
    }
}

/// How the content key is conveyed: the `alg` values that holdfast decrypts (RFC 7518 §4.1).
///
/// RSA1_5 is left out for its padding oracle, PBES2 because the token would choose how long we compute, and
/// the AES-GCM key wraps because no issuer uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyManagement {
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
    pub(super) const ALL: [Self; 10] = [
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

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
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

    pub(super) fn sealed_with(self) -> SealedWith {
        match self {
            Self::A128kw | Self::A256kw | Self::Dir => SealedWith::SharedKey,
            _ => SealedWith::PublicKey,
        }
    }
}

/// How the content is encrypted: the `enc` values that holdfast decrypts (RFC 7518 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentEncryption {
    A128gcm,
    A256gcm,
    A128cbcHs256,
    A256cbcHs512,
}

impl ContentEncryption {
    pub(super) const ALL: [Self; 4] = [Self::A128gcm, Self::A256gcm, Self::A128cbcHs256, Self::A256cbcHs512];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|enc| enc.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::A128gcm => "A128GCM",
            Self::A256gcm => "A256GCM",
            Self::A128cbcHs256 => "A128CBC-HS256",
            Self::A256cbcHs512 => "A256CBC-HS512",
        }
    }

    /// The length of the content key in bytes.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::A128gcm => 16,
            Self::A256gcm | Self::A128cbcHs256 => 32,
            Self::A256cbcHs512 => 64,
        }
    }
}
