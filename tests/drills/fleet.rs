//! Eight real processes that share a real Redis, under load: what one of them acknowledged as revoked is
//! refused by all, also when processes and Redis are killed between any two steps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use holdfast_devtenant::{Options, Tenant};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::redis::RedisServer;
use crate::support::service::{issuer, request};
use crate::support::{Holdfast, PATIENCE, Reply, exchange, until};

const INSTANCES: usize = 8;

/// How many revocations are timed.
const ROUNDS: usize = 30;

struct Fleet {
    tenant: Tenant,
    redis: RedisServer,
    files: TempDir,
    instances: Vec<Option<Holdfast>>,
    load: Load,
}

impl Fleet {
    async fn start() -> Option<Self> {
        let redis = RedisServer::start().await?;
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, [7; 32]).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let token = tenant.mint().subject("auth0|load").email_direct("load@x.org").build().unwrap();
        let load = Load::start(request("/auth", &format!("Authorization: Bearer {token}\r\n")));
        let mut fleet = Self { tenant, redis, files, instances: Vec::new(), load };
        for number in 0..INSTANCES {
            fleet.instances.push(None);
            fleet.run(number).await;
        }
        for number in 0..INSTANCES {
            until("it knows the keys", async || {
                (fleet.at(number).admin("/readyz").await.status == 200).then_some(())
            })
            .await;
        }
        Some(fleet)
    }

    async fn run(&mut self, number: usize) {
        let directory = self.files.path().join(number.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\nsecret_file = {:?}\n\
             redis = {:?}\nredis_timeout = \"10s\"\n{}",
            directory.join("data"),
            self.files.path().join("secret"),
            self.redis.url(),
            issuer(&self.tenant, ""),
        );
        let holdfast = Holdfast::start(&directory, &config, 1).await;
        self.load.ports[number].store(holdfast.auth_tcp().port(), SeqCst);
        self.instances[number] = Some(holdfast);
    }

    /// As `kill -9`.
    async fn kill(&mut self, number: usize) {
        self.load.ports[number].store(0, SeqCst);
        self.instances[number].take().unwrap().kill().await;
    }

    fn at(&self, number: usize) -> &Holdfast {
        self.instances[number].as_ref().unwrap()
    }

    fn token(&self, subject: &str) -> String {
        self.tenant.mint().subject(subject).email_direct("a@x.org").build().unwrap()
    }

    /// Mints a token of this subject, and lets each instance know it.
    async fn let_in(&self, subject: &str) -> String {
        let token = self.token(subject);
        for instance in self.instances.iter().flatten() {
            let reply = instance.ask(&token).await;
            assert_eq!(reply.status, 200, "{subject}: {reply:?}");
        }
        token
    }

    async fn revoke(&self, number: usize, subject: &str) -> Reply {
        let body = json!({ "subject": subject }).to_string();
        let request = format!(
            "POST /revoke HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(TcpStream::connect(self.at(number).admin).await.unwrap(), request.as_bytes()).await
    }

    async fn all_refuse(&self, token: &str, what: &str) {
        for (number, instance) in self.instances.iter().enumerate() {
            let Some(instance) = instance else { continue };
            until(&format!("instance {number} refuses: {what}; its log: {}", instance.log()), async || {
                (instance.ask(token).await.status == 401).then_some(())
            })
            .await;
        }
    }

    /// Waits until the instance has on its disk what it heard of: it lists names from there.
    async fn has_written(&self, number: usize, revocations: usize) {
        until("its disk has them", async || {
            let list: Value = serde_json::from_str(&self.at(number).admin("/revocations").await.body).ok()?;
            let rows = list["revocations"].as_array()?;
            let is_named = |row: &Value| row["what"].as_str().is_some_and(|what| !what.starts_with('('));
            (rows.len() == revocations && rows.iter().all(is_named)).then_some(())
        })
        .await;
    }

    /// The first verdict of an instance that has just started. While it does not know the issuer's keys, it
    /// says 503.
    async fn first_verdict(&self, number: usize, token: &str) -> u16 {
        until("a verdict", async || {
            Some(self.at(number).ask(token).await.status).filter(|status| *status != 503)
        })
        .await
    }
}

