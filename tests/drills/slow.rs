//! The issuer takes ten seconds for each answer, which is longer than any timeout.

use std::time::Duration;

use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::{HOUR, Replies, Stage};
use crate::support::until;

/// After this a call is given up; a test beside the client holds it to that.
const TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_slow_holds_up_only_those_nobody_knows() {
    let budget = "[budget]\nrate = 100\nburst = 100\n";
    let mut stage = Stage::set_with("issuer takes 10 s", budget).await;
    let ageing = stage.known_users("ageing", 20).await;
    stage.advance(7 * HOUR);
    let known = stage.known_users("known", 20).await;
    stage.advance(60);
    let (_, quiet) = ask_often(&mut stage, &known).await;
    stage.forget_calls();
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_secs(10)));

    // A request that causes a revalidation is answered before it, from the old record.
    let joined = stage.counted("holdfast_singleflight_joined_total", "").await;
    assert_eq!(stage.ask_all(&ageing).await.of_tier("secondary"), 20);
    until("a revalidation is under way", async || (stage.calls() > 0).then_some(())).await;
    let unknown = stage.users("unknown", 12);
    let waiting = stage.asking(&unknown);
    // Those that revalidate are eight at most, so they alone open no breaker, however long this takes.
    until("the calls are under way", async || (stage.calls() >= 8 + 12).then_some(())).await;
    let calls = stage.calls();
    assert_eq!(calls, 8 + 12);

    // Known users cause no call and wait for none. Waiting would last until the timeout.
    let (replies, slow) = ask_often(&mut stage, &known).await;
    assert_eq!(replies.of_tier("primary"), replies.0.len());
    assert_eq!(stage.calls(), calls);
    assert_eq!(stage.counted("holdfast_singleflight_joined_total", "").await, joined);
    assert!(slow < TIMEOUT, "{slow:?}, {quiet:?} before");

    // The others are answered at the timeout. If they had waited for the answer, it would have been a 200.
    let waited = waiting.join_all().await;
    let waited = stage.told(waited);
    assert_eq!(waited.count(503), 12);
    assert!(waited.0.iter().all(|reply| reply.header("retry-after").len() == 1));
    until("all calls were given up", async || {
        let given_up = stage.counted("holdfast_upstream_requests_total{", "status=\"timeout\"").await;
        (given_up == calls).then_some(())
    })
    .await;
    // The timeouts opened the breaker: from now on there are no waits and no calls.
    assert!(stage.userinfo_is_open());
    let calls = stage.calls();
    assert_eq!(stage.ask_all(&unknown).await.count(503), 12);
    assert_eq!(stage.ask_all(&known).await.count(200), 20);
    assert_eq!(stage.calls(), calls);
    // Known users who would be asked about are served as well.
    stage.advance(13 * HOUR);
    assert_eq!(stage.ask_all(&known).await.of_tier("emergency"), 20);
    assert_eq!(stage.calls(), calls + 1, "one probe");
    stage.row();
    println!("  known users, 99th percentile: {quiet:.1?} before, {slow:.1?} while the issuer is slow");
}

/// Ten times each, one after the other: the replies, and the 99th percentile of how long they took.
async fn ask_often(stage: &mut Stage, users: &[String]) -> (Replies, Duration) {
    let mut replies = Vec::new();
    for user in users.iter().cycle().take(10 * users.len()) {
        replies.extend(stage.asking(std::slice::from_ref(user)).join_all().await);
    }
    let mut times: Vec<Duration> = replies.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    let slowest = times[(times.len() - 1) * 99 / 100];
    (stage.told(replies), slowest)
}
