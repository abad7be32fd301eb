//! Records on disk, seen by requests: a record that cannot be kept or read is counted, and a purged record is
//! gone, even if it was under way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, that is how it fails")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast::clock::{Clock, Timestamp};
use holdfast::store::archive::Archive;
use holdfast::store::disk::{DiskSettings, DiskStore};
use holdfast::store::open::SECRET_FILE;
use holdfast::store::purge::{Purge, Subject};
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::policy::Policy;
use holdfast::tiers::record::{Family, IdentitySource, Record as _, VerdictRecord};
use holdfast::tiers::seal::Sealer;
use holdfast::tiers::secret::InstanceSecret;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_900_000_000);
const ISSUER: &str = "https://tenant.example/";

/// A data directory with a secret, and the metrics.
struct Scene {
    directory: TempDir,
    metrics: Arc<Metrics>,
    policy: Policy,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join(SECRET_FILE);
        std::fs::write(&secret, [7; 32]).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory, metrics: Arc::new(Metrics::new().unwrap()), policy: Policy::default() }
    }

    fn settings(&self) -> DiskSettings {
        DiskSettings::at(self.directory.path())
    }

    fn archive(&self, settings: DiskSettings) -> Arc<Archive> {
        let clock = Clock::held_at(NOW);
        Arc::new(Archive::open(settings, None, clock, self.metrics.clone()).unwrap().0)
    }

    fn counted(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    fn errors(&self, kind: &str) -> u64 {
        self.counted(&format!("holdfast_store_errors_total{{kind=\"{kind}\",store=\"disk\"}}"))
    }
}

fn verdict(subject: &str) -> VerdictRecord {
    VerdictRecord {
        verified_at: NOW,
        not_after: None,
        foreign: true,
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        email: None,
        email_verified: None,
        source: IdentitySource::Userinfo,
        claims: "{}".to_owned(),
        first_verified_at: Timestamp::EPOCH,
    }
}

fn key(number: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

#[tokio::test]
async fn what_cannot_be_opened_is_a_miss_and_counted_by_why() {
    let scene = Scene::new();
    let [ours, other] = [7, 8].map(|byte| Sealer::new(&InstanceSecret::from_bytes(&[byte; 32])).unwrap());
    let sealed = |sealer: &Sealer, number| verdict("auth0|alice").seal(sealer, &key(number), LATER).unwrap();
    let changed = |byte: usize| {
        let mut sealed = sealed(&ours, 1);
        sealed[byte] ^= 1;
        sealed
    };
    let whole = sealed(&ours, 1);
    let found = [
        ("untouched", whole.clone(), None),
        ("changed", changed(40), Some("unsealable")),
        ("kept for longer", changed(7), Some("unsealable")),
        ("of another version", changed(8), Some("version")),
        ("another key's", sealed(&ours, 2), Some("unsealable")),
        ("another secret's", sealed(&other, 1), Some("unsealable")),
        ("cut short", whole[..whole.len() - 1].to_vec(), Some("unsealable")),
        ("cut very short", whole[..20].to_vec(), Some("truncated")),
    ];
    for (what, value, kind) in found {
        let store = DiskStore::open(scene.settings(), Clock::held_at(NOW)).unwrap().store;
        assert!(store.put(Family::Verdicts, &key(1), value));
        store.close();
        let archive = scene.archive(scene.settings());
        let unreadable = "holdfast_store_lookups_total{result=\"unreadable\",store=\"disk\"}";
        let before = (scene.counted(unreadable), kind.map_or(0, |kind| scene.errors(kind)));
        let loaded = archive.load::<VerdictRecord>(&key(1), &scene.policy).await;
        match kind {
            None => assert_eq!(loaded, Some((verdict("auth0|alice"), "disk"))),
            Some(kind) => {
                assert!(loaded.is_none(), "{what}");
                assert_eq!(
                    (scene.counted(unreadable), scene.errors(kind)),
                    (before.0 + 1, before.1 + 1),
                    "{what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_the_queue_of_the_disk_has_no_room_for_is_counted() {
    let scene = Scene::new();
    let archive = scene.archive(DiskSettings { queue: 1, ..scene.settings() });
    let record = verdict("auth0|alice");
    archive.keep(&key(1), &record, &record.known(), &scene.policy);
    assert_eq!(scene.errors("queue_full"), 1);
    assert!(archive.load::<VerdictRecord>(&key(1), &scene.policy).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_subject_is_gone_with_the_records_that_were_still_on_their_way_to_the_disk() {
    const RECORDS: u32 = 5_000;
    let scene = Scene::new();
    let archive = scene.archive(scene.settings());
    let (alice, bob) = (verdict("auth0|alice"), verdict("auth0|bob"));
    archive.keep(&key(RECORDS), &bob, &bob.known(), &scene.policy);
    for number in 0..RECORDS {
        archive.keep(&key(number), &alice, &alice.known(), &scene.policy);
    }
    let who = Subject { subject: "auth0|alice".to_owned(), issuers: vec![ISSUER.to_owned()] };
    archive.purge(&Purge::Subject(who, Vec::new()), &scene.policy).await.unwrap();
    assert_eq!(scene.errors("queue_full"), 0, "else the test shows less than it says");
    assert!(archive.load::<VerdictRecord>(&key(RECORDS), &scene.policy).await.is_some());
    let mut left = Vec::new();
    for number in 0..RECORDS {
        left.extend(archive.load::<VerdictRecord>(&key(number), &scene.policy).await.map(|_| number));
    }
    assert_eq!(left, Vec::<u32>::new());
}

#[tokio::test]
async fn what_is_forgotten_is_not_found_a_moment_later() {
    let scene = Scene::new();
    let archive = scene.archive(scene.settings());
    for number in 0..500 {
        let record = verdict("auth0|alice");
        archive.keep(&key(number), &record, &record.known(), &scene.policy);
        archive.forget(Family::Verdicts, &key(number), &scene.policy);
        assert!(archive.load::<VerdictRecord>(&key(number), &scene.policy).await.is_none());
    }
}

#[tokio::test]
async fn a_recovery_while_running_is_counted_like_one_at_the_start() {
    let scene = Scene::new();
    let archive = scene.archive(scene.settings());
    for number in 0..100 {
        let record = verdict("auth0|alice");
        archive.keep(&key(number), &record, &record.known(), &scene.policy);
    }
    drop(archive);
    let manifest = |name: &PathBuf| name.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST");
    let files = std::fs::read_dir(scene.directory.path().join("db")).unwrap();
    for file in files.map(|entry| entry.unwrap().path()).filter(manifest) {
        std::fs::write(file, "nonsense").unwrap();
    }
    let archive = scene.archive(scene.settings());
    assert_eq!(scene.errors("recovered"), 0);
    archive.report_stats();
    archive.report_stats();
    assert_eq!(scene.errors("recovered"), 1, "the counts of the store are taken over, each once");
}

#[test]
fn the_data_directory_is_for_its_owner_alone() {
    let scene = Scene::new();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let made = scene.directory.path().join("made/by/holdfast");
    let looser = scene.directory.path().join("looser");
    std::fs::create_dir(&looser).unwrap();
    std::fs::set_permissions(&looser, std::fs::Permissions::from_mode(0o755)).unwrap();
    for path in [&made, &looser] {
        let clock = Clock::held_at(NOW);
        drop(Archive::open(DiskSettings::at(path), None, clock, scene.metrics.clone()).unwrap());
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
}
