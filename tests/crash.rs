//! What the disk store promises when a process or a disk fails: the directory always opens, no synced record
//! is lost, no record is wrong, and a full disk costs a miss, not a restart.
//!
//! Each test starts this binary again as a child that can be killed, or that runs on its own small file
//! system. The children are the ignored tests at the end.
//!
//! `kill -9` ends the process and not the operating system. It shows that the order of writes is right, not
//! what a power cut does to a disk that reports a sync too early.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes the helpers of a test for no test")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use holdfast::clock::{Clock, Timestamp};
use holdfast::store::disk::checkpoint::{backup, restore};
use holdfast::store::disk::{DiskError, DiskSettings, DiskStore, Opened};
use holdfast::tiers::record::{Family, ProfileRecord, Record as _};
use holdfast::tiers::seal::Sealer;
use holdfast::tiers::secret::InstanceSecret;
use support::small_disk;

const DIRECTORY: &str = "HOLDFAST_CRASH_DIRECTORY";
const FIRST: &str = "HOLDFAST_CRASH_FIRST";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_900_000_000);

/// Every seventh operation deletes the record that was written this many operations before it.
const DELETED_BEFORE: u64 = 3;

#[test]
fn killed_in_the_middle_of_heavy_writes_it_opens_with_all_that_was_synced_and_nothing_wrong() {
    let rounds = std::env::var("HOLDFAST_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut first = 1;
    for round in 0..rounds {
        let mut child = start_child("child_that_writes_until_it_is_killed", directory.path(), first);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reports = lines.by_ref().filter_map(|line| synced(&line.unwrap()));
        // The child is killed early and late, and never at the same point of a batch, a flush or a
        // checkpoint.
        let reports_to_see = 1 + round * 7 % 40;
        let seen = reports.by_ref().take(reports_to_see).last().expect("the child must sync at least once");
        thread::sleep(Duration::from_micros(u64::try_from(round).unwrap() * 997 % 10_000));
        child.kill().unwrap();
        child.wait().unwrap();
        // The child may have reported more before it was killed.
        let synced = reports.last().unwrap_or(seen);
        assert!(synced >= first);
        check(directory.path(), synced);
        // The next child repeats what this one did after its last sync, which may be on the disk or not.
        first = synced + 1;
    }
    assert!(first > 500 * rounds as u64, "{first} writes are not heavy");
}

#[test]
fn a_directory_is_locked_by_a_running_process_and_free_once_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start_child("child_that_writes_until_it_is_killed", directory.path(), 1);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.by_ref().find_map(|line| synced(&line.unwrap())).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, DiskError::InUse { .. }) && error.to_string().contains("LOCK"), "{error}");
    // A backup needs no lock once there is a checkpoint.
    let to = directory.path().join("backup");
    let started = Instant::now();
    while let Err(error) = backup(&settings(directory.path()), &Clock::system(), &to) {
        // A checkpoint that was replaced while it was copied is copied again.
        assert!(matches!(error, DiskError::NoCheckpoint { .. } | DiskError::FileSystem { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30), "no checkpoint: {error}");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let opened = open(directory.path()).unwrap();
    assert_eq!(opened.recovery, None);
}

#[test]
fn a_full_disk_degrades_the_store_and_it_is_back_without_a_restart_when_there_is_room() {
    small_disk::run("child_on_a_disk_that_fills_up");
}

#[test]
fn a_start_on_a_full_disk_is_degraded_and_well_when_there_is_room() {
    small_disk::run("child_that_starts_on_a_full_disk");
}

#[test]
fn a_read_only_directory_is_refused_with_what_to_do() {
    small_disk::run("child_on_a_read_only_file_system");
}

#[test]
fn a_copy_that_does_not_fit_leaves_nothing_behind() {
    small_disk::run("child_that_copies_onto_a_full_disk");
}

/// Checks the store after a crash, which came some time after this operation was synced.
fn check(directory: &Path, synced: u64) {
    let Opened { store, recovery, degraded } = open(directory).unwrap();
    assert_eq!(recovery, None, "the directory must open as it is");
    assert!(degraded.is_none(), "{degraded:?}");
    let sealer = sealer();
    store
        .scan(Family::Profiles, |key, value| {
            let operation = u64::from_be_bytes(key.try_into().unwrap());
            assert_eq!(ProfileRecord::open(&sealer, key, value), Ok(record(operation)), "a wrong record");
        })
        .unwrap();
    for operation in 1..=synced {
        let there = store.get(Family::Profiles, &operation.to_be_bytes()).unwrap().is_some();
        let deleted_by = Some(operation + DELETED_BEFORE).filter(|by| deletes(*by));
        match deleted_by {
            None => assert!(there, "operation {operation} of {synced} is lost"),
            Some(by) if by <= synced => assert!(!there, "operation {operation} of {synced} is back"),
            // The delete may be done or not.
            Some(_) => {}
        }
    }
    store.close();
}

fn start_child(name: &str, directory: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The operation that a line of the child reports. The test harness writes lines without one. The last line
/// may be cut short: then its number may be wrong, but never greater.
fn synced(line: &str) -> Option<u64> {
    line.split("synced ").nth(1)?.trim().parse().ok()
}

fn settings(directory: &Path) -> DiskSettings {
    DiskSettings {
        block_cache: 1 << 20,
        // Small, so that flushes, compactions and checkpoints are under way when the child is killed.
        memtables: 1 << 20,
        sync_interval: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(50),
        retry_interval: Duration::from_millis(50),
        ..DiskSettings::at(directory.join("data"))
    }
}

fn open(directory: &Path) -> Result<Opened, DiskError> {
    DiskStore::open(settings(directory), Clock::held_at(NOW))
}

fn sealer() -> Sealer {
    Sealer::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap()
}

fn record(operation: u64) -> ProfileRecord {
    ProfileRecord {
        verified_at: Timestamp::from_millis(NOW.as_millis() + operation),
        email: Some(format!("user-{operation}@example.com")),
        email_verified: Some(operation.is_multiple_of(2)),
        name: Some("x".repeat(usize::try_from(operation % 500).unwrap())),
        email_rules: [0; 4],
    }
}

fn deletes(operation: u64) -> bool {
    operation.is_multiple_of(7)
}

fn put(store: &DiskStore, sealer: &Sealer, operation: u64) -> bool {
    let key = operation.to_be_bytes();
    store.put(Family::Profiles, &key, record(operation).seal(sealer, &key, LATER).unwrap())
}

fn has(store: &DiskStore, operation: u64) -> bool {
    store.get(Family::Profiles, &operation.to_be_bytes()).unwrap().is_some()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "still not: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn child_directory() -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).expect("only the tests above run this"))
}

#[test]
#[ignore = "a child of the tests above"]
fn child_that_writes_until_it_is_killed() {
    let store = open(&child_directory()).unwrap().store;
    let sealer = sealer();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    for operation in first.. {
        assert!(put(&store, &sealer, operation), "the queue must take what is written at this pace");
        if deletes(operation) {
            store.delete(Family::Profiles, &(operation - DELETED_BEFORE).to_be_bytes());
        }
        if operation.is_multiple_of(97) {
            store.sync().unwrap();
            println!("synced {operation}");
        }
    }
}

#[test]
#[ignore = "a child of the tests above"]
fn child_on_a_disk_that_fills_up() {
    let directory = small_disk::directory();
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![0xa5; 3 << 20]).unwrap();
    let store = open(&directory).unwrap().store;
    let sealer = sealer();
    assert!(put(&store, &sealer, 1) && put(&store, &sealer, 2));
    store.sync().unwrap();
    let started = Instant::now();
    let mut operation = 3;
    while !store.is_degraded() {
        assert!(started.elapsed() < Duration::from_secs(60), "the disk must be full by now");
        put(&store, &sealer, operation);
        operation += 1;
        if operation.is_multiple_of(100) {
            // Otherwise the queue holds everything, and nothing is written to the disk.
            store.sync().ok();
        }
    }
    assert!(!has(&store, 1), "a degraded store answers misses");
    assert!(matches!(store.sync(), Err(DiskError::Degraded)));
    let before = store.stats();
    assert!(before.write_errors > 0);
    put(&store, &sealer, operation);
    store.delete(Family::Profiles, &2_u64.to_be_bytes());
    wait_until("puts are dropped", || store.stats().dropped_puts > before.dropped_puts);
    fs::remove_file(&ballast).unwrap();
    wait_until("the store is back", || !store.is_degraded());
    assert!(has(&store, 1), "what was synced must be there");
    assert!(!has(&store, 2), "what was deleted meanwhile must not");
    assert!(put(&store, &sealer, operation + 1));
    store.sync().unwrap();
    drop(store);
    let opened = open(&directory).unwrap();
    assert!(opened.recovery.is_none() && opened.degraded.is_none());
    assert!(has(&opened.store, 1) && has(&opened.store, operation + 1) && !has(&opened.store, 2));
}

#[test]
#[ignore = "a child of the tests above"]
fn child_that_starts_on_a_full_disk() {
    let directory = small_disk::directory();
    let store = open(&directory).unwrap().store;
    assert!(put(&store, &sealer(), 1));
    drop(store);
    let ballast = small_disk::fill_up();
    let opened = open(&directory).unwrap();
    assert!(opened.degraded.is_some() && opened.store.is_degraded(), "{:?}", opened.degraded);
    fs::remove_file(ballast).unwrap();
    wait_until("the store is well", || !opened.store.is_degraded());
    assert!(has(&opened.store, 1) && put(&opened.store, &sealer(), 2));
    opened.store.sync().unwrap();
}

#[test]
#[ignore = "a child of the tests above"]
fn child_on_a_read_only_file_system() {
    let directory = small_disk::directory();
    drop(open(&directory).unwrap());
    small_disk::make_read_only();
    let error = open(&directory).unwrap_err();
    assert!(matches!(error, DiskError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("not read-only"), "{error}");
}

#[test]
#[ignore = "a child of the tests above"]
fn child_that_copies_onto_a_full_disk() {
    let directory = small_disk::directory();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = open(elsewhere.path()).unwrap().store;
    let sealer = sealer();
    assert!((1..2000).all(|operation| put(&store, &sealer, operation)));
    store.sync().unwrap();
    drop(store);
    let (settings, clock) = (settings(elsewhere.path()), Clock::held_at(NOW));
    let (good, to) = (elsewhere.path().join("backup"), directory.join("backup"));
    backup(&settings, &clock, &good).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };

    let ballast = small_disk::fill_up();
    assert!(matches!(backup(&settings, &clock, &to), Err(DiskError::FileSystem { .. })));
    assert_eq!(names(), ["ballast"]);
    fs::remove_file(&ballast).unwrap();
    backup(&settings, &clock, &to).unwrap();
    fs::remove_dir_all(&to).unwrap();

    // Room for the directory, and not for the records.
    let new = DiskSettings { path: directory.join("data"), ..settings };
    drop(DiskStore::open(new.clone(), clock.clone()).unwrap());
    fs::remove_dir_all(new.path.join("db")).unwrap();
    let ballast = small_disk::fill_up();
    let error = restore(&new, &clock, &good).unwrap_err();
    assert!(matches!(error, DiskError::FileSystem { .. } | DiskError::Unwritable { .. }), "{error}");
    assert!(!new.path.join("db.restoring").exists() && !new.path.join("db.draft").exists());
    fs::remove_file(&ballast).unwrap();
    let opened = DiskStore::open(new.clone(), clock.clone()).unwrap();
    assert!(opened.recovery.is_none() && opened.degraded.is_none());
    drop(opened);
    restore(&new, &clock, &good).unwrap();
    let store = DiskStore::open(new, clock).unwrap().store;
    assert!(has(&store, 1) && has(&store, 1999));
}
