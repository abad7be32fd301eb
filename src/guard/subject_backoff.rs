//! Back-off for one subject: a 429, or a failure, may be about one user alone.
//!
//! Auth0 limits `/userinfo` for each user (a burst of 10, then 5 a minute) while the tenant works well, so
//! one noisy user must not open the breaker for everybody. The limited subject is in back-off, calls about
//! others go on. Only when several *different* subjects are limited within a short time, by answers that do
//! not say whose limit it is, [`SubjectBackoff::limited`] says that the tenant is limited.
//!
//! Likewise a user's profile may be longer than holdfast reads, or make the issuer fail. Each subject counts
//! once against the endpoint ([`SubjectBackoff::bad_answer`]): bad answers about many users mean that the
//! endpoint fails, repeated bad answers about one user do not. When the breaker opens, the bad answers that
//! led to it are forgotten ([`SubjectBackoff::forgive_all`]), since the endpoint was at fault.
//!
//! Memory is bounded: expired entries are dropped first, then the oldest. A 429 is rare and each costs a
//! call, so the scan for the oldest runs rarely; checking whether a subject is in back-off is one lookup.

use std::collections::HashMap;
use std::time::Duration;

use super::retry_after;
use crate::clock::Ticks;

/// The back-off of a subject or token after its first bad answer; after a further one it is `hold_for`.
pub const AFTER_BAD_ANSWER: Duration = Duration::from_secs(5);

/// How long after its latest bad answer a subject does not count again.
const BAD_ANSWER_MEMORY: Duration = Duration::from_secs(10 * 60);

/// When a subject is in back-off, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct SubjectBackoffSettings {
    /// How long the back-off of a subject lasts if the answer does not say (default 60 s; bounded to 1 s..5
    /// min).
    pub hold_for: Duration,
    /// This many different subjects limited within `window` mean that the tenant is limited (default 3; at
    /// least 1).
    pub subjects: usize,
    /// How close together they must be (default 30 s).
    pub window: Duration,
    /// How many subjects are remembered (default 4096; at least `subjects`).
    pub capacity: usize,
    /// An `X-RateLimit-Limit` up to this is taken for one user's own limit, a larger one for the tenant's
    /// (default 10: what Auth0 grants a user at `/userinfo`, where no plan grants a tenant so little).
    pub user_limit: u32,
}

impl Default for SubjectBackoffSettings {
    fn default() -> Self {
        Self {
            hold_for: Duration::from_secs(60),
            subjects: 3,
            window: Duration::from_secs(30),
            capacity: 4096,
            user_limit: 10,
        }
    }
}

/// Whom a call is about: a keyed digest of the subject or, while that is unknown, of the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey([u8; 32]);

impl SubjectKey {
    /// From a keyed digest.
    #[must_use]
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectKey(..)")
    }
}

/// Who is limited, judged by the 429s so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// This subject alone; it is in back-off.
    Subject,
    /// So many subjects that the tenant must be limited.
    Tenant,
}

/// The subjects in back-off.
#[derive(Debug)]
pub struct SubjectBackoff {
    settings: SubjectBackoffSettings,
    held: HashMap<SubjectKey, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Ticks,
    until: Ticks,
    /// Until when this counts as one of several limited subjects; `None` if the back-off is a precaution.
    counts_until: Option<Ticks>,
    bad_answers: Option<BadAnswers>,
}

/// Subjects whose bad answers were counted against the endpoint once.
#[derive(Clone, Copy, Debug)]
struct BadAnswers {
    since: Ticks,
    until: Ticks,
}

impl Entry {
    fn is_over(&self, now: Ticks) -> bool {
        now >= self.until && self.counts_until.is_none_or(|until| now >= until) && !self.had_bad_answer(now)
    }

    fn had_bad_answer(&self, now: Ticks) -> bool {
        self.bad_answers.is_some_and(|bad| now < bad.until)
    }
}

impl SubjectBackoff {
    /// No subject is in back-off yet.
    #[must_use]
    pub fn new(settings: SubjectBackoffSettings) -> Self {
        let subjects = settings.subjects.max(1);
        let capacity = settings.capacity.max(subjects);
        Self { settings: SubjectBackoffSettings { subjects, capacity, ..settings }, held: HashMap::new() }
    }

    /// How much longer the back-off of `subject` lasts; `None` if there is none.
    #[must_use]
    pub fn remaining(&self, subject: SubjectKey, now: Ticks) -> Option<Duration> {
        self.held.get(&subject).filter(|held| now < held.until).map(|held| held.until.since(now))
    }

