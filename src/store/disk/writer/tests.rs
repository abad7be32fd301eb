//! The queue alone, and the writer run to its end on the thread of the test, so that nothing depends on
//! timing.

use super::super::queue::{CHANGE_OVERHEAD, Queue};
use super::*;
use crate::clock::{Clock, Timestamp};
use crate::store::disk::DiskSettings;
use crate::store::disk::engine::InMemory;

const FAMILY: Family = Family::Verdicts;

struct Fixture {
    _directory: tempfile::TempDir,
    settings: DiskSettings,
}

impl Fixture {
    fn new(queue: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = DiskSettings { queue, memtables: 1 << 20, ..DiskSettings::at(directory.path()) };
        Self { _directory: directory, settings }
    }

    fn opener(&self) -> Opener {
        Opener::new(self.settings.clone(), Clock::held_at(Timestamp::from_secs(1_800_000_000)))
    }

    /// Runs a writer over the commands that `fill` queues, and returns the shared state.
    fn run(&self, degraded: bool, fill: impl FnOnce(&Queue)) -> Arc<Shared> {
        let engine = Arc::new(self.opener().open().unwrap().0);
        let engine = if degraded { None } else { Some(engine) };
        let shared = Arc::new(Shared::new(engine.clone(), self.settings.queue));
        fill(&shared.queue);
        shared.queue.close();
        Writer::new(Arc::clone(&shared), self.opener(), engine).run();
        shared
    }

    fn keys(&self) -> Vec<u8> {
        let mut keys = Vec::new();
        let engine = self.opener().open().unwrap().0;
        engine.scan(FAMILY, |key, _| keys.push(key[0])).unwrap();
        keys
    }
}

fn value(length: usize) -> Vec<u8> {
    vec![0xff; length]
}

#[test]
fn a_full_queue_turns_puts_away_but_no_delete() {
    let queue = Queue::new(1000);
    let accepted = (0..20).filter(|key| queue.put(FAMILY, &[*key], value(100))).count();
    assert_eq!(accepted, 1000 / (1 + 100 + CHANGE_OVERHEAD));
    queue.delete(FAMILY, &[0]);
    let inbox = queue.take(None);
    assert_eq!(inbox.commands.len(), accepted + 1);
    assert!(!inbox.too_many_deletes);
    assert!(queue.put(FAMILY, &[1], value(100)), "there must be room again");
}

#[test]
fn deletes_beyond_all_bounds_purge_instead_of_being_lost() {
    let fixture = Fixture::new(10_000);
    fixture.run(false, |queue| assert!((0..10).all(|key| queue.put(FAMILY, &[key], value(20)))));
    assert_eq!(fixture.keys().len(), 10);
    fixture.run(false, |queue| {
        for key in 0..1000_u32 {
            queue.delete(FAMILY, &(key + (1 << 16)).to_be_bytes());
        }
        queue.delete(FAMILY, &[3]);
        assert!(queue.bytes() <= 20_000, "the bound of the queue must hold");
    });
    assert_eq!(fixture.keys(), Vec::<u8>::new());
}

#[test]
fn changes_are_applied_in_order_and_all_of_them_before_the_end() {
    let fixture = Fixture::new(1 << 20);
    let shared = fixture.run(false, |queue| {
        assert!(queue.put(FAMILY, &[1], value(20)));
        queue.delete(FAMILY, &[1]);
        assert!(queue.put(FAMILY, &[2], value(20)));
        queue.delete(FAMILY, &[2]);
        assert!(queue.put(FAMILY, &[2], value(20)));
    });
    assert_eq!(fixture.keys(), [2]);
    assert_eq!(shared.stats().changes_written, 5);
    assert_eq!(shared.stats().bytes_written, 3 * 21 + 2);
    assert_eq!(shared.stats().syncs, 1, "what was written must be synced at the end");
}

#[test]
fn nothing_is_queued_after_the_end() {
    let queue = Queue::new(1000);
    queue.close();
    assert!(!queue.put(FAMILY, &[1], value(1)));
    let (reply, _answer) = std::sync::mpsc::sync_channel(1);
    assert!(!queue.send(Command::Sync(reply)));
}

#[test]
fn while_degraded_puts_are_dropped_and_deletes_are_owed_until_the_store_is_back() {
    let fixture = Fixture::new(1 << 20);
    fixture.run(false, |queue| assert!((0..5).all(|key| queue.put(FAMILY, &[key], value(20)))));
    let shared = Arc::new(Shared::new(None, fixture.settings.queue));
    let mut writer = Writer::new(Arc::clone(&shared), fixture.opener(), None);
    assert!(shared.queue.put(FAMILY, &[9], value(20)));
    shared.queue.delete(FAMILY, &[3]);
    writer.execute(shared.queue.take(None).commands);
    assert_eq!(shared.stats().dropped_puts, 1);
    assert!(matches!(writer.sync(), Err(DiskError::Degraded)));
    // Closing is the last chance to apply pending deletes.
    writer.retry_if_due(true);
    assert!(matches!(writer.state, State::Open(_)) && writer.pending_deletes.is_empty());
    assert!(shared.engine.load().is_some());
    writer.end();
    assert_eq!(fixture.keys(), [0, 1, 2, 4]);
}

