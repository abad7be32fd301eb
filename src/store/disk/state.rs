//! State that the threads of the disk store share: the open database, the queue of changes, the counters.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use super::engine::{Engine, InMemory};
use super::error::DiskError;
use super::fault::Fault;
use super::queue::Queue;
use super::stats::DiskStats;
use crate::tiers::record::Family;

/// State that the store's threads share.
pub(super) struct Shared {
    /// The open database; `None` while the store is degraded.
    pub(super) engine: ArcSwapOption<Engine>,
    pub(super) queue: Queue,
    /// The counts since the start.
    counted: Mutex<DiskStats>,
    /// What to do when the disk recovers, before a record is written.
    pub(super) when_back: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    pub(super) fn new(engine: Option<Arc<Engine>>, queue: usize) -> Self {
        Self {
            engine: ArcSwapOption::new(engine),
            queue: Queue::new(queue),
            counted: Mutex::default(),
            when_back: OnceLock::new(),
        }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut DiskStats)) {
        count(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn stats(&self) -> DiskStats {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let degraded = self.engine.load().is_none();
        DiskStats { degraded, queued_bytes: self.queue.bytes() as u64, ..counted }
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        if self.queue.is_deleting(family, key) {
            return Ok(None);
        }
        let engine = self.engine.load();
        let Some(engine) = engine.as_ref() else { return Ok(None) };
        engine.get(family, key).map_err(|fault| self.read_error(&fault))
    }

    pub(super) fn get_in_memory(&self, family: Family, key: &[u8]) -> Result<InMemory, DiskError> {
        if self.queue.is_deleting(family, key) {
            return Ok(InMemory::Known(None));
        }
        let engine = self.engine.load();
        let Some(engine) = engine.as_ref() else { return Ok(InMemory::Known(None)) };
        engine.get_in_memory(family, key).map_err(|fault| self.read_error(&fault))
    }

    pub(super) fn read_error(&self, fault: &Fault) -> DiskError {
        self.count(|counted| counted.read_errors += 1);
        DiskError::Engine { doing: "reading", path: PathBuf::new(), message: fault.message().to_owned() }
    }
}
