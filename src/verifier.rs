//! Verifies a token by its format, and returns its claims. Cheap checks run first, cryptography runs on its
//! own thread pool, and keys come from the issuer.
//!
//! ```text
//! JWS ─────────────────────────────▶ issuer by `iss` ─▶ alg allowed? ─▶ keys by `kid` ─▶ signature ─▶ claims
//! JWE ─▶ do we hold a key? ─▶ open ─▶ nested JWS: as above
//!                  │                └▶ bare claims: refused under a public key, by option under a shared one
//!                  └ no ─▶ foreign: only the issuer can verify it
//! opaque ────────────────▶ foreign
//! ```
//!
//! Threads that answer requests never parse untrusted claims. Before the signature is verified, only the
//! headers are read and `iss` is searched, both within bounds. The thread pool does the rest, and parses the
//! claims only after the signature is verified.

mod issuers;
mod resolved;
mod sealed;
pub mod settings;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use self::resolved::ResolvedJws;
use self::sealed::Content;
use self::settings::PolicySettings;
use crate::clock::Clock;
use crate::issuer::settings::ForeignTokens;
use crate::issuer::{CannotTell, Issuer, KeyLookup};
use crate::token::binding::Binding;
use crate::token::claims::{AuthenticatedPayload, Expected, VerifiedClaims};
use crate::token::compact::{Compact, Malformed, UnopenedJwe};
use crate::token::jwe::{DecryptionKeys, JweError, KeyFileError};
use crate::token::jws::{self, TokenUse};
use crate::token::pool::{Pool, PoolError};
use crate::token::refusal::Refusal;

pub use self::issuers::Issuers;

/// What verification found.
pub enum Verified {
    /// The claims were verified here.
    Local {
        /// The issuer of the token.
        issuer: Arc<Issuer>,
        /// The claims.
        claims: VerifiedClaims,
        /// `kid`: the key that signed the token, if the header names it.
        kid: Option<String>,
        /// Whether its header says that it is an access token: `typ` is `at+jwt`.
        at_jwt: bool,
        /// What the token is bound to.
        binding: Binding,
    },
    /// Only the issuer can verify the token.
    Foreign {
        /// The issuer to ask.
        issuer: Arc<Issuer>,
        /// Why the token cannot be verified here.
        why: NotLocal,
    },
}

impl Verified {
    /// Why only the issuer can verify the token; `None` if it was verified here.
    #[must_use]
    pub fn not_here(&self) -> Option<&NotLocal> {
        match self {
            Self::Local { .. } => None,
            Self::Foreign { why, .. } => Some(why),
        }
    }
}

/// Why a token cannot be verified here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLocal {
    /// It is neither a JWS nor a JWE: it has no parts.
    Opaque,
    /// It is a JWE, and none of our keys can decrypt it.
    Sealed(JweError),
}

impl NotLocal {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Sealed(error) => error.reason(),
        }
    }
}

impl fmt::Display for NotLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opaque => f.write_str("it is opaque, a reference that only its issuer can resolve"),
            Self::Sealed(error) => error.fmt(f),
        }
    }
}

/// Why verification failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The token is refused. This is definitive.
    #[error("{0}")]
    No(#[from] Refusal),
    /// The token can be neither accepted nor refused now.
    #[error("{0}")]
    CannotTell(#[from] CannotTell),
}

impl Failure {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::No(refusal) => refusal.reason(),
            Self::CannotTell(error) => error.reason(),
        }
    }
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

/// Verifies tokens of the configured issuers.
pub struct Verifier {
    issuers: Issuers,
    /// The keys of all issuers.
    keys: DecryptionKeys,
    policy: PolicySettings,
    pool: Pool,
    clock: Clock,
}

impl Verifier {
    /// Creates a verifier for tokens of these issuers.
    ///
    /// # Errors
    /// [`KeyFileError`], if the issuers together have more decryption keys than may be tried for one token.
    pub fn new(
        issuers: Issuers,
        policy: PolicySettings,
        pool: Pool,
        clock: Clock,
    ) -> Result<Self, KeyFileError> {
        let keys = DecryptionKeys::union(issuers.iter().map(|issuer| issuer.decryption_keys()))?;
        Ok(Self { issuers, keys, policy, pool, clock })
    }

    /// Verifies `token`.
    ///
    /// # Errors
    /// [`Failure`]: the token is refused, or the keys are not available.
    pub async fn verify(&self, token: &str) -> Result<Verified, Failure> {
        match Compact::parse(token)? {
            Compact::Jws(jws) => {
                self.verify_jws(ResolvedJws::new(&jws, token, TokenUse::Access, &self.issuers)?).await
            }
            Compact::Jwe(jwe) => self.verify_jwe(&jwe).await,
            Compact::Opaque => self.foreign(None, NotLocal::Opaque),
        }
    }

