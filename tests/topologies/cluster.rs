//! A cluster of three nodes, with a replica of the one that has our slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{FromRedisValue, ToRedisArgs};

use crate::load;
use crate::scene::{ALICE, Scene, assert_alice, connected, order, purge, readyz, shared_hits};
use crate::support::redis::RedisServer;
use crate::support::service::Running;
use crate::support::until;

const GUIDE: &str = include_str!("../../docs/how-to/redis.md");

/// In which all names of holdfast lie.
const TAG: &str = "holdfast:v1:{holdfast}:";

/// A node and its port.
struct Node {
    server: RedisServer,
    port: u16,
}

impl Node {
    async fn start() -> Option<Self> {
        let bus = crate::support::redis::free_port().to_string();
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "500",
            "--cluster-port",
            &bus,
            "--repl-diskless-sync-delay",
            "0",
        ];
        let (server, port) = RedisServer::start_on("--port", &options).await?;
        Some(Self { server, port })
    }

    async fn ask<T: FromRedisValue>(&self, command: &str, arguments: impl ToRedisArgs) -> T {
        let reply = redis::cmd(command).arg(arguments).query_async(&mut self.server.client().await).await;
        reply.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn cluster<T: FromRedisValue>(&self, arguments: &[&str]) -> T {
        self.ask("CLUSTER", arguments).await
    }

    async fn id(&self) -> String {
        self.cluster(&["MYID"]).await
    }
}

/// The nodes. The scene's Redis is the one that has our slot at first.
struct Cluster {
    scene: Scene,
    others: [Node; 2],
    replica: Node,
    slot: String,
}

