//! How the issuer is asked: sparingly, and not at all while it is unwell.
//!
//! Every call to an endpoint of an issuer passes, in this order:
//!
//! 1. [`Singleflight`]: one call for each token or subject, however many wait for it;
//! 2. [`Guard::admit`]: is the subject held back ([`holdback`])? is the breaker open ([`breaker`])? do unknown
//!    tokens pause ([`suspects`])? is there budget left ([`budget`])?
//! 3. the HTTP client, and then [`Admission::finish`] with what the call came to.
//!
//! A call that is not admitted is "cannot tell", never a failure: it is answered from older tiers, and does
//! not count against the issuer.
//!
//! **Nobody can stop everybody's calls.** What one token or one user may have caused is not held against the
//! endpoint more than once: see [`CallOutcome`].
//!
//! The parts are pure: each takes `now` and returns a value. [`Guard`] is the thin shell that holds the
//! breaker, the budget, the hold-back and the pause of unknown tokens of one endpoint behind **one** lock.
//!
//! **Proof by construction that there are no interleavings to check.** All shared state of a guard is one
//! value behind one mutex; each public method takes the lock once, reads the clock under it, calls pure
//! functions, and lets go before it returns; nothing awaits, calls back, or takes another lock under it. So
//! every concurrent execution equals some sequence of those method calls, and arbitrary sequences are what
//! the property tests explore.

pub mod breaker;
pub mod budget;
pub mod holdback;
pub mod retry_after;
pub mod singleflight;
pub mod suspects;
pub mod window;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use breaker::{BreakerSettings, ForcedState, Reason, State, Transition};
pub use budget::{BudgetSettings, BudgetStatus, Priority};
pub use holdback::{HoldbackSettings, SubjectKey};
pub use singleflight::{Role, Singleflight, SingleflightError, SingleflightSettings};

use self::breaker::{Breaker, Outcome, Permit};
use self::budget::{Budget, Exhausted};
use self::holdback::{Holdback, Limited};
use self::suspects::Suspects;
use crate::clock::{Clock, Ticks};

/// The settings of one guard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardSettings {
    /// When calls are stopped because the endpoint is unwell.
    pub breaker: BreakerSettings,
    /// How many calls may be made.
    pub budget: BudgetSettings,
    /// When one subject is held back.
    pub holdback: HoldbackSettings,
}

/// What a call to the issuer came to, and by that whom it says something about.
///
/// Of a call about nobody, such as one for the keys, everything but an answer is the endpoint's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It answered: 200, and just as well 401 or 403.
    Answered,
    /// No connection, TLS error, or no answer in time. No token makes that, so it counts whoever was asked about.
    Unreachable,
    /// A status that says that the endpoint is unwell, 502 and 503 among them. It counts, but for an unknown token, which
    /// may be what a server behind a gateway stumbles over.
    Failed {
        /// How long it asks us to wait: [`retry_after::hold`].
        hold: Option<Duration>,
    },
    /// 500, an answer that makes no sense or is too long, a connection that broke: the endpoint is unwell, or this one
    /// user or token is odd. It counts once for each subject, and not at all for an unknown token.
    Odd,
    /// Another 4xx: this one request is not to its liking. It counts neither way.
    Declined,
    /// A 429: whether it concerns the tenant or the subject of this call follows from `limit`, and if that
    /// is not told, from how many different subjects are limited.
    RateLimited {
        /// How long it asks us to wait: [`retry_after::hold`].
        hold: Option<Duration>,
        /// `X-RateLimit-Limit`, read by [`retry_after::calls`].
        limit: Option<u32>,
    },
}

/// What the headers of an answer say of the limit it was counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// `X-RateLimit-Limit`.
    pub limit: Option<u32>,
    /// `X-RateLimit-Remaining`.
    pub remaining: u32,
    /// How long until `X-RateLimit-Reset`: [`retry_after::from_reset`].
    pub reset_in: Duration,
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuppressReason {
    /// The breaker is open, or half-open with another call as its probe.
    BreakerOpen,
    /// The budget is spent.
    Budget,
    /// The subject is held back.
    Holdback,
    /// The budget of foreign tokens never seen before is spent, or they pause.
    SuspectBudget,
}

