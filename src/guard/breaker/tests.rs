//! The breaker's rules one by one, then properties over arbitrary schedules.

use proptest::prelude::*;

use super::settings::LONGEST;
use super::*;

const FAST: Duration = Duration::from_millis(50);
const FAILED: Outcome = Outcome::Failure { until: None };
const FINE: Outcome = Outcome::Success;
const LIMITED: Outcome = Outcome::RateLimited { until: None };

fn at(millis: u64) -> Ticks {
    Ticks::from_elapsed(Duration::from_millis(millis))
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn breaker() -> Breaker {
    Breaker::new(BreakerSettings::default())
}

/// One whole call, with no jitter.
fn call(breaker: &mut Breaker, outcome: Outcome, now: Ticks) -> Option<Transition> {
    let permit = breaker.try_acquire(now).unwrap();
    breaker.record(permit, outcome, FAST, now, 0.0)
}

/// A breaker that ten failures opened at time zero, for 5 s.
fn opened() -> Breaker {
    let mut breaker = breaker();
    let transition = (0..10).find_map(|_| call(&mut breaker, FAILED, at(0))).unwrap();
    assert_eq!(transition.open_for, Some(secs(5)));
    breaker
}

#[test]
fn ten_failures_open_it_and_nine_do_not() {
    let mut breaker = breaker();
    for _ in 0..9 {
        assert_eq!(call(&mut breaker, FAILED, at(0)), None);
    }
    let opened = call(&mut breaker, FAILED, at(0)).unwrap();
    let expected = Transition {
        from: State::Closed,
        to: State::Open,
        reason: Reason::Failures,
        open_for: Some(secs(5)),
    };
    assert_eq!(opened, expected);
    assert_eq!(breaker.try_acquire(at(1_000)).unwrap_err(), Refused { retry_after: secs(4) });
    assert_eq!((breaker.state(at(4_999)), breaker.reason()), (State::Open, Some(Reason::Failures)));
}

#[test]
fn half_of_the_calls_failing_opens_it_and_fewer_does_not() {
    let mut breaker = breaker();
    for number in 0..199 {
        // 100 successes, then 99 failures.
        assert_eq!(call(&mut breaker, if number < 100 { FINE } else { FAILED }, at(0)), None);
    }
    assert_eq!(call(&mut breaker, FAILED, at(0)).unwrap().reason, Reason::Failures);
}

#[test]
fn slow_calls_open_it_even_if_they_succeed() {
    let mut breaker = breaker();
    let slow = (0..10).find_map(|_| {
        let permit = breaker.try_acquire(at(0)).unwrap();
        breaker.record(permit, FINE, secs(2), at(0), 0.0)
    });
    assert_eq!(slow.unwrap().reason, Reason::SlowCalls);
}

#[test]
fn failures_older_than_the_window_do_not_count_once_a_call_was_good() {
    let mut breaker = breaker();
    for _ in 0..8 {
        call(&mut breaker, FAILED, at(0));
    }
    call(&mut breaker, FINE, at(0));
    for _ in 0..9 {
        assert_eq!(call(&mut breaker, FAILED, at(30_000)), None);
    }
    assert_eq!(breaker.state(at(30_000)), State::Closed);
}

#[test]
fn ten_failures_in_a_row_open_it_however_far_apart_they_are() {
    let mut breaker = breaker();
    let hour = 3_600_000;
    for number in 0..9 {
        assert_eq!(call(&mut breaker, FAILED, at(number * hour)), None);
    }
    let opened = call(&mut breaker, FAILED, at(9 * hour)).unwrap();
    assert_eq!((opened.reason, opened.open_for), (Reason::Failures, Some(secs(5))));
    // Closed again, it counts from zero.
    for _ in 0..3 {
        call(&mut breaker, FINE, at(10 * hour));
    }
    for number in 11..20 {
        assert_eq!(call(&mut breaker, FAILED, at(number * hour)), None);
    }
}

#[test]
fn a_failure_that_says_how_long_to_wait_is_not_tried_again_sooner() {
    for (asked, expected) in [(0, 5), (3, 5), (120, 120), (86_400, 300)] {
        let mut breaker = breaker();
        let outcome = Outcome::Failure { until: Some(secs(asked)) };
        let opened = (0..10).find_map(|_| call(&mut breaker, outcome, at(0))).unwrap();
        assert_eq!((opened.reason, opened.open_for), (Reason::Failures, Some(secs(expected))));
    }
    // The openings grow all the same.
    let outcome = Outcome::Failure { until: Some(secs(1)) };
    assert_eq!(call(&mut opened(), outcome, at(5_000)).unwrap().open_for, Some(secs(10)));
}

#[test]
fn a_rate_limit_of_the_tenant_opens_it_at_once_for_as_long_as_it_says_within_bounds() {
    for (asked, expected) in [(0, 1), (7, 7), (86_400, 300)] {
        let mut breaker = breaker();
        let outcome = Outcome::RateLimited { until: Some(secs(asked)) };
        let transition = call(&mut breaker, outcome, at(0)).unwrap();
        assert_eq!((transition.reason, transition.open_for), (Reason::RateLimited, Some(secs(expected))));
    }
    assert_eq!(call(&mut breaker(), LIMITED, at(0)).unwrap().open_for, Some(secs(5)));
}

#[test]
fn three_probes_one_after_the_other_close_it() {
    let mut breaker = opened();
    assert_eq!(breaker.state(at(5_000)), State::HalfOpen);
    let first = breaker.try_acquire(at(5_000)).unwrap();
    assert_eq!(first.transition().unwrap().reason, Reason::WaitOver);
    assert_eq!(breaker.try_acquire(at(5_000)).unwrap_err().retry_after, PROBE_WAIT);
    assert_eq!(breaker.record(first, FINE, FAST, at(5_100), 0.0), None);
    assert_eq!(call(&mut breaker, FINE, at(5_100)), None);
    let closed = call(&mut breaker, FINE, at(5_100)).unwrap();
    let expected =
        Transition { from: State::HalfOpen, to: State::Closed, reason: Reason::Recovered, open_for: None };
    assert_eq!(closed, expected);
    // The failures from before are forgotten: one more does not open it.
    assert_eq!(call(&mut breaker, FAILED, at(5_200)), None);
}

#[test]
fn each_opening_in_a_row_lasts_twice_as_long_up_to_the_maximum() {
    let mut breaker = opened();
    let mut now = at(5_000);
    let mut lengths = Vec::new();
    for _ in 0..8 {
        let open_for = call(&mut breaker, FAILED, now).unwrap().open_for.unwrap();
        lengths.push(open_for.as_secs());
        now = now.after(open_for);
    }
    assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300]);
}

