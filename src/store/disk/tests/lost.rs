//! A database that has lost a part of itself, and opens all the same.

use super::layout::{CopyMode, Layout, PROGRESS_FILE, SEQUENCE_FILE};
use super::*;

/// A store that has a checkpoint, a delete since, and was opened several times.
fn with_checkpoint(fixture: &Fixture) -> PathBuf {
    let store = fixture.open();
    put(&store, b"first");
    put(&store, b"gone");
    drop(store);
    let store = fixture.open();
    put(&store, b"second");
    let made = store.checkpoint().unwrap();
    store.delete(Family::Verdicts, b"gone");
    put(&store, b"third");
    drop(store);
    made
}

/// Cuts the MANIFEST short.
fn cut(fixture: &Fixture, sixteenths: u64) {
    let manifest = fixture.file("MANIFEST");
    let length = fs::metadata(&manifest).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&manifest).unwrap();
    file.set_len(length * sixteenths / 16).unwrap();
}

fn has_all_of_the_checkpoint(store: &DiskStore) {
    let there = [&b"first"[..], b"second", b"gone"].map(|key| has(store, key));
    assert_eq!(there, [true, true, false]);
}

#[test]
fn a_manifest_cut_short_is_noticed_wherever_it_was_cut_and_the_checkpoint_takes_over() {
    for sixteenths in 0..16 {
        let fixture = Fixture::new();
        let made = with_checkpoint(&fixture);
        let manifest = fixture.file("MANIFEST");
        let length = fs::metadata(&manifest).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&manifest)
            .unwrap()
            .set_len(length * sixteenths / 16)
            .unwrap();
        let opened = fixture.try_open().unwrap();
        let recovered = opened.recovery.unwrap_or_else(|| panic!("{sixteenths}/16: not noticed"));
        assert_eq!(recovered.restored_from, Some((made.clone(), NOW)), "{recovered}");
        has_all_of_the_checkpoint(&opened.store);
        put(&opened.store, b"later");
        drop(opened.store);
        let store = fixture.open();
        has_all_of_the_checkpoint(&store);
        assert!(has(&store, b"later") && made.exists());
    }
}

#[test]
fn a_database_that_is_missing_or_older_than_the_checkpoint_is_replaced_by_it() {
    let losses: [(&str, Damage); 3] = [
        ("db/ missing", |fixture| fs::remove_dir_all(fixture.database()).unwrap()),
        ("db/ empty", |fixture| {
            fs::remove_dir_all(fixture.database()).unwrap();
            fs::create_dir(fixture.database()).unwrap();
        }),
        ("db/ older", |fixture| {
            fs::remove_dir_all(fixture.database()).unwrap();
            fs::rename(fixture.directory.path().join("older"), fixture.database()).unwrap();
        }),
    ];
    for (name, lose) in losses {
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store, b"first");
        drop(store);
        let older = fixture.directory.path().join("older");
        layout::copy_database(&fixture.database(), &older, CopyMode::Nothing).unwrap();
        let made = with_checkpoint(&fixture);
        lose(&fixture);
        let opened = fixture.try_open().unwrap();
        let recovered = opened.recovery.unwrap_or_else(|| panic!("{name}: not noticed"));
        assert_eq!(recovered.restored_from, Some((made, NOW)), "{name}: {recovered}");
        has_all_of_the_checkpoint(&opened.store);
        drop(opened.store);
        has_all_of_the_checkpoint(&fixture.open());
    }
}

#[test]
fn a_loss_is_not_forgotten_when_the_start_that_noticed_it_is_cut_off() {
    let fixture = Fixture::new();
    let made = with_checkpoint(&fixture);
    cut(&fixture, 15);
    let layout = Layout::new(&fixture.settings.path);
    let opened = database::open(&layout, false, &fixture.settings, &fixture.clock);
    assert!(matches!(opened, Err(fault::Fault::Corrupt(_))));
    let copy = fixture.directory.path().join("backup");
    assert!(backup(&fixture.settings, &fixture.clock, &copy).is_err(), "a backup of what is left is none");
    let opened = fixture.try_open().unwrap();
    assert_eq!(opened.recovery.unwrap().restored_from, Some((made, NOW)));
    has_all_of_the_checkpoint(&opened.store);
}

