//! Writes after the request: a bounded queue, and one thread that writes its content to the disk store.
//!
//! The request path only appends to the queue, under a lock held for just that. The thread takes everything
//! from the queue, writes it as one batch, and syncs at an interval. What happens when the thread or the disk
//! cannot keep up:
//!
//! - **A put may be lost**, and is then counted. The store is a cache: the record comes again. Puts are lost
//!   when the queue is full and while the store is degraded.
//! - **A delete is never lost** while the process lives, because it stands for a definitive no. It is
//!   accepted even if the queue is full, and takes effect at once (`queue.rs`). A degraded store remembers it
//!   and applies it before it answers again. If there are too many, all verdicts and profiles are dropped
//!   instead, which includes them. Each delete is also noted beside the newest checkpoint, so that it is
//!   applied to a checkpoint that takes over (`delete_markers.rs`).
//! - **A failed write degrades the store**: it answers misses and drops puts. The thread closes the database
//!   and tries to open it again at an interval. The store recovers without a restart when the disk does.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint;
use super::database;
use super::delete_markers::{DENIABLE, DeleteMarkers};
use super::engine::{Batch, Change, Engine, retry_while_stalled};
use super::error::DiskError;
use super::fault::Fault;
use super::kept;
use super::layout::Identity;
use super::opener::Opener;
use super::pending_deletes::{self, PendingDeletes};
use super::queue::Command;
use super::state::Shared;
use crate::tiers::record::Family;

/// The size of a batch, in bytes: large, so that the cost per batch does not matter, and small, so that its
/// copy in memory does not matter.
const BATCH_BYTES: usize = 1024 * 1024;

/// The thread's side.
pub(super) struct Writer {
    shared: Arc<Shared>,
    opener: Opener,
    state: State,
    pending_deletes: PendingDeletes,
    sync_at: Option<Instant>,
    checkpoint_at: Option<Instant>,
    changed_since_checkpoint: bool,
    /// The directories in which the database was opened.
    identity: Option<Identity>,
    /// When to check that they still exist.
    look_at: Instant,
    /// The delete markers of the newest checkpoint, if there is one.
    markers: Option<DeleteMarkers>,
}

enum State {
    Open(Arc<Engine>),
    Degraded {
        /// The engine that failed, until no reader uses it any more.
        failed: Option<Arc<Engine>>,
        /// Why the data on the disk is corrupt, if that is the fault.
        corrupt: Option<String>,
        retry_at: Instant,
    },
}

impl Writer {
    /// A writer into `engine`; without one, the store starts degraded.
    pub(super) fn new(shared: Arc<Shared>, opener: Opener, engine: Option<Arc<Engine>>) -> Self {
        let now = Instant::now();
        let state = match engine {
            Some(engine) => State::Open(engine),
            None => State::Degraded {
                failed: None,
                corrupt: None,
                retry_at: now + opener.settings().retry_interval,
            },
        };
        let changed_since_checkpoint = match &state {
            State::Open(engine) => engine.sequence() > 0,
            State::Degraded { .. } => true,
        };
        let checkpoint_at = first_checkpoint(&opener, changed_since_checkpoint);
        let mut writer = Self {
            identity: opener.layout().identity().ok(),
            look_at: now + opener.settings().retry_interval,
            shared,
            opener,
            state,
            pending_deletes: PendingDeletes::default(),
            sync_at: None,
            checkpoint_at,
            changed_since_checkpoint,
            markers: None,
        };
        if let Err(error) = writer.open_delete_markers() {
            writer.degrade(&error);
        }
        writer
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let inbox = self.shared.queue.take(self.next_deadline());
            let closing = inbox.closing;
            self.retry_if_due(closing);
            self.execute(inbox.commands);
            self.remove_copies_if_due(closing);
            if inbox.too_many_deletes {
                tracing::warn!(
                    "too many deletes for the queue of the disk store: dropping all verdicts and profiles"
                );
                // If it fails now, it stays pending and is done before the store answers again.
                let _ = self.purge(&DENIABLE);
                self.shared.queue.all_deleted();
            }
            self.sync_if_due(closing);
            self.look_if_due();
            self.checkpoint_if_due();
            if closing {
                // Deletes that became pending just now.
                self.retry_if_due(closing);
                return self.end();
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Open(_) => {
                let copies = self.pending_deletes.remove_copies_at;
                let due = [Some(self.look_at), self.sync_at, self.checkpoint_at, copies];
                due.into_iter().flatten().min()
            }
            State::Degraded { retry_at, .. } => Some(retry_at),
        }
    }

