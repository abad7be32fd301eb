//! What the parts promise together, behind one lock.

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::clock::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

fn guarded(settings: GuardSettings) -> (Guard, Clock) {
    let clock = Clock::held_at(Timestamp::from_secs(1_000_000));
    (Guard::with_jitter(settings, clock.clone(), Box::new(|| 0.0)), clock)
}

fn guard() -> (Guard, Clock) {
    let budget = BudgetSettings { rate: 1_000.0, burst: 1_000, ..BudgetSettings::default() };
    guarded(GuardSettings { budget, ..GuardSettings::default() })
}

fn user(number: u8) -> Option<SubjectKey> {
    Some(SubjectKey::from_digest([number; 32]))
}

const FAILED: CallOutcome = CallOutcome::Failed { hold: None };
const LIMITED: CallOutcome = CallOutcome::RateLimited { hold: Some(Duration::from_secs(20)), limit: None };

fn call(guard: &Guard, subject: Option<SubjectKey>, outcome: CallOutcome) -> Option<Transition> {
    guard.admit(Priority::Foreground, subject).unwrap().finish(outcome)
}

/// As if the issuer had just rejected many tokens that it never saw before.
fn distrust(guard: &Guard) {
    let (mut parts, now) = guard.lock();
    (0..100).for_each(|_| parts.first_seen.answered(false, now));
}

fn reason(admitted: Result<Admission, Suppressed>) -> SuppressReason {
    admitted.unwrap_err().reason
}

#[test]
fn failures_open_the_breaker_and_the_next_call_after_the_wait_is_the_probe() {
    let (guard, clock) = guard();
    let opened = (0..10).find_map(|_| call(&guard, user(1), FAILED)).unwrap();
    assert_eq!((opened.to, opened.reason), (State::Open, Reason::Failures));
    let suppressed = guard.admit(Priority::Foreground, user(1)).unwrap_err();
    assert_eq!(suppressed, Suppressed { reason: SuppressReason::BreakerOpen, retry_after: SECOND * 5 });
    assert_eq!(suppressed.to_string(), "the issuer was not asked (breaker_open); ask again in 5 s");
    clock.advance(SECOND * 5);
    let probe = guard.admit(Priority::Foreground, user(1)).unwrap();
    assert_eq!(probe.transition().unwrap().to, State::HalfOpen);
    assert_eq!(reason(guard.admit(Priority::Foreground, user(2))), SuppressReason::BreakerOpen);
    assert_eq!(probe.finish(CallOutcome::Answered), None);
}

#[test]
fn how_long_a_call_took_is_measured() {
    let (guard, clock) = guard();
    let slow = (0..10).find_map(|_| {
        let admission = guard.admit(Priority::Foreground, None).unwrap();
        clock.advance(SECOND * 2);
        admission.finish(CallOutcome::Answered)
    });
    assert_eq!(slow.unwrap().reason, Reason::SlowCalls);
}

#[test]
fn a_dropped_admission_gives_the_probe_back() {
    let (guard, clock) = guard();
    guard.force(ForcedState::Open, SECOND);
    clock.advance(SECOND);
    drop(guard.admit(Priority::Foreground, None).unwrap());
    assert!(guard.admit(Priority::Foreground, None).is_ok());
}

#[test]
fn a_dropped_admission_counts_neither_way() {
    let (guard, _) = guard();
    for _ in 0..50 {
        drop(guard.admit(Priority::Foreground, None).unwrap());
    }
    for _ in 0..9 {
        assert_eq!(call(&guard, None, FAILED), None);
    }
    assert!(call(&guard, None, FAILED).is_some());
}

#[test]
fn a_limited_user_is_held_back_alone_and_the_breaker_stays_closed() {
    let (guard, clock) = guard();
    assert_eq!(call(&guard, user(1), LIMITED), None);
    let suppressed = guard.admit(Priority::Foreground, user(1)).unwrap_err();
    assert_eq!(suppressed, Suppressed { reason: SuppressReason::SubjectBackoff, retry_after: SECOND * 20 });
    assert_eq!(call(&guard, user(2), CallOutcome::Answered), None);
    assert_eq!((guard.status().state, guard.status().subjects_in_backoff), (State::Closed, 1));
    clock.advance(SECOND * 20);
    assert!(guard.admit(Priority::Foreground, user(1)).is_ok());
}

