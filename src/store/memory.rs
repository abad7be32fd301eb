//! Memory stores: concurrent, bounded by weight in bytes, and packed.
//!
//! The tables have their full size from the start, so no request waits while a table grows.

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::clock::Timestamp;
use crate::tiers::digest::BuildDigestHasher;
use crate::tiers::record::Record;

/// What an entry costs besides its content, in bytes: key, slot, a share of the slots of evicted keys, hash
/// table.
pub const ENTRY_OVERHEAD: u64 = 112;

/// The most entries that tables are made for from the start.
const MAX_PREPARED: usize = 1 << 20;

/// A memory store, by digests.
pub type Memory<K, V, W> = Cache<K, V, W, BuildDigestHasher>;

/// Records in memory, encoded. This takes less than half the memory; decoding one takes 0.1 µs.
pub(super) type Records<K> = Memory<K, Box<[u8]>, RecordWeight>;

/// A store of at most `bytes`. If entries are heavier than `typical`, a part of the tables is never touched,
/// and takes no memory.
pub fn memory<K, V, W>(bytes: u64, typical: u64, weight: W) -> Memory<K, V, W>
where
    K: Hash + Eq,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let items = usize::try_from(bytes / typical).unwrap_or(usize::MAX).clamp(16, MAX_PREPARED);
    // The cache remembers half of this number of evicted keys, so that a key that comes again soon is
    // recognised. Each takes the slot of an entry: with an eighth as many as entries, the same memory has
    // more hits than with the usual half (docs/decisions/013-evicted-keys.md).
    let cache =
        Cache::with(items / 4, bytes, weight, BuildDigestHasher::default(), DefaultLifecycle::default());
    cache.reserve(items);
    cache
}

/// The record under `key`.
pub(super) fn get<K: Hash + Eq, R: Record>(memory: &Records<K>, key: &K) -> Option<R> {
    R::decode(&memory.get(key)?).ok()
}

/// The record under `key`, if it was verified within `time`.
pub(super) fn get_within<K: Hash + Eq, R: Record>(
    memory: &Records<K>,
    key: &K,
    time: &RangeInclusive<Timestamp>,
) -> Option<Arc<R>> {
    get(memory, key).filter(|record: &R| time.contains(&record.kept().verified_at)).map(Arc::new)
}

/// Keeps a record under `key`.
pub(super) fn keep<K: Hash + Eq, R: Record>(memory: &Records<K>, key: K, record: &R) {
    match record.encode() {
        Ok(bytes) => memory.insert(key, bytes.into_boxed_slice()),
        // The previous record is older, and must not stay.
        Err(_) => drop(memory.remove(&key)),
    }
}

/// Weighs records in bytes, near enough to bound memory.
#[derive(Clone)]
pub(super) struct RecordWeight;

impl<K> Weighter<K, Box<[u8]>> for RecordWeight {
    fn weight(&self, _: &K, record: &Box<[u8]>) -> u64 {
        ENTRY_OVERHEAD + record.len() as u64
    }
}
