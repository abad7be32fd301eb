//! Calls that wait, on a clock that is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::guard::{BudgetSettings, CallOutcome, ForcedState, GuardSettings, State};

const SECOND: Duration = Duration::from_secs(1);

type Admitted = Result<(Admission, Duration), Suppressed>;

/// Ten calls a second, two at once, and calls wait for up to a second.
fn guard() -> (Guard, Clock) {
    let clock = Clock::held_at(Timestamp::from_secs(1_000_000));
    let budget = BudgetSettings { rate: 10.0, burst: 2, wait: SECOND, ..BudgetSettings::default() };
    let settings = GuardSettings { budget, ..GuardSettings::default() };
    (Guard::with_jitter(settings, clock.clone(), Box::new(|| 0.0)), clock)
}

fn call(guard: &Guard, priority: Priority) -> JoinHandle<Admitted> {
    let guard = guard.clone();
    tokio::spawn(async move { guard.admit_in_turn(priority, None).await })
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        yield_now().await;
    }
}

/// Two calls that leave at once, and one that waits for 100 ms.
async fn one_waits(guard: &Guard, priority: Priority) -> JoinHandle<Admitted> {
    for _ in 0..2 {
        let (admission, waited) = guard.admit_in_turn(priority, None).await.unwrap();
        assert_eq!(waited, Duration::ZERO);
        admission.finish(CallOutcome::Answered);
    }
    let waits = call(guard, priority);
    until(|| guard.status().waiting == 1).await;
    waits
}

#[tokio::test]
async fn a_call_leaves_when_its_turn_comes() {
    for priority in [Priority::Foreground, Priority::FirstSeen] {
        let (guard, clock) = guard();
        let waits = one_waits(&guard, priority).await;
        clock.advance(SECOND / 10 - Duration::from_micros(1));
        yield_now().await;
        assert!(!waits.is_finished(), "not a moment too early");
        clock.advance(Duration::from_micros(1));
        let (admission, waited) = waits.await.unwrap().unwrap();
        assert_eq!((waited, guard.status().waiting), (SECOND / 10, 0));
        admission.finish(CallOutcome::Answered);
    }
}

#[tokio::test]
async fn who_waits_when_the_breaker_opens_is_told_at_once() {
    let (guard, _) = guard();
    let waits = one_waits(&guard, Priority::Foreground).await;
    guard.force(ForcedState::Open, SECOND * 7);
    let suppressed = waits.await.unwrap().unwrap_err();
    assert_eq!((suppressed.reason, suppressed.retry_after), (SuppressReason::BreakerOpen, SECOND * 7));
    assert_eq!(guard.status().waiting, 0);
}

#[tokio::test]
async fn who_waits_is_told_as_well_when_a_result_opens_the_breaker() {
    let (guard, _) = guard();
    let (under_way, _) = guard.admit_in_turn(Priority::Foreground, None).await.unwrap();
    guard.admit_in_turn(Priority::Foreground, None).await.unwrap().0.finish(CallOutcome::Answered);
    let waits = call(&guard, Priority::Foreground);
    until(|| guard.status().waiting == 1).await;
    let opened = under_way.finish(CallOutcome::RateLimited { hold: None, limit: Some(300) });
    assert_eq!(opened.unwrap().to, State::Open);
    assert_eq!(waits.await.unwrap().unwrap_err().reason, SuppressReason::BreakerOpen);
}

#[tokio::test]
async fn a_caller_who_goes_away_gives_its_turn_to_the_next() {
    for priority in [Priority::Foreground, Priority::FirstSeen] {
        let (guard, clock) = guard();
        let waits = one_waits(&guard, priority).await;
        waits.abort();
        assert!(waits.await.unwrap_err().is_cancelled());
        assert_eq!(guard.status().waiting, 0);
        let next = call(&guard, priority);
        until(|| guard.status().waiting == 1).await;
        clock.advance(SECOND / 10);
        assert_eq!(next.await.unwrap().unwrap().1, SECOND / 10);
    }
}

#[tokio::test]
async fn beyond_the_longest_wait_nobody_waits_and_each_is_told_its_own_time() {
    let (guard, _) = guard();
    let calls: Vec<_> = (0..12).map(|_| call(&guard, Priority::FirstSeen)).collect();
    until(|| guard.status().waiting == 10).await;
    for late in 1..=3 {
        let suppressed = guard.admit_in_turn(Priority::FirstSeen, subject(late)).await.unwrap_err();
        assert_eq!(suppressed.reason, SuppressReason::FirstSeenBudget);
        assert_eq!(suppressed.retry_after, SECOND + SECOND / 10 * u32::from(late));
    }
    calls.iter().for_each(JoinHandle::abort);
}

fn subject(number: u8) -> Option<SubjectKey> {
    Some(SubjectKey::from_digest([number; 32]))
}

#[tokio::test]
async fn who_comes_back_when_it_was_told_to_goes_before_those_who_come_for_the_first_time() {
    for priority in [Priority::Foreground, Priority::FirstSeen] {
        let (guard, clock) = guard();
        let calls: Vec<_> = (0..12).map(|_| call(&guard, priority)).collect();
        until(|| guard.status().waiting == 10).await;
        let refused = guard.admit(priority, subject(1)).unwrap_err();
        assert_eq!(refused.retry_after, SECOND * 11 / 10);
        let later = guard.admit(priority, subject(2)).unwrap_err();
        assert_eq!(later.retry_after, SECOND * 12 / 10);
        // A newcomer stands behind both.
        clock.advance(SECOND / 10);
        until(|| guard.status().waiting == 9).await;
        assert_eq!(guard.admit(priority, subject(3)).unwrap_err().retry_after, SECOND * 12 / 10);
        // Who is early is told the rest of its time, and whose time has come waits for its turn.
        assert_eq!(guard.admit(priority, subject(1)).unwrap_err().retry_after, SECOND);
        for _ in 0..10 {
            clock.advance(SECOND / 10);
        }
        let (admission, _) = guard.admit_in_turn(priority, subject(1)).await.unwrap();
        admission.finish(CallOutcome::Answered);
        calls.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test]
async fn a_flood_that_waits_is_let_through_at_the_rate() {
    let (guard, clock) = guard();
    let left = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let (guard, left) = (guard.clone(), left.clone());
            tokio::spawn(async move {
                let (admission, _) = guard.admit_in_turn(Priority::FirstSeen, None).await.unwrap();
                left.fetch_add(1, Ordering::SeqCst);
                admission.finish(CallOutcome::Answered);
            })
        })
        .collect();
    until(|| guard.status().waiting == 10).await;
    for expected in 2..=12 {
        until(|| left.load(Ordering::SeqCst) == expected).await;
        clock.advance(SECOND / 10);
    }
    for call in calls {
        call.await.unwrap();
    }
}
