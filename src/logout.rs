//! OpenID Connect Back-Channel Logout 1.0: the issuer says that somebody was logged out, and their tokens are
//! refused.
//!
//! What is revoked: if the logout token names a session, the tokens of this session. If it names a subject as
//! well, the subject's tokens that name no session, too: the session of such a token is not known. If it
//! names only a subject, all tokens of the subject. In each case only tokens issued at or before the `iat` of
//! the logout token, so a repetition changes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::{Clock, Timestamp};
use crate::issuer::Issuer;
use crate::revocation::RevocationKey;
use crate::revocation::settings::LogoutSettings;
use crate::store::revocations::{Revocations, Source, Target, Unkept};
use crate::tiers::digest::TokenDigester;
use crate::token::logout::LogoutToken;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verifier};

/// How many logout tokens are checked at once. Their checks share threads with those of other tokens, and
/// must not fill them.
const AT_ONCE: usize = 4;

/// How many bodies are read at once. Anybody can send one slowly, and each takes up to 64 KiB while it comes.
const BODIES: usize = 256;

/// The most `jti`s that are remembered. Each is of a token that an issuer signed, and is forgotten when that
/// expires.
const MAX_IDS: usize = 100_000;

/// What is the same in every request for a logout.
pub struct LogoutContext<'c> {
    /// Verifies the logout token.
    pub verifier: &'c Verifier,
    /// Where it takes effect.
    pub revocations: &'c Revocations,
    /// Makes keys of subjects and sessions.
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
    turns: Semaphore,
    /// The `jti`s that took effect, and when they are forgotten.
    ids: Mutex<HashMap<String, Timestamp>>,
}

/// Why nobody is logged out.
#[derive(Debug, Error)]
pub enum LogoutError {
    /// The logout token is no good.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The same logout token took effect before.
    #[error("the logout token was received before")]
    Repeated,
    /// Whether it is good cannot be told now.
    #[error("the logout token cannot be checked now: {0}")]
    CannotTell(String),
    /// Too many are checked at once.
    #[error("{AT_ONCE} logout tokens are checked already")]
    Busy,
    /// It took effect here, and no store could keep it.
    #[error("the logout is in force, but {0}")]
    Unkept(Unkept),
}

impl BackchannelLogout {
    /// With these settings.
    #[must_use]
    pub fn new(settings: LogoutSettings) -> Self {
        Self {
            settings,
            bodies: Semaphore::new(BODIES),
            turns: Semaphore::new(AT_ONCE),
            ids: Mutex::default(),
        }
    }

    /// Leave to read one body, until it is dropped; `None` if too many are read already.
    #[must_use]
    pub fn try_read(&self) -> Option<SemaphorePermit<'_>> {
        self.bodies.try_acquire().ok()
    }

    /// Checks a logout token, and returns when the logout is in force and kept.
    ///
    /// # Errors
    /// [`LogoutError`].
    pub async fn receive(&self, token: &str, with: LogoutContext<'_>) -> Result<(), LogoutError> {
        let (issuer, logout) = {
            let _turn = self.turns.try_acquire().map_err(|_| LogoutError::Busy)?;
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
            // One store has it: the logout is not lost.
            Ok(()) | Err(Unkept::Later(..)) => {
                self.remember(id, logout.not_after, with.clock.now());
                Ok(())
            }
            Err(unkept @ Unkept::Nowhere(_)) => Err(LogoutError::Unkept(unkept)),
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
    let target = |key, what: &str| Target { key, label: format!("{what} of {name}") };
    let session = logout
        .session
        .as_ref()
        .map(|session| target(RevocationKey::session(digester, name, session), session));
    let subject = logout.subject.as_ref().map(|subject| {
        let key = digester.subject(name, subject);
        match session {
            Some(_) => target(RevocationKey::sessionless(&key), subject),
            None => target(RevocationKey::subject(&key), subject),
        }
    });
    session.into_iter().chain(subject).collect()
}
