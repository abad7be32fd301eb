//! `[log]`: what is logged, and how.

use super::section::Section;
use crate::telemetry::logs::LogSettings;

impl LogSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            json: section.value("format", false, |text| match text {
                "json" => Ok(true),
                "text" => Ok(false),
                _ => Err("text or json".to_owned()),
            }),
            level: section.value("level", "info".to_owned(), |text| {
                text.parse::<tracing_subscriber::filter::Targets>()
                    .map(|_| text.to_owned())
                    .map_err(|_| "error, warn, info, debug or trace, or a list of target=level".to_owned())
            }),
        };
        section.finish();
        settings
    }
}
