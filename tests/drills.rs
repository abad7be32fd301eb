//! The calls to the issuer, and the answers to users, when things go wrong: real HTTP, a held clock, and
//! calls counted by the dev tenant itself. `make drills` prints the table.
//!
//! The assertions are about counts, not times. The only time that is checked is that of hits while the issuer
//! is slow; it is compared with the timeout that they would have to wait for otherwise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "support/drill.rs"]
mod drill;

#[path = "support/prometheus.rs"]
mod prometheus;

#[path = "shared/scene.rs"]
mod scene;

#[path = "drills/clock.rs"]
mod clock;
#[path = "drills/fleet.rs"]
mod fleet;
#[path = "drills/floods.rs"]
mod floods;
#[path = "drills/keys.rs"]
mod keys;
#[path = "drills/newcomers.rs"]
mod newcomers;
#[path = "drills/one_client.rs"]
mod one_client;
#[path = "drills/outage.rs"]
mod outage;
#[path = "drills/restart.rs"]
mod restart;
#[path = "drills/slow.rs"]
mod slow;
#[path = "drills/storm.rs"]
mod storm;

use drill::{HOUR, Stage};
use holdfast_devtenant::{Endpoint, Fault};
use prometheus::{Prometheus, check_metrics};

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
    let hit_ratio = |tier: &str| {
        format!("sum(holdfast_tier_hits_total{{tier=\"{tier}\"}}) / sum(holdfast_tier_hits_total)")
    };
    prometheus.until(&hit_ratio("emergency"), 1.0).await;

    stage.tenant.clear_faults();
    stage.advance(301);
    for user in &users {
        assert_eq!(stage.ask(user).await.status, 200);
    }
    prometheus.until(&userinfo("closed"), 1.0).await;
    prometheus
        .until("max_over_time(holdfast_breaker_state{endpoint=\"userinfo\",state=\"open\"}[1m])", 1.0)
        .await;
    let moved = |from: &str, to: &str| {
        format!("holdfast_breaker_transitions_total{{endpoint=\"userinfo\",from=\"{from}\",to=\"{to}\"}}")
    };
    for (from, to, times) in [
        ("closed", "open", 1.0),
        ("open", "half_open", 1.0),
        ("half_open", "closed", 1.0),
        ("half_open", "open", 0.0),
    ] {
        prometheus.until(&moved(from, to), times).await;
    }
    // Sixty fresh answers beside the twenty stale ones.
    for user in users.iter().cycle().take(60) {
        assert_eq!(stage.ask(user).await.header("x-auth-tier"), ["primary"]);
    }
    prometheus.until(&hit_ratio("emergency"), 0.25).await;
    prometheus.until(&hit_ratio("primary"), 0.75).await;
    check_metrics(&stage.metrics().await).await;
    stage.row();
}
