//! Signature checks: an [`UnverifiedJws`] and a key that fits → a [`VouchedPayload`].
//!
//! The choice of key is the issuer's and the configuration's, never the token's: `kid` only selects among the
//! issuer's keys, and a key is used only with its own type, curve, `alg` and `use`.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};

use super::algorithm::{KeyKind, SignatureAlgorithm, names};
use super::claims::{UnverifiedClaims, VouchedPayload};
use super::compact::{Malformed, UnverifiedJws, decode};
use super::json;
use super::refusal::Refusal;

/// A key that can verify signatures.
pub struct VerificationKey {
    id: Option<String>,
    kind: KeyKind,
    algorithm: Option<SignatureAlgorithm>,
    key: DecodingKey,
}

impl VerificationKey {
    /// Takes a public key out of a JWKS (RFC 7517 §4). A key for encryption, of a type or curve that we do not
    /// verify with, or a symmetric one (which has no business in a public document) is `None`.
    #[must_use]
    pub fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => KeyKind::P256,
                EllipticCurve::P384 => KeyKind::P384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                KeyKind::Ed25519
            }
            _ => return None,
        };
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(algorithm) => {
                let algorithm: SignatureAlgorithm = algorithm.to_string().parse().ok()?;
                (algorithm.key_kind() == kind).then_some(algorithm)?;
                Some(algorithm)
            }
        };
        Some(Self { id: jwk.common.key_id.clone(), kind, algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    /// A secret that is shared with the issuer, for HS256, HS384 and HS512.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self { id: None, kind: KeyKind::Secret, algorithm: None, key: DecodingKey::from_secret(secret) }
    }

    /// `kid`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may verify signatures of `algorithm`.
    #[must_use]
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        self.kind == algorithm.key_kind() && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// The algorithm that the token names, if the configuration allows it. `typ` must be that of a JWT or an access token
/// (RFC 9068 §2.1), so that a logout token or a DPoP proof of the same issuer is not taken for one.
///
/// # Errors
/// [`Refusal::AlgorithmNotAllowed`], [`Refusal::NotAnAccessToken`].
pub fn allowed_algorithm(
    jws: &UnverifiedJws<'_>,
    allowed: &[SignatureAlgorithm],
) -> Result<SignatureAlgorithm, Refusal> {
    if let Some(typ) = &jws.header.typ {
        let typ = typ.to_ascii_lowercase();
        let short = typ.strip_prefix("application/").unwrap_or(&typ);
        if !matches!(short, "jwt" | "at+jwt") {
            return Err(Refusal::NotAnAccessToken("its `typ` is neither JWT nor at+jwt"));
        }
    }
    let named = jws.header.alg.parse().ok();
    named
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or_else(|| Refusal::AlgorithmNotAllowed { allowed: names(allowed) })
}

/// Reads the payload, so that its `iss` can say whose rules apply.
///
/// # Errors
/// [`Malformed`] if the payload is not a JSON object.
pub fn read_claims(jws: &UnverifiedJws<'_>) -> Result<UnverifiedClaims, Malformed> {
    json::object(&decode(jws.payload)?).map(UnverifiedClaims::new).map_err(Malformed::Claims)
}

/// Claims that came out of a JWE under a key that only the issuer and we hold: its tag vouches for them as a MAC would.
///
/// # Errors
/// [`Malformed`] if they are not a JSON object.
pub fn vouched_by_shared_key(content: &[u8]) -> Result<VouchedPayload, Malformed> {
    json::object(content).map(|claims| UnverifiedClaims::new(claims).vouched()).map_err(Malformed::Claims)
}

/// Checks the signature over `claims`, which must be those that [`read_claims`] read from the same JWS.
///
/// # Errors
/// [`Refusal::KeyUnfit`], [`Refusal::SignatureInvalid`], [`Refusal::Malformed`].
pub fn verify(
    signing_input: &str,
    signature: &str,
    claims: UnverifiedClaims,
    key: &VerificationKey,
    algorithm: SignatureAlgorithm,
) -> Result<VouchedPayload, Refusal> {
    if !key.fits(algorithm) {
        return Err(Refusal::KeyUnfit);
    }
    decode(signature)?;
    match jsonwebtoken::crypto::verify(signature, signing_input.as_bytes(), &key.key, algorithm.library()) {
        Ok(true) => Ok(claims.vouched()),
        Ok(false) | Err(_) => Err(Refusal::SignatureInvalid),
    }
}
