//! The changes that wait to be written to the shared store: the latest one of each record. Pure.
//!
//! This is a map and not a queue: a newer change of a record replaces the waiting one. So an unreachable
//! Redis costs a bounded amount of memory, and one write for each record when it is back. Records are
//! independent, so their order does not matter. As with the disk's queue, a put may be rejected, and is then
//! counted. A forget is never rejected, since it stands for a refusal. If there are too many, all verdicts
//! and profiles are forgotten instead.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::clock::Timestamp;
use crate::tiers::record::Family;

/// What a change takes besides its content, in bytes.
const OVERHEAD: usize = 128;

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The record is written, unless Redis has a younger one.
    Put {
        /// The sealed record.
        sealed: Vec<u8>,
        /// When it was verified: a purge or forget after that keeps it out.
        verified_at: Timestamp,
        /// When it is dropped.
        useless_from: Timestamp,
        /// A record in Redis that would be dropped later than this has a wrong time, and is replaced.
        latest: Timestamp,
    },
    /// The record is replaced by a mark, which keeps out records from before.
    Forget {
        /// When a record that is verified now would be dropped.
        useless_from: Timestamp,
    },
}

impl Change {
    const fn bytes(&self) -> usize {
        match self {
            Self::Put { sealed, .. } => OVERHEAD + sealed.len(),
            Self::Forget { .. } => OVERHEAD,
        }
    }
}

/// Which record.
pub(super) type Which = (Family, Vec<u8>);

/// The changes that wait.
#[derive(Debug)]
pub(super) struct Pending {
    changes: HashMap<Which, Change>,
    bytes: usize,
    limit: usize,
    everybody: bool,
    /// Records whose forget was taken for writing and is not confirmed yet.
    forgetting: HashSet<Which>,
}

