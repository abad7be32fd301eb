//! The circuit breaker: whether a call to one endpoint of one issuer may be made at all.
//!
//! A pure state machine. It has no clock (`now` is an argument), no randomness (so is `jitter`), no lock and
//! no task; every rule can be tested by calling functions in order.
//!
//! - **Closed**: calls are made; their results are counted in a sliding [`Window`]. Too many failures or slow
//!   calls among enough calls open the breaker; a 429 of the tenant opens it at once. Where calls are
//!   too rare to fill the window, as many failures in a row open it, however far apart they are.
//! - **Open**: no call is made until the opening is over. Each opening in a row lasts twice as long, up to a
//!   maximum.
//! - **Half-open**: one call at a time is allowed, as a probe. Some successes in a row close the breaker,
//!   one failure opens it again.
//!
//! **Why late results do no harm.** A [`Permit`] carries the *generation* it was granted in. Every transition
//! and every probe begins a new generation, and the result of a permit from an older one is ignored. So 20
//! calls that were under way when the breaker opened cannot re-open it, and cannot close it, when they come
//! in one by one. While the breaker is half-open, only the newest permit is of the current generation, so
//! there is one probe at a time.
//!
//! **Why a permit cannot leak.** A closed breaker does not count permits. A half-open breaker has one probe
//! slot. [`Breaker::record`] and [`Breaker::cancel`] free it. If the caller disappears without either, the
//! slot becomes free when its lease expires.

mod settings;

use std::time::Duration;

pub use self::settings::BreakerSettings;
use super::retry_after;
use super::window::Window;
use crate::clock::Ticks;

/// The largest share of an opening by which jitter shortens it: one fifth. Jitter only shortens, so that the
/// maximum holds. It shortens by less than half, so that the next opening is always longer.
const JITTER_PART: u32 = 5;

/// How long a caller is told to wait while another call is the probe: about as long as the probe takes.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// How often the advice of another instance is followed: seldom enough that instances which are wrong, or a
/// Redis that repeats old messages, slow few calls.
const ADVICE_INTERVAL: Duration = Duration::from_secs(30);

/// The longest time for which an operator may force a state: a forgotten one must end by itself.
pub const LONGEST_FORCED: Duration = Duration::from_secs(24 * 3600);

/// The result of a call, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The issuer answered: 200, 401 or 403.
    Success,
    /// 5xx, timeout, connection or TLS error, or an answer that makes no sense.
    Failure {
        /// The wait that a 503 asks for in `Retry-After`, if any; bounded to 1 s..5 min. If this failure
        /// opens the breaker, no call is made before the wait is over.
        until: Option<Duration>,
    },
    /// The issuer limits all of the tenant's calls.
    RateLimited {
        /// The wait that the answer asks for, if any; bounded to 1 s..5 min.
        until: Option<Duration>,
    },
}

/// The breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls are made.
    Closed,
    /// No call is made.
    Open,
    /// One call at a time is made, to find out whether the endpoint works again.
    HalfOpen,
}

impl State {
    /// All states, for one-hot metrics.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The label used in metrics, log lines and `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an operator can force the breaker into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedState {
    /// No call is made; after the expiry the breaker is half-open.
    Open,
    /// Calls are made whatever their results, a 429 of the tenant included; after the expiry results open it
    /// again.
    Closed,
}

/// Why the breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too large a share of the calls in the window failed.
    Failures,
    /// Too large a share of the calls in the window was slow.
    SlowCalls,
    /// The issuer limits all of the tenant's calls.
    RateLimited,
    /// A probe failed.
    ProbeFailed,
    /// A probe was answered, but slowly.
    ProbeSlow,
    /// The opening is over: the next call is a probe.
    WaitOver,
    /// Enough probes succeeded.
    Recovered,
    /// Another instance has opened its breaker.
    Advised,
    /// An operator forced it.
    Forced,
    /// An operator reset it.
    Reset,
}

impl Reason {
    /// The label used in metrics, log lines and `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::SlowCalls => "slow_calls",
            Self::RateLimited => "rate_limited",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeSlow => "probe_slow",
            Self::WaitOver => "wait_over",
            Self::Recovered => "recovered",
            Self::Advised => "advised",
            Self::Forced => "forced",
            Self::Reset => "reset",
        }
    }
}

/// One change of state, for the log line and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after; the same as before only if an operator forced or reset a state that it already had.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// How long the breaker will stay open, if it opened.
    pub open_for: Option<Duration>,
}

/// Permission to make one call. Give it back through [`Breaker::record`] or [`Breaker::cancel`].
#[derive(Debug)]
#[must_use = "a permit that is neither recorded nor cancelled blocks a half-open breaker until it expires"]
pub struct Permit {
    generation: u64,
    transition: Option<Transition>,
}

