//! Token → verified claims, by its format. Cheap checks first, cryptography on its pool, keys from the issuer.
//!
//! ```text
//! JWS ─────────────────────────────▶ issuer by `iss` ─▶ alg allowed? ─▶ key by `kid` ─▶ signature ─▶ claims
//! JWE ─▶ do we hold a key? ─▶ open ─▶ nested JWS: as above
//!                  │                └▶ bare claims: refused under a public key, by option under a shared one
//!                  └ no ─▶ foreign: only the issuer can judge it
//! opaque ────────────────▶ foreign
//! ```

use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::config::{ForeignTokens, PolicySettings};
use crate::issuer::jwks::Lookup;
use crate::issuer::{CannotTell, Issuer, KeyLookup};
use crate::token::claims::{Expected, VerifiedClaims, VouchedPayload};
use crate::token::compact::{Compact, Malformed, UnopenedJwe, UnverifiedJws};
use crate::token::jwe::{JweError, Opened, SealedWith};
use crate::token::jws;
use crate::token::pool::{Pool, PoolError};
use crate::token::refusal::Refusal;

/// What verification found.
pub enum Verified {
    /// The claims were verified here.
    Local {
        /// Whose token it is.
        issuer: Arc<Issuer>,
        /// The claims.
        claims: VerifiedClaims,
    },
    /// Only the issuer can judge the token.
    Foreign {
        /// Who is to be asked.
        issuer: Arc<Issuer>,
        /// Why it cannot be judged here.
        why: String,
    },
}

/// Why nothing was verified.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// A definitive no.
    #[error("{0}")]
    No(#[from] Refusal),
    /// Neither yes nor no.
    #[error("{0}")]
    CannotTell(#[from] CannotTell),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::No(malformed.into())
    }
}

impl From<PoolError> for Failure {
    fn from(_: PoolError) -> Self {
        Self::CannotTell(CannotTell::Busy)
    }
}

/// The configured issuers; at least one.
#[derive(Clone)]
pub struct Issuers(Vec<Arc<Issuer>>);

impl Issuers {
    /// Takes the issuers in the order of the configuration; the first is asked about tokens that name none.
    #[must_use]
    pub fn new(issuers: Vec<Arc<Issuer>>) -> Self {
        Self(issuers)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.0.iter()
    }

