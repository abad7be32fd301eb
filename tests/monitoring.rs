//! The monitoring in `deploy/monitoring/`, judged by `promtool` and by a real Prometheus that scrapes holdfast.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "support/drill.rs"]
mod drill;

#[path = "support/prometheus.rs"]
mod prometheus;

#[path = "tls/certificates.rs"]
mod certificates;

#[path = "monitoring/condition.rs"]
mod condition;
#[path = "monitoring/dashboard.rs"]
mod dashboard;
#[path = "monitoring/outage.rs"]
mod outage;
#[path = "monitoring/queries.rs"]
mod queries;
#[path = "monitoring/rules.rs"]
mod rules;
