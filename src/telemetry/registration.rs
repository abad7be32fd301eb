//! How a metric is made and registered, and how the series of an issuer end.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::core::{Collector, Desc, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// The kind and the description of each metric.
pub(super) type Descriptions = Vec<(&'static str, Desc)>;

/// Creates and registers a metric, and adds it to the list.
pub(super) struct Registration<'r>(pub &'r Registry, pub RefCell<Descriptions>);

impl Registration<'_> {
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.registered("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.registered("gauge", IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.registered("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered("histogram", Histogram::with_opts(options)?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered("histogram", HistogramVec::new(options, labels)?)
    }

    fn registered<M>(&self, kind: &'static str, metric: M) -> Result<M, prometheus::Error>
    where
        M: Collector + Clone + 'static,
    {
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
