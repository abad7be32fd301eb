//! Senders that make DPoP proofs, good ones and all that must not pass.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jwk::alg::ec::EcCurve;
use josekit::jws::{ES256, JwsSigner};
use serde_json::{Map, Value, json};

/// base64url of the SHA-256 digest.
pub fn sha256(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(openssl::sha::sha256(bytes))
}

/// A sender with a key of its own, on P-256.
pub struct Prover(Jwk);

/// A proof in the making: change its parts, then [`Proof::sign`].
pub struct Proof<'p> {
    prover: &'p Prover,
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
}

impl Prover {
    pub fn new() -> Self {
        Self(Jwk::generate_ec_key(EcCurve::P256).unwrap())
    }

    /// The private key.
    pub fn private(&self) -> Value {
        Value::Object(self.0.clone().into())
    }

    /// The public key.
    pub fn public(&self) -> Value {
        Value::Object(self.0.to_public_key().unwrap().into())
    }

    /// `cnf` of a token that is bound to the key (RFC 9449 §6.1, RFC 7638).
    pub fn cnf(&self) -> Value {
        let key = self.public();
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, key["x"], key["y"]);
        json!({ "jkt": sha256(members.as_bytes()) })
    }

    /// A good proof for a request with this token at this time. Each has an id of its own.
    pub fn proof(&self, token: &str, method: &str, url: &str, now: u64) -> Proof<'_> {
        let id = URL_SAFE_NO_PAD.encode(josekit::util::random_bytes(16));
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.public() });
        let ath = sha256(token.as_bytes());
        let claims = json!({ "jti": id, "htm": method, "htu": url, "iat": now, "ath": ath });
        let object = |value| if let Value::Object(object) = value { object } else { unreachable!() };
        Proof { prover: self, header: object(header), claims: object(claims) }
    }

    fn signer(&self) -> Box<dyn JwsSigner> {
        Box::new(ES256.signer_from_jwk(&self.0).unwrap())
    }
}

impl Proof<'_> {
    /// With this claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// With this header parameter.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Without this claim.
    pub fn without_claim(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Without this header parameter.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signed by the key of its prover.
    pub fn sign(&self) -> String {
        self.sign_with(&*self.prover.signer())
    }

    /// Signed in another way.
    pub fn sign_with(&self, signer: &dyn JwsSigner) -> String {
        let part =
            |part: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(part.clone()).to_string());
        let input = format!("{}.{}", part(&self.header), part(&self.claims));
        let signature = signer.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
