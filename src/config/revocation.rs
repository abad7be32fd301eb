//! `[revocation]`: how long deny records are kept, and where a token names its session.

use super::section::Section;
use super::value::{self, DAY};
use crate::revocation::settings::RevocationSettings;

impl RevocationSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            keep: section.value("keep", Self::KEEP, value::duration(DAY, DAY * 400)),
            session_claims: section
                .list("session_claims", |text| text.parse())
                .unwrap_or_else(Self::default_session_claims),
        };
        section.finish();
        settings
    }
}