    /// Records a 429 to a call about `subject`, with the wait that it asked for: starts a back-off, and says
    /// whether the tenant is limited.
    pub fn limited(&mut self, subject: SubjectKey, wait: Option<Duration>, now: Ticks) -> Limited {
        let counts_until = Some(now.after(self.settings.window));
        let wait = wait.unwrap_or(self.settings.hold_for);
        self.insert(subject, wait, now).counts_until = counts_until;
        let counted = self.held.values().filter(|held| held.counts_until.is_some_and(|until| now < until));
        if counted.count() >= self.settings.subjects { Limited::Tenant } else { Limited::Subject }
    }

    /// Starts a back-off of `subject` without counting it as limited: its answer said that nothing remains,
    /// or only its token is known, which anybody could have sent.
    pub fn hold(&mut self, subject: SubjectKey, wait: Option<Duration>, now: Ticks) {
        let wait = wait.unwrap_or(self.settings.hold_for);
        self.insert(subject, wait, now);
    }

    /// Records an answer about `subject` that this subject may have caused, and starts a back-off. Returns
    /// whether it is the first one lately; then it counts against the endpoint.
    pub fn bad_answer(&mut self, subject: SubjectKey, now: Ticks) -> bool {
        let before =
            self.held.get(&subject).filter(|held| held.had_bad_answer(now)).and_then(|held| held.bad_answers);
        let wait = if before.is_some() { self.settings.hold_for } else { AFTER_BAD_ANSWER };
        let since = before.map_or(now, |bad| bad.since);
        self.insert(subject, wait, now).bad_answers =
            Some(BadAnswers { since, until: now.after(BAD_ANSWER_MEMORY) });
        before.is_none()
    }

    /// Whether `subject` has had bad answers lately.
    #[must_use]
    pub fn had_bad_answer(&self, subject: SubjectKey, now: Ticks) -> bool {
        self.held.get(&subject).is_some_and(|held| held.had_bad_answer(now))
    }

    /// The answer about `subject` was good: a later bad one counts again.
    pub fn answered(&mut self, subject: SubjectKey) {
        if let Some(held) = self.held.get_mut(&subject) {
            held.bad_answers = None;
        }
    }

    /// The endpoint was at fault: subjects whose bad answers all came within the window may count again.
    pub fn forgive_all(&mut self, now: Ticks) {
        for held in self.held.values_mut() {
            held.bad_answers = held.bad_answers.filter(|bad| now.since(bad.since) > self.settings.window);
        }
    }

    /// How many subjects are in back-off at `now`.
    #[must_use]
    pub fn count(&self, now: Ticks) -> usize {
        self.held.values().filter(|held| now < held.until).count()
    }

