//! `[log]`: what is logged, and how.

use super::section::Section;
use super::value;
use crate::telemetry::logs::LogSettings;

impl LogSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        Self {
            json: section.value("format", false, value::one_of([("text", false), ("json", true)])),
            level: section.value("level", "info".to_owned(), |text| {
                text.parse::<tracing_subscriber::filter::Targets>()
                    .map(|_| text.to_owned())
                    .map_err(|_| "error, warn, info, debug or trace, or a list of target=level".to_owned())
            }),
        }
    }
}
