//! Several instances on one Redis: they share records and invalidations; and a Redis that sends wrong data,
//! hangs or dies costs calls to the issuer, never an answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/acl.rs"]
mod acl;
#[path = "shared/faults.rs"]
mod faults;
#[path = "shared/outages.rs"]
mod outages;
#[path = "shared/rogue.rs"]
mod rogue;
#[path = "shared/scene.rs"]
mod scene;
#[path = "shared/store.rs"]
mod store;
mod support;

use std::sync::Arc;
use std::time::Duration;

use holdfast::store::archive::Archive;
use holdfast::store::shared::{RedisAddress, SharedSettings};
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::policy::Policy;
use holdfast::tiers::record::KeysRecord;
use holdfast_devtenant::User;
use scene::{ALICE, HOUR, Scene, assert_alice, connected, lookups, purge, readyz, shared_hits};
use support::service::{self, Running, held_clock, issuer, value};
use support::until;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_learned_all_know_and_the_issuer_is_asked_once() {
    let Some(scene) = Scene::new().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let opaque = scene.opaque();
    let no_email = scene.tenant.mint().build().unwrap();
    for token in [&opaque, &no_email] {
        assert_alice(&a.ask(token).await);
    }
    scene.redis.has("verdicts", 1).await;
    scene.redis.has("profiles", 1).await;
    for token in [&opaque, &no_email] {
        let reply = b.ask(token).await;
        assert_alice(&reply);
        assert_eq!(value(&reply, "x-auth-tier"), Some("primary"));
    }
    assert_eq!(scene.tenant.calls().userinfo, 2);
    assert_eq!(shared_hits(&b).await, 2);

    // What was found is promoted: the same tokens, and another one of the same subject, need no Redis.
    let another = scene.tenant.mint().claim("n", 2).build().unwrap();
    let before = b.counted("holdfast_store_lookups_total{", "store=\"shared\"").await;
    for token in [&opaque, &no_email, &another] {
        assert_alice(&b.ask(token).await);
    }
    assert_eq!(b.counted("holdfast_store_lookups_total{", "store=\"shared\"").await, before);
    assert_eq!(scene.tenant.calls().userinfo, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_starts_in_an_outage_takes_keys_and_people_from_another() {
    let Some(mut scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    scene.redis.has("keys", 1).await;
    scene.silence();
    let data = scene.files.path().join("data");
    let store = format!("path = \"{}\"\n", data.display());
    let b = Running::start_without_keys(&scene.config(&store), scene.clock.clone()).await;
    until("keys from Redis", async || readyz(&b).await.starts_with("ready").then_some(())).await;
    let with_email = scene.tenant.mint().email_direct(ALICE).build().unwrap();
    assert_alice(&b.ask(&with_email).await);
    assert_alice(&b.ask(&opaque).await);

    // What was found shared is on this instance's own disk from then on.
    drop(b);
    scene.redis.kill().await;
    let b = scene.instance_after(&store).await;
    assert_alice(&b.ask(&opaque).await);
    assert_eq!(b.counted("holdfast_tier_hits_total{", "store=\"disk\"").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_taken_when_redis_comes_later_than_the_instance() {
    let Some(mut scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    scene.redis.has("keys", 1).await;
    let name = scene.redis.records("keys").await.remove(0);
    let keys = scene.redis.value(&name).await;
    drop(a);
    scene.redis.kill().await;
    scene.silence();
    let b = Running::start_without_keys(&scene.config(""), scene.clock.clone()).await;
    until("degraded", async || b.service.instance().stores.shared_is_degraded().then_some(())).await;
    assert!(readyz(&b).await.starts_with("not ready"));
    scene.redis.restart().await;
    scene.redis.set(&name, &keys).await;
    // It may have looked just before they were there; then it looks again by itself.
    until("keys from Redis", async || readyz(&b).await.starts_with("ready").then_some(())).await;
}

/// Keys that are of no use do not end the search: another instance may share better ones.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_taken_when_better_ones_are_shared_later() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    scene.redis.has("keys", 1).await;
    let name = scene.redis.records("keys").await.remove(0);
    let keys = scene.redis.value(&name).await;
    let issuer = a.service.instance().issuers.iter().next().unwrap().name().clone();
    drop(a);
    scene.silence();
    redis::cmd("DEL").arg(&name).exec_async(&mut scene.redis.client().await).await.unwrap();
    let address = SharedSettings::at(RedisAddress::parse(&scene.redis.url()).unwrap());
    let (secret, metrics) = (scene.files.path().join("secret"), Arc::new(Metrics::new().unwrap()));
    let (other, _) = Archive::open_shared(address, None, &secret, scene.clock.clone(), metrics).unwrap();
    let verified_at = scene.clock.now().before(Duration::from_secs(1));
    let useless = KeysRecord { verified_at, jwks: b"{}".to_vec(), discovery: Vec::new() };
    other.keep(issuer.as_bytes(), &useless, &useless.known(), &Policy::default());
    scene.redis.has("keys", 1).await;

    let b = Running::start_without_keys(&scene.config(""), scene.clock.clone()).await;
    until("the look at the useless ones", async || (lookups(&b, "hit").await > 0).then_some(())).await;
    assert!(readyz(&b).await.starts_with("not ready"));
    scene.redis.set(&name, &keys).await;
    until("the better ones", async || readyz(&b).await.starts_with("ready").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_another_secret_shares_nothing_and_disturbs_nobody() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let other = scene.secret("other", 8);
    let stranger =
        scene.instance_with(&format!("secret_file = \"{}\"\n", other.display()), &scene.clock).await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    assert_alice(&stranger.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 2);
    assert!(lookups(&stranger, "miss").await >= 1);
    assert_eq!(lookups(&stranger, "hit").await, 0);
    scene.redis.has("verdicts", 2).await;

    assert_eq!(purge(&stranger, r#"{"all": true}"#).await.status, 200);
    scene.redis.has("verdicts", 1).await;
    let b = scene.instance().await;
    assert_alice(&b.ask(&opaque).await);
    assert_eq!(shared_hits(&b).await, 1, "what the stranger left is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_in_one_instance_is_a_no_in_all() {
    let Some(scene) = Scene::new().await else { return };
    // Each has a clock of its own, so that only `a` finds the record old enough to ask again.
    let late = held_clock(&scene.tenant);
    let (a, b) = (scene.instance_with("", &late).await, scene.instance().await);
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    assert_alice(&b.ask(&opaque).await);
    scene.tenant.revoke_token(&opaque);
    assert_alice(&b.ask(&opaque).await);

    // Late enough for every instance: where in the first quarter of its tier a record is asked about is
    // drawn.
    late.advance(7 * HOUR);
    until("a learns the no", async || (a.ask(&opaque).await.status == 401).then_some(())).await;
    scene.redis.has("verdicts", 0).await;
    until("b is told to forget", async || (b.ask(&opaque).await.status == 401).then_some(())).await;
    let c = scene.instance().await;
    assert_eq!(c.ask(&opaque).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_still_has_what_was_forgotten_does_not_bring_it_back() {
    let Some(scene) = Scene::new().await else { return };
    let data = scene.files.path().join("data");
    let store = format!("path = \"{}\"\n", data.display());
    let b = scene.instance_with(&store, &scene.clock).await;
    let opaque = scene.opaque();
    assert_alice(&b.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    drop(b);

    // While b is away, the token is purged; b's disk does not hear of it.
    let a = scene.instance().await;
    scene.clock.advance(Duration::from_secs(10));
    let purged = purge(&a, &format!("{{\"token\": \"{opaque}\"}}")).await;
    assert_eq!(purged.status, 200, "{purged:?}");
    scene.redis.has("verdicts", 0).await;
    let b = scene.instance_after(&store).await;
    connected(&b).await;
    assert_alice(&b.ask(&opaque).await);
    assert_eq!(b.counted("holdfast_tier_hits_total{", "store=\"disk\"").await, 1);
    // Something younger goes through the same queue after it: then the old record was written, or refused.
    assert_alice(&b.ask(&scene.opaque()).await);
    scene.redis.has("verdicts", 1).await;
    b.service.instance().flush().await;
    assert_eq!(scene.redis.records("verdicts").await.len(), 1);

    // But the issuer's next yes counts, if it is of a later second.
    scene.clock.advance(Duration::from_secs(1));
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_in_one_instance_reaches_redis_and_the_memory_of_all() {
    let Some(scene) = Scene::new().await else { return };
    let bob = "bob@example.com";
    scene.tenant.add_user(User { sub: "auth0|bob".into(), email: Some(bob.into()), ..User::default() });
    let (a, b) = (scene.instance().await, scene.instance().await);
    let alices = [scene.opaque(), scene.opaque(), scene.tenant.mint().build().unwrap()];
    let bobs = scene.tenant.mint().subject("auth0|bob").opaque().build().unwrap();
    let everybody = async || {
        for token in &alices {
            assert_alice(&b.ask(token).await);
        }
        assert_eq!(value(&b.ask(&bobs).await, "x-user-email"), Some(bob));
    };
    // Asks `b` until the issuer was asked so many more times; and then no more.
    let costs = async |calls: u64| {
        until("b asks the issuer again", async || {
            everybody().await;
            (scene.tenant.calls().userinfo == calls).then_some(())
        })
        .await;
        everybody().await;
        assert_eq!(scene.tenant.calls().userinfo, calls);
    };
    for token in &alices {
        assert_alice(&a.ask(token).await);
    }
    assert_eq!(a.ask(&bobs).await.status, 200);
    scene.redis.has("verdicts", 3).await;
    scene.redis.has("profiles", 1).await;
    costs(4).await;

    let tell = async |body: String| {
        // Younger than all there is, by b's clock and by a's.
        scene.clock.advance(Duration::from_secs(2));
        let reply = purge(&a, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        scene.clock.advance(Duration::from_secs(1));
        scene.redis.moment_passes().await;
    };
    tell(format!("{{\"token\": \"{}\"}}", alices[0])).await;
    costs(5).await;
    scene.redis.has("verdicts", 3).await;
    tell("{\"subject\": \"auth0|alice\"}".to_owned()).await;
    costs(8).await;
    scene.redis.has("verdicts", 3).await;
    scene.redis.has("profiles", 1).await;
    tell("{\"all\": true}".to_owned()).await;
    costs(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_at_an_instance_whose_clock_is_ahead_stops_no_sharing() {
    let Some(scene) = Scene::new().await else { return };
    let clock = held_clock(&scene.tenant);
    clock.advance(Duration::from_secs(120));
    let (ahead, b, c) =
        (scene.instance_with("", &clock).await, scene.instance().await, scene.instance().await);
    assert_eq!(purge(&ahead, "{\"all\": true}").await.status, 200);
    scene.redis.moment_passes().await;
    let opaque = scene.opaque();
    assert_alice(&b.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    for other in [&c, &ahead] {
        assert_alice(&other.ask(&opaque).await);
    }
    assert_eq!(scene.tenant.calls().userinfo, 1, "one call for three instances");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_drops_each_record_when_no_tier_can_use_it_any_more() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    assert_alice(&a.ask(&scene.tenant.mint().build().unwrap()).await);
    for (family, hours) in [("verdicts", 48), ("profiles", 365 * 24), ("keys", 365 * 24)] {
        scene.redis.has(family, 1).await;
        let name = scene.redis.records(family).await.remove(0);
        let left = async || {
            let left = redis::cmd("PTTL").arg(&name).query_async(&mut scene.redis.client().await).await;
            Duration::from_millis(left.unwrap())
        };
        let (left, whole) = (left().await, HOUR * hours);
        // A millisecond more, since a record is good at the very age of its tier.
        assert!(left <= whole + Duration::from_millis(1) && left > whole - HOUR, "{family}: {left:?}");
    }
    // The same for the mark of what was forgotten.
    assert_eq!(purge(&a, &format!("{{\"token\": \"{opaque}\"}}")).await.status, 200);
    scene.redis.has("verdicts", 0).await;
    let names = scene.redis.names().await;
    let mark = names.iter().find(|name| name.contains(":verdicts:")).unwrap();
    let left: u64 = redis::cmd("PTTL").arg(mark).query_async(&mut scene.redis.client().await).await.unwrap();
    assert!(left > 47 * 3_600_000 && left <= 48 * 3_600_000 + 1, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_is_shared_counts_only_as_its_own_issuers() {
    let Some(scene) = Scene::new().await else { return };
    let other = service::tenant().await;
    let a = scene.instance().await;
    let of_other = scene.config("").replace(&issuer(&scene.tenant, ""), &issuer(&other, ""));
    let b = Running::start(&of_other, scene.clock.clone()).await;
    connected(&b).await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    assert_eq!(b.ask(&opaque).await.status, 401);
    assert_eq!(other.calls().userinfo, 1, "it is the other one's to say");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_the_issuer_has_withdrawn_is_forgotten_by_all() {
    let Some(scene) = Scene::new().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    scene.tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let token = || scene.tenant.mint().subject("auth0|bob").expires_in(100_000).build().unwrap();
    let (at_a, at_b) = (token(), token());
    assert_eq!(a.ask(&at_a).await.status, 200);
    scene.redis.has("profiles", 1).await;
    assert_eq!(b.ask(&at_b).await.status, 200);
    scene.tenant.add_user(User::new("auth0|bob"));
    scene.clock.advance(13 * HOUR);
    assert_eq!(a.ask(&at_a).await.status, 403);
    // With the issuer gone, b has nothing left to answer from.
    scene.silence();
    until("b has forgotten", async || {
        scene.clock.advance(Duration::from_secs(11));
        (b.ask(&at_b).await.status == 503).then_some(())
    })
    .await;
    let new = scene.instance_after("").await;
    connected(&new).await;
    let issuers = new.service.instance().issuers.clone();
    until("shared keys", async || issuers.iter().all(|issuer| issuer.is_ready()).then_some(())).await;
    assert_eq!(new.ask(&at_b).await.status, 503, "nor has a new one");
}
