//! Two instances that share a Redis, against a naive model: whatever is lost on the way (messages, entries of
//! the log, the whole of Redis, the connection of one of them, one of them with its disk), each refuses what
//! was acknowledged where it was said at once, the other as soon as it can reach Redis, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Source;
use holdfast::revocation::{RevocationKey, TokenFacts};
use holdfast::service::Service;
use holdfast::store::revocations::{NotStored, Source as By};
use holdfast::store::target::Target;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::Dice;
use crate::support::redis::RedisServer;
use crate::support::until;

const SUBJECTS: usize = 3;
const LIVES: u64 = 4;
const STEPS: usize = 24;
const ISSUER: &str = "http://127.0.0.1:1/";
const KEEP: Duration = Duration::from_secs(30 * 86_400);

/// What somebody knows of each subject: when it was last said, and whether that was a revocation.
type Known = BTreeMap<usize, (u64, bool)>;

fn is_refused(known: &Known, subject: usize, issued_at: u64) -> bool {
    known.get(&subject).is_some_and(|(at, revoked)| *revoked && issued_at <= at / 1000)
}

/// Adds what others know: the later word counts.
fn learn(known: &mut Known, others: &Known) {
    for (subject, word) in others {
        let own = known.entry(*subject).or_insert(*word);
        *own = (*own).max(*word);
    }
}

/// The way from an instance to Redis, which can be cut.
struct Line {
    is_open: watch::Sender<bool>,
}

