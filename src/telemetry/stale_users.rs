//! How many users are served stale, and when the first of them can be served no longer. Pure.
//!
//! A user counts for five to ten minutes after each stale answer, and no longer once the issuer has confirmed
//! the record. Stale answers stay in memory for at most five minutes, so a user who keeps coming keeps
//! counting. The window has two halves. The older half is dropped as a whole, so no scan is needed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::clock::{Generations, Ticks, Timestamp};

/// Half of the window in which a user counts.
const HALF: Duration = Duration::from_secs(5 * 60);

/// How many users are counted in each half. They take about 2 MB.
const MAX_USERS: usize = 100_000;

/// A user: the issuer and the subject.
pub type User<'u> = (&'u str, &'u str);

/// The users who were served stale in the last ten minutes. It keeps hashes of them, not names.
#[derive(Default)]
pub struct StaleUsers {
    hasher: RandomState,
    /// The tiers of all configurations since the start; the position is the number of a tier.
    tiers: Vec<String>,
    halves: Generations<Half>,
}

/// The users whose last stale answer was in one half of the window.
#[derive(Default)]
struct Half {
    tier_of: HashMap<u64, usize>,
    /// How many users by the number of their tier.
    counts: Vec<u64>,
    first_end: Option<Timestamp>,
}

impl StaleUsers {
    /// Counts a user who was served from `tier` because the issuer could not be asked. The record can be
    /// served until `end`.
    pub fn served(&mut self, user: User<'_>, tier: &str, end: Timestamp, now: Ticks) {
        self.halves.rotate(now, HALF);
        let user = self.removed(user);
        let tier = self.number_of(tier);
        self.halves.younger.insert(user, tier, end);
    }

    /// Stops counting a user whose record the issuer has confirmed.
    pub fn confirmed(&mut self, user: User<'_>) {
        if !self.halves.younger.tier_of.is_empty() || !self.halves.older.tier_of.is_empty() {
            self.removed(user);
        }
    }

    /// Each tier with the number of its users. At most 100,000 users are counted in five minutes.
    pub fn by_tier(&mut self, now: Ticks) -> impl Iterator<Item = (&str, u64)> {
        self.halves.rotate(now, HALF);
        let (younger, older) = (&self.halves.younger, &self.halves.older);
        let tiers = self.tiers.iter().enumerate();
        tiers.map(|(tier, name)| (name.as_str(), younger.count(tier) + older.count(tier)))
    }

    /// When the first of these users can be served no longer; `None` if nobody is served stale.
    pub fn first_end(&mut self, now: Ticks) -> Option<Timestamp> {
        self.halves.rotate(now, HALF);
        [self.halves.younger.first_end, self.halves.older.first_end].into_iter().flatten().min()
    }

    /// Counts a tier from now on, also while it has no users.
    pub fn number_of(&mut self, tier: &str) -> usize {
        self.tiers.iter().position(|known| known == tier).unwrap_or_else(|| {
            self.tiers.push(tier.to_owned());
            self.tiers.len() - 1
        })
    }

    /// Removes a user, and returns its hash.
    fn removed(&mut self, user: User<'_>) -> u64 {
        let user = self.hasher.hash_one(user);
        self.halves.younger.remove(user);
        self.halves.older.remove(user);
        user
    }
}

impl Half {
    fn insert(&mut self, user: u64, tier: usize, end: Timestamp) {
        self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
        if self.tier_of.len() < MAX_USERS {
            self.tier_of.insert(user, tier);
            self.counts.resize(self.counts.len().max(tier + 1), 0);
            self.counts.iter_mut().skip(tier).take(1).for_each(|count| *count += 1);
        }
    }

    fn remove(&mut self, user: u64) {
        let Some(tier) = self.tier_of.remove(&user) else { return };
        self.counts.iter_mut().skip(tier).take(1).for_each(|count| *count -= 1);
        // It is not known whose end was the first. If no user is left, there is no first end.
        if self.tier_of.is_empty() {
            self.first_end = None;
        }
    }

    fn count(&self, tier: usize) -> u64 {
        self.counts.get(tier).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: User<'_> = ("https://t/", "ada");
    const BOB: User<'_> = ("https://t/", "bob");

    fn at(secs: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_secs(secs))
    }

    fn seen(users: &mut StaleUsers, secs: u64) -> (Vec<(String, u64)>, Option<u64>) {
        let first = users.first_end(at(secs)).map(Timestamp::as_secs);
        let counts = users.by_tier(at(secs)).filter(|(_, count)| *count > 0);
        (counts.map(|(tier, count)| (tier.to_owned(), count)).collect(), first)
    }

    fn counts<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
        counts.map(|(tier, count)| (tier.to_owned(), count)).to_vec()
    }

    #[test]
    fn a_user_counts_once_in_the_tier_of_the_last_answer_and_for_ten_minutes_at_most() {
        let mut users = StaleUsers::default();
        let end = Timestamp::from_secs;
        users.served(ADA, "emergency", end(900), at(1_000));
        users.served(BOB, "emergency", end(800), at(1_000));
        users.served(ADA, "emergency", end(900), at(1_100));
        assert_eq!(seen(&mut users, 1_100), (counts([("emergency", 2)]), Some(800)));
        users.served(ADA, "ultra-backup", end(900), at(1_301));
        assert_eq!(seen(&mut users, 1_301), (counts([("emergency", 1), ("ultra-backup", 1)]), Some(800)));
        // Bob was here last before more than ten minutes.
        assert_eq!(seen(&mut users, 1_602), (counts([("ultra-backup", 1)]), Some(900)));
        assert_eq!(seen(&mut users, 3_000), (vec![], None));
        assert_eq!(users.by_tier(at(3_000)).count(), 2, "a tier is shown also without users");
    }

    #[test]
    fn whoever_the_issuer_confirms_counts_no_longer() {
        let mut users = StaleUsers::default();
        users.confirmed(ADA);
        users.served(ADA, "emergency", Timestamp::from_secs(900), at(10));
        users.served(BOB, "emergency", Timestamp::from_secs(800), at(301));
        users.confirmed(BOB);
        assert_eq!(seen(&mut users, 301), (counts([("emergency", 1)]), Some(900)));
        users.confirmed(ADA);
        assert_eq!(seen(&mut users, 301), (vec![], None));
    }

    #[test]
    fn memory_is_bounded_and_the_first_end_still_true() {
        let mut users = StaleUsers::default();
        for user in 0..MAX_USERS + 10 {
            let end = Timestamp::from_secs(1_000_000 - user as u64);
            users.served(("https://t/", &user.to_string()), "emergency", end, at(1));
        }
        let first = 1_000_000 - (MAX_USERS as u64 + 9);
        assert_eq!(seen(&mut users, 1), (counts([("emergency", MAX_USERS as u64)]), Some(first)));
    }
}
