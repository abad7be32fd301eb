//! Minting tokens: every shape Auth0 gives out, and those an attacker would make.
//!
//! A builder with Auth0's defaults, so that a test names only what it is about. Headers and claims are plain
//! JSON that is signed unchanged: a test may put anything into them, also what no honest issuer would.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::util::random_bytes;
use serde_json::{Map, Value, json};

use crate::error::TenantError;
use crate::jwe::{self, JweKeys};
use crate::keys;
use crate::lock;
use crate::state::State;

/// A token in the making; get one from [`Tenant::mint`](crate::Tenant::mint), end with
/// [`build`](Self::build).
///
/// By default it is an RS256 access token of `auth0|alice` for the tenant's audience and
/// `/userinfo`, issued now, good for a day, with scope `openid profile email`, a `jti` of its own, and no
/// email.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until build() is called"]
pub struct TokenBuilder {
    state: Arc<State>,
    shape: Shape,
    algorithm: String,
    hs_secret: Option<Vec<u8>>,
    signature: Signature,
    kid: Option<Option<String>>,
    headers: Map<String, Value>,
    subject: String,
    audience: Value,
    issuer: String,
    scope: Option<String>,
    expires_in: i64,
    not_before_in: Option<i64>,
    issued_ago: i64,
    claims: Map<String, Value>,
    removed: Vec<String>,
    payload: Option<Vec<u8>>,
    bare: bool,
    cty: bool,
    jwe_kid: Option<Option<String>>,
    jwe_headers: Map<String, Value>,
}

#[derive(Clone, Debug)]
enum Shape {
    Jws,
    Jwe { alg: String, enc: String },
    TenantDir,
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Tenant,
    Stranger,
    Missing,
}

