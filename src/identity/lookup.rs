//! What a request looks for beyond its token, and the one way in which it gets it.
//!
//! Two things are looked for: the profile of a subject whose token has no email, and the verdict on a token
//! that only the issuer can judge. Both go the same way, [`Identities::answer`]: the record answers while its
//! tier is fresh enough; else the issuer is asked; and if that cannot tell, the record answers from any older
//! tier. What differs is a [`Lookup`]: where the record lies, and what a no means.
//!
//! **One call for all who ask.** What a call brings is kept before its flight lands, and looked for again
//! when one starts: so who missed it just before it was kept finds it there, and does not start a second
//! call.

use std::sync::Arc;
use std::time::Duration;

use super::identities::Identities;
use crate::clock::Timestamp;
use crate::guard::{Priority, Role};
use crate::issuer::{CannotTell, Issuer, UserinfoQuery};
use crate::store::stores::Found;
use crate::tiers::policy::{IssuerAnswer, Known, Plan, Served, Serving};
use crate::tiers::record::Record;
use crate::tiers::table::TierIndex;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// A record that a request looks for.
pub(super) trait Lookup: Send + Sync + 'static {
    /// What it is.
    type Record: Record + Send + Sync + 'static;

    /// Who is asked for it.
    fn issuer(&self) -> &Arc<Issuer>;

    /// What it is kept under.
    fn key(&self) -> &[u8; 32];

    /// The record that is kept, if it is of any use.
    fn find(
        &self,
        identities: &Identities,
        now: Timestamp,
    ) -> impl Future<Output = Option<Found<Self::Record>>> + Send;

    /// What the policy has to know of the record, for this token.
    fn known(&self, record: &Self::Record) -> Known;

    /// Whether the record names an email.
    fn has_email(record: &Self::Record) -> bool;

    /// The query to the issuer, for somebody who waits for the answer.
    fn query(&self, identities: &Identities, known: Option<&Self::Record>) -> UserinfoQuery;

    /// Asks, together with all who look for the same; a record that came since `asked_at` is the answer. What
    /// the issuer says is kept, a no as well, whether or not a request waits for it.
    fn ask(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        query: UserinfoQuery,
        asked_at: Timestamp,
    ) -> impl Future<Output = Result<Arc<Self::Record>, Failure>> + Send;
}

/// What an answer has to keep to.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Until when it may be served at most.
    pub end: Timestamp,
    /// The oldest tier that is of use.
    pub oldest: Option<TierIndex>,
}

/// A record that answers, and as what it is served.
pub(super) struct Answered<R> {
    pub record: Arc<R>,
    pub serving: Serving,
    /// The store that it came from; `None` if the issuer was asked just now.
    pub store: Option<&'static str>,
}

impl Identities {
    /// What is looked for, within these bounds. What is done is the policy's to say, here as in its tests:
    /// this only carries it out.
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
            let until =
                self.policy.unseen_until(tier, at, now, why_stale.map(CannotTell::retry_after)).min(end);
            let serving = Serving { tier, stale: why_stale.is_some(), from: now, until };
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
                if !S::has_email(&record) {
                    until = until.min(at.after(self.settings.negative_ttl));
                }
                let serving = Serving { tier: TierIndex::YOUNGEST, stale: false, from: now, until };
                Ok(Answered { record, serving, store: None })
            }
            (Served::Stale(tier), Err(Failure::CannotTell(error))) => {
                kept(tier, Some(&error)).ok_or(Failure::CannotTell(error))
            }
            (_, Err(failure)) => Err(failure),
            // No plan that was asked with has this. It would be a yes that the policy does not let through.
            (_, Ok(_)) => Err(CannotTell::Garbage("an answer that no rule admits").into()),
        }
    }

    /// Asks behind the request, if it is this record's turn.
    fn revalidate<S: Lookup>(
        self: &Arc<Self>,
        lookup: &Arc<S>,
        verified_at: Timestamp,
        query: UserinfoQuery,
        now: Timestamp,
    ) {
        let Some(turn) = self.revalidations.turn(lookup.key(), verified_at, now) else { return };
        let query = UserinfoQuery { priority: Priority::Background, ..query };
        let (this, lookup) = (self.clone(), lookup.clone());
        tokio::spawn(async move {
            let _turn = turn;
            let _ = lookup.ask(&this, query, now).await;
        });
    }

    /// Counts a call that was saved.
    pub(super) fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
    }

    /// Served on verified claims alone: no issuer would be asked at a second look either, so whatever the
    /// role of the youngest tier, that comes when the tier ends, or the token does.
    pub(super) fn serve_claims(&self, now: Timestamp, end: Timestamp) -> Serving {
        let tier = TierIndex::YOUNGEST;
        let age = self.policy.table().row(tier).map_or(Duration::ZERO, |row| row.age);
        Serving { tier, stale: false, from: now, until: now.after(age).min(end) }
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

/// The token's life ended between its verification and this moment.
fn expired(known: Option<Known>, now: Timestamp) -> Refusal {
    let expired_at = known.and_then(|known| known.not_after).unwrap_or(now);
    Refusal::Expired { ago_secs: now.since(expired_at).as_secs() }
}
