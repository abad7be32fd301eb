//! Which proofs have come already (RFC 9449 §11.1): each is good once, for as long as its `iat` is.
//!
//! Two sets, of which the older one is dropped whenever the younger one has been filled for the time that a
//! proof is good. So a proof is remembered for that time at least, three times that at most, and nothing is
//! ever searched for what has expired. Only proofs that hold are remembered, and only those who have a good
//! token and its key can make them. When there is no room, the answer is "cannot tell": to forget one that
//! may come again would be worse.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Ticks;

/// The most proofs that are remembered in each of the two sets: 4,000 requests a second with the default
/// `dpop.proof_age`, in about 20 MB.
const MAX_PROOFS: usize = 400_000;

/// What tells a proof from all others: a digest of its key and its `jti`. 128 bits: who finds two proofs with
/// one digest has found a request of their own that is refused.
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

/// Whether a proof has come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has not.
    First,
    /// It has.
    Before,
    /// There is no room to remember it.
    Full,
}

/// The proofs that have come.
#[derive(Debug, Default)]
pub struct SeenProofs(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    younger: HashSet<ProofId>,
    older: HashSet<ProofId>,
    /// When `younger` was begun.
    since: Ticks,
}

impl SeenProofs {
    /// Remembers a proof that is good until `keep` from now, and says whether it has come before.
    #[must_use]
    pub fn see(&self, id: ProofId, now: Ticks, keep: Duration) -> Seen {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(sets.since) >= keep {
            // A set that was left for twice the time has nothing good any more either.
            let is_over = now.since(sets.since) >= keep * 2;
            let younger = std::mem::take(&mut sets.younger);
            sets.older = if is_over { HashSet::new() } else { younger };
            sets.since = now;
        }
        if sets.older.contains(&id) || sets.younger.contains(&id) {
            Seen::Before
        } else if sets.younger.len() >= MAX_PROOFS {
            Seen::Full
        } else {
            sets.younger.insert(id);
            Seen::First
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
        let (seen, keep) = (SeenProofs::default(), Duration::from_secs(60));
        assert!((0..MAX_PROOFS).all(|number| seen.see(id(number), at(0), keep) == Seen::First));
        assert_eq!(seen.see(id(MAX_PROOFS), at(59), keep), Seen::Full);
        assert_eq!(seen.see(id(7), at(59), keep), Seen::Before);
        assert_eq!(seen.see(id(MAX_PROOFS), at(60), keep), Seen::First);
        assert_eq!(seen.see(id(7), at(119), keep), Seen::Before);
        assert_eq!(seen.see(id(7), at(120), keep), Seen::First);
    }

    proptest! {
        /// Against a list of all that came and when.
        #[test]
        fn what_came_within_the_time_is_never_taken_for_new(
            steps in proptest::collection::vec((0..6_usize, 0..40_u64), 1..60),
        ) {
            let (seen, keep) = (SeenProofs::default(), Duration::from_secs(30));
            let (mut all, mut now) = (Vec::<(usize, u64)>::new(), 0);
            for (number, later) in steps {
                now += later;
                let last = all.iter().rev().find(|(other, _)| *other == number).map(|(_, then)| now - then);
                match seen.see(id(number), at(now), keep) {
                    Seen::First => {
                        prop_assert!(last.is_none_or(|ago| ago >= 30), "{number} came {last:?} s ago");
                        all.push((number, now));
                    }
                    Seen::Before => prop_assert!(last.is_some_and(|ago| ago < 90), "{number}: {last:?}"),
                    Seen::Full => prop_assert!(false),
                }
            }
        }
    }
}
