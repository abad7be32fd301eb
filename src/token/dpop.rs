//! DPoP proofs (RFC 9449): a JWT that the sender of a request signs with its own key, for this request and
//! this access token. [`check`] makes all checks of §4.3 except two, which are not about one proof alone:
//! that the request has exactly one proof (`sender`), and that the proof is not a replay ([`replay`]). A
//! `nonce` (§9) is not demanded.
//!
//! The key comes with the proof, which is why [`compact`](super::compact) reads it for no other token. It
//! only proves who made this request if its thumbprint is the one in the token's `cnf`.

pub mod replay;
pub mod url;

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::Value;
use thiserror::Error;

use self::replay::ProofId;
use self::url::HttpUrl;
use super::algorithm::SignatureAlgorithm;
use super::binding::Thumbprint;
use super::claims::date;
use super::compact::{Malformed, UnverifiedJws, decode};
use super::json::{self, Object};
use super::jws::{self, VerificationKey};
use super::refusal::Refusal;
use crate::clock::Timestamp;

/// The longest proof that is read, in bytes. One with an RSA key of 4096 bits has about 2,000.
const MAX_PROOF_BYTES: usize = 8 * 1024;

/// The longest `jti`, in bytes. RFC 9449 §4.2 wants 96 bits at least.
const MAX_ID_BYTES: usize = 512;

/// The members of a private or a symmetric key (RFC 7518 §6).
const SECRETS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The members of a public key (RFC 7638 §3.2 and RFC 8037 §2).
const PUBLIC: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];

/// What a proof is checked against.
#[derive(Clone, Debug)]
pub struct Expected<'e> {
    /// The method of the request.
    pub method: &'e str,
    /// Its URL.
    pub url: &'e HttpUrl,
    /// The access token.
    pub token: &'e str,
    /// `jkt` of the access token.
    pub key: Thumbprint,
    /// When the request came.
    pub now: Timestamp,
    /// How old a proof may be.
    pub age: Duration,
    /// How far its `iat` may lie in the future.
    pub leeway: Duration,
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// It is not a signed JWT.
    #[error("the proof is not a signed JWT: {0}")]
    Malformed(#[from] Malformed),
    /// It is longer than 8 KiB.
    #[error("the proof is longer than 8 KiB")]
    TooLong,
    /// `typ` is not `dpop+jwt`.
    #[error("the proof's `typ` is not dpop+jwt")]
    Typ,
    /// `alg` is none of [`algorithm_names`].
    #[error("the proof's algorithm is not an asymmetric one that is supported")]
    Algorithm,
    /// `jwk` is missing, or is not a key for the proof's `alg`.
    #[error("the proof's `jwk` cannot be used: {0}")]
    Key(&'static str),
    /// `jwk` has members of a private key.
    #[error("the proof's `jwk` has a private or symmetric key, which is no secret any more")]
    PrivateKey,
    /// The signature does not verify.
    #[error("the proof's signature does not verify with its `jwk`")]
    Signature,
    /// A claim is missing or of a wrong type.
    #[error("the proof's claim `{0}` is missing or has a wrong type or length")]
    Claim(&'static str),
    /// `htm` is another method.
    #[error("the proof is for another method (`htm`)")]
    Method,
    /// `htu` is another URL.
    #[error("the proof is for another URL (`htu`)")]
    Url,
    /// `iat` is too long ago.
    #[error("the proof is {0} s old (`iat`), and at most dpop.proof_age is accepted")]
    Old(u64),
    /// `iat` is in the future.
    #[error("the proof is from {0} s in the future (`iat`); check both clocks")]
    Future(u64),
    /// `ath` is the hash of another token.
    #[error("the proof is for another access token (`ath`)")]
    Token,
    /// The key is not the one in the token's `cnf`.
    #[error("the proof is by another key than the one that the token is bound to (`cnf.jkt`)")]
    OtherKey,
}

impl ProofError {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLong | Self::Typ | Self::Claim(_) => "proof_malformed",
            Self::Algorithm => "proof_algorithm",
            Self::Key(_) | Self::PrivateKey => "proof_key",
            Self::Signature => "proof_signature",
            Self::Method => "proof_method",
            Self::Url => "proof_url",
            Self::Old(_) | Self::Future(_) => "proof_time",
            Self::Token => "proof_token",
            Self::OtherKey => "proof_other_key",
        }
    }
}