    /// The keys to try on a JWE: the keys of the issuer that `iss` in its header names, or the keys of all
    /// issuers if there is no `iss`.
    ///
    /// # Errors
    /// [`Refusal::IssuerUnknown`].
    pub fn keys_for(&self, iss: Option<&str>) -> Result<(Option<&Arc<Issuer>>, &DecryptionKeys), Refusal> {
        let named = iss.map(|name| self.issuers.named(Some(name))).transpose()?;
        Ok((named, named.map_or(&self.keys, |issuer| issuer.decryption_keys())))
    }

    /// Verifies the signature of a logout token, and returns its issuer and payload. Encrypted logout tokens
    /// are refused: an issuer sends them only by agreement.
    ///
    /// # Errors
    /// [`Failure`]: the token is refused, or the keys are not available.
    pub async fn verify_logout(&self, token: &str) -> Result<(Arc<Issuer>, AuthenticatedPayload), Failure> {
        let Compact::Jws(jws) = Compact::parse(token)? else {
            return Err(Refusal::NotALogoutToken("it is not a signed JWT").into());
        };
        let jws = ResolvedJws::new(&jws, token, TokenUse::Logout, &self.issuers)?;
        let issuer = jws.issuer.clone();
        Ok((issuer, self.authenticated(jws).await?))
    }

    async fn verify_jws(&self, jws: ResolvedJws) -> Result<Verified, Failure> {
        let (issuer, header) = (jws.issuer.clone(), (jws.kid.clone(), jws.at_jwt));
        self.check(issuer, self.authenticated(jws).await?, header)
    }

    async fn authenticated(&self, jws: ResolvedJws) -> Result<AuthenticatedPayload, Failure> {
        let ResolvedJws { issuer, algorithm, kid, token, .. } = jws;
        let keys = match issuer.keys_for(kid.as_deref(), algorithm).await? {
            KeyLookup::Found(keys) => keys,
            KeyLookup::Unknown => return Err(Refusal::KeyUnknown.into()),
            KeyLookup::Unfit => return Err(Refusal::KeyUnfit.into()),
        };
        let vouched = self.pool.run(move || {
            let (signing_input, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
            jws::verify_by_any(signing_input, signature, keys.iter().map(|key| &**key), algorithm)
        });
        Ok(vouched.await??)
    }

    /// Verifies a JWE. The header alone mostly shows that a token cannot be decrypted. Only the other tokens
    /// use the thread pool.
    async fn verify_jwe(&self, jwe: &UnopenedJwe<'_>) -> Result<Verified, Failure> {
        let (named, keys) = self.keys_for(jwe.header.iss.as_deref())?;
        let content = match keys.can_open(&jwe.header) {
            Ok(()) => {
                let (keys, token) = (keys.clone(), jwe.token.to_owned());
                let of =
                    named.map_or_else(|| self.issuers.clone(), |issuer| Issuers::new(vec![issuer.clone()]));
                self.pool.run(move || sealed::open(&token, &keys, &of)).await?
            }
            Err(error) => Err(Refusal::Jwe(error)),
        };
        match content {
            Ok(Content::Signed(jws)) => self.verify_jws(jws).await,
            Ok(Content::Authenticated(issuer, claims)) => self.check(issuer, claims, (None, false)),
            Err(Refusal::Jwe(error @ JweError::NoKey { .. })) => self.foreign(named, NotLocal::Sealed(error)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn check(
        &self,
        issuer: Arc<Issuer>,
        vouched: AuthenticatedPayload,
        (kid, at_jwt): (Option<String>, bool),
    ) -> Result<Verified, Failure> {
        let grace = self.policy.expired_grace;
        let expected = Expected {
            issuer: issuer.name(),
            aliases: &issuer.settings().aliases,
            audience: &issuer.settings().audience,
            leeway: self.policy.leeway,
            grace: issuer.open_since().map(|since| (grace, since)),
        };
        let claims = VerifiedClaims::check(vouched, expected, self.clock.now())?;
        let binding = Binding::of(claims.all(), issuer.settings().sender_constrained)?;
        Ok(Verified::Local { issuer, claims, kid, at_jwt, binding })
    }

    /// The result for a foreign token. `iss` in the header only selects one of the configured issuers. A URL
    /// from a token is never called.
    fn foreign(&self, named: Option<&Arc<Issuer>>, why: NotLocal) -> Result<Verified, Failure> {
        let Some(issuer) = named.or_else(|| self.issuers.iter().next()) else {
            return Err(self.issuers.unknown().into());
        };
        match issuer.settings().foreign_tokens {
            ForeignTokens::AskIssuer => Ok(Verified::Foreign { issuer: issuer.clone(), why }),
            ForeignTokens::Refuse => Err(Refusal::ForeignRefused { why: why.to_string() }.into()),
        }
    }
}
