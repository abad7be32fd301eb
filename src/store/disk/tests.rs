//! Each way in which a directory can be wrong has one outcome; each is produced here with real files.

mod lost;
mod moved;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::checkpoint::{Backup, backup, restore};
use super::*;
use crate::clock::Timestamp;
use crate::tiers::digest::TokenDigester;
use crate::tiers::record::{IdentitySource, Record as _, VerdictRecord};
use crate::tiers::seal::Sealer;
use crate::tiers::secret::InstanceSecret;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_900_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Fixture {
    directory: TempDir,
    settings: DiskSettings,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = DiskSettings {
            block_cache: 1024 * 1024,
            memtables: 1024 * 1024,
            retry_interval: Duration::from_millis(20),
            ..DiskSettings::at(directory.path().join("data"))
        };
        Self { directory, settings, clock: Clock::held_at(NOW) }
    }

    fn try_open(&self) -> Result<Opened, DiskError> {
        DiskStore::open(self.settings.clone(), self.clock.clone())
    }

    fn open(&self) -> DiskStore {
        let opened = self.try_open().unwrap();
        assert_eq!(opened.recovery, None);
        assert!(opened.degraded.is_none(), "{:?}", opened.degraded);
        opened.store
    }

    fn database(&self) -> PathBuf {
        self.settings.path.join("db")
    }

    /// The only file of the database whose name starts or ends with this pattern.
    fn file(&self, pattern: &str) -> PathBuf {
        let matches = |name: &String| name.starts_with(pattern) || name.ends_with(pattern);
        let names: Vec<_> = layout::names_in(&self.database()).into_iter().filter(matches).collect();
        assert!(!names.is_empty(), "no {pattern}");
        // If there are several table files, the largest has the records of the tests.
        let largest = |name: &&String| fs::metadata(self.database().join(name)).unwrap().len();
        self.database().join(names.iter().max_by_key(largest).unwrap())
    }
}

/// A value as the store sees it: eight bytes of expiry, then any content.
fn value(useless_from: Timestamp, rest: &[u8]) -> Vec<u8> {
    [&useless_from.as_secs().to_be_bytes(), rest].concat()
}

fn put(store: &DiskStore, key: &[u8]) {
    assert!(store.put(Family::Verdicts, key, value(LATER, key)));
}

fn has(store: &DiskStore, key: &[u8]) -> bool {
    let found = store.get(Family::Verdicts, key).unwrap();
    assert!(found.as_ref().is_none_or(|found| *found == value(LATER, key)), "a wrong record");
    found.is_some()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Every file below `directory` that contains these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
            continue;
        }
        let mut content = Vec::new();
        fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
        if content.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path);
        }
    }
    found
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "still not: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_put_is_there_after_a_restart_and_what_was_deleted_is_not() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"kept");
    put(&store, b"deleted");
    store.delete(Family::Verdicts, b"deleted");
    store.delete(Family::Verdicts, b"back again");
    put(&store, b"back again");
    store.sync().unwrap();
    assert!(has(&store, b"kept") && has(&store, b"back again") && !has(&store, b"deleted"));
    assert_eq!(store.get(Family::Profiles, b"kept").unwrap(), None, "families are apart");
    drop(store);
    let store = fixture.open();
    assert!(has(&store, b"kept") && has(&store, b"back again") && !has(&store, b"deleted"));
}

#[tokio::test]
async fn a_lookup_that_memory_cannot_answer_is_read_elsewhere_and_found() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"key");
    store.compact().unwrap();
    store.close();
    drop(store);
    let store = fixture.open();
    let in_memory = || store.0.shared.get_in_memory(Family::Verdicts, b"key").unwrap();
    assert!(matches!(in_memory(), InMemory::NeedsDisk), "the block cache must be cold after a restart");
    let absent = store.0.shared.get_in_memory(Family::Verdicts, b"absent").unwrap();
    assert!(matches!(absent, InMemory::Known(None)), "filters must be in memory from the start");
    let found = store.lookup(Family::Verdicts, b"key").await.unwrap();
    assert_eq!(found, Some(value(LATER, b"key")));
    assert!(matches!(in_memory(), InMemory::Known(Some(_))), "the read must have warmed the block cache");
    assert_eq!(store.lookup(Family::Verdicts, b"none").await.unwrap(), None);
    store.close();
    assert_eq!(store.lookup(Family::Verdicts, b"key").await.unwrap(), None);
    assert!(store.is_degraded() && !store.put(Family::Verdicts, b"key", vec![]));
    assert!(matches!(store.sync(), Err(DiskError::Closed)));
}

