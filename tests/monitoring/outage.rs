//! An outage of the dev tenant, told by the shipped alerts from a real Prometheus.

use std::collections::BTreeSet;
use std::time::SystemTime;

use holdfast::guard::Priority;
use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::{HOUR, Stage};
use crate::prometheus::Prometheus;
use crate::rules::{RULES, shipped};
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

/// Waits until exactly these alerts fire, and asks holdfast about `token` meanwhile.
async fn until_firing(prometheus: &Prometheus, stage: &mut Stage, token: &str, alerts: &[&str]) {
    let wanted: BTreeSet<String> = alerts.iter().map(|name| (*name).to_owned()).collect();
    let mut firing = BTreeSet::new();
    let turn = async || {
        stage.ask(token).await;
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
    until_firing(&prometheus, &mut stage, &known, &["HoldfastKeysOld"]).await;

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
    until_firing(&prometheus, &mut stage, &newcomer, &alerts).await;
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
    until_firing(&prometheus, &mut stage, &known, &[]).await;
    stage.row();
}
