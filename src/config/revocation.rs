//! `[revocation]`: how long deny records are kept, and where a token names its session; and
//! `[backchannel_logout]`.

use super::section::Section;
use super::value::{self, DAY};
use crate::revocation::settings::{LogoutSettings, RevocationSettings};

impl RevocationSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        Self {
            keep: section.value("keep", Self::KEEP, value::duration(DAY, DAY * 400)),
            session_claims: section
                .list("session_claims", |text| text.parse())
                .unwrap_or_else(Self::default_session_claims),
        }
    }
}

impl LogoutSettings {
    /// `None` if there is no audience, which is reported.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let allowed = "the client ids of the applications whose users log out";
        section.required_list("audience", value::text, allowed).map(|audience| Self { audience })
    }
}