    /// The issuer of exactly this URL.
    ///
    /// # Errors
    /// [`Refusal::IssuerUnknown`].
    pub fn named(&self, name: Option<&str>) -> Result<&Arc<Issuer>, Refusal> {
        let found = self.0.iter().find(|issuer| Some(&**issuer.name()) == name);
        found.ok_or_else(|| Refusal::IssuerUnknown {
            configured: self.0.iter().map(|issuer| &**issuer.name()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Verifies tokens of the configured issuers.
pub struct Verifier {
    issuers: Issuers,
    policy: PolicySettings,
    pool: Pool,
    clock: Clock,
}

impl Verifier {
    /// A verifier of these issuers' tokens.
    #[must_use]
    pub fn new(issuers: Issuers, policy: PolicySettings, pool: Pool, clock: Clock) -> Self {
        Self { issuers, policy, pool, clock }
    }

    /// Verifies `token`.
    ///
    /// # Errors
    /// [`Failure`]: a definitive no, or keys that could not be had.
    pub async fn verify(&self, token: &str) -> Result<Verified, Failure> {
        match Compact::parse(token)? {
            Compact::Jws(jws) => self.verify_jws(&jws, None).await,
            Compact::Jwe(jwe) => self.verify_jwe(&jwe).await,
            Compact::Opaque => {
                self.foreign(None, "it is opaque, a reference that only its issuer can resolve")
            }
        }
    }

    /// Verifies a JWS; one that was nested must be of the issuer whose key opened it.
    async fn verify_jws(
        &self,
        jws: &UnverifiedJws<'_>,
        opened_by: Option<&Arc<Issuer>>,
    ) -> Result<Verified, Failure> {
        let claims = jws::read_claims(jws)?;
        let issuer = self.issuers.named(claims.issuer())?;
        if opened_by.is_some_and(|opener| !Arc::ptr_eq(opener, issuer)) {
            let configured = opened_by.map(|opener| opener.name().to_string()).unwrap_or_default();
            return Err(Refusal::IssuerUnknown { configured }.into());
        }
        let algorithm = jws::allowed_algorithm(jws, &issuer.settings().algorithms)?;
        let kid = jws.header.kid.clone();
        let keys = match issuer.with_key(kid.as_deref(), algorithm, Arc::clone).await? {
            KeyLookup::Found(keys) => keys,
            KeyLookup::Unknown => return Err(Refusal::KeyUnknown.into()),
            KeyLookup::Unfit => return Err(Refusal::KeyUnfit.into()),
        };
        let (signing_input, signature) = (jws.signing_input.to_owned(), jws.signature.to_owned());
        let vouched = self
            .pool
            .run(move || match keys.find(kid.as_deref(), algorithm) {
                Lookup::Found(key) => jws::verify(&signing_input, &signature, claims, key, algorithm),
                Lookup::Unfit => Err(Refusal::KeyUnfit),
                Lookup::Unknown => Err(Refusal::KeyUnknown),
            })
            .await??;
        self.check(issuer, vouched)
    }

    async fn verify_jwe(&self, jwe: &UnopenedJwe<'_>) -> Result<Verified, Failure> {
        let named = match &jwe.header.iss {
            Some(name) => Some(self.issuers.named(Some(name))?),
            None => None,
        };
        let mut why = None;
        for issuer in
            self.issuers.iter().filter(|issuer| named.is_none_or(|named| Arc::ptr_eq(named, issuer)))
        {
            match self.open(issuer, jwe).await {
                Ok(opened) => return self.judge_content(issuer, opened).await,
                Err(Failure::No(Refusal::Jwe(error @ JweError::NoKey { .. }))) => {
                    why = Some(error.to_string())
                }
                Err(failure) => return Err(failure),
            }
        }
        self.foreign(named, why.as_deref().unwrap_or("no decryption key is configured"))
    }

    /// The header alone mostly tells that a token cannot be opened; only the rest is worth a place in the pool.
    async fn open(&self, issuer: &Arc<Issuer>, jwe: &UnopenedJwe<'_>) -> Result<Opened, Failure> {
        issuer.decryption_keys().can_open(&jwe.header).map_err(Refusal::Jwe)?;
        let (issuer, token) = (issuer.clone(), jwe.token.to_owned());
        let opened = self
            .pool
            .run(move || match Compact::parse(&token) {
                Ok(Compact::Jwe(jwe)) => issuer.decryption_keys().open(&jwe).map_err(Refusal::Jwe),
                Ok(_) => Err(Malformed::Parts.into()),
                Err(malformed) => Err(malformed.into()),
            })
            .await??;
        Ok(opened)
    }

    /// **A JWE sealed to a public key proves nothing about its sender**: everybody has that key. What is in it must be
    /// a JWS that verifies. Under a key that only the issuer and we hold, the seal itself vouches for bare claims, if
    /// the configuration says that the issuer makes such tokens. Auth0 leaves out `cty`, so the content tells its form.
    async fn judge_content(&self, issuer: &Arc<Issuer>, opened: Opened) -> Result<Verified, Failure> {
        let content = std::str::from_utf8(&opened.payload).map_err(|_| Malformed::Parts)?;
        if content.trim_start().starts_with('{') {
            return match opened.sealed_with {
                SealedWith::PublicKey => Err(Refusal::BareClaims.into()),
                SealedWith::SharedKey if !issuer.settings().bare_claims => {
                    Err(Refusal::BareClaimsNotAllowed.into())
                }
                SealedWith::SharedKey => self.check(issuer, jws::vouched_by_shared_key(content.as_bytes())?),
            };
        }
        match Compact::parse(content)? {
            Compact::Jws(jws) => Box::pin(self.verify_jws(&jws, Some(issuer))).await,
            Compact::Jwe(_) => Err(Refusal::NestedTooDeep.into()),
            Compact::Opaque => Err(Malformed::Parts.into()),
        }
    }

    fn check(&self, issuer: &Arc<Issuer>, vouched: VouchedPayload) -> Result<Verified, Failure> {
        let grace = self.policy.expired_grace;
        let expected = Expected {
            issuer: issuer.name(),
            audience: &issuer.settings().audience,
            leeway: self.policy.leeway,
            grace: issuer.open_since().map(|since| (grace, since)),
        };
        let claims = VerifiedClaims::check(vouched, expected, self.clock.now())?;
        Ok(Verified::Local { issuer: issuer.clone(), claims })
    }

    /// `iss` in the header only selects among the configured issuers; no URL of a token is ever called.
    fn foreign(&self, named: Option<&Arc<Issuer>>, why: &str) -> Result<Verified, Failure> {
        let Some(issuer) = named.or_else(|| self.issuers.iter().next()) else {
            return Err(Refusal::IssuerUnknown { configured: String::new() }.into());
        };
        match issuer.settings().foreign_tokens {
            ForeignTokens::AskIssuer => Ok(Verified::Foreign { issuer: issuer.clone(), why: why.to_owned() }),
            ForeignTokens::Refuse => Err(Refusal::ForeignRefused { why: why.to_owned() }.into()),
        }
    }
}
