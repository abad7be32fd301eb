//! The JSON of `/status`, which the status page draws.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
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

/// How long an event serves all pages. A page gets one a second, so this bounds the cost to two events a
/// second, however many pages are open.
const EVENT_AGE: Duration = Duration::from_millis(500);

/// Observes the running service.
pub struct Observer {
    instance: Arc<ArcSwap<Instance>>,
    leaving: Arc<AtomicBool>,
    first_seen: Mutex<FirstSeen>,
    permits: Arc<Semaphore>,
    event: Mutex<Option<(Instant, Bytes)>>,
}

impl Observer {
    /// An observer of whichever instance runs. `leaving` says whether the service is stopping.
    #[must_use]
    pub fn new(instance: Arc<ArcSwap<Instance>>, leaving: Arc<AtomicBool>) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_PAGES));
        Self { instance, leaving, first_seen: Mutex::default(), permits, event: Mutex::default() }
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
        self.permits.clone().try_acquire_owned().ok()
    }

    /// The event that all status pages get at this time.
    #[must_use]
    pub fn event(&self, now: Instant) -> Bytes {
        let mut event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        match &*event {
            Some((made, event)) if now.saturating_duration_since(*made) < EVENT_AGE => event.clone(),
            _ => event.insert((now, format!("data: {}\n\n", self.status()).into())).1.clone(),
        }
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
            "issuers": instance.fingerprint.issuers,
            "store": instance.fingerprint.store,
            "hash": instance.hash,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::{Settings, Source};

    #[tokio::test]
    async fn all_open_pages_share_an_event_until_it_is_half_a_second_old() {
        let text = "[[issuer]]\nurl = \"http://127.0.0.1:9/\"\naudience = [\"a\"]\n";
        let settings = Settings::read(&Source::text("test.toml", text)).unwrap();
        let instance = Instance::build(settings, Clock::system(), None).unwrap();
        let observer = Observer::new(Arc::new(ArcSwap::new(instance)), Arc::default());
        let opened = Instant::now();
        let first = observer.event(opened);
        assert!(first.starts_with(b"data: {") && first.ends_with(b"\n\n"), "{first:?}");
        let is_the_same = |after: u64| {
            let event = observer.event(opened + Duration::from_millis(after));
            event.as_ptr() == first.as_ptr()
        };
        assert_eq!((is_the_same(0), is_the_same(499), is_the_same(500)), (true, true, false));
    }
}
