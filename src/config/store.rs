//! `[store]`: where records are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::value::{self, DAY, SECOND};
use crate::store::disk::DiskSettings;
use crate::store::open::StoreSettings;
use crate::store::shared::{RedisAddress, RedisServers, Sentinels};

impl StoreSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = DiskSettings::at("");
        let settings = Self {
            path: section
                .optional("path", |text| Ok(PathBuf::from(text)))
                .filter(|path| !path.as_os_str().is_empty()),
            memory: section.value("memory", 256 << 20, value::size(1 << 20, 1 << 40)),
            block_cache: section.value("block_cache", default.block_cache, value::size(1 << 20, 1 << 40)),
            sync_interval: section.value(
                "sync_interval",
                default.sync_interval,
                value::duration(SECOND / 1000, 60 * SECOND),
            ),
            checkpoint_interval: section.value("checkpoint_interval", default.checkpoint_interval, |text| {
                let checked = value::duration(SECOND, 30 * DAY)(text);
                match humantime::parse_duration(text) {
                    Ok(Duration::ZERO) => Ok(Duration::ZERO),
                    _ => checked.map_err(|allowed| format!("0s (never) or {allowed}")),
                }
            }),
            secret_file: section.optional("secret_file", value::path),
            secret_file_old: section.optional("secret_file_old", value::path),
            redis: redis(&mut section),
            redis_password_file: section.optional("redis_password_file", value::path),
            redis_timeout: section.value(
                "redis_timeout",
                SECOND / 20,
                value::duration(SECOND / 1000, 10 * SECOND),
            ),
        };
        if settings.redis.is_some() && settings.secret_file.is_none() {
            section.report(
                "secret_file",
                "nothing",
                "a file of 32 random bytes, the same on all instances, because a Redis is set: without it no \
                 instance can read what another shares",
            );
        }
        if settings.redis.is_none() && settings.redis_password_file.is_some() {
            section.report(
                "redis_password_file",
                "set",
                "a file only with store.redis, store.redis_sentinels or store.redis_cluster",
            );
        }
        if settings.secret_file_old.is_some() && settings.path.is_none() && settings.redis.is_none() {
            section.report("secret_file_old", "set", "only together with store.path or a Redis");
        }
        settings
    }
}

/// The Redis of the section: `redis`, or what belongs to `redis_sentinels`. URLs are never shown.
fn redis(section: &mut Section<'_>) -> Option<RedisServers> {
    let single = section.secret("redis", RedisAddress::parse);
    let nodes = section.secrets("redis_cluster", RedisAddress::parse_tcp);
    let addresses = section.secrets("redis_sentinels", RedisAddress::parse_tcp);
    let primary_name = section.optional("redis_sentinel_master", value::text);
    let user = section.optional("redis_user", value::text);
    let Some(addresses) = addresses else {
        for (key, is_set) in
            [("redis_sentinel_master", primary_name.is_some()), ("redis_user", user.is_some())]
        {
            if is_set {
                section.report(key, "set", "only together with store.redis_sentinels");
            }
        }
        if let Some(nodes) = nodes {
            if single.is_some() {
                section.unfit("redis_cluster", "is set as well as store.redis; remove one of the two");
            }
            if nodes.is_empty() {
                section.report("redis_cluster", "[]", "at least one URL");
            }
            return Some(RedisServers::Cluster(nodes));
        }
        return single.map(RedisServers::Single);
    };
    for (key, is_set) in [("redis", single.is_some()), ("redis_cluster", nodes.is_some())] {
        if is_set {
            let problem = format!("is set as well as store.{key}; remove one of the two");
            section.unfit("redis_sentinels", problem);
        }
    }
    if addresses.is_empty() {
        section.report("redis_sentinels", "[]", "at least one URL");
    }
    let Some(primary_name) = primary_name else {
        section.report(
            "redis_sentinel_master",
            "nothing",
            "with store.redis_sentinels, the name under which the sentinels know the primary",
        );
        return None;
    };
    Some(RedisServers::Sentinels(Sentinels { addresses, primary_name, user }))
}
