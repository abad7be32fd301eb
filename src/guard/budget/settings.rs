//! The settings of a budget, and what Auth0's plans allow.

use std::fmt;
use std::time::Duration;

/// How many calls may be made. [`Budget::new`](super::Budget::new) brings values out of range into range.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetSettings {
    /// The Auth0 plan that `rate` and `burst` come from, if they are not set; empty if no plan is set.
    pub plan: &'static str,
    /// Calls a second in the long run (default 4: with the burst this is 260 in any one minute, where Auth0's
    /// smallest plan allows 300 to all programs of the tenant together).
    pub rate: f64,
    /// The highest rate that may be tried, if it is more than `rate` (default none). While calls wait, the
    /// current rate grows by a tenth of `rate` each second. At a 429 of the tenant it is halved, but not
    /// below `rate`. (Additive increase, multiplicative decrease, as TCP does it: RFC 5681 §3.1.)
    pub rate_max: Option<f64>,
    /// Calls that may be made at once after a quiet time (default 20; at least 1).
    pub burst: u32,
    /// The longest time that a call waits for its turn (default 2 s; zero: it is refused at once).
    pub wait: Duration,
    /// The share of the bucket that background calls and distrusted first-seen tokens may use; the rest is
    /// kept for foreground calls (default 0.5; 0 to 1, where 0 refuses them all).
    pub background_share: f64,
    /// The share of rate and burst that first-seen tokens may use however many of them the issuer rejects
    /// (default 0.5; 0 to 1, but always at least one call).
    pub first_seen_share: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        let Plan { name: plan, rate, burst } = Plan::UNKNOWN;
        let wait = Duration::from_secs(2);
        Self { plan, rate, rate_max: None, burst, wait, background_share: 0.5, first_seen_share: 0.5 }
    }
}

impl fmt::Display for BudgetSettings {
    /// The settings in words, and how many new users they admit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, rate, burst, wait, .. } = self;
        let plan = if plan.is_empty() { "no plan set".to_owned() } else { format!("plan {plan}") };
        let wait = humantime::format_duration(*wait);
        write!(
            f,
            "{plan}: {burst} new users at once, then {rate} a second; a call waits for its turn for up to \
             {wait}"
        )
    }
}

/// What an Auth0 plan allows us to spend ("Rate Limit Policy", 2026-08). Each leaves a fifth of the sustained
/// limit, and a part of the burst, to the tenant's other programs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Calls a second in the long run.
    pub rate: f64,
    /// Calls at once after a quiet time.
    pub burst: u32,
}

impl Plan {
    /// The rate and burst if no plan is set.
    pub const UNKNOWN: Self = Self { name: "", rate: 4.0, burst: 20 };

    /// The plans that have a name.
    pub const ALL: [Self; 3] = [
        // 300 at once, 300 a minute.
        Self { name: "free", rate: 4.0, burst: 100 },
        // 25 at once, 25 a second.
        Self { name: "essentials", rate: 20.0, burst: 20 },
        // 100 a second.
        Self { name: "enterprise", rate: 80.0, burst: 80 },
    ];

    /// The plan of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plan| plan.name == name)
    }
}
