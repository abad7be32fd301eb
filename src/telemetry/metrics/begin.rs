//! Series that begin at zero before their first event. So the first event shows as an increase, and a share
//! can be computed at any time.

use super::Metrics;

/// A reason of each outcome, whose series begin at zero: a share of requests can be asked for at any time.
const FIRST_REASONS: [(&str, &str); 5] = [
    ("allow", "judged"),
    ("unauthenticated", "no_credential"),
    ("forbidden", "missing_claim"),
    ("undecided", "breaker_open"),
    ("error", "not_found"),
];

/// Statuses of calls to an issuer whose series begin at zero.
pub(super) const FIRST_STATUSES: [&str; 4] = ["200", "429", "timeout", "connect"];

impl Metrics {
    /// Begins the series that depend on no configuration.
    pub(super) fn begin_at_zero(&self) {
        for (outcome, reason) in FIRST_REASONS {
            self.requests.with_label_values(&[outcome, reason]);
        }
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let by_result: [(_, &[&str]); 4] = [
            (&self.reloads, &["ok", "refused"]),
            (&self.imported_profiles, &["kept", "known", "refused"]),
            (&self.logouts, &["done", "refused", "undecided"]),
            (&self.leases, &["asked", "shared", "alone", "error"]),
        ];
        for (counter, results) in by_result {
            for result in results {
                counter.with_label_values(&[result]);
            }
        }
        for format in ["jws", "jwe", "opaque"] {
            self.tokens.with_label_values(&[format, "accepted"]);
        }
        for store in ["memory", "shared", "disk"] {
            for result in ["hit", "miss", "unreadable", "error"] {
                self.store_lookups.with_label_values(&[store, result]);
            }
        }
        for store in ["shared", "disk"] {
            self.store_errors.with_label_values(&[store, "degraded"]);
        }
    }

    /// Starts the counters of answers from records of this tier at zero, so that the first answer shows as an
    /// increase.
    pub fn has_tier(&self, tier: &str) {
        self.stale_answers.with_label_values(&[tier]);
        self.condition.has_tier(tier);
    }

    /// Starts the series of a new endpoint at zero, for these states of its breaker and these reasons to
    /// suppress a call.
    pub fn has_guard(&self, issuer: &str, endpoint: &str, states: &[&str], reasons: &[&str]) {
        for from in states {
            for to in states.iter().filter(|to| *to != from) {
                self.breaker_transitions.with_label_values(&[issuer, endpoint, from, to]);
            }
        }
        for reason in reasons {
            self.upstream_suppressed.with_label_values(&[reason]);
        }
        for status in FIRST_STATUSES {
            self.upstream_requests.with_label_values(&[issuer, endpoint, status]);
        }
        self.upstream_duration.with_label_values(&[issuer, endpoint]);
    }
}
