//! Many new users at once, and a healthy tenant: our own budget refuses nobody.
//!
//! In real time, because it is about waiting. The asserted counts hold on a slow machine too: more time only
//! allows more calls.

use std::time::{Duration, Instant};

use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::Stage;

/// The default budget, and the calls whose turn comes within the time that calls wait.
const BURST: usize = 20;
const RATE: f64 = 4.0;
const WAITING: usize = 8;

/// Sixty users ask at the same moment; refused ones come back after their `Retry-After`.
async fn sixty_new_users(stage: &mut Stage, tokens: Vec<String>) {
    let began = Instant::now();
    let first = stage.ask_all(&tokens).await;
    assert_eq!(first.count(200) + first.count(503), 60, "{:?}", first.statuses());
    assert!(first.count(200) >= BURST + WAITING, "{} of 60 were let in at once", first.count(200));
    let mut away: Vec<(Duration, String)> = first
        .0
        .iter()
        .zip(tokens)
        .filter(|(reply, _)| reply.status == 503)
        .map(|(reply, token)| {
            let seconds = reply.header("retry-after")[0].parse().unwrap();
            (Duration::from_secs(seconds), token)
        })
        .collect();
    away.sort();
    let latest = away.last().map_or(Duration::ZERO, |(told, _)| *told);
    // Sixty users at the rate, and the jitter.
    assert!(latest.as_secs_f64() <= 60.0 / RATE * 1.1, "somebody was told to wait for {latest:?}");
    let told_at = Instant::now();
    let mut back = tokio::task::JoinSet::new();
    for (told, token) in away {
        let request = stage.request(&token);
        back.spawn(async move {
            tokio::time::sleep_until((told_at + told).into()).await;
            request.await
        });
    }
    let replies = back.join_all().await;
    let replies = stage.told(replies);
    assert_eq!(replies.count(200), replies.0.len(), "who comes back when it was told to is let in");
    let calls = stage.calls() as f64;
    assert_eq!(calls, 60.0, "one call for each user");
    let most = BURST as f64 + RATE * began.elapsed().as_secs_f64();
    assert!(calls <= most, "{calls} calls, where the budget has {most}");
    assert_eq!(stage.answered(429), 0);
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_new_users_with_opaque_tokens_are_let_in() {
    let mut stage = Stage::set_live("60 new users at once: opaque", "").await;
    let tokens = (0..60).map(|_| stage.tenant.mint().opaque().build().unwrap()).collect();
    sixty_new_users(&mut stage, tokens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_new_users_with_signed_tokens_without_an_email_are_let_in() {
    let mut stage = Stage::set_live("60 new users at once: JWS without email", "").await;
    let tokens = stage.users("new", 60);
    sixty_new_users(&mut stage, tokens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_plan_told_sixty_new_users_do_not_even_wait() {
    let mut stage = Stage::set_live("60 new users at once: plan free", "[budget]\nplan = \"free\"\n").await;
    let tokens: Vec<_> = (0..60).map(|_| stage.tenant.mint().opaque().build().unwrap()).collect();
    assert_eq!(stage.ask_all(&tokens).await.count(200), 60);
    let budget = stage.userinfo().budget;
    assert_eq!((budget.rate, budget.burst), (4.0, 100));
    assert_eq!(
        stage.counted("holdfast_budget_wait_seconds_bucket", "le=\"0\"").await,
        stage.counted("holdfast_budget_wait_seconds_count", "").await
    );
    stage.row();
}

/// Calls that wait when the tenant answers 429 are refused at once, with the tenant's own `Retry-After`.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_breaker_opens_is_told_at_once() {
    let mut stage = Stage::set_live("60 new users, and the tenant is at its limit", "").await;
    stage
        .tenant
        .set_fault(Endpoint::Userinfo, Fault::RateLimited { retry_after: Some("7".to_owned()), reset: None });
    let tokens = stage.users("new", 60);
    let replies = stage.ask_all(&tokens).await;
    assert_eq!(replies.count(503), 60);
    assert!(stage.calls() <= (BURST + WAITING) as u64);
    assert!(stage.userinfo_is_open());
    assert_eq!(stage.userinfo().waiting, 0);
    stage.row();
}
