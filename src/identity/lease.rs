//! One call for all instances: of those that need the same record at the same time, one asks the issuer.
//!
//! Requests in one instance share a call by singleflight; the call itself comes here. Who asks is decided
//! through Redis ([`SharedStore::lease`]). The others take the record from Redis, if the policy would serve
//! it as one of the youngest tier, so the answer is the same as if they had asked. Without Redis, if Redis
//! fails, or after a timeout, each instance asks for itself.
//!
//! [`SharedStore::lease`]: crate::store::shared::SharedStore::lease

use std::sync::Arc;

use super::identities::Identities;
use super::lookup::Lookup;
use crate::issuer::CannotTell;
use crate::issuer::client::TIMEOUT;
use crate::store::shared::{LeaseOutcome, SharedResult};
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::Plan;
use crate::tiers::table::TierIndex;
use crate::token::refusal::Refusal;
use crate::verifier::Failure;

/// How this instance knows the issuer's refusal.
const TOLD_ANOTHER: &str = "as it has told another instance";

type AskResult<R> = Result<Arc<R>, Failure>;

impl Identities {
    /// Asks the issuer with `ask`, unless another instance has just asked the same or does so now. Instances
    /// share a call if they have the same `key`.
    pub(super) async fn ask_for_all<S: Lookup>(
        &self,
        lookup: &S,
        key: [u8; 32],
        ask: impl Future<Output = AskResult<S::Record>> + Send,
    ) -> AskResult<S::Record> {
        let Some(shared) = self.stores.shared() else { return ask.await };
        if lookup.issuer().open_since().is_some() {
            // The breaker answers at once, and differs from instance to instance.
            return ask.await;
        }
        let by = match shared.lease(key, TIMEOUT).await {
            LeaseOutcome::Acquired(lease) => {
                // The record may have been written after this request looked, and before the lease became
                // free.
                if let Some(record) = self.shared_meanwhile(lookup).await {
                    lease.release(SharedResult::Record);
                    self.metrics.leased("shared");
                    return Ok(record);
                }
                self.metrics.leased("asked");
                let said = lease.while_held(ask).await;
                lease.release(shared_result(&said, lookup.digest()));
                return said;
            }
            LeaseOutcome::Ended(SharedResult::Refused { token, forbids, certain })
                if token == lookup.digest().0 =>
            {
                self.metrics.leased("shared");
                return Err(lookup.refuse(self, Refusal::of_issuer(TOLD_ANOTHER, forbids, certain)));
            }
            LeaseOutcome::Ended(SharedResult::Record) => match self.shared_meanwhile(lookup).await {
                Some(record) => {
                    self.metrics.leased("shared");
                    return Ok(record);
                }
                None => "alone",
            },
            LeaseOutcome::Ended(_) | LeaseOutcome::TimedOut => "alone",
            LeaseOutcome::Unavailable => "error",
        };
        self.metrics.leased(by);
        ask.await
    }

    /// The record in Redis, if it is as good as a new answer of the issuer.
    async fn shared_meanwhile<S: Lookup>(&self, lookup: &S) -> Option<Arc<S::Record>> {
        let record = lookup.find_shared(self).await?;
        let plan = self.policy.before_asking(&lookup.known(&record), self.clock.now(), None);
        (plan == Plan::Serve(TierIndex::YOUNGEST)).then_some(record)
    }
}

/// The result for the other instances. A refusal is about the token, and only the issuer's own refusal is
/// shared.
fn shared_result<T>(said: &Result<T, Failure>, TokenDigest(token): TokenDigest) -> SharedResult {
    match said {
        Ok(_) => SharedResult::Record,
        Err(Failure::No(Refusal::IssuerRejects { certain, .. })) => {
            SharedResult::Refused { token, forbids: false, certain: *certain }
        }
        Err(Failure::No(Refusal::IssuerForbids { certain })) => {
            SharedResult::Refused { token, forbids: true, certain: *certain }
        }
        Err(Failure::CannotTell(CannotTell::Suppressed(_))) => SharedResult::NotAsked,
        Err(Failure::No(_) | Failure::CannotTell(_)) => SharedResult::Unusable,
    }
}
