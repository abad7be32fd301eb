//! `[policy]`: rules that hold for every issuer.

use std::time::Duration;

use super::section::Section;
use super::{DAY, value};
use crate::tiers::table::TierTable;

/// `[policy]`.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `leeway`: tolerated clock skew for `exp`, `nbf`, `iat`. Default 30 s, at most 120 s.
    pub leeway: Duration,
    /// `negative_ttl`: how long a definitive no is remembered. Default 60 s.
    pub negative_ttl: Duration,
    /// `expired_grace`: how long past its life a token is admitted that expired while the breaker was already open.
    /// Default 0, which switches it off.
    pub expired_grace: Duration,
    /// `verdict_ceiling`: the oldest tier whose verdict on a foreign token may be served. Default `emergency`.
    pub verdict_ceiling: String,
    /// `require_verified_email`: an email counts only with `email_verified: true`. Default false.
    pub require_verified_email: bool,
}

impl PolicySettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            leeway: section.value(
                "leeway",
                Duration::from_secs(30),
                value::duration(Duration::ZERO, Duration::from_secs(120)),
            ),
            negative_ttl: section.value(
                "negative_ttl",
                Duration::from_secs(60),
                value::duration(Duration::ZERO, Duration::from_secs(3600)),
            ),
            expired_grace: section.value(
                "expired_grace",
                Duration::ZERO,
                value::duration(Duration::ZERO, DAY),
            ),
            verdict_ceiling: section.value("verdict_ceiling", "emergency".to_owned(), value::text),
            require_verified_email: section.value("require_verified_email", false, value::boolean),
        };
        section.finish();
        settings
    }

    /// Complains of a ceiling that is no tier.
    pub(super) fn check_tiers(&self, tiers: &TierTable, root: &Section<'_>) {
        if tiers.find(&self.verdict_ceiling).is_none() && !root.is_flawed("tier") {
            let names: Vec<&str> = tiers.iter().map(|(_, row)| row.name.as_str()).collect();
            root.complain(
                "policy.verdict_ceiling",
                &*self.verdict_ceiling,
                format!("one of {}", names.join(", ")),
            );
        }
    }
}