    fn execute(&mut self, commands: VecDeque<Command>) {
        let mut batch = Batch::default();
        for command in commands {
            let command = match command {
                Command::Change(change) => {
                    batch.push(change);
                    if batch.bytes() >= BATCH_BYTES {
                        self.write(std::mem::take(&mut batch));
                    }
                    continue;
                }
                command => command,
            };
            self.write(std::mem::take(&mut batch));
            // The caller may no longer wait for the answer.
            let _ = match command {
                Command::Change(_) => Ok(()),
                Command::Sync(reply) => reply.send(self.sync()).map_err(drop),
                Command::Purge(families, reply) => reply.send(self.purge(&families)).map_err(drop),
                Command::Checkpoint(to, reply) => reply.send(self.checkpoint(to)).map_err(drop),
                Command::Compact(reply) => {
                    reply.send(self.with_engine("compacting", Engine::compact)).map_err(drop)
                }
            };
        }
        self.write(batch);
    }

    fn write(&mut self, batch: Batch) {
        if batch.len() == 0 {
            return;
        }
        let deleted: Vec<_> = batch.deletes().map(|(family, key)| (family, key.to_vec())).collect();
        self.apply(batch);
        // Now the records are gone, or the store answers nothing until they are.
        self.shared.queue.deleted(&deleted);
    }

    fn apply(&mut self, batch: Batch) {
        if let State::Open(engine) = &self.state {
            let noted = pending_deletes::note(self.markers.as_mut(), &batch);
            match noted.and_then(|()| engine.write_with_retry(&batch)) {
                Ok(()) => {
                    self.shared.count(|counted| {
                        counted.bytes_written += batch.bytes() as u64;
                        counted.changes_written += batch.len() as u64;
                    });
                    self.changed_since_checkpoint = true;
                    self.sync_at =
                        self.sync_at.or_else(|| Some(Instant::now() + self.opener.settings().sync_interval));
                    return;
                }
                Err(fault) => self.degrade(&fault),
            }
        }
        let (deletes, puts): (Vec<_>, Vec<_>) =
            batch.into_changes().into_iter().partition(|change| matches!(change, Change::Delete(..)));
        self.shared.count(|counted| counted.dropped_puts += puts.len() as u64);
        self.pending_deletes.add(deletes, self.shared.queue.limit());
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.sync_at = None;
        if let Some(Err(error)) = self.markers.as_mut().map(DeleteMarkers::sync) {
            let fault = Fault::Disk(format!("syncing the deletes: {error}"));
            self.degrade(&fault);
            return Err(DiskError::engine("syncing", self.opener.layout().root(), &fault));
        }
        self.with_engine("syncing", Engine::sync)?;
        self.note_progress()?;
        self.shared.count(|counted| counted.syncs += 1);
        Ok(())
    }

    /// Notes the state of the database, to notice at the next open if it has lost something.
    fn note_progress(&mut self) -> Result<(), DiskError> {
        database::note_progress(self.opener.layout())
            .inspect_err(|error| self.degrade(&Fault::Disk(error.to_string())))
    }

    fn sync_if_due(&mut self, closing: bool) {
        if self.sync_at.is_some_and(|at| closing || at <= Instant::now()) {
            // `degrade` has counted and logged the fault.
            let _ = self.sync();
        }
    }

