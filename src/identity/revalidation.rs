//! When a record is revalidated in the background, and how many records at once.
//!
//! Users who arrive at nine have records whose fresh tier ends at one o'clock, on every instance of a fleet.
//! If each record were revalidated as soon as its fresh tier ended, all of them would be revalidated at once.
//! So each record has its own point in the first part ([`SPREAD`]) of the ages at which records are
//! revalidated. Until that point it answers without revalidation.
//!
//! **The point is drawn once**, from the record and a random seed of the instance. It is not drawn again at
//! each lookup: a record that is looked up every ten seconds would be revalidated at the first low one of
//! many draws. `verified_at` is part of the draw, so that no record is always the last.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;
use crate::tiers::table::{Role, TierTable};

/// The most revalidations that run at once. A further one is skipped and not queued, because the record is
/// looked up again soon.
const MAX_UNDER_WAY: usize = 8;

/// The divisor of the revalidated ages that gives the range of the points: a quarter, which is two hours of
/// the default eight. This is wide enough to spread the calls of a fleet. It is early enough that the records
/// of most returning users are revalidated before the next tier, which asks the issuer first.
const SPREAD: u32 = 4;

/// A number from 0 to 1 for a record. It is always the same for the same record.
type Draw = Box<dyn Fn(&[u8; 32], Timestamp) -> f64 + Send + Sync>;

/// Decides which records may be revalidated now.
pub(super) struct Revalidations {
    points: RevalidationAges,
    draw: Draw,
    permits: Arc<Semaphore>,
}

/// The ages at which records are revalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RevalidationAges {
    first: Duration,
    spread: Duration,
}

impl Revalidations {
    pub(super) fn new(table: &TierTable) -> Self {
        let seed = RandomState::new();
        let draw = move |key: &[u8; 32], at| (seed.hash_one((key, at)) >> 11) as f64 / (1_u64 << 53) as f64;
        Self::with_draw(table, Box::new(draw))
    }

    fn with_draw(table: &TierTable, draw: Draw) -> Self {
        Self { points: RevalidationAges::of(table), draw, permits: Arc::new(Semaphore::new(MAX_UNDER_WAY)) }
    }

    /// A permit to revalidate the record under `key`. Hold it until the revalidation ends. `None` if it is
    /// too early, or if too many revalidations run.
    pub(super) fn try_start(
        &self,
        key: &[u8; 32],
        verified_at: Timestamp,
        now: Timestamp,
    ) -> Option<OwnedSemaphorePermit> {
        let due = now.since(verified_at) >= self.points.at((self.draw)(key, verified_at));
        due.then(|| self.permits.clone().try_acquire_owned().ok()).flatten()
    }
}

impl RevalidationAges {
    fn of(table: &TierTable) -> Self {
        let end_of = |role| table.iter().filter(|(_, row)| row.role <= role).map(|(_, row)| row.age).max();
        let first = end_of(Role::Fresh).unwrap_or_default();
        let last = end_of(Role::Revalidate).unwrap_or_default();
        Self { first, spread: last.saturating_sub(first) / SPREAD }
    }

