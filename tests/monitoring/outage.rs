//! Outages, of the dev tenant and of Redis, told by the shipped alerts from a real Prometheus.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use holdfast::clock::Clock;
use holdfast::guard::Priority;
use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::{HOUR, Stage};
use crate::prometheus::Prometheus;
use crate::rules::{RULES, shipped};
use crate::support::redis::RedisServer;
use crate::support::service::{Running, issuer, tenant};
use crate::support::until;

/// The shipped rules, except that an alert waits for nothing, and that five minutes are five seconds.
fn hurried() -> Vec<(&'static str, String)> {
    let hurry = |text: String| {
        let lines = text.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
            Some(wait) => line.replace(wait, "0s"),
            None => line.replace("[5m]", "[5s]"),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    RULES.map(|path| (path.rsplit('/').next().unwrap(), hurry(shipped(path)))).to_vec()
}

/// Waits until exactly these alerts fire; `meanwhile` is done again and again.
async fn until_firing(prometheus: &Prometheus, alerts: &[&str], mut meanwhile: impl AsyncFnMut()) {
    let wanted: BTreeSet<String> = alerts.iter().map(|name| (*name).to_owned()).collect();
    let mut firing = BTreeSet::new();
    let turn = async || {
        meanwhile().await;
        let all = prometheus.ask("ALERTS{alertstate=\"firing\"}").await?;
        let all = all.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap().to_owned());
        let before = std::mem::replace(&mut firing, all.collect());
        if firing != before {
            println!("fires now: {firing:?}");
        }
        (firing == wanted).then_some(())
    };
    until(&format!("exactly {wanted:?} fire"), turn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_makes_its_alerts_fire_and_its_end_ends_them() {
    // holdfast's clock is held, and Prometheus's is not. The outage is at the present time.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut stage =
        Stage::set_at("an outage, as alerts tell it", "[budget]\nwait = \"0s\"\n", now - 60 * HOUR).await;
    let mut users = stage.known_users("old", 3).await;
    let first = users.len();
    stage.advance(17 * HOUR);
    let life = i64::try_from(1_000 * HOUR).unwrap();
    for _ in 0..3 {
        // Only the issuer can judge these, and its word is good for 48 hours.
        users.push(stage.tenant.mint().opaque().expires_in(life).build().unwrap());
    }
    assert_eq!(stage.ask_all(&users[first..]).await.count(200), 3);
    let prometheus = Prometheus::start_with(stage.service.admin_address(), &hurried()).await;
    let known = users[first].clone();
    until_firing(&prometheus, &["HoldfastKeysOld"], async || drop(stage.ask(&known).await)).await;

    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    stage.advance(43 * HOUR);
    stage.issuer().refresh(Priority::Foreground).await.unwrap();
    let newcomer = stage.users("new", 1).pop().unwrap();
    while !stage.userinfo_is_open() {
        assert_eq!(stage.ask_all(&users).await.count(200), 6);
        stage.ask(&newcomer).await;
        stage.advance(11);
    }
    assert_eq!(stage.ask_all(&users).await.count(200), 6);
    let alerts =
        ["HoldfastBreakerOpen", "HoldfastCannotTell", "HoldfastFirstLockout", "HoldfastStaleDeepTier"];
    until_firing(&prometheus, &alerts, async || drop(stage.ask(&newcomer).await)).await;
    let summaries = prometheus.summaries().await;
    for part in [
        "holdfast locks out the first known user in 4h 5",
        "holdfast serves 3 users from the tier ultra-backup",
        &format!("{} asks nothing at userinfo of {}", stage.service.admin_address(), stage.tenant.issuer()),
        "% of all requests with 503",
    ] {
        assert!(summaries.iter().any(|summary| summary.contains(part)), "no {part:?} in {summaries:?}");
    }

    stage.tenant.clear_faults();
    stage.advance(301);
    for user in &users {
        assert_eq!(stage.ask(user).await.header("x-auth-tier"), ["primary"]);
    }
    until_firing(&prometheus, &[], async || drop(stage.ask(&known).await)).await;
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_makes_its_alerts_fire_until_it_is_back() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let store = format!("[store]\nredis = {:?}\nsecret_file = {secret:?}\n", redis.url());
    let config = format!("{store}{}", issuer(&tenant, ""));
    let holdfast = Running::start(&config, Clock::system()).await;
    let prometheus = Prometheus::start_with(&holdfast.admin.to_string(), &hurried()).await;
    let is = async |gauge: &str, value| prometheus.until(&format!("holdfast_{gauge}"), value).await;
    is("revocations_behind", 0.0).await;
    until_firing(&prometheus, &[], async || ()).await;

    redis.kill().await;
    let alerts = ["HoldfastRevocationsBehind", "HoldfastStoreDegraded"];
    until_firing(&prometheus, &alerts, async || ()).await;
    redis.restart().await;
    until_firing(&prometheus, &[], async || ()).await;
    is("store_degraded{store=\"shared\"}", 0.0).await;
}
