//! Who it is: verified claims, or the issuer's word, → [`Identity`].
//!
//! The email is looked for in this order, and here it stands once for all:
//!
//! 1. the token's own claims, in the order of `email_claims` (direct, nested, namespaced);
//! 2. the *authorization context*, that is, what the issuer says of the authorization that the token stands for:
//!    1. as it is remembered, the profile of the subject, while its tier is fresh enough to answer;
//!    2. `/userinfo`, behind singleflight, budget and breaker;
//!    3. if that cannot tell: the profile again, from any older tier.
//!
//! The answer of `/userinfo` is searched in the same order as claims are. Wherever claims name different emails, the first
//! in order is taken and the conflict is counted.
//!
//! A foreign token has no claims of its own to look at: it goes through the second as a whole, with a verdict in place of a profile. How, is in `sought`.

mod profile;
mod revalidation;
mod sought;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use self::profile::Profile;
use self::revalidation::Revalidations;
use self::sought::{Answered, Bounds};
use self::verdict::Verdict;
use crate::clock::{Clock, Timestamp};
use crate::config::PolicySettings;
use crate::decision::Serving;
use crate::guard::{Singleflight, SingleflightSettings};
use crate::issuer::userinfo::Reach;
use crate::issuer::{CannotTell, Issuer};
use crate::store::invalidation::Epoch;
use crate::store::refused::Refused;
use crate::store::stores::Stores;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{TokenDigest, TokenDigester};
use crate::tiers::policy::Policy;
use crate::tiers::record::{IdentitySource, ProfileRecord, VerdictRecord};
use crate::tiers::table::TierIndex;
use crate::token::claims::VerifiedClaims;
use crate::token::email::{self, Email, EmailRules, FoundEmail};
use crate::token::json::Object;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verified};

/// A verified identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who vouches for it.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: String,
    /// The email, if one is known.
    pub email: Option<Email>,
    /// Whether the issuer says that the email is verified.
    pub email_verified: Option<bool>,
    /// Whether there is none because the issuer names only addresses that it may not name (`email_domains`).
    pub email_not_allowed: bool,
    /// Where the email came from.
    pub source: IdentitySource,
    /// Whether `aud` was checked; it cannot be for a foreign token.
    pub audience_checked: bool,
    /// The claims, for other headers and for route requirements.
    pub claims: Object,
    /// When the oldest part of it was vouched for.
    pub verified_at: Timestamp,
}

/// An identity, and as what it is served.
pub struct Resolved {
    /// The identity.
    pub identity: Identity,
    /// The tier, and for how long.
    pub serving: Serving,
    /// The store that the tier's record came from; `None` if it was made just now.
    pub store: Option<&'static str>,
    /// Why the issuer could not tell, if no email is known for that reason.
    pub email_unknown: Option<CannotTell>,
}

/// Finds out who a verified token is.
pub struct Identities {
    stores: Arc<Stores>,
    digester: Arc<TokenDigester>,
    policy: Policy,
    settings: PolicySettings,
    clock: Clock,
    metrics: Arc<Metrics>,
    profile_flights: Singleflight<[u8; 32], Result<Arc<ProfileRecord>, Failure>>,
    verdict_flights: Singleflight<[u8; 32], Result<Arc<VerdictRecord>, Failure>>,
    revalidations: Revalidations,
}

/// A token under judgement.
#[derive(Clone, Copy)]
pub struct Subjected<'t> {
    /// The token.
    pub token: &'t str,
    /// Its digest.
    pub digest: TokenDigest,
    /// When the judgement began.
    pub since: Epoch,
    /// The oldest tier that is of use: rather than to serve an older one, the issuer is asked.
    pub oldest: Option<TierIndex>,
}