#[test]
fn a_degraded_store_that_owes_too_many_deletes_owes_a_purge_instead() {
    let mut pending_deletes = PendingDeletes::default();
    let deletes =
        |count| (0..count).map(|key: u32| Change::Delete(FAMILY, key.to_be_bytes().to_vec())).collect();
    pending_deletes.add(deletes(10), 1000);
    assert_eq!((pending_deletes.deletes.len(), pending_deletes.purge.len()), (10, 0));
    pending_deletes.add(deletes(10), 1000);
    pending_deletes.add(deletes(10), 1000);
    assert_eq!((pending_deletes.deletes.len(), pending_deletes.purge.as_slice()), (10, &DENIABLE[..]));
}

#[test]
fn copies_that_a_purge_could_not_remove_are_owed() {
    let fixture = Fixture::new(1 << 20);
    let engine = Arc::new(fixture.opener().open().unwrap().0);
    let shared = Arc::new(Shared::new(Some(engine.clone()), fixture.settings.queue));
    let mut writer = Writer::new(shared, fixture.opener(), Some(engine));
    let checkpoints = fixture.settings.path.join("checkpoints");
    writer.checkpoint(None).unwrap();
    // It is no directory, so it cannot be removed as one.
    std::fs::write(checkpoints.join("in-the-way"), "").unwrap();
    assert!(writer.purge(&DENIABLE).is_err());
    assert!(writer.pending_deletes.remove_copies_at.is_some() && matches!(writer.state, State::Open(_)));
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 1, "what can be removed is");
    std::fs::remove_file(checkpoints.join("in-the-way")).unwrap();
    std::fs::create_dir(checkpoints.join("another")).unwrap();
    writer.remove_copies_if_due(false);
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 1, "not before its time");
    writer.remove_copies_if_due(true);
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 0);
    assert!(writer.pending_deletes.remove_copies_at.is_none());
}

#[test]
fn deletes_that_come_to_be_owed_at_the_very_end_are_applied() {
    let fixture = Fixture::new(1 << 20);
    fixture.run(false, |queue| assert!((0..5).all(|key| queue.put(FAMILY, &[key], value(20)))));
    let shared = Arc::new(Shared::new(None, fixture.settings.queue));
    shared.queue.delete(FAMILY, &[3]);
    shared.queue.close();
    Writer::new(shared, fixture.opener(), None).run();
    assert_eq!(fixture.keys(), [0, 1, 2, 4]);
}

#[test]
fn the_first_checkpoint_is_due_by_the_age_of_the_newest_one_and_not_by_that_of_the_process() {
    const INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
    let fixture = Fixture::new(1 << 20);
    let due_in = |opener: &Opener, has_records| {
        first_checkpoint(opener, has_records).unwrap().saturating_duration_since(Instant::now())
    };
    let hours = |hours: u64| Duration::from_secs(60 * 60 * hours);
    let opener = fixture.opener();
    let engine = opener.open().unwrap().0;
    assert!(due_in(&opener, false) > INTERVAL - hours(1), "there is nothing to keep yet");
    assert_eq!(due_in(&opener, true), Duration::ZERO);
    checkpoint::make(&engine, opener.layout(), opener.clock().now()).unwrap();
    assert!(due_in(&opener, true) > INTERVAL - hours(1));
    opener.clock().advance(hours(5));
    assert!(due_in(&opener, true) <= hours(1));
    opener.clock().advance(hours(5));
    assert_eq!(due_in(&opener, true), Duration::ZERO);
}

#[test]
fn a_delete_counts_as_soon_as_it_is_queued() {
    let fixture = Fixture::new(1000);
    fixture.run(false, |queue| assert!([1, 2].into_iter().all(|key| queue.put(FAMILY, &[key], value(20)))));
    // Without a writer a delete is never applied.
    let engine = Arc::new(fixture.opener().open().unwrap().0);
    let shared = Shared::new(Some(engine), 1000);
    let found = |key| {
        let found = shared.get(FAMILY, &[key]).unwrap();
        match shared.get_in_memory(FAMILY, &[key]).unwrap() {
            InMemory::Known(known) => assert_eq!(known, found),
            InMemory::NeedsDisk => assert!(found.is_some()),
        }
        found.is_some()
    };
    assert!(found(1) && found(2));
    shared.queue.delete(FAMILY, &[1]);
    assert!(!found(1) && found(2));
    // After two deletes the record counts as deleted until both are applied.
    shared.queue.delete(FAMILY, &[1]);
    let deleted = [(FAMILY, vec![1])];
    shared.queue.deleted(&deleted);
    assert!(!found(1));
    shared.queue.deleted(&deleted);
    assert!(found(1));
    // More deletes than the queue holds count as all records.
    (0..100).for_each(|key| shared.queue.delete(FAMILY, &[100 + key]));
    assert!(!found(1) && !found(2));
    assert!(shared.queue.take(None).too_many_deletes);
    shared.queue.all_deleted();
    assert!(found(1) && found(2));
}

#[test]
fn a_delete_is_applied_or_owed_when_it_counts_no_longer_by_itself() {
    let fixture = Fixture::new(1 << 20);
    fixture.run(false, |queue| assert!((0..5).all(|key| queue.put(FAMILY, &[key], value(20)))));
    let shared = fixture.run(false, |queue| queue.delete(FAMILY, &[3]));
    assert!(!shared.queue.is_deleting(FAMILY, &[3]));
    assert_eq!(fixture.keys(), [0, 1, 2, 4]);
}