#[test]
fn after_recovery_the_next_opening_is_short_again() {
    let mut breaker = opened();
    assert_eq!(call(&mut breaker, FAILED, at(5_000)).unwrap().open_for, Some(secs(10)));
    for _ in 0..3 {
        call(&mut breaker, FINE, at(15_000));
    }
    assert_eq!(breaker.state(at(15_000)), State::Closed);
    let again = (0..10).find_map(|_| call(&mut breaker, FAILED, at(15_000))).unwrap();
    assert_eq!(again.open_for, Some(secs(5)));
}

#[test]
fn jitter_shortens_by_at_most_a_fifth_and_nonsense_does_no_harm() {
    for (jitter, millis) in
        [(0.0, 5_000), (0.5, 4_500), (1.0, 4_000), (7.0, 4_000), (-1.0, 5_000), (f64::NAN, 5_000)]
    {
        let mut breaker = breaker();
        let permit = breaker.try_acquire(at(0)).unwrap();
        let opened = breaker.record(permit, LIMITED, FAST, at(0), jitter).unwrap();
        assert_eq!(opened.open_for, Some(Duration::from_millis(millis)), "{jitter}");
    }
}

#[test]
fn a_slow_answer_to_a_probe_is_not_well_yet() {
    let mut breaker = opened();
    let permit = breaker.try_acquire(at(5_000)).unwrap();
    let transition = breaker.record(permit, FINE, secs(2), at(7_000), 0.0).unwrap();
    assert_eq!((transition.reason, transition.open_for), (Reason::ProbeSlow, Some(secs(10))));
}

