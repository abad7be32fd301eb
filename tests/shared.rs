//! Several instances on one Redis: what one learned, all know; what one forgot, none knows; and a Redis that lies, hangs or
//! dies costs questions to the issuer, never an answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant, User};
use support::redis::RedisServer;
use support::service::{Running, held_clock, issuer, tenant, value};
use support::{Reply, exchange, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

const ALICE: &str = "alice@example.com";
const HOUR: Duration = Duration::from_secs(3600);

/// A Redis, a tenant, and the secret that instances share.
struct Scene {
    redis: RedisServer,
    tenant: Tenant,
    files: TempDir,
    clock: Clock,
}

impl Scene {
    async fn new() -> Option<Self> {
        Some(Self::on(RedisServer::start().await?).await)
    }

    async fn on(redis: RedisServer) -> Self {
        let tenant = tenant().await;
        // One person asks more than Auth0 would allow.
        tenant.set_per_user_limit(None);
        tenant.set_userinfo_limit(None);
        let clock = held_clock(&tenant);
        let scene = Self { redis, tenant, files: tempfile::tempdir().unwrap(), clock };
        scene.secret("secret", 7);
        scene
    }

    fn secret(&self, name: &str, byte: u8) -> PathBuf {
        write_secret(&self.files.path().join(name), &[byte; 32])
    }

    /// `[store]` and the issuer. Whoever is to find something in Redis waits long for it: the machine may be slow.
    fn config(&self, store: &str) -> String {
        let secret = self.files.path().join("secret");
        let timeout = if store.contains("redis_timeout") { "" } else { "redis_timeout = \"10s\"\n" };
        let secret = match store.contains("secret_file") {
            true => String::new(),
            false => format!("secret_file = \"{}\"\n", secret.display()),
        };
        let redis = self.redis.url();
        // The clock stands, so the budget is never refilled.
        format!(
            "[store]\nredis = \"{redis}\"\n{secret}{timeout}{store}\n[budget]\nburst = 100\n{}",
            issuer(&self.tenant, "")
        )
    }

    /// An instance that knows the issuer's keys and is connected.
    async fn instance(&self) -> Running {
        self.instance_with("", &self.clock).await
    }

    async fn instance_with(&self, store: &str, clock: &Clock) -> Running {
        let running = Running::start(&self.config(store), clock.clone()).await;
        connected(&running).await;
        running
    }

    fn opaque(&self) -> String {
        self.tenant.mint().opaque().build().unwrap()
    }

    fn silence(&self) {
        for endpoint in [Endpoint::Discovery, Endpoint::Jwks, Endpoint::Userinfo] {
            self.tenant.set_fault(endpoint, Fault::Status(503));
        }
    }
}

fn write_secret(file: &Path, bytes: &[u8]) -> PathBuf {
    std::fs::write(file, bytes).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_owned()
}

async fn connected(running: &Running) {
    let instance = running.service.instance();
    tokio::time::timeout(support::PATIENCE, instance.stores.shared().unwrap().well()).await.unwrap();
}

fn assert_alice(reply: &Reply) {
    assert_eq!((reply.status, value(reply, "x-user-email")), (200, Some(ALICE)), "{reply:?}");
}

async fn admin(running: &Running, request: String) -> Reply {
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await
}

async fn readyz(running: &Running) -> String {
    admin(running, "GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()).await.body
}

async fn purge(running: &Running, body: &str) -> Reply {
    let head = "POST /purge HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n";
    admin(running, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
}

async fn lookups(running: &Running, result: &str) -> u64 {
    running.counted("holdfast_store_lookups_total{", &format!("result=\"{result}\",store=\"shared\"")).await
}

/// How many answers came from a record in Redis. (Lookups count the issuer's keys at the start, too.)
async fn shared_hits(running: &Running) -> u64 {
    running.counted("holdfast_tier_hits_total{", "store=\"shared\"").await
}

async fn errors(running: &Running, kind: &str) -> u64 {
    running.counted("holdfast_store_errors_total{", &format!("kind=\"{kind}\",store=\"shared\"")).await
}

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
    let b = until("the data directory is free", async || {
        let source = holdfast::config::Source::text(
            "b.toml",
            &format!(
                "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n{}",
                scene.config(&store)
            ),
        );
        let service = holdfast::service::Service::start(source, scene.clock.clone()).await.ok()?;
        let auth = service.auth_addresses()[0].parse().unwrap();
        let admin = service.admin_address().parse().unwrap();
        Some(Running { service, auth, admin })
    })
    .await;
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
    // It may have looked in the moment before they were there; then it looks again at the next connection.
    until("keys from Redis", async || {
        if readyz(&b).await.starts_with("ready") {
            return Some(());
        }
        let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
        redis::cmd(kill[0]).arg(&kill[1..]).exec_async(&mut scene.redis.client().await).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        None
    })
    .await;
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
async fn what_was_tampered_with_is_a_miss_and_counted_and_never_a_yes() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let mut tokens = BTreeMap::new();
    for what in
        ["ciphertext", "expiry", "version", "truncated", "one of two", "the other", "a list", "too long"]
    {
        let token = scene.opaque();
        let before = scene.redis.records("verdicts").await;
        assert_alice(&a.ask(&token).await);
        scene.redis.has("verdicts", before.len() + 1).await;
        let mut names = scene.redis.records("verdicts").await;
        names.retain(|name| !before.contains(name));
        tokens.insert(what, (token, names.remove(0)));
    }
    let untouched = scene.opaque();
    assert_alice(&a.ask(&untouched).await);
    scene.redis.has("verdicts", tokens.len() + 1).await;
    let name = |what: &str| tokens[what].1.clone();
    for (what, byte) in [("ciphertext", 40), ("expiry", 7), ("version", 8)] {
        let mut value = scene.redis.value(&name(what)).await;
        value[byte] ^= 1;
        scene.redis.set(&name(what), &value).await;
    }
    let value = scene.redis.value(&name("truncated")).await;
    scene.redis.set(&name("truncated"), &value[..value.len() - 1]).await;
    let one = scene.redis.value(&name("one of two")).await;
    let other = scene.redis.value(&name("the other")).await;
    scene.redis.set(&name("one of two"), &other).await;
    scene.redis.set(&name("the other"), &one).await;
    let mut client = scene.redis.client().await;
    redis::cmd("DEL").arg(name("a list")).exec_async(&mut client).await.unwrap();
    redis::cmd("RPUSH").arg(name("a list")).arg("x").exec_async(&mut client).await.unwrap();
    scene.redis.set(&name("too long"), &vec![1; 300 * 1024]).await;

    let b = scene.instance().await;
    scene.silence();
    for (what, (token, _)) in &tokens {
        assert_eq!(b.ask(token).await.status, 503, "{what}");
    }
    assert_alice(&b.ask(&untouched).await);
    assert_eq!(lookups(&b, "unreadable").await, 6);
    assert_eq!((lookups(&b, "error").await, errors(&b, "no_record").await), (2, 2));
    assert_eq!(shared_hits(&b).await, 1);

    // The issuer's next yes heals them.
    scene.tenant.clear_faults();
    let c = scene.instance().await;
    for (what, (token, _)) in &tokens {
        assert_alice(&c.ask(token).await);
        until(&format!("{what} is healed"), async || {
            let d = scene.instance().await;
            assert_alice(&d.ask(token).await);
            (shared_hits(&d).await == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_costs_no_answer_and_what_was_learned_meanwhile_is_shared_when_it_is_back() {
    let Some(mut scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let (before, during) = (scene.opaque(), scene.opaque());
    assert_alice(&a.ask(&before).await);
    scene.redis.kill().await;
    until("degraded", async || readyz(&a).await.contains("the shared store is not well").then_some(())).await;
    for token in [&before, &during] {
        assert_alice(&a.ask(token).await);
    }
    assert_eq!(scene.tenant.calls().userinfo, 2);
    let status =
        admin(&a, "GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()).await.body;
    assert!(status.contains("\"shared_degraded\": true"), "{status}");

    scene.redis.restart().await;
    until("recovered", async || (readyz(&a).await == "ready\n").then_some(())).await;
    assert_eq!(errors(&a, "degraded").await, 1, "one transition, however many attempts");
    scene.redis.has("verdicts", 1).await;
    let b = scene.instance().await;
    assert_alice(&b.ask(&during).await);
    assert_eq!(scene.tenant.calls().userinfo, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_costs_no_answer() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance_with("redis_timeout = \"1ms\"\n", &scene.clock).await;
    scene.redis.signal("STOP").await;
    for _ in 0..10 {
        assert_alice(&a.ask(&scene.opaque()).await);
    }
    until("degraded", async || readyz(&a).await.contains("the shared store is not well").then_some(())).await;
    assert!(errors(&a, "timeout").await > 0);
    assert_alice(&a.ask(&scene.opaque()).await);
    scene.redis.signal("CONT").await;
    scene.redis.has("verdicts", 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_never_there_costs_no_answer() {
    let Some(mut scene) = Scene::new().await else { return };
    scene.redis.kill().await;
    let a = Running::start(&scene.config(""), scene.clock.clone()).await;
    assert_alice(&a.ask(&scene.opaque()).await);
    until("degraded", async || readyz(&a).await.contains("the shared store is not well").then_some(())).await;
    scene.redis.restart().await;
    scene.redis.has("verdicts", 1).await;
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

    late.advance(5 * HOUR);
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
    let b = until("the data directory is free", async || {
        let config = scene.config(&store);
        let head = "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let source = holdfast::config::Source::text("b.toml", &format!("{head}{config}"));
        let service = holdfast::service::Service::start(source, scene.clock.clone()).await.ok()?;
        let auth = service.auth_addresses()[0].parse().unwrap();
        let admin = service.admin_address().parse().unwrap();
        Some(Running { service, auth, admin })
    })
    .await;
    connected(&b).await;
    assert_alice(&b.ask(&opaque).await);
    assert_eq!(b.counted("holdfast_tier_hits_total{", "store=\"disk\"").await, 1);
    // Something younger goes through the same queue after it: then the old record was written, or refused.
    assert_alice(&b.ask(&scene.opaque()).await);
    scene.redis.has("verdicts", 1).await;
    b.service.instance().flush().await;
    assert_eq!(scene.redis.records("verdicts").await.len(), 1);

    // But the issuer's next yes counts.
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
async fn a_purge_while_redis_is_away_is_done_before_it_is_read_again() {
    let Some(mut scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    let kept: Vec<_> = scene.redis.records("verdicts").await;
    let value = scene.redis.value(&kept[0]).await;
    scene.redis.signal("STOP").await;
    let reply = purge(&a, "{\"subject\": \"auth0|alice\"}").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert!(
        reply.body.contains("the shared store is not well and forgets before it answers again"),
        "{reply:?}"
    );
    scene.redis.kill().await;
    // A Redis that keeps its data comes back with it.
    scene.redis.restart().await;
    scene.redis.set(&kept[0], &value).await;
    until("it is forgotten", async || {
        // Perhaps it was connected before the value was back: then there was nothing to forget, as far as it knows.
        if scene.redis.records("verdicts").await.is_empty() {
            return Some(());
        }
        (readyz(&a).await == "ready\n").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_reads_redis_or_listens_to_it_learns_a_token_a_person_or_the_issuer() {
    let Some(scene) = Scene::new().await else { return };
    let mut listener = UnixStream::connect(scene.redis.socket()).await.unwrap();
    listener.write_all(b"MONITOR\r\n").await.unwrap();
    let mut ok = [0; 5];
    listener.read_exact(&mut ok).await.unwrap();
    assert_eq!(&ok, b"+OK\r\n");

    let a = scene.instance().await;
    let opaque = scene.opaque();
    let no_email = scene.tenant.mint().build().unwrap();
    for token in [&opaque, &no_email] {
        assert_alice(&a.ask(token).await);
    }
    scene.redis.has("verdicts", 1).await;
    scene.redis.has("profiles", 1).await;
    scene.redis.has("keys", 1).await;
    let names = scene.redis.names().await;
    assert!(names.iter().all(|name| name.starts_with("holdfast:v1:")), "{names:?}");
    let mut seen = names.join("\n").into_bytes();
    for name in &names {
        seen.extend(scene.redis.value(name).await);
    }
    assert_eq!(purge(&a, "{\"subject\": \"auth0|alice\"}").await.status, 200);
    let mut heard = Vec::new();
    until("the message was heard", async || {
        let mut buffer = [0; 65_536];
        let length = listener.read(&mut buffer).await.unwrap();
        heard.extend_from_slice(&buffer[..length]);
        String::from_utf8_lossy(&heard).contains("\"PUBLISH\"").then_some(())
    })
    .await;
    seen.extend(heard);
    let address = scene.tenant.address().to_string();
    for secret in
        [opaque.as_str(), &no_email, no_email.rsplit('.').next().unwrap(), ALICE, "alice", "auth0", &address]
    {
        assert!(
            !seen.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{secret} is to be seen in Redis"
        );
    }
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
async fn a_password_is_demanded_sent_and_never_shown() {
    const PASSWORD: &str = "hunter2hunter2";
    let Some(redis) =
        RedisServer::start_with(&["--requirepass", PASSWORD], &format!("?pass={PASSWORD}")).await
    else {
        return;
    };
    let scene = Scene::on(redis).await;
    let by_url = scene.instance().await;
    assert_alice(&by_url.ask(&scene.opaque()).await);
    scene.redis.has("verdicts", 1).await;

    let file = write_secret(&scene.files.path().join("password"), PASSWORD.as_bytes());
    let with_file = scene
        .config(&format!("redis_password_file = \"{}\"\n", file.display()))
        .replace(&format!("?pass={PASSWORD}"), "");
    let by_file = Running::start(&with_file, scene.clock.clone()).await;
    connected(&by_file).await;
    let settings = format!("{:?}", by_file.service.instance().settings.store);
    assert!(!settings.contains(PASSWORD), "{settings}");

    let wrong = Running::start(&scene.config("").replace(PASSWORD, "wrong"), scene.clock.clone()).await;
    until("degraded", async || readyz(&wrong).await.contains("the shared store is not well").then_some(()))
        .await;
    assert_alice(&wrong.ask(&scene.opaque()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_strangers_make_nobody_forget() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    let name = scene.redis.records("verdicts").await.remove(0);
    let channel = format!("{}:forget", name.rsplitn(3, ':').nth(2).unwrap());
    let mut client = scene.redis.client().await;
    for message in [&b""[..], b"everybody", &scene.redis.value(&name).await, &[0; 100]] {
        let heard: u64 =
            redis::cmd("PUBLISH").arg(&channel).arg(message).query_async(&mut client).await.unwrap();
        assert_eq!(heard, 1, "the test must know the channel");
    }
    until("they were heard", async || (errors(&a, "message").await == 4).then_some(())).await;
    assert_alice(&a.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 1);
}