#[test]
fn a_limited_user_as_the_probe_leaves_the_place_to_the_next() {
    let (guard, clock) = guard();
    guard.force(ForcedState::Open, SECOND);
    clock.advance(SECOND);
    assert_eq!(call(&guard, user(1), LIMITED), None);
    assert_eq!(guard.status().state, State::HalfOpen);
    assert!(guard.admit(Priority::Foreground, user(2)).is_ok());
}

#[test]
fn three_limited_users_are_the_tenant() {
    let (guard, _) = guard();
    assert_eq!(call(&guard, user(1), LIMITED), None);
    assert_eq!(call(&guard, user(2), LIMITED), None);
    let opened = call(&guard, user(3), LIMITED).unwrap();
    assert_eq!((opened.reason, opened.open_for), (Reason::RateLimited, Some(SECOND * 20)));
}

#[test]
fn a_limit_that_no_user_has_or_a_call_about_nobody_is_the_tenant_at_once() {
    let (guard, _) = guard();
    let of_the_tenant = CallOutcome::RateLimited { hold: None, limit: Some(300) };
    assert_eq!(call(&guard, user(1), of_the_tenant).unwrap().reason, Reason::RateLimited);
    guard.reset();
    let of_a_user = CallOutcome::RateLimited { hold: None, limit: Some(10) };
    assert_eq!(call(&guard, user(1), of_a_user), None);
    assert_eq!(call(&guard, None, LIMITED).unwrap().reason, Reason::RateLimited);
}

#[test]
fn any_number_of_users_at_their_own_limit_are_not_the_tenant() {
    let (guard, _) = guard();
    let own = CallOutcome::RateLimited { hold: Some(SECOND * 12), limit: Some(10) };
    for number in 0..100 {
        assert_eq!(call(&guard, user(number), own), None);
        assert_eq!(reason(guard.admit(Priority::Foreground, user(number))), SuppressReason::SubjectBackoff);
    }
    assert_eq!(guard.status().state, State::Closed);
    assert!(guard.admit(Priority::Foreground, user(100)).is_ok());
}

fn first_seen(guard: &Guard, number: u8, outcome: CallOutcome) -> Option<Transition> {
    guard.admit(Priority::FirstSeen, user(number)).unwrap().finish(outcome)
}

#[test]
fn one_user_with_many_new_tokens_does_not_pass_for_many_users() {
    let (guard, _) = guard();
    let own = CallOutcome::RateLimited { hold: Some(SECOND * 12), limit: Some(10) };
    for number in 0..100 {
        assert_eq!(first_seen(&guard, number, own), None);
        assert_eq!(reason(guard.admit(Priority::FirstSeen, user(number))), SuppressReason::SubjectBackoff);
    }
    assert_eq!((guard.status().state, guard.status().first_seen_pause), (State::Closed, Duration::ZERO));
}

#[test]
fn a_429_to_an_unknown_token_that_names_no_limit_lets_unknown_tokens_pause_and_nobody_else() {
    let (guard, clock) = guard();
    assert_eq!(first_seen(&guard, 1, LIMITED), None);
    let suppressed = guard.admit(Priority::FirstSeen, user(2)).unwrap_err();
    assert_eq!(suppressed, Suppressed { reason: SuppressReason::FirstSeenBudget, retry_after: SECOND * 20 });
    assert_eq!(guard.status().first_seen_pause, SECOND * 20);
    assert_eq!(call(&guard, user(3), CallOutcome::Answered), None);
    clock.advance(SECOND * 20);
    assert!(guard.admit(Priority::FirstSeen, user(2)).is_ok());
}

#[test]
fn whatever_unknown_tokens_make_of_the_issuer_the_breaker_stays_closed() {
    for outcome in [FAILED, CallOutcome::BadAnswer, CallOutcome::Declined] {
        let (guard, clock) = guard();
        let mut asked = 0;
        for number in 0..200 {
            if let Ok(admission) = guard.admit(Priority::FirstSeen, user(number)) {
                asked += 1;
                assert_eq!(admission.finish(outcome), None, "{outcome:?}");
            }
            assert_eq!(call(&guard, user(255), CallOutcome::Answered), None);
        }
        assert_eq!(guard.status().state, State::Closed);
        // What the issuer declines is an answer about that one token; failures in a row let all their like
        // pause.
        assert_eq!(asked, if outcome == CallOutcome::Declined { 200 } else { 10 }, "{outcome:?}");
        clock.advance(SECOND * 5);
        assert!(guard.admit(Priority::FirstSeen, user(201)).is_ok());
    }
    // But no token can cause a refused connection.
    let (guard, _) = guard();
    let opened = (0..10).find_map(|number| first_seen(&guard, number, CallOutcome::Unreachable));
    assert_eq!(opened.unwrap().reason, Reason::Failures);
}

