//! The queue between the requests and the writer thread.
//!
//! A lookup does not find a queued put, which costs a miss. A delete takes effect as soon as it is queued: no
//! lookup finds the record from then on, however long the disk takes. Otherwise a lookup in between could
//! find the record and promote it, and a no would become a yes.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::delete_markers::DENIABLE;
use super::engine::Change;
use super::error::DiskError;
use crate::tiers::record::Family;

/// The memory that a queued change takes in addition to its bytes.
pub(super) const CHANGE_OVERHEAD: usize = 96;

/// Where a caller waits for the result of its command.
pub(super) type Reply<T> = SyncSender<Result<T, DiskError>>;

/// A command to the writer.
pub(super) enum Command {
    /// Apply a change.
    Change(Change),
    /// Sync everything before this command to the disk.
    Sync(Reply<()>),
    /// Drop all records of these families, and all checkpoints.
    Purge(Vec<Family>, Reply<()>),
    /// Make a checkpoint among the others, or in this directory.
    Checkpoint(Option<PathBuf>, Reply<PathBuf>),
    /// Drop expired records.
    Compact(Reply<()>),
}

/// The queue between the requests and the thread.
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    limit: usize,
    /// How many deletes are not applied yet, so that a lookup takes no lock while there are none.
    deleting: AtomicUsize,
}

/// The content of the queue.
#[derive(Default)]
pub(super) struct Inbox {
    /// In the order of arrival.
    pub(super) commands: VecDeque<Command>,
    bytes: usize,
    /// There were more deletes than the queue can hold.
    pub(super) too_many_deletes: bool,
    /// How many deletes of each key are not applied yet, including those that the thread has taken.
    deletes: Deletes,
    /// No more commands come.
    pub(super) closing: bool,
}

/// The deletes that are not applied yet.
#[derive(Default)]
struct Deletes {
    keys: HashMap<(Family, Vec<u8>), usize>,
    /// Every record of the deniable families is to be deleted.
    all: bool,
}

impl Queue {
    /// A queue of at most `limit` bytes of puts.
    pub(super) fn new(limit: usize) -> Self {
        Self { inbox: Mutex::default(), arrived: Condvar::new(), limit, deleting: AtomicUsize::new(0) }
    }

    /// Queues a put. Returns whether there was room.
    pub(super) fn put(&self, family: Family, key: &[u8], value: Vec<u8>) -> bool {
        let mut inbox = self.lock();
        let bytes = key.len() + value.len() + CHANGE_OVERHEAD;
        if inbox.closing || inbox.bytes + bytes > self.limit {
            return false;
        }
        self.add(&mut inbox, Command::Change(Change::Put(family, key.to_vec(), value)), bytes);
        true
    }

    /// Queues a delete.
    pub(super) fn delete(&self, family: Family, key: &[u8]) {
        let mut inbox = self.lock();
        // It is stored twice: in the order of arrival, and for lookups.
        let bytes = 2 * (key.len() + CHANGE_OVERHEAD);
        if inbox.bytes + bytes > 2 * self.limit {
            inbox.too_many_deletes = true;
            if !std::mem::replace(&mut inbox.deletes.all, true) {
                self.deleting.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        *inbox.deletes.keys.entry((family, key.to_vec())).or_default() += 1;
        self.deleting.fetch_add(1, Ordering::SeqCst);
        self.add(&mut inbox, Command::Change(Change::Delete(family, key.to_vec())), bytes);
    }

    /// Whether the record under this key is to be deleted. Call this before reading: a delete that is no
    /// longer queued then has been applied to the database.
    pub(super) fn is_deleting(&self, family: Family, key: &[u8]) -> bool {
        if self.deleting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let deletes = &self.lock().deletes;
        (deletes.all && DENIABLE.contains(&family)) || deletes.keys.contains_key(&(family, key.to_vec()))
    }

    /// Marks these deletes as applied, or as pending in a store that answers nothing until they are applied.
    pub(super) fn deleted(&self, deleted: &[(Family, Vec<u8>)]) {
        let mut inbox = self.lock();
        for key in deleted {
            if let Some(times) = inbox.deletes.keys.get_mut(key) {
                *times -= 1;
                if *times == 0 {
                    inbox.deletes.keys.remove(key);
                }
                self.deleting.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Marks the deletion of all deniable records as done or pending. If there were too many deletes again
    /// meanwhile, that is handled next.
    pub(super) fn all_deleted(&self) {
        let mut inbox = self.lock();
        if inbox.deletes.all && !inbox.too_many_deletes {
            inbox.deletes.all = false;
            self.deleting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Queues a command that a caller waits for. Returns false if the queue is closed.
    pub(super) fn send(&self, command: Command) -> bool {
        let mut inbox = self.lock();
        if !inbox.closing {
            self.add(&mut inbox, command, 0);
        }
        !inbox.closing
    }

    /// Lets the thread end once the queue is empty. Nothing more is queued.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.arrived.notify_one();
    }

    /// How many bytes of puts may wait.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn add(&self, inbox: &mut Inbox, command: Command, bytes: usize) {
        inbox.bytes += bytes;
        inbox.commands.push_back(command);
        if inbox.commands.len() == 1 {
            self.arrived.notify_one();
        }
    }

    /// Takes everything from the queue. If it is empty, waits for a command until `deadline`.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Inbox {
        let mut inbox = self.lock();
        while inbox.commands.is_empty() && !inbox.closing {
            let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            inbox = match wait {
                None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(wait) => {
                    self.arrived.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let closing = inbox.closing;
        let deletes = std::mem::take(&mut inbox.deletes);
        std::mem::replace(&mut *inbox, Inbox { closing, deletes, ..Inbox::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // No code panics while it holds this lock. If it did, the queue would still be consistent.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