impl Line {
    fn lay(at: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let (is_open, open) = watch::channel(true);
        let to = to.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut open, to) = (open.clone(), to.clone());
                tokio::spawn(async move {
                    let Ok(mut server) = UnixStream::connect(to).await else { return };
                    tokio::select! {
                        _ = open.wait_for(|open| !open) => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { is_open }
    }

    fn set_open(&self, open: bool) {
        let _ = self.is_open.send_replace(open);
    }

    fn is_cut(&self) -> bool {
        !*self.is_open.borrow()
    }
}

/// An instance with a disk and a line to Redis, and what it must know.
struct Node {
    files: TempDir,
    line: Line,
    service: Option<Service>,
    known: Known,
    /// What was said there, which is on its disk.
    own: Known,
    /// Subjects of whom it has heard from the other, and may have lost that at a restart without Redis: what
    /// it hears reaches its disk a little later. It says that it is behind then.
    unsure: BTreeSet<usize>,
}

impl Node {
    async fn start(redis: &RedisServer, clock: &Clock) -> Self {
        let files = tempfile::tempdir().unwrap();
        let line = Line::lay(&files.path().join("redis.sock"), &redis.socket());
        let mut node = Self {
            files,
            line,
            service: None,
            known: Known::new(),
            own: Known::new(),
            unsure: BTreeSet::new(),
        };
        node.run(clock).await;
        node
    }

    async fn run(&mut self, clock: &Clock) {
        let at = |name: &str| self.files.path().join(name);
        let secret = super::shared_secret(&at("secret"));
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\nsecret_file = \
             {secret:?}\nredis = \"unix://{}\"\nredis_timeout = \"10s\"\n[[issuer]]\nurl = \"{ISSUER}\"\naudience = \"a\"\n",
            at("data"),
            at("redis.sock").display()
        );
        self.service = Some(
            until("the data directory is free", async || {
                Service::start(Source::text("test.toml", &config), clock.clone()).await.ok()
            })
            .await,
        );
    }

    /// Ends it, maybe with its disk, and starts it again.
    async fn restart(&mut self, with_disk: bool, clock: &Clock) {
        self.service.take().unwrap().drain().await;
        if !with_disk {
            until("the disk is gone", async || std::fs::remove_dir_all(self.files.path().join("data")).ok())
                .await;
            self.known.clear();
            self.own.clear();
        } else if self.line.is_cut() {
            let heard = self.known.iter().filter(|(subject, word)| self.own.get(subject) != Some(word));
            self.unsure.extend(heard.map(|(subject, _)| *subject));
        }
        self.run(clock).await;
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    async fn say(&mut self, subject: usize, revoke: bool, clock: &Clock) {
        let instance = self.service().instance();
        let key = RevocationKey::subject(&instance.digester.subject(ISSUER, &subject.to_string()));
        let targets = vec![Target { key, former: None, label: subject.to_string() }];
        let said = match revoke {
            true => instance.revocations.revoke(targets, clock.now(), KEEP, By::Admin).await,
            false => instance.revocations.unrevoke(targets, KEEP).await,
        };
        // The disk is well, so that it is kept at least there.
        assert!(matches!(said, Ok(()) | Err(NotStored::Pending(..))), "{said:?}");
        let word = (clock.now().as_millis(), revoke);
        self.known.insert(subject, word);
        self.own.insert(subject, word);
        self.unsure.remove(&subject);
    }

    fn refuses(&self, subject: usize, issued_at: u64) -> bool {
        let instance = self.service().instance();
        let subject = RevocationKey::subject(&instance.digester.subject(ISSUER, &subject.to_string()));
        let issued_at = Timestamp::from_secs(issued_at);
        let facts = TokenFacts { issuer: ISSUER, subject, session: None, token: "t", kid: None, issued_at };
        instance.revocations.set().denies(&facts, &instance.digester).is_some()
    }

    /// Whether it has each word in memory, also one that changes no verdict.
    fn has_heard(&self, words: &Known) -> bool {
        let instance = self.service().instance();
        words.iter().all(|(subject, (at, revoked))| {
            let key = RevocationKey::subject(&instance.digester.subject(ISSUER, &subject.to_string()));
            let known = instance.revocations.set().get(&key);
            known.is_some_and(|known| known.changed_at.as_millis() == *at && known.is_in_force() == *revoked)
        })
    }

    /// The tokens about which it says something else than what it must know.
    fn errors(&self, tokens: &[(usize, u64)]) -> Vec<(usize, u64)> {
        let is_wrong = |(subject, issued_at): &&(usize, u64)| {
            !self.unsure.contains(subject)
                && self.refuses(*subject, *issued_at) != is_refused(&self.known, *subject, *issued_at)
        };
        tokens.iter().filter(is_wrong).copied().collect()
    }
}

/// The keys in the log.
async fn logged(redis: &RedisServer) -> BTreeSet<Vec<u8>> {
    let Some(log) = redis.names().await.into_iter().find(|name| name.ends_with(":revocation_log")) else {
        return BTreeSet::new();
    };
    type Entries = Vec<(String, BTreeMap<String, Vec<u8>>)>;
    let mut client = redis.client().await;
    let entries: Entries =
        redis::cmd("XRANGE").arg(log).arg("-").arg("+").query_async(&mut client).await.unwrap();
    entries.into_iter().map(|(_, fields)| fields["k"].clone()).collect()
}

/// Waits until every connected instance knows what is known anywhere connected, and the log has it, too.
async fn settle(redis: &RedisServer, nodes: &mut [Node], tokens: &[(usize, u64)], story: &str) {
    let mut all = Known::new();
    nodes.iter().filter(|node| !node.line.is_cut()).for_each(|node| learn(&mut all, &node.known));
    for node in nodes.iter_mut().filter(|node| !node.line.is_cut()) {
        node.known.clone_from(&all);
        node.unsure.clear();
        until(&format!("{story}: {:?} is known", node.known), async || {
            node.has_heard(&node.known).then_some(())
        })
        .await;
        assert_eq!(node.errors(tokens), [], "{story}: {:?}", node.known);
    }
    if nodes.iter().any(|node| !node.line.is_cut()) {
        let enough = async || (logged(redis).await.len() >= all.len()).then_some(());
        until(&format!("{story}: the log has {all:?}"), enough).await;
    }
}

async fn live(seed: u64) {
    let Some(mut redis) = RedisServer::start().await else { return };
    let mut dice = Dice(seed);
    let clock = Clock::held_at(Timestamp::from_secs(1_800_000_000));
    let mut nodes = [Node::start(&redis, &clock).await, Node::start(&redis, &clock).await];
    let (mut tokens, mut story) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let (step, who, subject) = (dice.below(15), dice.below(2), dice.below(SUBJECTS));
        story.push((step, who, subject));
        let told = format!("seed {seed}, {story:?}");
        // The later word counts, so no two are of the same moment.
        clock.advance(Duration::from_millis(1));
        let is_whole = nodes.iter().all(|node| !node.line.is_cut());
        match step {
            0 => tokens.push((subject, clock.now().as_secs())),
            1..=4 => nodes[who].say(subject, true, &clock).await,
            5 => nodes[who].say(subject, false, &clock).await,
            6 => clock.advance(Duration::from_secs(1 + 3 * dice.below(600) as u64)),
            7 if is_whole => nodes[who].line.set_open(false),
            7 | 8 => nodes.iter().for_each(|node| node.line.set_open(true)),
            // Messages are lost.
            9 => {
                let mut command = redis::cmd("CLIENT");
                command.arg("KILL").arg("TYPE").arg("pubsub");
                command.exec_async(&mut redis.client().await).await.unwrap();
            }
            // A replica takes over that lacks the newest entry, which may have been acknowledged just now.
            10 | 14 => {
                if step == 14 {
                    nodes[who].say(subject, true, &clock).await;
                }
                let names = redis.names().await;
                if let Some(log) = names.iter().find(|name| name.ends_with(":revocation_log")) {
                    let mut client = redis.client().await;
                    let newest: Vec<(String, Vec<Vec<u8>>)> = redis::cmd("XREVRANGE")
                        .arg(log)
                        .arg("+")
                        .arg("-")
                        .arg("COUNT")
                        .arg(1)
                        .query_async(&mut client)
                        .await
                        .unwrap();
                    for (place, _) in newest {
                        redis::cmd("XDEL").arg(log).arg(place).exec_async(&mut client).await.unwrap();
                    }
                }
            }
            11 => {
                redis.kill().await;
                redis.restart().await;
            }
            12 => nodes[who].restart(true, &clock).await,
            // What one of two has lost with its disk, the other has, or Redis.
            _ if is_whole => nodes[who].restart(false, &clock).await,
            _ => {}
        }
        tokens.push((subject, clock.now().as_secs()));
        // What was said there holds at once, also without Redis; and what it had heard.
        for node in nodes.iter().filter(|node| node.line.is_cut()) {
            assert_eq!(node.errors(&tokens), [], "{told}: {:?}", node.known);
        }
        if matches!(step, 1..=5 | 14) {
            assert_eq!(nodes[who].errors(&tokens), [], "{told}: {:?}", nodes[who].known);
        }
        settle(&redis, &mut nodes, &tokens, &told).await;
    }
    for node in nodes {
        node.service.unwrap().drain().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_refuse_what_was_acknowledged_whatever_is_lost_between_them() {
    for seed in 0..LIVES {
        live(seed).await;
    }
}
