//! Settings of the disk store.

use std::path::PathBuf;
use std::time::Duration;

/// The place and the limits of the disk store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// The data directory.
    pub path: PathBuf,
    /// The bound of the block cache, in bytes. It holds filters and indexes, too.
    pub block_cache: usize,
    /// The bound of all memtables, in bytes. The write-ahead log stays below twice this.
    pub memtables: usize,
    /// How many bytes of writes may wait for the writer.
    pub queue: usize,
    /// The longest time after which a write is on the disk: what a power cut can cost.
    pub sync_interval: Duration,
    /// How often a checkpoint is made, if anything was written since; zero: never.
    pub checkpoint_interval: Duration,
    /// How often a degraded store tries to open the database again, and an open one checks that its directory
    /// is there.
    pub retry_interval: Duration,
    /// How many threads read from the disk.
    pub readers: usize,
    /// How long a lookup waits for the disk.
    pub read_timeout: Duration,
}

impl DiskSettings {
    /// The defaults, for this data directory.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        const MEBIBYTE: usize = 1024 * 1024;
        Self {
            path: path.into(),
            block_cache: 32 * MEBIBYTE,
            memtables: 16 * MEBIBYTE,
            queue: 8 * MEBIBYTE,
            sync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(6 * 60 * 60),
            retry_interval: Duration::from_secs(5),
            readers: 2,
            // Many times what a busy healthy disk takes, and short compared with a call to the issuer.
            read_timeout: Duration::from_secs(1),
        }
    }
}