impl TokenBuilder {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let issuer = state.issuer().to_owned();
        let audience = json!([state.audience(), format!("{issuer}userinfo")]);
        Self {
            state,
            shape: Shape::Jws,
            algorithm: "RS256".to_owned(),
            hs_secret: None,
            signature: Signature::Tenant,
            kid: None,
            headers: Map::new(),
            subject: "auth0|alice".to_owned(),
            audience,
            issuer,
            scope: Some("openid profile email".to_owned()),
            expires_in: 86_400,
            not_before_in: None,
            issued_ago: 0,
            claims: Map::new(),
            removed: Vec::new(),
            payload: None,
            bare: false,
            cty: true,
            jwe_kid: None,
            jwe_headers: Map::new(),
        }
    }

    /// Claim `sub`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Claim `aud` as one string.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Value::String(audience.into());
        self
    }

    /// Claim `aud` as a list.
    pub fn audiences<S: Into<String>>(mut self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.audience = audiences.into_iter().map(|audience| Value::String(audience.into())).collect();
        self
    }

    /// Claim `iss`; the tenant's own unless set.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = issuer.into();
        self
    }

    /// How the token is signed: RS256 (the default), RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    /// (Ed25519) or HS256, which needs [`hs_secret`](Self::hs_secret) and carries no `kid` unless one is set.
    pub fn algorithm(mut self, algorithm: impl Into<String>) -> Self {
        self.algorithm = algorithm.into();
        self
    }

    /// The secret for HS256, at least 32 bytes.
    pub fn hs_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.hs_secret = Some(secret.as_ref().to_vec());
        self
    }

    /// Header `kid`: another one, or none.
    pub fn kid(mut self, kid: Option<&str>) -> Self {
        self.kid = Some(kid.map(str::to_owned));
        self
    }

    /// Header `typ`; `JWT` unless set.
    pub fn typ(self, typ: impl Into<String>) -> Self {
        self.header("typ", typ.into())
    }

    /// Any member of the signed header, also `alg` or `crit`. The signature is still made with
    /// [`algorithm`](Self::algorithm).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Any claim; it replaces one of the same name.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Leaves a claim out, also one that is there by default.
    pub fn remove_claim(mut self, name: impl Into<String>) -> Self {
        self.removed.push(name.into());
        self
    }

    /// Claim `exp`, in seconds from now; negative for a token that has expired.
    pub fn expires_in(mut self, seconds: i64) -> Self {
        self.expires_in = seconds;
        self
    }

    /// Claim `nbf`, in seconds from now; absent unless set.
    pub fn not_before_in(mut self, seconds: i64) -> Self {
        self.not_before_in = Some(seconds);
        self
    }

    /// Claim `iat`, in seconds before now; negative for a token from the future.
    pub fn issued_ago(mut self, seconds: i64) -> Self {
        self.issued_ago = seconds;
        self
    }

    /// Claim `scope`, words separated by blanks.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Claims `email` and `email_verified: true` at the top.
    pub fn email_direct(self, email: impl Into<String>) -> Self {
        self.claim("email", email.into()).claim("email_verified", true)
    }

    /// Claim `user` with `email` and `email_verified: true` inside.
    pub fn email_nested(self, email: impl Into<String>) -> Self {
        self.claim("user", json!({ "email": email.into(), "email_verified": true }))
    }

    /// The email under a claim named by a URL, as an Auth0 Action sets it.
    pub fn email_namespaced(self, claim: impl Into<String>, email: impl Into<String>) -> Self {
        self.claim(claim, email.into())
    }

    /// Exactly these bytes in place of the claims, to be signed or encrypted as they are: for JSON that no
    /// serializer would write.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = Some(payload.as_ref().to_vec());
        self
    }

    /// Signed, then encrypted to the API's RSA key with RSA-OAEP-256 and A256GCM: Auth0's
    /// `compact-nested-jwe`.
    pub fn nested_jwe(self) -> Self {
        self.nested_jwe_with("RSA-OAEP-256", "A256GCM")
    }

    /// Signed, then encrypted. `alg`: RSA-OAEP, RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW,
    /// A128KW, A256KW or dir; `enc`: A128GCM, A256GCM, A128CBC-HS256 or A256CBC-HS512.
    pub fn nested_jwe_with(mut self, alg: impl Into<String>, enc: impl Into<String>) -> Self {
        self.shape = Shape::Jwe { alg: alg.into(), enc: enc.into() };
        self
    }

    /// Leaves out the encrypted token's `cty: JWT`.
    pub fn without_cty(mut self) -> Self {
        self.cty = false;
        self
    }

    /// The claims themselves encrypted, without a signature inside; RSA-OAEP-256 and A256GCM unless
    /// [`nested_jwe_with`](Self::nested_jwe_with) says otherwise.
    pub fn bare_jwe(mut self) -> Self {
        self.bare = true;
        if !matches!(self.shape, Shape::Jwe { .. }) {
            self = self.nested_jwe();
        }
        self
    }

    /// Header `kid` of the encrypted token: another one, or none.
    pub fn jwe_kid(mut self, kid: Option<&str>) -> Self {
        self.jwe_kid = Some(kid.map(str::to_owned));
        self
    }

    /// Any further member of the encrypted token's header, such as `zip`.
    pub fn jwe_header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.jwe_headers.insert(name.into(), value.into());
        self
    }

    /// Auth0's token without an audience: `{"alg":"dir","enc":"A256GCM","iss":…}`, an empty second part, and
    /// a key that only the tenant has. `/userinfo` accepts it.
    pub fn tenant_dir_jwe(mut self) -> Self {
        self.shape = Shape::TenantDir;
        self
    }

    /// A random string without any structure that `/userinfo` accepts.
    pub fn opaque(mut self) -> Self {
        self.shape = Shape::Opaque;
        self
    }

    /// Signed with a foreign key under the tenant's key id. A tenant `dir` token or an opaque one becomes a
    /// foreign tenant's: `/userinfo` refuses it.
    pub fn signed_by_stranger(mut self) -> Self {
        self.signature = Signature::Stranger;
        self
    }

    /// `alg: none` and an empty signature (RFC 8725 §2.1).
    pub fn unsigned(mut self) -> Self {
        self.signature = Signature::Missing;
        self
    }

    /// The token.
    ///
    /// # Errors
    /// If the algorithm is unknown, HS256 has no secret, or the JOSE library refuses.
    pub fn build(&self) -> Result<String, TenantError> {
        match &self.shape {
            Shape::Jws => self.sign(),
            Shape::Jwe { alg, enc } => self.encrypt(alg, enc),
            Shape::TenantDir if self.signature == Signature::Tenant => {
                self.state.jwe.seal_for_tenant(&self.issuer, &self.claims_json()?)
            }
            Shape::TenantDir => jwe::stranger_dir(&self.issuer, &self.claims_json()?),
            Shape::Opaque => Ok(self.hand_out_opaque()),
        }
    }

    fn sign(&self) -> Result<String, TenantError> {
        let kid = match &self.kid {
            Some(kid) => kid.clone(),
            None => lock(&self.state.keys).kid(&self.algorithm),
        };
        let alg = if self.signature == Signature::Missing { "none" } else { &self.algorithm };
        let mut header = Map::new();
        header.insert("alg".to_owned(), json!(alg));
        header.insert("typ".to_owned(), json!("JWT"));
        if let Some(kid) = kid {
            header.insert("kid".to_owned(), json!(kid));
        }
        header.extend(self.headers.clone());

        let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(self.claims_json()?, &mut token);
        let signature = self.signature_of(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn signature_of(&self, message: &[u8]) -> Result<Vec<u8>, TenantError> {
        let signer = match (self.signature, self.algorithm.as_str()) {
            (Signature::Missing, _) => return Ok(Vec::new()),
            (Signature::Stranger, "HS256") => keys::hmac_signer(&random_bytes(32))?,
            (Signature::Stranger, algorithm) => keys::stranger_signer(algorithm)?,
            (Signature::Tenant, "HS256") => {
                let secret = self.hs_secret.as_ref().ok_or(TenantError::MissingSecret)?;
                self.state.remember_hs_secret(secret);
                keys::hmac_signer(secret)?
            }
            (Signature::Tenant, algorithm) => lock(&self.state.keys).signer(algorithm)?,
        };
        Ok(signer.sign(message)?)
    }

    fn encrypt(&self, alg: &str, enc: &str) -> Result<String, TenantError> {
        let kid = self.jwe_kid.clone().unwrap_or_else(|| Some(JweKeys::kid(alg, enc)));
        let mut header = Map::new();
        if let Some(kid) = kid {
            header.insert("kid".to_owned(), json!(kid));
        }
        if self.cty && !self.bare {
            header.insert("cty".to_owned(), json!("JWT"));
        }
        header.extend(self.jwe_headers.clone());
        let payload = if self.bare { self.claims_json()? } else { self.sign()?.into_bytes() };
        self.state.jwe.seal(alg, enc, header, &payload)
    }

    fn hand_out_opaque(&self) -> String {
        let token = URL_SAFE_NO_PAD.encode(random_bytes(24));
        if self.signature == Signature::Tenant {
            lock(&self.state.opaque).insert(token.clone(), self.claims_map());
        }
        token
    }

    fn claims_json(&self) -> Result<Vec<u8>, TenantError> {
        match &self.payload {
            Some(payload) => Ok(payload.clone()),
            None => Ok(serde_json::to_vec(&self.claims_map())?),
        }
    }

    fn claims_map(&self) -> Map<String, Value> {
        let now = i64::try_from(self.state.now()).unwrap_or(i64::MAX);
        let mut claims = Map::new();
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("iss", json!(self.issuer));
        put("sub", json!(self.subject));
        put("aud", self.audience.clone());
        put("iat", json!(now.saturating_sub(self.issued_ago)));
        put("exp", json!(now.saturating_add(self.expires_in)));
        if let Some(seconds) = self.not_before_in {
            put("nbf", json!(now.saturating_add(seconds)));
        }
        if let Some(scope) = &self.scope {
            put("scope", json!(scope));
        }
        put("azp", json!("dev-client"));
        put("jti", json!(URL_SAFE_NO_PAD.encode(random_bytes(16))));
        claims.extend(self.claims.clone());
        for name in &self.removed {
            claims.shift_remove(name);
        }
        claims
    }
}
