//! The issuer is gone for a month, or comes and goes.

use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::{DAY, HOUR, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_without_the_issuer() {
    let mut stage = Stage::set("total outage of 30 days (nginx)").await.behind_nginx().await;
    let users = stage.known_users("user", 200).await;
    stage.advance(5);
    let life = i64::try_from(400 * DAY).unwrap();
    let opaque = stage.tenant.mint().opaque().expires_in(life).build().unwrap();
    assert_eq!(stage.ask(&opaque).await.status, 200);
    stage.advance(5);
    let unknown = stage.users("unknown", 3);
    stage.forget_calls();
    stage.tenant.go_down().await;
    for day in 1..=30 {
        stage.advance(DAY);
        let tier = match day {
            1 => "emergency",
            2..14 => "ultra-backup",
            _ => "disaster-recovery",
        };
        assert_eq!(stage.ask_all(&users).await.of_tier(tier), 200, "day {day}");
        // Only the issuer can judge this one, and its answer is valid for 48 hours.
        assert_eq!(stage.ask(&opaque).await.status, if day == 1 { 200 } else { 503 }, "day {day}");
        for reply in stage.ask_all(&unknown).await.0 {
            assert_eq!(reply.status, 503);
            let seconds: u64 = reply.header("retry-after")[0].parse().unwrap();
            assert!((1..=300).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(stage.calls(), 0);

    // The first request after the opening is the probe, and it succeeds.
    stage.tenant.come_back().await.unwrap();
    stage.advance(301);
    assert_eq!(stage.ask_all(&users[..1]).await.of_tier("primary"), 1);
    assert_eq!(stage.calls(), 1);
    // And then no herd: all of them at once are at most the budget's burst, and the others notice nothing.
    let budget = stage.userinfo().budget;
    assert_eq!(stage.ask_all(&users).await.count(200), 200);
    assert!(stage.calls() <= 1 + u64::from(budget.burst), "{} calls at once", stage.calls());
    // Each user costs one call, however often they ask until all are fresh.
    for turn in 0.. {
        stage.advance(11);
        let before = stage.calls();
        let replies = stage.ask_all(&users).await;
        assert_eq!(replies.count(200), 200);
        assert!(stage.calls() - before <= u64::from(budget.burst));
        if replies.of_tier("primary") == 200 {
            break;
        }
        assert!(turn < 30, "{replies:?}");
    }
    assert_eq!(stage.calls(), 200);
    stage.advance(11);
    assert_eq!(stage.ask_all(&unknown).await.count(200), 3);
    assert_eq!(stage.ask(&opaque).await.status, 200);
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_comes_and_goes_is_asked_ten_times_a_failure_at_most() {
    let mut stage = Stage::set("flapping, 20 times").await;
    let users = stage.known_users("user", 30).await;
    for _ in 0..20 {
        stage.forget_calls();
        stage.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        stage.advance(13 * HOUR);
        for user in &users {
            assert_eq!(stage.ask(user).await.status, 200);
        }
        assert!(stage.userinfo_is_open());
        assert!(stage.calls() <= 10, "{} calls failed", stage.calls());
        stage.tenant.clear_faults();
        stage.advance(301);
        for some in users.chunks(10) {
            stage.advance(5);
            for user in some {
                assert_eq!(stage.ask(user).await.header("x-auth-tier"), ["primary"]);
            }
        }
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_lies_ready_for_as_long_as_no_call_can_leave_and_no_longer() {
    let mut stage = Stage::set("open for two minutes").await;
    let users = stage.known_users("user", 20).await;
    let suppressed = async |stage: &Stage| {
        stage.counted("holdfast_upstream_suppressed_total{", "reason=\"breaker_open\"").await
    };
    stage.advance(13 * HOUR);
    stage.forget_calls();
    let limited = Fault::RateLimited { retry_after: Some("120".to_owned()), reset: None };
    stage.tenant.set_fault(Endpoint::Userinfo, limited);
    assert_eq!(stage.ask(&users[0]).await.header("x-auth-tier"), ["emergency"]);
    assert_eq!(stage.ask_all(&users).await.of_tier("emergency"), 20);
    assert_eq!((stage.calls(), suppressed(&stage).await), (1, 19));
    stage.advance(119);
    assert_eq!(stage.ask_all(&users).await.of_tier("emergency"), 20);
    assert_eq!((stage.calls(), suppressed(&stage).await), (1, 19), "nobody tried in vain");
    stage.tenant.clear_faults();
    stage.advance(1);
    for user in &users {
        assert_eq!(stage.ask(user).await.header("x-auth-tier"), ["primary"]);
    }
    assert_eq!(stage.calls(), 21);
    stage.row();
}
