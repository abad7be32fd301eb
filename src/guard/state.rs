//! One guard: the parts of an endpoint behind one lock.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::breaker::{self, Breaker, ForcedState, Reason, State, Transition};
use super::budget::{Budget, BudgetStatus};
use super::first_seen::{FirstSeen, Trust};
use super::promises::Promises;
use super::settings::GuardSettings;
use super::share::{Demand, Share};
use super::subject_backoff::SubjectBackoff;
use crate::clock::{Clock, Ticks};

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
    /// How much longer the breaker refuses calls; zero if it does not.
    pub refuses_for: Duration,
    /// The budget.
    pub budget: BudgetStatus,
    /// How many subjects are in back-off.
    pub subjects_in_backoff: usize,
    /// How many calls wait for their turn.
    pub waiting: usize,
    /// How far foreign tokens never seen before are trusted.
    pub trust: Trust,
    /// How long foreign tokens never seen before are not asked about; zero if they are.
    pub first_seen_pause: Duration,
}

/// Guards one endpoint of one issuer. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Guard(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) jitter: Jitter,
    pub(super) user_limit: u32,
    /// Whether calls wait for their turn at all.
    pub(super) waits: bool,
    pub(super) parts: Mutex<Parts>,
    /// Notified when the breaker opens or the share of the budget changes, for calls that wait for their
    /// turn.
    pub(super) changed: Notify,
    /// Notified when the other instances should be told at once.
    pub(super) news: OnceLock<Arc<Notify>>,
}

pub(super) struct Parts {
    pub(super) breaker: Breaker,
    pub(super) budget: Budget,
    pub(super) subject_backoff: SubjectBackoff,
    pub(super) first_seen: FirstSeen,
    pub(super) promises: Promises,
    pub(super) demand: Demand,
    /// How many calls wait for their turn.
    pub(super) waiting: usize,
}

/// The source of random numbers from 0 to 1.
pub type Jitter = Box<dyn Fn() -> f64 + Send + Sync>;

impl Guard {
    /// A guard with a closed breaker and a full budget.
    #[must_use]
    pub fn new(settings: GuardSettings, clock: Clock) -> Self {
        Self::with_jitter(settings, clock, random_jitter())
    }

    /// The same with a given source of randomness, for tests.
    #[must_use]
    pub fn with_jitter(settings: GuardSettings, clock: Clock, jitter: Jitter) -> Self {
        let (user_limit, waits) = (settings.subject_backoff.user_limit, !settings.budget.wait.is_zero());
        let parts = Parts {
            first_seen: FirstSeen::new(&settings.breaker),
            breaker: Breaker::new(settings.breaker),
            budget: Budget::new(&settings.budget),
            subject_backoff: SubjectBackoff::new(settings.subject_backoff),
            promises: Promises::default(),
            demand: Demand::default(),
            waiting: 0,
        };
        let (parts, changed, news) = (Mutex::new(parts), Notify::new(), OnceLock::new());
        Self(Arc::new(Shared { clock, jitter, user_limit, waits, parts, changed, news }))
    }

    /// Forces the breaker into a state for a time, at an operator's request. `lasting` is limited to
    /// [`LONGEST_FORCED`](breaker::LONGEST_FORCED).
    pub fn force(&self, forced: ForcedState, lasting: Duration) -> Transition {
        let (mut parts, now) = self.lock();
        let until = now.after(lasting.min(breaker::LONGEST_FORCED));
        let transition = parts.breaker.force(forced, until, now);
        drop(parts);
        self.0.changed.notify_waiters();
        transition
    }

    /// Closes the breaker and forgets all results, at an operator's request.
    pub fn reset(&self) -> Transition {
        let (mut parts, now) = self.lock();
        parts.first_seen.reset();
        parts.breaker.reset(now)
    }

    /// Notifies `news` from now on when the other instances should be told something at once. Only the first
    /// call has an effect.
    pub fn notify(&self, news: &Arc<Notify>) {
        // It is the same for the life of the process.
        let _ = self.0.news.set(news.clone());
    }

    /// What the other instances are told now: the share of the budget that this one needs, and whether its
    /// breaker is open because of what the issuer did.
    #[must_use]
    pub fn news(&self) -> (f64, bool) {
        let (mut parts, now) = self.lock();
        let rate = parts.budget.whole_rate();
        let is_open = parts.breaker.state(now) == State::Open && parts.breaker.forced_until(now).is_none();
        (parts.demand.tell(rate, now), is_open)
    }

    /// Sets the share of the budget that this instance may use.
    pub fn set_share(&self, share: Share) {
        let (mut parts, now) = self.lock();
        if parts.budget.set_share(share, now) {
            drop(parts);
            self.0.changed.notify_waiters();
        }
    }

    /// Another instance has opened its breaker: see [`Breaker::advise`].
    pub fn advise(&self) -> Option<Transition> {
        let (mut parts, now) = self.lock();
        parts.breaker.advise(now)
    }

    /// Tells the other instances at once.
    pub(super) fn tell(&self) {
        if let Some(news) = self.0.news.get() {
            news.notify_one();
        }
    }

    /// The current status.
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
            subjects_in_backoff: parts.subject_backoff.count(now),
            waiting: parts.waiting,
            trust: parts.first_seen.trust(now),
            first_seen_pause: parts.first_seen.remaining(now).unwrap_or_default(),
        }
    }

    /// The parts and the time. The clock is read under the lock, so that time does not go back from one call
    /// to the next. No part can be left half changed, so a poisoned lock is used like any other.
    pub(super) fn lock(&self) -> (MutexGuard<'_, Parts>, Ticks) {
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

/// Jitter need not be unpredictable, only different in each instance. The seeds of the standard library's
/// hash maps are.
#[must_use]
pub fn random_jitter() -> Jitter {
    let seed = RandomState::new();
    let count = std::sync::atomic::AtomicU64::new(0);
    Box::new(move || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (seed.hash_one(number) >> 11) as f64 / (1_u64 << 53) as f64
    })
}