#[test]
fn neither_token_nor_identity_is_in_clear_in_any_file() {
    let fixture = Fixture::new();
    let secret = InstanceSecret::load_or_create(&fixture.directory.path().join("secret")).unwrap();
    let (sealer, digester) = (Sealer::new(&secret).unwrap(), TokenDigester::new(&secret).unwrap());
    let store = fixture.open();
    let token = b"eyJhbGciOiJkaXIifQ.token-in-clear";
    let record = VerdictRecord {
        verified_at: NOW,
        not_after: None,
        foreign: true,
        issuer: "https://tenant.example/".to_owned(),
        subject: "auth0|subject-in-clear".to_owned(),
        email: Some("ada@example.com".to_owned()),
        email_verified: Some(true),
        source: IdentitySource::Userinfo,
        claims: r#"{"name":"claim-in-clear"}"#.to_owned(),
        first_verified_at: Timestamp::EPOCH,
    };
    let key = digester.token(token).0;
    assert!(store.put(Family::Verdicts, &key, record.seal(&sealer, &key, NOW.after(HOUR)).unwrap()));
    put(&store, b"the-search-works");
    store.checkpoint().unwrap();
    put(&store, b"the-search-reads-the-log");
    store.sync().unwrap();
    let stored = store.get(Family::Verdicts, &key).unwrap().unwrap();
    assert_eq!(VerdictRecord::open(&sealer, &key, &stored), Ok(record));
    drop(store);
    let root = fixture.directory.path();
    for secret in
        [&token[..], b"token-in-clear", b"ada@", b"tenant.example", b"subject-in", b"auth0|", b"claim-in"]
    {
        assert_eq!(files_with(root, secret), Vec::<PathBuf>::new(), "{}", String::from_utf8_lossy(secret));
    }
    assert!(files_with(root, b"the-search-works").len() >= 2, "table file and checkpoint");
    assert!(!files_with(root, b"the-search-reads-the-log").is_empty());
}

#[test]
fn compaction_drops_what_is_useless_and_nothing_else() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let day = 24 * HOUR;
    for (key, useless_from) in [(b"soon", NOW.after(2 * HOUR)), (b"late", NOW.after(day))] {
        assert!(store.put(Family::Verdicts, key, value(useless_from, b"")));
    }
    assert!(store.put(Family::Profiles, b"junk", b"short".to_vec()));
    let left = || [b"soon", b"late"].map(|key| store.get(Family::Verdicts, key).unwrap().is_some());
    store.compact().unwrap();
    assert_eq!(left(), [true, true]);
    assert_eq!(store.get(Family::Profiles, b"junk").unwrap(), None);
    fixture.clock.set_wall(NOW.after(365 * day));
    store.compact().unwrap();
    assert_eq!(left(), [true, true], "a clock that is ahead at the start must not empty the store");
    fixture.clock.set_wall(NOW);
    fixture.clock.advance(2 * HOUR - Duration::from_secs(1));
    store.compact().unwrap();
    assert_eq!(left(), [true, true]);
    fixture.clock.advance(Duration::from_secs(1));
    store.compact().unwrap();
    assert_eq!(left(), [false, true]);
    fixture.clock.set_wall(NOW.after(365 * day));
    store.compact().unwrap();
    assert_eq!(left(), [false, true], "a clock that jumps ahead must not empty the store");
    fixture.clock.advance(day);
    store.compact().unwrap();
    assert_eq!(left(), [false, false]);
}

