//! The data directory is deleted or replaced while the store is open.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn wait_until_back(store: &DiskStore) {
    wait_until("it was noticed", || store.stats().write_errors == 1);
    wait_until("the store is back", || store.stats().reopened == 1 && !store.is_degraded());
}

/// Waits until RocksDB has removed its obsolete files. It removes them in the background and by path, and
/// these paths belong to other files once the directory is replaced.
fn wait_until_tidy(fixture: &Fixture) {
    for pattern in ["MANIFEST", ".sst", ".log"] {
        let is_one = |name: &String| name.starts_with(pattern) || name.ends_with(pattern);
        let count = || layout::names_in(&fixture.database()).iter().filter(|name| is_one(name)).count();
        wait_until(pattern, || count() == 1);
    }
}

#[test]
fn a_data_directory_that_is_deleted_while_running_is_noticed_and_made_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"before");
    store.sync().unwrap();
    fs::remove_dir_all(&fixture.settings.path).unwrap();
    wait_until_back(&store);
    let mode = fs::metadata(&fixture.settings.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    put(&store, b"after");
    store.sync().unwrap();
    drop(store);
    let store = fixture.open();
    assert!(has(&store, b"after") && !has(&store, b"before"));
}

#[test]
fn a_database_that_is_deleted_while_running_is_replaced_by_the_checkpoint() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"kept");
    put(&store, b"deleted");
    store.checkpoint().unwrap();
    store.delete(Family::Verdicts, b"deleted");
    store.sync().unwrap();
    fs::remove_dir_all(fixture.database()).unwrap();
    wait_until_back(&store);
    assert_eq!(store.stats().recoveries, 1);
    assert!(has(&store, b"kept") && !has(&store, b"deleted"));
}

#[test]
fn a_data_directory_that_replaces_another_while_running_is_taken_up_whole() {
    let fixture = Fixture::new();
    let other = Fixture::new();
    let store = other.open();
    (0..=u8::MAX).for_each(|key| put(&store, &[key; 32]));
    store.compact().unwrap();
    put(&store, b"in the log");
    drop(store);
    let store = fixture.open();
    put(&store, b"before");
    store.compact().unwrap();
    wait_until_tidy(&fixture);
    fs::rename(&fixture.settings.path, fixture.directory.path().join("away")).unwrap();
    fs::rename(&other.settings.path, &fixture.settings.path).unwrap();
    wait_until_back(&store);
    assert_eq!(store.stats().recoveries, 0, "closing the former database must not harm this one");
    assert!((0..=u8::MAX).all(|key| has(&store, &[key; 32])) && has(&store, b"in the log"));
    assert!(!has(&store, b"before"));
    drop(store);
    assert!(has(&fixture.open(), b"in the log"));
}

#[test]
fn a_data_directory_whose_volume_is_away_is_waited_for() {
    let mut fixture = Fixture::new();
    let [volume, away] = ["volume", "away"].map(|name| fixture.directory.path().join(name));
    fs::create_dir(&volume).unwrap();
    fixture.settings.path = volume.join("data");
    let store = fixture.open();
    put(&store, b"kept");
    store.sync().unwrap();
    fs::rename(&volume, &away).unwrap();
    wait_until("it is noticed", || store.is_degraded());
    assert!(!has(&store, b"kept") && matches!(store.sync(), Err(DiskError::Degraded)));
    store.delete(Family::Verdicts, b"deleted meanwhile");
    assert!(!volume.exists(), "what holds the data directory must not be made");
    fs::rename(&away, &volume).unwrap();
    wait_until_back(&store);
    assert!(has(&store, b"kept"));
}

#[test]
fn no_checkpoint_is_made_of_a_database_that_lies_elsewhere_by_now() {
    let mut fixture = Fixture::new();
    fixture.settings.retry_interval = HOUR;
    let store = fixture.open();
    put(&store, b"key");
    fs::remove_dir_all(&fixture.settings.path).unwrap();
    assert!(matches!(store.checkpoint(), Err(DiskError::Degraded)));
    assert!(store.is_degraded() && !fixture.settings.path.exists());
}

#[test]
fn a_store_that_is_closed_does_not_harm_the_data_directory_that_replaced_its_own() {
    let (mut fixture, other) = (Fixture::new(), Fixture::new());
    fixture.settings.retry_interval = HOUR;
    // The first one would be due at once.
    fixture.settings.checkpoint_interval = Duration::ZERO;
    let [store, kept] = [fixture.open(), other.open()];
    for (store, key) in [(&store, b"before"), (&kept, b"within")] {
        put(store, key);
        store.compact().unwrap();
        store.close();
    }
    drop((store, kept));
    let store = fixture.open();
    put(&store, b"not yet on the disk");
    wait_until_tidy(&fixture);
    fs::rename(&fixture.settings.path, fixture.directory.path().join("away")).unwrap();
    fs::rename(&other.settings.path, &fixture.settings.path).unwrap();
    drop(store);
    let store = fixture.open();
    assert!(has(&store, b"within") && !has(&store, b"before"));
}
