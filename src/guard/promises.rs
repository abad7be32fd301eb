//! Promises: a refused caller is told when to come back (`Retry-After`), and then goes before callers that
//! come for the first time.
//!
//! Without promises, `Retry-After` is only an estimate: newcomers take the capacity that was meant for
//! somebody else, who is then refused again and again. In a flood of garbage tokens, an honest new user is
//! one of thousands who ask at the same moment. Garbage does not come back. The honest user does, and is
//! admitted.
//!
//! **No capacity stays unused for long.** A promise is a place in the order, not a reservation. Newcomers
//! wait behind promised callers ([`Promises::ahead`]), but are admitted once half of the bucket has grown
//! back unused. A promise expires if its caller does not come.
//!
//! A flood that sends each of its tokens a second time, at the right time, gains what honest users gain. It
//! does no more harm than without promises.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::budget::Priority;
use super::caller::Caller;
use super::subject_backoff::SubjectKey;
use crate::clock::Ticks;

/// How long a promise is kept after its time. Jitter adds up to 2 s, rounding to whole seconds adds 1 s, and
/// the request takes time to arrive.
const GRACE: Duration = Duration::from_secs(5);

/// The most promises. Further callers are told a time without a promise. A flood of 5,000 a second takes
/// about half of this.
const MAX_PROMISES: usize = 65_536;

/// The promises of one endpoint's budget.
#[derive(Debug, Default)]
pub(super) struct Promises {
    by_key: HashMap<SubjectKey, Promise>,
    /// In the order in which they expire.
    lapsing: BTreeSet<(Ticks, SubjectKey)>,
    /// How many belong to foreground calls, and how many to first-seen tokens.
    counts: [usize; 2],
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    due: Ticks,
    lapses: Ticks,
    kind: usize,
}

impl Promises {
    /// How many callers go before this one: none if it comes back when it was told to.
    pub fn ahead(&mut self, caller: Caller, now: Ticks) -> u32 {
        while let Some((lapses, key)) = self.lapsing.first().copied().filter(|(lapses, _)| *lapses <= now) {
            self.lapsing.remove(&(lapses, key));
            self.forget(key);
        }
        let Some(kind) = kind(caller.priority) else { return 0 };
        match self.of(caller) {
            Some(promise) if promise.due <= now => 0,
            _ => u32::try_from(self.counts[kind]).unwrap_or(u32::MAX),
        }
    }

    /// Gives a promise to a refused caller that can be admitted in `room_in`. Returns the wait to tell it:
    /// `room_in`, or what remains of an earlier promise.
    pub fn give(&mut self, caller: Caller, room_in: Duration, now: Ticks) -> Duration {
        let (Some(key), Some(kind)) = (caller.subject, kind(caller.priority)) else { return room_in };
        match self.of(caller) {
            Some(promise) if promise.due > now => return promise.due.since(now),
            Some(_) => self.redeem(caller),
            None if self.by_key.len() >= MAX_PROMISES => return room_in,
            None => {}
        }
        let due = now.after(room_in);
        let lapses = due.after(GRACE);
        self.by_key.insert(key, Promise { due, lapses, kind });
        self.lapsing.insert((lapses, key));
        self.counts[kind] += 1;
        room_in
    }

    /// Removes the promise of a caller that was admitted.
    pub fn redeem(&mut self, caller: Caller) {
        if let (Some(key), Some(promise)) = (caller.subject, self.of(caller)) {
            self.lapsing.remove(&(promise.lapses, key));
            self.forget(key);
        }
    }

    fn of(&self, caller: Caller) -> Option<Promise> {
        self.by_key.get(&caller.subject?).copied()
    }

    fn forget(&mut self, key: SubjectKey) {
        if let Some(promise) = self.by_key.remove(&key) {
            self.counts[promise.kind] -= 1;
        }
    }
}

/// The index in `counts`. Background calls get no promise.
fn kind(priority: Priority) -> Option<usize> {
    match priority {
        Priority::Foreground => Some(0),
        Priority::FirstSeen => Some(1),
        Priority::Background => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(SECOND * u32::try_from(secs).unwrap())
    }

    fn caller(number: u8) -> Caller {
        Caller { priority: Priority::Foreground, subject: Some(SubjectKey::from_digest([number; 32])) }
    }

    #[test]
    fn who_comes_back_in_time_has_nobody_ahead_and_who_comes_early_keeps_its_time() {
        let mut promises = Promises::default();
        assert_eq!(promises.ahead(caller(1), at(0)), 0);
        assert_eq!(promises.give(caller(1), SECOND * 10, at(0)), SECOND * 10);
        assert_eq!(promises.give(caller(2), SECOND * 11, at(0)), SECOND * 11);
        assert_eq!(promises.ahead(caller(3), at(0)), 2);
        assert_eq!(promises.ahead(caller(1), at(4)), 2, "too early");
        assert_eq!(promises.give(caller(1), SECOND * 30, at(4)), SECOND * 6, "the same time as before");
        assert_eq!(promises.ahead(caller(1), at(10)), 0);
        promises.redeem(caller(1));
        assert_eq!(promises.ahead(caller(3), at(10)), 1);
        let other = Caller { priority: Priority::FirstSeen, ..caller(3) };
        assert_eq!(promises.ahead(other, at(10)), 0, "each kind has an order of its own");
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_no_longer() {
        let mut promises = Promises::default();
        promises.give(caller(1), SECOND * 10, at(0));
        promises.give(caller(2), SECOND * 2, at(0));
        assert_eq!(promises.ahead(caller(3), at(6)), 2);
        assert_eq!(promises.ahead(caller(3), at(7)), 1);
        assert_eq!(promises.ahead(caller(3), at(14)), 1);
        assert_eq!(promises.ahead(caller(3), at(15)), 0);
        assert!(promises.by_key.is_empty() && promises.lapsing.is_empty());
    }

    #[test]
    fn a_flood_takes_no_more_memory_than_it_may() {
        let mut promises = Promises::default();
        for number in 0..2 * MAX_PROMISES {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            let subject = Some(SubjectKey::from_digest(digest));
            promises.give(Caller { priority: Priority::FirstSeen, subject }, SECOND, at(0));
        }
        assert_eq!(
            (promises.by_key.len(), promises.lapsing.len(), promises.counts),
            (MAX_PROMISES, MAX_PROMISES, [0, MAX_PROMISES])
        );
    }

    #[test]
    fn nobody_is_promised_anything_in_the_background_or_without_a_name() {
        let mut promises = Promises::default();
        promises.give(Caller { priority: Priority::Background, ..caller(1) }, SECOND, at(0));
        promises.give(Caller { subject: None, ..caller(1) }, SECOND, at(0));
        assert_eq!(promises.ahead(caller(2), at(0)), 0);
    }
}
