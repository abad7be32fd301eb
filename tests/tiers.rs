//! What holdfast remembers of an identity, and for how long, with a held clock and no issuer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "tiers/clock.rs"]
mod clock;
#[path = "tiers/grace.rs"]
mod grace;
#[path = "tiers/scenario.rs"]
mod scenario;
#[path = "tiers/settings.rs"]
mod settings;
mod support;
#[path = "tiers/table.rs"]
mod table;

use std::time::Duration;

use holdfast::clock::{Clock, Timestamp};
use holdfast_devtenant::{Tenant, User};
use support::service::{self, Running};
use support::{Reply, until};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const START: u64 = 1_800_000_000;

struct Scene {
    tenant: Tenant,
    clock: Clock,
    holdfast: Running,
}

impl Scene {
    async fn start(policy: &str) -> Self {
        let tenant = service::tenant().await;
        tenant.set_time(Some(START));
        let clock = service::held_clock(&tenant);
        let holdfast = Running::start(&(service::issuer(&tenant, "") + policy), clock.clone()).await;
        Self { tenant, clock, holdfast }
    }

    async fn ask(&self, token: &str, query: &str) -> Reply {
        self.holdfast.ask_at(&format!("/auth{query}"), token).await
    }

    /// Sets the clock to this many seconds after the start, and asks.
    async fn ask_at(&self, token: &str, after: u64) -> Reply {
        let target = Timestamp::from_secs(START + after);
        self.clock.advance(target.since(self.clock.now()));
        self.ask(token, "").await
    }
}

/// The tier, or the status if it is not 200.
fn tier(reply: &Reply) -> String {
    match reply.header("x-auth-tier").as_slice() {
        [tier] if reply.status == 200 => {
            assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
            (*tier).to_owned()
        }
        _ => reply.status.to_string(),
    }
}

const ALL_TIERS: [(u64, &str); 7] = [
    (4 * HOUR, "primary"),
    (12 * HOUR, "secondary"),
    (48 * HOUR, "emergency"),
    (14 * DAY, "ultra-backup"),
    (60 * DAY, "disaster-recovery"),
    (180 * DAY, "last-resort"),
    (365 * DAY, "ultimate-fallback"),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_tier_admits_a_token_past_its_own_life() {
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().expires_in(600).build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    scene.tenant.go_down().await;
    assert_eq!(tier(&scene.ask_at(&token, 629).await), "primary");
    let reply = scene.ask_at(&token, 630).await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate")[0].contains("expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_refuse_old_answers() {
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(scene.ask(&token, "?max_tier=secondary").await.status, 200);
    scene.tenant.go_down().await;
    scene.clock.advance(Duration::from_secs(13 * HOUR));
    assert_eq!(scene.ask(&token, "?max_tier=emergency").await.status, 200);
    let reply = scene.ask(&token, "?max_tier=secondary").await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("x-user-email").is_empty());
    assert_eq!(scene.ask(&token, "?max_tear=secondary").await.status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secondary_tier_answers_at_once_and_revalidates_behind_the_request() {
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    scene.tenant.reset_calls();
    assert_eq!(tier(&scene.ask_at(&token, 7 * HOUR).await), "secondary");
    until("the background call", async || (scene.tenant.calls().userinfo == 1).then_some(())).await;
    until("a fresh answer", async || {
        scene.clock.advance(Duration::from_secs(11));
        (tier(&scene.ask(&token, "").await) == "primary").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definitive_no_beats_every_tier() {
    let scene = Scene::start("[policy]\nverdict_ceiling = \"ultimate-fallback\"\n").await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    scene.tenant.revoke_token(&token);
    // While the verdict is fresh it answers. The first call after that brings the no, and from then on the
    // answer is no.
    assert_eq!(scene.ask_at(&token, 13 * HOUR).await.status, 401);
    scene.tenant.go_down().await;
    assert_eq!(scene.ask(&token, "").await.status, 401);
    // The refusal expires after a while, and the allow does not come back.
    assert_eq!(scene.ask_at(&token, 14 * HOUR).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_appears_later_is_found_soon() {
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().subject("auth0|noemail").build().unwrap();
    assert_eq!(scene.ask(&token, "").await.status, 403);
    scene.tenant.add_user(User::new("auth0|noemail").email("new@example.com"));
    assert_eq!(scene.ask_at(&token, 30).await.status, 403);
    assert_eq!(scene.ask_at(&token, 61).await.header("x-user-email"), ["new@example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_neither_locks_out_nor_makes_old_things_fresh() {
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    scene.tenant.go_down().await;
    let at = |secs| scene.clock.set_wall(Timestamp::from_secs(secs));
    at(START - HOUR);
    assert_eq!(tier(&scene.ask(&token, "").await), "emergency", "a record from the future is not fresh");
    at(START + HOUR);
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    at(START + 365 * DAY);
    assert_eq!(scene.ask(&token, "").await.status, 503);
    at(START + 2 * HOUR);
    assert_eq!(tier(&scene.ask(&token, "").await), "primary", "back in time, back in");
}
