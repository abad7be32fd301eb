//! The issuer's verdict on a token that only the issuer can verify.

use std::sync::Arc;

use super::identities::Identities;
use super::lookup::{IssuerRefusal, Lookup};
use super::resolved::Identity;
use crate::clock::Timestamp;
use crate::guard::{Priority, SubjectKey as Subject};
use crate::issuer::userinfo::UserinfoAnswer;
use crate::issuer::{CannotTell, Issuer, UserinfoQuery};
use crate::store::invalidation::Epoch;
use crate::store::stores::Found;
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::Known;
use crate::tiers::record::{IdentitySource, VerdictRecord};
use crate::token::binding::Binding;
use crate::token::json::{self, Object};
use crate::verifier::Failure;

/// A foreign token.
pub(super) struct Verdict {
    pub issuer: Arc<Issuer>,
    pub token: String,
    pub digest: TokenDigest,
    /// When the check began.
    pub since: Epoch,
    /// Why it cannot be verified here.
    pub why: String,
}

impl Lookup for Verdict {
    type Record = VerdictRecord;

    fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    fn key(&self) -> &[u8; 32] {
        &self.digest.0
    }

    async fn find(&self, identities: &Identities, _: Timestamp) -> Option<Found<VerdictRecord>> {
        let found = identities.stores.verdict(&self.digest, self.since).await;
        found.filter(|(record, _)| self.is_of_use(record))
    }

    async fn find_shared(&self, identities: &Identities) -> Option<Arc<VerdictRecord>> {
        identities.stores.shared_verdict(&self.digest).await.filter(|record| self.is_of_use(record))
    }

    fn digest(&self) -> TokenDigest {
        self.digest
    }

    fn refuse(&self, identities: &Identities, no: IssuerRefusal) -> Failure {
        let refusal = no.refusal(format!("; not judged here, because {}", self.why));
        identities.refuse_from_now_on(self.digest, identities.clock.now(), refusal.clone());
        refusal.into()
    }

    fn known(&self, record: &VerdictRecord) -> Known {
        record.known()
    }

    fn has_email(record: &VerdictRecord) -> bool {
        record.email.is_some()
    }

    fn query(&self, identities: &Identities, known: Option<&VerdictRecord>) -> UserinfoQuery {
        let subject = known.map(|record| record.subject.clone());
        let about = match &subject {
            Some(subject) => identities.digester.subject(self.issuer.name(), subject).0,
            None => self.digest.0,
        };
        UserinfoQuery {
            token: self.token.clone(),
            subject,
            about: Some(Subject::from_digest(about)),
            priority: if known.is_some() { Priority::Foreground } else { Priority::FirstSeen },
        }
    }

    async fn ask(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        query: UserinfoQuery,
        asked_at: Timestamp,
    ) -> Result<Arc<VerdictRecord>, Failure> {
        let (this, all) = (self.clone(), identities.clone());
        let flight = identities.verdict_flights.run(self.digest.0, move || async move {
            if let Some(record) = all.stores.verdict_of(&this.digest, &(asked_at..=all.clock.now()))
                && this.is_of_use(&record)
            {
                return Ok(record);
            }
            if let Some(refusal) = all.stores.refusal(&this.digest, &all.clock) {
                return Err(Failure::No((*refusal).clone()));
            }
            all.ask_for_all(&*this, this.digest.0, this.put(&all, query)).await
        });
        let (result, role) = flight.await.map_err(CannotTell::from)?;
        identities.count(role);
        result
    }
}

impl Verdict {
    /// Whether the record is usable. A record with unreadable claims is not. Nor is a verdict of another
    /// issuer, which may come from a former configuration or from an instance with another one: an issuer
    /// that is not configured admits nobody.
    fn is_of_use(&self, record: &VerdictRecord) -> bool {
        record.issuer == **self.issuer.name() && claims(record).is_some()
    }

    async fn put(
        &self,
        identities: &Identities,
        query: UserinfoQuery,
    ) -> Result<Arc<VerdictRecord>, Failure> {
        let since = identities.stores.epoch(&self.digest);
        let no = match self.issuer.ask(query).await? {
            UserinfoAnswer::Accepted { subject, claims } => {
                let found = identities.find_email(&self.issuer, &claims);
                let now = identities.clock.now();
                let known = identities.stores.verdict(&self.digest, since).await;
                let known = known.filter(|(record, _)| record.issuer == **self.issuer.name());
                let record = Arc::new(VerdictRecord {
                    verified_at: now,
                    first_verified_at: known.map_or(now, |(record, _)| record.first_verified_at.min(now)),
                    not_after: None,
                    foreign: true,
                    issuer: self.issuer.name().to_string(),
                    subject,
                    email_verified: found.as_ref().and_then(|found| found.verified),
                    email: found.map(|found| found.email.as_str().to_owned()),
                    source: IdentitySource::Userinfo,
                    claims: serde_json::to_string(&claims).unwrap_or_default(),
                });
                identities.stores.keep_verdict(self.digest, record.clone(), since);
                return Ok(record);
            }
            UserinfoAnswer::Rejected(rejection) => {
                IssuerRefusal { forbids: false, certain: rejection.is_certain() }
            }
            UserinfoAnswer::Forbidden(rejection) => {
                IssuerRefusal { forbids: true, certain: rejection.is_certain() }
            }
        };
        Err(self.refuse(identities, no))
    }
}

impl Identities {
    /// The identity that a verdict is about; `None` if its claims cannot be read. The email is searched again
    /// in the claims from the issuer, because the current settings decide which email counts, not those at
    /// the time of the verdict.
    pub(super) fn identity_of(&self, issuer: &Issuer, record: &VerdictRecord) -> Option<Identity> {
        let claims = claims(record)?;
        let found = self.email_in(issuer, &claims);
        Some(Identity {
            issuer: issuer.name().clone(),
            subject: record.subject.clone(),
            email_verified: found.as_ref().and_then(|found| found.verified),
            email_not_allowed: found.is_none() && self.names_others(issuer, &claims),
            email: found.map(|found| found.email),
            source: record.source,
            audience_checked: false,
            at_jwt: false,
            binding: Binding::of(&claims, issuer.settings().sender_constrained).unwrap_or(Binding::UNKNOWN),
            claims,
            own_claims: false,
            name: None,
            verified_at: record.verified_at,
        })
    }
}

fn claims(record: &VerdictRecord) -> Option<Object> {
    json::object(record.claims.as_bytes()).ok()
}
