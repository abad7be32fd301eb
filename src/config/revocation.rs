//! `[revocation]`: how long deny records are kept, and where a token names its session; and
//! `[backchannel_logout]`.

use super::section::Section;
use super::value::{self, DAY};
use crate::revocation::settings::{LogoutSettings, RevocationSettings};

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

impl LogoutSettings {
    /// `None` if there is no audience, which is reported.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let audience = section.list("audience", value::text).unwrap_or_default();
        if audience.is_empty() && !section.has_problem("audience") {
            section.report("audience", "nothing", "the client ids of the applications whose users log out");
        }
        section.finish();
        Some(Self { audience }).filter(|settings| !settings.audience.is_empty())
    }
}
