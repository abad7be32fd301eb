//! Where records are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::DiskSettings;
use super::shared::{RedisServers, SharedSettings};

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `path`, `--data`: the data directory, for records and keys that survive a restart. Default: none,
    /// everything is kept in memory.
    pub path: Option<PathBuf>,
    /// `memory`: the most that the memory stores take, in bytes. Default 256 MiB.
    pub memory: u64,
    /// `block_cache`: the most that the disk store caches of its files in memory, in bytes. Default 32 MiB.
    pub block_cache: usize,
    /// `sync_interval`: how much of the latest writes a power cut can lose. A crash of holdfast alone loses
    /// nothing. Default 1 s.
    pub sync_interval: Duration,
    /// `checkpoint_interval`: how often a copy is made that takes over if the store is corrupt. Default 6 h;
    /// zero: never.
    pub checkpoint_interval: Duration,
    /// `secret_file`: the instance secret, 32 random bytes. Default: the file `secret` in the data directory,
    /// created at the first start.
    pub secret_file: Option<PathBuf>,
    /// `secret_file_old`: the previous instance secret, while the secret is rotated. Records under it are
    /// read, too.
    pub secret_file_old: Option<PathBuf>,
    /// `redis`, or `redis_cluster`, or `redis_sentinels` with `redis_sentinel_master` and `redis_user`: the
    /// Redis through which several instances share records. None by default.
    pub redis: Option<RedisServers>,
    /// `redis_password_file`: a file with Redis's password, in place of the URL's.
    pub redis_password_file: Option<PathBuf>,
    /// `redis_timeout`: how long a request waits for Redis before the lookup goes on to the disk. Default 50
    /// ms.
    pub redis_timeout: Duration,
}

impl StoreSettings {
    /// The settings of the disk store; `None` without a data directory.
    #[must_use]
    pub fn disk(&self) -> Option<DiskSettings> {
        Some(DiskSettings {
            block_cache: self.block_cache,
            sync_interval: self.sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            ..DiskSettings::at(self.path.as_ref()?)
        })
    }

    /// The settings of the shared store and the file of the instance secret; `None` without a Redis.
    #[must_use]
    pub fn shared(&self) -> Option<(SharedSettings, &Path)> {
        let settings = SharedSettings {
            password_file: self.redis_password_file.clone(),
            read_timeout: self.redis_timeout,
            ..SharedSettings::of(self.redis.clone()?)
        };
        Some((settings, self.secret_file.as_deref()?))
    }
}