/// Asks each instance again and again about a token that is never revoked.
struct Load {
    /// Where to ask; 0 is nowhere.
    ports: Arc<[AtomicU16; INSTANCES]>,
    answers: Arc<AtomicU64>,
    was_refused: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(request: Vec<u8>) -> Self {
        let ports: Arc<[AtomicU16; INSTANCES]> = Arc::default();
        let (answers, was_refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for number in 0..INSTANCES {
            let (ports, answers, was_refused) = (ports.clone(), answers.clone(), was_refused.clone());
            let request = request.clone();
            tasks.spawn(async move {
                loop {
                    let port = ports[number].load(SeqCst);
                    // So that the machine has time for what is measured.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    // A killed instance breaks connections; those tell nothing.
                    let address = SocketAddr::from(([127, 0, 0, 1], port));
                    let Ok(stream) = TcpStream::connect(address).await else { continue };
                    match status(stream, &request).await {
                        Some(200) => drop(answers.fetch_add(1, SeqCst)),
                        Some(401 | 403) => was_refused.store(true, SeqCst),
                        _ => {}
                    }
                }
            });
        }
        Self { ports, answers, was_refused, tasks }
    }

    /// How many requests were let in. None was refused.
    fn end(mut self) -> u64 {
        self.tasks.abort_all();
        assert!(!self.was_refused.load(SeqCst), "somebody was refused who was never revoked");
        self.answers.load(SeqCst)
    }
}

/// The status of the answer, if one came.
async fn status(mut stream: TcpStream, request: &[u8]) -> Option<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// The times are printed and not judged: the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_refuse_what_one_of_them_acknowledged_under_load() {
    let Some(fleet) = Fleet::start().await else { return };
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let subject = format!("auth0|{round}");
        let token = fleet.let_in(&subject).await;
        let told = round % INSTANCES;
        let reply = fleet.revoke(told, &subject).await;
        let acknowledged = Instant::now();
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut asking = JoinSet::new();
        for (number, instance) in fleet.instances.iter().flatten().enumerate() {
            let (port, question) =
                (instance.auth_tcp(), request("/auth", &format!("Authorization: Bearer {token}\r\n")));
            asking.spawn(async move {
                while status(TcpStream::connect(port).await.unwrap(), &question).await != Some(401) {
                    assert_ne!(number, told, "it lets in what it has acknowledged");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (number != told).then(|| acknowledged.elapsed())
            });
        }
        let answers = tokio::time::timeout(PATIENCE, asking.join_all()).await.unwrap();
        took.extend(answers.into_iter().flatten());
    }
    assert_eq!(took.len(), ROUNDS * (INSTANCES - 1));
    let asked = fleet.load.end();
    show(took, asked);
}

/// Prints the times in powers of two.
fn show(mut took: Vec<Duration>, asked: u64) {
    took.sort();
    let share = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1e3;
    let mut rows = BTreeMap::new();
    for time in &took {
        *rows.entry(time.as_millis().next_power_of_two()).or_insert(0) += 1;
    }
    println!(
        "from an acknowledged revocation to the first refusal at each of {} other processes, beside {asked} requests:",
        INSTANCES - 1
    );
    for (millis, count) in rows {
        println!("  at most {millis:>5} ms {count:>5}");
    }
    println!("  half {:.1} ms, 99 % {:.1} ms, all {:.1} ms", share(50), share(99), share(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_loses_nothing_acknowledged_when_its_processes_and_its_redis_are_killed() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let mut revoked = Vec::new();

    // The one that acknowledged it is killed at once; another one was down meanwhile.
    let subject = "auth0|one";
    let token = fleet.let_in(subject).await;
    fleet.kill(7).await;
    assert_eq!(fleet.revoke(0, subject).await.status, 200);
    fleet.kill(0).await;
    fleet.all_refuse(&token, "what a process acknowledged that is gone").await;
    for number in [0, 7] {
        fleet.run(number).await;
        assert_eq!(fleet.first_verdict(number, &token).await, 401, "the first verdict of instance {number}");
    }
    revoked.push(token);

    // Redis is killed, with all that it has: it comes back empty.
    let subject = "auth0|two";
    let token = fleet.let_in(subject).await;
    assert_eq!(fleet.revoke(1, subject).await.status, 200);
    fleet.has_written(1, 2).await;
    fleet.redis.kill().await;
    fleet.kill(1).await;
    fleet.redis.restart().await;
    revoked.push(token);
    fleet.run(1).await;
    for token in &revoked {
        assert_eq!(fleet.first_verdict(1, token).await, 401, "from its disk");
        fleet.all_refuse(token, "what Redis has lost").await;
    }

    // Without Redis: acknowledged where it was said, and on that disk. A process that starts meanwhile says
    // that it may have missed something.
    let subject = "auth0|three";
    let token = fleet.let_in(subject).await;
    for instance in [2, 3] {
        fleet.has_written(instance, 2).await;
    }
    fleet.redis.kill().await;
    let reply = until("it notices", async || {
        let reply = fleet.revoke(2, subject).await;
        (reply.status == 202).then_some(reply)
    })
    .await;
    assert!(reply.body.contains("Redis is degraded"), "{reply:?}");
    fleet.kill(2).await;
    fleet.kill(3).await;
    fleet.run(2).await;
    fleet.run(3).await;
    for instance in [2, 3] {
        for token in &revoked {
            assert_eq!(fleet.first_verdict(instance, token).await, 401, "instance {instance}, from its disk");
        }
    }
    assert_eq!(fleet.first_verdict(2, &token).await, 401, "where it was acknowledged");
    assert_eq!(fleet.first_verdict(3, &token).await, 200, "it cannot know");
    assert!(fleet.at(3).admin("/readyz").await.body.contains("behind"));
    let current = request("/auth?revocation=current", &format!("Authorization: Bearer {token}\r\n"));
    let reply = exchange(TcpStream::connect(fleet.at(3).auth_tcp()).await.unwrap(), &current).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    fleet.redis.restart().await;
    revoked.push(token);
    for token in &revoked {
        fleet.all_refuse(token, "when Redis is there again").await;
    }

    // One after the other is killed and started, and then all of them with Redis.
    let subject = "auth0|four";
    let token = fleet.let_in(subject).await;
    assert_eq!(fleet.revoke(4, subject).await.status, 200);
    fleet.all_refuse(&token, "everywhere").await;
    revoked.push(token);
    for number in 0..INSTANCES {
        fleet.kill(number).await;
    }
    fleet.redis.kill().await;
    fleet.redis.restart().await;
    fleet.run(4).await;
    for number in (0..INSTANCES).filter(|number| *number != 4) {
        fleet.run(number).await;
    }
    for token in &revoked {
        fleet.all_refuse(token, "after all were killed").await;
    }
    assert!(fleet.load.end() > 0);
}