#[test]
fn a_clock_that_was_far_behind_at_the_start_and_is_right_later_does_not_keep_everything() {
    let fixture = Fixture::new();
    fixture.clock.set_wall(Timestamp::from_secs(1000));
    let store = fixture.open();
    fixture.clock.set_wall(NOW);
    put(&store, b"late");
    assert!(store.put(Family::Verdicts, b"soon", value(NOW.after(2 * HOUR), b"")));
    fixture.clock.advance(2 * HOUR);
    store.compact().unwrap();
    assert!(has(&store, b"late") && store.get(Family::Verdicts, b"soon").unwrap().is_none());
}

#[test]
fn which_checkpoint_is_the_newest_does_not_hang_on_the_clock() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.clock.set_wall(NOW.after(365 * 24 * HOUR));
    put(&store, b"first");
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    fixture.clock.set_wall(NOW);
    put(&store, b"second");
    let newest = store.checkpoint().unwrap();
    assert!(newest.join("FORMAT").exists(), "it must not make way for an older one");
    drop(store);
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let opened = fixture.try_open().unwrap();
    assert_eq!(opened.recovery.unwrap().restored_from, Some((newest, NOW)));
    assert!(has(&opened.store, b"first") && has(&opened.store, b"second"));
}

#[test]
fn what_was_deleted_since_a_checkpoint_stays_deleted_when_that_takes_over() {
    for newest_is_damaged in [false, true] {
        let fixture = Fixture::new();
        let store = fixture.open();
        [&b"kept"[..], b"first", b"second", b"third"].into_iter().for_each(|key| put(&store, key));
        store.checkpoint().unwrap();
        store.delete(Family::Verdicts, b"first");
        let newest = store.checkpoint().unwrap();
        store.delete(Family::Verdicts, b"second");
        store.sync().unwrap();
        drop(store);
        // A restart in between continues with the same delete markers.
        let store = fixture.open();
        store.delete(Family::Verdicts, b"third");
        drop(store);
        overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
        if newest_is_damaged {
            fs::write(newest.join("CURRENT"), "nonsense").unwrap();
        }
        let opened = fixture.try_open().unwrap();
        let (from, _) = opened.recovery.clone().unwrap().restored_from.unwrap();
        assert_eq!(from == newest, !newest_is_damaged);
        let there = [&b"kept"[..], b"first", b"second", b"third"].map(|key| has(&opened.store, key));
        assert_eq!(there, [true, false, false, false], "newest is damaged: {newest_is_damaged}");
        drop(opened);

        // An administrator's restore of an old checkpoint brings nothing back either.
        assert!(restore(&fixture.settings, &fixture.clock, &from).unwrap().is_some());
        let store = fixture.open();
        assert!(has(&store, b"kept") && !has(&store, b"third"));
    }
}

#[test]
fn if_nobody_knows_what_was_deleted_since_a_checkpoint_no_verdict_of_it_is_believed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"key");
    assert!(store.put(Family::Keys, b"keys", value(LATER, b"keys")));
    let made = store.checkpoint().unwrap();
    drop(store);
    fs::remove_file(made.join(layout::DELETE_MARKERS_FILE)).unwrap();
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let opened = fixture.try_open().unwrap();
    assert!(!has(&opened.store, b"key") && opened.store.get(Family::Keys, b"keys").unwrap().is_some());
}

