//! Several instances that need the same at the same time ask the issuer once; and whatever becomes of the one
//! that asks, or of Redis, all are answered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/scene.rs"]
mod scene;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast::store::shared::{LeaseOutcome, RedisAddress, SharedResult, SharedSettings, SharedStore};
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::digest::TokenDigester;
use holdfast::tiers::seal::Sealer;
use holdfast::tiers::secret::InstanceSecret;
use holdfast_devtenant::{Endpoint, Fault, User};
use scene::Scene;
use support::service::{Running, request};
use support::{Holdfast, PATIENCE, Reply, exchange, until};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Long enough for all instances to ask while the first call is under way.
const SLOW: Fault = Fault::Slow(Duration::from_millis(300));

async fn fleet(scene: &Scene, count: usize) -> Vec<Running> {
    let mut fleet = Vec::new();
    for _ in 0..count {
        fleet.push(scene.instance().await);
    }
    fleet
}

/// Each of these tokens at each instance, all at the same time.
fn ask_all(fleet: &[Running], tokens: &[String]) -> JoinSet<Reply> {
    let mut asking = JoinSet::new();
    for running in fleet {
        for token in tokens {
            let question = request("/auth", &format!("Authorization: Bearer {token}\r\n"));
            let auth = running.auth;
            asking.spawn(async move { exchange(TcpStream::connect(auth).await.unwrap(), &question).await });
        }
    }
    asking
}

/// How many questions of all instances were asked so.
async fn leased(fleet: &[Running], result: &str) -> u64 {
    let mut sum = 0;
    for running in fleet {
        sum += running.counted("holdfast_leases_total{", &format!("result=\"{result}\"")).await;
    }
    sum
}

