//! The share of one budget that each instance of a fleet may use.
//!
//! A fleet is one client of the issuer, so its instances share rate and burst of each budget. Each instance
//! tells the others how much it needs ([`Demand`]), and each computes its own share from what it was told
//! ([`fair_share`]). There is no coordinator: the shares of instances that know the same add up to one.
//!
//! **An idle instance holds little.** A quarter of the budget is divided evenly, so that each instance can
//! make a call at any time. The rest goes to those who need it, and nobody gets more than it needs while
//! another one lacks something (max-min fairness).

use std::time::Duration;

use crate::clock::Ticks;

/// The part of a budget that is divided evenly.
const EVEN_PART: f64 = 0.25;

/// How fast old calls stop to count.
const MEMORY: Duration = Duration::from_secs(2);

/// By how much demand must have risen since the others were told, to tell them before it is time.
const RISE: f64 = 1.25;

/// The share of an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The part of the rate, from 0 to 1.
    pub part: f64,
    /// How many instances share the budget, this one included.
    pub instances: usize,
}

impl Share {
    /// The whole budget.
    pub const WHOLE: Self = Self { part: 1.0, instances: 1 };

    /// The even share of one of several instances.
    #[must_use]
    pub fn even(instances: usize) -> Self {
        Self { part: 1.0 / instances.max(1) as f64, instances }
    }

    /// The part of a burst: one call for each instance, and the rest as the rate is divided. So an idle
    /// instance can make a call at once.
    #[must_use]
    pub fn of_burst(self, burst: u32) -> f64 {
        1.0 + (f64::from(burst) - self.instances as f64).max(0.0) * self.part
    }
}

/// How many calls an instance wants to make: those that were admitted, wait, or were refused for the budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Each call counts one, and less as time passes. At a steady rate this is the rate times [`MEMORY`].
    calls: f64,
    at: Ticks,
    told: f64,
}

impl Demand {
    /// A call is wanted.
    pub fn count(&mut self, now: Ticks) {
        self.calls = self.calls_at(now) + 1.0;
        self.at = now;
    }

