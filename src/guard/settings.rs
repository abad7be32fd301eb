//! The settings of one guard.

use super::breaker::BreakerSettings;
use super::budget::BudgetSettings;
use super::subject_backoff::SubjectBackoffSettings;

/// The settings of one guard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardSettings {
    /// When calls are stopped because the endpoint fails.
    pub breaker: BreakerSettings,
    /// How many calls may be made.
    pub budget: BudgetSettings,
    /// When calls about one subject pause.
    pub subject_backoff: SubjectBackoffSettings,
}
