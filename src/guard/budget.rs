//! The budget: how many calls to the issuer we may make at all, and who goes first.
//!
//! A pure token bucket kept well under the tenant's limit, so that the tenant's own 429 is the exception.
//!
//! - [`Priority::Foreground`], a request that waits for the answer, may use all of it.
//! - [`Priority::Background`], revalidation of what is known anyway, may use only what lies above a reserve.
//! - [`Priority::Suspect`], a foreign token never seen before, needs a token of a bucket of its own as well.
//!   Anyone can send such tokens, different ones without end; with the second bucket they spend a share of
//!   the calls, never those of users who are known.
//!
//! **Tokens are measured in time.** One token is the time in which it grows back, so a level is a
//! [`Duration`], a refill is an addition, a refusal's `retry_after` is a subtraction, and nothing is ever
//! rounded: over any stretch of time the calls admitted are at most `burst + rate × time`, exactly.
//!
//! **Learned downward.** `X-RateLimit-Remaining` can only lower what may be spent until the tenant's reset,
//! since other programs spend the same limit. It never raises it over the configured rate.

use std::time::Duration;

use super::retry_after;
use crate::clock::Ticks;

/// Rates outside of this are brought into it: a call in a thousand seconds to one in a microsecond, the
/// clock's unit.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// How many calls may be made. [`Budget::new`] brings values out of range into range.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetSettings {
    /// Calls a second in the long run (default 4: with the burst this is 260 in any one minute, where Auth0's
    /// smallest plan allows 300 to all programs of the tenant together).
    pub rate: f64,
    /// Calls that may be made at once after a quiet time (default 20; at least 1).
    pub burst: u32,
    /// The share of the bucket that background calls and suspect tokens may use; the rest is kept for
    /// foreground calls (default 0.5; 0 to 1, where 0 refuses them all).
    pub background_share: f64,
    /// The share of rate and burst that suspect tokens may use (default 0.5; 0 to 1, but always at least one
    /// call).
    pub suspect_share: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { rate: 4.0, burst: 20, background_share: 0.5, suspect_share: 0.5 }
    }
}

/// Who wants to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// A request of a known user, or with a token whose signature was verified, waits for it.
    Foreground,
    /// Nobody waits: what is asked for is known and only growing old.
    Background,
    /// A request waits, but all we know is that it has a foreign token that was never seen before.
    Suspect,
}

/// Which bucket was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The bucket that all calls share, or what the tenant said remains of its limit.
    Main,
    /// The bucket of suspect tokens.
    Suspect,
}

/// The call may not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When there will be a token, if nobody else takes it.
    pub retry_after: Duration,
    /// Which bucket was empty.
    pub exhausted: Exhausted,
}

/// The budget of one endpoint of one issuer.
#[derive(Debug)]
pub struct Budget {
    main: Bucket,
    suspect: Bucket,
    /// What of the main bucket is kept for the foreground.
    reserve: Duration,
    ceiling: Option<Ceiling>,
}

/// What `/status` shows of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetStatus {
    /// How many foreground calls could be made at once.
    pub available: u32,
    /// Calls a second in the long run, as configured.
    pub rate: f64,
    /// Calls at once after a quiet time, as configured.
    pub burst: u32,
    /// How many more calls the tenant said it takes, and how long until its limit is reset; `None` if it has
    /// not said, or that is over.
    pub learned: Option<(u32, Duration)>,
}

