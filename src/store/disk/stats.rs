//! Counters of the disk store.

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
