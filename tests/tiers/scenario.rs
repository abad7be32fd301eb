//! One identity through all seven tiers, with the tenant down: nothing listens on its address. At each
//! boundary, one second before and one after, for the profile of a subject and for a verdict on a foreign
//! token.

use std::path::Path;

use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::Tenant;

use crate::support::service::{self, Running, assert_undecided, issuer};
use crate::support::{Reply, until};
use crate::{ALL_TIERS, DAY, START, tier};

/// The verdict's tiers by default, and with the ceiling raised.
const CEILINGS: [(&str, usize); 2] =
    [("", 3), ("[policy]\nverdict_ceiling = \"ultimate-fallback\"\n", ALL_TIERS.len())];

/// Two tokens of alice that outlive all tiers, so that only the records age.
fn tokens(tenant: &Tenant) -> (String, String) {
    let long = i64::try_from(400 * DAY).unwrap();
    let mint = || tenant.mint().expires_in(long);
    (mint().build().unwrap(), mint().opaque().build().unwrap())
}

/// One second before and one second after each boundary: the age of records, and their tier, if any.
fn moments() -> impl Iterator<Item = (u64, Option<usize>)> {
    (0..ALL_TIERS.len()).flat_map(|row| {
        let (age, next) = (ALL_TIERS[row].0, Some(row + 1).filter(|next| *next < ALL_TIERS.len()));
        [(age - 1, Some(row)), (age + 1, next)]
    })
}

fn assert_served_as(reply: &Reply, age: u64, row: Option<usize>, what: &str) {
    match row {
        Some(row) => {
            assert_eq!(tier(reply), ALL_TIERS[row].1, "{what} after {age} s: {reply:?}");
            assert_eq!(reply.header("x-auth-age"), [age.to_string()], "{what}");
            assert_eq!(reply.header("x-auth-source"), ["userinfo"], "{what}");
        }
        None => assert_undecided(reply, &format!("{what} after {age} s")),
    }
}

async fn dead(tenant: &Tenant) {
    tenant.go_down().await;
    assert!(tokio::net::TcpStream::connect(tenant.address()).await.is_err(), "somebody listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_answers_from_every_tier_and_not_a_second_longer() {
    for (policy, tiers_of_verdict) in CEILINGS {
        let tenant = service::tenant().await;
        tenant.set_time(Some(START));
        let clock = service::held_clock(&tenant);
        let holdfast = Running::start(&(issuer(&tenant, "") + policy), clock.clone()).await;
        let (signed, opaque) = tokens(&tenant);
        for token in [&signed, &opaque] {
            assert_eq!(tier(&holdfast.ask(token).await), "primary");
        }
        dead(&tenant).await;
        for (age, row) in moments() {
            clock.advance(Timestamp::from_secs(START + age).since(clock.now()));
            assert_served_as(&holdfast.ask(&signed).await, age, row, "the profile");
            let row = row.filter(|row| *row < tiers_of_verdict);
            assert_served_as(&holdfast.ask(&opaque).await, age, row, "the verdict");
        }
    }
}

/// Starts on this directory once the instance before has left it.
async fn start_on(data: &Path, config: &str, now: u64) -> Running {
    let config = format!(
        "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\n\
         path = \"{}\"\n{config}",
        data.display()
    );
    let clock = Clock::held_at(Timestamp::from_secs(now));
    let service = until("the directory is free", async || {
        Service::start(Source::text("test.toml", &config), clock.clone()).await.ok()
    });
    let service = service.await;
    let auth = service.auth_addresses()[0].parse().unwrap();
    let admin = service.admin_address().parse().unwrap();
    Running { service, auth, admin }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_it_answers_from_the_disk_as_it_would_have_without() {
    let tenant = service::tenant().await;
    tenant.set_time(Some(START));
    let data = tempfile::tempdir().unwrap();
    let config = issuer(&tenant, "");
    let (signed, opaque) = tokens(&tenant);
    let holdfast = start_on(data.path(), &config, START).await;
    until("keys", async || {
        holdfast.service.instance().issuers.iter().all(|one| one.is_ready()).then_some(())
    })
    .await;
    for token in [&signed, &opaque] {
        assert_eq!(tier(&holdfast.ask(token).await), "primary");
    }
    holdfast.service.drain().await;
    dead(&tenant).await;

    for (age, row) in moments() {
        let holdfast = start_on(data.path(), &config, START + age).await;
        if row.is_some() {
            until("kept keys", async || {
                holdfast.service.instance().issuers.iter().all(|one| one.is_ready()).then_some(())
            })
            .await;
        }
        assert_served_as(&holdfast.ask(&signed).await, age, row, "the profile");
        let of_verdict = row.filter(|row| *row < 3);
        assert_served_as(&holdfast.ask(&opaque).await, age, of_verdict, "the verdict");
        let from_disk = holdfast.counted("holdfast_tier_hits_total", "store=\"disk\"").await;
        assert_eq!(from_disk, u64::from(row.is_some()) + u64::from(of_verdict.is_some()), "after {age} s");
        holdfast.service.drain().await;
    }
}
