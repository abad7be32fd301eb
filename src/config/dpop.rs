//! `[dpop]`: the proofs of tokens that are bound to a key.

use std::time::Duration;

use super::section::Section;
use super::value;
use crate::sender::settings::DpopSettings;

impl DpopSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            proof_age: section.value(
                "proof_age",
                Duration::from_secs(60),
                value::duration(Duration::from_secs(1), Duration::from_secs(600)),
            ),
        };
        section.finish();
        settings
    }
}
