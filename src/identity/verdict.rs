//! The issuer's verdict on a token that only the issuer can verify.

use std::sync::Arc;

use serde_json::Value;

use super::identities::Identities;
use super::lookup::Lookup;
use super::resolved::Identity;
use crate::clock::Timestamp;
use crate::guard::{Priority, SubjectKey as Subject};
use crate::issuer::userinfo::{Reach, UserinfoAnswer};
use crate::issuer::{CannotTell, Issuer, UserinfoQuery};
use crate::store::invalidation::Epoch;
use crate::store::stores::Found;
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::Known;
use crate::tiers::record::{IdentitySource, VerdictRecord};
use crate::token::binding::Binding;
use crate::token::json::{self, Object};
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// The member of an introspected token's claims that holds the answer of `/userinfo`. That is about the
/// subject, and is not mixed with the token's own claims.
const USERINFO: &str = "userinfo";

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

    fn refuse(&self, identities: &Identities, refusal: Refusal) -> Failure {
        let refusal = refusal.not_judged_here(&self.why);
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
    /// Whether the record is usable. A record with unreadable claims is not, and neither is a verdict of an
    /// issuer or for an audience that is not configured. Such a verdict comes from a former configuration or
    /// from an instance with another one, and admits nobody.
    fn is_of_use(&self, record: &VerdictRecord) -> bool {
        record.issuer == **self.issuer.name()
            && claims(record).is_some_and(|claims| self.issuer.is_for_us(&claims).is_ok())
    }

    /// Adds the answer of `/userinfo`, if introspection has named no email and `/userinfo` may have one. Its
    /// refusal is no refusal of the token, which introspection has accepted.
    async fn complete(
        &self,
        identities: &Identities,
        subject: &str,
        claims: &mut Object,
        query: UserinfoQuery,
    ) -> Result<(), CannotTell> {
        if !self.issuer.are_own(claims)
            || identities.email_in(&self.issuer, claims).is_some()
            || identities.names_others(&self.issuer, claims)
            || self.issuer.reach(claims) == Reach::None
        {
            return Ok(());
        }
        let subject = Some(subject.to_owned());
        let priority = match query.priority {
            Priority::FirstSeen => Priority::Foreground,
            priority => priority,
        };
        if let UserinfoAnswer::Accepted { claims: more, .. } =
            self.issuer.ask(UserinfoQuery { subject, priority, ..query }).await?
        {
            claims.insert(USERINFO.to_owned(), Value::Object(more));
        }
        Ok(())
    }

    async fn put(
        &self,
        identities: &Identities,
        query: UserinfoQuery,
    ) -> Result<Arc<VerdictRecord>, Failure> {
        let since = identities.stores.epoch(&self.digest);
        let no = match self.issuer.judge(query.clone()).await? {
            UserinfoAnswer::Accepted { subject, mut claims, issued_at, expires_at } => {
                // The place of what `/userinfo` is asked for below, whatever the answer has there itself.
                claims.remove(USERINFO);
                self.complete(identities, &subject, &mut claims, query).await?;
                let found =
                    identities.find_email(&self.issuer, describes_email(identities, &self.issuer, &claims));
                let now = identities.clock.now();
                let known = identities.stores.verdict(&self.digest, since).await;
                let known = known.filter(|(record, _)| record.issuer == **self.issuer.name());
                let record = Arc::new(VerdictRecord {
                    verified_at: now,
                    first_verified_at: known
                        .map_or(now, |(record, _)| record.first_verified_at.min(now))
                        .min(issued_at.unwrap_or(now)),
                    not_after: expires_at,
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
            UserinfoAnswer::Refused(no) => no,
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
        let about_email = describes_email(self, issuer, &claims);
        let found = self.email_in(issuer, about_email);
        Some(Identity {
            issuer: issuer.name().clone(),
            subject: record.subject.clone(),
            email_verified: found.as_ref().and_then(|found| found.verified),
            email_not_allowed: found.is_none() && self.names_others(issuer, about_email),
            email: found.map(|found| found.email),
            source: record.source,
            audience_checked: issuer.is_for_us(&claims).unwrap_or(false),
            at_jwt: false,
            binding: Binding::of(&claims, issuer.settings().sender_constrained).unwrap_or(Binding::UNKNOWN),
            own_claims: issuer.are_own(&claims),
            name: profile(&claims).and_then(|more| more.get("name")?.as_str()).map(str::to_owned),
            claims,
            verified_at: record.verified_at,
        })
    }
}

/// The answer of `/userinfo` about the subject of an introspected token, if it was asked.
fn profile(claims: &Object) -> Option<&Object> {
    claims.get(USERINFO)?.as_object()
}

/// Where the email is: in the claims, or in the answer of `/userinfo` if they name none.
fn describes_email<'c>(identities: &Identities, issuer: &Issuer, claims: &'c Object) -> &'c Object {
    let is_named = identities.email_in(issuer, claims).is_some() || identities.names_others(issuer, claims);
    profile(claims).filter(|_| !is_named).unwrap_or(claims)
}

fn claims(record: &VerdictRecord) -> Option<Object> {
    json::object(record.claims.as_bytes()).ok()
}
