//! Signature checks: an [`UnverifiedJws`] and a key that fits → a [`VouchedPayload`].
//!
//! The choice of key is the issuer's and the configuration's, never the token's: `kid` only selects among the
//! issuer's keys, and a key is used only with its own type, curve, `alg` and `use`.

use std::borrow::Cow;

use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse, RSAKeyParameters,
};

use super::algorithm::{KeyKind, SignatureAlgorithm, names};
use super::claims::VouchedPayload;
use super::compact::{Malformed, UnverifiedJws, decode};
use super::json;
use super::refusal::Refusal;

/// The shortest RSA modulus, in bytes (RFC 7518 §3.3: 2048 bits).
const MIN_RSA_BYTES: usize = 2048 / 8;

/// A key that can verify signatures.
pub struct VerificationKey {
    id: Option<String>,
    kind: KeyKind,
    algorithm: Option<SignatureAlgorithm>,
    material: Material,
}

/// A key in the form that its checks need.
enum Material {
    /// An RSA key, parsed once for each algorithm that it may be used with. jsonwebtoken, over the same library, parses
    /// it anew for each signature, which is a fifth of what a token costs at first sight.
    Rsa(Vec<(SignatureAlgorithm, ParsedPublicKey)>),
    /// Any other.
    Library(DecodingKey),
}

impl VerificationKey {
    /// Takes a public key out of a JWKS (RFC 7517 §4). A key for encryption or other operations, of a type or curve that we do not
    /// verify with, or a symmetric one (which has no business in a public document) is `None`.
    #[must_use]
    pub fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let operations = jwk.common.key_operations.as_ref();
        if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
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
        let material = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => Material::rsa(rsa, algorithm)?,
            _ => Material::Library(DecodingKey::from_jwk(jwk).ok()?),
        };
        Some(Self { id: jwk.common.key_id.clone(), kind, algorithm, material })
    }

    /// A secret that is shared with the issuer, for HS256, HS384 and HS512.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        let material = Material::Library(DecodingKey::from_secret(secret));
        Self { id: None, kind: KeyKind::Secret, algorithm: None, material }
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

impl Material {
    /// Modulus and exponent (RFC 7518 §6.3.1), for `only` this algorithm or for all that RSA keys are used with. `None`
    /// if they make no key, or one of fewer than 2048 bits.
    fn rsa(key: &RSAKeyParameters, only: Option<SignatureAlgorithm>) -> Option<Self> {
        let (n, e) = (decode(&key.n).ok()?, decode(&key.e).ok()?);
        // Parsing takes shorter ones; each check of a signature would refuse them.
        (n.iter().skip_while(|byte| **byte == 0).count() >= MIN_RSA_BYTES).then_some(())?;
        let components = RsaPublicKeyComponents { n: &n, e: &e };
        let parsed: Vec<_> = SignatureAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| only.is_none_or(|only| only == *algorithm))
            .filter_map(|algorithm| Some((algorithm, algorithm.rsa_parameters()?)))
            .filter_map(|(algorithm, rules)| Some((algorithm, components.to_parsed_public_key(rules).ok()?)))
            .collect();
        (!parsed.is_empty()).then_some(Self::Rsa(parsed))
    }

    /// Whether `signature`, base64url as in the token, is one of `input`.
    ///
    /// # Errors
    /// [`Malformed::Base64`].
    fn verifies(
        &self,
        input: &[u8],
        signature: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<bool, Malformed> {
        let bytes = decode(signature)?;
        Ok(match self {
            Self::Rsa(keys) => {
                let own = keys.iter().find(|(own, _)| *own == algorithm);
                own.is_some_and(|(_, key)| key.verify_sig(input, &bytes).is_ok())
            }
            Self::Library(key) => {
                jsonwebtoken::crypto::verify(signature, input, key, algorithm.library()).unwrap_or(false)
            }
        })
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
        let known = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
        if !known.iter().any(|known| known.eq_ignore_ascii_case(typ)) {
            return Err(Refusal::NotAnAccessToken("its `typ` is neither JWT nor at+jwt"));
        }
    }
    let named = jws.header.alg.parse().ok();
    named
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or_else(|| Refusal::AlgorithmNotAllowed { allowed: names(allowed) })
}

/// The `iss` that the payload names: good for choosing whose rules to apply, and for nothing else. It is all that is taken
/// of a payload before its signature was checked.
///
/// # Errors
/// [`Malformed`] if the payload is not a JSON object.
pub fn named_issuer(jws: &UnverifiedJws<'_>) -> Result<Option<String>, Malformed> {
    let payload = decode(jws.payload)?;
    let issuer = json::text_member(&payload, "iss").map_err(Malformed::Claims)?;
    Ok(issuer.map(Cow::into_owned))
}

/// Claims that came out of a JWE under a key that only the issuer and we hold: its tag vouches for them as a MAC would.
///
/// # Errors
/// [`Malformed`] if they are not a JSON object.
pub fn vouched_by_shared_key(content: &[u8]) -> Result<VouchedPayload, Malformed> {
    VouchedPayload::read(content)
}

/// Checks the signature, and only then reads what was signed.
///
/// # Errors
/// [`Refusal::KeyUnfit`], [`Refusal::SignatureInvalid`], [`Refusal::Malformed`].
pub fn verify(
    signing_input: &str,
    signature: &str,
    key: &VerificationKey,
    algorithm: SignatureAlgorithm,
) -> Result<VouchedPayload, Refusal> {
    if !key.fits(algorithm) {
        return Err(Refusal::KeyUnfit);
    }
    if !key.material.verifies(signing_input.as_bytes(), signature, algorithm)? {
        return Err(Refusal::SignatureInvalid);
    }
    let (_, payload) = signing_input.split_once('.').ok_or(Malformed::Parts)?;
    Ok(VouchedPayload::read(&decode(payload)?)?)
}
