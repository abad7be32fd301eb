//! Counters of the disk store.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) dropped_puts: AtomicU64,
    pub(super) changes_written: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) read_errors: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) reopened: AtomicU64,
    pub(super) recoveries: AtomicU64,
}

/// A reading of the store's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Whether the store answers misses because of a fault of its disk.
    pub degraded: bool,
    /// Bytes of queued writes.
    pub queued_bytes: u64,
    /// Puts that were lost because the queue was full or the store degraded.
    pub dropped_puts: u64,
    /// Puts and deletes that were written.
    pub changes_written: u64,
    /// Their keys and values, in bytes.
    pub bytes_written: u64,
    /// Faults that degraded the store.
    pub write_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Lookups that were rejected because too many waited for the disk.
    pub busy: u64,
    /// Lookups that the disk did not answer in time, or that did not wait because earlier ones timed out.
    pub slow: u64,
    /// Times that the write-ahead log was synced to the disk.
    pub syncs: u64,
    /// Checkpoints that were made.
    pub checkpoints: u64,
    /// Times that the store came back from being degraded.
    pub reopened: u64,
    /// Times that a corrupt database was replaced, at the start or since.
    pub recoveries: u64,
}

impl Counters {
    /// A reading. The arguments come from other parts of the store.
    pub(super) fn read(&self, degraded: bool, queued_bytes: usize) -> DiskStats {
        DiskStats {
            degraded,
            queued_bytes: queued_bytes as u64,
            dropped_puts: self.dropped_puts.load(Relaxed),
            changes_written: self.changes_written.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
            read_errors: self.read_errors.load(Relaxed),
            busy: self.busy.load(Relaxed),
            slow: self.slow.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            reopened: self.reopened.load(Relaxed),
            recoveries: self.recoveries.load(Relaxed),
        }
    }
}
