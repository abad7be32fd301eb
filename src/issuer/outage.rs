//! The recent states of a breaker: since when it has been open, why it opened, and its changes.

use std::collections::VecDeque;

use crate::clock::Timestamp;
use crate::guard::{Reason, State, Transition};

/// How many changes of state are kept for the status page.
const KEPT: usize = 64;

/// The time since a breaker left the closed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it left that state.
    pub since: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// The recent state changes of one breaker.
#[derive(Debug, Default)]
pub(super) struct StateHistory {
    outage: Option<Outage>,
    changes: VecDeque<(Timestamp, State)>,
}

impl StateHistory {
    /// Records a transition that was reported at `now`, when the breaker's state was `state`.
    pub(super) fn record(&mut self, transition: &Transition, state: State, now: Timestamp) {
        self.outage = match state {
            State::Closed => None,
            State::Open | State::HalfOpen => {
                Some(self.outage.unwrap_or(Outage { since: now, reason: transition.reason }))
            }
        };
        if self.changes.back().is_none_or(|(_, last)| *last != state) {
            self.changes.push_back((now, state));
        }
        if self.changes.len() > KEPT {
            self.changes.pop_front();
        }
    }

    /// The outage, until the breaker is closed again.
    pub(super) const fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// The recent changes of state, oldest first.
    pub(super) fn changes(&self) -> Vec<(Timestamp, State)> {
        self.changes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_opening_to_the_closing() {
        let mut history = StateHistory::default();
        let mut go = |from, to, reason, secs| {
            let transition = Transition { from, to, reason, open_for: None };
            history.record(&transition, to, Timestamp::from_secs(secs));
            history.outage()
        };
        let outage = Some(Outage { since: Timestamp::from_secs(10), reason: Reason::RateLimited });
        assert_eq!(go(State::Closed, State::Open, Reason::RateLimited, 10), outage);
        assert_eq!(go(State::Open, State::HalfOpen, Reason::WaitOver, 20), outage);
        assert_eq!(go(State::HalfOpen, State::Open, Reason::ProbeFailed, 21), outage);
        assert_eq!(go(State::Open, State::HalfOpen, Reason::WaitOver, 40), outage);
        assert_eq!(go(State::HalfOpen, State::Closed, Reason::Recovered, 41), None);
        let seconds: Vec<u64> = history.changes().iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(seconds, [10, 20, 21, 40, 41]);
    }

    #[test]
    fn only_the_latest_changes_are_kept() {
        let mut history = StateHistory::default();
        for secs in 0..1_000 {
            let to = if secs % 2 == 0 { State::Open } else { State::Closed };
            let transition = Transition { from: to, to, reason: Reason::Failures, open_for: None };
            history.record(&transition, to, Timestamp::from_secs(secs));
        }
        let changes = history.changes();
        assert_eq!((changes.len(), changes[0].0.as_secs()), (KEPT, 1_000 - KEPT as u64));
    }
}