    fn purge(&mut self, families: &[Family]) -> Result<(), DiskError> {
        // A copy that cannot be removed now stays pending, too.
        let removed = checkpoint::remove_all(self.opener.layout());
        self.pending_deletes.remove_copies_at = removed.as_ref().err().map(|_| self.retry_at());
        if let Err(fault) = self.open_delete_markers() {
            self.degrade(&fault);
        }
        let purged = self.with_engine("purging", |engine| engine.purge(families));
        if purged.is_err() {
            self.pending_deletes.purge(families);
        }
        purged.and(removed)
    }

    fn remove_copies_if_due(&mut self, closing: bool) {
        if self.pending_deletes.remove_copies_at.is_none_or(|at| !closing && at > Instant::now()) {
            return;
        }
        let removed = checkpoint::remove_all(self.opener.layout());
        self.pending_deletes.remove_copies_at = removed.is_err().then(|| self.retry_at());
        if let Err(fault) = self.open_delete_markers() {
            self.degrade(&fault);
        }
    }

    fn retry_at(&self) -> Instant {
        Instant::now() + self.opener.settings().retry_interval
    }

    /// Notes deletes beside the newest checkpoint from now on.
    fn open_delete_markers(&mut self) -> Result<(), Fault> {
        self.markers = pending_deletes::markers_of(self.opener.layout())?;
        Ok(())
    }

    fn look_if_due(&mut self) {
        if self.look_at <= Instant::now() {
            self.look_at = self.retry_at();
            self.look();
        }
    }

    /// Checks that the database is still where it was opened. RocksDB itself does not notice while it writes
    /// to open files, and what it writes there is lost at a restart.
    fn look(&mut self) {
        if matches!(self.state, State::Open(_)) && !self.is_in_place() {
            let root = self.opener.layout().root().display();
            self.degrade(&Fault::Disk(format!(
                "the data directory {root} or db/ in it was deleted or replaced"
            )));
        }
    }

    fn is_in_place(&self) -> bool {
        self.identity.is_some() && self.identity == self.opener.layout().identity().ok()
    }

