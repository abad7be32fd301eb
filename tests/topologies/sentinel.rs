//! Three sentinels that watch a primary and its replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::load;
use crate::scene::{ALICE, Scene, assert_alice, connected, order, purge, readyz, shared_hits, write_secret};
use crate::support::redis::{RedisServer, certificate};
use crate::support::service::Running;
use crate::support::{Holdfast, until};

const GUIDE: &str = include_str!("../../docs/how-to/redis.md");

/// The name under which the sentinels know the primary.
const NAME: &str = "records";

/// The primary and its replica, as the fields of a scene and beside it.
struct Watched {
    scene: Scene,
    replica: RedisServer,
    sentinels: Vec<(RedisServer, u16)>,
}

impl Watched {
    async fn new() -> Option<Self> {
        let (primary, port) = RedisServer::start_on("--port", &["--repl-diskless-sync-delay", "0"]).await?;
        let replica =
            RedisServer::start_on("--port", &["--replicaof", &format!("127.0.0.1 {port}")]).await?.0;
        until("the replica follows", async || {
            replica.info("replication").await?.contains("master_link_status:up").then_some(())
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel(port).await?);
        }
        // They learn of each other, and of the replica, from the primary.
        for (sentinel, _) in &sentinels {
            until("the sentinels know each other and the replica", async || {
                let known = sentinel.info("sentinel").await?;
                known.contains("status=ok,").then_some(())?;
                known.contains("slaves=1,sentinels=3").then_some(())
            })
            .await;
        }
        let scene = Scene::on(primary).await;
        scene.tenant.set_time(Some(scene.clock.now().as_secs()));
        Some(Self { scene, replica, sentinels })
    }

    /// The configuration of an instance that asks these sentinels.
    fn config(&self) -> String {
        let ports: Vec<u16> = self.sentinels.iter().map(|(_, port)| *port).collect();
        config(&self.scene, &ports)
    }

    async fn instance(&self) -> Running {
        let running = Running::start(&self.config(), self.scene.clock.clone()).await;
        connected(&running).await;
        running
    }
}

/// The configuration of an instance that asks the sentinels at these ports.
fn config(scene: &Scene, ports: &[u16]) -> String {
    let urls: Vec<_> = ports.iter().map(|port| format!("\"redis://127.0.0.1:{port}\"")).collect();
    let sentinels = format!("redis_sentinels = [{}]\nredis_sentinel_master = \"{NAME}\"\n", urls.join(", "));
    scene.config("").replace(&single(scene), &sentinels)
}

/// The line of a scene's configuration that is not about sentinels.
fn single(scene: &Scene) -> String {
    format!("redis = \"{}\"\n", scene.redis.url())
}

