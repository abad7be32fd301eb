//! Who it is: verified claims, or the issuer's word, → [`Identity`].
//!
//! The email is looked for in this order, and here it stands once for all:
//!
//! 1. the token's own claims, in the order of `email_claims` (direct, nested, namespaced);
//! 2. the profile of the subject, while its tier is fresh enough to answer;
//! 3. `/userinfo`, behind singleflight, budget and breaker;
//! 4. if that cannot tell: the profile again, from any older tier.
//!
//! A foreign token goes through 2 to 4 as a whole, with a verdict in place of a profile.

mod revalidation;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use self::revalidation::Revalidations;
use crate::clock::{Clock, Timestamp};
use crate::config::PolicySettings;
use crate::decision::Serving;
use crate::guard::{Priority, Role, Singleflight, SingleflightSettings, SubjectKey as Subject};
use crate::issuer::userinfo::Word;
use crate::issuer::{CannotTell, Issuer, Question};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{SubjectKey, TokenDigest, TokenDigester};
use crate::tiers::policy::{Plan, Policy};
use crate::tiers::record::{IdentitySource, ProfileRecord, VerdictRecord};
use crate::tiers::stores::{Refused, Stores};
use crate::tiers::table::TierIndex;
use crate::token::claims::VerifiedClaims;
use crate::token::email::{self, Email};
use crate::token::json::{self, Object};
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verified};

/// How long an answer that was served stale is given out unseen, or as long as no call can leave anyway, which is five
/// minutes at most. Short, so that recovery is noticed; long enough that an outage does not cost a signature check for
/// every request.
const STALE_PAUSE: Duration = Duration::from_secs(10);

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
}

