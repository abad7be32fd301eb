//! What the issuer is spared, and what users are told, when things go wrong: real HTTP, a clock held by hand, and calls
//! counted by the dev tenant itself. `make drills` prints the table.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "support/drill.rs"]
mod drill;

#[path = "support/prometheus.rs"]
mod prometheus;

use drill::{DAY, HOUR, Stage};
use holdfast::guard::Priority;
use holdfast_devtenant::{Endpoint, Fault, RateLimit};
use prometheus::{Prometheus, check_metrics};

/// The default budget: so many calls may leave at one moment.
const BURST: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_with_one_new_token_are_one_call() {
    let mut stage = Stage::set("thundering herd: JWS without email").await;
    for herd in 1..=5 {
        let token = stage.users(&format!("user-{herd}"), 1).pop().unwrap();
        assert_eq!(stage.ask_all(&vec![token; 500]).await.count(200), 500);
        assert_eq!(stage.calls(), herd);
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_with_one_new_opaque_token_are_one_call() {
    let mut stage = Stage::set("thundering herd: opaque").await;
    for herd in 1..=5 {
        let token = stage.tenant.mint().opaque().build().unwrap();
        assert_eq!(stage.ask_all(&vec![token; 500]).await.count(200), 500);
        assert_eq!(stage.calls(), herd);
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_bad_token_is_one_call() {
    let mut stage = Stage::set("flood of one bad opaque token").await;
    for _ in 0..5 {
        assert_eq!(stage.ask_all(&vec!["bad-token".to_owned(); 200]).await.count(401), 200);
        assert_eq!(stage.calls(), 1);
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_different_bad_tokens_leaves_users_their_calls() {
    let mut stage = Stage::set("flood of 200 bad opaque tokens").await;
    let users = stage.users("new", 5);
    let bad: Vec<String> = (0..200).map(|number| format!("bad-token-{number}")).collect();
    let flood = stage.asking(&bad);
    let asked = stage.ask_all(&users).await;
    let flood = flood.join_all().await;
    let flood = stage.told(flood);
    assert_eq!(asked.count(200), 5, "{asked:?}");
    let suspects = flood.count(401);
    assert_eq!(suspects + flood.count(503), 200);
    assert!(suspects > 0 && suspects as u64 <= BURST / 2, "{suspects} bad tokens were asked about");
    assert_eq!(stage.calls(), suspects as u64 + 5);
    let others = stage.users("newer", 5);
    assert_eq!(stage.ask_all(&others).await.count(200), 5, "and after the flood");
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_rate_limit_storm_known_users_are_served_and_the_tenant_is_left_alone() {
    let mut stage = Stage::set_with_nginx("rate-limit storm (nginx): 10/s, 300 users").await;
    let users = stage.known_users("user", 300).await;
    stage.advance(13 * HOUR);
    stage.tenant.set_userinfo_limit(Some(RateLimit::new(10, 10.0)));
    stage.tenant.reset_calls();

    // The users come in waves until one of them opens the breaker.
    let (mut waves, mut came) = (users.chunks(30), 0);
    let mut moments = 0;
    while !stage.userinfo_is_open() {
        let wave = waves.next().unwrap_or_else(|| panic!("the breaker does not open"));
        moments += 1;
        came += wave.len();
        stage.advance(5);
        assert_eq!(stage.ask_all(wave).await.count(200), wave.len());
        assert!(stage.calls() <= BURST * moments);
    }
    let limited = stage.tenant.calls().userinfo_by_status.get(&429).copied().unwrap_or_default();
    assert!((1..=BURST).contains(&limited), "{limited} calls were answered 429");

    // Open: everybody else is served, and no call leaves.
    let calls = stage.calls();
    let rest = &users[came..];
    for wave in rest.chunks(100) {
        let replies = stage.ask_all(wave).await;
        assert_eq!((replies.count(200), replies.of_tier("emergency")), (wave.len(), wave.len()));
    }
    assert!(!rest.is_empty());
    assert_eq!(stage.calls(), calls, "a call left while the breaker was open");

    // Well again: within what the budget allows at a moment, all become fresh.
    stage.tenant.set_userinfo_limit(None);
    stage.tenant.reset_calls();
    let mut moments = 0;
    loop {
        stage.advance(301);
        moments += 1;
        let mut fresh = 0;
        for wave in users.chunks(100) {
            let replies = stage.ask_all(wave).await;
            assert_eq!(replies.count(200), wave.len());
            fresh += replies.of_tier("primary");
        }
        assert!(stage.calls() <= BURST * moments);
        if fresh == users.len() {
            break;
        }
        assert!(moments < 60, "only {fresh} are fresh");
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_without_the_issuer() {
    let mut stage = Stage::set_with_nginx("total outage of 30 days (nginx)").await;
    let users = stage.known_users("user", 20).await;
    stage.advance(5);
    let life = i64::try_from(400 * DAY).unwrap();
    let opaque = stage.tenant.mint().opaque().expires_in(life).build().unwrap();
    assert_eq!(stage.ask(&opaque).await.status, 200);
    stage.advance(5);
    let unknown = stage.users("unknown", 3);
    stage.tenant.reset_calls();
    stage.tenant.go_down().await;
    for day in 1..=30 {
        stage.advance(DAY);
        let tier = match day {
            1 => "emergency",
            2..14 => "ultra-backup",
            _ => "disaster-recovery",
        };
        assert_eq!(stage.ask_all(&users).await.of_tier(tier), 20, "day {day}");
        // Only the issuer can judge this one, and its word is good for 48 hours.
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
    // And then no herd: each user costs one call, however many ask meanwhile.
    for _ in 0..20 {
        let everybody: Vec<String> = users.iter().cycle().take(100).cloned().collect();
        assert_eq!(stage.ask_all(&everybody).await.count(200), 100);
        stage.advance(11);
    }
    assert_eq!(stage.ask_all(&users).await.of_tier("primary"), 20);
    assert_eq!(stage.calls(), 20);
    assert_eq!(stage.ask_all(&unknown).await.count(200), 3);
    assert_eq!(stage.ask(&opaque).await.status, 200);
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_hangs_holds_up_only_those_nobody_knows() {
    let mut stage = Stage::set("issuer hangs").await;
    let known = stage.known_users("known", 20).await;
    stage.advance(60);
    stage.tenant.reset_calls();
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Hang);
    let unknown = stage.users("unknown", 12);
    let mut waiting = stage.asking(&unknown);
    support::until("the calls are under way", async || (stage.calls() == 12).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(stage.ask_all(&known).await.count(200), 20);
    }
    assert!(waiting.try_join_next().is_none(), "known users waited for those who are not");
    let waited = waiting.join_all().await;
    assert_eq!(stage.told(waited).count(503), 12);
    // Twelve timeouts opened the breaker: from now on nobody waits, and nobody calls.
    assert!(stage.userinfo_is_open());
    assert_eq!(stage.ask_all(&unknown).await.count(503), 12);
    assert_eq!(stage.calls(), 12);
    // Known users who would be asked about are served as well.
    stage.advance(13 * HOUR);
    assert_eq!(stage.ask_all(&known).await.of_tier("emergency"), 20);
    assert_eq!(stage.calls(), 13, "one probe");
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_comes_and_goes_is_asked_ten_times_a_failure_at_most() {
    let mut stage = Stage::set("flapping, 20 times").await;
    let users = stage.known_users("user", 30).await;
    for _ in 0..20 {
        stage.tenant.reset_calls();
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
async fn keys_that_change_during_an_outage_are_found_after_it() {
    let mut stage = Stage::set("key rotation during the outage").await;
    let mint = |stage: &Stage| {
        let mint = stage.tenant.mint().algorithm("ES256").expires_in(i64::try_from(DAY).unwrap());
        mint.email_direct("alice@example.com").build().unwrap()
    };
    let old = mint(&stage);
    stage.tenant.go_down().await;
    stage.tenant.rotate_keys();
    let new: Vec<String> = (0..50).map(|_| mint(&stage)).collect();
    assert_eq!(stage.ask(&old).await.status, 200, "the keys that are known still verify");
    assert_eq!(
        stage.ask_all(&new).await.count(503),
        50,
        "a key that cannot be asked for is no reason to say no"
    );
    stage.tenant.come_back().await.unwrap();
    stage.tenant.reset_calls();
    stage.advance(301);
    assert_eq!(stage.ask_all(&new).await.count(200), 50);
    assert_eq!(stage.ask(&old).await.status, 200);
    let calls = stage.tenant.calls();
    assert!(calls.jwks <= 2 && calls.discovery <= 2, "{calls:?}");
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_jwks_never_replaces_good_keys() {
    let mut stage = Stage::set("JWKS emptied by mistake").await;
    let keys = stage.issuer().key_ids();
    let faults =
        [Fault::EmptyKeys, Fault::Garbage, Fault::WrongShape, Fault::Truncated, Fault::Huge(1 << 20)];
    for (number, fault) in faults.into_iter().enumerate() {
        stage.tenant.set_fault(Endpoint::Jwks, fault.clone());
        assert!(stage.issuer().refresh(Priority::Background).await.is_err(), "{fault:?}");
        stage.advance(60);
        assert_eq!(stage.issuer().key_ids(), keys, "{fault:?}");
        let token = stage.users(&format!("user-{number}"), 1).pop().unwrap();
        assert_eq!(stage.ask(&token).await.status, 200, "{fault:?}");
    }
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_for_one_user_holds_back_that_user_alone() {
    let mut stage = Stage::set("429 for one user").await;
    let noisy = stage.users("noisy", 1);
    let others = stage.users("other", 5);
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::UserRateLimited);
    let reply = stage.ask(&noisy[0]).await;
    assert_eq!((reply.status, reply.header("retry-after").len()), (503, 1));
    stage.tenant.clear_faults();
    for _ in 0..10 {
        assert_eq!(stage.ask(&noisy[0]).await.status, 503);
    }
    assert_eq!(stage.calls(), 1, "who is held back is not asked about");
    assert_eq!(stage.ask_all(&others).await.count(200), 5);
    assert_eq!(stage.calls(), 6);
    stage.advance(13);
    assert_eq!(stage.ask(&noisy[0]).await.status, 200);
    assert_eq!(stage.calls(), 7);
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn background_calls_are_bounded() {
    let mut stage = Stage::set("revalidation of 300 users at once").await;
    let users = stage.known_users("user", 300).await;
    stage.advance(5 * HOUR);
    stage.tenant.reset_calls();
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Hang);
    for wave in users.chunks(100) {
        assert_eq!(stage.ask_all(wave).await.of_tier("secondary"), wave.len());
    }
    assert!((1..=8).contains(&stage.calls()), "{} background calls", stage.calls());
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_what_happened() {
    let mut stage = Stage::set("outage, as Prometheus sees it").await;
    let users = stage.known_users("user", 20).await;
    let prometheus = Prometheus::start(stage.service.admin_address()).await;
    let userinfo = |state: &str| format!("holdfast_breaker_state{{endpoint=\"userinfo\",state=\"{state}\"}}");
    prometheus.until(&userinfo("closed"), 1.0).await;

    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    stage.advance(13 * HOUR);
    for user in &users {
        assert_eq!(stage.ask(user).await.status, 200);
    }
    check_metrics(&stage.metrics().await).await;
    prometheus.until(&userinfo("open"), 1.0).await;
    prometheus.until(&userinfo("closed"), 0.0).await;
    prometheus.until("holdfast_upstream_suppressed_total{reason=\"breaker_open\"}", 10.0).await;
    prometheus.until("holdfast_stale_answers_total{tier=\"emergency\"}", 20.0).await;
    let hit_ratio = "holdfast_tier_hits_total{tier=\"emergency\"} / ignoring(tier, store) group_left \
                     sum by (instance, job) (holdfast_tier_hits_total)";
    prometheus.until(hit_ratio, 1.0).await;

    stage.tenant.clear_faults();
    stage.advance(301);
    for user in &users {
        assert_eq!(stage.ask(user).await.status, 200);
    }
    prometheus.until(&userinfo("closed"), 1.0).await;
    prometheus
        .until("max_over_time(holdfast_breaker_state{endpoint=\"userinfo\",state=\"open\"}[1m])", 1.0)
        .await;
    check_metrics(&stage.metrics().await).await;
    stage.row();
}