impl Permit {
    /// The transition that granting this permit made: from open to half-open, or none.
    #[must_use]
    pub fn transition(&self) -> Option<Transition> {
        self.transition
    }
}

/// The call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// The circuit breaker of one endpoint of one issuer.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    window: Window,
    generation: u64,
    /// Failures since the last success, while it is closed.
    failures_in_a_row: u32,
    /// Openings since the breaker was last closed: the exponent of the next one.
    openings: u32,
    last: Option<Change>,
    /// When the advice of another instance is followed again.
    next_advice: Option<Ticks>,
}

/// The latest change of the phase: when, and why.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Ticks,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { forced_until: Option<Ticks> },
    Open { until: Ticks },
    HalfOpen { successes: u32, probe: Option<Probe> },
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    lease_ends: Ticks,
}

impl Breaker {
    /// A closed breaker without any results yet.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        let settings = settings.in_range();
        Self {
            phase: Phase::Closed { forced_until: None },
            window: Window::new(settings.window),
            generation: 0,
            failures_in_a_row: 0,
            openings: 0,
            last: None,
            next_advice: None,
            settings,
        }
    }

    /// Asks for permission to make one call.
    ///
    /// # Errors
    /// [`Refused`] while the breaker is open, and while it is half-open and another call is the probe.
    pub fn try_acquire(&mut self, now: Ticks) -> Result<Permit, Refused> {
        if let Some(refused) = self.refusal(now) {
            return Err(refused);
        }
        let transition = match self.phase {
            Phase::Open { .. } => {
                let half_open = Phase::HalfOpen { successes: 0, probe: None };
                Some(self.enter(half_open, Reason::WaitOver, None, now))
            }
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        };
        if let Phase::HalfOpen { probe, .. } = &mut self.phase {
            *probe = Some(Probe { lease_ends: now.after(self.settings.probe_lease) });
            self.generation += 1;
        }
        Ok(Permit { generation: self.generation, transition })
    }

    /// The error that [`Breaker::try_acquire`] would return now, if any; changes nothing.
    #[must_use]
    pub fn refusal(&self, now: Ticks) -> Option<Refused> {
        match self.phase {
            Phase::Open { until } if now < until => Some(Refused { retry_after: until.since(now) }),
            Phase::HalfOpen { probe: Some(Probe { lease_ends }), .. } if now < lease_ends => {
                Some(Refused { retry_after: lease_ends.since(now).min(PROBE_WAIT) })
            }
            _ => None,
        }
    }

    /// Records the result of the call of `permit` and how long it `took`; `jitter` is a random number from 0
    /// to 1. A result from before the latest transition changes nothing.
    pub fn record(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        took: Duration,
        now: Ticks,
        jitter: f64,
    ) -> Option<Transition> {
        if permit.generation != self.generation {
            return None;
        }
        let slow = took >= self.settings.slow_call;
        let reason = match &mut self.phase {
            Phase::Closed { forced_until } => {
                let failed = outcome != Outcome::Success;
                self.window.record(failed, slow, now);
                self.failures_in_a_row = if failed { self.failures_in_a_row.saturating_add(1) } else { 0 };
                if forced_until.is_some_and(|until| now < until) {
                    return None;
                }
                *forced_until = None;
                self.reason_to_open(outcome, now)?
            }
            Phase::HalfOpen { successes, probe } => {
                *probe = None;
                match outcome {
                    Outcome::Success if !slow => {
                        *successes += 1;
                        return (*successes >= self.settings.probes)
                            .then(|| self.close(None, Reason::Recovered, now));
                    }
                    Outcome::Success => Reason::ProbeSlow,
                    Outcome::Failure { .. } => Reason::ProbeFailed,
                    Outcome::RateLimited { .. } => Reason::RateLimited,
                }
            }
            // Opening began a new generation, and an open breaker grants no permit.
            Phase::Open { .. } => return None,
        };
        let open_for = match outcome {
            Outcome::RateLimited { until: Some(wait) } => retry_after::bounded(wait),
            // An endpoint that fails may take longer to recover than its `Retry-After` says.
            Outcome::Failure { until: Some(wait) } => {
                self.next_opening(jitter).max(retry_after::bounded(wait))
            }
            _ => self.next_opening(jitter),
        };
        Some(self.enter(Phase::Open { until: now.after(open_for) }, reason, Some(open_for), now))
    }

    /// Gives back a permit whose call has no result to count: it was not made, or its caller went away.
    pub fn cancel(&mut self, permit: Permit) {
        if let Phase::HalfOpen { probe, .. } = &mut self.phase
            && permit.generation == self.generation
        {
            *probe = None;
        }
    }

    /// The state at `now`. An opening that is over reads as half-open, though the transition happens (and is
    /// reported) only when the first call asks.
    #[must_use]
    pub fn state(&self, now: Ticks) -> State {
        match self.phase {
            Phase::Open { until } if now >= until => State::HalfOpen,
            phase => phase.state(),
        }
    }

    /// Why the breaker last changed its state; `None` if it never did.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.last.map(|change| change.reason)
    }

    /// Since when it is in the state that [`Breaker::state`] returns; `None` if it never was in another.
    #[must_use]
    pub fn since(&self, now: Ticks) -> Option<Ticks> {
        match self.phase {
            Phase::Open { until } if now >= until => Some(until),
            _ => self.last.map(|change| change.at),
        }
    }

    /// Until when an operator has forced the state that it is in; `None` if nobody has.
    #[must_use]
    pub fn forced_until(&self, now: Ticks) -> Option<Ticks> {
        let until = match self.phase {
            Phase::Closed { forced_until } => forced_until,
            Phase::Open { until } => (self.reason() == Some(Reason::Forced)).then_some(until),
            Phase::HalfOpen { .. } => None,
        };
        until.filter(|until| now < *until)
    }

    /// Forces a state until `until`, at an operator's request.
    pub fn force(&mut self, forced: ForcedState, until: Ticks, now: Ticks) -> Transition {
        match forced {
            ForcedState::Open => {
                self.enter(Phase::Open { until }, Reason::Forced, Some(until.since(now)), now)
            }
            ForcedState::Closed => self.close(Some(until), Reason::Forced, now),
        }
    }

    /// Another instance has opened its breaker. A closed one becomes half-open, unless an operator forced it:
    /// it finds out for itself with a few probes, one at a time, and not with all its calls. This happens at
    /// most once in 30 s.
    pub fn advise(&mut self, now: Ticks) -> Option<Transition> {
        let is_closed = matches!(self.phase, Phase::Closed { .. }) && self.forced_until(now).is_none();
        if !is_closed || self.next_advice.is_some_and(|next| now < next) {
            return None;
        }
        self.next_advice = Some(now.after(ADVICE_INTERVAL));
        Some(self.enter(Phase::HalfOpen { successes: 0, probe: None }, Reason::Advised, None, now))
    }

    /// Closes the breaker, forgets all results and ends a forced state, at an operator's request.
    pub fn reset(&mut self, now: Ticks) -> Transition {
        self.close(None, Reason::Reset, now)
    }

    fn reason_to_open(&self, outcome: Outcome, now: Ticks) -> Option<Reason> {
        if let Outcome::RateLimited { .. } = outcome {
            return Some(Reason::RateLimited);
        }
        let counts = self.window.counts(now);
        if counts.calls < self.settings.minimum_calls {
            (self.failures_in_a_row >= self.settings.minimum_calls).then_some(Reason::Failures)
        } else if counts.failure_rate() >= self.settings.failure_rate {
            Some(Reason::Failures)
        } else if counts.slow_rate() >= self.settings.slow_rate {
            Some(Reason::SlowCalls)
        } else {
            None
        }
    }

    /// Returns the length of the next opening, and counts that opening.
    fn next_opening(&mut self, jitter: f64) -> Duration {
        let doubled = self.settings.open_for.saturating_mul(1 << self.openings.min(30));
        self.openings = self.openings.saturating_add(1);
        shortened(doubled.min(self.settings.open_for_max), jitter)
    }

    fn close(&mut self, forced_until: Option<Ticks>, reason: Reason, now: Ticks) -> Transition {
        self.openings = 0;
        self.failures_in_a_row = 0;
        self.window.clear();
        self.enter(Phase::Closed { forced_until }, reason, None, now)
    }

    fn enter(&mut self, phase: Phase, reason: Reason, open_for: Option<Duration>, now: Ticks) -> Transition {
        let from = self.phase.state();
        self.phase = phase;
        self.generation += 1;
        self.last = Some(Change { at: now, reason });
        Transition { from, to: phase.state(), reason, open_for }
    }
}

/// `longest`, shortened by up to a fifth, so that the instances of a fleet do not probe at the same time;
/// `jitter` is a random number from 0 to 1. It is taken in thousandths, so that every value of it is safe,
/// even NaN.
#[must_use]
pub fn shortened(longest: Duration, jitter: f64) -> Duration {
    let thousandths = (jitter.clamp(0.0, 1.0) * 1000.0) as u32;
    longest - longest / JITTER_PART * thousandths / 1000
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests;
