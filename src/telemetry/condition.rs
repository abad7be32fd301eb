//! Gauges about the present state, which a scrape updates.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};

use super::registration::{Registration, declare, forget};
use super::stale_users::{StaleUsers, User};
use crate::clock::{Ticks, Timestamp};

declare! {
    /// The gauges of one instance about its present state.
    pub struct Condition by new {
        users: Mutex<StaleUsers> = Mutex::default(),
        stale_users: IntGaugeVec = new.gauges(
            "stale_users",
            "Users served in the last ten minutes from a record because the issuer could not be asked, \
             by tier.", &["tier"])?,
        first_lockout: Gauge = new.float_gauge(
            "first_lockout_timestamp_seconds",
            "When the first of the users served stale will be locked out; 0 if there is none.")?,
        breaker_refuses: GaugeVec = new.float_gauges(
            "breaker_refuses_seconds",
            "How much longer the breaker refuses calls; 0 if it allows them.", &["issuer", "endpoint"])?,
        budget_available: IntGaugeVec = new.gauges(
            "budget_available",
            "Calls to an issuer that the budget allows at once now.", &["issuer", "endpoint"])?,
        issuer_calls_left: GaugeVec = new.float_gauges(
            "issuer_calls_left",
            "Calls that the issuer said it still accepts (X-RateLimit-Remaining); \
             NaN if it has not said.", &["issuer", "endpoint"])?,
        keys_fetched: GaugeVec = new.float_gauges(
            "keys_fetched_timestamp_seconds",
            "When the public keys of the issuer were fetched; 0 if there are none.", &["issuer"])?,
        store_degraded: IntGaugeVec = new.gauges(
            "store_degraded", "1 if the store is degraded, else 0.", &["store"])?,
        revocations_behind: IntGauge = new.gauge(
            "revocations_behind", "1 if this instance may have missed a revocation, else 0.")?,
        certificate_expiry: GaugeVec = new.float_gauges(
            "certificate_expiry_timestamp_seconds",
            "When the server certificate of a listener expires.", &["listener"])?,
        configuration: IntGaugeVec = new.gauges(
            "configuration_info", "Always 1; the label is a hash of the configuration in force.", &["hash"])?,
        configuration_loaded: Gauge = new.float_gauge(
            "configuration_loaded_timestamp_seconds", "When the configuration in force was loaded.")?,
    }
}

impl Condition {
    /// Counts a user who was served from a record of `tier`. `stale` is `None` if the issuer could be asked,
    /// else the time until which the record can be served.
    pub fn served(&self, user: User<'_>, tier: &str, stale: Option<Timestamp>, now: Ticks) {
        match stale {
            Some(end) => self.users().served(user, tier, end, now),
            None => self.users().confirmed(user),
        }
    }

    /// Shows this tier also while it has no users.
    pub(super) fn has_tier(&self, tier: &str) {
        self.users().number_of(tier);
    }

    /// Updates the gauges of users.
    pub fn show_users(&self, now: Ticks) {
        let mut users = self.users();
        for (tier, count) in users.by_tier(now) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.stale_users.with_label_values(&[tier]).set(count);
        }
        self.first_lockout.set(users.first_end(now).map_or(0.0, unix_time));
    }

    /// The state of the guard of an endpoint: how long the breaker still refuses, how many calls the budget
    /// allows, and how many the issuer said are left.
    pub fn guard_is(
        &self,
        (issuer, endpoint): (&str, &str),
        refuses_for: Duration,
        available: u32,
        left: Option<u32>,
    ) {
        let labels = [issuer, endpoint];
        self.breaker_refuses.with_label_values(&labels).set(refuses_for.as_secs_f64());
        self.budget_available.with_label_values(&labels).set(available.into());
        self.issuer_calls_left.with_label_values(&labels).set(left.map_or(f64::NAN, f64::from));
    }

    /// Shows an issuer whose keys are fetched, also before the first fetch.
    pub fn has_keys_of(&self, issuer: &str) {
        self.keys_fetched.with_label_values(&[issuer]);
    }

    /// When the keys in use of an issuer were fetched.
    pub fn keys_fetched(&self, issuer: &str, at: Timestamp) {
        self.keys_fetched.with_label_values(&[issuer]).set(unix_time(at));
    }

    /// Whether a store is degraded.
    pub fn store_is(&self, store: &str, degraded: bool) {
        self.store_degraded.with_label_values(&[store]).set(degraded.into());
    }

    /// Whether this instance may have missed a revocation.
    pub fn revocations_are(&self, behind: bool) {
        self.revocations_behind.set(behind.into());
    }

    /// When the certificate of a listener expires.
    pub fn certificate_expires(&self, listener: &str, at: Timestamp) {
        self.certificate_expiry.with_label_values(&[listener]).set(unix_time(at));
    }

    /// A configuration with this hash is in force from now on.
    pub fn configured(&self, hash: &str, now: Timestamp) {
        self.configuration.reset();
        self.configuration.with_label_values(&[hash]).set(1);
        self.configuration_loaded.set(unix_time(now));
    }

    /// An issuer is no longer configured.
    pub(super) fn forget_issuer(&self, issuer: &str) {
        forget(&self.breaker_refuses, issuer);
        forget(&self.budget_available, issuer);
        forget(&self.issuer_calls_left, issuer);
        forget(&self.keys_fetched, issuer);
    }

    fn users(&self) -> MutexGuard<'_, StaleUsers> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In seconds, the unit of Prometheus.
fn unix_time(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1_000.0
}
