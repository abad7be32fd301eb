//! The tenant's signing keys, and the JWKS that lists them.
//!
//! A *generation* is one set of keys, one for every kind of signature; rotation adds a generation, revocation
//! drops all but the newest. Key ids are stable strings (`dev-rs-1` is the RS256 key of the first
//! generation), so a test can name them.
//!
//! Every generation of every tenant has its own RSA key, although making one takes about a tenth of a second:
//! with a shared key, each tenant could sign for the other. Only the keys that belong to no tenant are made
//! once for the process. One RSA key serves all six RSA algorithms; the JWKS lists it once for each, because
//! an entry's `alg` binds a key to one algorithm (RFC 7517 §4.4).

use std::sync::{Arc, Mutex};

use josekit::jwk::Jwk;
use josekit::jwk::alg::ec::EcCurve;
use josekit::jwk::alg::ed::EdCurve;
use josekit::jws::{
    ES256, ES384, EdDSA, HS256, JwsSigner, JwsVerifier, PS256, PS384, PS512, RS256, RS384, RS512,
};
use serde_json::{Value, json};

use crate::error::TenantError;
use crate::lock;

/// Every asymmetric algorithm the tenant signs with, and the first part of its keys' ids.
const ALGORITHMS: [(&str, &str); 9] = [
    ("RS256", "dev-rs"),
    ("RS384", "dev-rs384"),
    ("RS512", "dev-rs512"),
    ("PS256", "dev-ps"),
    ("PS384", "dev-ps384"),
    ("PS512", "dev-ps512"),
    ("ES256", "dev-es"),
    ("ES384", "dev-es384"),
    ("EdDSA", "dev-ed"),
];

/// All generations of a tenant that are still listed, newest first.
#[derive(Debug)]
pub(crate) struct KeyRing {
    generations: Vec<Generation>,
}

impl KeyRing {
    pub(crate) fn new() -> Result<Self, TenantError> {
        Ok(Self { generations: vec![Generation::new(1, new_rsa()?)?] })
    }

    /// Makes a new generation the current one; the older ones stay listed.
    ///
    /// The slow part, the RSA key, is made before the lock is taken, so that the JWKS is served meanwhile.
    pub(crate) fn rotate(ring: &Mutex<Self>) -> Result<(), TenantError> {
        let rsa = new_rsa()?;
        let mut ring = lock(ring);
        let generation = Generation::new(ring.current_number() + 1, rsa)?;
        ring.generations.insert(0, generation);
        Ok(())
    }

    /// Drops every generation but the current one.
    pub(crate) fn revoke_old(&mut self) {
        self.generations.truncate(1);
    }

    /// The id of the current key for `algorithm`.
    pub(crate) fn kid(&self, algorithm: &str) -> Option<String> {
        kid(algorithm, self.current_number())
    }

    /// A signer with the current key for `algorithm`.
    pub(crate) fn signer(&self, algorithm: &str) -> Result<Box<dyn JwsSigner>, TenantError> {
        let current = self.generations.first().ok_or(TenantError::Task)?;
        signer(algorithm, current.private(algorithm)?)
    }

    /// Whether a listed key for `algorithm` made this signature. The `kid` is ignored: the tenant recognises
    /// its own signatures whatever a test wrote into the header.
    pub(crate) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        self.generations.iter().any(|generation| {
            generation
                .public(algorithm)
                .and_then(|jwk| verifier(algorithm, &jwk))
                .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
        })
    }

    /// The JWKS: current keys first (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> Result<Value, TenantError> {
        let mut keys = Vec::new();
        for generation in &self.generations {
            generation.list(&mut keys)?;
        }
        Ok(json!({ "keys": keys }))
    }

    /// A JWKS with the same key ids over keys that sign nothing.
    pub(crate) fn wrong_jwks(&self) -> Result<Value, TenantError> {
        let mut keys = Vec::new();
        for generation in &self.generations {
            Generation::new(generation.number, shared_rsa(&WRONG)?)?.list(&mut keys)?;
        }
        Ok(json!({ "keys": keys }))
    }

    fn current_number(&self) -> u32 {
        self.generations.first().map_or(0, |generation| generation.number)
    }
}

/// Makes the key of [`KeyRing::wrong_jwks`] ahead of time, so that its first answer is not late.
pub(crate) fn prepare_wrong_key() -> Result<(), TenantError> {
    shared_rsa(&WRONG).map(drop)
}

/// A signer whose key the tenant does not list: an attacker's.
pub(crate) fn stranger_signer(algorithm: &str) -> Result<Box<dyn JwsSigner>, TenantError> {
    let stranger = Generation::new(0, shared_rsa(&STRANGER)?)?;
    signer(algorithm, stranger.private(algorithm)?)
}

/// An HS256 signer.
pub(crate) fn hmac_signer(secret: &[u8]) -> Result<Box<dyn JwsSigner>, TenantError> {
    Ok(Box::new(HS256.signer_from_bytes(secret)?))
}

/// Whether `secret` made this HS256 signature.
pub(crate) fn hmac_verifies(secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    HS256.verifier_from_bytes(secret).is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}

