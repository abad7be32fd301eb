//! OpenID Connect Back-Channel Logout 1.0: the issuer reports a logout, and the user's tokens are refused.
//!
//! The logout token decides what is revoked:
//!
//! - It names only a session: the tokens of this session.
//! - It names a session and a subject: the tokens of this session, and the subject's tokens that name no
//!   session, because the session of such a token is not known.
//! - It names only a subject: all tokens of the subject.
//!
//! In each case only tokens issued at or before the `iat` of the logout token are revoked, so a repetition
//! changes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::{Clock, Timestamp};
use crate::issuer::Issuer;
use crate::revocation::RevocationKey;
use crate::revocation::settings::LogoutSettings;
use crate::store::revocations::{NotStored, Revocations, Source};
use crate::store::target::{Target, label};
use crate::tiers::digest::TokenDigester;
use crate::token::logout::LogoutToken;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verifier};

/// The most logout tokens that are checked at once. They share threads with the checks of other tokens, and
/// must not occupy all of them.
const AT_ONCE: usize = 4;

/// The most bodies that are read at once. Anybody can send one slowly, and each takes up to 64 KiB meanwhile.
const BODIES: usize = 256;

/// The most `jti`s that are remembered. Each belongs to a token that an issuer signed. It may be forgotten
/// when the token expires.
const MAX_IDS: usize = 100_000;

/// What all logout requests share.
pub struct LogoutContext<'c> {
    /// Verifies the logout token.
    pub verifier: &'c Verifier,
    /// Where the logout takes effect.
    pub revocations: &'c Revocations,
    /// Makes the keys of subjects and sessions.
    pub digester: &'c TokenDigester,
    /// The clock.
    pub clock: &'c Clock,
    /// Tolerated clock skew.
    pub leeway: Duration,
    /// How long deny records are kept.
    pub keep: Duration,
}

/// The logouts of one configuration.
pub struct BackchannelLogout {
    settings: LogoutSettings,
    bodies: Semaphore,
    permits: Semaphore,
    /// The `jti`s of logout tokens that took effect, and when each may be forgotten.
    ids: Mutex<HashMap<String, Timestamp>>,
}

/// Why a logout fails.
#[derive(Debug, Error)]
pub enum LogoutError {
    /// The logout token is not valid.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The same logout token took effect before.
    #[error("the logout token was received before")]
    Repeated,
    /// The logout token cannot be checked now.
    #[error("the logout token cannot be checked now: {0}")]
    CannotTell(String),
    /// Too many logout tokens are being checked.
    #[error("{AT_ONCE} logout tokens are being checked already")]
    Busy,
    /// The logout is in force on this instance, but no store could write it.
    #[error("the logout is in force, but {0}")]
    NotStored(NotStored),
}

impl BackchannelLogout {
    /// Receives logouts by these settings.
    #[must_use]
    pub fn new(settings: LogoutSettings) -> Self {
        Self {
            settings,
            bodies: Semaphore::new(BODIES),
            permits: Semaphore::new(AT_ONCE),
            ids: Mutex::default(),
        }
    }

    /// A permit to read one body; drop it when the body is read. `None` if too many bodies are being read.
    #[must_use]
    pub fn try_read(&self) -> Option<SemaphorePermit<'_>> {
        self.bodies.try_acquire().ok()
    }

    /// Checks a logout token, and returns when the logout is in force and stored.
    ///
    /// # Errors
    /// [`LogoutError`].
    pub async fn receive(&self, token: &str, with: LogoutContext<'_>) -> Result<(), LogoutError> {
        let (issuer, logout) = {
            let _permit = self.permits.try_acquire().map_err(|_| LogoutError::Busy)?;
            let vouched = with.verifier.verify_logout(token).await;
            let (issuer, payload) = vouched.map_err(|failure| match failure {
                Failure::No(refusal) => LogoutError::Refused(refusal),
                Failure::CannotTell(error) => LogoutError::CannotTell(error.to_string()),
            })?;
            let now = with.clock.now();
            let logout = LogoutToken::check(payload, &self.settings.audience, with.leeway, now)?;
            (issuer, logout)
        };
        let id = format!("{} {}", issuer.name(), logout.id);
        if self.was_received(&id) {
            return Err(LogoutError::Repeated);
        }
        let targets = targets(&issuer, &logout, with.digester);
        let kept =
            with.revocations.revoke(targets, logout.issued_at, with.keep, Source::BackchannelLogout).await;
        match kept {
            // At least one store has the logout, so it is not lost.
            Ok(()) | Err(NotStored::Pending(..)) => {
                self.remember(id, logout.not_after, with.clock.now());
                Ok(())
            }
            Err(not_stored @ NotStored::Nowhere(_)) => Err(LogoutError::NotStored(not_stored)),
        }
    }

    fn was_received(&self, id: &str) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    fn remember(&self, id: String, until: Timestamp, now: Timestamp) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MAX_IDS {
            ids.retain(|_, until| *until > now);
        }
        if ids.len() < MAX_IDS {
            ids.insert(id, until);
        }
    }
}

fn targets(issuer: &Issuer, logout: &LogoutToken, digester: &TokenDigester) -> Vec<Target> {
    let name = &**issuer.name();
    let target = |key: &dyn Fn(&TokenDigester) -> RevocationKey, what: &str| {
        Target::of(digester, key, label(what, name))
    };
    let session = logout
        .session
        .as_ref()
        .map(|session| target(&|by| RevocationKey::session(by, name, session), session));
    let subject = logout.subject.as_ref().map(|subject| match session {
        Some(_) => target(&|by| RevocationKey::sessionless(&by.subject(name, subject)), subject),
        None => target(&|by| RevocationKey::subject(&by.subject(name, subject)), subject),
    });
    session.into_iter().chain(subject).collect()
}
