//! A token bucket that measures tokens in time.
//!
//! One token is the time in which it grows back. So the whole state is one moment: when the bucket is full
//! again. Taking a token moves that moment on by the price of a token, and how long to wait for the next one
//! is a subtraction. Nothing is ever rounded: over any stretch of time at most `burst + rate × time` calls
//! leave, exactly. (The generic cell rate algorithm of ITU-T I.371 is the same arithmetic.)
//!
//! A token may be taken before it has grown back. The caller then waits for it: that is a reservation.

use std::time::Duration;

use crate::clock::Ticks;

/// Rates are clamped to this range: from one call in a thousand seconds to one in a microsecond, the clock's
/// unit.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// A bucket; it starts full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    price: Duration,
    /// The most tokens that it holds.
    size: f64,
    full_at: Ticks,
}

impl Bucket {
    /// A full bucket of `burst` tokens (at least 1), which grow back at `rate` a second.
    pub fn full(rate: f64, burst: u32) -> Self {
        Self { price: price(rate), size: f64::from(burst.max(1)), full_at: Ticks::ZERO }
    }

    /// The time in which one token grows back.
    pub fn price(&self) -> Duration {
        self.price
    }

    /// All its tokens, in time.
    pub fn capacity(&self) -> Duration {
        // In the clock's unit: a wait that is shorter would be over at once, and not be over.
        Duration::from_micros((self.price.as_micros() as f64 * self.size) as u64)
    }

    /// The tokens that it holds at `now`, in time.
    pub fn level(&self, now: Ticks) -> Duration {
        self.capacity().saturating_sub(self.full_at.since(now))
    }

    /// How long until it holds `charge` above `reserve`, after all reservations; zero if it does now. A
    /// charge that is larger than the bucket needs a full bucket.
    pub fn wait(&self, charge: Duration, reserve: Duration, now: Ticks) -> Duration {
        let wanted = reserve.saturating_add(charge).saturating_add(self.full_at.since(now));
        let wait = wanted.saturating_sub(self.capacity().max(charge));
        Duration::from_micros(u64::try_from(wait.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    /// Takes `charge`, even before it has grown back.
    pub fn take(&mut self, charge: Duration, now: Ticks) {
        self.full_at = self.full_at.max(now).after(charge);
    }

    /// Changes the rate and the most tokens that it holds (at least one). It holds, or owes, as many tokens
    /// as before, rounded down to the clock's unit, as far as they fit.
    pub fn resize(&mut self, rate: f64, size: f64, now: Ticks) {
        let (price, size) = (price(rate), size.max(1.0));
        let missing = self.full_at.since(now).as_micros() as f64 / self.price.as_micros() as f64;
        let missing = ((missing + size - self.size).max(0.0) * price.as_micros() as f64).ceil() as u64;
        *self = Self { price, size, full_at: now.after(Duration::from_micros(missing)) };
    }

    /// Returns tokens that were taken and not used.
    pub fn give_back(&mut self, charge: Duration) {
        self.full_at = self.full_at.before(charge);
    }
}

/// The time in which a token grows back at this rate, rounded up to the clock's unit, so that the rate is
/// never exceeded.
fn price(rate: f64) -> Duration {
    let micros = (1_000_000.0 / rate.clamp(*RATES.start(), *RATES.end())).ceil();
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_after_the_wait_gets_a_token_in_a_bucket_of_any_size() {
        for size in [1.0, 1.3, 2.5, 3.000_1, 17.7] {
            let mut bucket = Bucket::full(20.0, 20);
            bucket.resize(7.3, size, Ticks::ZERO);
            (0..50).for_each(|_| bucket.take(bucket.price(), Ticks::ZERO));
            let now = Ticks::ZERO.after(bucket.wait(bucket.price(), Duration::ZERO, Ticks::ZERO));
            assert_eq!(bucket.wait(bucket.price(), Duration::ZERO, now), Duration::ZERO, "{size}");
        }
    }
}