/// A sentinel that watches the primary at this port, and its own port.
async fn sentinel(primary: u16) -> Option<(RedisServer, u16)> {
    let lines = format!(
        "sentinel monitor {NAME} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {NAME} 300\n\
         sentinel failover-timeout {NAME} 4000\n"
    );
    RedisServer::start_sentinel("port", &lines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_under_load_refuses_nobody_and_what_was_shared_still_is() {
    let Some(mut watched) = Watched::new().await else { return };
    let (a, b) = (Arc::new(watched.instance().await), Arc::new(watched.instance().await));
    let known: Vec<String> = (0..10).map(|_| watched.scene.opaque()).collect();
    for token in &known {
        assert_alice(&a.ask(token).await);
    }
    let signed = |subject| watched.scene.tenant.mint().subject(subject).email_direct(ALICE).build().unwrap();
    let (revoked, carol) = (signed("auth0|bob"), signed("auth0|carol"));
    assert_eq!(a.ask(&revoked).await.status, 200);
    assert_eq!(order(&a, "/revoke", "{\"subject\": \"auth0|bob\"}").await.status, 200);
    watched.replica.has("verdicts", 10).await;
    let log =
        watched.scene.redis.names().await.into_iter().find(|name| name.ends_with("revocation_log")).unwrap();
    until("the replica has the revocation", async || {
        watched.replica.names().await.contains(&log).then_some(())
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let new = |count| -> Vec<String> { (0..count).map(|_| watched.scene.opaque()).collect() };
    let loads = [load(&a, known.clone(), new(20), &stop), load(&b, known.clone(), new(20), &stop)];
    watched.scene.redis.kill().await;
    until("the replica is the primary", async || {
        watched.replica.info("replication").await?.contains("role:master").then_some(())
    })
    .await;
    for running in [&a, &b] {
        until("connected to the new primary", async || (readyz(running).await == "ready\n").then_some(()))
            .await;
    }
    // What one of them learns from now on, the other one finds in the new primary.
    let fresh = watched.scene.opaque();
    let before = shared_hits(&b).await;
    assert_alice(&a.ask(&fresh).await);
    until("it is shared", async || {
        let name = watched.replica.records("verdicts").await;
        (name.len() > 10).then_some(())
    })
    .await;
    a.service.instance().flush().await;
    assert_alice(&b.ask(&fresh).await);
    assert!(shared_hits(&b).await > before);
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (count, refused) = load.await.unwrap();
        assert!(refused.is_empty(), "{} of {count}: {:?}", refused.len(), refused[0]);
        assert!(count > 100, "{count}");
    }

    // Revocations: the one from before holds for who comes later; a new one reaches the other one.
    let c = watched.instance().await;
    assert_eq!(c.ask(&revoked).await.status, 401);
    assert_eq!(b.ask(&carol).await.status, 200);
    assert_eq!(order(&a, "/revoke", "{\"subject\": \"auth0|carol\"}").await.status, 200);
    until("b refuses", async || (b.ask(&carol).await.status == 401).then_some(())).await;
    // And what is forgotten: a message through the new primary.
    let calls = watched.scene.tenant.calls().userinfo;
    assert_eq!(purge(&b, &format!("{{\"token\": \"{fresh}\"}}")).await.status, 200);
    until("a asks again", async || {
        assert_alice(&a.ask(&fresh).await);
        (watched.scene.tenant.calls().userinfo > calls).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_is_down_or_names_a_replica_is_passed_over() {
    let Some((primary, port)) = RedisServer::start_on("--port", &[]).await else { return };
    let of = format!("127.0.0.1 {port}");
    let Some((_replica, replica_port)) = RedisServer::start_on("--port", &["--replicaof", &of]).await else {
        return;
    };
    // It knows no other sentinel, and it alone may not move to the real primary.
    let misled = sentinel(replica_port).await.unwrap();
    let right = sentinel(port).await.unwrap();
    let scene = Scene::on(primary).await;
    let head = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let start = async |config: String| {
        Holdfast::start_with(scene.files.path(), &format!("{head}{config}"), 1, &[]).await
    };
    let says = async |holdfast: &Holdfast, text: &str| {
        until(text, async || holdfast.log().contains(text).then_some(())).await;
    };

    let lost = start(config(&scene, &[misled.1, 1])).await;
    says(&lost, "the server that the sentinels name is not a primary yet").await;
    let nobody = start(config(&scene, &[1, right.1]).replace(NAME, "others")).await;
    says(&nobody, "the sentinels know no primary named \"others\"; check store.redis_sentinel_master").await;
    // A sentinel that is down, or too slow, at the first look, and then says what is wrong.
    let (mut late, late_port) = sentinel(port).await.unwrap();
    late.kill().await;
    let waits = start(config(&scene, &[late_port]).replace(NAME, "others")).await;
    says(&waits, "the shared store is degraded").await;
    late.restart().await;
    says(&waits, "still degraded: the sentinels know no primary named \"others\"").await;
    let found = start(config(&scene, &[1, misled.1, right.1])).await;
    says(&found, "records are shared through Redis").await;
    scene.redis.has("keys", 1).await;
}

/// As the guide says, with TLS everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_primary_are_reached_by_tls_by_the_users_of_the_guide() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    certificate(&at("cert.pem"), &at("key.pem"));
    let tls = [("cert", "cert.pem"), ("key", "key.pem"), ("ca-cert", "cert.pem")];
    let tls = tls.map(|(option, file)| (format!("tls-{option}-file"), at(file)));
    let mut options = vec!["--tls-auth-clients".to_owned(), "no".to_owned()];
    options.extend(tls.iter().flat_map(|(option, file)| [format!("--{option}"), file.clone()]));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some((primary, port)) = RedisServer::start_on("--tls-port", &options).await else { return };
    let mut lines =
        format!("tls-replication yes\ntls-auth-clients no\nsentinel monitor {NAME} 127.0.0.1 {port} 1\n");
    lines.extend(tls.iter().map(|(option, file)| format!("{option} {file}\n")));
    let (sentinel, sentinel_port) = RedisServer::start_sentinel("tls-port", &lines).await.unwrap();

    let rules: Vec<&str> =
        GUIDE.lines().map(str::trim).filter(|line| line.starts_with("ACL SETUSER")).collect();
    let [single, more, at_sentinel, ..] = rules[..] else { panic!("{rules:?}") };
    for (server, rule) in [(&primary, single), (&primary, more), (&sentinel, at_sentinel)] {
        let words: Vec<&str> = rule.split(' ').collect();
        redis::cmd("ACL").arg(&words[1..]).exec_async(&mut server.client().await).await.unwrap();
    }
    let scene = Scene::on(primary).await;
    let password = write_secret(&scene.files.path().join("password"), b"PASSWORD\n");
    let config = config(&scene, &[sentinel_port]).replace("redis://", "rediss://holdfast:PASSWORD@");
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}",
        config.replace(
            "[store]\n",
            &format!(
                "[store]\nredis_user = \"holdfast\"\nredis_password_file = \"{}\"\n",
                password.display()
            )
        )
    );
    let variables = [("SSL_CERT_FILE", at("cert.pem"))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let holdfast = Holdfast::start_with(scene.files.path(), &config, 1, &variables).await;
    scene.redis.has("keys", 1).await;
    assert!(!holdfast.log().contains("PASSWORD"), "{}", holdfast.log());
    for server in [&scene.redis, &sentinel] {
        let denied: Vec<redis::Value> =
            redis::cmd("ACL").arg("LOG").query_async(&mut server.client().await).await.unwrap();
        assert!(denied.is_empty(), "{denied:?}");
    }
    let used = scene.redis.info("commandstats").await.unwrap();
    let more = more.split(' ').filter_map(|word| word.strip_prefix('+'));
    more.for_each(|command| assert!(used.contains(&format!("cmdstat_{command}:")), "{command}: {used}"));
}
