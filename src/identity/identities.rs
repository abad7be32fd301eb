//! The parts that resolve an identity: stores, policy, clock, metrics, and one shared call for equal lookups.

use std::sync::Arc;
use std::time::Duration;

use super::revalidation::Revalidations;
use crate::clock::{Clock, Timestamp};
use crate::guard::{Singleflight, SingleflightSettings};
use crate::issuer::Issuer;
use crate::revocation::RevocationCheck;
use crate::store::refused::Refused;
use crate::store::stores::Stores;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{TokenDigest, TokenDigester};
use crate::tiers::policy::Policy;
use crate::tiers::record::{ProfileRecord, VerdictRecord};
use crate::token::email::{self, EmailRules, FoundEmail};
use crate::token::json::Object;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;
use crate::verifier::settings::PolicySettings;

/// Resolves a verified token to an identity.
pub struct Identities {
    pub(super) stores: Arc<Stores>,
    pub(super) digester: Arc<TokenDigester>,
    pub(super) policy: Policy,
    pub(super) revocations: RevocationCheck,
    pub(super) settings: PolicySettings,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) profile_flights: Singleflight<[u8; 32], Result<Arc<ProfileRecord>, Failure>>,
    pub(super) verdict_flights: Singleflight<[u8; 32], Result<Arc<VerdictRecord>, Failure>>,
    pub(super) revalidations: Revalidations,
}

impl Identities {
    /// Uses these stores and this policy.
    #[must_use]
    pub fn new(
        stores: Arc<Stores>,
        digester: Arc<TokenDigester>,
        policy: Policy,
        revocations: RevocationCheck,
        settings: PolicySettings,
        flights: &SingleflightSettings,
        surroundings: (Clock, Arc<Metrics>),
    ) -> Arc<Self> {
        let (clock, metrics) = surroundings;
        let revalidations = Revalidations::new(policy.table());
        Arc::new(Self {
            stores,
            digester,
            policy,
            revocations,
            settings,
            clock,
            metrics,
            profile_flights: Singleflight::new(flights.clone()),
            verdict_flights: Singleflight::new(flights.clone()),
            revalidations,
        })
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The email in these claims. The rules are the same for a token and for `/userinfo`.
    pub(super) fn email_in(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        email::find(claims, issuer.settings().email_rules(self.settings.require_verified_email))
    }

    /// For claims without a valid email: whether one would be valid if `email_domains` were empty.
    pub(super) fn names_others(&self, issuer: &Issuer, claims: &Object) -> bool {
        let rules = issuer.settings().email_rules(self.settings.require_verified_email);
        !rules.domains.is_empty() && email::find(claims, EmailRules { domains: &[], ..rules }).is_some()
    }

    /// As [`Self::email_in`], and counts a conflict. Call it only when the claims are first seen, so that a
    /// conflict is counted once.
    pub(super) fn find_email(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        let found = self.email_in(issuer, claims);
        if found.as_ref().is_some_and(|found| found.conflict) {
            self.metrics.email_conflict();
        }
        found
    }

    /// Remembers a refusal for `negative_ttl`, and until the token expires if the issuer gave a reason. This
    /// does not depend on which request waited for it. A profile from another token must not turn the refusal
    /// into an acceptance.
    pub(super) fn refuse_from_now_on(&self, digest: TokenDigest, expires_at: Timestamp, refusal: Refusal) {
        let left = if refusal.ends_records() { expires_at.since(self.clock.now()) } else { Duration::ZERO };
        let ttl = self.settings.negative_ttl.max(left);
        let refused = Refused::new(Arc::new(refusal), ttl, &self.clock);
        self.stores.refuse(digest, refused);
    }
}