#[test]
fn a_flipped_bit_in_a_file_that_the_checkpoints_share_costs_a_block_and_not_the_store() {
    const RECORDS: u64 = 5_000;
    // Spread evenly, as digests are.
    let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let fixture = Fixture::new();
    let store = fixture.open();
    (0..RECORDS).for_each(|number| put(&store, &key(number)));
    assert!(store.put(Family::Profiles, b"profile", value(LATER, b"profile")));
    store.compact().unwrap();
    store.checkpoint().unwrap();
    store.delete(Family::Verdicts, &key(7));
    store.checkpoint().unwrap();
    store.delete(Family::Verdicts, &key(8));
    drop(store);
    let table = fixture.file(".sst");
    let middle = fs::metadata(&table).unwrap().len() / 2;
    // The same file, not another of its name: both checkpoints have the damage.
    overwrite(&table, middle, &[0xa5]);
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let opened = fixture.try_open().unwrap();
    let recovered = opened.recovery.unwrap();
    assert!(recovered.salvaged && recovered.to_string().contains("what could be read of"), "{recovered}");
    let left = (0..RECORDS).filter(|number| has(&opened.store, &key(*number))).count();
    assert!(left > 4_500 && left < 5_000, "{left} are left");
    assert!(!has(&opened.store, &key(7)) && !has(&opened.store, &key(8)));
    assert!(opened.store.get(Family::Profiles, b"profile").unwrap().is_some());
    let names = layout::names_in(&fixture.settings.path);
    assert!(!names.iter().any(|name| name == "db.draft" || name == "db.salvaged"), "{names:?}");
    drop(opened.store);
    let store = fixture.open();
    assert!((0..RECORDS).filter(|number| has(&store, &key(*number))).count() == left);
}

#[test]
fn corruption_of_a_shared_file_that_is_met_while_running_costs_a_block_too() {
    let fixture = Fixture::new();
    let store = fixture.open();
    (0..=u8::MAX).for_each(|key| put(&store, &[key; 32]));
    store.compact().unwrap();
    store.checkpoint().unwrap();
    drop(store);
    overwrite(&fixture.file(".sst"), 3, &[0xa5; 4]);
    let store = fixture.open();
    assert!(store.compact().is_err() || store.is_degraded(), "compaction must meet the damage");
    wait_until("the store is back", || !store.is_degraded() && store.stats().reopened == 1);
    let left = (0..=u8::MAX).filter(|key| has(&store, &[*key; 32])).count();
    assert!((1..256).contains(&left), "{left} are left");
}

#[test]
fn what_was_written_is_synced_by_the_interval_alone() {
    let mut fixture = Fixture::new();
    fixture.settings.sync_interval = Duration::from_millis(10);
    let store = fixture.open();
    put(&store, b"key");
    wait_until("it is synced", || store.stats().syncs == 1);
    put(&store, b"another");
    wait_until("it is synced again", || store.stats().syncs == 2);
}

#[test]
fn a_purge_takes_what_the_store_was_before_with_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"to-be-purged");
    store.compact().unwrap();
    let checkpoint = store.checkpoint().unwrap();
    let copy = fixture.directory.path().join("copy");
    layout::copy_database(&checkpoint, &copy, layout::CopyMode::Nothing).unwrap();
    layout::write_format(&copy).unwrap();
    drop(store);
    restore(&fixture.settings, &fixture.clock, &copy).unwrap();
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let store = fixture.try_open().unwrap().store;
    let root = &fixture.settings.path;
    let former = || layout::names_in(root).into_iter().filter(|name| name.starts_with("db.")).count();
    assert_eq!(former(), 2);
    store.purge(&[Family::Verdicts]).unwrap();
    assert_eq!(former(), 0);
    drop(store);
    // The file that names the others has their first and last keys until it is written again.
    drop(fixture.open());
    assert_eq!(files_with(root, b"to-be-purged"), Vec::<PathBuf>::new());
}

#[test]
fn a_restore_that_was_cut_off_while_it_copied_becomes_nothing() {
    let fixture = Fixture::new();
    // There is no store yet.
    let draft = fixture.settings.path.join("db.draft");
    fs::create_dir_all(&draft).unwrap();
    fs::write(draft.join("CURRENT"), "MANIFEST-000005\n").unwrap();
    let store = fixture.open();
    put(&store, b"key");
    assert!(has(&store, b"key") || store.sync().is_ok());
    assert!(!draft.exists(), "nobody will finish it");
}

#[test]
fn a_second_instance_is_refused_with_a_sentence_that_names_the_lock() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, DiskError::InUse { .. }) && error.to_string().contains("LOCK"), "{error}");
    put(&store, b"key");
    store.sync().unwrap();
    assert!(has(&store, b"key"), "the first must not be disturbed");
}