impl Pending {
    /// Nothing waits; puts may take `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { changes: HashMap::new(), bytes: 0, limit, everybody: false, forgetting: HashSet::new() }
    }

    /// Adds a change. Returns whether there was room; for a forget there always is.
    pub(super) fn add(&mut self, which: Which, change: Change) -> bool {
        let replaced = self.changes.get(&which).map_or(0, |waiting| waiting.bytes() + which.1.len());
        let bytes = self.bytes - replaced + change.bytes() + which.1.len();
        match change {
            Change::Put { .. } if bytes > self.limit => return false,
            Change::Forget { .. } if bytes > self.limit.saturating_mul(2) => self.forget_everybody(),
            Change::Put { .. } | Change::Forget { .. } => {
                self.bytes = bytes;
                self.changes.insert(which, change);
            }
        }
        true
    }

    /// Puts back changes that could not be written, unless a newer change waits. Returns how many puts were
    /// dropped for lack of room.
    pub(super) fn restore(&mut self, changes: Vec<(Which, Change)>) -> usize {
        let mut lost = 0;
        for (which, change) in changes {
            if let Entry::Vacant(_) = self.changes.entry(which.clone())
                && !self.add(which, change)
            {
                lost += 1;
            }
        }
        lost
    }

    /// Takes all waiting changes. A forget counts in [`Pending::is_forgetting`] until [`Pending::written`].
    pub(super) fn take(&mut self) -> Vec<(Which, Change)> {
        self.bytes = 0;
        let changes: Vec<_> = std::mem::take(&mut self.changes).into_iter().collect();
        let forgets = changes.iter().filter(|(_, change)| matches!(change, Change::Forget { .. }));
        self.forgetting.extend(forgets.map(|(which, _)| which.clone()));
        changes
    }

    /// The changes that were taken are written, or wait again.
    pub(super) fn written(&mut self) {
        self.forgetting.clear();
    }

    /// Whether the record waits to be forgotten. Then its value in Redis must not be used.
    pub(super) fn is_forgetting(&self, family: Family, key: &[u8]) -> bool {
        let which = (family, key.to_vec());
        let is_person = matches!(family, Family::Verdicts | Family::Profiles);
        (self.everybody && is_person)
            || self.forgetting.contains(&which)
            || matches!(self.changes.get(&which), Some(Change::Forget { .. }))
    }

    /// Drops a waiting put: its record is forgotten.
    pub(super) fn drop_put(&mut self, family: Family, key: &[u8]) {
        if let Entry::Occupied(waiting) = self.changes.entry((family, key.to_vec()))
            && matches!(waiting.get(), Change::Put { .. })
        {
            self.bytes -= waiting.get().bytes() + key.len();
            waiting.remove();
        }
    }

    /// Drops all waiting puts of verdicts and profiles: they are forgotten.
    pub(super) fn drop_user_puts(&mut self) {
        let is_kept = |which: &Which, change: &Change| {
            !matches!((which.0, change), (Family::Verdicts | Family::Profiles, Change::Put { .. }))
        };
        self.changes.retain(|which, change| is_kept(which, change));
        self.bytes = self.changes.iter().map(|(which, change)| change.bytes() + which.1.len()).sum();
    }

    /// Notes that all verdicts and profiles are forgotten before anything else is written.
    pub(super) fn forget_everybody(&mut self) {
        self.changes.clear();
        self.bytes = 0;
        self.everybody = true;
    }

    /// Whether all verdicts and profiles are to be forgotten first.
    pub(super) const fn must_forget_everybody(&self) -> bool {
        self.everybody
    }

    /// All verdicts and profiles have been forgotten.
    pub(super) const fn everybody_forgotten(&mut self) {
        self.everybody = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 2_000;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, usize),
        Forget(u8),
        WriteFails,
        Write,
        DropPut(u8),
        DropPeople,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_u8, 0..600_usize).prop_map(|(key, length)| Step::Put(key, length)),
            3 => (0..60_u8).prop_map(Step::Forget),
            1 => Just(Step::WriteFails),
            1 => Just(Step::Write),
            1 => (0..12_u8).prop_map(Step::DropPut),
            1 => Just(Step::DropPeople),
        ]
    }

    fn put(length: usize) -> Change {
        Change::Put {
            sealed: vec![7; length],
            verified_at: Timestamp::from_secs(1),
            useless_from: Timestamp::from_secs(9),
            latest: Timestamp::from_secs(9),
        }
    }

    const FORGET: Change = Change::Forget { useless_from: Timestamp::from_secs(9) };

    fn which(key: u8) -> Which {
        (Family::Verdicts, vec![key; 32])
    }

    proptest! {
        /// The model is the list of everything that was accepted, in order.
        #[test]
        fn of_each_record_the_latest_change_is_written_and_no_forget_is_ever_lost(
            steps in proptest::collection::vec(step(), 0..80)
        ) {
            let mut pending = Pending::new(LIMIT);
            let mut model: HashMap<Which, Change> = HashMap::new();
            let mut everybody = false;
            for step in steps {
                match step {
                    Step::Put(key, length) => {
                        if pending.add(which(key), put(length)) {
                            model.insert(which(key), put(length));
                        }
                    }
                    Step::Forget(key) => {
                        prop_assert!(pending.add(which(key), FORGET));
                        model.insert(which(key), FORGET);
                    }
                    Step::WriteFails => {
                        let taken = pending.take();
                        let lost = pending.restore(taken);
                        let before = model.len();
                        // Beside many forgets there may be no room for puts any more; those are counted.
                        model.retain(|which, change| {
                            *change == FORGET || pending.changes.get(which) == Some(change)
                        });
                        prop_assert!(everybody || before - model.len() == lost);
                    }
                    Step::Write => {
                        everybody |= pending.must_forget_everybody();
                        pending.everybody_forgotten();
                        let taken: HashMap<_, _> = pending.take().into_iter().collect();
                        if !everybody {
                            prop_assert_eq!(&taken, &model);
                        }
                        for (which, change) in model.drain() {
                            // A forget is written, or everybody is forgotten.
                            prop_assert!(change != FORGET || everybody || taken.get(&which) == Some(&FORGET));
                        }
                        everybody = false;
                    }
                    Step::DropPut(key) => {
                        pending.drop_put(Family::Verdicts, &which(key).1);
                        if model.get(&which(key)).is_some_and(|change| *change != FORGET) {
                            model.remove(&which(key));
                        }
                    }
                    Step::DropPeople => {
                        pending.drop_user_puts();
                        model.retain(|_, change| *change == FORGET);
                    }
                }
                everybody |= pending.must_forget_everybody();
                let bytes: usize =
                    pending.changes.iter().map(|(which, change)| change.bytes() + which.1.len()).sum();
                prop_assert_eq!(pending.bytes, bytes);
                prop_assert!(bytes <= 2 * LIMIT);
            }
        }
    }

    #[test]
    fn what_arrived_while_a_write_failed_is_newer_than_what_comes_back() {
        let mut pending = Pending::new(LIMIT);
        pending.add(which(1), put(10));
        pending.add(which(2), put(20));
        let failed = pending.take();
        pending.add(which(1), FORGET);
        assert_eq!(pending.restore(failed), 0);
        let mut taken = pending.take();
        taken.sort_by(|one, other| one.0.1.cmp(&other.0.1));
        assert_eq!(taken, [(which(1), FORGET), (which(2), put(20))]);
        assert!(pending.take().is_empty());
    }

    #[test]
    fn what_is_to_be_forgotten_counts_as_forgotten_until_that_is_done() {
        let mut pending = Pending::new(LIMIT);
        let forgets = |pending: &Pending, key: u8| pending.is_forgetting(Family::Verdicts, &which(key).1);
        pending.add(which(1), FORGET);
        pending.add(which(2), put(10));
        assert!(forgets(&pending, 1) && !forgets(&pending, 2));
        let failed = pending.take();
        assert!(forgets(&pending, 1), "it is on its way");
        pending.restore(failed);
        pending.written();
        assert!(forgets(&pending, 1), "it waits again");
        pending.take();
        pending.written();
        assert!(!forgets(&pending, 1));
        pending.forget_everybody();
        assert!(forgets(&pending, 2) && !pending.is_forgetting(Family::Keys, b"issuer"));
    }

    #[test]
    fn a_put_is_turned_away_when_there_is_no_room_and_a_smaller_one_is_not() {
        let mut pending = Pending::new(LIMIT);
        assert!(pending.add(which(1), put(LIMIT - 400)));
        assert!(!pending.add(which(2), put(400)));
        assert!(pending.add(which(2), put(10)));
        assert!(pending.add(which(1), put(100)), "what is replaced makes room");
        assert!(pending.add(which(3), put(400)));
    }
}
