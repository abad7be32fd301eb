//! The breaker's thresholds.

use std::time::Duration;

/// No duration in the settings is longer than this, so that arithmetic on them cannot overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The breaker's thresholds. [`Breaker::new`](super::Breaker::new) brings values out of range into range.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// How far back results count (default 30 s).
    pub window: Duration,
    /// How many calls must have ended within the window before their rates say anything; while there are
    /// fewer, this many failures in a row open the breaker (default 10; at least 1).
    pub minimum_calls: u32,
    /// The share of failed calls that opens the breaker (default 0.5; more than 0, at most 1).
    pub failure_rate: f64,
    /// A call that takes this long or longer is slow (default 2 s).
    pub slow_call: Duration,
    /// The share of slow calls that opens the breaker (default 0.5; more than 0, at most 1).
    pub slow_rate: f64,
    /// How long the first opening lasts (default 5 s).
    pub open_for: Duration,
    /// The longest opening that the breaker chooses by itself (default 5 min; at least `open_for`).
    pub open_for_max: Duration,
    /// How many probes in a row must succeed to close the breaker (default 3; at least 1).
    pub probes: u32,
    /// After this time a probe that was neither recorded nor cancelled no longer counts (default 10 s). It
    /// must be longer than a call can take, else two probes may be under way.
    pub probe_lease: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            minimum_calls: 10,
            failure_rate: 0.5,
            slow_call: Duration::from_secs(2),
            slow_rate: 0.5,
            open_for: Duration::from_secs(5),
            open_for_max: Duration::from_secs(5 * 60),
            probes: 3,
            probe_lease: Duration::from_secs(10),
        }
    }
}

impl BreakerSettings {
    /// The same settings with each value brought into its range. A rate outside 0 to 1 becomes the default,
    /// because a breaker that never opens is the worse mistake.
    pub(super) fn in_range(self) -> Self {
        let share = |rate: f64, otherwise: f64| if rate > 0.0 && rate <= 1.0 { rate } else { otherwise };
        let defaults = Self::default();
        let open_for = self.open_for.clamp(Duration::from_millis(1), LONGEST);
        Self {
            window: self.window.min(LONGEST),
            minimum_calls: self.minimum_calls.max(1),
            failure_rate: share(self.failure_rate, defaults.failure_rate),
            slow_call: self.slow_call,
            slow_rate: share(self.slow_rate, defaults.slow_rate),
            open_for,
            open_for_max: self.open_for_max.clamp(open_for, LONGEST),
            probes: self.probes.max(1),
            probe_lease: self.probe_lease.clamp(Duration::from_millis(1), LONGEST),
        }
    }
}
