//! First-seen foreign tokens: how far they are trusted, and when the issuer is not asked about them for a
//! while.
//!
//! Anybody can send any number of such tokens. Two things follow:
//!
//! - **First-seen tokens are trusted until the issuer rejects some.** [`Trust`] says how much of the budget
//!   these tokens may use: all of it while the issuer accepts nearly all of them, no more than a floor when
//!   it rejects half of them. So a morning rush of new users is served, and a flood of garbage ends at the
//!   floor within the burst.
//! - **They cannot stop everybody's calls.** Some tokens make an issuer fail: one that is too long for its
//!   edge, one that a firewall dislikes. So the results of calls about them are never counted against the
//!   endpoint. They are counted here, and stop only calls about first-seen tokens. A pause begins after as
//!   many failures in a row as would open the breaker, or after a 429 that does not say whose limit it is. It
//!   lasts as long as the breaker's opening would. Where nearly all tokens are foreign, these pauses spare an
//!   issuer that is down.

use std::time::Duration;

use super::breaker::{self, BreakerSettings};
use super::retry_after;
use super::window::Window;
use crate::clock::Ticks;

/// How far first-seen tokens are trusted: 1 is fully, 0 is not at all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Trust(f64);

impl Trust {
    /// Full trust, the initial value.
    pub const FULL: Self = Self(1.0);
    /// No trust: the issuer rejects most of them.
    pub const NONE: Self = Self(0.0);

    /// Trust falls evenly, from full where none was rejected to none where half of them were. `benefit` is
    /// how many accepted ones are assumed at the start, so that one rejected token among the first few
    /// changes little.
    #[must_use]
    pub fn of(judged: u32, rejected: u32, benefit: u32) -> Self {
        let share = f64::from(rejected) / (f64::from(judged) + f64::from(benefit)).max(1.0);
        Self((1.0 - 2.0 * share).clamp(0.0, 1.0))
    }

    /// From 0 to 1.
    #[must_use]
    pub fn as_share(self) -> f64 {
        self.0
    }
}

/// Whether the issuer may be asked about first-seen tokens, and how many.
#[derive(Debug)]
pub struct FirstSeen {
    /// This many failures in a row cause a pause.
    failures: u32,
    shortest: Duration,
    longest: Duration,
    in_a_row: u32,
    /// Pauses since the last answer: the exponent of the next one.
    pauses: u32,
    until: Ticks,
    /// The recent results for them: a rejected token is a failure here.
    judged: Window,
}

impl FirstSeen {
    /// No pause and full trust; the thresholds are the breaker's.
    #[must_use]
    pub fn new(settings: &BreakerSettings) -> Self {
        Self {
            failures: settings.minimum_calls.max(1),
            shortest: settings.open_for,
            longest: settings.open_for_max.max(settings.open_for),
            in_a_row: 0,
            pauses: 0,
            until: Ticks::ZERO,
            judged: Window::new(settings.window),
        }
    }

    /// How far they are trusted, by the results in the breaker's window.
    #[must_use]
    pub fn trust(&self, now: Ticks) -> Trust {
        let counts = self.judged.counts(now);
        Trust::of(counts.calls, counts.failures, self.failures)
    }

    /// How much longer the pause lasts; `None` if there is none.
    #[must_use]
    pub fn remaining(&self, now: Ticks) -> Option<Duration> {
        (now < self.until).then(|| self.until.since(now))
    }

    /// A call about one of them was answered: the issuer accepts the token, or rejects it.
    pub fn answered(&mut self, accepted: bool, now: Ticks) {
        (self.in_a_row, self.pauses) = (0, 0);
        self.judged.record(!accepted, false, now);
    }

    /// The issuer did not judge one of them.
    pub fn declined(&mut self, now: Ticks) {
        self.judged.record(true, false, now);
    }

    /// A call failed, and asks to wait for `wait` if it says so; `jitter` is a random number from 0 to 1. A
    /// call that was under way when a pause began does not make the next pause longer.
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