    /// Starts or extends the back-off of `subject` to at least `wait`, in its entry or in a free one.
    fn insert(&mut self, subject: SubjectKey, wait: Duration, now: Ticks) -> &mut Entry {
        if self.held.len() >= self.settings.capacity && !self.held.contains_key(&subject) {
            self.held.retain(|_, held| !held.is_over(now));
            if self.held.len() >= self.settings.capacity
                && let Some(oldest) = self.held.iter().min_by_key(|(_, held)| held.since).map(|(key, _)| *key)
            {
                self.held.remove(&oldest);
            }
        }
        let nothing = Entry { since: now, until: now, counts_until: None, bad_answers: None };
        let held = self.held.entry(subject).or_insert(nothing);
        held.since = now;
        held.until = held.until.max(now.after(retry_after::bounded(wait)));
        held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    fn user(number: u64) -> SubjectKey {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        SubjectKey::from_digest(digest)
    }

    fn subject_backoff() -> SubjectBackoff {
        SubjectBackoff::new(SubjectBackoffSettings::default())
    }

    #[test]
    fn a_limited_user_is_held_back_and_nobody_else() {
        let mut subject_backoff = subject_backoff();
        assert_eq!(subject_backoff.limited(user(1), Some(SECOND * 12), at(0)), Limited::Subject);
        assert_eq!(subject_backoff.remaining(user(1), at(2)), Some(SECOND * 10));
        assert_eq!(subject_backoff.remaining(user(2), at(2)), None);
        assert_eq!(subject_backoff.remaining(user(1), at(12)), None);
    }

    #[test]
    fn one_noisy_user_is_never_the_tenant() {
        let mut subject_backoff = subject_backoff();
        for second in 0..100 {
            assert_eq!(subject_backoff.limited(user(1), None, at(second)), Limited::Subject);
        }
    }

    #[test]
    fn three_users_within_the_window_are_the_tenant_and_spread_out_they_are_not() {
        let mut close = subject_backoff();
        close.limited(user(1), None, at(0));
        close.limited(user(2), None, at(10));
        assert_eq!(close.limited(user(3), None, at(29)), Limited::Tenant);
        let mut apart = subject_backoff();
        for number in 0..20 {
            assert_eq!(apart.limited(user(number), None, at(15 * number)), Limited::Subject);
        }
    }

    #[test]
    fn a_precaution_does_not_count_and_does_not_undo_what_counts() {
        let mut subject_backoff = subject_backoff();
        for number in 0..10 {
            subject_backoff.hold(user(number), None, at(0));
        }
        assert_eq!(subject_backoff.limited(user(1), None, at(0)), Limited::Subject);
        subject_backoff.limited(user(2), None, at(0));
        subject_backoff.hold(user(2), None, at(1));
        assert_eq!(subject_backoff.limited(user(3), None, at(1)), Limited::Tenant);
    }

    #[test]
    fn one_odd_user_counts_once_and_is_asked_about_ever_more_rarely() {
        let mut subject_backoff = subject_backoff();
        assert!(subject_backoff.bad_answer(user(1), at(0)));
        assert_eq!(subject_backoff.remaining(user(1), at(0)), Some(SECOND * 5));
        for minute in 1..100 {
            assert!(!subject_backoff.bad_answer(user(1), at(60 * minute)));
            assert_eq!(subject_backoff.remaining(user(1), at(60 * minute)), Some(SECOND * 60));
        }
        assert!(subject_backoff.bad_answer(user(2), at(60)), "others count");
        assert!(subject_backoff.bad_answer(user(1), at(99 * 60 + 600)), "after a quiet time it is news");
        subject_backoff.answered(user(1));
        assert!(subject_backoff.bad_answer(user(1), at(99 * 60 + 605)), "and so it is after a good answer");
    }

    #[test]
    fn who_was_odd_only_when_the_endpoint_was_is_forgiven() {
        let mut subject_backoff = subject_backoff();
        subject_backoff.bad_answer(user(1), at(0));
        subject_backoff.bad_answer(user(2), at(40));
        subject_backoff.bad_answer(user(1), at(60));
        subject_backoff.forgive_all(at(60));
        assert_eq!(
            (
                subject_backoff.had_bad_answer(user(1), at(60)),
                subject_backoff.had_bad_answer(user(2), at(60))
            ),
            (true, false)
        );
    }

    #[test]
    fn the_longest_wait_holds_and_absurd_ones_are_bounded() {
        let mut subject_backoff = subject_backoff();
        subject_backoff.limited(user(1), Some(SECOND * 1_000_000), at(0));
        subject_backoff.limited(user(1), Some(Duration::ZERO), at(0));
        assert_eq!(subject_backoff.remaining(user(1), at(0)), Some(SECOND * 300));
        subject_backoff.limited(user(2), Some(Duration::ZERO), at(0));
        assert_eq!(subject_backoff.remaining(user(2), at(0)), Some(SECOND));
    }

    #[test]
    fn when_full_what_is_over_goes_first_and_then_the_oldest() {
        let mut subject_backoff =
            SubjectBackoff::new(SubjectBackoffSettings { capacity: 3, ..SubjectBackoffSettings::default() });
        subject_backoff.hold(user(1), Some(SECOND * 100), at(0));
        subject_backoff.hold(user(2), Some(SECOND), at(1));
        subject_backoff.hold(user(3), Some(SECOND * 100), at(2));
        subject_backoff.hold(user(4), Some(SECOND * 100), at(5));
        assert!(subject_backoff.remaining(user(1), at(5)).is_some(), "user 2 was over, user 1 was not");
        subject_backoff.hold(user(5), Some(SECOND * 100), at(6));
        assert_eq!(subject_backoff.remaining(user(1), at(6)), None);
        assert_eq!(subject_backoff.count(at(6)), 3);
    }

    #[test]
    fn the_key_does_not_show_in_logs() {
        assert_eq!(format!("{:?}", user(7)), "SubjectKey(..)");
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_latest_is_always_held(
            steps in prop::collection::vec(
                (0_u64..50, 0_u64..20, prop::option::of(0_u64..400), 0_u8..3), 0..200
            ),
        ) {
            let settings = SubjectBackoffSettings { capacity: 16, ..SubjectBackoffSettings::default() };
            let mut subject_backoff = SubjectBackoff::new(settings);
            let mut now = 0;
            for (number, step, wait, kind) in steps {
                now += step;
                let wait = wait.map(Duration::from_secs);
                match kind {
                    0 => drop(subject_backoff.limited(user(number), wait, at(now))),
                    1 => subject_backoff.hold(user(number), wait, at(now)),
                    _ => drop(subject_backoff.bad_answer(user(number), at(now))),
                }
                prop_assert!(subject_backoff.held.len() <= 16);
                prop_assert!(subject_backoff.remaining(user(number), at(now)).is_some());
            }
        }
    }
}