    fn checkpoint(&mut self, to: Option<PathBuf>) -> Result<PathBuf, DiskError> {
        self.look();
        let State::Open(engine) = &self.state else { return Err(DiskError::Degraded) };
        match to {
            Some(to) => checkpoint::make_backup(engine, self.opener.layout(), &to).map(|()| to),
            None => {
                let made = checkpoint::make(engine, self.opener.layout(), self.opener.clock().now())?;
                self.changed_since_checkpoint = false;
                if let Err(fault) = self.open_delete_markers() {
                    self.degrade(&fault);
                    return Err(DiskError::Degraded);
                }
                self.note_progress()?;
                self.shared.count(|counted| counted.checkpoints += 1);
                Ok(made)
            }
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpoint_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.checkpoint_at = next(self.opener.settings().checkpoint_interval);
        if self.changed_since_checkpoint
            && let Err(error) = self.checkpoint(None)
        {
            // The store itself is well, and the next checkpoint may succeed.
            tracing::warn!(%error, "no checkpoint of the disk store was made");
        }
    }

    fn with_engine(
        &mut self,
        doing: &'static str,
        action: impl Fn(&Engine) -> Result<(), Fault>,
    ) -> Result<(), DiskError> {
        let State::Open(engine) = &self.state else { return Err(DiskError::Degraded) };
        let done = retry_while_stalled(|| action(engine));
        done.map_err(|fault| {
            self.degrade(&fault);
            DiskError::engine(doing, self.opener.layout().root(), &fault)
        })
    }

    fn degrade(&mut self, fault: &Fault) {
        self.shared.count(|counted| counted.write_errors += 1);
        tracing::error!(
            fault = fault.message(),
            "the disk store is degraded: answers come from memory until the disk recovers"
        );
        self.sync_at = None;
        let corrupt = match fault {
            Fault::Corrupt(message) if self.is_in_place() => Some(message.clone()),
            // The file is missing because its directory is.
            Fault::Corrupt(_) | Fault::Locked | Fault::Stalled | Fault::Disk(_) => None,
        };
        self.shared.engine.store(None);
        let retry_at = Instant::now() + self.opener.settings().retry_interval;
        let was = std::mem::replace(&mut self.state, State::Degraded { failed: None, corrupt, retry_at });
        if let (State::Open(engine), State::Degraded { failed, .. }) = (was, &mut self.state) {
            *failed = Some(engine);
        }
    }

    fn retry_if_due(&mut self, closing: bool) {
        let in_place = self.is_in_place();
        let State::Degraded { failed, corrupt, retry_at } = &mut self.state else { return };
        let last_chance = closing && !self.pending_deletes.is_empty();
        if *retry_at > Instant::now() && !last_chance {
            return;
        }
        *retry_at = Instant::now() + self.opener.settings().retry_interval;
        if failed.is_some()
            && !in_place
            && let Err(error) = self.opener.layout().set_aside()
        {
            tracing::warn!(%error, "the disk store is still degraded");
            return;
        }
        if let Some(engine) = failed.take() {
            // RocksDB must be closed before it can be opened again. Close it only here, because that may
            // block.
            match Arc::try_unwrap(engine) {
                Ok(engine) => drop(engine),
                Err(still_read) => {
                    *failed = Some(still_read);
                    return;
                }
            }
        }
        match self.opener.reopen(corrupt.clone()).and_then(|(engine, recovered)| {
            let markers = self.pending_deletes.settle(&engine, &self.opener)?;
            Ok((engine, recovered, markers))
        }) {
            Ok((engine, recovered, markers)) => {
                self.markers = markers;
                self.identity = self.opener.layout().identity().ok();
                if let Some(action) = self.shared.when_back.get() {
                    action();
                }
                let engine = Arc::new(engine);
                self.shared.engine.store(Some(Arc::clone(&engine)));
                self.state = State::Open(engine);
                self.shared.count(|counted| counted.reopened += 1);
                match recovered {
                    Some(recovered) => {
                        self.shared.count(|counted| counted.recoveries += 1);
                        tracing::error!(%recovered, "the disk store is back");
                    }
                    None => tracing::info!("the disk store is back"),
                }
            }
            Err(error) => tracing::warn!(%error, "the disk store is still degraded"),
        }
    }

    /// Closes the database and releases its lock.
    fn end(self) {
        self.shared.engine.store(None);
        let in_place = self.is_in_place();
        let (State::Open(mut engine) | State::Degraded { failed: Some(mut engine), .. }) = self.state else {
            return;
        };
        if !in_place && let Err(error) = self.opener.layout().set_aside() {
            tracing::warn!(%error, "RocksDB may damage the database that replaced its own");
        }
        while let Err(still_read) = Arc::try_unwrap(engine) {
            // A read is under way. It takes microseconds, or as long as the disk takes.
            engine = still_read;
            std::thread::sleep(Duration::from_millis(1));
        }
        if !in_place && let Err(error) = self.opener.layout().finish_restoring() {
            tracing::warn!(%error, "the database that replaced this one is put in place at the next start");
        }
    }
}

/// When the first checkpoint is due: one interval after the newest checkpoint, also across restarts, or at
/// once if there is none.
fn first_checkpoint(opener: &Opener, has_records: bool) -> Option<Instant> {
    let interval = opener.settings().checkpoint_interval;
    let passed = match kept::newest(opener.layout()) {
        Some(newest) => opener.clock().now().since(newest.made_at),
        None if has_records => interval,
        None => Duration::ZERO,
    };
    next(interval).map(|due| due.checked_sub(passed.min(interval)).unwrap_or_else(Instant::now))
}

/// When something is due that happens every `interval`; `None` if that is zero.
fn next(interval: Duration) -> Option<Instant> {
    (!interval.is_zero()).then(|| Instant::now() + interval)
}
