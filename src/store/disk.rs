//! The disk store: sealed records in RocksDB, which survive restarts, crashes and outages.
//!
//! It stores bytes. It knows neither their content nor the key that opens them. It reads only the unencrypted
//! expiry in front of each record, to drop records that are of no more use. Three rules shape it:
//!
//! 1. **Nothing here delays a request for long.** A lookup that memory can answer (memtable, filter, block
//!    cache) is answered at once. Any other lookup goes to reader threads, and the request waits for it for
//!    at most [`DiskSettings::read_timeout`], or not at all while the disk does not answer (`reader.rs`).
//!    Writes happen after the request (`writer.rs`).
//! 2. **A broken disk does not stop holdfast.** Whatever happens to the disk while the store is open, the
//!    store answers misses until the disk works again. Then the store recovers without a restart.
//! 3. **Each way in which a directory can be wrong has one outcome**:
//!
//! | at open | outcome |
//! |---|---|
//! | corrupt | moved aside and replaced by a checkpoint, or empty: [`Opened::recovery`] |
//! | missing or behind what it was, and there is a checkpoint | as corrupt (`database.rs`) |
//! | damage inside the write-ahead log | what precedes the damage is there, what follows is not |
//! | damage in a table file, found later | in a read: a miss; in a write or compaction: as corrupt |
//! | full, or an error that may pass | the store starts degraded: [`Opened::degraded`] |
//! | cannot be written to | [`DiskError::Unwritable`] |
//! | held by another instance | [`DiskError::InUse`] |
//! | from a newer version | [`DiskError::NewerFormat`] |
//!
//! A corrupt database is replaced by the newest good checkpoint, else by the readable part of a damaged one,
//! else by an empty database.
//!
//! A directory that is deleted or replaced while the store is open degrades the store until it has opened
//! what is there.

pub mod checkpoint;
mod database;
mod delete_markers;
mod engine;
mod error;
mod fault;
mod kept;
mod layout;
mod opener;
mod pending_deletes;
mod purging;
mod queue;
mod reader;
mod settings;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

pub use self::error::DiskError;
pub use self::settings::DiskSettings;
pub use self::stats::DiskStats;

use self::checkpoint::Recovered;
use self::engine::InMemory;
use self::layout::Layout;
use self::opener::Opener;

use self::queue::{Command, Reply};
use self::reader::Readers;
use self::state::Shared;
use self::writer::Writer;
use crate::clock::Clock;
use crate::tiers::record::Family;

/// A store that was opened, and what happened on the way.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: DiskStore,
    /// What was done about a corrupt directory.
    pub recovery: Option<Recovered>,
    /// Why the store starts degraded, if it does: it keeps trying.
    pub degraded: Option<DiskError>,
}

/// The disk store. Clones share it; the last one that is dropped closes it, which waits for what is queued.
#[derive(Clone)]
pub struct DiskStore(Arc<Inner>);

struct Inner {
    keeps_checkpoints: bool,
    shared: Arc<Shared>,
    readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Whether a data directory has a database.
pub(super) fn has_records(path: &Path) -> bool {
    Layout::new(path).has_database() == Ok(true)
}

impl DiskStore {
    /// Opens the store and starts its threads. Blocks while RocksDB opens.
    ///
    /// # Errors
    /// When the directory cannot be written to, belongs to another instance, or is of another version.
    pub fn open(settings: DiskSettings, clock: Clock) -> Result<Opened, DiskError> {
        let keeps_checkpoints = !settings.checkpoint_interval.is_zero();
        let opener = Opener::new(settings, clock);
        let (engine, recovery, degraded) = match opener.open() {
            Ok((engine, recovery)) => (Some(Arc::new(engine)), recovery, None),
            Err(error) if error.may_pass() => (None, None, Some(error)),
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared::new(engine.clone(), opener.settings().queue));
        if engine.is_some()
            && let Err(error) = opener.layout().remove_drafts()
        {
            tracing::warn!(%error, "a useless copy could not be removed");
        }
        if let Some(recovery) = &recovery {
            shared.count(|counted| counted.recoveries += 1);
            tracing::error!(%recovery, "the disk store was replaced");
        }
        let readers = Readers::start(opener.settings(), &shared).map_err(DiskError::Thread)?;
        let writer = Writer::new(Arc::clone(&shared), opener, engine);
        let thread = thread::Builder::new().name("disk-writer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(DiskError::Thread)?;
        let store =
            Self(Arc::new(Inner { keeps_checkpoints, shared, readers, writer: Mutex::new(Some(writer)) }));
        Ok(Opened { store, recovery, degraded })
    }

    /// The value under `key`, on an async worker. What is not in memory is read on another thread. A degraded
    /// store has no records.
    ///
    /// # Errors
    /// When the read fails, the disk does not answer in time, or too many lookups wait for it. The request
    /// treats that as a miss.
    pub async fn lookup(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let shared = &self.0.shared;
        match shared.get_in_memory(family, key)? {
            InMemory::Known(value) => Ok(value),
            InMemory::NeedsDisk => {
                let found = self.0.readers.read(family, key).await;
                match &found {
                    Err(DiskError::Busy) => shared.count(|counted| counted.busy += 1),
                    Err(DiskError::Slow) => shared.count(|counted| counted.slow += 1),
                    _ => {}
                }
                found
            }
        }
    }

    /// The value under `key`. Blocks while the disk is read. A degraded store has no records.
    ///
    /// # Errors
    /// When the read fails. The request treats that as a miss.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.0.shared.get(family, key)
    }