/// The RSA key pair that the API's owner has uploaded for nested JWE; one per process.
pub(crate) fn jwe_rsa() -> Result<Arc<Jwk>, TenantError> {
    shared_rsa(&ENCRYPTION)
}

#[derive(Debug)]
struct Generation {
    number: u32,
    rsa: Arc<Jwk>,
    p256: Jwk,
    p384: Jwk,
    ed25519: Jwk,
}

impl Generation {
    fn new(number: u32, rsa: Arc<Jwk>) -> Result<Self, TenantError> {
        Ok(Self {
            number,
            rsa,
            p256: Jwk::generate_ec_key(EcCurve::P256)?,
            p384: Jwk::generate_ec_key(EcCurve::P384)?,
            ed25519: Jwk::generate_ed_key(EdCurve::Ed25519)?,
        })
    }

    fn private(&self, algorithm: &str) -> Result<&Jwk, TenantError> {
        match algorithm {
            "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => Ok(&self.rsa),
            "ES256" => Ok(&self.p256),
            "ES384" => Ok(&self.p384),
            "EdDSA" => Ok(&self.ed25519),
            other => Err(TenantError::UnknownAlgorithm(other.to_owned())),
        }
    }

    fn public(&self, algorithm: &str) -> Result<Jwk, TenantError> {
        Ok(self.private(algorithm)?.to_public_key()?)
    }

    fn list(&self, keys: &mut Vec<Value>) -> Result<(), TenantError> {
        for (algorithm, _) in ALGORITHMS {
            let mut jwk = self.public(algorithm)?;
            jwk.set_key_use("sig");
            jwk.set_algorithm(algorithm);
            if let Some(kid) = kid(algorithm, self.number) {
                jwk.set_key_id(kid);
            }
            keys.push(Value::Object(jwk.into()));
        }
        Ok(())
    }
}

fn kid(algorithm: &str, generation: u32) -> Option<String> {
    let (_, prefix) = ALGORITHMS.iter().find(|(name, _)| *name == algorithm)?;
    Some(format!("{prefix}-{generation}"))
}

fn signer(algorithm: &str, jwk: &Jwk) -> Result<Box<dyn JwsSigner>, TenantError> {
    Ok(match algorithm {
        "RS256" => Box::new(RS256.signer_from_jwk(jwk)?),
        "RS384" => Box::new(RS384.signer_from_jwk(jwk)?),
        "RS512" => Box::new(RS512.signer_from_jwk(jwk)?),
        "PS256" => Box::new(PS256.signer_from_jwk(jwk)?),
        "PS384" => Box::new(PS384.signer_from_jwk(jwk)?),
        "PS512" => Box::new(PS512.signer_from_jwk(jwk)?),
        "ES256" => Box::new(ES256.signer_from_jwk(jwk)?),
        "ES384" => Box::new(ES384.signer_from_jwk(jwk)?),
        "EdDSA" => Box::new(EdDSA.signer_from_jwk(jwk)?),
        other => return Err(TenantError::UnknownAlgorithm(other.to_owned())),
    })
}

fn verifier(algorithm: &str, jwk: &Jwk) -> Result<Box<dyn JwsVerifier>, TenantError> {
    Ok(match algorithm {
        "RS256" => Box::new(RS256.verifier_from_jwk(jwk)?),
        "RS384" => Box::new(RS384.verifier_from_jwk(jwk)?),
        "RS512" => Box::new(RS512.verifier_from_jwk(jwk)?),
        "PS256" => Box::new(PS256.verifier_from_jwk(jwk)?),
        "PS384" => Box::new(PS384.verifier_from_jwk(jwk)?),
        "PS512" => Box::new(PS512.verifier_from_jwk(jwk)?),
        "ES256" => Box::new(ES256.verifier_from_jwk(jwk)?),
        "ES384" => Box::new(ES384.verifier_from_jwk(jwk)?),
        "EdDSA" => Box::new(EdDSA.verifier_from_jwk(jwk)?),
        other => return Err(TenantError::UnknownAlgorithm(other.to_owned())),
    })
}

/// Keys that belong to no tenant, made when they are first asked for: what the API's owner has uploaded for
/// nested JWE, what signs nothing, and what an attacker signs with.
static ENCRYPTION: Mutex<Option<Arc<Jwk>>> = Mutex::new(None);
static WRONG: Mutex<Option<Arc<Jwk>>> = Mutex::new(None);
static STRANGER: Mutex<Option<Arc<Jwk>>> = Mutex::new(None);

fn shared_rsa(slot: &Mutex<Option<Arc<Jwk>>>) -> Result<Arc<Jwk>, TenantError> {
    let mut slot = lock(slot);
    if let Some(jwk) = slot.as_ref() {
        return Ok(Arc::clone(jwk));
    }
    let jwk = new_rsa()?;
    *slot = Some(Arc::clone(&jwk));
    Ok(jwk)
}

fn new_rsa() -> Result<Arc<Jwk>, TenantError> {
    Ok(Arc::new(Jwk::generate_rsa_key(2048)?))
}
