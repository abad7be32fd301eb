//! `[policy]`: rules for every issuer.

use std::time::Duration;

use super::section::Section;
use super::value::{self, DAY, HOUR, SECOND};
use crate::tiers::table::TierTable;
use crate::verifier::settings::PolicySettings;

impl PolicySettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        Self {
            leeway: section.value("leeway", 30 * SECOND, value::duration(Duration::ZERO, 120 * SECOND)),
            negative_ttl: section.value("negative_ttl", 60 * SECOND, value::duration(Duration::ZERO, HOUR)),
            expired_grace: section.value(
                "expired_grace",
                Duration::ZERO,
                value::duration(Duration::ZERO, DAY),
            ),
            verdict_ceiling: section.value("verdict_ceiling", "emergency".to_owned(), value::text),
            require_verified_email: section.value("require_verified_email", false, value::boolean),
        }
    }

    /// Reports a ceiling that is not a tier.
    pub(super) fn check_tiers(&self, tiers: &TierTable, root: &Section<'_>) {
        if tiers.find(&self.verdict_ceiling).is_none() && !root.has_problem("tier") {
            let names: Vec<&str> = tiers.iter().map(|(_, row)| row.name.as_str()).collect();
            root.report(
                "policy.verdict_ceiling",
                &*self.verdict_ceiling,
                format!("one of {}", names.join(", ")),
            );
        }
    }
}
