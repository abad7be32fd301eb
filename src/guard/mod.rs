//! How the issuer is asked: sparingly, and not at all while it is unwell.
//!
//! Every call to an endpoint of an issuer passes, in this order:
//!
//! 1. [`Singleflight`]: one call for each token or subject, however many wait for it;
//! 2. [`Guard::admit_in_turn`]: is the subject held back ([`holdback`])? is the breaker open ([`breaker`])? do first-seen
//!    tokens pause ([`first_seen`])? when is there a token of the budget ([`budget`])? A call waits for that if it is
//!    soon ([`turn`]);
//! 3. the HTTP client, and then [`Admission::finish`] with what the call came to.
//!
//! A call that is not admitted is "cannot tell", never a failure: it is answered from older tiers, and does
//! not count against the issuer.
//!
//! **Nobody can stop everybody's calls.** What one token or one user may have caused is not held against the
//! endpoint more than once: see [`outcome`].
//!
//! The parts are pure: each takes `now` and returns a value. [`Guard`] is the thin shell that holds the
//! breaker, the budget, the hold-back and the pause of first-seen tokens of one endpoint behind **one** lock.
//!
//! **Proof by construction that there are no interleavings to check.** All shared state of a guard is one
//! value behind one mutex; each public method takes the lock once, reads the clock under it, calls pure
//! functions, and lets go before it returns; nothing awaits, calls back, or takes another lock under it. So
//! every concurrent execution equals some sequence of those method calls, and arbitrary sequences are what
//! the property tests explore.

pub mod breaker;
mod bucket;
pub mod budget;
pub mod first_seen;
pub mod holdback;
pub mod outcome;
pub mod retry_after;
pub mod singleflight;
pub mod turn;
pub mod window;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use breaker::{BreakerSettings, ForcedState, Reason, State, Transition};
pub use budget::{BudgetSettings, BudgetStatus, Plan, Priority};
pub use holdback::{HoldbackSettings, SubjectKey};
pub use outcome::CallOutcome;
pub use singleflight::{Role, Singleflight, SingleflightError, SingleflightSettings};

use self::breaker::{Breaker, Permit};
use self::budget::Budget;
use self::first_seen::{FirstSeen, Trust};
use self::holdback::Holdback;
use self::turn::{Caller, Turn};
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
    /// How many calls wait for their turn.
    pub waiting: usize,
    /// How far foreign tokens never seen before are trusted.
    pub trust: Trust,
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
    /// Whether calls wait for their turn at all.
    waits: bool,
    parts: Mutex<Parts>,
    /// Told when the breaker opens, for calls that wait for their turn.
    opened: Notify,
}

struct Parts {
    breaker: Breaker,
    budget: Budget,
    holdback: Holdback,
    first_seen: FirstSeen,
    /// How many calls wait for their turn.
    waiting: usize,
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
        let (user_limit, waits) = (settings.holdback.user_limit, !settings.budget.wait.is_zero());
        let parts = Parts {
            first_seen: FirstSeen::new(&settings.breaker),
            breaker: Breaker::new(settings.breaker),
            budget: Budget::new(&settings.budget),
            holdback: Holdback::new(settings.holdback),
            waiting: 0,
        };
        let (parts, opened) = (Mutex::new(parts), Notify::new());
        Self(Arc::new(Shared { clock, jitter, user_limit, waits, parts, opened }))
    }

    /// Asks for leave to make one call now, about `subject` if there is one.
    ///
    /// # Errors
    /// [`Suppressed`] if the call may not be made now; then it has cost nothing.
    pub fn admit(&self, priority: Priority, subject: Option<SubjectKey>) -> Result<Admission, Suppressed> {
        match self.line_up(Caller { priority, subject })? {
            Turn::Now(admission) => Ok(admission),
            Turn::Later(waiting) => Err(waiting.give_up()),
        }
    }

    /// Asks for leave to make one call, and waits for its turn if that is soon enough ([`BudgetSettings::wait`]). Also
    /// tells how long it waited. When the breaker opens meanwhile, nobody waits on.
    ///
    /// # Errors
    /// [`Suppressed`] if the call may not be made; then it has cost nothing.
    pub async fn admit_in_turn(
        &self,
        priority: Priority,
        subject: Option<SubjectKey>,
    ) -> Result<(Admission, Duration), Suppressed> {
        let mut turn = self.line_up(Caller { priority, subject })?;
        loop {
            match turn {
                Turn::Now(admission) => {
                    let waited = admission.started.since(admission.lined_up);
                    return Ok((admission, waited));
                }
                Turn::Later(waiting) => {
                    waiting.until_due().await;
                    turn = waiting.try_again()?;
                }
            }
        }
    }

    /// Forces the breaker into a state for a time, as an operator wishes. `lasting` is brought down to
    /// [`LONGEST_FORCED`](breaker::LONGEST_FORCED).
    pub fn force(&self, forced: ForcedState, lasting: Duration) -> Transition {
        let (mut parts, now) = self.lock();
        let until = now.after(lasting.min(breaker::LONGEST_FORCED));
        let transition = parts.breaker.force(forced, until, now);
        drop(parts);
        self.0.opened.notify_waiters();
        transition
    }

    /// Closes the breaker and forgets what led it to where it was, as an operator wishes.
    pub fn reset(&self) -> Transition {
        let (mut parts, now) = self.lock();
        parts.first_seen.reset();
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
            waiting: parts.waiting,
            trust: parts.first_seen.trust(now),
            suspects_pause_for: parts.first_seen.remaining(now).unwrap_or_default(),
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

/// Leave to make one call. Dropped without [`Admission::finish`], it is given back: the call then counts as
/// never made, except in the budget, since it may have left.
#[must_use = "dropping an admission gives it back; finish it with what the call came to"]
#[derive(Debug)]
pub struct Admission {
    guard: Guard,
    permit: Option<Permit>,
    transition: Option<Transition>,
    lined_up: Ticks,
    started: Ticks,
    caller: Caller,
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
        match self.caller.subject {
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
        let user_limit = self.guard.0.user_limit;
        let outcome = match self.caller.subject {
            None => Some(outcome.about_nobody()),
            Some(token) if self.caller.priority == Priority::FirstSeen => {
                outcome.about_unknown(&mut parts, token, user_limit, now, jitter)
            }
            Some(subject) => outcome.about_known(&mut parts, subject, user_limit, now),
        };
        let Some(outcome) = outcome else {
            parts.breaker.cancel(permit);
            return None;
        };
        if matches!(outcome, breaker::Outcome::RateLimited { .. }) {
            parts.budget.limited(now);
        }
        let transition = parts.breaker.record(permit, outcome, now.since(self.started), now, jitter);
        if transition.is_some_and(|transition| transition.to == State::Open) {
            parts.holdback.forgive(now);
            drop(parts);
            self.guard.0.opened.notify_waiters();
        }
        transition
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
