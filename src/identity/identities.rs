//! What resolving an identity needs: stores, policy, clock, metrics, and one call for all who ask for the
//! same.

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

/// Finds out who a verified token is.
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
    /// With the stores and the policy in force.
    #[must_use]
    pub fn new(
        stores: Arc<Stores>,
        digester: Arc<TokenDigester>,
        policy: Policy,
        revocations: RevocationCheck,
        settings: PolicySettings,
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
            profile_flights: Singleflight::new(SingleflightSettings::default()),
            verdict_flights: Singleflight::new(SingleflightSettings::default()),
            revalidations,
        })
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// In the claims of a token as in those of `/userinfo`.
    pub(super) fn email_in(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        email::find(claims, issuer.settings().email_rules(self.settings.require_verified_email))
    }

    /// Whether claims that name no email that counts would name one, could the issuer name any.
    pub(super) fn names_others(&self, issuer: &Issuer, claims: &Object) -> bool {
        let rules = issuer.settings().email_rules(self.settings.require_verified_email);
        !rules.domains.is_empty() && email::find(claims, EmailRules { domains: &[], ..rules }).is_some()
    }

    /// The same where the claims are seen for the first time, so that a conflict is counted once.
    pub(super) fn find_email(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        let found = self.email_in(issuer, claims);
        if found.as_ref().is_some_and(|found| found.conflict) {
            self.metrics.email_conflict();
        }
        found
    }

    /// A no, whoever waited for it, is a no from then on: for `negative_ttl`, and until the token ends if the
    /// issuer said why. A profile that another token brought must not make it a yes.
    pub(super) fn refuse_from_now_on(&self, digest: TokenDigest, expires_at: Timestamp, refusal: Refusal) {
        let left = if refusal.ends_records() { expires_at.since(self.clock.now()) } else { Duration::ZERO };
        let ttl = self.settings.negative_ttl.max(left);
        let refused = Refused::new(Arc::new(refusal), ttl, &self.clock);
        self.stores.refuse(digest, refused);
    }
}
