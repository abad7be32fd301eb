//! The records of one kind in memory.
//!
//! A hash map that grows holds its old table beside the new one. So the records are in several maps, which
//! grow one after the other: a million records need 70 MB and never more, instead of 104 MB for a moment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

use crate::revocation::denial::DIGEST_PART;
use crate::tiers::digest::BuildDigestHasher;

/// How many maps there are.
pub(super) const PARTS: usize = 16;

/// A part of a digest as the key of a hash map. Its first 8 bytes are the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part([u8; DIGEST_PART]);

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Values by digest.
pub(super) struct Table<V> {
    parts: [HashMap<Part, V, BuildDigestHasher>; PARTS],
    length: usize,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| HashMap::default()), length: 0 }
    }
}

impl<V: Copy> Table<V> {
    pub(super) fn get(&self, digest: &[u8; DIGEST_PART]) -> Option<V> {
        self.parts[part(digest)].get(&Part(*digest)).copied()
    }

    /// Puts `new` there, or what `merge` makes of the known value and `new`. Returns the known value and the
    /// one that is there now.
    pub(super) fn put(
        &mut self,
        digest: &[u8; DIGEST_PART],
        new: V,
        merge: impl FnOnce(V, V) -> V,
    ) -> (Option<V>, V) {
        match self.parts[part(digest)].entry(Part(*digest)) {
            Entry::Occupied(mut entry) => {
                let known = *entry.get();
                let merged = merge(known, new);
                entry.insert(merged);
                (Some(known), merged)
            }
            Entry::Vacant(entry) => {
                entry.insert(new);
                self.length += 1;
                (None, new)
            }
        }
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(&V) -> bool) {
        self.parts.iter_mut().for_each(|map| map.retain(|_, value| wanted(value)));
        self.length = self.parts.iter().map(HashMap::len).sum();
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8; DIGEST_PART], &V)> {
        self.parts.iter().flatten().map(|(part, value)| (&part.0, value))
    }
}

/// The map of a digest: by its last byte, which nothing else uses.
fn part(digest: &[u8; DIGEST_PART]) -> usize {
    usize::from(digest[DIGEST_PART - 1]) % PARTS
}