    /// The age for a number from 0 to 1. The number is converted to millionths, so that every value, even
    /// NaN, is safe.
    fn at(self, drawn: f64) -> Duration {
        let millionths = (drawn.clamp(0.0, 1.0) * 1e6) as u32;
        self.first + self.spread / 1_000_000 * millionths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::table::Tier;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: u32) -> [u8; 32] {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// How many of these records may be revalidated at an age. Each permit is released at once.
    fn due(pairs: impl Iterator<Item = (Revalidations, u32)>, age: Duration) -> usize {
        let (from, now) = (Timestamp::EPOCH, Timestamp::EPOCH.after(age));
        pairs
            .filter(|(revalidations, number)| revalidations.try_start(&key(*number), from, now).is_some())
            .count()
    }

    #[test]
    fn the_points_are_the_first_quarter_of_the_revalidated_ages() {
        let points = RevalidationAges::of(&TierTable::default());
        assert_eq!((points.at(0.0), points.at(0.5), points.at(1.0)), (4 * HOUR, 5 * HOUR, 6 * HOUR));
        assert_eq!((points.at(-1.0), points.at(7.0), points.at(f64::NAN)), (4 * HOUR, 6 * HOUR, 4 * HOUR));
        let row = |name: &str, hours, role| Tier { name: name.to_owned(), age: hours * HOUR, role };
        let only_fresh = TierTable::new(vec![row("a", 1, Role::Fresh), row("b", 3, Role::Outage)]).unwrap();
        assert_eq!(
            RevalidationAges::of(&only_fresh),
            RevalidationAges { first: HOUR, spread: Duration::ZERO }
        );
        let never_fresh = TierTable::new(vec![row("a", 4, Role::Revalidate)]).unwrap();
        assert_eq!(
            RevalidationAges::of(&never_fresh),
            RevalidationAges { first: Duration::ZERO, spread: HOUR }
        );
    }

    #[test]
    fn a_record_is_revalidated_from_its_point_on_and_not_a_moment_earlier() {
        let draw: Draw = Box::new(|key, _| f64::from(key[0]) / 4.0);
        let revalidations = Revalidations::with_draw(&TierTable::default(), draw);
        let mut key = [0; 32];
        for quarter in 0..=4 {
            key[0] = quarter;
            let point = Timestamp::EPOCH.after(4 * HOUR + u32::from(quarter) * HOUR / 2);
            let early = point.before(Duration::from_millis(1));
            assert!(revalidations.try_start(&key, Timestamp::EPOCH, early).is_none(), "{quarter}");
            assert!(revalidations.try_start(&key, Timestamp::EPOCH, point).is_some(), "{quarter}");
        }
    }

    #[test]
    fn neither_the_records_of_one_instance_nor_the_instances_of_a_fleet_march_in_step() {
        let table = TierTable::default();
        let same_record = || (0..1000).map(|_| (Revalidations::new(&table), 7));
        // Five standard deviations of 1,000 coin tosses are 80.
        assert!((420..=580).contains(&due(same_record(), 5 * HOUR)));
        assert_eq!((due(same_record(), 4 * HOUR - HOUR / 60), due(same_record(), 6 * HOUR)), (0, 1000));
        let one = Revalidations::new(&table);
        let now = Timestamp::EPOCH.after(5 * HOUR);
        let given = (0..1000).filter(|number| one.try_start(&key(*number), Timestamp::EPOCH, now).is_some());
        assert!((420..=580).contains(&given.count()));
    }

    #[test]
    fn the_draw_is_not_repeated_at_each_look_but_for_each_verification() {
        let revalidations = Revalidations::new(&TierTable::default());
        let try_start =
            |number, at: Timestamp| revalidations.try_start(&key(number), at, at.after(5 * HOUR)).is_some();
        for number in 0..100 {
            let first = try_start(number, Timestamp::EPOCH);
            assert!((0..100).all(|_| try_start(number, Timestamp::EPOCH) == first), "{number}");
        }
        let draws: Vec<bool> = (0..100).map(|second| try_start(1, Timestamp::from_secs(second))).collect();
        assert!(draws.contains(&true) && draws.contains(&false));
    }

    #[test]
    fn so_many_may_be_under_way_and_no_more() {
        let revalidations = Revalidations::new(&TierTable::default());
        let try_start = |number| {
            revalidations.try_start(&key(number), Timestamp::EPOCH, Timestamp::EPOCH.after(7 * HOUR))
        };
        let mut permits: Vec<_> = (0..20).filter_map(try_start).collect();
        assert_eq!(permits.len(), MAX_UNDER_WAY);
        permits.pop();
        assert!(try_start(0).is_some());
    }
}