impl Cluster {
    async fn new() -> Option<Self> {
        let nodes = [Node::start().await?, Node::start().await?, Node::start().await?, Node::start().await?];
        let slot: u16 = nodes[0].cluster(&["KEYSLOT", TAG]).await;
        // The first has a third of the slots, with ours in it.
        let third = 16_384 / 3;
        let mine = slot / third;
        for (position, node) in nodes[..3].iter().enumerate() {
            let part = (u16::try_from(position).unwrap() + mine.min(2)) % 3;
            let (first, last) = (part * third, if part == 2 { 16_383 } else { (part + 1) * third - 1 });
            let () = node.cluster(&["ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            let () = node.cluster(&["SET-CONFIG-EPOCH", &(position + 1).to_string()]).await;
        }
        for node in &nodes[1..] {
            let bus: Vec<String> = node.ask("CONFIG", &["GET", "cluster-port"]).await;
            let () = nodes[0].cluster(&["MEET", "127.0.0.1", &node.port.to_string(), &bus[1]]).await;
        }
        let owner = nodes[0].id().await;
        until("the replica follows", async || {
            let replicate = redis::cmd("CLUSTER").arg(&["REPLICATE", &owner]).clone();
            let mut client = nodes[3].server.client().await;
            replicate.exec_async(&mut client).await.ok()
        })
        .await;
        for node in &nodes {
            until("the cluster is well", async || {
                let info: String = node.cluster(&["INFO"]).await;
                let is_well = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4");
                is_well.then_some(())
            })
            .await;
        }
        until("the replica has what its primary has", async || {
            nodes[3].server.info("replication").await?.contains("master_link_status:up").then_some(())
        })
        .await;
        let [first, second, third, replica] = nodes;
        let scene = Scene::on(first.server).await;
        scene.tenant.set_time(Some(scene.clock.now().as_secs()));
        Some(Self { scene, others: [second, third], replica, slot: slot.to_string() })
    }

    /// Names nodes that do not have our slot, and one that is no node.
    fn config(&self) -> String {
        let ports = [1, self.others[0].port, self.others[1].port];
        let urls = ports.map(|port| format!("\"redis://127.0.0.1:{port}\"")).join(", ");
        let single = format!("redis = \"{}\"\n", self.scene.redis.url());
        self.scene.config("").replace(&single, &format!("redis_cluster = [{urls}]\n"))
    }

    async fn instance(&self) -> Arc<Running> {
        let running = Running::start(&self.config(), self.scene.clock.clone()).await;
        connected(&running).await;
        Arc::new(running)
    }

    async fn owner_does(&self, arguments: &[&str]) {
        let mut client = self.scene.redis.client().await;
        redis::cmd("CLUSTER").arg(arguments).exec_async(&mut client).await.unwrap();
    }

    /// Begins to move our slot to the first of the others.
    async fn begin_to_move(&self) {
        let mut client = self.scene.redis.client().await;
        let from: String = redis::cmd("CLUSTER").arg("MYID").query_async(&mut client).await.unwrap();
        let to = self.others[0].id().await;
        let () = self.others[0].cluster(&["SETSLOT", &self.slot, "IMPORTING", &from]).await;
        self.owner_does(&["SETSLOT", &self.slot, "MIGRATING", &to]).await;
    }

    /// Moves these names to there.
    async fn move_names(&self, names: &[String]) {
        let mut move_them = redis::cmd("MIGRATE");
        move_them.arg("127.0.0.1").arg(self.others[0].port).arg("").arg(0).arg(5_000).arg("KEYS").arg(names);
        move_them.exec_async(&mut self.scene.redis.client().await).await.unwrap();
    }

    /// Moves what is left, and ends the move.
    async fn end_the_move(&self) {
        let to = self.others[0].id().await;
        loop {
            let left = self.scene.redis.names().await;
            if left.is_empty() {
                break;
            }
            self.move_names(&left).await;
        }
        let () = self.others[0].cluster(&["SETSLOT", &self.slot, "NODE", &to]).await;
        self.owner_does(&["SETSLOT", &self.slot, "NODE", &to]).await;
        let () = self.others[1].cluster(&["SETSLOT", &self.slot, "NODE", &to]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_moved_under_load_takes_all_that_is_shared_along() {
    let Some(cluster) = Cluster::new().await else { return };
    let (a, b) = (cluster.instance().await, cluster.instance().await);
    let scene = &cluster.scene;
    let known: Vec<String> = (0..10).map(|_| scene.opaque()).collect();
    for token in &known {
        assert_alice(&a.ask(token).await);
    }
    scene.redis.has("verdicts", 10).await;
    assert!(scene.redis.names().await.iter().all(|name| name.starts_with(TAG)));
    let signed = |subject| scene.tenant.mint().subject(subject).email_direct(ALICE).build().unwrap();
    let (bob, carol, dave) = (signed("auth0|bob"), signed("auth0|carol"), signed("auth0|dave"));
    let revoke = async |running: &Running, subject: &str| {
        let body = format!("{{\"subject\": \"auth0|{subject}\"}}");
        let reply = order(running, "/revoke", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    revoke(&a, "bob").await;

    let stop = Arc::new(AtomicBool::new(false));
    let new = |count| -> Vec<String> { (0..count).map(|_| scene.opaque()).collect() };
    let loads = [load(&a, known.clone(), new(10), &stop), load(&b, known.clone(), new(10), &stop)];
    cluster.begin_to_move().await;
    // Half of the records lie at each node, and the log of revocations at the new one.
    let names = scene.redis.names().await;
    let log = names.iter().find(|name| name.ends_with("revocation_log")).unwrap().clone();
    let mut half: Vec<String> = scene.redis.records("verdicts").await.into_iter().step_by(2).collect();
    half.push(log);
    cluster.move_names(&half).await;

    // In the middle of the move: everything is found, forgotten and revoked at whichever node it lies.
    let c = cluster.instance().await;
    let calls = scene.tenant.calls().userinfo;
    for token in &known {
        assert_alice(&c.ask(token).await);
    }
    assert_eq!(shared_hits(&c).await, 10, "{calls} calls");
    assert_eq!(c.ask(&bob).await.status, 401);
    assert_eq!(b.ask(&carol).await.status, 200);
    revoke(&a, "carol").await;
    until("b refuses", async || (b.ask(&carol).await.status == 401).then_some(())).await;
    for running in [&a, &b, &c] {
        assert_eq!(readyz(running).await, "ready\n");
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (count, refused) = load.await.unwrap();
        assert!(refused.is_empty(), "{} of {count}: {:?}", refused.len(), refused[0]);
    }
    for token in &known {
        scene.tenant.revoke_token(token);
    }
    assert_eq!(purge(&a, "{\"all\": true}").await.status, 200);
    for token in &known {
        until("c has forgotten", async || (c.ask(token).await.status == 401).then_some(())).await;
    }

    cluster.end_the_move().await;
    // What was learned meanwhile, and what is learned now, is written at the new node.
    scene.redis.moment_passes().await;
    let later = scene.opaque();
    assert_alice(&a.ask(&later).await);
    let target = &cluster.others[0].server;
    until("it is shared at the new node", async || {
        a.service.instance().flush().await;
        (!target.records("verdicts").await.is_empty()).then_some(())
    })
    .await;
    // An instance that hears that the slot has moved connects to the new node. Until then it needs no Redis.
    until("b revokes", async || {
        (order(&b, "/revoke", "{\"subject\": \"auth0|dave\"}").await.status == 200).then_some(())
    })
    .await;
    until("a refuses", async || (a.ask(&dave).await.status == 401).then_some(())).await;
    let d = cluster.instance().await;
    for token in [&bob, &carol, &dave] {
        assert_eq!(d.ask(token).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_under_load_is_replaced_by_its_replica_and_nobody_is_refused() {
    let Some(mut cluster) = Cluster::new().await else { return };
    let (a, b) = (cluster.instance().await, cluster.instance().await);
    let known: Vec<String> = (0..10).map(|_| cluster.scene.opaque()).collect();
    for token in &known {
        assert_alice(&a.ask(token).await);
    }
    cluster.scene.redis.has("verdicts", 10).await;
    let signed = |subject| cluster.scene.tenant.mint().subject(subject).email_direct(ALICE).build().unwrap();
    let (bob, carol) = (signed("auth0|bob"), signed("auth0|carol"));
    assert_eq!(order(&a, "/revoke", "{\"subject\": \"auth0|bob\"}").await.status, 200);
    until("the replica has it", async || {
        let names = cluster.replica.server.names().await;
        (names.iter().any(|name| name.ends_with("revocation_log")) && names.len() > 10).then_some(())
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let new = |count| -> Vec<String> { (0..count).map(|_| cluster.scene.opaque()).collect() };
    let loads = [load(&a, known.clone(), new(10), &stop), load(&b, known.clone(), new(10), &stop)];
    cluster.scene.redis.kill().await;
    until("the replica is a primary", async || {
        cluster.replica.server.info("replication").await?.contains("role:master").then_some(())
    })
    .await;
    for running in [&a, &b] {
        until("connected to it", async || (readyz(running).await == "ready\n").then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (count, refused) = load.await.unwrap();
        assert!(refused.is_empty(), "{} of {count}: {:?}", refused.len(), refused[0]);
    }
    let c = cluster.instance().await;
    assert_eq!(c.ask(&bob).await.status, 401);
    assert_eq!(b.ask(&carol).await.status, 200);
    assert_eq!(order(&a, "/revoke", "{\"subject\": \"auth0|carol\"}").await.status, 200);
    until("b refuses", async || (b.ask(&carol).await.status == 401).then_some(())).await;
    let before = shared_hits(&c).await;
    assert_alice(&c.ask(&known[0]).await);
    assert_eq!(shared_hits(&c).await, before + 1);
}

/// The user of the guide may do all that is done, also while the slot is moved.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_guide_is_enough_in_a_cluster() {
    let Some(cluster) = Cluster::new().await else { return };
    let rules: Vec<&str> =
        GUIDE.lines().map(str::trim).filter(|line| line.starts_with("ACL SETUSER")).collect();
    let more = *rules.iter().find(|rule| rule.contains("+asking")).unwrap();
    let servers = [&cluster.scene.redis, &cluster.others[0].server, &cluster.others[1].server];
    for server in servers {
        for rule in [rules[0], more] {
            let words: Vec<&str> = rule.split(' ').collect();
            redis::cmd("ACL").arg(&words[1..]).exec_async(&mut server.client().await).await.unwrap();
        }
    }
    let config = cluster.config().replace("redis://", "redis://holdfast:PASSWORD@");
    let start = async || {
        let running = Running::start(&config, cluster.scene.clock.clone()).await;
        connected(&running).await;
        running
    };
    let a = start().await;
    let token = cluster.scene.opaque();
    assert_alice(&a.ask(&token).await);
    cluster.scene.redis.has("verdicts", 1).await;
    cluster.begin_to_move().await;
    cluster.move_names(&cluster.scene.redis.records("verdicts").await).await;
    let b = start().await;
    assert_alice(&b.ask(&token).await);
    assert_eq!(shared_hits(&b).await, 1);
    assert_eq!(order(&a, "/revoke", "{\"subject\": \"auth0|bob\"}").await.status, 200);
    assert_eq!(purge(&a, "{\"all\": true}").await.status, 200);
    for server in servers {
        let denied: Vec<redis::Value> =
            redis::cmd("ACL").arg("LOG").query_async(&mut server.client().await).await.unwrap();
        assert!(denied.is_empty(), "{denied:?}");
    }
}