/// What the tenant said may still be spent.
#[derive(Clone, Copy, Debug)]
struct Ceiling {
    calls: u32,
    until: Ticks,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(settings: &BudgetSettings) -> Self {
        let rate = if settings.rate.is_nan() { BudgetSettings::default().rate } else { settings.rate };
        let main = Bucket::full(rate, settings.burst);
        let suspect =
            Bucket::full(rate * share(settings.suspect_share), part(settings.burst, settings.suspect_share));
        let below = main.burst - part(main.burst, settings.background_share);
        Self { reserve: main.cost * below, main, suspect, ceiling: None }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`Refused`] if there is none for this priority; then nothing was taken.
    pub fn take(&mut self, priority: Priority, now: Ticks) -> Result<(), Refused> {
        self.main.refill(now);
        self.suspect.refill(now);
        if self.ceiling.is_some_and(|ceiling| now >= ceiling.until) {
            self.ceiling = None;
        }
        let own = match priority {
            Priority::Suspect => self.suspect.wait(Duration::ZERO),
            Priority::Foreground | Priority::Background => Duration::ZERO,
        };
        let reserve = if priority == Priority::Foreground { Duration::ZERO } else { self.reserve };
        let main = self.main.wait(reserve).max(self.wait_for_reset(reserve, now));
        if own.max(main) > Duration::ZERO {
            let exhausted = if own > Duration::ZERO { Exhausted::Suspect } else { Exhausted::Main };
            return Err(Refused { retry_after: own.max(main), exhausted });
        }
        self.main.spend();
        if priority == Priority::Suspect {
            self.suspect.spend();
        }
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.calls = ceiling.calls.saturating_sub(1);
        }
        Ok(())
    }

    /// Learns from an answer that the tenant takes `remaining` more calls until its limit is reset in
    /// `reset_in` (bounded to 1 s..5 min).
    ///
    /// Until then the lowest number heard counts: answers overtake each other, and each was written before
    /// the calls that are still on their way. The time of the reset is that of the first one, so that a limit
    /// that refills all the time, and moves its reset with every answer, cannot keep an old number alive.
    pub fn observe(&mut self, remaining: u32, reset_in: Duration, now: Ticks) {
        match &mut self.ceiling {
            Some(ceiling) if now < ceiling.until => ceiling.calls = ceiling.calls.min(remaining),
            ceiling => {
                *ceiling =
                    Some(Ceiling { calls: remaining, until: now.after(retry_after::bounded(reset_in)) })
            }
        }
    }

    /// How many foreground calls could be made at once at `now`.
    #[must_use]
    pub fn available(&self, now: Ticks) -> u32 {
        let tokens = self.main.level_at(now).as_micros() / self.main.cost.as_micros();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        match self.ceiling {
            Some(ceiling) if now < ceiling.until => tokens.min(ceiling.calls),
            _ => tokens,
        }
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn status(&self, now: Ticks) -> BudgetStatus {
        let learned = self.ceiling.filter(|ceiling| now < ceiling.until);
        BudgetStatus {
            available: self.available(now),
            rate: 1.0 / self.main.cost.as_secs_f64(),
            burst: self.main.burst,
            learned: learned.map(|ceiling| (ceiling.calls, ceiling.until.since(now))),
        }
    }

    /// How long until the tenant's reset, if what it left us does not reach for a call above `reserve`.
    fn wait_for_reset(&self, reserve: Duration, now: Ticks) -> Duration {
        match self.ceiling {
            Some(ceiling) if self.main.cost.saturating_mul(ceiling.calls) < reserve + self.main.cost => {
                ceiling.until.since(now)
            }
            _ => Duration::ZERO,
        }
    }
}

/// A token bucket, in time.
#[derive(Debug)]
struct Bucket {
    /// The time in which one token grows back.
    cost: Duration,
    burst: u32,
    level: Duration,
    at: Ticks,
}

impl Bucket {
    fn full(rate: f64, burst: u32) -> Self {
        // Rounded up to the clock's unit: a rate that is no whole number of microseconds is kept from below.
        let micros = (1_000_000.0 / rate.clamp(*RATES.start(), *RATES.end())).ceil();
        let cost = Duration::from_micros(micros as u64);
        let burst = burst.max(1);
        Self { cost, burst, level: cost * burst, at: Ticks::ZERO }
    }

    fn level_at(&self, now: Ticks) -> Duration {
        self.level.saturating_add(now.since(self.at)).min(self.cost * self.burst)
    }

    fn refill(&mut self, now: Ticks) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
    }

    /// How long until there is a token above `reserve`; zero if there is one. Counts from the last refill.
    fn wait(&self, reserve: Duration) -> Duration {
        (reserve + self.cost).saturating_sub(self.level)
    }

    fn spend(&mut self) {
        self.level = self.level.saturating_sub(self.cost);
    }
}