async fn all_are_answered(asking: JoinSet<Reply>, status: u16) {
    for reply in asking.join_all().await {
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_instances_are_asked_at_once_costs_one_call_for_each_token() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 8).await;
    for fault in [None, Some(SLOW)] {
        scene.tenant.reset_calls();
        fault.into_iter().for_each(|fault| scene.tenant.set_fault(Endpoint::Userinfo, fault));
        let mut tokens: Vec<_> = (0..20).map(|_| scene.opaque()).collect();
        for number in 0..20 {
            let subject = format!("auth0|{number}-{}", tokens[0]);
            scene.tenant.add_user(User::new(&subject).email(format!("{number}@example.com")));
            tokens.push(scene.tenant.mint().subject(&subject).build().unwrap());
        }
        all_are_answered(ask_all(&fleet, &tokens), 200).await;
        assert_eq!(scene.tenant.calls().userinfo, 40);
    }
    assert_eq!((leased(&fleet, "asked").await, leased(&fleet, "alone").await), (80, 0));
    until("all leases have ended", async || {
        let names = scene.redis.names().await;
        (!names.iter().any(|name| name.contains(":lease:"))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_to_one_instance_is_a_no_to_all_that_wait() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 8).await;
    scene.tenant.set_fault(Endpoint::Userinfo, SLOW);
    let (opaque, signed) = (scene.opaque(), scene.tenant.mint().build().unwrap());
    for token in [&opaque, &signed] {
        scene.tenant.revoke_token(token);
        scene.tenant.reset_calls();
        all_are_answered(ask_all(&fleet, std::slice::from_ref(token)), 401).await;
        assert_eq!(scene.tenant.calls().userinfo, 1);
    }
    // It is remembered as after a call of one's own.
    all_are_answered(ask_all(&fleet, &[opaque, signed]), 401).await;
    assert_eq!(scene.tenant.calls().userinfo, 1);
}

/// What the issuer says of one token of a user is not said of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_to_a_token_is_none_to_another_token_of_the_same_user() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 2).await;
    let token = |number: u8| scene.tenant.mint().claim("n", number).build().unwrap();
    let (bad, good) = (token(1), token(2));
    scene.tenant.revoke_token(&bad);
    scene.tenant.set_fault(Endpoint::Userinfo, SLOW);
    let bads = ask_all(&fleet[..1], &[bad]);
    until("the call about the bad one", async || (scene.tenant.calls().userinfo == 1).then_some(())).await;
    let goods = ask_all(&fleet[1..], &[good]);
    all_are_answered(bads, 401).await;
    all_are_answered(goods, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_instance_that_asks_is_killed_one_other_asks() {
    let Some(scene) = Scene::new().await else { return };
    let others = fleet(&scene, 4).await;
    let directory = tempfile::tempdir().unwrap();
    let listen = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut holder = Holdfast::start(directory.path(), &format!("{listen}{}", scene.config("")), 1).await;
    until("the holder is connected", async || {
        holder.log().contains("records are shared through Redis").then_some(())
    })
    .await;
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Hang);
    let token = scene.opaque();
    let (auth, question) =
        (holder.auth_tcp(), request("/auth", &format!("Authorization: Bearer {token}\r\n")));
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(auth).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &question).await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    });
    until("the holder asks", async || (scene.tenant.calls().userinfo == 1).then_some(())).await;
    let asking = ask_all(&others, &[token]);
    holder.kill().await;
    scene.tenant.clear_faults();
    all_are_answered(asking, 200).await;
    assert_eq!(scene.tenant.calls().userinfo, 2);
    assert_eq!((leased(&others, "asked").await, leased(&others, "alone").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_or_hangs_while_they_wait_costs_calls_and_no_answer() {
    for hangs in [false, true] {
        let Some(mut scene) = Scene::new().await else { return };
        let mut fleet = Vec::new();
        for _ in 0..4 {
            fleet.push(scene.instance_with("redis_timeout = \"200ms\"\n", &scene.clock).await);
        }
        scene.tenant.set_fault(Endpoint::Userinfo, SLOW);
        let tokens: Vec<_> = (0..10).map(|_| scene.opaque()).collect();
        let asking = ask_all(&fleet, &tokens);
        until("somebody asks", async || (scene.tenant.calls().userinfo > 0).then_some(())).await;
        match hangs {
            true => scene.redis.signal("STOP").await,
            false => scene.redis.kill().await,
        }
        all_are_answered(asking, 200).await;
        if hangs {
            scene.redis.signal("CONT").await;
        }
    }
}

/// Somebody who may write to Redis keeps the lease for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_never_ends_costs_a_bounded_wait_and_no_answer() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 1).await;
    scene.redis.has("keys", 1).await;
    let keys = scene.redis.records("keys").await.remove(0);
    let prefix = keys.split("keys:").next().unwrap();
    let token = scene.opaque();
    let digester = TokenDigester::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap();
    let digest = digester.token(token.as_bytes()).0;
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    scene.redis.set(&format!("{prefix}lease:{digest}"), b"for good").await;
    all_are_answered(ask_all(&fleet, &[token]), 200).await;
    assert_eq!((scene.tenant.calls().userinfo, leased(&fleet, "alone").await), (1, 1));
}

/// A store as an instance has it.
async fn store(scene: &Scene) -> SharedStore {
    let secret = InstanceSecret::from_bytes(&[7; 32]);
    let sealer = Arc::new(Sealer::new(&secret).unwrap());
    let mut settings = SharedSettings::at(RedisAddress::parse(&scene.redis.url()).unwrap());
    settings.read_timeout = PATIENCE;
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = SharedStore::start(settings, &secret, sealer, scene.clock.clone(), metrics).unwrap();
    tokio::time::timeout(PATIENCE, store.connected()).await.unwrap();
    store
}

/// It may wait for the budget first, and the issuer may be slow. Where the machine stood still for so long that
/// the lease was not renewed in time, the test says nothing, and is played again.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_takes_longer_than_the_life_of_a_lease_keeps_it() {
    let Some(scene) = Scene::new().await else { return };
    let (one, other) = (store(&scene).await, store(&scene).await);
    until("a time without a long stop", async || {
        let LeaseOutcome::Acquired(lease) = one.lease([1; 32], PATIENCE).await else { panic!("it is free") };
        let asking = async {
            let longest = lease.while_held(longest_stop(35)).await;
            lease.release(SharedResult::Unusable);
            longest
        };
        let (longest, outcome) = tokio::join!(asking, other.lease([1; 32], PATIENCE));
        let was_kept = matches!(outcome, LeaseOutcome::Ended(SharedResult::Unusable));
        assert!(was_kept || longest > Duration::from_millis(500), "no stop was longer than {longest:?}");
        was_kept.then_some(())
    })
    .await;
}

/// So many tenths of a second, and the longest of them.
async fn longest_stop(tenths: u32) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..tenths {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        longest = longest.max(began.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_dropped_is_free_for_the_next_who_waits() {
    let Some(scene) = Scene::new().await else { return };
    let (one, other) = (store(&scene).await, store(&scene).await);
    let LeaseOutcome::Acquired(lease) = one.lease([1; 32], PATIENCE).await else { panic!("it is free") };
    assert!(matches!(other.lease([1; 32], Duration::ZERO).await, LeaseOutcome::TimedOut));
    assert!(matches!(other.lease([2; 32], Duration::ZERO).await, LeaseOutcome::Acquired(_)), "another key");
    let dropping = async { drop(lease) };
    let ((), outcome) = tokio::join!(dropping, other.lease([1; 32], PATIENCE));
    assert!(matches!(outcome, LeaseOutcome::Acquired(_)));
}