impl SuppressReason {
    /// All reasons, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::BreakerOpen, Self::Budget, Self::Holdback, Self::SuspectBudget];

    /// The label used in metrics and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Budget => "budget",
            Self::Holdback => "holdback",
            Self::SuspectBudget => "suspect_budget",
        }
    }
}

/// The call may not be made now: cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer was not asked ({}); ask again in {} s", .reason.as_str(), .retry_after.as_secs_f64().ceil())]
pub struct Suppressed {
    /// Why.
    pub reason: SuppressReason,
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// What `/status` shows of a guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardStatus {
    /// The breaker's state.
    pub state: State,
    /// How long it has been in this state; `None` if it never was in another.
    pub since: Option<Duration>,
    /// Why the breaker last changed its state.
    pub reason: Option<Reason>,
    /// How much longer an operator has forced this state; `None` if nobody has.
    pub forced_for: Option<Duration>,
    /// How long the breaker refuses calls; zero if it does not.
    pub refuses_for: Duration,
    /// What may be spent.
    pub budget: BudgetStatus,
    /// How many subjects are held back.
    pub held_back: usize,
    /// How long foreign tokens never seen before are not asked about; zero if they are.
    pub suspects_pause_for: Duration,
}

/// Guards one endpoint of one issuer. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    clock: Clock,
    jitter: Jitter,
    user_limit: u32,
    parts: Mutex<Parts>,
}

struct Parts {
    breaker: Breaker,
    budget: Budget,
    holdback: Holdback,
    suspects: Suspects,
}

/// Where random numbers from 0 to 1 come from.
pub type Jitter = Box<dyn Fn() -> f64 + Send + Sync>;

impl Guard {
    /// A guard with a closed breaker and a full budget.
    #[must_use]
    pub fn new(settings: GuardSettings, clock: Clock) -> Self {
        Self::with_jitter(settings, clock, random_jitter())
    }

    /// The same, with the randomness of the breaker's openings given: for tests.
    #[must_use]
    pub fn with_jitter(settings: GuardSettings, clock: Clock, jitter: Jitter) -> Self {
        let user_limit = settings.holdback.user_limit;
        let parts = Parts {
            suspects: Suspects::new(&settings.breaker),
            breaker: Breaker::new(settings.breaker),
            budget: Budget::new(&settings.budget),
            holdback: Holdback::new(settings.holdback),
        };
        Self(Arc::new(Shared { clock, jitter, user_limit, parts: Mutex::new(parts) }))
    }

    /// Asks for leave to make one call, about `subject` if there is one.
    ///
    /// # Errors
    /// [`Suppressed`] if the call may not be made now; then it has cost nothing.
    pub fn admit(&self, priority: Priority, subject: Option<SubjectKey>) -> Result<Admission, Suppressed> {
        let (parts, now) = self.lock();
        let permit = admit_at(parts, priority, subject, now)?;
        let transition = permit.transition();
        Ok(Admission {
            guard: self.clone(),
            permit: Some(permit),
            transition,
            started: now,
            priority,
            subject,
        })
    }

    /// Forces the breaker into a state for a time, as an operator wishes. `lasting` is brought down to
    /// [`LONGEST_FORCED`](breaker::LONGEST_FORCED).
    pub fn force(&self, forced: ForcedState, lasting: Duration) -> Transition {
        let (mut parts, now) = self.lock();
        parts.breaker.force(forced, now.after(lasting.min(breaker::LONGEST_FORCED)), now)
    }

