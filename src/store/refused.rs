//! Refusals of tokens, remembered in memory for a limited time.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;

use super::memory::{ENTRY_OVERHEAD, Memory};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::tiers::digest::TokenDigest;
use crate::token::refusal::Refusal;

/// What a refusal takes in bytes besides its texts: itself, its reference counts, its times.
const REFUSAL_OVERHEAD: u64 = 200;

/// What a typical refusal weighs, in bytes.
pub(super) const TYPICAL_REFUSAL: u64 = 312;

/// The refusals of one configuration.
pub(super) type Refusals = Memory<TokenDigest, Refused, RefusalWeight>;

/// A remembered refusal.
#[derive(Clone)]
pub struct Refused {
    pub(super) refusal: Arc<Refusal>,
    since: Timestamp,
    pub(super) until: Ticks,
}

impl Refused {
    /// A refusal that is remembered for `ttl`, in monotonic time: the wall clock may be ahead, and be
    /// corrected.
    #[must_use]
    pub fn new(refusal: Arc<Refusal>, ttl: Duration, clock: &Clock) -> Self {
        Self { refusal, since: clock.now(), until: clock.ticks().after(ttl) }
    }

    /// Whether it still counts. A refusal because of the wall clock does not, once that shows an earlier
    /// time.
    pub(super) fn holds(&self, clock: &Clock) -> bool {
        clock.ticks() < self.until && (!self.refusal.is_the_clocks() || self.since <= clock.now())
    }
}

/// Weighs refusals in bytes, near enough to bound memory.
#[derive(Clone)]
pub(super) struct RefusalWeight;

impl Weighter<TokenDigest, Refused> for RefusalWeight {
    fn weight(&self, _: &TokenDigest, refused: &Refused) -> u64 {
        ENTRY_OVERHEAD + REFUSAL_OVERHEAD + refused.refusal.text_length() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::digest::DIGEST_LENGTH;

    #[test]
    fn a_refusal_weighs_what_its_text_does_so_that_strangers_cannot_exceed_the_bound() {
        let clock = Clock::held_at(Timestamp::from_secs(1_800_000_000));
        let weight = |refusal| {
            let refused = Refused::new(Arc::new(refusal), Duration::from_secs(60), &clock);
            RefusalWeight.weight(&TokenDigest([0; DIGEST_LENGTH]), &refused)
        };
        assert_eq!(weight(Refusal::KeyUnfit), TYPICAL_REFUSAL);
        let configured = "https://tenant.example/, ".repeat(100);
        assert_eq!(weight(Refusal::IssuerUnknown { configured }), TYPICAL_REFUSAL + 2_500);
    }
}
