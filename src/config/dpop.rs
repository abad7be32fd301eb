//! `[dpop]`: the proofs of tokens that are bound to a key.

use super::section::Section;
use super::value::{self, SECOND};
use crate::sender::settings::DpopSettings;

impl DpopSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        Self { proof_age: section.value("proof_age", 60 * SECOND, value::duration(SECOND, 600 * SECOND)) }
    }
}
