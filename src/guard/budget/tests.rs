//! The budget without waiting, and then with it.

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Ticks {
    Ticks::from_elapsed(Duration::from_millis(millis))
}

/// Ten calls a second, twenty at once, ten of them kept for the foreground. Nobody waits.
fn budget() -> Budget {
    Budget::new(&settings())
}

fn settings() -> BudgetSettings {
    BudgetSettings { rate: 10.0, burst: 20, wait: Duration::ZERO, ..BudgetSettings::default() }
}

impl Budget {
    /// Reserves and leaves at once, with first-seen tokens at their floor.
    fn take(&mut self, priority: Priority, now: Ticks) -> Result<(), Refused> {
        self.take_with(priority, Trust::NONE, now)
    }

    fn take_with(&mut self, priority: Priority, trust: Trust, now: Ticks) -> Result<(), Refused> {
        let (mut reservation, wait) = self.reserve(priority, trust, 0, now)?;
        assert_eq!(wait, Duration::ZERO);
        assert_eq!(self.claim(&mut reservation, trust, now), Ok(Duration::ZERO));
        Ok(())
    }
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
    let mut budget = Budget::new(&BudgetSettings { rate: 3.0, burst: 1, ..settings() });
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
fn a_flood_of_first_seen_tokens_spends_its_own_share_and_no_more() {
    let settings = BudgetSettings { first_seen_share: 0.2, ..settings() };
    let mut budget = Budget::new(&settings);
    assert_eq!(admitted(&mut budget, Priority::FirstSeen, at(0)), 4);
    let refused = budget.take(Priority::FirstSeen, at(0)).unwrap_err();
    assert_eq!(refused, Refused { retry_after: Duration::from_millis(500), exhausted: Exhausted::FirstSeen });
    assert_eq!(admitted(&mut budget, Priority::Foreground, at(0)), 16);
    // For ten seconds the flood gets two calls a second, known users the other eight.
    let (mut first_seen, mut known) = (0, 0);
    for millis in 1..=10_000 {
        first_seen += usize::from(budget.take(Priority::FirstSeen, at(millis)).is_ok());
        known += usize::from(budget.take(Priority::Foreground, at(millis)).is_ok());
    }
    assert!(first_seen <= 20, "{first_seen}");
    assert!(known >= 80, "{known}");
}

#[test]
fn first_seen_tokens_leave_the_reserve_too() {
    let mut budget = budget();
    admitted(&mut budget, Priority::Background, at(0));
    let refused = budget.take(Priority::FirstSeen, at(0)).unwrap_err();
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
            let settings = BudgetSettings {
                rate,
                burst,
                background_share: share,
                first_seen_share: share,
                ..settings()
            };
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
    prop_oneof![Just(Priority::Foreground), Just(Priority::Background), Just(Priority::FirstSeen)]
}

proptest! {
    /// Over every stretch of every schedule: at most burst + rate × time, for all calls and for first_seen
    /// ones; and behind a call that was not foreground's lies the whole reserve.
    #[test]
    fn never_more_than_burst_and_rate(
        rate in 0.1_f64..50.0,
        burst in 1_u32..40,
        background_share in 0.0_f64..=1.0,
        first_seen_share in 0.01_f64..=1.0,
        calls in prop::collection::vec((0_u64..2_000_000, priority()), 0..120),
    ) {
        let settings = BudgetSettings { rate, burst, background_share, first_seen_share, ..settings() };
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
        let first_seen_burst = (f64::from(burst) * first_seen_share).max(1.0);
        for (first, (from, _)) in made.iter().enumerate() {
            let (mut all, mut first_seen) = (0.0, 0.0);
            for (to, priority) in &made[first..] {
                let seconds = (*to - *from).as_secs_f64();
                all += 1.0;
                first_seen += f64::from(u8::from(*priority == Priority::FirstSeen));
                prop_assert!(all <= rate * seconds + f64::from(burst) + 1e-9);
                prop_assert!(first_seen <= rate * first_seen_share * seconds + first_seen_burst + 1e-9);
            }
        }
    }

    /// A refusal says when to come back, and that is true to the microsecond.
    #[test]
    fn a_refusal_tells_the_time_of_the_next_token(
        rate in 0.1_f64..50.0,
        calls in prop::collection::vec((0_u64..2_000_000, priority()), 1..60),
    ) {
        let mut budget = Budget::new(&BudgetSettings { rate, burst: 6, ..settings() });
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

// Waiting.

const SECOND: Duration = Duration::from_secs(1);

/// Ten calls a second, two at once, and calls wait for up to a second.
fn waiting() -> Budget {
    Budget::new(&BudgetSettings { burst: 2, wait: SECOND, ..settings() })
}

fn reserve(budget: &mut Budget, priority: Priority, now: Ticks) -> Result<(Reservation, Duration), Refused> {
    budget.reserve(priority, Trust::FULL, 0, now)
}

#[test]
fn a_call_waits_for_its_turn_and_only_beyond_the_longest_wait_is_it_sent_away() {
    let mut budget = waiting();
    let waits: Vec<_> =
        (0..12).map(|_| reserve(&mut budget, Priority::Foreground, at(0)).unwrap().1.as_millis()).collect();
    assert_eq!(waits, [0, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000]);
    let away = [0, 1, 2, 3, 10_000].map(|ahead| {
        let refused = budget.reserve(Priority::Foreground, Trust::FULL, ahead, at(0)).unwrap_err();
        refused.retry_after.as_millis()
    });
    assert_eq!(away, [1_100, 1_200, 1_300, 1_400, 300_000], "each is told another time");
}

/// The line of those who were told to come back keeps newcomers out, but never a bucket that fills up unused.
#[test]
fn newcomers_stand_behind_those_who_were_told_to_come_back_while_there_is_no_room_to_spare() {
    for (burst, priority) in
        [(20, Priority::Foreground), (20, Priority::FirstSeen), (1, Priority::Foreground)]
    {
        let mut budget = Budget::new(&BudgetSettings { burst, wait: SECOND, ..settings() });
        while reserve(&mut budget, priority, at(0)).is_ok() {}
        let behind = |budget: &mut Budget, ahead, millis| {
            let reserved = budget.reserve(priority, Trust::FULL, ahead, at(millis));
            reserved.map(|(reservation, wait)| {
                budget.cancel(reservation);
                wait
            })
        };
        // One place is free, then two: who is behind one gets the second.
        assert!(behind(&mut budget, 1, 100).is_err());
        assert_eq!(behind(&mut budget, 0, 100), Ok(SECOND));
        assert_eq!(behind(&mut budget, 1, 200), Ok(SECOND));
        // Behind any number, once those are in who waited, and half of the bucket is full again.
        let half = u64::from(burst / 2 + 1) * 100;
        assert!(behind(&mut budget, 10_000, 1_000 + half - 100).is_err());
        assert_eq!(behind(&mut budget, 10_000, 1_000 + half), Ok(SECOND));
    }
}

#[test]
fn a_user_who_is_known_waits_behind_one_stranger_at_most() {
    let mut budget = waiting();
    let strangers: Vec<_> =
        (0..12).map(|_| reserve(&mut budget, Priority::FirstSeen, at(0)).unwrap()).collect();
    assert_eq!(strangers[11].1, SECOND);
    let (known, wait) = reserve(&mut budget, Priority::Foreground, at(0)).unwrap();
    assert_eq!(wait, SECOND / 10, "the next token is the known user's");
    // The first-seen call whose turn it was waits for the next token.
    let mut stranger = strangers[2].0;
    assert_eq!(budget.claim(&mut stranger, Trust::FULL, at(100)), Ok(SECOND / 10));
    assert_eq!(budget.claim(&mut known.clone(), Trust::FULL, at(100)), Ok(Duration::ZERO));
    assert_eq!(budget.claim(&mut stranger, Trust::FULL, at(200)), Ok(Duration::ZERO));
}

#[test]
fn a_stranger_who_would_wait_too_long_in_all_is_sent_away() {
    let mut budget = waiting();
    let strangers: Vec<_> =
        (0..12).map(|_| reserve(&mut budget, Priority::FirstSeen, at(0)).unwrap().0).collect();
    let known: Vec<_> =
        (0..10).map(|_| reserve(&mut budget, Priority::Foreground, at(0)).unwrap().0).collect();
    let mut last = strangers[11];
    let refused = budget.claim(&mut last, Trust::FULL, at(1_000)).unwrap_err();
    assert_eq!((refused.exhausted, refused.retry_after), (Exhausted::Main, SECOND / 10));
    budget.cancel(last);
    assert_eq!(known.len(), 10);
}

#[test]
fn a_place_that_is_given_back_is_the_next_ones() {
    let mut budget = waiting();
    for priority in [Priority::Foreground, Priority::FirstSeen] {
        let held: Vec<_> = (0..5).map(|_| reserve(&mut budget, priority, at(0)).unwrap()).collect();
        held.iter().for_each(|(reservation, _)| budget.cancel(*reservation));
        assert_eq!(
            reserve(&mut budget, priority, at(0)).map(|(held, wait)| {
                budget.cancel(held);
                wait
            }),
            Ok(Duration::ZERO)
        );
    }
}

#[test]
fn revalidation_does_not_wait() {
    let mut budget = waiting();
    let refused = (0..3).find_map(|_| reserve(&mut budget, Priority::Background, at(0)).err()).unwrap();
    assert_eq!(refused.retry_after, SECOND / 10);
}

#[test]
fn nothing_that_remains_of_the_tenants_limit_keeps_those_who_wait_until_its_reset() {
    let mut budget = waiting();
    let (mut early, _) = reserve(&mut budget, Priority::Foreground, at(0)).unwrap();
    let (mut late, wait) = reserve(&mut budget, Priority::Foreground, at(0)).unwrap();
    assert_eq!(wait, Duration::ZERO);
    budget.observe(1, SECOND, at(0));
    assert_eq!(budget.claim(&mut early, Trust::FULL, at(0)), Ok(Duration::ZERO));
    assert_eq!(budget.claim(&mut late, Trust::FULL, at(0)), Ok(SECOND));
    assert_eq!(budget.claim(&mut late, Trust::FULL, at(1_000)), Ok(Duration::ZERO));
}

#[test]
fn strangers_who_are_trusted_may_use_all_and_others_no_more_than_the_floor() {
    let count = |trust| {
        let mut budget = budget();
        (0..100).filter(|_| budget.take_with(Priority::FirstSeen, trust, at(0)).is_ok()).count()
    };
    assert_eq!((count(Trust::FULL), count(Trust::NONE)), (20, 10));
}

#[test]
fn a_rate_is_tried_for_while_calls_wait_and_halved_by_the_tenants_429() {
    let settings = BudgetSettings { rate_max: Some(15.0), burst: 2, wait: SECOND, ..settings() };
    let mut budget = Budget::new(&settings);
    let rate = |budget: &Budget, millis| budget.status(at(millis)).rate.round();
    for second in 0..8 {
        let now = at(second * 1_000);
        assert_eq!(rate(&budget, second * 1_000), (10.0 + second as f64).min(15.0));
        while reserve(&mut budget, Priority::Foreground, now).is_ok() {}
    }
    budget.limited(at(8_000));
    assert_eq!(rate(&budget, 8_000), 10.0, "no less than what is configured");
    for second in 9..20 {
        while reserve(&mut budget, Priority::FirstSeen, at(second * 1_000)).is_ok() {}
    }
    assert_eq!(rate(&budget, 20_000), 15.0);
    let mut fixed = waiting();
    while reserve(&mut fixed, Priority::Foreground, at(0)).is_ok() {}
    assert_eq!(rate(&fixed, 0), 10.0, "off by default");
}

proptest! {
    /// Calls that wait keep to the same bound as calls that do not, nobody waits longer than the longest
    /// wait, and the wait that a reservation returns is kept for all but first-seen calls.
    #[test]
    fn waiting_changes_when_calls_leave_and_not_how_many(
        rate in 0.5_f64..50.0,
        burst in 1_u32..20,
        calls in prop::collection::vec((0_u64..300_000, priority(), any::<bool>()), 0..120),
    ) {
        let settings = BudgetSettings { rate, burst, wait: SECOND, ..settings() };
        let mut budget = Budget::new(&settings);
        let mut now = Ticks::ZERO;
        let mut line: Vec<(Ticks, Ticks, Priority, Reservation)> = Vec::new();
        let mut left: Vec<Ticks> = Vec::new();
        for (step, priority, hangs_up) in calls {
            let next = now.after(Duration::from_micros(step));
            loop {
                line.sort_by_key(|(due, ..)| *due);
                if line.first().is_none_or(|(due, ..)| *due > next) {
                    break;
                }
                let (due, since, priority, mut reservation) = line.remove(0);
                match budget.claim(&mut reservation, Trust::FULL, due) {
                    Ok(Duration::ZERO) => {
                        prop_assert!(due.since(since) <= SECOND);
                        left.push(due);
                    }
                    Ok(wait) => {
                        prop_assert_eq!(priority, Priority::FirstSeen);
                        line.push((due.after(wait), since, priority, reservation));
                    }
                    Err(_) => {
                        prop_assert_eq!(priority, Priority::FirstSeen);
                        budget.cancel(reservation);
                    }
                }
            }
            now = next;
            let strangers = line.iter().filter(|(.., priority, _)| *priority == Priority::FirstSeen).count();
            let known = line.len() - strangers;
            match reserve(&mut budget, priority, now) {
                Ok((reservation, _)) if hangs_up => budget.cancel(reservation),
                Ok((reservation, wait)) => {
                    if priority == Priority::Foreground {
                        // Behind known users, and one first-seen call that left just before.
                        let most = Duration::from_secs_f64((known as f64 + 1.0) / rate);
                        prop_assert!(wait <= most + Duration::from_micros(known as u64 + 2));
                    }
                    line.push((now.after(wait), now, priority, reservation));
                }
                Err(refused) => prop_assert!(refused.retry_after > Duration::ZERO),
            }
        }
        for (first, from) in left.iter().enumerate() {
            for (count, to) in left[first..].iter().enumerate() {
                let most = rate * to.since(*from).as_secs_f64() + f64::from(burst) + 1e-3;
                prop_assert!((count + 1) as f64 <= most, "{} calls in {:?}", count + 1, to.since(*from));
            }
        }
    }
}