    /// Closes the breaker and forgets what led it to where it was, as an operator wishes.
    pub fn reset(&self) -> Transition {
        let (mut parts, now) = self.lock();
        parts.suspects.reset();
        parts.breaker.reset(now)
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> GuardStatus {
        let (parts, now) = self.lock();
        GuardStatus {
            state: parts.breaker.state(now),
            since: parts.breaker.since(now).map(|since| now.since(since)),
            reason: parts.breaker.reason(),
            forced_for: parts.breaker.forced_until(now).map(|until| until.since(now)),
            refuses_for: parts.breaker.refusal(now).map_or(Duration::ZERO, |refused| refused.retry_after),
            budget: parts.budget.status(now),
            held_back: parts.holdback.count(now),
            suspects_pause_for: parts.suspects.remaining(now).unwrap_or_default(),
        }
    }

    /// The parts and the time. The clock is read under the lock, so that time does not go back from one call
    /// to the next. No part can be left half changed, so a poisoned lock is as good as any other.
    fn lock(&self) -> (MutexGuard<'_, Parts>, Ticks) {
        let parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.ticks();
        (parts, now)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({:?})", self.status())
    }
}

/// Hold-back and breaker are asked before the budget, so that a call that cannot leave anyway spends no
/// token. The breaker's permit comes last, so that there is none to give back.
fn admit_at(
    mut parts: MutexGuard<'_, Parts>,
    priority: Priority,
    subject: Option<SubjectKey>,
    now: Ticks,
) -> Result<Permit, Suppressed> {
    let Parts { breaker, budget, holdback, suspects } = &mut *parts;
    let breaker_open = |refused: breaker::Refused| Suppressed {
        reason: SuppressReason::BreakerOpen,
        retry_after: refused.retry_after,
    };
    if let Some(retry_after) = subject.and_then(|subject| holdback.remaining(subject, now)) {
        return Err(Suppressed { reason: SuppressReason::Holdback, retry_after });
    }
    if let Some(refused) = breaker.refusal(now) {
        return Err(breaker_open(refused));
    }
    if priority == Priority::Suspect
        && let Some(retry_after) = suspects.remaining(now)
    {
        return Err(Suppressed { reason: SuppressReason::SuspectBudget, retry_after });
    }
    budget.take(priority, now).map_err(|refused| {
        let reason = match refused.exhausted {
            Exhausted::Main => SuppressReason::Budget,
            Exhausted::Suspect => SuppressReason::SuspectBudget,
        };
        Suppressed { reason, retry_after: refused.retry_after }
    })?;
    breaker.try_acquire(now).map_err(breaker_open)
}

/// Leave to make one call. Dropped without [`Admission::finish`], it is given back: the call then counts as
/// never made, except in the budget, since it may have left.
#[must_use = "dropping an admission gives it back; finish it with what the call came to"]
#[derive(Debug)]
pub struct Admission {
    guard: Guard,
    permit: Option<Permit>,
    transition: Option<Transition>,
    started: Ticks,
    priority: Priority,
    subject: Option<SubjectKey>,
}

impl Admission {
    /// The transition that this admission made: from open to half-open, or none.
    #[must_use]
    pub fn transition(&self) -> Option<Transition> {
        self.transition
    }

    /// Learns from the rate-limit headers of an answer, of whatever status. Those of the subject's own limit
    /// hold the subject back if nothing remains, and teach nothing about the tenant's.
    pub fn observe(&self, allowance: Allowance) {
        let (mut parts, now) = self.guard.lock();
        match self.subject {
            Some(subject) if allowance.limit.is_some_and(|limit| limit <= self.guard.0.user_limit) => {
                if allowance.remaining == 0 {
                    parts.holdback.hold(subject, Some(allowance.reset_in), now);
                }
            }
            _ => parts.budget.observe(allowance.remaining, allowance.reset_in, now),
        }
    }

    /// Gives the admission back with what the call came to.
    pub fn finish(mut self, outcome: CallOutcome) -> Option<Transition> {
        let permit = self.permit.take()?;
        let jitter = (self.guard.0.jitter)();
        let (mut parts, now) = self.guard.lock();
        let outcome = match self.subject {
            None => Some(about_nobody(outcome)),
            Some(token) if self.priority == Priority::Suspect => {
                self.about_suspect(&mut parts, token, outcome, now, jitter)
            }
            Some(subject) => self.about_subject(&mut parts, subject, outcome, now),
        };
        let Some(outcome) = outcome else {
            parts.breaker.cancel(permit);
            return None;
        };
        let transition = parts.breaker.record(permit, outcome, now.since(self.started), now, jitter);
        if transition.is_some_and(|transition| transition.to == State::Open) {
            parts.holdback.forgive(now);
        }
        transition
    }

