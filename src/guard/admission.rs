//! Permission to make one call, and what is learned from it.

use std::time::Duration;

use super::breaker::{self, Permit, State, Transition};
use super::budget::Priority;
use super::caller::Caller;
use super::outcome::CallOutcome;
use super::state::Guard;
use crate::clock::Ticks;

/// What the headers of an answer say of the limit it was counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// `X-RateLimit-Limit`.
    pub limit: Option<u32>,
    /// `X-RateLimit-Remaining`.
    pub remaining: u32,
    /// How long until `X-RateLimit-Reset`: [`retry_after::from_reset`](super::retry_after::from_reset).
    pub reset_in: Duration,
}

/// Permission to make one call. If it is dropped without [`Admission::finish`], the call counts as never
/// made, except in the budget, since it may have been sent.
#[must_use = "dropping an admission gives it back; finish it with the outcome of the call"]
#[derive(Debug)]
pub struct Admission {
    pub(super) guard: Guard,
    pub(super) permit: Option<Permit>,
    pub(super) transition: Option<Transition>,
    pub(super) queued_at: Ticks,
    pub(super) started: Ticks,
    pub(super) caller: Caller,
}

impl Admission {
    /// The transition that this admission made: from open to half-open, or none.
    #[must_use]
    pub fn transition(&self) -> Option<Transition> {
        self.transition
    }

    /// Learns from the rate-limit headers of an answer, of whatever status. If they are about the subject's
    /// own limit, they start a back-off of the subject if nothing remains, and say nothing about the tenant's
    /// limit.
    pub fn observe(&self, allowance: Allowance) {
        let (mut parts, now) = self.guard.lock();
        match self.caller.subject {
            Some(subject) if allowance.limit.is_some_and(|limit| limit <= self.guard.0.user_limit) => {
                if allowance.remaining == 0 {
                    parts.subject_backoff.hold(subject, Some(allowance.reset_in), now);
                }
            }
            _ => parts.budget.observe(allowance.remaining, allowance.reset_in, now),
        }
    }

    /// Gives the admission back with the result of the call.
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
            parts.subject_backoff.forgive_all(now);
            drop(parts);
            self.guard.0.changed.notify_waiters();
            self.guard.tell();
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
