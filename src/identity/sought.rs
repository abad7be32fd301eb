//! What a request looks for beyond its token, and the one way in which it gets it.
//!
//! Two things are looked for: the profile of a subject whose token has no email, and the verdict on a token that only the
//! issuer can judge. Both go the same way, [`Identities::answer`]: the record answers while its tier is fresh enough;
//! else the issuer is asked; and if that cannot tell, the record answers from any older tier. What differs is a
//! [`Sought`]: where the record lies, and what a no means.
//!
//! **One call for all who ask.** What a call brings is kept before its flight lands, and looked for again when one
//! starts: so who missed it just before it was kept finds it there, and does not start a second call.

use std::sync::Arc;
use std::time::Duration;

use super::Identities;
use crate::clock::Timestamp;
use crate::decision::Serving;
use crate::guard::{Priority, Role};
use crate::issuer::{CannotTell, Issuer, Question};
use crate::tiers::policy::{Known, Plan};
use crate::tiers::record::Record;
use crate::tiers::stores::Found;
use crate::tiers::table::TierIndex;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// How long an answer that was served stale is given out unseen, or as long as no call can leave anyway, which is five
/// minutes at most. Short, so that recovery is noticed; long enough that an outage does not cost a signature check for
/// every request.
const STALE_PAUSE: Duration = Duration::from_secs(10);

/// A record that a request looks for.
pub(super) trait Sought: Send + Sync + 'static {
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

    /// The question to the issuer, for somebody who waits for the answer.
    fn question(&self, identities: &Identities, known: Option<&Self::Record>) -> Question;

    /// Asks, together with all who look for the same; a record that came since `asked_at` is the answer.
    fn ask(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        question: Question,
        asked_at: Timestamp,
    ) -> impl Future<Output = Result<Arc<Self::Record>, Failure>> + Send;

    /// Keeps a no that nobody waited for, unless [`Sought::ask`] did.
    fn denied(&self, identities: &Identities, refusal: Refusal);
}

/// A record that answers, and as what it is served.
pub(super) struct Answered<R> {
    pub record: Arc<R>,
    pub serving: Serving,
    /// The store that it came from; `None` if the issuer was asked just now.
    pub store: Option<&'static str>,
}

impl Identities {
    /// What is looked for, to be served until `end` at most.
    pub(super) async fn answer<S: Sought>(
        self: &Arc<Self>,
        sought: S,
        end: Timestamp,
    ) -> Result<Answered<S::Record>, Failure> {
        let (sought, now) = (Arc::new(sought), self.clock.now());
        let found = sought.find(self, now).await;
        let plan = found.as_ref().map_or(Plan::NOTHING_KNOWN, |(record, _)| {
            self.policy.before_asking(&sought.known(record), now, sought.issuer().open_since())
        });
        let question = sought.question(self, found.as_ref().map(|(record, _)| &**record));
        let kept = |tier, why_stale: Option<&CannotTell>| {
            let (record, store) = found.clone()?;
            let serving = self.serve_record(tier, why_stale, record.kept().verified_at, now, end);
            Some(Answered { record, serving, store: Some(store) })
        };
        if let Some(answered) = plan.serves_now().and_then(|tier| kept(tier, None)) {
            if matches!(plan, Plan::ServeAndRevalidate(_)) {
                self.revalidate(&sought, answered.record.kept().verified_at, question, now);
            }
            return Ok(answered);
        }
        match sought.ask(self, question, now).await {
            Ok(record) => {
                let at = record.kept().verified_at;
                let mut serving = self.serve(TierIndex::YOUNGEST, at, end);
                if !S::has_email(&record) {
                    serving.until = serving.until.min(at.after(self.settings.negative_ttl));
                }
                Ok(Answered { record, serving, store: None })
            }
            Err(Failure::CannotTell(error)) => match plan {
                Plan::Ask { stale: Some(tier) } => kept(tier, Some(&error)).ok_or(Failure::CannotTell(error)),
                _ => Err(Failure::CannotTell(error)),
            },
            Err(no) => Err(no),
        }
    }

    /// Asks behind the request, if it is this record's turn.
    fn revalidate<S: Sought>(
        self: &Arc<Self>,
        sought: &Arc<S>,
        verified_at: Timestamp,
        question: Question,
        now: Timestamp,
    ) {
        let Some(turn) = self.revalidations.turn(sought.key(), verified_at, now) else { return };
        let question = Question { priority: Priority::Background, ..question };
        let (this, sought) = (self.clone(), sought.clone());
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(Failure::No(refusal)) = sought.ask(&this, question, now).await {
                sought.denied(&this, refusal);
            }
        });
    }

    /// Counts a call that was saved.
    pub(super) fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
    }

    /// Served as new: unseen until the tier ends, or the token does.
    pub(super) fn serve(&self, tier: TierIndex, at: Timestamp, end: Timestamp) -> Serving {
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