#[test]
fn a_restored_backup_is_not_taken_for_a_loss() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, b"old");
    drop(store);
    let copy = fixture.directory.path().join("backup");
    backup(&fixture.settings, &fixture.clock, &copy).unwrap();
    with_checkpoint(&fixture);
    drop(fixture.open());
    restore(&fixture.settings, &fixture.clock, &copy).unwrap();
    for _ in 0..2 {
        let store = fixture.open();
        assert!(has(&store, b"old") && !has(&store, b"second"));
    }
}

#[test]
fn a_directory_without_notes_is_opened_as_it_is() {
    let fixture = Fixture::new();
    let made = with_checkpoint(&fixture);
    fs::remove_file(fixture.settings.path.join(PROGRESS_FILE)).unwrap();
    fs::remove_file(made.join(SEQUENCE_FILE)).unwrap();
    let store = fixture.open();
    has_all_of_the_checkpoint(&store);
    for _ in 0..3 {
        store.checkpoint().unwrap();
    }
    assert!(!made.exists());
}

#[test]
fn checkpoints_of_an_empty_database_do_not_push_out_the_last_one_of_what_was_there() {
    let fixture = Fixture::new();
    let store = fixture.open();
    (0..50).for_each(|key| put(&store, &[key]));
    store.checkpoint().unwrap();
    let good = store.checkpoint().unwrap();
    drop(store);
    // No checkpoint can be read for a while, and the store starts empty.
    let unreadable = |unreadable: bool| {
        for name in layout::names_in(&fixture.settings.path.join("checkpoints")) {
            let current = fixture.settings.path.join("checkpoints").join(name).join("CURRENT");
            let aside = current.with_extension("aside");
            let (from, to) = if unreadable { (current, aside) } else { (aside, current) };
            fs::rename(from, to).unwrap();
        }
    };
    unreadable(true);
    overwrite(&fixture.file("MANIFEST"), 0, &[0xa5; 64]);
    let opened = fixture.try_open().unwrap();
    assert_eq!(opened.recovery.unwrap().restored_from, None);
    let store = opened.store;
    unreadable(false);
    let made: Vec<_> = (0..4)
        .map(|key| {
            let made = store.checkpoint().unwrap();
            store.delete(Family::Verdicts, &[key]);
            made
        })
        .collect();
    drop(store);
    assert_eq!(made.iter().filter(|made| made.exists()).count(), 2);
    assert!(good.exists(), "it has fifty records that no other has");
    drop(fixture.open());

    // What was deleted since is deleted from it, also what was noted beside checkpoints that are gone.
    fs::remove_dir_all(fixture.database()).unwrap();
    made.iter().filter(|made| made.exists()).for_each(|made| fs::write(made.join("CURRENT"), "").unwrap());
    let opened = fixture.try_open().unwrap();
    assert_eq!(opened.recovery.unwrap().restored_from, Some((good.clone(), NOW)));
    let there: Vec<_> = (0..50).filter(|key| has(&opened.store, &[*key])).collect();
    assert_eq!(there, (4..50).collect::<Vec<_>>());
}

#[test]
fn deny_records_since_a_checkpoint_are_in_the_checkpoint_that_takes_over() {
    for newest_is_damaged in [false, true] {
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store, b"kept");
        store.checkpoint().unwrap();
        let deny = |key: &[u8], what: &[u8]| {
            assert!(store.put(Family::Revocations, key, value(LATER, what)));
            store.sync().unwrap();
        };
        deny(b"first", b"refused");
        deny(b"changed", b"refused");
        let newest = store.checkpoint().unwrap();
        deny(b"second", &[b'x'; 1000]);
        deny(b"changed", b"taken back");
        drop(store);
        cut(&fixture, 0);
        if newest_is_damaged {
            fs::write(newest.join("CURRENT"), "nonsense").unwrap();
        }
        let Opened { store, recovery, .. } = fixture.try_open().unwrap();
        assert!(recovery.unwrap().restored_from.is_some() && has(&store, b"kept"));
        let denied = |key: &[u8]| store.get(Family::Revocations, key).unwrap();
        assert_eq!(denied(b"first"), Some(value(LATER, b"refused")));
        assert_eq!(denied(b"second"), Some(value(LATER, &[b'x'; 1000])));
        assert_eq!(denied(b"changed"), Some(value(LATER, b"taken back")), "the later one counts");
    }
}
