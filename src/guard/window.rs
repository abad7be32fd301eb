//! A sliding window of call results, by time.
//!
//! The window is ten slices of equal width. A slice knows its own absolute number (time divided by width), so
//! nothing has to be moved or cleared when time passes: a slice whose number has fallen out of the window is
//! simply not counted, and is overwritten when its place is needed.
//!
//! The counts are exact. A moving average that weighs a result by the time since the last one would let a
//! tight burst of failures weigh next to nothing, and so hide an outage exactly when the load is high.

use std::time::Duration;

use crate::clock::Ticks;

/// Ten slices let old results leave the window a tenth at a time, and are cheap to sum at every call.
const SLICES: usize = 10;

/// The narrowest slice, so that the division by it is always defined.
const NARROWEST: Duration = Duration::from_millis(1);

/// The results of the calls within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls that ended.
    pub calls: u32,
    /// Failed calls.
    pub failures: u32,
    /// Slow calls, failed or not.
    pub slow: u32,
}

impl Counts {
    /// The share of failed calls, 0 to 1; 0 if there were no calls.
    #[must_use]
    pub fn failure_rate(self) -> f64 {
        self.share(self.failures)
    }

    /// The share of slow calls, 0 to 1; 0 if there were no calls.
    #[must_use]
    pub fn slow_rate(self) -> f64 {
        self.share(self.slow)
    }

    fn share(self, part: u32) -> f64 {
        if self.calls == 0 { 0.0 } else { f64::from(part) / f64::from(self.calls) }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// The last `span` of call results: feed every result to `record`, ask `counts`. The newest slice is still
/// filling, so the counts reach back between nine tenths of the span and all of it.
#[derive(Clone, Debug)]
pub struct Window {
    width: Duration,
    newest: u64,
    slices: [Slice; SLICES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    number: u64,
    counts: Counts,
}

impl Window {
    /// An empty window over `span` (at least 10 ms).
    #[must_use]
    pub fn new(span: Duration) -> Self {
        let width = (span / SLICES as u32).max(NARROWEST);
        Self { width, newest: 0, slices: [Slice::default(); SLICES] }
    }

    /// Records one call that ended at `now`. A `now` before the latest one counts as the latest.
    pub fn record(&mut self, failed: bool, slow: bool, now: Ticks) {
        self.newest = self.newest.max(self.number_at(now));
        let slice = &mut self.slices[(self.newest % SLICES as u64) as usize];
        if slice.number != self.newest {
            *slice = Slice { number: self.newest, counts: Counts::default() };
        }
        slice.counts.add(Counts { calls: 1, failures: u32::from(failed), slow: u32::from(slow) });
    }

    /// The results of the calls within the window, as seen at `now`.
    #[must_use]
    pub fn counts(&self, now: Ticks) -> Counts {
        let newest = self.newest.max(self.number_at(now));
        let mut sum = Counts::default();
        for slice in self.slices.iter().filter(|slice| newest - slice.number < SLICES as u64) {
            sum.add(slice.counts);
        }
        sum
    }

    /// Forgets all results.
    pub fn clear(&mut self) {
        self.slices = [Slice::default(); SLICES];
    }

    fn number_at(&self, now: Ticks) -> u64 {
        let elapsed = now.since(Ticks::ZERO).as_micros() / self.width.as_micros();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Ticks {
        Ticks::from_elapsed(Duration::from_millis(millis))
    }

    #[test]
    fn results_leave_the_window_when_it_has_passed() {
        let mut window = Window::new(Duration::from_secs(10));
        for _ in 0..5 {
            window.record(true, false, at(500));
        }
        assert_eq!(window.counts(at(9_999)).failures, 5);
        assert_eq!(window.counts(at(10_000)), Counts::default());
        window.record(false, true, at(11_000));
        assert_eq!(window.counts(at(11_000)), Counts { calls: 1, failures: 0, slow: 1 });
    }

    #[test]
    fn a_burst_weighs_as_much_as_the_same_calls_spread_out() {
        let mut burst = Window::new(Duration::from_secs(10));
        let mut spread = burst.clone();
        for call in 0..8 {
            burst.record(call % 2 == 0, false, at(8_000));
            spread.record(call % 2 == 0, false, at(1_000 * call));
        }
        assert_eq!(burst.counts(at(8_000)), spread.counts(at(8_000)));
        assert!((burst.counts(at(8_000)).failure_rate() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_span_of_nothing_is_no_division_by_zero() {
        let mut window = Window::new(Duration::ZERO);
        window.record(true, true, at(3));
        assert_eq!(window.counts(at(3)).calls, 1);
        assert_eq!(window.counts(at(13)).calls, 0);
    }

    proptest! {
        /// A naive model keeps every call for ever and counts those of the last ten slices.
        #[test]
        fn the_window_counts_what_a_naive_list_counts(
            calls in prop::collection::vec((0_u64..3_000, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let mut window = Window::new(Duration::from_secs(10));
            let mut list = Vec::new();
            let mut now = 0;
            for (step, failed, slow) in calls {
                now += step;
                window.record(failed, slow, at(now));
                list.push((now / 1_000, failed, slow));
                let seen: Vec<_> = list.iter().filter(|(slice, ..)| slice + 10 > now / 1_000).collect();
                let expected = Counts {
                    calls: seen.len() as u32,
                    failures: seen.iter().filter(|(_, failed, _)| *failed).count() as u32,
                    slow: seen.iter().filter(|(.., slow)| *slow).count() as u32,
                };
                prop_assert_eq!(window.counts(at(now)), expected);
            }
        }
    }
}
