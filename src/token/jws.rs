//! Signature checks: an [`UnverifiedJws`] and a key that fits → an [`AuthenticatedPayload`].
//!
//! The choice of key is the issuer's and the configuration's, never the token's: `kid` only selects among the
//! issuer's keys, and a key is used only with its own type, curve, `alg` and `use`.

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};

use super::algorithm::{KeyKind, SignatureAlgorithm, names};
use super::claims::AuthenticatedPayload;
use super::compact::{Malformed, UnverifiedHeader, UnverifiedJws, decode};
use super::json;
use super::refusal::Refusal;

/// The shortest RSA modulus, in bytes (RFC 7518 §3.3: 2048 bits).
const MIN_RSA_BYTES: usize = 2048 / 8;

/// A key that can verify signatures.
pub struct VerificationKey {
    id: Option<String>,
    kind: KeyKind,
    /// The algorithms that it may be used with; empty for all of its kind.
    algorithms: Vec<SignatureAlgorithm>,
    /// A digest of the public key alone: keys with the same digest are the same key.
    thumbprint: [u8; 32],
    material: Material,
}

/// A key in the form that its checks need.
enum Material {
    /// An RSA key, parsed once for each algorithm that it may be used with. jsonwebtoken, over the same
    /// library, parses it again for each signature, which is a fifth of the cost of a new token.
    Rsa(Vec<(SignatureAlgorithm, ParsedPublicKey)>),
    /// Any other key.
    Library(DecodingKey),
}

impl VerificationKey {
    /// Reads a public key of a JWKS (RFC 7517 §4). Keys for encryption or other operations and keys of
    /// unsupported types or curves are errors, and so are symmetric keys, which must not be in a public
    /// document. With `pss_too`, a key for an RS algorithm may also be used with the PS algorithm of the same
    /// hash.
    ///
    /// # Errors
    /// Why the key cannot be used.
    pub fn from_jwk(jwk: &Jwk, pss_too: bool) -> Result<Self, &'static str> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err("its `use` is not `sig`");
        }
        let operations = jwk.common.key_operations.as_ref();
        if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return Err("its `key_ops` lack `verify`");
        }
        const KIND: &str = "its type or curve is not supported for signatures";
        const BROKEN: &str = "its parameters do not form a valid key";
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => KeyKind::P256,
                EllipticCurve::P384 => KeyKind::P384,
                _ => return Err(KIND),
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                KeyKind::Ed25519
            }
            _ => return Err(KIND),
        };
        let algorithms = match jwk.common.key_algorithm {
            None => Vec::new(),
            Some(algorithm) => {
                let named = algorithm.to_string().parse::<SignatureAlgorithm>().ok();
                let named = named.filter(|algorithm| algorithm.key_kind() == kind);
                let named = named.ok_or("its `alg` is not for signatures with a key of its type")?;
                let pss = named.pss_twin().filter(|_| pss_too);
                [named].into_iter().chain(pss).collect()
            }
        };
        let (material, parts) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (decode(&rsa.n).map_err(|_| BROKEN)?, decode(&rsa.e).map_err(|_| BROKEN)?);
                (Material::rsa(&n, &e, &algorithms)?, [n, e])
            }
            other => {
                let key = DecodingKey::from_jwk(jwk).map_err(|_| BROKEN)?;
                let (x, y) = match other {
                    AlgorithmParameters::EllipticCurve(ec) => (ec.x.as_str(), ec.y.as_str()),
                    AlgorithmParameters::OctetKeyPair(pair) => (pair.x.as_str(), ""),
                    _ => return Err(KIND),
                };
                (Material::Library(key), [x.into(), y.into()])
            }
        };
        let thumbprint = thumbprint(kind, &parts);
        Ok(Self { id: jwk.common.key_id.clone(), kind, algorithms, thumbprint, material })
    }

    /// A secret that is shared with the issuer, for HS256, HS384 and HS512.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        let material = Material::Library(DecodingKey::from_secret(secret));
        let thumbprint = thumbprint(KeyKind::Secret, &[]);
        Self { id: None, kind: KeyKind::Secret, algorithms: Vec::new(), thumbprint, material }
    }

    /// `kid`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may verify signatures of `algorithm`.
    #[must_use]
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        self.kind == algorithm.key_kind()
            && (self.algorithms.is_empty() || self.algorithms.contains(&algorithm))
    }

    /// Whether it is the same public key as `other`, whatever their `kid` and use.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }

    /// Whether it equals `other` in key, `kid` and algorithms.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.is_same_as(other) && self.id == other.id && self.algorithms == other.algorithms
    }
}