#[test]
fn a_directory_from_a_newer_version_or_of_something_else_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let format = fixture.settings.path.join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "holdfast-disk 1\n");
    fs::write(&format, "holdfast-disk 2\n").unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, DiskError::NewerFormat { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("format 2, which a newer holdfast wrote"), "{error}");
    for unknown in [&b""[..], b"holdfast-disk", b"holdfast-disk 0", b"postgres 15", b"\xff\xfe"] {
        fs::write(&format, unknown).unwrap();
        assert!(matches!(fixture.try_open().unwrap_err(), DiskError::UnknownFormat { .. }));
        assert_eq!(fs::read(&format).unwrap(), unknown);
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused_with_what_to_do() {
    let mut fixture = Fixture::new();
    let file = fixture.directory.path().join("file");
    fs::write(&file, "").unwrap();
    fixture.settings.path = file.join("data");
    let error = fixture.try_open().unwrap_err();
    assert!(
        matches!(error, DiskError::Unwritable { .. }) && error.to_string().contains("give it to"),
        "{error}"
    );
}

/// Damages a closed database.
type Damage = fn(&Fixture);

const DAMAGES: [(&str, Damage); 8] = [
    ("MANIFEST overwritten", |fixture| overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64])),
    ("MANIFEST empty", |fixture| fs::write(fixture.file("MANIFEST"), "").unwrap()),
    ("MANIFEST missing", |fixture| fs::remove_file(fixture.file("MANIFEST")).unwrap()),
    ("CURRENT overwritten", |fixture| fs::write(fixture.file("CURRENT"), "nonsense").unwrap()),
    ("CURRENT empty", |fixture| fs::write(fixture.file("CURRENT"), "").unwrap()),
    ("CURRENT missing", |fixture| fs::remove_file(fixture.file("CURRENT")).unwrap()),
    ("table file cut short", |fixture| {
        // Write a new file of the same name: the checkpoint shares the old one.
        let path = fixture.file(".sst");
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
    }),
    ("table file missing", |fixture| fs::remove_file(fixture.file(".sst")).unwrap()),
];

#[test]
fn a_corrupt_database_is_moved_aside_and_the_newest_checkpoint_takes_its_place() {
    for (name, damage) in DAMAGES {
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store, b"first");
        store.checkpoint().unwrap();
        put(&store, b"second");
        fixture.clock.advance(HOUR);
        let newest = store.checkpoint().unwrap();
        put(&store, b"after the checkpoint");
        store.compact().unwrap();
        drop(store);
        damage(&fixture);
        let opened = fixture.try_open().unwrap();
        let recovered = opened.recovery.unwrap_or_else(|| panic!("{name}: not recovered"));
        assert_eq!(recovered.restored_from, Some((newest, NOW.after(HOUR))), "{name}: {recovered}");
        let aside = fixture.settings.path.join(format!("db.corrupt-{}", NOW.after(HOUR).as_secs()));
        assert_eq!(recovered.moved_to, Some(aside.clone()), "{name}");
        assert!(aside.is_dir() && recovered.to_string().contains("took its place"), "{name}: {recovered}");
        assert!(has(&opened.store, b"first") && has(&opened.store, b"second"), "{name}");
        assert_eq!(opened.store.stats().recoveries, 1, "{name}");
        put(&opened.store, b"third");
        drop(opened.store);
        let store = fixture.open();
        assert!(has(&store, b"second") && has(&store, b"third"), "{name}");
    }
}

