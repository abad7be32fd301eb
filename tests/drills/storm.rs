//! The issuer limits the tenant: all users come at once, all records are old, and it accepts ten calls a
//! second.

use std::collections::VecDeque;

use holdfast_devtenant::{Endpoint, Fault, RateLimit};

use crate::drill::{HOUR, Stage};

/// What a tenant with this limit is given to the budget: not more at once, and less in the long run.
const LIMIT: RateLimit = RateLimit::new(10, 10.0);
const BUDGET: &str = "[budget]\nrate = 8\nburst = 10\n";

#[tokio::test(flavor = "multi_thread")]
async fn in_a_rate_limit_storm_known_users_are_served_and_the_tenant_never_has_to_say_429() {
    let stage = Stage::set_with("rate-limit storm (nginx): 10/s, 2,000 users", BUDGET).await;
    let mut stage = stage.behind_nginx().await;
    stage.tenant.set_userinfo_limit(Some(LIMIT));
    let users = stage.known_users("user", 2_000).await;
    stage.advance(13 * HOUR);

    // All at one moment: ten calls are made, and all users are answered.
    stage.forget_calls();
    let mut old: VecDeque<String> = VecDeque::new();
    for wave in users.chunks(100) {
        let replies = stage.ask_all(wave).await;
        assert_eq!(replies.count(200), wave.len());
        let others = wave.iter().zip(&replies.0).filter(|(_, reply)| !reply.is_of_tier("primary"));
        old.extend(others.map(|(user, _)| user.clone()));
    }
    assert_eq!((stage.calls(), old.len()), (10, 1_990));

    // Then second by second, until what is known of everybody is fresh. The tenant counts on the same clock,
    // and whatever second it begins to count at, ten calls is the most.
    let mut seconds = 0;
    while !old.is_empty() {
        stage.advance(1);
        seconds += 1;
        assert!(seconds < 400, "{} are still not fresh", old.len());
        let before = stage.calls();
        let wave: Vec<String> = old.drain(..old.len().min(20)).collect();
        let replies = stage.ask_all(&wave).await;
        assert_eq!(replies.count(200), wave.len());
        let again = wave.into_iter().zip(&replies.0).filter(|(_, reply)| !reply.is_of_tier("primary"));
        old.extend(again.map(|(user, _)| user));
        assert!(stage.calls() - before <= 10);
    }
    assert_eq!((stage.calls(), stage.answered(200), stage.answered(429)), (2_000, 2_000, 0));

    // Others spend the tenant's limit: its first 429 ends all calls for as long as it says.
    stage.advance(13 * HOUR);
    stage.forget_calls();
    let limited = Fault::RateLimited { retry_after: Some("60".to_owned()), reset: None };
    stage.tenant.set_fault(Endpoint::Userinfo, limited);
    assert_eq!(stage.ask_all(&users[..50]).await.count(200), 50);
    assert!(stage.userinfo_is_open());
    assert_eq!(stage.userinfo().refuses_for.as_secs(), 60);
    let calls = stage.calls();
    assert!((1..=10).contains(&calls), "{calls} calls were answered 429");
    stage.advance(59);
    for wave in users.chunks(100) {
        let replies = stage.ask_all(wave).await;
        assert_eq!((replies.count(200), replies.of_tier("emergency")), (wave.len(), wave.len()));
    }
    assert_eq!(stage.calls(), calls, "a call left while the breaker was open");

    // Well again: one probe, and from then on as before.
    stage.tenant.clear_faults();
    stage.tenant.set_userinfo_limit(Some(LIMIT));
    stage.forget_calls();
    stage.advance(11);
    assert_eq!(stage.ask(&users[0]).await.status, 200);
    assert_eq!(stage.calls(), 1);
    for wave in users[1..].chunks(20).take(30) {
        stage.advance(1);
        let before = stage.calls();
        assert_eq!(stage.ask_all(wave).await.count(200), wave.len());
        assert!(stage.calls() - before <= 10);
    }
    assert!(stage.calls() > 200, "{} calls in 30 seconds", stage.calls());
    assert_eq!(stage.answered(429), 0);
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn background_calls_are_bounded() {
    let budget = "[budget]\nrate = 1000\nburst = 1000\nbackground_share = 1.0\n";
    let mut stage = Stage::set_with("revalidation of 300 users at once", budget).await;
    let users = stage.known_users("user", 300).await;
    let ended = async |stage: &Stage| {
        stage.counted("holdfast_upstream_requests_total{", "endpoint=\"userinfo\"").await
    };
    let before = ended(&stage).await;
    stage.advance(7 * HOUR);
    stage.forget_calls();
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Hang);
    for wave in users.chunks(100) {
        assert_eq!(stage.ask_all(wave).await.of_tier("secondary"), wave.len());
        // A call that hangs is given up at some time, and another may leave then. So the ones under way are
        // counted: those that have arrived, less those that have ended since.
        let arrived = stage.calls();
        let ended = ended(&stage).await - before;
        assert!(arrived <= 8 + ended, "{arrived} arrived, {ended} ended");
    }
    crate::support::until("a background call", async || (stage.calls() > 0).then_some(())).await;
    stage.row();
}