#[test]
fn late_results_neither_reopen_nor_close_it() {
    let mut breaker = breaker();
    let mut late: Vec<_> = (0..20).map(|_| breaker.try_acquire(at(0)).unwrap()).collect();
    for _ in 0..10 {
        call(&mut breaker, FAILED, at(0));
    }
    let state = |breaker: &Breaker, now| (breaker.state(now), breaker.refusal(now));
    let before = state(&breaker, at(1_000));
    assert_eq!(breaker.record(late.pop().unwrap(), LIMITED, FAST, at(1_000), 0.0), None);
    assert_eq!(breaker.record(late.pop().unwrap(), FINE, FAST, at(1_000), 0.0), None);
    assert_eq!(state(&breaker, at(1_000)), before);
    // Half-open: neither successes nor failures nor cancellations from before touch the probe.
    let probe = breaker.try_acquire(at(5_000)).unwrap();
    for (number, permit) in late.drain(..).enumerate() {
        match number % 3 {
            0 => assert_eq!(breaker.record(permit, FINE, FAST, at(5_000), 0.0), None),
            1 => assert_eq!(breaker.record(permit, FAILED, FAST, at(5_000), 0.0), None),
            _ => breaker.cancel(permit),
        }
        assert!(breaker.try_acquire(at(5_000)).is_err(), "a second probe was let through");
    }
    assert_eq!(breaker.record(probe, FAILED, FAST, at(5_100), 0.0).unwrap().reason, Reason::ProbeFailed);
}

/// The most dangerous late result: a 429 from before the outage, which comes in when all is well again.
#[test]
fn a_result_from_before_the_opening_means_nothing_after_recovery() {
    let mut breaker = breaker();
    let mut late: Vec<_> = (0..20).map(|_| breaker.try_acquire(at(0)).unwrap()).collect();
    for _ in 0..10 {
        call(&mut breaker, FAILED, at(0));
    }
    for _ in 0..3 {
        call(&mut breaker, FINE, at(5_000));
    }
    assert_eq!(breaker.state(at(5_000)), State::Closed);
    assert_eq!(breaker.record(late.pop().unwrap(), LIMITED, FAST, at(5_000), 0.0), None);
    for permit in late {
        assert_eq!(breaker.record(permit, FAILED, secs(3), at(5_000), 0.0), None);
    }
    assert_eq!((breaker.state(at(5_000)), breaker.window.counts(at(5_000)).calls), (State::Closed, 0));
}

#[test]
fn a_cancelled_probe_frees_its_place_at_once_and_a_vanished_one_when_its_lease_is_over() {
    let mut breaker = opened();
    let probe = breaker.try_acquire(at(5_000)).unwrap();
    breaker.cancel(probe);
    let vanished = breaker.try_acquire(at(5_000)).unwrap();
    assert!(breaker.try_acquire(at(14_999)).is_err());
    let next = breaker.try_acquire(at(15_000)).unwrap();
    // The vanished one turns up after all: too late to mean anything.
    assert_eq!(breaker.record(vanished, FAILED, FAST, at(15_000), 0.0), None);
    assert_eq!(breaker.record(next, FINE, FAST, at(15_000), 0.0), None);
    assert_eq!(breaker.state(at(15_000)), State::HalfOpen);
}

#[test]
fn forced_open_lets_nothing_through_until_its_expiry_and_then_probes() {
    let mut breaker = breaker();
    let forced = breaker.force(ForcedState::Open, at(60_000), at(0));
    assert_eq!((forced.to, forced.reason, forced.open_for), (State::Open, Reason::Forced, Some(secs(60))));
    assert!(breaker.try_acquire(at(59_999)).is_err());
    assert_eq!(
        (breaker.since(at(59_999)), breaker.forced_until(at(59_999))),
        (Some(at(0)), Some(at(60_000)))
    );
    assert_eq!((breaker.since(at(70_000)), breaker.forced_until(at(70_000))), (Some(at(60_000)), None));
    assert!(breaker.try_acquire(at(60_000)).unwrap().transition().is_some());
}

#[test]
fn forced_closed_stays_closed_until_its_expiry_and_then_opens_again() {
    let mut breaker = opened();
    assert_eq!(breaker.force(ForcedState::Closed, at(20_000), at(1_000)).to, State::Closed);
    for _ in 0..50 {
        assert_eq!(call(&mut breaker, FAILED, at(19_000)), None);
        assert_eq!(call(&mut breaker, LIMITED, at(19_000)), None);
    }
    assert_eq!(
        (breaker.since(at(19_000)), breaker.forced_until(at(19_000))),
        (Some(at(1_000)), Some(at(20_000)))
    );
    assert_eq!(breaker.forced_until(at(20_000)), None);
    assert_eq!(call(&mut breaker, FAILED, at(20_000)).unwrap().reason, Reason::Failures);
    assert_eq!(breaker.forced_until(at(20_001)), None, "it opened by itself");
}