/// What is known of an email: from a record or from the issuer just now.
struct Told {
    email: Option<Email>,
    verified: Option<bool>,
    at: Timestamp,
    serving: Serving,
    store: Option<&'static str>,
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
            Verified::Local { issuer, claims } => self.local(&issuer, claims, subjected).await,
            Verified::Foreign { issuer, why } => self.foreign(&issuer, &why, subjected).await,
        }
    }

    async fn local(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        claims: VerifiedClaims,
        subjected: Subjected<'_>,
    ) -> Result<Resolved, Failure> {
        let now = self.clock.now();
        let end = claims.not_after();
        let paths = &issuer.settings().email_claims;
        let mut told = Told {
            email: None,
            verified: None,
            at: now,
            serving: self.serve(TierIndex::YOUNGEST, now, end),
            store: None,
        };
        let mut source = IdentitySource::Claims;
        let mut email_unknown = None;
        if let Some(found) = email::find(claims.all(), paths, self.settings.require_verified_email) {
            self.metrics.email_from(&found.path);
            if found.conflict {
                self.metrics.email_conflict();
            }
            (told.email, told.verified) = (Some(found.email), found.verified);
        } else if issuer.settings().userinfo {
            match self.profile(issuer, &claims, subjected).await {
                Ok(profile) => {
                    told = profile;
                    source = IdentitySource::Userinfo;
                }
                Err(Failure::CannotTell(error)) => email_unknown = Some(error),
                Err(no) => return Err(no),
            }
        } else {
            self.metrics.email_from("none");
        }
        let identity = Identity {
            issuer: issuer.name().clone(),
            subject: claims.subject().to_owned(),
            email: told.email,
            email_verified: told.verified,
            source,
            audience_checked: true,
            claims: claims.into_all(),
            verified_at: told.at,
        };
        Ok(Resolved { identity, serving: told.serving, store: told.store, email_unknown })
    }

    /// The email of a verified subject whose token names none.
    async fn profile(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        claims: &VerifiedClaims,
        subjected: Subjected<'_>,
    ) -> Result<Told, Failure> {
        let now = self.clock.now();
        let key = self.digester.subject(issuer.name(), claims.subject());
        let record = self.stores.profile(&key).await.filter(|(record, _)| self.is_of_use(record, now));
        let plan = record.as_ref().map_or(Plan::NOTHING_KNOWN, |(record, _)| {
            self.policy.before_asking(&record.known(Some(claims.expires_at())), now, issuer.open_since())
        });
        let question = Question {
            token: subjected.token.to_owned(),
            subject: Some(claims.subject().to_owned()),
            about: Some(Subject::from_digest(key.0)),
            priority: Priority::Foreground,
        };
        let from_record = |tier: TierIndex, why_stale: Option<&CannotTell>| {
            let (record, store) = record.as_ref()?;
            self.metrics.email_from("profile");
            Some(Told {
                email: record.email.as_deref().and_then(Email::parse),
                verified: record.email_verified,
                at: record.verified_at,
                serving: self.serve_record(tier, why_stale, record.verified_at, now, claims.not_after()),
                store: Some(*store),
            })
        };
        if let Some(told) = plan.serves_now().and_then(|tier| from_record(tier, None)) {
            if matches!(plan, Plan::ServeAndRevalidate(_))
                && let Some(turn) = self.revalidations.turn(&key.0, told.at, now)
            {
                let question = Question { priority: Priority::Background, ..question };
                self.revalidate_profile(issuer, key, (subjected.digest, now), question, turn);
            }
            return Ok(told);
        }
        match self.ask_profile(issuer, key, question, (subjected.digest, now)).await {
            Ok(record) => {
                let at = record.verified_at;
                self.metrics.email_from(if record.email.is_some() { "userinfo" } else { "none" });
                let mut serving = self.serve(TierIndex::YOUNGEST, at, claims.not_after());
                if record.email.is_none() {
                    serving.until = serving.until.min(at.after(self.settings.negative_ttl));
                }
                Ok(Told {
                    email: record.email.as_deref().and_then(Email::parse),
                    verified: record.email_verified,
                    at,
                    serving,
                    store: None,
                })
            }
            Err(Failure::CannotTell(error)) => match plan {
                Plan::Ask { stale: Some(tier) } => {
                    from_record(tier, Some(&error)).ok_or(Failure::CannotTell(error))
                }
                _ => Err(Failure::CannotTell(error)),
            },
            Err(no) => Err(no),
        }
    }

    /// A profile without an email is soon of no use: the user may get one.
    fn is_of_use(&self, record: &ProfileRecord, now: Timestamp) -> bool {
        record.email.is_some() || now.since(record.verified_at) < self.settings.negative_ttl
    }

    /// Asks for a subject's profile. Everybody who asks about one subject shares one call; but a no is a word on the
    /// token that the call was made with, so who only shared it asks again with their own.
    ///
    /// The record is kept before the flight lands, and looked for again when one starts: so who missed it just before
    /// it was kept finds it here, and does not start a second call.
    async fn ask_profile(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        key: SubjectKey,
        question: Question,
        subjected: (TokenDigest, Timestamp),
    ) -> Result<Arc<ProfileRecord>, Failure> {
        let (digest, asked_at) = subjected;
        let own = Question {
            token: question.token.clone(),
            subject: question.subject.clone(),
            about: question.about,
            priority: question.priority,
        };
        let (this, leading) = (self.clone(), issuer.clone());
        let flight = self.profile_flights.run(key.0, move || async move {
            match this.stores.profile_of(&key, &(asked_at..=this.clock.now())) {
                Some(record) => Ok(record),
                None => this.put_profile(&leading, key, question).await,
            }
        });
        match flight.await.map_err(CannotTell::from)? {
            (Err(Failure::No(_)), Role::Joined) => {
                let (this, issuer) = (self.clone(), issuer.clone());
                let flight = self
                    .profile_flights
                    .run(digest.0, move || async move { this.put_profile(&issuer, key, own).await });
                flight.await.map_err(CannotTell::from)?.0
            }
            (result, role) => {
                self.count(role);
                result
            }
        }
    }

    async fn put_profile(
        &self,
        issuer: &Arc<Issuer>,
        key: SubjectKey,
        question: Question,
    ) -> Result<Arc<ProfileRecord>, Failure> {
        match issuer.ask(question).await? {
            Word::Accepted { claims, .. } => {
                let record = Arc::new(self.profile_record(issuer, &claims));
                self.stores.keep_profile(key, record.clone());
                Ok(record)
            }
            Word::Rejected => {
                self.stores.forget_profile(&key);
                Err(Refusal::IssuerRejects { local: String::new() }.into())
            }
            Word::Forbidden => Err(Refusal::IssuerForbids.into()),
        }
    }

    fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
    }

    fn profile_record(&self, issuer: &Issuer, claims: &Object) -> ProfileRecord {
        let found =
            email::find(claims, &issuer.settings().email_claims, self.settings.require_verified_email);
        ProfileRecord {
            verified_at: self.clock.now(),
            email_verified: found.as_ref().and_then(|found| found.verified),
            email: found.map(|found| found.email.as_str().to_owned()),
            name: claims.get("name").and_then(serde_json::Value::as_str).map(str::to_owned),
        }
    }

    fn revalidate_profile(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        key: SubjectKey,
        subjected: (TokenDigest, Timestamp),
        question: Question,
        turn: OwnedSemaphorePermit,
    ) {
        let (this, issuer) = (self.clone(), issuer.clone());
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(Failure::No(refusal)) = this.ask_profile(&issuer, key, question, subjected).await {
                this.stores.forget_profile(&key);
                this.refuse_from_now_on(subjected.0, refusal);
            }
        });
    }

    /// A no, whoever waited for it, is a no from then on.
    fn refuse_from_now_on(&self, digest: TokenDigest, refusal: Refusal) {
        let refusal = Arc::new(refusal);
        let until = self.clock.now().after(self.settings.negative_ttl);
        self.stores.refuse(digest, Refused { refusal, until });
    }

    /// A token that only the issuer can judge.
    async fn foreign(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        why: &str,
        subjected: Subjected<'_>,
    ) -> Result<Resolved, Failure> {
        let now = self.clock.now();
        let record = self.stores.verdict(&subjected.digest).await;
        let plan = record.as_ref().map_or(Plan::NOTHING_KNOWN, |(record, _)| {
            self.policy.before_asking(&record.known(), now, issuer.open_since())
        });
        let question = Question {
            token: subjected.token.to_owned(),
            subject: record.as_ref().map(|(record, _)| record.subject.clone()),
            about: Some(Subject::from_digest(match &record {
                Some((record, _)) => self.digester.subject(issuer.name(), &record.subject).0,
                None => subjected.digest.0,
            })),
            priority: if record.is_some() { Priority::Foreground } else { Priority::Suspect },
        };
        let from_record = |tier: TierIndex, why_stale: Option<&CannotTell>| {
            let (record, store) = record.as_ref()?;
            let identity = self.identity_of(issuer, record)?;
            let serving = self.serve_record(tier, why_stale, record.verified_at, now, Timestamp::MAX);
            Some(Resolved { identity, serving, store: Some(*store), email_unknown: None })
        };
        if let Some(resolved) = plan.serves_now().and_then(|tier| from_record(tier, None)) {
            let digest = subjected.digest;
            if matches!(plan, Plan::ServeAndRevalidate(_))
                && let Some(turn) = self.revalidations.turn(&digest.0, resolved.identity.verified_at, now)
            {
                let question = Question { priority: Priority::Background, ..question };
                self.revalidate_verdict(issuer, why, (digest, now), question, turn);
            }
            return Ok(resolved);
        }
        match self.ask_verdict(issuer, why, (subjected.digest, now), question).await {
            Ok(record) => {
                let identity =
                    self.identity_of(issuer, &record).ok_or(CannotTell::Garbage("unreadable claims"))?;
                self.metrics.email_from(if identity.email.is_some() { "userinfo" } else { "none" });
                let mut serving = self.serve(TierIndex::YOUNGEST, record.verified_at, Timestamp::MAX);
                if identity.email.is_none() {
                    serving.until = serving.until.min(record.verified_at.after(self.settings.negative_ttl));
                }
                Ok(Resolved { identity, serving, store: None, email_unknown: None })
            }
            Err(Failure::CannotTell(error)) => match plan {
                Plan::Ask { stale: Some(tier) } => {
                    from_record(tier, Some(&error)).ok_or(Failure::CannotTell(error))
                }
                _ => Err(Failure::CannotTell(error)),
            },
            Err(no) => Err(no),
        }
    }

    /// Asks for the issuer's verdict on a token; as [`Identities::ask_profile`], yes or no is kept before the flight
    /// lands.
    async fn ask_verdict(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        why: &str,
        subjected: (TokenDigest, Timestamp),
        question: Question,
    ) -> Result<Arc<VerdictRecord>, Failure> {
        let (digest, asked_at) = subjected;
        let (this, issuer, why) = (self.clone(), issuer.clone(), why.to_owned());
        let flight = self.verdict_flights.run(digest.0, move || async move {
            if let Some(record) = this.stores.verdict_of(&digest, &(asked_at..=this.clock.now())) {
                return Ok(record);
            }
            if let Some(refusal) = this.stores.refusal(&digest, this.clock.now()) {
                return Err(Failure::No((*refusal).clone()));
            }
            let refusal = match issuer.ask(question).await? {
                Word::Accepted { subject, claims } => {
                    let record = Arc::new(this.verdict_record(&issuer, subject, &claims));
                    this.stores.keep_verdict(digest, record.clone());
                    return Ok(record);
                }
                Word::Rejected => {
                    Refusal::IssuerRejects { local: format!("; not judged here, because {why}") }
                }
                Word::Forbidden => Refusal::IssuerForbids,
            };
            this.refuse_from_now_on(digest, refusal.clone());
            Err(refusal.into())
        });
        let (result, role) = flight.await.map_err(CannotTell::from)?;
        self.count(role);
        result
    }

    fn verdict_record(&self, issuer: &Issuer, subject: String, claims: &Object) -> VerdictRecord {
        let found =
            email::find(claims, &issuer.settings().email_claims, self.settings.require_verified_email);
        VerdictRecord {
            verified_at: self.clock.now(),
            not_after: None,
            foreign: true,
            issuer: issuer.name().to_string(),
            subject,
            email_verified: found.as_ref().and_then(|found| found.verified),
            email: found.map(|found| found.email.as_str().to_owned()),
            source: IdentitySource::Userinfo,
            claims: serde_json::to_string(claims).unwrap_or_default(),
        }
    }

    /// What comes of it is kept by [`Identities::ask_verdict`].
    fn revalidate_verdict(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        why: &str,
        subjected: (TokenDigest, Timestamp),
        question: Question,
        turn: OwnedSemaphorePermit,
    ) {
        let (this, issuer, why) = (self.clone(), issuer.clone(), why.to_owned());
        tokio::spawn(async move {
            let _turn = turn;
            let _ = this.ask_verdict(&issuer, &why, subjected, question).await;
        });
    }

    /// An identity from a kept verdict; `None` if it cannot be read, which counts as no record.
    fn identity_of(&self, issuer: &Issuer, record: &VerdictRecord) -> Option<Identity> {
        Some(Identity {
            issuer: issuer.name().clone(),
            subject: record.subject.clone(),
            email: record.email.as_deref().and_then(Email::parse),
            email_verified: record.email_verified,
            source: record.source,
            audience_checked: false,
            claims: json::object(record.claims.as_bytes()).ok()?,
            verified_at: record.verified_at,
        })
    }

    /// Served as new: unseen until the tier ends, or the token does.
    fn serve(&self, tier: TierIndex, at: Timestamp, end: Timestamp) -> Serving {
        let age = self.policy.table().row(tier).map_or(Duration::ZERO, |row| row.age);
        Serving { tier, stale: false, until: at.after(age).min(end) }
    }

    /// Served from a record. One that is past the fresh tiers is looked at again soon: to revalidate it, or, if it is
    /// served because the issuer cannot tell, to notice that it can; not before it is worth asking it, though.
    fn serve_record(
        &self,
        tier: TierIndex,
        why_stale: Option<&CannotTell>,
        at: Timestamp,
        now: Timestamp,
        end: Timestamp,
    ) -> Serving {
        let fresh = self.serve(tier, at, end);
        let until = match why_stale {
            None if tier == TierIndex::YOUNGEST => fresh.until,
            None => fresh.until.min(now.after(STALE_PAUSE)),
            Some(error) => fresh.until.min(now.after(STALE_PAUSE.max(error.retry_after()))),
        };
        Serving { tier, stale: why_stale.is_some(), until }
    }
}
