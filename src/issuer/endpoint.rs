//! One endpoint of one issuer, behind its guard: the only way a call leaves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use thiserror::Error;
use tracing::{info, warn};
use url::Url;

use super::client::{CallError, Client, Reply};
use crate::clock::{Clock, Timestamp};
use crate::guard::breaker::{State, Transition};
use crate::guard::{
    Admission, Allowance, CallOutcome, ForcedState, Guard, GuardSettings, GuardStatus, Priority,
    SingleflightError, SubjectKey, Suppressed, retry_after,
};
use crate::telemetry::metrics::Metrics;

/// Neither yes nor no can be known now. Answered from older tiers, else told to the client as 503.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotTell {
    /// The call was not made.
    #[error("{0}")]
    Suppressed(#[from] Suppressed),
    /// The call failed.
    #[error("{0}")]
    Failed(#[from] CallError),
    /// The issuer says that too many calls were made.
    #[error("the issuer answered 429, too many requests; ask again in {} s", .retry_after.as_secs())]
    RateLimited {
        /// When to ask again.
        retry_after: Duration,
    },
    /// A status that says nothing about the token.
    #[error("the issuer answered with status {0}")]
    Status(u16),
    /// An answer that is not what it should be.
    #[error("the issuer's answer makes no sense: {0}")]
    Garbage(&'static str),
    /// The call was shared with others, and gave nothing.
    #[error("{0}")]
    Shared(#[from] SingleflightError),
    /// The pool for first-sight work is full.
    #[error("too many tokens wait for their first check; ask again shortly")]
    Busy,
    /// The issuer's keys are not known yet.
    #[error("the issuer's keys are not known yet: {0}")]
    NoKeys(String),
}

impl CannotTell {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Suppressed(suppressed) => suppressed.reason.as_str(),
            Self::Failed(error) => error.reason(),
            Self::RateLimited { .. } => "rate_limited",
            Self::Status(_) => "upstream_status",
            Self::Garbage(_) => "garbage",
            Self::Shared(error) => error.reason(),
            Self::Busy => "busy",
            Self::NoKeys(_) => "no_keys",
        }
    }

    /// When it is worth asking again; at least a second, at most five minutes.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let wait = match self {
            Self::Suppressed(suppressed) => suppressed.retry_after,
            Self::RateLimited { retry_after } => *retry_after,
            Self::Busy | Self::Shared(_) => Duration::from_secs(1),
            Self::Failed(_) | Self::Status(_) | Self::Garbage(_) | Self::NoKeys(_) => Duration::from_secs(5),
        };
        retry_after::bounded(wait)
    }
}

/// An endpoint with its guard and its labels.
#[derive(Clone)]
pub struct Endpoint {
    issuer: Arc<str>,
    name: &'static str,
    client: Client,
    guard: Guard,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Since when the breaker is not closed. Locked while a transition is told, see [`Endpoint::tell`].
    open_since: Arc<Mutex<Option<Timestamp>>>,
}

impl Endpoint {
    /// An endpoint that nobody called yet.
    #[must_use]
    pub fn new(
        issuer: Arc<str>,
        name: &'static str,
        client: Client,
        settings: GuardSettings,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let guard = Guard::new(settings, clock.clone());
        metrics.breaker_is(&issuer, name, State::Closed.as_str(), &State::ALL.map(State::as_str));
        Self { issuer, name, client, guard, clock, metrics, open_since: Arc::default() }
    }

    /// `discovery`, `jwks` or `userinfo`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The guard's state.
    #[must_use]
    pub fn status(&self) -> GuardStatus {
        self.guard.status()
    }

