//! Keeps a record that was forgotten while a request was under way from coming back with that request's
//! answer.
//!
//! A request looks for a record, asks the issuer, makes an answer, and then keeps what it found. Meanwhile
//! the issuer may have rejected the same token, or an operator may have purged it. So a caller that wants to
//! keep something reads the [`Epoch`] of its key before the lookup, and keeps it only if nothing was
//! forgotten since.
//!
//! **Why this is exact.** A record is kept under the same lock under which the epoch is counted up. A caller
//! that forgets counts up *before* it clears each store that is filled from stores cleared earlier. So a
//! record that is kept before that is cleared with the store, and one that comes after it has an older epoch
//! and is not kept. Disk and Redis are cleared behind the request, but a lookup there does not find what is
//! queued to be deleted. So a forgotten record is not visible in this instance even for a moment.
//!
//! Keys share 256 counters by their first byte. If two keys share one, a record may not be kept, and is
//! looked up again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tiers::digest::DIGEST_LENGTH;

const STRIPES: usize = 256;

/// Counts, for each key, how often something was forgotten.
#[derive(Debug)]
pub struct Invalidations(Box<[Mutex<u64>; STRIPES]>);

/// How often something was forgotten up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Invalidations {
    /// The epoch of a key.
    #[must_use]
    pub fn epoch(&self, key: &[u8; DIGEST_LENGTH]) -> Epoch {
        Epoch(*self.stripe(key))
    }

    /// Notes that the record under `key` is about to be forgotten.
    pub fn note(&self, key: &[u8; DIGEST_LENGTH]) {
        *self.stripe(key) += 1;
    }

    /// Notes that records under any key may be about to be forgotten.
    pub fn note_all(&self) {
        for stripe in self.0.iter() {
            *lock(stripe) += 1;
        }
    }

    /// Runs `keep`, unless something under `key` was forgotten since. Returns whether it ran. A caller that
    /// forgets waits for `keep`, so `keep` must be short.
    pub fn if_not_invalidated(&self, since: Epoch, key: &[u8; DIGEST_LENGTH], keep: impl FnOnce()) -> bool {
        let now = self.stripe(key);
        let unchanged = Epoch(*now) == since;
        if unchanged {
            keep();
        }
        unchanged
    }

    fn stripe(&self, key: &[u8; DIGEST_LENGTH]) -> MutexGuard<'_, u64> {
        let [first, ..] = key;
        lock(&self.0[usize::from(*first)])
    }
}

impl Default for Invalidations {
    fn default() -> Self {
        Self(Box::new([const { Mutex::new(0) }; STRIPES]))
    }
}

/// A poisoned lock does no harm: the number is consistent at any time.
fn lock(stripe: &Mutex<u64>) -> MutexGuard<'_, u64> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_kept(invalidations: &Invalidations, since: Epoch, key: u8) -> bool {
        let mut kept = false;
        let said = invalidations.if_not_invalidated(since, &[key; DIGEST_LENGTH], || kept = true);
        assert_eq!(said, kept);
        kept
    }

    #[test]
    fn what_was_looked_for_before_something_was_forgotten_is_not_kept() {
        let invalidations = Invalidations::default();
        let before = invalidations.epoch(&[1; DIGEST_LENGTH]);
        assert!(is_kept(&invalidations, before, 1));
        invalidations.note(&[1; DIGEST_LENGTH]);
        assert!(!is_kept(&invalidations, before, 1));
        assert!(is_kept(&invalidations, invalidations.epoch(&[1; DIGEST_LENGTH]), 1));
    }

    #[test]
    fn one_key_leaves_the_others_alone_and_a_purge_of_all_none() {
        let invalidations = Invalidations::default();
        let before = invalidations.epoch(&[2; DIGEST_LENGTH]);
        invalidations.note(&[1; DIGEST_LENGTH]);
        assert!(is_kept(&invalidations, before, 2));
        invalidations.note_all();
        assert!(!is_kept(&invalidations, before, 2));
    }
}