    /// Queues a write. Never blocks. Returns whether there was room. A put that is rejected is counted.
    pub fn put(&self, family: Family, key: &[u8], value: Vec<u8>) -> bool {
        let queued = self.0.shared.queue.put(family, key, value);
        if !queued {
            self.0.shared.count(|counted| counted.dropped_puts += 1);
        }
        queued
    }

    /// Queues a delete. Never blocks and is never rejected: see `writer.rs`. No lookup that begins after it
    /// finds the record.
    pub fn delete(&self, family: Family, key: &[u8]) {
        self.0.shared.queue.delete(family, key);
    }

    /// Waits until everything that was queued before is on the disk. Blocks.
    ///
    /// # Errors
    /// When the store is or becomes degraded. It is then unknown what is on the disk.
    pub fn sync(&self) -> Result<(), DiskError> {
        self.ask(Command::Sync)
    }

    /// Drops every record of the families, and all checkpoints, because they hold the same records. Blocks.
    ///
    /// # Errors
    /// When the store is degraded; the records are then dropped before it answers again.
    pub fn purge(&self, families: &[Family]) -> Result<(), DiskError> {
        self.ask(|reply| Command::Purge(families.to_vec(), reply))
    }

    /// Sets an action that runs each time the disk recovers, before a record is written: the data directory
    /// may be another one, without the other files that belong there. Only the first call has an effect.
    pub(super) fn when_back(&self, action: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.shared.when_back.set(Box::new(action));
    }

    /// Whether it makes checkpoints by itself.
    fn keeps_checkpoints(&self) -> bool {
        self.0.keeps_checkpoints
    }

    /// Makes a checkpoint among the others and returns where. Blocks.
    ///
    /// # Errors
    /// When the store is degraded or the checkpoint cannot be written.
    pub fn checkpoint(&self) -> Result<PathBuf, DiskError> {
        self.ask(|reply| Command::Checkpoint(None, reply))
    }

    /// Makes a backup in the new directory `to`, while the store is in use. Blocks.
    ///
    /// # Errors
    /// When the store is degraded, or `to` exists or cannot be written.
    pub fn backup_to(&self, to: impl Into<PathBuf>) -> Result<(), DiskError> {
        self.ask(|reply| Command::Checkpoint(Some(to.into()), reply)).map(drop)
    }

    /// Rewrites the files now, which drops what has expired. RocksDB does so by itself within a day. Blocks.
    ///
    /// # Errors
    /// When the store is or becomes degraded.
    pub fn compact(&self) -> Result<(), DiskError> {
        self.ask(Command::Compact)
    }

    /// Shows key and value of every record of a family to `visit`. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When the store is degraded or a read fails.
    pub fn scan(&self, family: Family, visit: impl FnMut(&[u8], &[u8])) -> Result<(), DiskError> {
        let engine = self.0.shared.engine.load_full().ok_or(DiskError::Degraded)?;
        engine.scan(family, visit).map_err(|fault| self.0.shared.read_error(&fault))
    }

    /// The same for the keys from `first` up to but not including `end`.
    ///
    /// # Errors
    /// As [`DiskStore::scan`].
    pub fn scan_between(
        &self,
        family: Family,
        first: &[u8],
        end: &[u8],
        visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), DiskError> {
        let engine = self.0.shared.engine.load_full().ok_or(DiskError::Degraded)?;
        engine.scan_between(family, first, Some(end), visit).map_err(|fault| self.0.shared.read_error(&fault))
    }

    /// About how many records a family has; `None` while the store is degraded.
    #[must_use]
    pub fn records(&self, family: Family) -> Option<u64> {
        self.0.shared.engine.load().as_ref()?.records(family)
    }

    /// Whether the store answers misses because of a fault of its disk.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.0.shared.engine.load().is_none()
    }

    /// Whether lookups do not wait for the disk, because several were not answered in time.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.0.readers.is_slow()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        self.0.shared.stats()
    }

    /// Writes and syncs what is queued and closes the database. Blocks. From then on the store is degraded
    /// for all clones.
    pub fn close(&self) {
        self.0.close();
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, DiskError> {
        let (reply, answer) = sync_channel(1);
        if !self.0.shared.queue.send(command(reply)) {
            return Err(DiskError::Closed);
        }
        answer.recv().unwrap_or(Err(DiskError::Closed))
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has closed the database as well.
            let _ = writer.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
