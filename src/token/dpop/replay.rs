//! The replay cache for DPoP proofs (RFC 9449 §11.1): each proof is accepted once while its `iat` is valid.
//!
//! There are two sets. When the younger set has been filled for the lifetime of a proof, the older set is
//! dropped and the younger one takes its place. So a proof is remembered for its lifetime at least, for three
//! lifetimes at most, and no scan for expired proofs is needed. Only valid proofs are remembered, and only
//! the owner of a good token and its key can make them. When the cache is full, the answer is "cannot tell",
//! since forgetting a proof would let it be replayed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Generations, Ticks};

/// The most proofs that are remembered in each of the two sets: 4,000 requests a second with the default
/// `dpop.proof_age`, in about 20 MB.
const MAX_PROOFS: usize = 400_000;

/// The identity of a proof: a digest of its key and its `jti`. 128 bits are enough: an attacker who finds two
/// proofs with the same digest only gets one of their own requests refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProofId([u8; 16]);

impl ProofId {
    pub(super) fn of(digest: &[u8]) -> Self {
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a proof is a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The proof is new.
    FirstUse,
    /// The proof was used before.
    Replayed,
    /// The cache has no room for the proof.
    CacheFull,
}

/// The proofs that were used.
#[derive(Debug, Default)]
pub struct ReplayCache(Mutex<Generations<HashSet<ProofId>>>);

impl ReplayCache {
    /// Records a proof that is valid for `keep` from now, and says whether it is a replay.
    #[must_use]
    pub fn check(&self, id: ProofId, now: Ticks, keep: Duration) -> Replay {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sets.rotate(now, keep);
        if sets.older.contains(&id) || sets.younger.contains(&id) {
            Replay::Replayed
        } else if sets.younger.len() >= MAX_PROOFS {
            Replay::CacheFull
        } else {
            sets.younger.insert(id);
            Replay::FirstUse
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> ProofId {
        ProofId::of(&[number.to_le_bytes(), [0; 8]].concat())
    }

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    #[test]
    fn when_there_is_no_room_nothing_is_forgotten_and_room_comes_back() {
        let (cache, keep) = (ReplayCache::default(), Duration::from_secs(60));
        assert!((0..MAX_PROOFS).all(|number| cache.check(id(number), at(0), keep) == Replay::FirstUse));
        assert_eq!(cache.check(id(MAX_PROOFS), at(59), keep), Replay::CacheFull);
        assert_eq!(cache.check(id(7), at(59), keep), Replay::Replayed);
        assert_eq!(cache.check(id(MAX_PROOFS), at(60), keep), Replay::FirstUse);
        assert_eq!(cache.check(id(7), at(119), keep), Replay::Replayed);
        assert_eq!(cache.check(id(7), at(120), keep), Replay::FirstUse);
    }

    proptest! {
        /// Against a list of all that came and when.
        #[test]
        fn what_came_within_the_time_is_never_taken_for_new(
            steps in proptest::collection::vec((0..6_usize, 0..40_u64), 1..60),
        ) {
            let (cache, keep) = (ReplayCache::default(), Duration::from_secs(30));
            let (mut all, mut now) = (Vec::<(usize, u64)>::new(), 0);
            for (number, later) in steps {
                now += later;
                let last = all.iter().rev().find(|(other, _)| *other == number).map(|(_, then)| now - then);
                match cache.check(id(number), at(now), keep) {
                    Replay::FirstUse => {
                        prop_assert!(last.is_none_or(|ago| ago >= 30), "{number} came {last:?} s ago");
                        all.push((number, now));
                    }
                    Replay::Replayed => prop_assert!(last.is_some_and(|ago| ago < 90), "{number}: {last:?}"),
                    Replay::CacheFull => prop_assert!(false),
                }
            }
        }
    }
}
