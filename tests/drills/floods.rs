//! Many at once: with one new token, with one bad token, with many bad ones.

use std::time::Instant;

use holdfast::guard::first_seen::Trust;
use holdfast_devtenant::{Endpoint, Fault, User};

use crate::drill::Stage;

/// The default budget: so many calls may leave at one moment, and so many more in each second.
const BURST: f64 = 20.0;
const RATE: f64 = 4.0;

/// How many calls the budget has had since then.
fn budget_since(began: Instant) -> u64 {
    RATE.mul_add(began.elapsed().as_secs_f64(), BURST) as u64
}

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
    let mut stage = Stage::set_live("flood of 200 bad opaque tokens", "").await;
    let users = stage.users("new", 5);
    let bad: Vec<String> = (0..200).map(|number| format!("bad-token-{number}")).collect();
    let began = Instant::now();
    let flood = stage.asking(&bad);
    let asked = stage.ask_all(&users).await;
    let flood = flood.join_all().await;
    let flood = stage.told(flood);
    assert_eq!(asked.count(200), 5, "{asked:?}");
    let rejected = flood.count(401);
    assert_eq!(rejected + flood.count(503), 200);
    let most = budget_since(began);
    assert!(rejected > 0 && rejected as u64 <= most, "{rejected} bad tokens were asked about, of {most}");
    assert_eq!(stage.calls(), rejected as u64 + 5);
    assert_eq!(stage.userinfo().trust, Trust::NONE, "the next flood has the floor");
    let others = stage.users("newer", 5);
    assert_eq!(stage.ask_all(&others).await.count(200), 5, "and after the flood");
    stage.row();
}

/// The issuer's edge declines long tokens, and somebody sends many; one user's profile is longer than is
/// read.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_profiles_that_are_too_long_leave_users_their_calls() {
    let mut stage = Stage::set_live("flood of 200 tokens too long for the issuer", "").await;
    let users = stage.users("new", 5);
    let large = User::new("auth0|large").email("large@example.com").claim("padding", "x".repeat(70_000));
    stage.tenant.add_user(large);
    let large = stage.token("auth0|large");
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::TooLong(8 * 1024));
    let bad: Vec<String> = (0..200).map(|number| format!("{}{number}", "x".repeat(9_000))).collect();
    let began = Instant::now();
    assert_eq!(stage.ask_all(&bad).await.count(503), 200);
    let (rejected, most) = (stage.calls(), budget_since(began));
    assert!((1..=most).contains(&rejected), "{rejected} bad tokens were asked about, of {most}");
    for _ in 0..20 {
        assert_eq!(stage.ask(&large).await.status, 503);
    }
    assert_eq!(stage.calls(), rejected + 1, "who is held back is not asked about");
    assert_eq!(stage.ask_all(&users).await.count(200), 5);
    assert!(!stage.userinfo_is_open());
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
async fn a_429_for_each_of_many_users_is_still_not_the_tenants() {
    let mut stage = Stage::set("429 for each of 15 users").await;
    let noisy = stage.users("noisy", 15);
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::UserRateLimited);
    assert_eq!(stage.ask_all(&noisy).await.count(503), 15);
    assert_eq!(stage.calls(), 15);
    stage.tenant.clear_faults();
    let others = stage.users("other", 5);
    assert_eq!(stage.ask_all(&others).await.count(200), 5);
    assert!(!stage.userinfo_is_open());
    stage.row();
}