impl Identities {
    /// With the stores and the policy in force.
    #[must_use]
    pub fn new(
        stores: Arc<Stores>,
        digester: Arc<TokenDigester>,
        policy: Policy,
        settings: PolicySettings,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let revalidations = Revalidations::new(policy.table());
        Arc::new(Self {
            stores,
            digester,
            policy,
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

    /// Resolves `verified`.
    ///
    /// # Errors
    /// [`Failure`]: the issuer's definitive no, or that it cannot tell and no tier may answer.
    pub async fn resolve(
        self: &Arc<Self>,
        verified: Verified,
        subjected: Subjected<'_>,
    ) -> Result<Resolved, Failure> {
        match verified {
            Verified::Local { issuer, claims } => self.local(issuer, claims, subjected).await,
            Verified::Foreign { issuer, why } => self.foreign(issuer, why.to_string(), subjected).await,
        }
    }

    async fn local(
        self: &Arc<Self>,
        issuer: Arc<Issuer>,
        claims: VerifiedClaims,
        subjected: Subjected<'_>,
    ) -> Result<Resolved, Failure> {
        let now = self.clock.now();
        let expires_at = claims.expires_at();
        // In grace it is served this once and not remembered: as soon as the breaker is closed, it is refused.
        let end = if claims.in_grace() { now } else { claims.not_after() };
        let bounds = Bounds { end, oldest: subjected.oldest };
        let mut identity = Identity {
            issuer: issuer.name().clone(),
            subject: claims.subject().to_owned(),
            email: None,
            email_verified: None,
            email_not_allowed: false,
            source: IdentitySource::Claims,
            audience_checked: true,
            claims: claims.into_all(),
            verified_at: now,
        };
        let (mut serving, mut store) = (self.serve_claims(now, end), None);
        let mut email_unknown = None;
        if let Some(found) = self.find_email(&issuer, &identity.claims) {
            self.metrics.email_from(&found.path);
            (identity.email, identity.email_verified) = (Some(found.email), found.verified);
        } else if self.names_others(&issuer, &identity.claims) {
            // What it signed is its word on the email; asked again, it would say the same.
            self.metrics.email_from("not_allowed");
            identity.email_not_allowed = true;
        } else if let reach @ (Reach::Listed | Reach::Possible) = issuer.reach(&identity.claims) {
            let profile = Profile {
                reach,
                key: self.digester.subject(issuer.name(), &identity.subject),
                issuer,
                subject: identity.subject.clone(),
                token: subjected.token.to_owned(),
                digest: subjected.digest,
                expires_at,
            };
            match self.answer(profile, bounds).await {
                Ok(answered) => {
                    let record = answered.record;
                    identity.email = record.email.as_deref().and_then(Email::parse);
                    identity.email_verified = record.email_verified;
                    if let Some(name) = &record.name {
                        identity.claims.entry("name").or_insert_with(|| name.as_str().into());
                    }
                    identity.source = IdentitySource::Userinfo;
                    identity.verified_at = record.verified_at;
                    (serving, store) = (answered.serving, answered.store);
                    self.metrics.email_from(match store {
                        Some(_) => "profile",
                        None => asked_source(record.email.is_some()),
                    });
                }
                Err(Failure::CannotTell(error)) => email_unknown = Some(error),
                Err(no) => return Err(no),
            }
        } else {
            self.metrics.email_from("none");
        }
        Ok(Resolved { identity, serving, store, email_unknown })
    }

    /// A token that only the issuer can judge.
    async fn foreign(
        self: &Arc<Self>,
        issuer: Arc<Issuer>,
        why: String,
        subjected: Subjected<'_>,
    ) -> Result<Resolved, Failure> {
        let (token, digest) = (subjected.token.to_owned(), subjected.digest);
        let verdict = Verdict { issuer: issuer.clone(), token, digest, since: subjected.since, why };
        let bounds = Bounds { end: Timestamp::MAX, oldest: subjected.oldest };
        let Answered { record, serving, store } = self.answer(verdict, bounds).await?;
        let identity = self.identity_of(&issuer, &record).ok_or(CannotTell::Garbage("unreadable claims"))?;
        if store.is_none() {
            self.metrics.email_from(asked_source(identity.email.is_some()));
        }
        Ok(Resolved { identity, serving, store, email_unknown: None })
    }

    /// In the claims of a token as in those of `/userinfo`.
    fn email_in(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        email::find(claims, issuer.settings().email_rules(self.settings.require_verified_email))
    }

    /// Whether claims that name no email that counts would name one, could the issuer name any.
    fn names_others(&self, issuer: &Issuer, claims: &Object) -> bool {
        let rules = issuer.settings().email_rules(self.settings.require_verified_email);
        !rules.domains.is_empty() && email::find(claims, EmailRules { domains: &[], ..rules }).is_some()
    }

    /// The same where the claims are seen for the first time, so that a conflict is counted once.
    fn find_email(&self, issuer: &Issuer, claims: &Object) -> Option<FoundEmail> {
        let found = self.email_in(issuer, claims);
        if found.as_ref().is_some_and(|found| found.conflict) {
            self.metrics.email_conflict();
        }
        found
    }

    /// A no, whoever waited for it, is a no from then on: for `negative_ttl`, and until the token ends if the issuer said
    /// why. A profile that another token brought must not make it a yes.
    fn refuse_from_now_on(&self, digest: TokenDigest, expires_at: Timestamp, refusal: Refusal) {
        let left = if refusal.ends_records() { expires_at.since(self.clock.now()) } else { Duration::ZERO };
        let ttl = self.settings.negative_ttl.max(left);
        let refused = Refused::new(Arc::new(refusal), ttl, &self.clock);
        self.stores.refuse(digest, refused);
    }
}

/// The label of an email that the issuer was asked for.
fn asked_source(has_email: bool) -> &'static str {
    if has_email { "userinfo" } else { "none" }
}