    /// The issuer, or a server before it, answered 429.
    pub fn limited(&mut self, wait: Option<Duration>, now: Ticks) {
        let until = now.after(wait.map_or(self.shortest, retry_after::bounded));
        self.until = self.until.max(until);
    }

    /// Forgets all failures and rejections.
    pub fn reset(&mut self) {
        (self.in_a_row, self.pauses, self.until) = (0, 0, Ticks::ZERO);
        self.judged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    fn first_seen() -> FirstSeen {
        FirstSeen::new(&BreakerSettings::default())
    }

    fn fail(first_seen: &mut FirstSeen, times: usize, now: Ticks) {
        for _ in 0..times {
            first_seen.failed(None, now, 0.0);
        }
    }

    #[test]
    fn failures_in_a_row_make_a_pause_and_each_further_one_is_longer() {
        let mut first_seen = first_seen();
        fail(&mut first_seen, 9, at(0));
        assert_eq!(first_seen.remaining(at(0)), None);
        // The tenth failure starts the pause, and later ones add nothing to it.
        fail(&mut first_seen, 20, at(0));
        assert_eq!(first_seen.remaining(at(0)), Some(SECOND * 5));
        assert_eq!(first_seen.remaining(at(5)), None);
        fail(&mut first_seen, 1, at(5));
        assert_eq!(first_seen.remaining(at(5)), Some(SECOND * 10));
        let mut now = 15;
        for _ in 0..10 {
            fail(&mut first_seen, 1, at(now));
            now += first_seen.remaining(at(now)).unwrap().as_secs();
        }
        fail(&mut first_seen, 1, at(now));
        assert_eq!(first_seen.remaining(at(now)), Some(SECOND * 300));
    }

    #[test]
    fn an_answer_among_failures_ends_the_row() {
        let mut first_seen = first_seen();
        for _ in 0..100 {
            fail(&mut first_seen, 9, at(0));
            first_seen.answered(true, at(0));
        }
        assert_eq!(first_seen.remaining(at(0)), None);
        fail(&mut first_seen, 10, at(0));
        first_seen.answered(true, at(0));
        fail(&mut first_seen, 10, at(5));
        assert_eq!(first_seen.remaining(at(5)), Some(SECOND * 5), "it begins with the shortest again");
    }

    #[test]
    fn a_429_makes_a_pause_at_once_for_as_long_as_it_says_within_bounds() {
        for (wait, expected) in [(None, 5), (Some(0), 1), (Some(20), 20), (Some(86_400), 300)] {
            let mut first_seen = first_seen();
            first_seen.limited(wait.map(Duration::from_secs), at(0));
            assert_eq!(first_seen.remaining(at(0)), Some(SECOND * expected));
            first_seen.reset();
            assert_eq!(first_seen.remaining(at(0)), None);
        }
    }

    #[test]
    fn a_failure_that_says_how_long_to_wait_is_not_tried_again_sooner() {
        let mut first_seen = first_seen();
        fail(&mut first_seen, 9, at(0));
        first_seen.failed(Some(SECOND * 120), at(0), 0.0);
        assert_eq!(first_seen.remaining(at(0)), Some(SECOND * 120));
    }

    #[test]
    fn a_stranger_is_innocent_until_strangers_misbehave() {
        let mut first_seen = first_seen();
        assert_eq!(first_seen.trust(at(0)), Trust::FULL);
        first_seen.answered(false, at(0));
        assert!(first_seen.trust(at(0)).as_share() > 0.8, "one wrong token says little");
        for _ in 0..9 {
            first_seen.answered(false, at(0));
        }
        assert_eq!(first_seen.trust(at(0)), Trust::NONE);
        for _ in 0..180 {
            first_seen.answered(true, at(1));
        }
        assert!((first_seen.trust(at(1)).as_share() - 0.9).abs() < 1e-9, "10 of 200 were rejected");
        assert_eq!(first_seen.trust(at(60)), Trust::FULL, "that is long ago");
        first_seen.declined(at(60));
        assert!(first_seen.trust(at(60)) < Trust::FULL);
    }
}
