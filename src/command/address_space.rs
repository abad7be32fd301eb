//! Checks before the start whether there is enough address space.
//!
//! With too little, an allocation or a thread of the C libraries fails at some moment, and they abort or
//! hang. This limit counts reserved memory, not used memory. A cgroup's memory limit is better, and is not
//! checked here.

use holdfast::config::Settings;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

const MEBIBYTE: u64 = 1 << 20;

/// The address space that threads, stacks and libraries reserve, in bytes.
const BASE: u64 = 256 * MEBIBYTE;

/// The address space that RocksDB reserves besides its block cache, in bytes.
const DISK_STORE: u64 = 512 * MEBIBYTE;

/// The address space is too small.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "the address space is limited to {} MiB (ulimit -v, prlimit --as, systemd: LimitAS=), and this \
     configuration needs {} MiB: raise that limit, lower store.memory, or limit memory by a cgroup instead \
     (systemd: MemoryMax=)",
    .limit / MEBIBYTE, .needed / MEBIBYTE
)]
pub struct AddressSpaceTooSmall {
    limit: u64,
    needed: u64,
}

/// Compares the limit of the address space with what these settings need.
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