#[test]
fn a_corrupt_database_without_a_checkpoint_starts_empty() {
    for (name, damage) in DAMAGES {
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store, b"key");
        store.compact().unwrap();
        drop(store);
        damage(&fixture);
        let opened = fixture.try_open().unwrap();
        let recovered = opened.recovery.unwrap_or_else(|| panic!("{name}: not recovered"));
        assert_eq!(recovered.restored_from, None, "{name}");
        assert!(recovered.to_string().contains("starts empty"), "{name}: {recovered}");
        put(&opened.store, b"new");
        opened.store.sync().unwrap();
        assert!(has(&opened.store, b"new") && !has(&opened.store, b"key"), "{name}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_an_older_one() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"first");
    let older = store.checkpoint().unwrap();
    put(&store, b"second");
    fixture.clock.advance(HOUR);
    let newer = store.checkpoint().unwrap();
    drop(store);
    // The byte lies in a block of records: nothing but reading that block can tell.
    let tables = layout::names_in(&newer).into_iter().filter(|name| name.ends_with(".sst"));
    let second =
        tables.filter(|name| !older.join(name).exists()).map(|name| newer.join(name)).next().unwrap();
    overwrite(&second, 3, &[0xa5; 4]);
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let opened = fixture.try_open().unwrap();
    assert_eq!(opened.recovery.unwrap().restored_from, Some((older, NOW)));
    assert!(has(&opened.store, b"first") && !has(&opened.store, b"second"));
}

#[test]
fn damage_inside_the_log_costs_what_follows_it_and_nothing_else() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for key in 0..100_u8 {
        put(&store, &[key]);
        store.sync().unwrap();
    }
    // A crash leaves the log behind: closing would too, but this also leaves no room for a clean shutdown.
    let crashed = fixture.directory.path().join("crashed");
    layout::copy_database(&fixture.database(), &crashed, layout::CopyMode::Nothing).unwrap();
    drop(store);
    fs::remove_dir_all(fixture.database()).unwrap();
    fs::rename(crashed, fixture.database()).unwrap();
    let log = fixture.file(".log");
    let middle = fs::metadata(&log).unwrap().len() / 2;
    overwrite(&log, middle, &[0xa5; 8]);
    let store = fixture.open();
    let there: Vec<_> = (0..100_u8).map(|key| has(&store, &[key])).collect();
    let kept = there.iter().take_while(|there| **there).count();
    assert!((40..60).contains(&kept), "{kept} kept");
    assert!(there[kept..].iter().all(|there| !there), "a record from behind the damage");
}

#[test]
fn corruption_that_is_met_while_running_is_a_miss_first_and_then_replaced_without_a_restart() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"key");
    store.checkpoint().unwrap();
    put(&store, b"lost");
    store.compact().unwrap();
    drop(store);
    let path = fixture.file(".sst");
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, content).unwrap();
    overwrite(&path, 3, &[0xa5; 4]);
    let store = fixture.open();
    assert!(store.get(Family::Verdicts, b"key").is_err());
    assert_eq!(store.stats().read_errors, 1);
    assert!(store.compact().is_err() || store.is_degraded(), "compaction must meet the damage");
    put(&store, b"new");
    store.delete(Family::Verdicts, b"key");
    wait_until("the store is back", || !store.is_degraded() && store.stats().reopened == 1);
    assert_eq!(store.stats().recoveries, 1);
    put(&store, b"newer");
    store.sync().unwrap();
    assert!(!has(&store, b"lost") && has(&store, b"newer"));
    assert!(!has(&store, b"key"), "a delete while degraded must be applied to the checkpoint that took over");
}

#[test]
fn purging_takes_the_bytes_away_and_leaves_other_families() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"to-be-purged");
    assert!(store.put(Family::Revocations, b"kept", value(LATER, b"")));
    store.checkpoint().unwrap();
    assert!(!files_with(&fixture.settings.path, b"to-be-purged").is_empty());
    store.purge(&[Family::Verdicts, Family::Profiles]).unwrap();
    assert!(!has(&store, b"to-be-purged") && store.get(Family::Revocations, b"kept").unwrap().is_some());
    drop(store);
    drop(fixture.open());
    assert_eq!(files_with(&fixture.settings.path, b"to-be-purged"), Vec::<PathBuf>::new());
}

#[test]
fn two_checkpoints_are_kept() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let made: Vec<_> = (0..4)
        .map(|_| {
            fixture.clock.advance(HOUR);
            store.checkpoint().unwrap()
        })
        .collect();
    let mut kept = layout::names_in(&fixture.settings.path.join("checkpoints"));
    kept.sort();
    assert_eq!(
        kept,
        made[2..].iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>()
    );
    store.checkpoint().unwrap();
}

