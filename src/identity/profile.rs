//! The profile of a verified subject whose token names no email.

use std::sync::Arc;

use super::from_claims;
use super::identities::Identities;
use super::lookup::Lookup;
use crate::clock::Timestamp;
use crate::guard::{Priority, Role, SubjectKey as Subject};
use crate::issuer::userinfo::{Reach, UserinfoAnswer};
use crate::issuer::{CannotTell, Issuer, UserinfoQuery};
use crate::store::stores::Found;
use crate::tiers::digest::{SubjectKey, TokenDigest};
use crate::tiers::policy::Known;
use crate::tiers::record::ProfileRecord;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;
use crate::verifier::settings::PolicySettings;

/// A subject, and the token for the call to its issuer.
pub(super) struct Profile {
    pub issuer: Arc<Issuer>,
    pub subject: String,
    /// The key of the subject at this issuer.
    pub key: SubjectKey,
    pub token: String,
    pub digest: TokenDigest,
    /// `exp` of the token.
    pub expires_at: Timestamp,
    /// Whether the answer of `/userinfo` about the token counts.
    pub reach: Reach,
}

impl Lookup for Profile {
    type Record = ProfileRecord;

    fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    fn key(&self) -> &[u8; 32] {
        &self.key.0
    }

    async fn find(&self, identities: &Identities, now: Timestamp) -> Option<Found<ProfileRecord>> {
        let found = identities.stores.profile(&self.key).await;
        let found = found.filter(|(record, _)| self.is_of_use(record, identities, now));
        if found.is_some() || self.reach == Reach::Listed {
            return found;
        }
        let lately = now.before(identities.settings.negative_ttl)..=now;
        let refused = identities.stores.profile_of(&self.without_email_key(), &lately)?;
        self.is_of_use(&refused, identities, now).then_some((refused, "memory"))
    }

    async fn find_shared(&self, identities: &Identities) -> Option<Arc<ProfileRecord>> {
        let now = identities.clock.now();
        let found = identities.stores.shared_profile(&self.key).await;
        found.filter(|record| self.is_of_use(record, identities, now))
    }

    fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// Remembers the issuer's refusal of this token. If the issuer gave a reason, the subject's profile is
    /// deleted, so that no other token of the subject is answered from it.
    fn refuse(&self, identities: &Identities, refusal: Refusal) -> Failure {
        if refusal.ends_records() {
            identities.stores.forget_profile(&self.key);
        }
        identities.refuse_from_now_on(self.digest, self.expires_at, refusal.clone());
        refusal.into()
    }

    fn known(&self, record: &ProfileRecord) -> Known {
        record.known(Some(self.expires_at))
    }

    fn has_email(record: &ProfileRecord) -> bool {
        record.email.is_some()
    }

    fn query(&self, _: &Identities, _: Option<&ProfileRecord>) -> UserinfoQuery {
        UserinfoQuery {
            token: self.token.clone(),
            subject: Some(self.subject.clone()),
            about: Some(Subject::from_digest(self.key.0)),
            priority: Priority::Foreground,
        }
    }

    /// Requests about one subject share one call. But a refusal is about the token that the call was made
    /// with. So a request that only joined the call asks again with its own token.
    async fn ask(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        query: UserinfoQuery,
        asked_at: Timestamp,
    ) -> Result<Arc<ProfileRecord>, Failure> {
        let (this, all, own) = (self.clone(), identities.clone(), query.clone());
        let flight = identities.profile_flights.run(self.flight(), move || async move {
            let now = all.clock.now();
            match all.stores.profile_of(&this.key, &(asked_at..=now)) {
                Some(record) if this.is_of_use(&record, &all, now) => Ok(record),
                _ => all.ask_for_all(&*this, this.flight(), this.put(&all, query)).await,
            }
        });
        match flight.await.map_err(CannotTell::from)? {
            (Err(Failure::No(_)), Role::Joined) => {
                let (this, all) = (self.clone(), identities.clone());
                let flight = identities
                    .profile_flights
                    .run(self.digest.0, move || async move { this.put(&all, own).await });
                flight.await.map_err(CannotTell::from)?.0
            }
            (result, role) => {
                identities.count(role);
                result
            }
        }
    }
}

impl Profile {
    /// Whether the record is usable. A profile without an email is usable only for `negative_ttl`, because
    /// the user may get an email. A profile that was made under other settings for emails is not usable:
    /// under the current settings another email, or none, may count.
    fn is_of_use(&self, record: &ProfileRecord, identities: &Identities, now: Timestamp) -> bool {
        let PolicySettings { negative_ttl, require_verified_email, .. } = identities.settings;
        let verified = !require_verified_email || record.email_verified == Some(true);
        let is_recent = now.since(record.verified_at) < negative_ttl;
        record.email_rules == from_claims::email_rules(self.issuer.settings())
            && (record.email.is_some() && verified || is_recent && record.email.is_none())
    }

    /// `/userinfo` requires an audience that the token does not have, so this token cannot get an email. This
    /// is remembered for `negative_ttl`, unless a stored profile has an email.
    ///
    /// # Errors
    /// [`CannotTell::Garbage`] if a stored profile has an email.
    async fn without_email(&self, identities: &Identities) -> Result<Arc<ProfileRecord>, Failure> {
        let known = identities.stores.profile(&self.key).await;
        if known.is_some_and(|(record, _)| record.email.is_some()) {
            return Err(CannotTell::Garbage("/userinfo refuses a token that does not list it").into());
        }
        let record = Arc::new(ProfileRecord {
            verified_at: identities.clock.now(),
            email_verified: None,
            email: None,
            name: None,
            email_rules: from_claims::email_rules(self.issuer.settings()),
        });
        let key = self.without_email_key();
        identities.stores.keep_profile(key, record.clone(), identities.stores.epoch_of_profile(&key));
        Ok(record)
    }

    /// The key under which "no email" is stored. It is the token's and not the subject's, because another
    /// token of the subject may get an email.
    fn without_email_key(&self) -> SubjectKey {
        SubjectKey(self.digest.0)
    }

    /// The key by which requests share a call: the subject's, unless the answer may be about the token alone.
    fn flight(&self) -> [u8; 32] {
        match self.reach {
            Reach::Listed => self.key.0,
            Reach::Possible | Reach::None => self.digest.0,
        }
    }

    async fn put(
        &self,
        identities: &Identities,
        query: UserinfoQuery,
    ) -> Result<Arc<ProfileRecord>, Failure> {
        let since = identities.stores.epoch_of_profile(&self.key);
        let no = match self.issuer.ask(query).await? {
            UserinfoAnswer::Refused(_) if self.reach != Reach::Listed => {
                return self.without_email(identities).await;
            }
            UserinfoAnswer::Accepted { claims, .. } => {
                let found = identities.find_email(&self.issuer, &claims);
                let now = identities.clock.now();
                let record = Arc::new(from_claims::record(&claims, found, self.issuer.settings(), now));
                identities.stores.keep_profile(self.key, record.clone(), since);
                return Ok(record);
            }
            UserinfoAnswer::Refused(no) => no,
        };
        Err(self.refuse(identities, no))
    }
}