#[test]
fn an_unknown_token_is_a_good_probe_and_never_a_bad_one() {
    let (guard, clock) = guard();
    guard.force(ForcedState::Open, SECOND);
    clock.advance(SECOND);
    for outcome in [CallOutcome::Answered, FAILED, CallOutcome::Answered, CallOutcome::BadAnswer] {
        assert_eq!(first_seen(&guard, 1, outcome), None);
        assert_eq!(guard.status().state, State::HalfOpen);
        clock.advance(SECOND * 5);
    }
    assert_eq!(first_seen(&guard, 1, CallOutcome::Answered).unwrap().to, State::Closed);
}

#[test]
fn one_user_whose_answers_are_odd_counts_once_and_many_are_the_endpoint() {
    let (guard, clock) = guard();
    for _ in 0..100 {
        assert_eq!(call(&guard, user(1), CallOutcome::BadAnswer), None);
        assert_eq!(reason(guard.admit(Priority::Foreground, user(1))), SuppressReason::SubjectBackoff);
        clock.advance(SECOND * 60);
    }
    assert_eq!(guard.status().state, State::Closed);
    assert_eq!(call(&guard, user(2), CallOutcome::Answered), None);
    let opened = (10..20).find_map(|number| call(&guard, user(number), CallOutcome::BadAnswer)).unwrap();
    assert_eq!(opened.reason, Reason::Failures);
}

#[test]
fn who_was_odd_before_does_not_keep_the_breaker_from_closing_and_who_was_not_does() {
    let (guard, clock) = guard();
    assert_eq!(call(&guard, user(1), CallOutcome::BadAnswer), None);
    clock.advance(SECOND * 60);
    guard.force(ForcedState::Open, SECOND);
    clock.advance(SECOND);
    assert_eq!(call(&guard, user(1), CallOutcome::BadAnswer), None);
    assert_eq!(guard.status().state, State::HalfOpen);
    assert_eq!(reason(guard.admit(Priority::Foreground, user(1))), SuppressReason::SubjectBackoff);
    assert_eq!(call(&guard, user(2), CallOutcome::BadAnswer).unwrap().reason, Reason::ProbeFailed);
}

#[test]
fn what_the_issuer_declines_for_a_user_counts_neither_way() {
    let (guard, _) = guard();
    for number in 0..100 {
        assert_eq!(call(&guard, user(number), CallOutcome::Declined), None);
        assert_eq!(reason(guard.admit(Priority::Foreground, user(number))), SuppressReason::SubjectBackoff);
    }
    // For a call about nobody it is a failure: no token caused it.
    let opened = (0..10).find_map(|_| call(&guard, None, CallOutcome::Declined));
    assert_eq!(opened.unwrap().reason, Reason::Failures);
}

#[test]
fn refused_by_the_budget_is_no_failure() {
    let budget = BudgetSettings {
        rate: 1.0,
        burst: 4,
        first_seen_share: 0.25,
        wait: Duration::ZERO,
        ..BudgetSettings::default()
    };
    let (guard, _) = guarded(GuardSettings { budget, ..GuardSettings::default() });
    distrust(&guard);
    assert!(guard.admit(Priority::FirstSeen, user(1)).is_ok());
    assert_eq!(reason(guard.admit(Priority::FirstSeen, user(2))), SuppressReason::FirstSeenBudget);
    assert!(guard.admit(Priority::Background, user(3)).is_ok());
    assert_eq!(reason(guard.admit(Priority::Background, user(3))), SuppressReason::Budget);
    assert!(guard.admit(Priority::Foreground, None).is_ok());
    assert!(guard.admit(Priority::Foreground, None).is_ok());
    for _ in 0..100 {
        assert_eq!(reason(guard.admit(Priority::Foreground, None)), SuppressReason::Budget);
    }
    assert_eq!((guard.status().state, guard.status().budget.available), (State::Closed, 0));
}