    /// What a call about a known user says of the endpoint; `None` if nothing.
    fn about_subject(
        &self,
        parts: &mut Parts,
        subject: SubjectKey,
        outcome: CallOutcome,
        now: Ticks,
    ) -> Option<Outcome> {
        let failure = Outcome::Failure { until: None };
        match outcome {
            CallOutcome::Answered => {
                parts.holdback.answered(subject);
                Some(Outcome::Success)
            }
            CallOutcome::Unreachable => Some(failure),
            CallOutcome::Failed { hold } => Some(Outcome::Failure { until: hold }),
            // Half-open, it is not noted: who is the probe in an outage has not become odd by that.
            CallOutcome::Odd
                if parts.breaker.state(now) != State::Closed && !parts.holdback.is_odd(subject, now) =>
            {
                Some(failure)
            }
            CallOutcome::Odd => parts.holdback.odd(subject, now).then_some(failure),
            CallOutcome::Declined => {
                parts.holdback.odd(subject, now);
                None
            }
            CallOutcome::RateLimited { hold, limit } => {
                let limited = match limit {
                    Some(limit) if limit > self.guard.0.user_limit => Limited::Tenant,
                    // It says whose limit it is: however many are at theirs, the tenant is not.
                    Some(_) => {
                        parts.holdback.hold(subject, hold, now);
                        Limited::Subject
                    }
                    None => parts.holdback.limited(subject, hold, now),
                };
                (limited == Limited::Tenant).then_some(Outcome::RateLimited { until: hold })
            }
        }
    }

    /// What a call about an unknown token says of the endpoint; `None` if nothing. One user can send any number of new
    /// tokens, and would pass for many users; so it says little while the breaker is closed, but may be a good probe.
    fn about_suspect(
        &self,
        parts: &mut Parts,
        token: SubjectKey,
        outcome: CallOutcome,
        now: Ticks,
        jitter: f64,
    ) -> Option<Outcome> {
        match outcome {
            CallOutcome::Answered => {
                parts.suspects.answered();
                let is_probe = parts.breaker.state(now) == State::HalfOpen;
                is_probe.then_some(Outcome::Success)
            }
            CallOutcome::Unreachable => {
                parts.suspects.failed(None, now, jitter);
                Some(Outcome::Failure { until: None })
            }
            CallOutcome::Failed { .. } | CallOutcome::Odd => {
                let wait = if let CallOutcome::Failed { hold } = outcome { hold } else { None };
                parts.suspects.failed(wait, now, jitter);
                parts.holdback.hold(token, Some(holdback::AFTER_ODD), now);
                None
            }
            CallOutcome::Declined => {
                parts.holdback.hold(token, Some(holdback::AFTER_ODD), now);
                None
            }
            CallOutcome::RateLimited { hold, limit } => {
                if limit.is_some_and(|limit| limit > self.guard.0.user_limit) {
                    return Some(Outcome::RateLimited { until: hold });
                }
                parts.holdback.hold(token, hold, now);
                // Auth0 says whose limit it is. Who does not is not Auth0, and limits everybody for all we know.
                if limit.is_none() {
                    parts.suspects.limited(hold, now);
                }
                None
            }
        }
    }
}

fn about_nobody(outcome: CallOutcome) -> Outcome {
    match outcome {
        CallOutcome::Answered => Outcome::Success,
        CallOutcome::Failed { hold } => Outcome::Failure { until: hold },
        CallOutcome::Unreachable | CallOutcome::Odd | CallOutcome::Declined => {
            Outcome::Failure { until: None }
        }
        CallOutcome::RateLimited { hold, .. } => Outcome::RateLimited { until: hold },
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.guard.lock().0.breaker.cancel(permit);
        }
    }
}

/// Jitter need not be unpredictable, only different in each instance, which the seeds of the standard
/// library's hash maps are.
#[must_use]
pub fn random_jitter() -> Jitter {
    let seed = RandomState::new();
    let count = std::sync::atomic::AtomicU64::new(0);
    Box::new(move || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (seed.hash_one(number) >> 11) as f64 / (1_u64 << 53) as f64
    })
}

#[cfg(test)]
mod tests;
