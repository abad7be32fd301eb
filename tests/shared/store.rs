//! The store by itself: which of two records stays, what a full queue does, and what instances tell each
//! other.

use std::sync::Arc;
use std::time::Duration;

use holdfast::clock::{Clock, Timestamp};
use holdfast::store::archive::Archive;
use holdfast::store::purge::{Purge, Subject};
use holdfast::store::shared::{Forget, RedisAddress, SharedSettings};
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::digest::{SubjectKey, TokenDigest};
use holdfast::tiers::policy::Policy;
use holdfast::tiers::record::{Family, IdentitySource, ProfileRecord, VerdictRecord};

use crate::scene::{HOUR, write_secret};
use crate::support::redis::RedisServer;
use crate::support::{PATIENCE, until};

const KEY: [u8; 32] = [9; 32];

const MINUTE: Duration = Duration::from_secs(60);

/// A store of its own on this Redis, and what it counts.
struct Store {
    archive: Arc<Archive>,
    metrics: Arc<Metrics>,
    clock: Clock,
    policy: Policy,
}

impl Store {
    fn start(redis: &RedisServer, queue: usize) -> Self {
        let files = tempfile::tempdir().unwrap();
        let secret = write_secret(&files.path().join("secret"), &[7; 32]);
        let address = RedisAddress::parse(&redis.url()).unwrap();
        let settings =
            SharedSettings { queue, read_timeout: Duration::from_secs(10), ..SharedSettings::at(address) };
        let clock = Clock::held_at(Timestamp::from_secs(1_800_000_000));
        let metrics = Arc::new(Metrics::new().unwrap());
        let (archive, _) =
            Archive::open_shared(settings, None, &secret, clock.clone(), metrics.clone()).unwrap();
        Self { archive: Arc::new(archive), metrics, clock, policy: Policy::default() }
    }

    async fn connected(&self) {
        tokio::time::timeout(PATIENCE, self.archive.shared().unwrap().connected()).await.unwrap();
    }

    /// Keeps a profile that was verified then, and waits until it was written or turned away.
    async fn keep(&self, verified_at: Timestamp) {
        let profile = profile(verified_at);
        self.archive.keep(&KEY, &profile, &profile.known(None), &self.policy);
        self.archive.shared().unwrap().flush().await;
    }

    async fn kept(&self) -> Option<Timestamp> {
        let (profile, store) = self.archive.load::<ProfileRecord>(&KEY, &self.policy).await?;
        assert_eq!(store, "shared");
        Some(profile.verified_at)
    }

