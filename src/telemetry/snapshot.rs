//! The values of all metrics at one moment: as text for Prometheus, and as series for the status page.

use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, TextEncoder};

use super::lines;
use super::metrics::Metrics;

impl Metrics {
    /// The values of all metrics now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.registry.gather())
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let behind = lines::dropped().saturating_sub(self.log_lines_dropped.get());
        self.log_lines_dropped.inc_by(behind);
        let mut text = Vec::new();
        // Writing to a vector cannot fail, and metrics that cannot be encoded were refused when they were
        // declared.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

/// The values of all metrics at one moment.
pub struct Snapshot(Vec<MetricFamily>);

impl Snapshot {
    /// The series of a counter or gauge, each with the values of its labels and its own value. `name` is
    /// without `holdfast_`; a name that does not exist has no series.
    #[must_use]
    pub fn series(&self, name: &str) -> Vec<(Vec<&str>, f64)> {
        let family = self.0.iter().find(|family| family.name().strip_prefix("holdfast_") == Some(name));
        let metrics = family.map_or(&[][..], |family| family.get_metric());
        metrics
            .iter()
            .map(|metric| {
                let labels = metric.get_label().iter().map(|label| label.value()).collect();
                (labels, metric.get_counter().get_value() + metric.get_gauge().get_value())
            })
            .collect()
    }
}
