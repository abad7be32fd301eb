//! Every metric, declared in one place with its help text.
//!
//! Handles are looked up once, here, so that bumping one on the hot path is an atomic addition. No label ever
//! holds a user, a token, or anything that a stranger can choose.

mod begin;

use std::cell::RefCell;
use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry,
};

use super::condition::Condition;
use super::registration::{Descriptions, Registration, declare, forget};

declare! {
    /// The metrics of one instance.
    pub struct Metrics by new {
        pub(super) registry: Registry = new.0.clone(),
        /// The gauges about the present state.
        pub condition: Condition = Condition::declare(new)?,
        build: IntGaugeVec = new.gauges(
            "build_info", "Always 1; the labels say which build runs.", &["version"])?,
        requests: IntCounterVec = new.counters(
            "requests_total",
            "Auth requests by outcome (allow, unauthenticated, forbidden, undecided, error) and reason.",
            &["outcome", "reason"])?,
        allowed_from_memory: IntCounter = requests.with_label_values(&["allow", "memory"]),
        /// `holdfast_request_duration_seconds`.
        pub request_duration: Histogram = new.histogram(
            "request_duration_seconds", "Time from a request's last header byte to its answer.",
            &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 3.0, 10.0])?,
        tier_hits: IntCounterVec = new.counters(
            "tier_hits_total", "Answers from a record, by its tier and store.", &["tier", "store"])?,
        store_lookups: IntCounterVec = new.counters(
            "store_lookups_total", "Lookups in a store, by result (hit, miss, unreadable, error).",
            &["store", "result"])?,
        memory_hit: IntCounter = store_lookups.with_label_values(&["memory", "hit"]),
        stale_answers: IntCounterVec = new.counters(
            "stale_answers_total", "Answers from a record whose issuer could not be asked, by tier.",
            &["tier"])?,
        tokens: IntCounterVec = new.counters(
            "tokens_total", "Tokens that were judged for the first time, by format and result.",
            &["format", "result"])?,
        foreign_tokens: IntCounterVec = new.counters(
            "foreign_tokens_total",
            "Tokens that only their issuer can judge, by why they were not judged here and by what the \
             issuer said.",
            &["local", "issuer"])?,
        email_source: IntCounterVec = new.counters(
            "email_source_total", "Where the email of a judged token came from.", &["source"])?,
        email_conflicts: IntCounter = new.counter(
            "email_conflicts_total", "Tokens whose claims name different emails.")?,
        breaker_state: IntGaugeVec = new.gauges(
            "breaker_state", "1 for the state that the breaker is in, else 0.",
            &["issuer", "endpoint", "state"])?,
        breaker_transitions: IntCounterVec = new.counters(
            "breaker_transitions_total", "Changes of a breaker's state.",
            &["issuer", "endpoint", "from", "to"])?,
        upstream_requests: IntCounterVec = new.counters(
            "upstream_requests_total", "Calls to an issuer by HTTP status, or by the kind of failure.",
            &["issuer", "endpoint", "status"])?,
        upstream_duration: HistogramVec = new.histograms(
            "upstream_duration_seconds", "Duration of calls to an issuer.", &["issuer", "endpoint"],
            &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0])?,
        upstream_suppressed: IntCounterVec = new.counters(
            "upstream_suppressed_total", "Calls to an issuer that were not made, by reason.", &["reason"])?,
        /// `holdfast_budget_wait_seconds`.
        pub budget_wait: Histogram = new.histogram(
            "budget_wait_seconds", "How long calls to an issuer waited for their turn in the budget.",
            &[0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0])?,
        pub(super) log_lines_dropped: IntCounter = new.counter(
            "log_lines_dropped_total", "Log lines that were dropped, because the log was not read.")?,
        budget_waiting: IntGaugeVec = new.gauges(
            "budget_waiting", "Calls to an issuer that wait for their turn now.", &["issuer", "endpoint"])?,
        budget_rate: GaugeVec = new.float_gauges(
            "budget_rate", "Calls a second that the budget allows in the long run.",
            &["issuer", "endpoint"])?,
        fleet_instances: Gauge = new.float_gauge(
            "fleet_instances", "Instances that share the budgets through Redis, this one included.")?,
        singleflight_joined: IntCounter = new.counter(
            "singleflight_joined_total", "Callers that shared the call of another caller.")?,
        leases: IntCounterVec = new.counters(
            "leases_total",
            "Calls to an issuer that instances share, by who asked: asked (this one, for all), shared \
             (another one), alone (this one, after a timeout), error (this one, because Redis failed).",
            &["result"])?,
        store_errors: IntCounterVec = new.counters(
            "store_errors_total", "Errors of a store, by kind.", &["store", "kind"])?,
        records: IntGaugeVec = new.gauges(
            "records", "Records in a store, estimated for disk.", &["store"])?,
        reloads: IntCounterVec = new.counters(
            "config_reloads_total", "Reloads by SIGHUP, by result (ok, refused).", &["result"])?,
        revoked: IntCounterVec = new.counters(
            "revocations_total",
            "Revocations that took effect here, by kind (subject, session, token, kid, everybody) and \
             source.",
            &["kind", "source"])?,
        logouts: IntCounterVec = new.counters(
            "logout_requests_total",
            "Requests for a back-channel logout, by result (done, refused, undecided).", &["result"])?,
        revocations: IntGaugeVec = new.gauges(
            "revocations", "Deny records in memory, by kind.", &["kind"])?,
        revocation_lag: Gauge = new.float_gauge(
            "revocation_lag_seconds",
            "Time since this instance last read the shared log of revocations to its end; 0 if nothing \
             is shared.")?,
        imported_profiles: IntCounterVec = new.counters(
            "imported_profiles_total",
            "Profiles that holdfast import sent, by result (kept, known, refused).",
            &["result"])?,
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two metrics have the same name, which the tests rule out.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self::declared()?.0)
    }

    /// All metrics at zero, and what was declared.
    fn declared() -> Result<(Self, Descriptions), prometheus::Error> {
        let registry = Registry::new_custom(Some("holdfast".to_owned()), None)?;
        let new = Registration(&registry, RefCell::default());
        let metrics = Self::declare(&new)?;
        metrics.begin_at_zero();
        Ok((metrics, new.1.into_inner()))
    }

    /// A prepared answer was in memory. The hot path: an atomic addition, no lookup by label.
    pub fn found_in_memory(&self) {
        self.memory_hit.inc();
    }

    /// It was an allow. The hot path, too.
    pub fn allowed_from_memory(&self) {
        self.allowed_from_memory.inc();
    }

    /// Any other answer.
    pub fn answered(&self, outcome: &str, reason: &str) {
        self.requests.with_label_values(&[outcome, reason]).inc();
    }

    /// A record of `tier` in `store` was the answer.
    pub fn tier_hit(&self, tier: &str, store: &str) {
        self.tier_hits.with_label_values(&[tier, store]).inc();
    }

    /// The counter of one tier and store, for a caller that keeps it.
    #[must_use]
    pub fn tier_hit_counter(&self, tier: &str, store: &str) -> IntCounter {
        self.tier_hits.with_label_values(&[tier, store])
    }

    /// A lookup in `store` with `result`.
    pub fn looked_up(&self, store: &str, result: &str) {
        self.store_lookups.with_label_values(&[store, result]).inc();
    }

    /// A record of `tier` was served although its issuer could not be asked.
    pub fn served_stale(&self, tier: &str) {
        self.stale_answers.with_label_values(&[tier]).inc();
    }

    /// A token of `format` was verified for the first time.
    pub fn judged(&self, format: &str, result: &str) {
        self.tokens.with_label_values(&[format, result]).inc();
    }

    /// A token could not be judged here because of `local`, and its issuer's answer was `issuer`.
    pub fn foreign(&self, local: &str, issuer: &str) {
        self.foreign_tokens.with_label_values(&[local, issuer]).inc();
    }

    /// The email came from `source`: an entry of `email_claims`, `profile`, `userinfo`, or `none`.
    pub fn email_from(&self, source: &str) {
        self.email_source.with_label_values(&[source]).inc();
    }

    /// A token's claims name different emails.
    pub fn email_conflict(&self) {
        self.email_conflicts.inc();
    }

    /// Sets the gauges of an endpoint's budget.
    pub fn budget_is(&self, issuer: &str, endpoint: &str, rate: f64, waiting: usize) {
        self.budget_rate.with_label_values(&[issuer, endpoint]).set(rate);
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.budget_waiting.with_label_values(&[issuer, endpoint]).set(waiting);
    }

    /// How many instances share the budgets.
    pub fn instances_are(&self, count: usize) {
        self.fleet_instances.set(count as f64);
    }

    /// An issuer is no longer configured: its series are removed, also the last state of its breakers.
    pub fn forget_issuer(&self, issuer: &str) {
        self.condition.forget_issuer(issuer);
        forget(&self.breaker_state, issuer);
        forget(&self.budget_waiting, issuer);
        forget(&self.budget_rate, issuer);
        forget(&self.breaker_transitions, issuer);
        forget(&self.upstream_requests, issuer);
        forget(&self.upstream_duration, issuer);
    }

    /// A breaker is in `state` now; `states` are all of them, so that exactly one has the value 1.
    pub fn breaker_is(&self, issuer: &str, endpoint: &str, state: &str, states: &[&str]) {
        for other in states {
            let value = i64::from(*other == state);
            self.breaker_state.with_label_values(&[issuer, endpoint, other]).set(value);
        }
    }

    /// A breaker went from one state to another.
    pub fn breaker_moved(&self, issuer: &str, endpoint: &str, from: &str, to: &str) {
        self.breaker_transitions.with_label_values(&[issuer, endpoint, from, to]).inc();
    }

    /// A call to an issuer ended: `status` is the HTTP status, or the kind of failure.
    pub fn called(&self, issuer: &str, endpoint: &str, status: &str, took: Duration) {
        self.upstream_requests.with_label_values(&[issuer, endpoint, status]).inc();
        self.upstream_duration.with_label_values(&[issuer, endpoint]).observe(took.as_secs_f64());
    }

    /// A call to an issuer was not made.
    pub fn suppressed(&self, reason: &str) {
        self.upstream_suppressed.with_label_values(&[reason]).inc();
    }

    /// A caller shared the call of another one.
    pub fn joined(&self) {
        self.singleflight_joined.inc();
    }

    /// Counts a call that instances share, by who made it.
    pub fn leased(&self, result: &str) {
        self.leases.with_label_values(&[result]).inc();
    }

    /// A store failed.
    pub fn store_failed(&self, store: &str, kind: &str) {
        self.store_errors.with_label_values(&[store, kind]).inc();
    }

    /// How many records a store holds now.
    pub fn records(&self, store: &str, count: u64) {
        self.records.with_label_values(&[store]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts revocations of a kind that took effect.
    pub fn revoked(&self, kind: &str, source: &str, count: u64) {
        self.revoked.with_label_values(&[kind, source]).inc_by(count);
    }

    /// Counts a back-channel logout by its result.
    pub fn logged_out(&self, result: &str) {
        self.logouts.with_label_values(&[result]).inc();
    }

    /// How many deny records of a kind are in memory.
    pub fn revocations(&self, kind: &str, count: usize) {
        self.revocations.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How long ago the log of revocations was read to its end. A year means never.
    pub fn revocation_lag(&self, lag: Duration) {
        let lag = lag.min(Duration::from_secs(365 * 86_400));
        self.revocation_lag.set(lag.as_secs_f64());
    }

    /// Counts imported profiles with this result.
    pub fn imported(&self, result: &str, count: u64) {
        self.imported_profiles.with_label_values(&[result]).inc_by(count);
    }

    /// The configuration was reloaded, or kept because the new one was bad.
    pub fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Desc;

    use super::*;

    #[test]
    fn every_metric_is_declared_once_and_rendered_with_its_prefix() {
        let metrics = Metrics::new().unwrap();
        metrics.allowed_from_memory();
        metrics.breaker_is("https://t/", "userinfo", "open", &["closed", "open", "half_open"]);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(r#"holdfast_requests_total{outcome="allow",reason="memory"} 1"#), "{text}");
        assert!(text.contains(r#"state="open"} 1"#) && text.contains(r#"state="closed"} 0"#), "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("holdfast_")), "{text}");
    }

    #[test]
    fn the_reference_tells_every_metric_with_its_kind_its_labels_and_its_help_text() {
        let page = include_str!("../../docs/reference/metrics.md");
        let table = page.split("| metric | kind | labels | counts |").nth(1).unwrap().lines().skip(2);
        let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
        let (_, declared) = Metrics::declared().unwrap();
        for (kind, Desc { fq_name: name, variable_labels, help, .. }) in &declared {
            let labels: Vec<String> = variable_labels.iter().map(|label| format!("`{label}`")).collect();
            // What the help text does not say of a metric may follow it.
            let row = format!("| `{name}` | {kind} | {} | {help} ", labels.join(", "));
            let count = rows.iter().filter(|line| line.starts_with(&row)).count();
            assert_eq!(count, 1, "docs/reference/metrics.md has no row that begins {row}");
        }
        assert_eq!(rows.len(), declared.len(), "docs/reference/metrics.md tells metrics that do not exist");
    }

    #[test]
    fn what_can_happen_to_a_guard_is_told_before_it_does_and_not_after_its_issuer_is_gone() {
        let metrics = Metrics::new().unwrap();
        for issuer in ["https://a/", "https://b/"] {
            metrics.has_guard(issuer, "userinfo", &["closed", "open"], &["budget"]);
            metrics.breaker_is(issuer, "userinfo", "open", &["closed", "open"]);
            metrics.called(issuer, "userinfo", "200", Duration::ZERO);
        }
        metrics.has_tier("primary");
        let text = || String::from_utf8(metrics.render()).unwrap();
        for series in [
            r#"breaker_transitions_total{endpoint="userinfo",from="closed",issuer="https://a/",to="open"} 0"#,
            r#"breaker_transitions_total{endpoint="userinfo",from="open",issuer="https://b/",to="closed"} 0"#,
            r#"upstream_suppressed_total{reason="budget"} 0"#,
            r#"stale_answers_total{tier="primary"} 0"#,
            r#"config_reloads_total{result="refused"} 0"#,
        ] {
            assert!(text().contains(series), "{series} is not in {}", text());
        }
        metrics.forget_issuer("https://a/");
        assert!(!text().contains("https://a/"), "{}", text());
        // State twice, transitions twice, calls, and a histogram of ten buckets, +Inf, sum and count.
        assert_eq!(text().matches("https://b/").count(), 2 + 2 + begin::FIRST_STATUSES.len() + 13);
    }
}
