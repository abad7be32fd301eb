//! `[store]`: where records are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::Section;
use super::{DAY, value};
use crate::store::disk::DiskSettings;
use crate::store::shared::{RedisAddress, SharedSettings};

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `path`, `--data`: the data directory, for records and keys that survive a restart. Empty, the default, keeps
    /// everything in memory.
    pub path: Option<PathBuf>,
    /// `memory`: bound of the memory store in bytes. Default 256 MiB.
    pub memory: u64,
    /// `block_cache`: bound of what the disk store keeps of its files in memory, in bytes. Default 32 MiB.
    pub block_cache: usize,
    /// `sync_interval`: what a power cut can cost; a crash of holdfast alone costs nothing. Default 1 s.
    pub sync_interval: Duration,
    /// `checkpoint_interval`: how often a copy is made that is restored if the store is found corrupt. Default 6 h;
    /// zero: never.
    pub checkpoint_interval: Duration,
    /// `secret_file`: the instance secret, 32 random bytes. Default: the file `secret` in the data directory, made at
    /// the first start.
    pub secret_file: Option<PathBuf>,
    /// `redis`: the URL of a Redis through which several instances share records. None by default.
    pub redis: Option<RedisAddress>,
    /// `redis_password_file`: a file with Redis's password, in place of the URL's.
    pub redis_password_file: Option<PathBuf>,
    /// `redis_timeout`: how long a request waits for Redis, before the walk goes on to the disk. Default 50 ms.
    pub redis_timeout: Duration,
}

impl StoreSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = DiskSettings::at("");
        let settings = Self {
            path: section
                .optional("path", |text| Ok(PathBuf::from(text)))
                .filter(|path| !path.as_os_str().is_empty()),
            memory: section.value("memory", 256 << 20, value::size(1 << 20, 1 << 40)),
            block_cache: section.value("block_cache", default.block_cache, |text| {
                value::size(1 << 20, 1 << 40)(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
            }),
            sync_interval: section.value(
                "sync_interval",
                default.sync_interval,
                value::duration(Duration::from_millis(1), Duration::from_secs(60)),
            ),
            checkpoint_interval: section.value("checkpoint_interval", default.checkpoint_interval, |text| {
                let checked = value::duration(Duration::from_secs(1), 30 * DAY)(text);
                match humantime::parse_duration(text) {
                    Ok(Duration::ZERO) => Ok(Duration::ZERO),
                    _ => checked.map_err(|allowed| format!("0s (never) or {allowed}")),
                }
            }),
            secret_file: section.optional("secret_file", value::path),
            redis: section.secret("redis", RedisAddress::parse),
            redis_password_file: section.optional("redis_password_file", value::path),
            redis_timeout: section.value(
                "redis_timeout",
                Duration::from_millis(50),
                value::duration(Duration::from_millis(1), Duration::from_secs(10)),
            ),
        };
        if settings.redis.is_some() && settings.secret_file.is_none() {
            section.complain(
                "secret_file",
                "nothing",
                "with store.redis, a file of 32 random bytes that all instances have a copy of: \
                 without it none could read what another shared",
            );
        }
        if settings.redis.is_none() && settings.redis_password_file.is_some() {
            section.complain("redis_password_file", "set", "only together with store.redis");
        }
        section.finish();
        settings
    }

    /// The settings of the disk store; `None` if everything is kept in memory.
    #[must_use]
    pub fn disk(&self) -> Option<DiskSettings> {
        Some(DiskSettings {
            block_cache: self.block_cache,
            sync_interval: self.sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            ..DiskSettings::at(self.path.as_ref()?)
        })
    }

    /// The settings of the shared store and the instance secret's file, if there is one.
    #[must_use]
    pub fn shared(&self) -> Option<(SharedSettings, &Path)> {
        let settings = SharedSettings {
            password_file: self.redis_password_file.clone(),
            read_timeout: self.redis_timeout,
            ..SharedSettings::at(self.redis.clone()?)
        };
        Some((settings, self.secret_file.as_deref()?))
    }
}
