//! Lookup of a record that a request needs in addition to its token.
//!
//! There are two kinds of record: the profile of a subject whose token has no email, and the verdict on a
//! token that only the issuer can verify. [`Identities::answer`] handles both. The record answers while its
//! tier is fresh enough. Otherwise the issuer is asked. If it cannot tell, the record answers from any older
//! tier. A [`Lookup`] holds the differences: where the record is stored, and what a refusal means.
//!
//! **Concurrent requests share one call.** The result of a call is stored before its flight ends, and a new
//! flight first looks for a stored result. So a request that missed the result just before it was stored
//! finds it there, and does not start a second call.

use std::sync::Arc;
use std::time::Duration;

use super::identities::Identities;
use crate::clock::Timestamp;
use crate::guard::{Priority, Role};
use crate::issuer::{CannotTell, Issuer, UserinfoQuery};
use crate::store::stores::Found;
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::{IssuerAnswer, Known, Plan, Policy, Served, Serving};
use crate::tiers::record::Record;
use crate::tiers::table::TierIndex;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// A record that a request looks for.
pub(super) trait Lookup: Send + Sync + 'static {
    /// The kind of record.
    type Record: Record + Send + Sync + 'static;

    /// The issuer that is asked for it.
    fn issuer(&self) -> &Arc<Issuer>;

    /// The key of the record in the stores.
    fn key(&self) -> &[u8; 32];

    /// The stored record, if it is usable.
    fn find(
        &self,
        identities: &Identities,
        now: Timestamp,
    ) -> impl Future<Output = Option<Found<Self::Record>>> + Send;

    /// The record that another instance may have shared just now, if it is usable.
    fn find_shared(&self, identities: &Identities) -> impl Future<Output = Option<Arc<Self::Record>>> + Send;

    /// The token of the request.
    fn digest(&self) -> TokenDigest;

    /// Remembers that the issuer refuses the token.
    fn refuse(&self, identities: &Identities, refusal: Refusal) -> Failure;

    /// The properties of the record that the policy needs, for this token.
    fn known(&self, record: &Self::Record) -> Known;

    /// Whether the record names an email.
    fn has_email(record: &Self::Record) -> bool;

    /// The query to the issuer, with the priority of a request that waits for the answer.
    fn query(&self, identities: &Identities, known: Option<&Self::Record>) -> UserinfoQuery;

    /// Asks the issuer. Concurrent requests for the same record share one call, in this instance and in
    /// others. A record that was stored since `asked_at` is the answer. The issuer's answer, also a refusal,
    /// is stored even if no request waits for it any more.
    fn ask(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        query: UserinfoQuery,
        asked_at: Timestamp,
    ) -> impl Future<Output = Result<Arc<Self::Record>, Failure>> + Send;
}

/// The bounds of an answer.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The latest time at which it may be served.
    pub end: Timestamp,
    /// The oldest tier that may answer.
    pub oldest: Option<TierIndex>,
}

/// A record that answers, and how it is served.
pub(super) struct Answered<R> {
    pub record: Arc<R>,
    pub serving: Serving,
    /// The store that it came from; `None` if the issuer was asked just now.
    pub store: Option<&'static str>,
}

impl Identities {
    /// Looks up a record within these bounds. The policy decides what is done. This function only carries the
    /// decision out.
    pub(super) async fn answer<S: Lookup>(
        self: &Arc<Self>,
        lookup: S,
        Bounds { end, oldest }: Bounds,
    ) -> Result<Answered<S::Record>, Failure> {
        let (lookup, now) = (Arc::new(lookup), self.clock.now());
        let found = lookup.find(self, now).await;
        let known = found.as_ref().map(|(record, _)| lookup.known(record));
        let plan = known.map_or(Plan::NOTHING_KNOWN, |known| {
            self.policy.before_asking(&known, now, lookup.issuer().open_since()).within(oldest)
        });
        let query = lookup.query(self, found.as_ref().map(|(record, _)| &**record));
        let kept = |tier, why_stale: Option<&CannotTell>| {
            let (record, store) = found.clone()?;
            let at = record.kept().verified_at;
            let until = self.policy.unseen_until(tier, at, now, why_stale.map(CannotTell::retry_after));
            let until = until.min(end).min(Policy::verdict_ends(&lookup.known(&record)));
            let stale = why_stale.and(known).map(|known| self.policy.served_until(&known));
            let serving = Serving { tier, stale, from: now, until };
            Some(Answered { record, serving, store: Some(store) })
        };
        if let Some(answered) = plan.serves_now().and_then(|tier| kept(tier, None)) {
            if matches!(plan, Plan::ServeAndRevalidate(_)) {
                self.revalidate(&lookup, answered.record.kept().verified_at, query, now);
            }
            return Ok(answered);
        }
        let said = match plan {
            Plan::Refuse => Err(expired(known, now).into()),
            _ => lookup.ask(self, query, now).await,
        };
        match (plan.after_asking(IssuerAnswer::of(&said)), said) {
            (Served::Fresh, Ok(record)) => {
                let at = record.kept().verified_at;
                let mut until = self.policy.unseen_until(TierIndex::YOUNGEST, at, now, None).min(end);
                until = until.min(Policy::verdict_ends(&lookup.known(&record)));
                if !S::has_email(&record) {
                    until = until.min(at.after(self.settings.negative_ttl));
                }
                let serving = Serving { tier: TierIndex::YOUNGEST, stale: None, from: now, until };
                Ok(Answered { record, serving, store: None })
            }
            (Served::Stale(tier), Err(Failure::CannotTell(error))) => {
                kept(tier, Some(&error)).ok_or(Failure::CannotTell(error))
            }
            (_, Err(failure)) => Err(failure),
            // No plan leads here. It would be an acceptance that the policy does not allow.
            (_, Ok(_)) => Err(CannotTell::Garbage("an answer that no rule admits").into()),
        }
    }

    /// Asks the issuer in the background, if revalidation of this record is due.
    fn revalidate<S: Lookup>(
        self: &Arc<Self>,
        lookup: &Arc<S>,
        verified_at: Timestamp,
        query: UserinfoQuery,
        now: Timestamp,
    ) {
        let Some(permit) = self.revalidations.try_start(lookup.key(), verified_at, now) else { return };
        let query = UserinfoQuery { priority: Priority::Background, ..query };
        let (this, lookup) = (self.clone(), lookup.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ = lookup.ask(&this, query, now).await;
        });
    }

    /// Counts a call that was saved by sharing another one.
    pub(super) fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
    }

    /// The serving of an answer from verified claims alone. A second check would not ask the issuer either.
    /// So the answer is valid until the youngest tier ends, whatever the role of that tier, or until the
    /// token expires.
    pub(super) fn serve_claims(&self, now: Timestamp, end: Timestamp) -> Serving {
        let tier = TierIndex::YOUNGEST;
        let age = self.policy.table().row(tier).map_or(Duration::ZERO, |row| row.age);
        Serving { tier, stale: None, from: now, until: now.after(age).min(end) }
    }
}

impl IssuerAnswer {
    fn of<T>(said: &Result<T, Failure>) -> Self {
        match said {
            Ok(_) => Self::Yes,
            Err(Failure::No(_)) => Self::No,
            Err(Failure::CannotTell(_)) => Self::CannotTell,
        }
    }
}

/// The refusal of a token that expired between its verification and now.
fn expired(known: Option<Known>, now: Timestamp) -> Refusal {
    let expired_at = known.and_then(|known| known.not_after).unwrap_or(now);
    Refusal::Expired { ago_secs: now.since(expired_at).as_secs() }
}