/// A share brought between 0 and 1; NaN is 0.
fn share(share: f64) -> f64 {
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// A share of a number of calls, at least one of them unless the share is 0.
fn part(calls: u32, of: f64) -> u32 {
    let part = (f64::from(calls) * share(of)).floor() as u32;
    if share(of) > 0.0 { part.max(1) } else { part }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_millis(millis))
    }

    /// Ten calls a second, twenty at once, ten of them kept for the foreground.
    fn budget() -> Budget {
        Budget::new(&BudgetSettings { rate: 10.0, burst: 20, ..BudgetSettings::default() })
    }

    fn admitted(budget: &mut Budget, priority: Priority, now: Ticks) -> usize {
        (0..100).filter(|_| budget.take(priority, now).is_ok()).count()
    }

    #[test]
    fn the_burst_is_spent_and_grows_back_at_the_rate() {
        let mut budget = budget();
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 20);
        let refused = budget.take(Priority::Foreground, at(30)).unwrap_err();
        assert_eq!(refused, Refused { retry_after: Duration::from_millis(70), exhausted: Exhausted::Main });
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(99)), 0);
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(100)), 1);
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(3_600_000)), 20);
    }

    #[test]
    fn a_rate_that_is_no_whole_number_of_microseconds_is_kept_from_below() {
        let mut budget = Budget::new(&BudgetSettings { rate: 3.0, burst: 1, ..BudgetSettings::default() });
        assert!(budget.take(Priority::Foreground, Ticks::ZERO).is_ok());
        let refused = budget.take(Priority::Foreground, Ticks::ZERO).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_micros(333_334));
    }

    #[test]
    fn the_background_leaves_the_reserve_to_the_foreground() {
        let mut budget = budget();
        assert_eq!(admitted(&mut budget, Priority::Background, at(0)), 10);
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 10);
        // The reserve must grow back before the background gets a token.
        let refused = budget.take(Priority::Background, at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(1_100));
        assert_eq!(admitted(&mut budget, Priority::Background, at(1_099)), 0);
        assert_eq!(admitted(&mut budget, Priority::Background, at(1_100)), 1);
    }

    #[test]
    fn a_flood_of_suspect_tokens_spends_its_own_share_and_no_more() {
        let settings = BudgetSettings { rate: 10.0, burst: 20, suspect_share: 0.2, background_share: 0.5 };
        let mut budget = Budget::new(&settings);
        assert_eq!(admitted(&mut budget, Priority::Suspect, at(0)), 4);
        let refused = budget.take(Priority::Suspect, at(0)).unwrap_err();
        assert_eq!(
            refused,
            Refused { retry_after: Duration::from_millis(500), exhausted: Exhausted::Suspect }
        );
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 16);
        // For ten seconds the flood gets two calls a second, known users the other eight.
        let (mut suspect, mut known) = (0, 0);
        for millis in 1..=10_000 {
            suspect += usize::from(budget.take(Priority::Suspect, at(millis)).is_ok());
            known += usize::from(budget.take(Priority::Foreground, at(millis)).is_ok());
        }
        assert!(suspect <= 20, "{suspect}");
        assert!(known >= 80, "{known}");
    }

    #[test]
    fn suspect_tokens_leave_the_reserve_too() {
        let mut budget = budget();
        admitted(&mut budget, Priority::Background, at(0));
        let refused = budget.take(Priority::Suspect, at(0)).unwrap_err();
        assert_eq!(refused.exhausted, Exhausted::Main);
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 10);
    }

    #[test]
    fn what_the_tenant_says_remains_is_all_until_its_reset() {
        let mut budget = budget();
        budget.observe(3, Duration::from_secs(60), at(0));
        assert_eq!(budget.available(at(0)), 3);
        assert!(budget.take(Priority::Background, at(0)).is_err(), "what is left is the foreground's");
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 3);
        let refused = budget.take(Priority::Foreground, at(59_000)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(60_000)), 20);
    }

    #[test]
    fn it_learns_downward_only() {
        let mut budget = budget();
        budget.observe(1_000_000, Duration::from_secs(60), at(0));
        assert_eq!(budget.available(at(0)), 20);
        budget.observe(5, Duration::from_secs(60), at(0));
        budget.observe(9, Duration::from_secs(60), at(0));
        assert_eq!(budget.available(at(0)), 5);
        assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 5);
    }

    #[test]
    fn a_reset_that_moves_with_every_answer_does_not_keep_an_old_number_alive() {
        let mut budget = budget();
        budget.observe(0, Duration::from_secs(10), at(0));
        budget.observe(0, Duration::from_secs(10), at(9_000));
        assert_eq!(budget.available(at(9_999)), 0);
        assert_eq!(budget.available(at(10_000)), 20);
        // The first answer after the reset is news again.
        budget.observe(5, Duration::from_secs(10), at(20_000));
        assert_eq!(budget.available(at(20_000)), 5);
    }

    #[test]
    fn no_settings_make_it_refuse_for_ever_or_admit_without_end() {
        for rate in [f64::NAN, f64::NEG_INFINITY, 0.0, f64::INFINITY, 1e300] {
            for (burst, share) in [(0, f64::NAN), (u32::MAX, 7.0), (1, -1.0), (1, 0.5)] {
                let settings = BudgetSettings { rate, burst, background_share: share, suspect_share: share };
                let mut budget = Budget::new(&settings);
                assert!(budget.take(Priority::Foreground, at(0)).is_ok(), "{settings:?}");
                assert_eq!(
                    budget.take(Priority::Background, at(10_000_000)).is_ok(),
                    share > 0.0,
                    "{settings:?}"
                );
            }
        }
    }

    fn priority() -> impl Strategy<Value = Priority> {
        prop_oneof![Just(Priority::Foreground), Just(Priority::Background), Just(Priority::Suspect)]
    }

    proptest! {
        /// Over every stretch of every schedule: at most burst + rate × time, for all calls and for suspect
        /// ones; and behind a call that was not foreground's lies the whole reserve.
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 0.1_f64..50.0,
            burst in 1_u32..40,
            background_share in 0.0_f64..=1.0,
            suspect_share in 0.01_f64..=1.0,
            calls in prop::collection::vec((0_u64..2_000_000, priority()), 0..120),
        ) {
            let settings = BudgetSettings { rate, burst, background_share, suspect_share };
            let mut budget = Budget::new(&settings);
            let reserve = (f64::from(burst) * (1.0 - background_share)).floor() as u32;
            let reserve = if background_share > 0.0 { reserve.min(burst - 1) } else { burst };
            let mut now = Duration::ZERO;
            let mut made: Vec<(Duration, Priority)> = Vec::new();
            for (step, priority) in calls {
                now += Duration::from_micros(if step % 3 == 0 { 0 } else { step });
                let ticks = Ticks::from_elapsed(now);
                if budget.take(priority, ticks).is_ok() {
                    made.push((now, priority));
                    prop_assert!(priority == Priority::Foreground || budget.available(ticks) >= reserve);
                }
            }
            let suspect_burst = (f64::from(burst) * suspect_share).max(1.0);
            for (first, (from, _)) in made.iter().enumerate() {
                let (mut all, mut suspect) = (0.0, 0.0);
                for (to, priority) in &made[first..] {
                    let seconds = (*to - *from).as_secs_f64();
                    all += 1.0;
                    suspect += f64::from(u8::from(*priority == Priority::Suspect));
                    prop_assert!(all <= rate * seconds + f64::from(burst) + 1e-9);
                    prop_assert!(suspect <= rate * suspect_share * seconds + suspect_burst + 1e-9);
                }
            }
        }

        /// A refusal says when to come back, and that is true to the microsecond.
        #[test]
        fn a_refusal_tells_the_time_of_the_next_token(
            rate in 0.1_f64..50.0,
            calls in prop::collection::vec((0_u64..2_000_000, priority()), 1..60),
        ) {
            let mut budget = Budget::new(&BudgetSettings { rate, burst: 6, ..BudgetSettings::default() });
            let mut now = Ticks::ZERO;
            for (step, priority) in calls {
                now = now.after(Duration::from_micros(step));
                if let Err(refused) = budget.take(priority, now) {
                    let too_soon = now.after(refused.retry_after.saturating_sub(Duration::from_micros(1)));
                    prop_assert!(budget.take(priority, too_soon).is_err());
                    now = now.after(refused.retry_after);
                    prop_assert!(budget.take(priority, now).is_ok());
                }
            }
        }
    }
}