#[test]
fn a_call_that_cannot_leave_spends_no_budget() {
    let (guard, clock) = guarded(GuardSettings::default());
    guard.force(ForcedState::Open, SECOND);
    for _ in 0..100 {
        assert_eq!(reason(guard.admit(Priority::Foreground, None)), SuppressReason::BreakerOpen);
    }
    assert_eq!(guard.status().budget.available, 20);
    clock.advance(SECOND);
    assert!(guard.admit(Priority::Foreground, None).is_ok());
}

#[test]
fn a_budget_that_is_spent_leaves_an_opening_that_is_over_untouched() {
    let budget = BudgetSettings { rate: 0.1, burst: 1, ..BudgetSettings::default() };
    let (guard, clock) = guarded(GuardSettings { budget, ..GuardSettings::default() });
    let opened = call(&guard, None, CallOutcome::RateLimited { hold: Some(SECOND), limit: None }).unwrap();
    clock.advance(SECOND);
    assert_eq!(reason(guard.admit(Priority::Foreground, None)), SuppressReason::Budget);
    clock.advance(SECOND * 9);
    let half_open = guard.admit(Priority::Foreground, None).unwrap().transition().unwrap();
    assert_eq!((half_open.from, half_open.to), (opened.to, State::HalfOpen));
}

#[test]
fn the_tenants_headers_teach_the_budget_and_a_users_own_hold_the_user_back() {
    let (guard, _) = guarded(GuardSettings::default());
    let admission = guard.admit(Priority::Foreground, user(1)).unwrap();
    admission.observe(Allowance { limit: Some(10), remaining: 4, reset_in: SECOND * 60 });
    assert_eq!(guard.status().budget.available, 19);
    assert!(guard.admit(Priority::Foreground, user(1)).is_ok());
    admission.observe(Allowance { limit: Some(10), remaining: 0, reset_in: SECOND * 60 });
    assert_eq!(reason(guard.admit(Priority::Foreground, user(1))), SuppressReason::SubjectBackoff);
    admission.observe(Allowance { limit: Some(300), remaining: 2, reset_in: SECOND * 60 });
    assert_eq!(guard.status().budget.available, 2);
    assert_eq!(guard.status().budget.learned, Some((2, SECOND * 60)));
    admission.finish(CallOutcome::Answered);
}

#[test]
fn force_and_reset_show_in_the_status() {
    let (guard, clock) = guard();
    guard.force(ForcedState::Open, SECOND * 60);
    let status = guard.status();
    assert_eq!((status.state, status.reason), (State::Open, Some(Reason::Forced)));
    assert_eq!((status.refuses_for, status.forced_for), (SECOND * 60, Some(SECOND * 60)));
    clock.advance(SECOND * 10);
    let status = guard.status();
    assert_eq!((status.since, status.forced_for), (Some(SECOND * 10), Some(SECOND * 50)));
    assert_eq!(guard.reset().to, State::Closed);
    let status = guard.status();
    assert_eq!((status.refuses_for, status.forced_for), (Duration::ZERO, None));
    guard.force(ForcedState::Open, Duration::MAX);
    assert_eq!(guard.status().forced_for, Some(breaker::LONGEST_FORCED));
    guard.force(ForcedState::Closed, SECOND * 60);
    for _ in 0..100 {
        assert_eq!(call(&guard, None, FAILED), None);
    }
    assert_eq!(guard.status().state, State::Closed);
}

#[test]
fn while_the_breaker_is_half_open_many_threads_get_one_probe() {
    let (guard, clock) = guard();
    guard.force(ForcedState::Open, SECOND);
    clock.advance(SECOND);
    let admissions: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..16).map(|_| scope.spawn(|| guard.admit(Priority::Foreground, None).ok())).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(admissions.len(), 1);
}

#[test]
fn the_default_jitter_is_a_share_and_not_always_the_same() {
    let jitter = random_jitter();
    let numbers: Vec<_> = (0..100).map(|_| jitter()).collect();
    assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    assert!(numbers.iter().any(|number| *number < 0.4) && numbers.iter().any(|number| *number > 0.6));
    assert!(random_jitter()().to_bits() != jitter().to_bits());
}
