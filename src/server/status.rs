//! The JSON of `/status`, which the status page draws.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::diagnosis::{EndpointFacts, Facts, Finding, FirstSeen, findings};
use super::plain::date;
use crate::clock::Timestamp;
use crate::guard::{GuardStatus, Reason, State};
use crate::instance::Instance;
use crate::issuer::endpoint::Endpoint;

/// How many status pages may be open. Each costs a few kilobytes a second.
const MAX_PAGES: usize = 32;

/// Observes the running service.
pub struct Observer {
    instance: Arc<ArcSwap<Instance>>,
    leaving: Arc<AtomicBool>,
    first_seen: Mutex<FirstSeen>,
    seats: Arc<Semaphore>,
}

impl Observer {
    /// An observer of whichever instance runs. `leaving` says whether the service is stopping.
    #[must_use]
    pub fn new(instance: Arc<ArcSwap<Instance>>, leaving: Arc<AtomicBool>) -> Self {
        let seats = Arc::new(Semaphore::new(MAX_PAGES));
        Self { instance, leaving, first_seen: Mutex::default(), seats }
    }

    /// The instance that runs now.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// Whether the service is stopping.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// A place for one more open status page, if there is one.
    #[must_use]
    pub fn try_open(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }

    /// The JSON of `/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        let instance = self.instance.load();
        let mut findings = findings(&facts(&instance, self.is_leaving()));
        let now = instance.clock.now();
        self.first_seen.lock().unwrap_or_else(PoisonError::into_inner).date(&mut findings, now);
        let mut status = status(&instance);
        status["time"] = date(now).into();
        status["findings"] = findings.iter().map(finding).collect();
        status
    }
}

fn facts(instance: &Instance, leaving: bool) -> Facts<'_> {
    let endpoints = instance.issuers.iter().flat_map(|issuer| {
        issuer.endpoints().map(|endpoint| EndpointFacts {
            issuer: issuer.name(),
            name: endpoint.name(),
            outage: endpoint.outage(),
            status: endpoint.status(),
        })
    });
    let without_keys = instance.issuers.iter().filter(|issuer| !issuer.is_ready());
    Facts {
        leaving,
        without_keys: without_keys.map(|issuer| &**issuer.name()).collect(),
        endpoints: endpoints.collect(),
        shared_degraded: instance.stores.shared_is_degraded(),
        disk_degraded: instance.stores.disk_is_degraded(),
        revocations_behind: instance.revocations.is_behind(),
    }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "party": finding.party.as_str(),
        "kind": finding.kind,
        "since": finding.since.map(date),
        "sentence": finding.sentence,
    })
}

/// The status of an instance, without the findings.
fn status(instance: &Instance) -> Value {
    let issuers: Vec<Value> = instance
        .issuers
        .iter()
        .map(|issuer| {
            let guards = issuer
                .endpoints()
                .map(|endpoint| (endpoint.name().to_owned(), guard_status(endpoint, instance.clock.now())));
            json!({
                "url": &**issuer.name(),
                "ready": issuer.is_ready(),
                "keys": issuer.key_ids(),
                "held_keys": issuer.held_key_ids(),
                "skipped_keys": issuer.skipped_keys(),
                "endpoints": serde_json::Map::from_iter(guards),
            })
        })
        .collect();
    let tiers: Vec<Value> = instance
        .identities
        .policy()
        .table()
        .iter()
        .map(|(_, row)| {
            let (age, role) = (row.age.as_secs(), row.role.to_string());
            json!({ "name": row.name, "age_seconds": age, "role": role })
        })
        .collect();
    let own = instance.settings.fingerprint();
    super::metrics::refresh(instance);
    let snapshot = instance.metrics.snapshot();
    let series = |name, labels| series(&snapshot.series(name), labels);
    let time = |name| {
        let at = snapshot.series(name).first().map_or(0.0, |(_, seconds)| *seconds);
        (at > 0.0).then(|| seconds(at))
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "configuration": {
            "issuers": own.issuers,
            "store": own.store,
            "hash": instance.settings.hash(),
            "loaded": time("configuration_loaded_timestamp_seconds"),
            "plan": instance.settings.guard.budget.plan,
        },
        "issuers": issuers,
        "tiers": tiers,
        "verdict_ceiling": instance.settings.policy.verdict_ceiling,
        "disk_degraded": instance.stores.disk_is_degraded(),
        "shared_degraded": instance.stores.shared_is_degraded(),
        "revocations_behind": instance.revocations.is_behind(),
        "stale_users": series("stale_users", &["tier"]),
        "first_lockout": time("first_lockout_timestamp_seconds"),
        "stale_answers": series("stale_answers_total", &["tier"]),
        "requests": series("requests_total", &["outcome", "reason"]),
        "keys_fetched": series("keys_fetched_timestamp_seconds", &["issuer"]),
        "certificates_expire": series("certificate_expiry_timestamp_seconds", &["listener"]),
    })
}

/// A time in seconds since the Unix epoch as a date.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a date needs no fraction")]
fn seconds(at: f64) -> String {
    date(Timestamp::from_secs(at as u64))
}

/// The series of a metric as a list of objects. `labels` are the names of its labels, by the alphabet.
fn series(series: &[(Vec<&str>, f64)], labels: &[&str]) -> Value {
    let named = series.iter().map(|(values, value)| {
        let labels = labels.iter().zip(values).map(|(name, text)| ((*name).to_owned(), json!(text)));
        Value::Object(labels.chain([("value".to_owned(), json!(value))]).collect())
    });
    named.collect()
}

/// The status of one endpoint. Times are dates, because people read them. `until` is when an open breaker
/// lets a probe through, or when a forced state ends.
fn guard_status(endpoint: &Endpoint, now: Timestamp) -> Value {
    let status: GuardStatus = endpoint.status();
    let changes = endpoint.changes();
    let changes = changes.iter().map(|(at, state)| json!({ "at": date(*at), "breaker": state.as_str() }));
    let until = match status.state {
        State::Open => Some(status.refuses_for),
        State::Closed | State::HalfOpen => status.forced_for,
    };
    json!({
        "breaker": status.state.as_str(),
        "since": status.since.map(|since| date(now.before(since))),
        "until": until.map(|until| date(now.after(until))),
        "reason": status.reason.map(Reason::as_str),
        "forced": status.forced_for.is_some(),
        "changes": changes.collect::<Value>(),
        "refuses_for_seconds": status.refuses_for.as_secs_f64(),
        "budget": {
            "available": status.budget.available,
            "rate": status.budget.rate,
            "burst": status.budget.burst,
            "waiting": status.waiting,
            "first_seen_trust": status.trust.as_share(),
            "learned": status.budget.learned.map(|(calls, until)| {
                json!({ "available": calls, "until": date(now.after(until)) })
            }),
        },
        "subjects_in_backoff": status.subjects_in_backoff,
        "first_seen_pause_seconds": status.first_seen_pause.as_secs_f64(),
    })
}