    /// The demand as a share of a budget of `rate` calls a second: 1 is all of it, or more.
    #[must_use]
    pub fn of(&self, rate: f64, now: Ticks) -> f64 {
        let share = self.calls_at(now) / MEMORY.as_secs_f64() / rate;
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// The others are told of this demand.
    pub fn tell(&mut self, rate: f64, now: Ticks) -> f64 {
        self.told = self.of(rate, now);
        self.told
    }

    /// Whether it is so much larger than the others know that they should be told at once.
    #[must_use]
    pub fn has_risen(&self, rate: f64, now: Ticks) -> bool {
        self.of(rate, now) > self.told * RISE
    }

    fn calls_at(&self, now: Ticks) -> f64 {
        self.calls * (-now.since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

/// The share of an instance with the demand `own`, beside others with these demands; each is a share of the
/// budget, from 0 to 1.
#[must_use]
pub fn fair_share(own: f64, others: impl IntoIterator<Item = f64>) -> Share {
    let in_range = |demand: f64| if demand.is_nan() { 0.0 } else { demand.clamp(0.0, 1.0) };
    let mut demands: Vec<f64> = others.into_iter().map(in_range).collect();
    let own = in_range(own);
    demands.push(own);
    demands.sort_by(f64::total_cmp);
    let count = demands.len();
    let instances = count as f64;
    let even = EVEN_PART / instances;
    let lacks = |demand: f64| (demand - even).max(0.0);
    // From the smallest demand on, each gets what it lacks, or an even part of what is left.
    let (mut left, mut to_serve) = (1.0 - EVEN_PART, instances);
    let mut gets = 0.0;
    for demand in demands {
        let part = lacks(demand).min(left / to_serve);
        if demand == own {
            gets = part;
        }
        left -= part;
        to_serve -= 1.0;
    }
    Share { part: even + gets + left / instances, instances: count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(demands: &[f64]) -> Vec<f64> {
        let others = |me| (0..demands.len()).filter(move |other| *other != me).map(|other| demands[other]);
        (0..demands.len()).map(|me| fair_share(demands[me], others(me)).part).collect()
    }

    #[test]
    fn an_instance_alone_has_all_of_it_and_a_busy_one_nearly_all() {
        assert_eq!(shares(&[0.0]), [1.0]);
        assert_eq!(shares(&[1.0]), [1.0]);
        assert_eq!(shares(&[0.0; 4]), [0.25; 4]);
        assert_eq!(shares(&[1.0; 4]), [0.25; 4]);
        assert_eq!(shares(&[1.0, 0.0, 0.0, 0.0]), [0.8125, 0.0625, 0.0625, 0.0625]);
        let [busy, other, ..] = shares(&[1.0, 0.125])[..] else { panic!() };
        assert_eq!((busy, other), (0.875, 0.125));
    }

    #[test]
    fn a_burst_is_divided_so_that_each_can_make_a_call() {
        assert_eq!(Share::WHOLE.of_burst(20), 20.0);
        assert_eq!(Share::even(4).of_burst(20), 5.0);
        assert_eq!(Share { part: 0.25, instances: 4 }.of_burst(20), 5.0);
        assert_eq!(Share { part: 0.0, instances: 4 }.of_burst(20), 1.0);
        // More instances than calls.
        assert_eq!(Share::even(40).of_burst(20), 1.0);
    }

    #[test]
    fn a_demand_fades() {
        let at = |seconds| Ticks::from_elapsed(Duration::from_secs(seconds));
        let mut demand = Demand::default();
        (0..20).for_each(|_| demand.count(at(0)));
        assert_eq!(demand.of(20.0, at(0)), 0.5);
        assert!(demand.has_risen(20.0, at(0)));
        assert_eq!(demand.tell(20.0, at(0)), 0.5);
        assert!(!demand.has_risen(20.0, at(0)));
        assert!((0.18..0.19).contains(&demand.of(20.0, at(2))));
        assert!(demand.of(20.0, at(60)) < 1e-9);
    }

    #[test]
    fn a_steady_demand_is_told_as_its_rate() {
        let mut demand = Demand::default();
        for tenth in 0..200 {
            demand.count(Ticks::from_elapsed(Duration::from_millis(100 * tenth)));
        }
        let told = demand.tell(20.0, Ticks::from_elapsed(Duration::from_secs(20)));
        assert!((0.45..0.55).contains(&told), "{told}");
    }

    proptest! {
        #[test]
        fn shares_add_up_to_one_and_nobody_lacks_what_another_has_to_spare(
            demands in prop::collection::vec(prop_oneof![0.0..=1.0, Just(0.0), Just(1.0)], 1..40),
        ) {
            let shares = shares(&demands);
            let sum: f64 = shares.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
            let instances = demands.len() as f64;
            for (share, demand) in shares.iter().zip(&demands) {
                prop_assert!(*share >= EVEN_PART / instances);
                prop_assert!(*share >= demand.min(1.0 / instances) - 1e-9, "{share} for {demand}");
            }
            let even = EVEN_PART / instances;
            for (one, wants) in shares.iter().zip(&demands) {
                for (other, has) in shares.iter().zip(&demands) {
                    let lacks = *one < wants - 1e-9;
                    let spares = *other > has.max(even) + 1e-9;
                    prop_assert!(!(lacks && spares), "{one} of {wants} beside {other} of {has}");
                    prop_assert!(!lacks || *other <= one + 1e-9, "{one} of {wants} beside {other}");
                }
            }
        }

        #[test]
        fn no_number_breaks_it(own: f64, others: Vec<f64>) {
            let instances = (others.len() + 1) as f64;
            let share = fair_share(own, others).part;
            prop_assert!(share >= EVEN_PART / instances && share <= 1.0 + 1e-9, "{share}");
        }
    }
}