/// The algorithms of proofs, in the order of preference: all that are asymmetric.
fn algorithms() -> impl Iterator<Item = SignatureAlgorithm> {
    SignatureAlgorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric())
}

/// Their names, as a challenge and the metadata of the resource list them.
#[must_use]
pub fn algorithm_names() -> Vec<&'static str> {
    algorithms().map(SignatureAlgorithm::name).collect()
}

/// Checks a proof as RFC 9449 §4.3 says, and returns its identity for the replay cache.
///
/// # Errors
/// [`ProofError`], for the first check that fails.
pub fn check(proof: &str, expected: &Expected<'_>) -> Result<ProofId, ProofError> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err(ProofError::TooLong);
    }
    let jws = UnverifiedJws::parse(proof)?;
    if !jws.header.typ.as_deref().is_some_and(is_dpop) {
        return Err(ProofError::Typ);
    }
    let algorithm = algorithms().find(|algorithm| algorithm.name() == jws.header.alg);
    let algorithm = algorithm.ok_or(ProofError::Algorithm)?;
    let jwk = public_key(&jws, algorithm)?;
    let key = VerificationKey::from_jwk(&jwk, false).map_err(ProofError::Key)?;
    let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok();
    // Before the costly part.
    if thumbprint.as_deref().and_then(Thumbprint::parse) != Some(expected.key) {
        return Err(ProofError::OtherKey);
    }
    let signed = jws::verify(jws.signing_input, jws.signature, &key, algorithm);
    let claims = signed.map_err(|refusal| match refusal {
        Refusal::Malformed(malformed) => ProofError::Malformed(malformed),
        Refusal::KeyUnfit => ProofError::Key("it is not for the proof's `alg`"),
        _ => ProofError::Signature,
    })?;
    let claims = claims.into_claims();
    let id = text(&claims, "jti").filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
    let id = id.ok_or(ProofError::Claim("jti"))?;
    if text(&claims, "htm").ok_or(ProofError::Claim("htm"))? != expected.method {
        return Err(ProofError::Method);
    }
    let url = text(&claims, "htu").ok_or(ProofError::Claim("htu"))?;
    if HttpUrl::parse(url).as_ref() != Some(expected.url) {
        return Err(ProofError::Url);
    }
    let made_at = date(&claims, "iat").ok().flatten().ok_or(ProofError::Claim("iat"))?;
    if made_at > expected.now.after(expected.leeway) {
        return Err(ProofError::Future(made_at.since(expected.now).as_secs()));
    }
    if expected.now > made_at.after(expected.age) {
        return Err(ProofError::Old(expected.now.since(made_at).as_secs()));
    }
    let token = text(&claims, "ath").ok_or(ProofError::Claim("ath"))?;
    if Thumbprint::parse(token) != Some(Thumbprint::of(expected.token.as_bytes())) {
        return Err(ProofError::Token);
    }
    let mut context = Context::new(&SHA256);
    context.update(expected.key.as_bytes());
    context.update(id.as_bytes());
    Ok(ProofId::of(context.finish().as_ref()))
}

/// RFC 9449 §4.2; a media type ignores case (RFC 7515 §4.1.9).
fn is_dpop(typ: &str) -> bool {
    typ.eq_ignore_ascii_case("dpop+jwt") || typ.eq_ignore_ascii_case("application/dpop+jwt")
}