    /// When the breaker left the closed state, if it has not returned to it.
    #[must_use]
    pub fn open_since(&self) -> Option<Timestamp> {
        *self.open_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forces the breaker into a state for a time, as an operator wishes; see [`Guard::force`].
    pub fn force(&self, forced: ForcedState, lasting: Duration) {
        self.tell(Some(self.guard.force(forced, lasting)));
    }

    /// Closes the breaker and forgets all results, as an operator wishes.
    pub fn reset(&self) {
        self.tell(Some(self.guard.reset()));
    }

    /// Makes one call, if the guard lets it, and reads its answer. What `read` calls garbage counts as a failure of
    /// the endpoint, and so do statuses that `read` is not asked about: it sees 200, 401 and 403 only.
    ///
    /// # Errors
    /// [`CannotTell`], with nothing learnt about the token.
    pub async fn call<T>(
        &self,
        url: &Url,
        bearer: Option<&str>,
        priority: Priority,
        subject: Option<SubjectKey>,
        read: impl FnOnce(u16, &[u8]) -> Result<T, &'static str>,
    ) -> Result<T, CannotTell> {
        let admission = self.guard.admit(priority, subject).inspect_err(|suppressed| {
            self.metrics.suppressed(suppressed.reason.as_str());
        })?;
        self.tell(admission.transition());
        let started = self.clock.ticks();
        let reply = self.client.get(url, bearer).await;
        let status = match &reply {
            Ok(reply) => reply.status.to_string(),
            Err(error) => error.reason().to_owned(),
        };
        self.metrics.called(&self.issuer, self.name, &status, self.clock.ticks().since(started));
        self.settle(admission, reply, read)
    }

    /// Tells the guard what the call came to.
    fn settle<T>(
        &self,
        admission: Admission,
        reply: Result<Reply, CallError>,
        read: impl FnOnce(u16, &[u8]) -> Result<T, &'static str>,
    ) -> Result<T, CannotTell> {
        if let Ok(reply) = &reply
            && let Some(allowance) = self.allowance(&reply.headers)
        {
            admission.observe(allowance);
        }
        let (outcome, result) = match reply {
            Err(error) => (CallOutcome::Failed, Err(CannotTell::Failed(error))),
            Ok(reply) if reply.status == 429 => {
                let hold = retry_after::hold(
                    text(&reply.headers, RETRY_AFTER.as_str()),
                    text(&reply.headers, "x-ratelimit-reset"),
                    self.clock.now(),
                );
                let limit = text(&reply.headers, "x-ratelimit-limit").and_then(retry_after::calls);
                let retry_after = hold.unwrap_or(Duration::from_secs(5));
                (CallOutcome::RateLimited { hold, limit }, Err(CannotTell::RateLimited { retry_after }))
            }
            Ok(reply) if matches!(reply.status, 200 | 401 | 403) => match read(reply.status, &reply.body) {
                Ok(value) => (CallOutcome::Answered, Ok(value)),
                Err(what) => (CallOutcome::Failed, Err(CannotTell::Garbage(what))),
            },
            Ok(reply) => (CallOutcome::Failed, Err(CannotTell::Status(reply.status))),
        };
        self.tell(admission.finish(outcome));
        result
    }

    fn allowance(&self, headers: &HeaderMap) -> Option<Allowance> {
        Some(Allowance {
            limit: text(headers, "x-ratelimit-limit").and_then(retry_after::calls),
            remaining: text(headers, "x-ratelimit-remaining").and_then(retry_after::calls)?,
            reset_in: text(headers, "x-ratelimit-reset")
                .and_then(|reset| retry_after::from_reset(reset, self.clock.now()))?,
        })
    }

    /// One log line and the metrics for a change of the breaker's state.
    ///
    /// Two changes may come here in another order than they happened in. So what is told of the state is what the
    /// breaker says now, under a lock: whoever comes last tells the latest.
    fn tell(&self, transition: Option<Transition>) {
        let Some(Transition { from, to, reason, open_for }) = transition else { return };
        self.metrics.breaker_moved(&self.issuer, self.name, from.as_str(), to.as_str());
        {
            let mut open_since = self.open_since.lock().unwrap_or_else(PoisonError::into_inner);
            let state = self.guard.status().state;
            self.metrics.breaker_is(&self.issuer, self.name, state.as_str(), &State::ALL.map(State::as_str));
            *open_since = match state {
                State::Closed => None,
                State::Open | State::HalfOpen => Some(open_since.unwrap_or_else(|| self.clock.now())),
            };
        }
        let (issuer, endpoint, reason) = (&*self.issuer, self.name, reason.as_str());
        match to {
            State::Open => {
                let open_for = open_for.map_or(0.0, |wait| wait.as_secs_f64());
                warn!(
                    issuer,
                    endpoint,
                    reason,
                    open_for,
                    "breaker opened: no call leaves until it lets a probe through"
                );
            }
            State::HalfOpen => info!(issuer, endpoint, reason, "breaker half-open: a probe goes out"),
            State::Closed => info!(issuer, endpoint, reason, "breaker closed: calls leave again"),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
