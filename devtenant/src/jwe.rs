//! The keys that encrypt tokens: the API's own (RSA, EC, symmetric), and the one that only the tenant has.
//!
//! Auth0 seals an access token to a key that the API's owner uploaded ("nested JWE"), or, for a token without
//! an audience, to its own key, which nobody else has (`dir`). The dev tenant keeps both halves of every key:
//! tests hand the private halves to holdfast, and `/userinfo` opens what it is shown.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwe::{
    self, A128KW, A256KW, Dir, ECDH_ES, ECDH_ES_A128KW, ECDH_ES_A256KW, JweDecrypter, JweEncrypter,
    JweHeader, RSA_OAEP, RSA_OAEP_256,
};
use josekit::jwk::alg::ec::{EcCurve, EcKeyPair};
use josekit::jwk::alg::rsa::RsaKeyPair;
use josekit::jwk::{Jwk, KeyPair};
use josekit::util::random_bytes;
use serde_json::{Map, Value, json};

use crate::error::TenantError;
use crate::keys;

/// All encryption keys of one tenant.
#[derive(Debug)]
pub(crate) struct JweKeys {
    pub(crate) rsa_public_pem: String,
    pub(crate) rsa_private_pem: String,
    pub(crate) ec_private_pem: String,
    rsa: Arc<Jwk>,
    ec: Jwk,
    /// By the algorithm whose key length rules: `alg` where a key is wrapped, `enc` with `dir`.
    symmetric: [(&'static str, Vec<u8>); 6],
    /// Key of the tenant's own `dir` tokens.
    tenant: Vec<u8>,
}

/// The content of a JWE, and what its encryption says about the sender.
pub(crate) struct Opened {
    pub(crate) payload: Vec<u8>,
    /// Sealed with a key that only the tenant and the API have: the payload needs no signature.
    pub(crate) symmetric: bool,
}

impl JweKeys {
    pub(crate) fn new() -> Result<Self, TenantError> {
        let rsa = keys::jwe_rsa()?;
        let rsa_pair = RsaKeyPair::from_jwk(&rsa)?;
        let ec_pair = EcKeyPair::generate(EcCurve::P256)?;
        Ok(Self {
            rsa_public_pem: pem(&rsa_pair.to_pem_public_key()),
            rsa_private_pem: pem(&rsa_pair.to_pem_private_key()),
            ec_private_pem: pem(&ec_pair.to_pem_private_key()),
            rsa,
            ec: ec_pair.to_jwk_key_pair(),
            symmetric: [
                ("A128KW", random_bytes(16)),
                ("A256KW", random_bytes(32)),
                ("A128GCM", random_bytes(16)),
                ("A256GCM", random_bytes(32)),
                ("A128CBC-HS256", random_bytes(32)),
                ("A256CBC-HS512", random_bytes(64)),
            ],
            tenant: random_bytes(32),
        })
    }

    /// Encrypts to the API; `header` holds everything but `alg` and `enc` (RFC 7516 §7.1).
    pub(crate) fn seal(
        &self,
        alg: &str,
        enc: &str,
        header: Map<String, Value>,
        payload: &[u8],
    ) -> Result<String, TenantError> {
        serialize(alg, enc, header, payload, &*self.encrypter(alg, enc)?)
    }

    /// Encrypts so that only the tenant can open it: Auth0's token without an audience.
    pub(crate) fn seal_for_tenant(&self, issuer: &str, payload: &[u8]) -> Result<String, TenantError> {
        tenant_dir(issuer, payload, &self.tenant)
    }

    /// Opens what [`seal`](Self::seal) or [`seal_for_tenant`](Self::seal_for_tenant) made; `None` for all
    /// else.
    pub(crate) fn open(&self, token: &str) -> Option<Opened> {
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?).ok()?;
        let (alg, enc) = (header.get("alg")?.as_str()?, header.get("enc")?.as_str()?);
        let decrypter: Box<dyn JweDecrypter> = if alg == "dir" && header.get("iss").is_some() {
            Box::new(Dir.decrypter_from_bytes(&self.tenant).ok()?)
        } else {
            self.decrypter(alg, enc).ok()?
        };
        let (payload, _) = jwe::deserialize_compact(token, &*decrypter).ok()?;
        Some(Opened { payload, symmetric: is_symmetric(alg) })
    }

    /// The key id that a token sealed with `alg` and `enc` carries.
    pub(crate) fn kid(alg: &str, enc: &str) -> String {
        match alg {
            "RSA-OAEP" | "RSA-OAEP-256" => "dev-jwe-1".to_owned(),
            "dir" => format!("dev-jwe-dir-{enc}"),
            other if is_symmetric(other) => format!("dev-jwe-{other}"),
            _ => "dev-jwe-ec-1".to_owned(),
        }
    }

    /// The symmetric key for `alg` and `enc` as a JWK (RFC 7518 §6.4); `{}` if there is none.
    pub(crate) fn symmetric_jwk(&self, alg: &str, enc: &str) -> String {
        let Ok(key) = self.symmetric_key(alg, enc) else {
            return "{}".to_owned();
        };
        let kid = Self::kid(alg, enc);
        let k = URL_SAFE_NO_PAD.encode(key);
        json!({ "kty": "oct", "use": "enc", "alg": alg, "kid": kid, "k": k }).to_string()
    }

    fn symmetric_key(&self, alg: &str, enc: &str) -> Result<&[u8], TenantError> {
        let name = match alg {
            "dir" => enc,
            _ => alg,
        };
        let key = self.symmetric.iter().find(|(known, _)| is_symmetric(alg) && *known == name);
        key.map(|(_, key)| key.as_slice()).ok_or_else(|| TenantError::UnknownAlgorithm(name.to_owned()))
    }

    fn encrypter(&self, alg: &str, enc: &str) -> Result<Box<dyn JweEncrypter>, TenantError> {
        Ok(match alg {
            "RSA-OAEP" => Box::new(RSA_OAEP.encrypter_from_jwk(&self.rsa)?),
            "RSA-OAEP-256" => Box::new(RSA_OAEP_256.encrypter_from_jwk(&self.rsa)?),
            "ECDH-ES" => Box::new(ECDH_ES.encrypter_from_jwk(&self.ec)?),
            "ECDH-ES+A128KW" => Box::new(ECDH_ES_A128KW.encrypter_from_jwk(&self.ec)?),
            "ECDH-ES+A256KW" => Box::new(ECDH_ES_A256KW.encrypter_from_jwk(&self.ec)?),
            "A128KW" => Box::new(A128KW.encrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            "A256KW" => Box::new(A256KW.encrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            "dir" => Box::new(Dir.encrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            other => return Err(TenantError::UnknownAlgorithm(other.to_owned())),
        })
    }

    fn decrypter(&self, alg: &str, enc: &str) -> Result<Box<dyn JweDecrypter>, TenantError> {
        Ok(match alg {
            "RSA-OAEP" => Box::new(RSA_OAEP.decrypter_from_jwk(&self.rsa)?),
            "RSA-OAEP-256" => Box::new(RSA_OAEP_256.decrypter_from_jwk(&self.rsa)?),
            "ECDH-ES" => Box::new(ECDH_ES.decrypter_from_jwk(&self.ec)?),
            "ECDH-ES+A128KW" => Box::new(ECDH_ES_A128KW.decrypter_from_jwk(&self.ec)?),
            "ECDH-ES+A256KW" => Box::new(ECDH_ES_A256KW.decrypter_from_jwk(&self.ec)?),
            "A128KW" => Box::new(A128KW.decrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            "A256KW" => Box::new(A256KW.decrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            "dir" => Box::new(Dir.decrypter_from_bytes(self.symmetric_key(alg, enc)?)?),
            other => return Err(TenantError::UnknownAlgorithm(other.to_owned())),
        })
    }
}

/// A `dir` token of some other tenant: five parts like ours, but no key of ours opens it.
pub(crate) fn stranger_dir(issuer: &str, payload: &[u8]) -> Result<String, TenantError> {
    tenant_dir(issuer, payload, &random_bytes(32))
}

fn is_symmetric(alg: &str) -> bool {
    matches!(alg, "dir" | "A128KW" | "A256KW")
}

fn tenant_dir(issuer: &str, payload: &[u8], key: &[u8]) -> Result<String, TenantError> {
    let mut header = Map::new();
    header.insert("iss".to_owned(), json!(issuer));
    serialize("dir", "A256GCM", header, payload, &Dir.encrypter_from_bytes(key)?)
}

fn serialize(
    alg: &str,
    enc: &str,
    extra: Map<String, Value>,
    payload: &[u8],
    encrypter: &dyn JweEncrypter,
) -> Result<String, TenantError> {
    let mut header = Map::new();
    header.insert("alg".to_owned(), json!(alg));
    header.insert("enc".to_owned(), json!(enc));
    header.extend(extra);
    Ok(jwe::serialize_compact(payload, &JweHeader::from_map(header)?, encrypter)?)
}

fn pem(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