impl Material {
    /// Modulus and exponent (RFC 7518 §6.3.1), for `only` these algorithms or, if there are none, for all
    /// that RSA keys are used with.
    fn rsa(n: &[u8], e: &[u8], only: &[SignatureAlgorithm]) -> Result<Self, &'static str> {
        // Shorter keys can be parsed, but each check of a signature would refuse them.
        if significant(n).len() < MIN_RSA_BYTES {
            return Err("it is an RSA key of fewer than 2048 bits");
        }
        let components = RsaPublicKeyComponents { n, e };
        let parsed: Vec<_> = SignatureAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| only.is_empty() || only.contains(algorithm))
            .filter_map(|algorithm| Some((algorithm, algorithm.rsa_parameters()?)))
            .filter_map(|(algorithm, rules)| Some((algorithm, components.to_parsed_public_key(rules).ok()?)))
            .collect();
        if parsed.is_empty() { Err("its parameters do not form a valid key") } else { Ok(Self::Rsa(parsed)) }
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

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The digest that identifies a public key.
fn thumbprint(kind: KeyKind, parts: &[Vec<u8>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[kind as u8]);
    for part in parts {
        let part = significant(part);
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// What a token is used as: its `typ` must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUse {
    /// An access token (RFC 9068 §2.1), or a JWT that does not say more.
    Access,
    /// A logout token (OpenID Connect Back-Channel Logout 1.0 §2.4), or a JWT that does not say more, as
    /// Auth0 sends it.
    Logout,
    /// The signed answer of `/userinfo` (OpenID Connect Core 1.0 §5.3.2).
    Userinfo,
}

impl TokenUse {
    fn check(self, typ: &str) -> Result<(), Refusal> {
        let typ = typ.to_ascii_lowercase();
        let fits = |own: &str| typ == own || typ.strip_prefix("application/") == Some(own);
        match self {
            _ if fits("jwt") => Ok(()),
            Self::Access if fits("at+jwt") => Ok(()),
            Self::Access => Err(Refusal::NotAnAccessToken("its `typ` is neither JWT nor at+jwt")),
            Self::Logout if fits("logout+jwt") => Ok(()),
            Self::Logout => Err(Refusal::NotALogoutToken("its `typ` is neither JWT nor logout+jwt")),
            Self::Userinfo => Err(Refusal::NotAnAccessToken("its `typ` is not JWT")),
        }
    }
}

/// Whether the header says that it is an access token (RFC 9068 §2.1).
#[must_use]
pub fn is_at_jwt(header: &UnverifiedHeader) -> bool {
    let typ = header.typ.as_ref().map(|typ| typ.to_ascii_lowercase());
    matches!(typ.as_deref(), Some("at+jwt" | "application/at+jwt"))
}

/// The algorithm that the token names, if the configuration allows it. `typ` must be that of the use, so that
/// a logout token or a DPoP proof of the same issuer is not taken for an access token.
///
/// # Errors
/// [`Refusal::AlgorithmNotAllowed`], [`Refusal::NotAnAccessToken`], [`Refusal::NotALogoutToken`].
pub fn allowed_algorithm(
    jws: &UnverifiedJws<'_>,
    used_as: TokenUse,
    allowed: &[SignatureAlgorithm],
) -> Result<SignatureAlgorithm, Refusal> {
    if let Some(typ) = &jws.header.typ {
        used_as.check(typ)?;
    }
    let named = jws.header.alg.parse().ok();
    named
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or_else(|| Refusal::AlgorithmNotAllowed { allowed: names(allowed) })
}

/// The `iss` of the payload. It only serves to choose the issuer whose rules apply. Nothing else of a payload
/// is read before its signature is checked.
///
/// # Errors
/// [`Malformed`] if the payload is not a JSON object.
pub fn named_issuer(jws: &UnverifiedJws<'_>) -> Result<Option<String>, Malformed> {
    let payload = decode(jws.payload)?;
    let issuer = json::text_member(&payload, "iss").map_err(Malformed::Claims)?;
    Ok(issuer.map(Cow::into_owned))
}

/// The claims in a JWE under a key that only the issuer and we hold: its tag authenticates them as a MAC
/// would.
///
/// # Errors
/// [`Malformed`] if they are not a JSON object.
pub fn authenticated_by_shared_key(content: &[u8]) -> Result<AuthenticatedPayload, Malformed> {
    AuthenticatedPayload::read(content)
}

/// Checks the signature with each of `keys` until one verifies it, and only then reads what was signed.
///
/// # Errors
/// [`Refusal::KeyUnknown`] if there is no key, else those of [`verify`].
pub fn verify_by_any<'k>(
    signing_input: &str,
    signature: &str,
    keys: impl IntoIterator<Item = &'k VerificationKey>,
    algorithm: SignatureAlgorithm,
) -> Result<AuthenticatedPayload, Refusal> {
    let mut found = Err(Refusal::KeyUnknown);
    for key in keys {
        found = verify(signing_input, signature, key, algorithm);
        if !matches!(found, Err(Refusal::SignatureInvalid)) {
            break;
        }
    }
    found
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
) -> Result<AuthenticatedPayload, Refusal> {
    if !key.fits(algorithm) {
        return Err(Refusal::KeyUnfit);
    }
    if !key.material.verifies(signing_input.as_bytes(), signature, algorithm)? {
        return Err(Refusal::SignatureInvalid);
    }
    let (_, payload) = signing_input.split_once('.').ok_or(Malformed::Parts)?;
    Ok(AuthenticatedPayload::read(&decode(payload)?)?)
}
