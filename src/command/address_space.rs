//! Whether there is as much address space as holdfast needs, asked before it starts.
//!
//! With less, an allocation or a thread of the C libraries fails at some moment, and they abort or hang. A
//! limit of the address space counts what is reserved, not what is used: a cgroup's limit of memory is the
//! better one, and is not looked at here.

use holdfast::config::Settings;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

const MEBIBYTE: u64 = 1 << 20;

/// What threads, stacks and libraries reserve.
const BASE: u64 = 256 * MEBIBYTE;

/// What RocksDB reserves besides its block cache.
const DISK_STORE: u64 = 512 * MEBIBYTE;

/// There is less than is needed.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "the address space is limited to {} MiB (ulimit -v, prlimit --as, systemd: LimitAS=), and this configuration needs {} MiB: \
     raise that limit, lower store.memory, or limit memory by a cgroup instead (systemd: MemoryMax=)",
    .limit / MEBIBYTE, .needed / MEBIBYTE
)]
pub struct AddressSpaceTooSmall {
    limit: u64,
    needed: u64,
}

/// Holds the limit of the address space against what these settings need.
///
/// # Errors
/// [`AddressSpaceTooSmall`].
pub fn check(settings: &Settings) -> Result<(), AddressSpaceTooSmall> {
    let store = &settings.store;
    let disk = store.disk().map_or(0, |disk| DISK_STORE.saturating_add(disk.block_cache as u64));
    let needed = BASE.saturating_add(store.memory).saturating_add(disk);
    match getrlimit(Resource::As).current {
        Some(limit) if limit < needed => Err(AddressSpaceTooSmall { limit, needed }),
        _ => Ok(()),
    }
}
