//! The signature algorithms that can be allowed (RFC 7518 §3.1, RFC 8037 §3.1). `none` is not among them.

use std::str::FromStr;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
};
use jsonwebtoken::Algorithm;

/// A signature algorithm that holdfast can verify: a row of [`SignatureAlgorithm::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureAlgorithm {
    name: &'static str,
    kind: KeyKind,
    library: Algorithm,
}

/// What kind of key an algorithm needs (`kty` and `crv` of RFC 7517 and RFC 7518 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `RSA`.
    Rsa,
    /// `EC` on P-256.
    P256,
    /// `EC` on P-384.
    P384,
    /// `OKP` on Ed25519.
    Ed25519,
    /// `oct`, a shared secret.
    Secret,
}

/// A name that is not in [`SignatureAlgorithm::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

const fn row(name: &'static str, kind: KeyKind, library: Algorithm) -> SignatureAlgorithm {
    SignatureAlgorithm { name, kind, library }
}

impl SignatureAlgorithm {
    /// Auth0's default.
    pub const RS256: Self = row("RS256", KeyKind::Rsa, Algorithm::RS256);

    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::RS256,
        row("RS384", KeyKind::Rsa, Algorithm::RS384),
        row("RS512", KeyKind::Rsa, Algorithm::RS512),
        row("PS256", KeyKind::Rsa, Algorithm::PS256),
        row("PS384", KeyKind::Rsa, Algorithm::PS384),
        row("PS512", KeyKind::Rsa, Algorithm::PS512),
        row("ES256", KeyKind::P256, Algorithm::ES256),
        row("ES384", KeyKind::P384, Algorithm::ES384),
        row("EdDSA", KeyKind::Ed25519, Algorithm::EdDSA),
        row("HS256", KeyKind::Secret, Algorithm::HS256),
        row("HS384", KeyKind::Secret, Algorithm::HS384),
        row("HS512", KeyKind::Secret, Algorithm::HS512),
    ];

    /// The name, as in a token's `alg`; case matters (RFC 7515 §4.1.1).
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The kind of key it is used with, and no other.
    #[must_use]
    pub fn key_kind(self) -> KeyKind {
        self.kind
    }

    /// Whether verifier and signer share a secret.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.kind == KeyKind::Secret
    }

    /// The PS algorithm of the same hash, for an RS one.
    pub(super) fn pss_twin(self) -> Option<Self> {
        let hash = self.name.strip_prefix("RS")?;
        Self::ALL.into_iter().find(|row| row.name.strip_prefix("PS") == Some(hash))
    }

    pub(super) fn library(self) -> Algorithm {
        self.library
    }

    /// Padding, hash and bounds of the modulus, for an RSA algorithm (RFC 7518 §3.3 demands 2048 bits).
    pub(super) fn rsa_parameters(self) -> Option<&'static RsaParameters> {
        Some(match self.library {
            Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// The names in `algorithms`, for a message.
#[must_use]
pub fn names(algorithms: &[SignatureAlgorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name).collect::<Vec<_>>().join(", ")
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|row| row.name == name).ok_or(UnknownAlgorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_itself_and_none_means_nothing() {
        for row in SignatureAlgorithm::ALL {
            assert_eq!(row.name().parse(), Ok(row));
            assert_eq!(format!("{:?}", row.library()), row.name());
            assert_eq!(row.rsa_parameters().is_some(), row.key_kind() == KeyKind::Rsa);
        }
        for name in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS1", "ES512"] {
            assert_eq!(name.parse::<SignatureAlgorithm>(), Err(UnknownAlgorithm), "{name:?}");
        }
    }
}