    fn counted(&self, series: &str) -> usize {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

fn profile(verified_at: Timestamp) -> ProfileRecord {
    let email = Some("alice@example.com".to_owned());
    ProfileRecord { verified_at, email, email_verified: None, name: None, email_rules: [0; 4] }
}

fn verdict(subject: &str, verified_at: Timestamp) -> VerdictRecord {
    VerdictRecord {
        verified_at,
        not_after: None,
        foreign: true,
        issuer: "https://tenant.example/".to_owned(),
        subject: subject.to_owned(),
        email: None,
        email_verified: None,
        source: IdentitySource::Userinfo,
        claims: "{}".to_owned(),
        first_verified_at: Timestamp::EPOCH,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_records_the_younger_stays_and_a_forgotten_one_comes_back_only_if_it_is_younger() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    let start = store.clock.now();
    for (written, stays) in [(0, 0), (2, 2), (1, 2), (3, 3)] {
        store.keep(start.after(written * HOUR)).await;
        store.clock.advance(HOUR);
        assert_eq!(store.kept().await, Some(start.after(stays * HOUR)));
    }
    let youngest = start.after(3 * HOUR);
    store.archive.forget(Family::Profiles, &KEY, &store.policy);
    store.archive.shared().unwrap().flush().await;
    assert_eq!(store.kept().await, None);
    store.keep(youngest).await;
    assert_eq!(store.kept().await, None, "it was verified before it was forgotten");
    store.clock.advance(HOUR);
    redis.moment_passes().await;
    store.keep(store.clock.now()).await;
    assert_eq!(store.kept().await, Some(store.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_an_instance_whose_clock_is_wrong_does_not_stay_for_good() {
    let Some(redis) = RedisServer::start().await else { return };
    let (wrong, right) = (Store::start(&redis, 1 << 20), Store::start(&redis, 1 << 20));
    wrong.connected().await;
    right.connected().await;
    wrong.clock.advance(1_000 * HOUR);
    wrong.keep(wrong.clock.now()).await;
    right.keep(right.clock.now()).await;
    assert_eq!(right.kept().await, Some(right.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_has_no_room_for_is_counted_and_what_it_has_is_written_when_redis_comes() {
    let Some(mut redis) = RedisServer::start().await else { return };
    redis.kill().await;
    let store = Store::start(&redis, 4_096);
    let all = 100;
    for key in 0..all {
        let profile = profile(store.clock.now());
        store.archive.keep(&[u8::try_from(key).unwrap(); 32], &profile, &profile.known(None), &store.policy);
    }
    let lost = store.counted("holdfast_store_errors_total{kind=\"queue_full\",store=\"shared\"}");
    assert!(lost > 0 && lost < all, "{lost}");
    redis.restart().await;
    redis.has("profiles", all - lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_while_redis_is_away_is_forgotten_before_it_is_read_again() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    store.keep(store.clock.now()).await;
    let alice = verdict("auth0|alice", store.clock.now());
    store.archive.keep(&KEY, &alice, &alice.known(), &store.policy);
    store.archive.shared().unwrap().flush().await;
    let mut before = Vec::new();
    for name in redis.names().await {
        before.push((name.clone(), redis.value(&name).await));
    }
    assert_eq!(before.len(), 2);
    let bring_back = async |redis: &RedisServer| {
        for (name, value) in &before {
            redis.set(name, value).await;
        }
    };

    // A Redis that keeps its data: it hangs, and goes on with all that it had.
    let one = [SubjectKey(KEY)];
    let who =
        Subject { subject: "auth0|alice".to_owned(), issuers: vec!["https://tenant.example/".to_owned()] };
    for purge in [Purge::Token(TokenDigest(KEY)), Purge::Subject(who, one.to_vec()), Purge::Everybody] {
        let is_token = matches!(purge, Purge::Token(_));
        bring_back(&redis).await;
        redis.signal("STOP").await;
        let unfinished = store.archive.purge(&purge, &store.policy).await.unwrap_err();
        assert!(unfinished.shared.is_some() && unfinished.disk.is_none(), "{unfinished}");
        redis.signal("CONT").await;
        let found = until("it is read again", async || {
            store.archive.shared().unwrap().lookup(Family::Verdicts, &KEY).await.ok()
        })
        .await;
        assert_eq!(found, None);
        let people = if is_token { vec![] } else { redis.records("profiles").await };
        assert!(people.is_empty() && redis.records("verdicts").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_forgets_all_others_are_told_and_it_is_not_told_itself() {
    let Some(redis) = RedisServer::start().await else { return };
    let (one, other) = (Store::start(&redis, 1 << 20), Store::start(&redis, 1 << 20));
    one.connected().await;
    other.connected().await;
    let (mut to_one, mut to_other) = (one.archive.forgets().unwrap(), other.archive.forgets().unwrap());
    one.archive.forget(Family::Profiles, &KEY, &one.policy);
    let told = tokio::time::timeout(PATIENCE, to_other.recv()).await.unwrap().unwrap();
    assert_eq!(told, Forget::Profile(KEY));
    one.archive.purge(&Purge::Everybody, &one.policy).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, to_other.recv()).await.unwrap().unwrap();
    assert_eq!(told, Forget::Everybody);
    other.archive.forget(Family::Verdicts, &KEY, &other.policy);
    let told = tokio::time::timeout(PATIENCE, to_one.recv()).await.unwrap().unwrap();
    assert_eq!(told, Forget::Token(KEY), "the first that it is told is the other's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_before_a_no_does_not_come_back_after_it() {
    let Some(redis) = RedisServer::start().await else { return };
    let (one, other) = (Store::start(&redis, 1 << 20), Store::start(&redis, 1 << 20));
    one.connected().await;
    other.connected().await;
    let now = one.clock.now();
    one.keep(now).await;
    assert_eq!(one.kept().await, Some(now));
    one.archive.forget(Family::Profiles, &KEY, &one.policy);
    one.archive.shared().unwrap().flush().await;
    other.clock.advance(Duration::from_secs(1));
    other.keep(now).await;
    assert_eq!(other.kept().await, None);
    redis.moment_passes().await;
    other.keep(other.clock.now()).await;
    assert_eq!(other.kept().await, Some(other.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_not_found_a_moment_later_although_redis_still_has_it() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    for _ in 0..50 {
        store.clock.advance(HOUR);
        redis.moment_passes().await;
        store.keep(store.clock.now()).await;
        assert_eq!(store.kept().await, Some(store.clock.now()));
        store.archive.forget(Family::Profiles, &KEY, &store.policy);
        assert_eq!(store.kept().await, None);
        store.archive.shared().unwrap().flush().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_hear_of_a_purge_of_everybody_does_not_bring_an_older_record_back() {
    let Some(redis) = RedisServer::start().await else { return };
    let (one, other) = (Store::start(&redis, 1 << 20), Store::start(&redis, 1 << 20));
    one.connected().await;
    other.connected().await;
    let before = one.clock.now();
    other.keep(before).await;
    assert_eq!(one.kept().await, Some(before));
    one.clock.advance(Duration::from_secs(10));
    one.archive.purge(&Purge::Everybody, &one.policy).await.unwrap();
    // As one that copies from its disk what it looked for before it heard.
    other.clock.advance(Duration::from_secs(11));
    other.keep(before).await;
    assert_eq!(one.kept().await, None);
    redis.moment_passes().await;
    other.keep(other.clock.now()).await;
    assert_eq!(one.kept().await, Some(other.clock.now()), "what is vouched for later counts");
}

/// What is forgotten counts from then on by Redis's clock, whatever the clock of the instance that forgot it
/// says.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_clock_is_wrong_forgets_for_others_neither_more_nor_less() {
    let Some(redis) = RedisServer::start().await else { return };
    let (wrong, right) = (Store::start(&redis, 1 << 20), Store::start(&redis, 1 << 20));
    wrong.connected().await;
    right.connected().await;
    let wrongly = [right.clock.now().after(MINUTE * 2), right.clock.now().before(MINUTE * 2)];
    for (at, everybody) in [(wrongly[0], false), (wrongly[0], true), (wrongly[1], false), (wrongly[1], true)]
    {
        right.clock.advance(MINUTE);
        let before = right.clock.now();
        redis.moment_passes().await;
        right.keep(before).await;
        assert_eq!(right.kept().await, Some(before));
        wrong.clock.set_wall(at);
        if everybody {
            wrong.archive.purge(&Purge::Everybody, &wrong.policy).await.unwrap();
        } else {
            wrong.archive.forget(Family::Profiles, &KEY, &wrong.policy);
            wrong.archive.shared().unwrap().flush().await;
        }
        right.clock.advance(Duration::from_secs(1));
        right.keep(before).await;
        assert_eq!(right.kept().await, None, "from before: {everybody} at {at:?}");
        redis.moment_passes().await;
        right.keep(right.clock.now()).await;
        assert_eq!(right.kept().await, Some(right.clock.now()), "from after: {everybody} at {at:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_forgets_and_is_read_on() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    store.keep(store.clock.now()).await;
    redis.limit(1).await;
    store.archive.forget(Family::Profiles, &KEY, &store.policy);
    store.archive.shared().unwrap().flush().await;
    assert!(store.counted("holdfast_store_errors_total{kind=\"refused\",store=\"shared\"}") > 0);
    assert!(store.archive.shared().unwrap().is_degraded(), "an operator has to know");
    assert_eq!(store.kept().await, None);
    store.archive.purge(&Purge::Everybody, &store.policy).await.unwrap();
    redis.moment_passes().await;
    // And a record that it refuses is no reason to leave it either.
    store.clock.advance(HOUR);
    store.keep(store.clock.now()).await;
    assert!(store.archive.shared().unwrap().is_degraded());
    redis.limit(0).await;
    store.keep(store.clock.now()).await;
    assert!(!store.archive.shared().unwrap().is_degraded());
    assert_eq!(store.kept().await, Some(store.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_room_again_is_well_although_nothing_is_written() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    redis.limit(1).await;
    store.keep(store.clock.now()).await;
    let shared = store.archive.shared().unwrap();
    assert!(shared.is_degraded());
    // As long as it is full, the store stays degraded, and connected.
    let trials = redis.carried_out("eval").await;
    until("it was tried", async || (redis.carried_out("eval").await > trials).then_some(())).await;
    assert!(shared.is_degraded());

    redis.limit(0).await;
    until("it is well", async || (!shared.is_degraded()).then_some(())).await;
    assert!(redis.records("profiles").await.is_empty(), "nothing was written meanwhile");
    store.keep(store.clock.now()).await;
    assert_eq!(store.kept().await, Some(store.clock.now()));
}

/// A failover makes the old primary a replica. What it is asked to write it refuses, for as long as it is
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_left_until_a_primary_answers() {
    let Some(redis) = RedisServer::start().await else { return };
    let store = Store::start(&redis, 1 << 20);
    store.connected().await;
    store.keep(store.clock.now()).await;
    let mut client = redis.client().await;
    let role = async |client: &mut redis::aio::MultiplexedConnection, of: [&str; 2]| {
        redis::cmd("REPLICAOF").arg(&of).exec_async(client).await.unwrap();
    };
    role(&mut client, ["127.0.0.1", "1"]).await;
    store.clock.advance(HOUR);
    store.keep(store.clock.now()).await;
    let shared = store.archive.shared().unwrap();
    until("it is degraded", async || shared.is_degraded().then_some(())).await;

    role(&mut client, ["NO", "ONE"]).await;
    until("it is well", async || {
        shared.flush().await;
        (!shared.is_degraded()).then_some(())
    })
    .await;
    assert_eq!(store.kept().await, Some(store.clock.now()), "what it refused is written");
}