/// The public key in the proof's header, for its `alg` alone.
fn public_key(jws: &UnverifiedJws<'_>, algorithm: SignatureAlgorithm) -> Result<Jwk, ProofError> {
    let (header, _) = jws.signing_input.split_once('.').ok_or(Malformed::Parts)?;
    let mut header = json::object(&decode(header)?).map_err(Malformed::Header)?;
    let Some(Value::Object(mut key)) = header.remove("jwk") else {
        return Err(ProofError::Key("it is missing or not an object"));
    };
    if SECRETS.iter().any(|name| key.contains_key(*name)) {
        return Err(ProofError::PrivateKey);
    }
    if key.get("alg").is_some_and(|own| own.as_str() != Some(algorithm.name())) {
        return Err(ProofError::Key("its `alg` is not the proof's"));
    }
    key.retain(|name, _| PUBLIC.contains(&name.as_str()));
    key.insert("alg".to_owned(), algorithm.name().into());
    serde_json::from_value(Value::Object(key))
        .map_err(|_| ProofError::Key("it is not a JWK, or its type is unknown"))
}

fn text<'c>(claims: &'c Object, name: &str) -> Option<&'c str> {
    claims.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// RFC 9449 §7.1, Figure 12; the key is that of §6.1.
    const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
                         VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
                         nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
                         QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj\
                         oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z\
                         WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF\
                         c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E\
                         OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    const MADE_AT: u64 = 1_562_262_618;

    fn rfc(url: &HttpUrl) -> Expected<'_> {
        Expected {
            method: "GET",
            url,
            token: TOKEN,
            key: Thumbprint::parse("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I").unwrap(),
            now: Timestamp::from_secs(MADE_AT),
            age: Duration::from_secs(60),
            leeway: Duration::from_secs(30),
        }
    }

    #[test]
    fn the_example_of_the_rfc_holds_for_its_own_request_and_no_other() {
        let url = HttpUrl::of("https", "resource.example.org:443", "/protectedresource?x=1").unwrap();
        let expected = rfc(&url);
        assert_eq!(check(PROOF, &expected), check(PROOF, &expected));
        assert!(check(PROOF, &expected).is_ok());
        let other = |expected: Expected<'_>| check(PROOF, &expected).unwrap_err();
        for method in ["POST", "get", "HEAD", ""] {
            assert_eq!(other(Expected { method, ..rfc(&url) }), ProofError::Method);
        }
        for (scheme, authority, path) in [
            ("http", "resource.example.org", "/protectedresource"),
            ("https", "resource.example.org:8443", "/protectedresource"),
            ("https", "resource.example.org.", "/protectedresource"),
            ("https", "example.org", "/protectedresource"),
            ("https", "resource.example.org", "/ProtectedResource"),
            ("https", "resource.example.org", "/protectedresource/"),
            ("https", "resource.example.org", "/"),
        ] {
            let url = HttpUrl::of(scheme, authority, path).unwrap();
            assert_eq!(other(rfc(&url)), ProofError::Url, "{}", url.as_str());
        }
        assert_eq!(other(Expected { token: "other", ..rfc(&url) }), ProofError::Token);
        assert_eq!(other(Expected { key: Thumbprint::of(b"other"), ..rfc(&url) }), ProofError::OtherKey);
    }

    #[test]
    fn a_proof_is_good_from_its_leeway_to_its_age_and_not_a_moment_longer() {
        let url = HttpUrl::parse("https://resource.example.org/protectedresource").unwrap();
        let at = |millis| check(PROOF, &Expected { now: Timestamp::from_millis(millis), ..rfc(&url) });
        let made_at = MADE_AT * 1000;
        assert_eq!(at(made_at - 30_001), Err(ProofError::Future(30)));
        assert!(at(made_at - 30_000).is_ok());
        assert!(at(made_at + 60_000).is_ok());
        assert_eq!(at(made_at + 60_001), Err(ProofError::Old(60)));
    }

    #[test]
    fn no_flipped_bit_holds() {
        let url = HttpUrl::parse("https://resource.example.org/protectedresource").unwrap();
        let parts: Vec<Vec<u8>> = PROOF.split('.').map(|part| decode(part).unwrap()).collect();
        for (number, part) in parts.iter().enumerate() {
            for (byte, bit) in (0..part.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let mut parts = parts.clone();
                parts[number][byte] ^= 1 << bit;
                let parts: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
                assert!(
                    check(&parts.join("."), &rfc(&url)).is_err(),
                    "part {number}, byte {byte}, bit {bit}"
                );
            }
        }
    }
}
