//! Cached answers by token digest. This is the hot path: one lookup and no parsing.
//!
//! One configuration makes them from the records in the stores. An invalidation in the stores also removes
//! the answer here. An answer whose request began before the invalidation is not cached.

use std::sync::Arc;

use quick_cache::Weighter;

use crate::decision::Pass;
use crate::revocation::{Checked, RevocationSet};
use crate::store::invalidation::Epoch;
use crate::store::memory::{ENTRY_OVERHEAD, Memory, memory};
use crate::store::stores::{Derived, Stores};
use crate::tiers::digest::TokenDigest;

/// The typical weight of an answer, in bytes.
const TYPICAL_ANSWER: u64 = 250;

/// The answers of one configuration.
pub struct Answers {
    passes: Arc<Passes>,
    stores: Arc<Stores>,
    revocations: Arc<RevocationSet>,
}

struct Passes(Memory<TokenDigest, Kept, Weight>);

/// An answer, and when it was checked for revocation.
#[derive(Clone)]
struct Kept {
    pass: Pass,
    checked: Checked,
}

impl Answers {
    /// Creates an empty cache. It uses at most half of `bytes`; the other half is for `stores`.
    #[must_use]
    pub fn new(bytes: u64, stores: Arc<Stores>, revocations: Arc<RevocationSet>) -> Arc<Self> {
        let passes = Arc::new(Passes(memory(bytes / 2, TYPICAL_ANSWER, Weight)));
        let derived: Arc<dyn Derived> = passes.clone();
        stores.feed(Arc::downgrade(&derived));
        Arc::new(Self { passes, stores, revocations })
    }

    /// The cached answer for a token, of any age. `None` if there is none, or if a revocation since then may
    /// concern it.
    #[must_use]
    pub fn get(&self, token: &TokenDigest) -> Option<Pass> {
        let kept = self.passes.0.get(token)?;
        self.revocations.is_current(kept.checked).then_some(kept.pass)
    }

    /// Caches an answer, unless its token was invalidated since `since`.
    pub fn keep(&self, token: TokenDigest, pass: Pass, checked: Checked, since: Epoch) {
        self.stores.if_not_forgotten(&token, since, || self.passes.0.insert(token, Kept { pass, checked }));
    }

    /// The bytes that the table uses now (keys, slots, evicted keys), for measurements.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.passes.0.memory_used().total()
    }
}

impl Derived for Passes {
    fn has(&self, token: &TokenDigest) -> bool {
        self.0.get(token).is_some()
    }

    fn forget(&self, token: &TokenDigest) {
        self.0.remove(token);
    }

    fn forget_all(&self) {
        self.0.clear();
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

/// Weighs answers in bytes, precisely enough to bound memory.
#[derive(Clone)]
struct Weight;

impl Weighter<TokenDigest, Kept> for Weight {
    fn weight(&self, _: &TokenDigest, kept: &Kept) -> u64 {
        ENTRY_OVERHEAD + kept.pass.weight()
    }
}