#[test]
fn a_backup_restores_and_what_it_replaces_is_kept() {
    let fixture = Fixture::new();
    let to = fixture.directory.path().join("backup");
    assert!(matches!(backup(&fixture.settings, &fixture.clock, &to), Err(DiskError::NothingThere { .. })));
    let store = fixture.open();
    put(&store, b"old");
    drop(store);
    let made = backup(&fixture.settings, &fixture.clock, &to).unwrap();
    assert_eq!(made, Backup { state_of: NOW, from_checkpoint: false });
    assert!(matches!(backup(&fixture.settings, &fixture.clock, &to), Err(DiskError::TargetExists { .. })));
    let store = fixture.open();
    put(&store, b"new");
    store.sync().unwrap();
    assert!(matches!(restore(&fixture.settings, &fixture.clock, &to), Err(DiskError::InUse { .. })));
    drop(store);
    let replaced = restore(&fixture.settings, &fixture.clock, &to).unwrap().unwrap();
    let store = fixture.open();
    assert!(has(&store, b"old") && !has(&store, b"new"));
    assert!(replaced.join("CURRENT").exists());
    // Onto a new machine, too.
    let elsewhere =
        DiskSettings { path: fixture.directory.path().join("elsewhere"), ..fixture.settings.clone() };
    assert_eq!(restore(&elsewhere, &fixture.clock, &to).unwrap(), None);
    assert!(has(&DiskStore::open(elsewhere, fixture.clock.clone()).unwrap().store, b"old"));
}

#[test]
fn a_backup_of_a_running_store_is_its_newest_checkpoint_or_made_by_the_store_itself() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"first");
    let [from_outside, from_inside] = ["outside", "inside"].map(|name| fixture.directory.path().join(name));
    let too_early = backup(&fixture.settings, &fixture.clock, &from_outside);
    assert!(matches!(too_early, Err(DiskError::NoCheckpoint { .. })));
    store.checkpoint().unwrap();
    put(&store, b"second");
    fixture.clock.advance(HOUR);
    let made = backup(&fixture.settings, &fixture.clock, &from_outside).unwrap();
    assert_eq!(made, Backup { state_of: NOW, from_checkpoint: true });
    store.backup_to(&from_inside).unwrap();
    drop(store);
    for (from, has_second) in [(from_outside, false), (from_inside, true)] {
        restore(&fixture.settings, &fixture.clock, &from).unwrap();
        let store = fixture.open();
        assert_eq!((has(&store, b"first"), has(&store, b"second")), (true, has_second));
    }
}

#[test]
fn a_damaged_newer_or_foreign_backup_is_refused_and_the_store_is_left_as_it_is() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"key");
    drop(store);
    let from = fixture.directory.path().join("backup");
    backup(&fixture.settings, &fixture.clock, &from).unwrap();
    let table = layout::names_in(&from).into_iter().find(|name| name.ends_with(".sst")).unwrap();
    overwrite(&from.join(table), 3, &[0xa5; 4]);
    let refused = |expected: fn(&DiskError) -> bool| {
        let error = restore(&fixture.settings, &fixture.clock, &from).unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(has(&fixture.open(), b"key"));
    };
    refused(|error| matches!(error, DiskError::Damaged { .. }));
    fs::write(from.join("FORMAT"), "holdfast-disk 9\n").unwrap();
    refused(|error| matches!(error, DiskError::NewerFormat { found: 9, .. }));
    fs::remove_file(from.join("FORMAT")).unwrap();
    refused(|error| matches!(error, DiskError::NothingThere { .. }));
}

#[test]
fn a_restore_that_was_cut_off_between_its_two_renames_is_completed_at_the_next_start() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"key");
    drop(store);
    fs::rename(fixture.database(), fixture.settings.path.join("db.restoring")).unwrap();
    let store = fixture.open();
    assert!(has(&store, b"key"));
}