#[test]
fn reset_closes_it_and_forgets() {
    let mut breaker = opened();
    call(&mut breaker, FAILED, at(5_000));
    let expected = Transition { from: State::Open, to: State::Closed, reason: Reason::Reset, open_for: None };
    assert_eq!(breaker.reset(at(5_000)), expected);
    assert_eq!((breaker.since(at(9_000)), breaker.forced_until(at(9_000))), (Some(at(5_000)), None));
    for _ in 0..9 {
        assert_eq!(call(&mut breaker, FAILED, at(6_000)), None);
    }
    assert_eq!(call(&mut breaker, FAILED, at(6_000)).unwrap().open_for, Some(secs(5)));
}

/// What may happen to a breaker, in any order.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ask,
    /// A whole call: it asks, and ends at once.
    Call(Outcome, u64, f64),
    /// Waits until an opening is over, and makes some calls that are good: what a recovery looks like.
    Recover(usize),
    /// Ends one of the calls under way, chosen by the number.
    End(usize, Outcome, u64, f64),
    Cancel(usize),
    /// A caller that disappears without recording or cancelling.
    Vanish(usize),
    /// An operator.
    Force(ForcedState, u64),
    Reset,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let wait = || prop::option::of((0_u64..1_000).prop_map(Duration::from_secs));
    prop_oneof![
        6 => Just(FINE),
        6 => Just(FAILED),
        1 => wait().prop_map(|until| Outcome::Failure { until }),
        1 => wait().prop_map(|until| Outcome::RateLimited { until }),
    ]
}

/// Mostly fast: half of all calls being slow would open it all the time.
fn took() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..500, 1 => 2_000_u64..4_000]
}

fn step() -> impl Strategy<Value = Step> {
    let forced = prop_oneof![Just(ForcedState::Open), Just(ForcedState::Closed)];
    prop_oneof![
        12 => prop_oneof![0_u64..100, 0_u64..8_000, 0_u64..400_000].prop_map(Step::Wait),
        24 => Just(Step::Ask),
        36 => (outcome(), took(), 0.0..=1.0)
            .prop_map(|(outcome, took, jitter)| Step::Call(outcome, took, jitter)),
        8 => (1_usize..6).prop_map(Step::Recover),
        24 => (any::<usize>(), outcome(), took(), 0.0..=1.0)
            .prop_map(|(which, outcome, took, jitter)| Step::End(which, outcome, took, jitter)),
        4 => any::<usize>().prop_map(Step::Cancel),
        4 => any::<usize>().prop_map(Step::Vanish),
        1 => (forced, 0_u64..60_000).prop_map(|(forced, lasting)| Step::Force(forced, lasting)),
        1 => Just(Step::Reset),
    ]
}

/// The breaker, and the knowledge of an outside observer: the calls, their results, and the reported
/// transitions. From that alone the observer predicts what must happen next.
struct World {
    breaker: Breaker,
    now: u64,
    calls: u64,
    /// Each with the number of transitions and probes before it.
    under_way: Vec<(u64, u64, Permit)>,
    /// Transitions and probes so far.
    era: u64,
    state: State,
    open_until: Option<u64>,
    /// Until when an operator keeps it closed.
    forced_until: Option<u64>,
    /// The number of the latest probe and its time, while it was not given back.
    probe: Option<(u64, u64)>,
    /// Good probes since it became half-open.
    good_probes: u32,
    /// What ended since it was closed: the slice of the window, whether it failed, whether it was slow.
    ended: Vec<(u64, bool, bool)>,
}

