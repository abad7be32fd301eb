//! `[store]`: where records are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::value::{self, DAY};
use crate::store::disk::DiskSettings;
use crate::store::settings::StoreSettings;
use crate::store::shared::RedisAddress;

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
}
