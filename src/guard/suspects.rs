//! Foreign tokens never seen before: when they are not asked about for a while.
//!
//! Anybody can send such tokens, and some tokens make an issuer fail: one that is too long for its edge, one that a
//! firewall dislikes. So what calls about them come to is never counted against the endpoint, where it would stop
//! everybody's calls. It is counted here, and stops only its like: as many failures in a row as would open the
//! breaker, without one answer between them, or a 429 that does not say that it is one user's own. The pauses last as
//! long as the breaker's openings do.
//!
//! Where nearly all tokens are of this kind, this is what spares an issuer that is down.

use std::time::Duration;

use super::breaker::{self, BreakerSettings};
use super::retry_after;
use crate::clock::Ticks;

/// Whether unknown foreign tokens may be asked about.
#[derive(Debug)]
pub struct Suspects {
    /// So many failures in a row make a pause.
    failures: u32,
    shortest: Duration,
    longest: Duration,
    in_a_row: u32,
    /// Pauses since the last answer: the exponent of the next one.
    pauses: u32,
    until: Ticks,
}

impl Suspects {
    /// They may be asked about; the thresholds are the breaker's.
    #[must_use]
    pub fn new(settings: &BreakerSettings) -> Self {
        Self {
            failures: settings.minimum_calls.max(1),
            shortest: settings.open_for,
            longest: settings.open_for_max.max(settings.open_for),
            in_a_row: 0,
            pauses: 0,
            until: Ticks::ZERO,
        }
    }

    /// How much longer they pause; `None` if they do not.
    #[must_use]
    pub fn remaining(&self, now: Ticks) -> Option<Duration> {
        (now < self.until).then(|| self.until.since(now))
    }

    /// A call about one of them was answered, with yes or no.
    pub fn answered(&mut self) {
        (self.in_a_row, self.pauses) = (0, 0);
    }

    /// A call failed, and asks to wait for `wait` if it says so; `jitter` is a random number from 0 to 1. One that was
    /// under way when a pause began does not make the next one longer.
    pub fn failed(&mut self, wait: Option<Duration>, now: Ticks, jitter: f64) {
        if self.remaining(now).is_some() {
            return;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row >= self.failures {
            let doubled = self.shortest.saturating_mul(1 << self.pauses.min(30)).min(self.longest);
            self.pauses = self.pauses.saturating_add(1);
            let pause = breaker::shortened(doubled, jitter);
            self.until = now.after(wait.map_or(pause, |wait| pause.max(retry_after::bounded(wait))));
        }
    }

    /// The issuer, or what stands before it, says that there were too many calls.
    pub fn limited(&mut self, wait: Option<Duration>, now: Ticks) {
        let until = now.after(wait.map_or(self.shortest, retry_after::bounded));
        self.until = self.until.max(until);
    }

    /// Nothing is held against them any more.
    pub fn reset(&mut self) {
        self.answered();
        self.until = Ticks::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    fn suspects() -> Suspects {
        Suspects::new(&BreakerSettings::default())
    }

    fn fail(suspects: &mut Suspects, times: usize, now: Ticks) {
        for _ in 0..times {
            suspects.failed(None, now, 0.0);
        }
    }

    #[test]
    fn failures_in_a_row_make_a_pause_and_each_further_one_is_longer() {
        let mut suspects = suspects();
        fail(&mut suspects, 9, at(0));
        assert_eq!(suspects.remaining(at(0)), None);
        // The tenth makes the pause, and those that come in later add nothing to it.
        fail(&mut suspects, 20, at(0));
        assert_eq!(suspects.remaining(at(0)), Some(SECOND * 5));
        assert_eq!(suspects.remaining(at(5)), None);
        fail(&mut suspects, 1, at(5));
        assert_eq!(suspects.remaining(at(5)), Some(SECOND * 10));
        let mut now = 15;
        for _ in 0..10 {
            fail(&mut suspects, 1, at(now));
            now += suspects.remaining(at(now)).unwrap().as_secs();
        }
        fail(&mut suspects, 1, at(now));
        assert_eq!(suspects.remaining(at(now)), Some(SECOND * 300));
    }

    #[test]
    fn an_answer_among_failures_ends_the_row() {
        let mut suspects = suspects();
        for _ in 0..100 {
            fail(&mut suspects, 9, at(0));
            suspects.answered();
        }
        assert_eq!(suspects.remaining(at(0)), None);
        fail(&mut suspects, 10, at(0));
        suspects.answered();
        fail(&mut suspects, 10, at(5));
        assert_eq!(suspects.remaining(at(5)), Some(SECOND * 5), "it begins with the shortest again");
    }

    #[test]
    fn a_429_makes_a_pause_at_once_for_as_long_as_it_says_within_bounds() {
        for (wait, expected) in [(None, 5), (Some(0), 1), (Some(20), 20), (Some(86_400), 300)] {
            let mut suspects = suspects();
            suspects.limited(wait.map(Duration::from_secs), at(0));
            assert_eq!(suspects.remaining(at(0)), Some(SECOND * expected));
            suspects.reset();
            assert_eq!(suspects.remaining(at(0)), None);
        }
    }

    #[test]
    fn a_failure_that_says_how_long_to_wait_is_not_tried_again_sooner() {
        let mut suspects = suspects();
        fail(&mut suspects, 9, at(0));
        suspects.failed(Some(SECOND * 120), at(0), 0.0);
        assert_eq!(suspects.remaining(at(0)), Some(SECOND * 120));
    }
}
