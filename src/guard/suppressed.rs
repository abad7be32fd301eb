//! Why a call is not made, and when it is worth asking again.

use std::time::Duration;

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuppressReason {
    /// The breaker is open, or half-open with another call as its probe.
    BreakerOpen,
    /// The budget is spent.
    Budget,
    /// The subject is in back-off.
    SubjectBackoff,
    /// The budget of foreign tokens never seen before is spent, or they pause.
    FirstSeenBudget,
}

impl SuppressReason {
    /// All reasons, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::BreakerOpen, Self::Budget, Self::SubjectBackoff, Self::FirstSeenBudget];

    /// The label used in metrics and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Budget => "budget",
            Self::SubjectBackoff => "subject_backoff",
            Self::FirstSeenBudget => "first_seen_budget",
        }
    }
}

/// The call may not be made now; the result is "cannot tell".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the issuer was not asked ({}); ask again in {} s",
    .reason.as_str(),
    .retry_after.as_secs_f64().ceil()
)]
pub struct Suppressed {
    /// Why.
    pub reason: SuppressReason,
    /// When it is worth asking again.
    pub retry_after: Duration,
}
