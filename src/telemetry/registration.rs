//! How a metric is made and registered, and how the series of an issuer end.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::core::{Collector, Desc, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// The kind and the description of each metric.
pub(super) type Descriptions = Vec<(&'static str, Desc)>;

/// Creates and registers a metric, and adds it to the list.
pub(super) struct Registration<'r>(pub &'r Registry, pub RefCell<Descriptions>);

/// Declares a struct of metrics: each field with its type and the value that it has at the start. A value may
/// use the fields above it.
macro_rules! declare {
    (
        $(#[$doc:meta])*
        pub struct $group:ident by $new:ident {
            $($(#[$field_doc:meta])* $visible:vis $field:ident: $kind:ty = $value:expr,)*
        }
    ) => {
        $(#[$doc])*
        pub struct $group {
            $($(#[$field_doc])* $visible $field: $kind,)*
        }

        impl $group {
            pub(super) fn declare($new: &Registration<'_>) -> Result<Self, prometheus::Error> {
                $(let $field = $value;)*
                Ok(Self { $($field,)* })
            }
        }
    };
}
pub(super) use declare;

type Made<M> = Result<M, prometheus::Error>;

impl Registration<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.registered("counter", IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.registered("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.registered("gauge", IntGauge::new(name, help)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.registered("gauge", IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> Made<Gauge> {
        self.registered("gauge", Gauge::new(name, help)?)
    }

    pub(super) fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.registered("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Made<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered("histogram", Histogram::with_opts(options)?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Made<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered("histogram", HistogramVec::new(options, labels)?)
    }

    fn registered<M: Collector + Clone + 'static>(&self, kind: &'static str, metric: M) -> Made<M> {
        self.1.borrow_mut().extend(metric.desc().into_iter().map(|description| (kind, description.clone())));
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Removes all series whose label `issuer` is this one.
pub(super) fn forget<B: MetricVecBuilder>(metric: &MetricVec<B>, issuer: &str)
where
    MetricVec<B>: Collector,
{
    for family in metric.collect() {
        for series in family.get_metric() {
            let labels: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("issuer") == Some(&issuer) {
                // It fails only if the series is already gone.
                let _ = metric.remove(&labels);
            }
        }
    }
}