impl World {
    fn after(steps: Vec<Step>) -> Result<Self, TestCaseError> {
        let mut world = Self {
            breaker: breaker(),
            now: 0,
            calls: 0,
            under_way: Vec::new(),
            era: 0,
            state: State::Closed,
            open_until: None,
            forced_until: None,
            probe: None,
            good_probes: 0,
            ended: Vec::new(),
        };
        for step in steps {
            world.step(step)?;
        }
        Ok(world)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(millis) => self.now += millis,
            Step::Ask => {
                self.ask()?;
            }
            Step::Call(outcome, took, jitter) => {
                if self.ask()? {
                    self.end(self.under_way.len() - 1, outcome, took, jitter)?;
                }
            }
            Step::Recover(calls) => {
                self.now = self.now.max(self.open_until.unwrap_or(0));
                for _ in 0..calls {
                    if self.ask()? {
                        self.end(self.under_way.len() - 1, FINE, 50, 0.0)?;
                    }
                }
            }
            Step::End(which, outcome, took, jitter) => self.end(which, outcome, took, jitter)?,
            Step::Cancel(which) => {
                if let Some((number, _, permit)) = self.take(which) {
                    self.probe.take_if(|(probe, _)| *probe == number);
                    self.breaker.cancel(permit);
                }
            }
            Step::Vanish(which) => drop(self.take(which)),
            Step::Force(forced, lasting) => {
                let until = self.now + lasting;
                let transition = self.breaker.force(forced, at(until), at(self.now));
                prop_assert_eq!(transition.reason, Reason::Forced);
                self.observe(transition);
                self.forced_until = (forced == ForcedState::Closed).then_some(until);
            }
            Step::Reset => {
                let transition = self.breaker.reset(at(self.now));
                prop_assert_eq!((transition.to, transition.reason), (State::Closed, Reason::Reset));
                self.observe(transition);
            }
        }
        Ok(())
    }

    /// Whether a call leaves.
    fn ask(&mut self) -> Result<bool, TestCaseError> {
        let still_open = self.open_until.is_some_and(|until| self.now < until);
        let probe_under_way = self.probe.is_some_and(|(_, since)| self.now < since + 10_000);
        match self.breaker.try_acquire(at(self.now)) {
            Ok(permit) => {
                prop_assert!(!still_open, "a call passed while open");
                prop_assert!(!probe_under_way, "a second probe at once");
                if let Some(transition) = permit.transition() {
                    self.observe_unforced(transition)?;
                }
                self.calls += 1;
                if self.state == State::HalfOpen {
                    self.era += 1;
                    self.probe = Some((self.calls, self.now));
                }
                self.under_way.push((self.calls, self.era, permit));
                Ok(true)
            }
            Err(refused) => {
                prop_assert!(still_open || probe_under_way, "refused without a reason");
                prop_assert!(refused.retry_after > Duration::ZERO);
                Ok(false)
            }
        }
    }

    fn end(&mut self, which: usize, outcome: Outcome, took: u64, jitter: f64) -> Result<(), TestCaseError> {
        let Some((number, era, permit)) = self.take(which) else { return Ok(()) };
        self.probe.take_if(|(probe, _)| *probe == number);
        let expected = if era == self.era { self.expected(outcome, took) } else { None };
        let took = Duration::from_millis(took);
        let transition = self.breaker.record(permit, outcome, took, at(self.now), jitter);
        prop_assert_eq!(transition.map(|transition| transition.reason), expected);
        if let Some(transition) = transition {
            self.observe_unforced(transition)?;
        }
        Ok(())
    }

    /// The naive model: why the result of a call that is not late must move the breaker, if it must. It keeps
    /// all results for ever, and counts those of the last ten slices of three seconds.
    fn expected(&mut self, outcome: Outcome, took: u64) -> Option<Reason> {
        let (failed, slow) = (outcome != FINE, took >= 2_000);
        let limited = matches!(outcome, Outcome::RateLimited { .. });
        if self.state == State::HalfOpen {
            self.good_probes += u32::from(!failed && !slow);
            return match (failed, slow) {
                _ if limited => Some(Reason::RateLimited),
                (true, _) => Some(Reason::ProbeFailed),
                (_, true) => Some(Reason::ProbeSlow),
                _ => (self.good_probes == 3).then_some(Reason::Recovered),
            };
        }
        self.ended.push((self.now / 3_000, failed, slow));
        if self.forced_until.is_some_and(|until| self.now < until) {
            return None;
        }
        let recent: Vec<_> = self.ended.iter().filter(|(slice, ..)| slice + 10 > self.now / 3_000).collect();
        let half = |count: usize| 2 * count >= recent.len();
        let in_a_row = self.ended.iter().rev().take_while(|(_, failed, _)| *failed).count();
        if limited {
            Some(Reason::RateLimited)
        } else if recent.len() < 10 {
            (in_a_row >= 10).then_some(Reason::Failures)
        } else if half(recent.iter().filter(|(_, failed, _)| *failed).count()) {
            Some(Reason::Failures)
        } else {
            half(recent.iter().filter(|(.., slow)| *slow).count()).then_some(Reason::SlowCalls)
        }
    }

    fn take(&mut self, which: usize) -> Option<(u64, u64, Permit)> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.swap_remove(which % count))
    }

    fn observe_unforced(&mut self, transition: Transition) -> Result<(), TestCaseError> {
        prop_assert_eq!(transition.from, self.state, "transitions do not join");
        prop_assert_ne!(transition.from, transition.to);
        prop_assert_eq!(transition.to == State::Open, transition.open_for.is_some());
        let longest = BreakerSettings::default().open_for_max;
        prop_assert!(transition.open_for.is_none_or(|wait| wait >= secs(1) && wait <= longest));
        self.observe(transition);
        Ok(())
    }

    fn observe(&mut self, transition: Transition) {
        self.era += 1;
        self.open_until = transition.open_for.map(|wait| self.now + wait.as_millis() as u64);
        self.state = transition.to;
        (self.probe, self.forced_until, self.good_probes) = (None, None, 0);
        if transition.to == State::Closed {
            self.ended.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No call passes while open; half-open has one probe at a time; nothing else is ever refused; it moves
    /// when the naive model says so, and late results never move it.
    #[test]
    fn any_schedule_keeps_the_rules(steps in prop::collection::vec(step(), 0..400)) {
        World::after(steps)?;
    }

    /// Whatever happened, and whichever caller vanished with a permit: in the longest opening, a lease and 3
    /// calls it is closed again.
    #[test]
    fn once_the_upstream_is_well_it_always_recovers(steps in prop::collection::vec(step(), 0..400)) {
        let World { mut breaker, now, under_way, .. } = World::after(steps)?;
        let settings = BreakerSettings::default();
        let later = at(now).after(settings.open_for_max).after(settings.probe_lease).after(settings.window);
        for _ in 0..settings.probes {
            let permit = breaker.try_acquire(later);
            prop_assert!(permit.is_ok(), "a permit leaked");
            breaker.record(permit.unwrap(), FINE, FAST, later, 0.0);
        }
        prop_assert_eq!(breaker.state(later), State::Closed);
        drop(under_way);
    }

    /// Whatever happened before, and however far apart the calls are: if every call fails, it opens within as
    /// many as say anything, or as many as were made just before, unless an operator keeps it closed.
    #[test]
    fn it_never_stays_closed_when_every_call_fails(
        steps in prop::collection::vec(step(), 0..400),
        apart in prop::collection::vec(prop_oneof![0_u64..2_000, 0_u64..100_000, 0_u64..10_000_000], 1..20),
    ) {
        let World { mut breaker, now, forced_until, .. } = World::after(steps)?;
        let mut now = at(now.max(forced_until.unwrap_or(0)));
        let enough = breaker.window.counts(now).calls.max(BreakerSettings::default().minimum_calls);
        for (calls, apart) in (0..).zip(apart.into_iter().cycle()) {
            if breaker.state(now) != State::Closed {
                break;
            }
            prop_assert!(calls < enough, "still closed after {calls} failures");
            call(&mut breaker, FAILED, now);
            now = now.after(Duration::from_millis(apart));
        }
    }

    /// Settings that make no sense give a breaker that still works.
    #[test]
    fn no_settings_make_it_stick(
        millis in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 5),
        counts in prop::collection::vec(prop_oneof![Just(0_u32), 0_u32..50], 2),
        rates in prop::collection::vec(prop_oneof![Just(f64::NAN), any::<f64>()], 2),
        jitter in any::<f64>(),
    ) {
        let millis: Vec<_> = millis.into_iter().map(Duration::from_millis).collect();
        let settings = BreakerSettings {
            window: millis[0],
            minimum_calls: counts[0],
            failure_rate: rates[0],
            slow_call: millis[1].max(secs(1)),
            slow_rate: rates[1],
            open_for: millis[2],
            open_for_max: millis[3],
            probes: counts[1],
            probe_lease: millis[4],
        };
        let mut breaker = Breaker::new(settings);
        for _ in 0..50 {
            if let Ok(permit) = breaker.try_acquire(at(0)) {
                breaker.record(permit, FAILED, FAST, at(0), jitter);
            }
        }
        prop_assert_eq!(breaker.state(at(0)), State::Open);
        let later = at(0).after(LONGEST);
        for _ in 0..50 {
            call(&mut breaker, FINE, later);
        }
        prop_assert_eq!(breaker.state(later), State::Closed);
    }
}
