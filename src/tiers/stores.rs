//! The stores as one: what is asked for a record, and what keeps it.
//!
//! | store | holds |
//! |---|---|
//! | answers, in memory | ready-made answers by token digest: the hot path, one lookup and no parsing |
//! | refusals, in memory | definitive noes, for `negative_ttl`; apart from the answers, so that a flood of bad tokens evicts only other bad tokens |
//! | records, in memory | verdicts on foreign tokens, and profiles |
//! | records, shared | the same, and issuers' keys, for several instances; only with a Redis |
//! | records, on disk | the same, across restarts; only with a data directory |
//!
//! A record is looked for in memory, then in what is shared, then on disk, and what was found is promoted. It is written to all,
//! behind the request beyond memory. The memory stores are bounded by weight. Nothing here decides whether a record may be
//! served: that is [`super::policy`]'s.

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::archive::Archive;
use super::digest::{BuildDigestHasher, DIGEST_LENGTH, SubjectKey, TokenDigest};
use super::forgotten::{Epoch, Forgotten};
use super::policy::Policy;
use super::purge::{Purge, Unfinished};
use super::record::{Family, ProfileRecord, Record, VerdictRecord};
use super::shared::{Forget, SharedStore};
use crate::clock::Timestamp;
use crate::decision::Pass;
use crate::telemetry::metrics::Metrics;
use crate::token::refusal::Refusal;

/// What an entry costs besides its content: key, slot, pointers.
const ENTRY_OVERHEAD: u64 = 128;

/// A definitive no, remembered.
#[derive(Clone)]
pub struct Refused {
    /// Why.
    pub refusal: Arc<Refusal>,
    /// Until when it is remembered.
    pub until: Timestamp,
}

/// All stores of one instance.
pub struct Stores {
    answers: Cache<TokenDigest, Arc<Pass>, Weight, BuildDigestHasher>,
    refusals: Cache<TokenDigest, Refused, Weight, BuildDigestHasher>,
    verdicts: Arc<Records<TokenDigest, VerdictRecord>>,
    profiles: Arc<Records<SubjectKey, ProfileRecord>>,
    archive: Option<Arc<Archive>>,
    forgotten: Arc<Forgotten>,
    policy: Policy,
    metrics: Arc<Metrics>,
}

/// Records in memory.
type Records<K, R> = Cache<K, Arc<R>, Weight, BuildDigestHasher>;

/// A record, and the store that had it.
pub type Found<R> = (Arc<R>, &'static str);

impl Stores {
    /// Empty stores of together at most `bytes`: half for answers, a quarter for profiles, an eighth each for verdicts
    /// and refusals. Records are also kept in `archive`, if there is one, for as long as `policy` can use them.
    #[must_use]
    pub fn new(bytes: u64, archive: Option<Arc<Archive>>, policy: Policy, metrics: Arc<Metrics>) -> Self {
        Self {
            answers: cache(bytes / 2, 600),
            profiles: Arc::new(cache(bytes / 4, 300)),
            verdicts: Arc::new(cache(bytes / 8, 700)),
            refusals: cache(bytes / 8, 200),
            archive,
            forgotten: Arc::default(),
            policy,
            metrics,
        }
    }

    /// Stores with the same records and no answers: answers were made by a configuration, records are what issuers said.
    #[must_use]
    pub fn without_answers(&self, bytes: u64, policy: Policy) -> Self {
        Self {
            verdicts: self.verdicts.clone(),
            profiles: self.profiles.clone(),
            forgotten: self.forgotten.clone(),
            ..Self::new(bytes, self.archive.clone(), policy, self.metrics.clone())
        }
    }

    /// The ready-made answer for a token, if there is one, however old.
    #[must_use]
    pub fn answer(&self, digest: &TokenDigest) -> Option<Arc<Pass>> {
        self.answers.get(digest)
    }

    /// How often what is known of a token was forgotten. Whoever keeps what they found says which epoch they began in.
    #[must_use]
    pub fn epoch(&self, digest: &TokenDigest) -> Epoch {
        self.forgotten.epoch(&digest.0)
    }

    /// How often what is known of a subject was forgotten.
    #[must_use]
    pub fn epoch_of_profile(&self, key: &SubjectKey) -> Epoch {
        self.forgotten.epoch(&key.0)
    }

    /// Keeps an answer, unless its token was forgotten since.
    pub fn keep_answer(&self, digest: TokenDigest, pass: Arc<Pass>, since: Epoch) {
        self.forgotten.unless_since(since, &digest.0, || self.answers.insert(digest, pass));
    }

    /// The definitive no for a token, if one is remembered and `now` is not past its time.
    #[must_use]
    pub fn refusal(&self, digest: &TokenDigest, now: Timestamp) -> Option<Arc<Refusal>> {
        self.refusals.get(digest).filter(|refused| now < refused.until).map(|refused| refused.refusal)
    }

    /// Remembers a definitive no, and forgets every yes for the same token. Only the issuer can take back what the
    /// issuer said, so a no of our own (of which a stranger can cause any number) is no work for the disk.
    /// For the same reason it ends no epoch: else a flood of bad tokens would have nothing kept any more.
    pub fn refuse(&self, digest: TokenDigest, refused: Refused) {
        let is_the_issuers = refused.refusal.is_the_issuers();
        let note = || {
            if is_the_issuers {
                self.forgotten.note(&digest.0);
            }
        };
        note();
        if let Some(archive) = self.archive.as_ref().filter(|_| is_the_issuers) {
            archive.forget(Family::Verdicts, &digest.0, &self.policy);
        }
        note();
        self.verdicts.remove(&digest);
        // Before the last note: who begins after it finds the no.
        self.refusals.insert(digest, refused);
        note();
        self.answers.remove(&digest);
    }

    /// The verdict on a foreign token. It is promoted unless the token was forgotten since.
    pub async fn verdict(&self, digest: &TokenDigest, since: Epoch) -> Option<Found<VerdictRecord>> {
        self.find(&self.verdicts, digest, &digest.0, since).await
    }

    /// The walk: memory, then what is shared and on disk, which is promoted. A record in memory that would not answer at
    /// once is no hit where another instance may have shared a younger one.
    async fn find<K, R>(
        &self,
        memory: &Records<K, R>,
        key: &K,
        bytes: &[u8; DIGEST_LENGTH],
        since: Epoch,
    ) -> Option<Found<R>>
    where
        K: Hash + Eq + Copy,
        R: Record,
        Weight: Weighter<K, Arc<R>>,
    {
        let known = memory.get(key);
        let archive = self.archive.as_ref();
        if let Some(record) = &known
            && !archive.is_some_and(|archive| archive.may_know_better(&**record, &self.policy))
        {
            self.metrics.looked_up("memory", "hit");
            return known.map(|record| (record, "memory"));
        }
        self.metrics.looked_up("memory", if known.is_some() { "hit" } else { "miss" });
        let loaded = archive?.load::<R>(bytes, &self.policy).await;
        let (record, store) = match (known, loaded) {
            (Some(known), Some((loaded, _))) if !archive?.prefers(&loaded, &*known, &self.policy) => {
                return Some((known, "memory"));
            }
            (Some(known), None) => return Some((known, "memory")),
            (_, loaded) => loaded?,
        };
        let record = Arc::new(record);
        self.forgotten.unless_since(since, bytes, || memory.insert(*key, record.clone()));
        Some((record, store))
    }

    /// The verdict on a foreign token, if it was reached within `time`; in memory only.
    #[must_use]
    pub fn verdict_of(
        &self,
        digest: &TokenDigest,
        time: &RangeInclusive<Timestamp>,
    ) -> Option<Arc<VerdictRecord>> {
        self.verdicts.get(digest).filter(|record| time.contains(&record.verified_at))
    }

    /// Keeps a verdict on a foreign token, unless the token was forgotten since.
    pub fn keep_verdict(&self, digest: TokenDigest, record: Arc<VerdictRecord>, since: Epoch) {
        self.forgotten.unless_since(since, &digest.0, || {
            if let Some(archive) = &self.archive {
                archive.keep(&digest.0, &*record, &record.known(), &self.policy);
            }
            self.verdicts.insert(digest, record);
        });
    }

    /// What is known of a subject.
    pub async fn profile(&self, key: &SubjectKey) -> Option<Found<ProfileRecord>> {
        self.find(&self.profiles, key, &key.0, self.epoch_of_profile(key)).await
    }

    /// What is known of a subject, if it was said within `time`; in memory only.
    #[must_use]
    pub fn profile_of(
        &self,
        key: &SubjectKey,
        time: &RangeInclusive<Timestamp>,
    ) -> Option<Arc<ProfileRecord>> {
        self.profiles.get(key).filter(|record| time.contains(&record.verified_at))
    }

    /// Keeps what is known of a subject, unless the subject was forgotten since. That there is no email is kept in memory
    /// only: it may change soon.
    pub fn keep_profile(&self, key: SubjectKey, record: Arc<ProfileRecord>, since: Epoch) {
        self.forgotten.unless_since(since, &key.0, || {
            if let Some(archive) = self.archive.as_ref().filter(|_| record.email.is_some()) {
                archive.keep(&key.0, &*record, &record.known(None), &self.policy);
            }
            self.profiles.insert(key, record);
        });
    }

    /// Forgets what is known of a subject.
    pub fn forget_profile(&self, key: &SubjectKey) {
        if let Some(archive) = &self.archive {
            self.forgotten.note(&key.0);
            archive.forget(Family::Profiles, &key.0, &self.policy);
        }
        self.forgotten.note(&key.0);
        self.profiles.remove(key);
    }

    /// Forgets what `purge` names in all stores, has the other instances forget it, and waits until that is so. Deny
    /// records, remembered noes and issuers' keys stay.
    ///
    /// # Errors
    /// Which store could not do it now. It is then done before that store answers again, and is done in memory.
    pub async fn purge(&self, purge: Purge) -> Result<(), Unfinished> {
        // Memory last: else a request at this moment could bring back to memory what another store still has.
        self.note(&purge);
        let beyond = match &self.archive {
            None => Ok(()),
            Some(archive) => archive.purge(&purge, &self.policy).await,
        };
        self.purge_memory(purge);
        beyond
    }

    /// Forgets what another instance has forgotten, in memory and on disk.
    pub async fn follow(&self, forget: Forget) {
        let purge = forget.clone().into_purge();
        match (&forget, &purge) {
            (Forget::Profile(key), _) => self.forgotten.note(key),
            (_, Some(purge)) => self.note(purge),
            (_, None) => {}
        }
        if let Some(archive) = &self.archive {
            archive.follow(&forget).await;
        }
        if let Forget::Profile(key) = &forget {
            self.forgotten.note(key);
            self.profiles.remove(&SubjectKey(*key));
        }
        if let Some(purge) = purge {
            self.purge_memory(purge);
        }
    }

    /// Whose tokens and whose subject a purge is about is not told by their digests, so that is everybody's.
    fn note(&self, purge: &Purge) {
        match purge {
            Purge::Token(digest) => self.forgotten.note(&digest.0),
            Purge::Subject(..) | Purge::Everybody => self.forgotten.note_all(),
        }
    }

    /// Records first, then answers, which are made from them.
    fn purge_memory(&self, purge: Purge) {
        self.note(&purge);
        match purge {
            Purge::Token(digest) => {
                self.verdicts.remove(&digest);
                self.forgotten.note(&digest.0);
                self.answers.remove(&digest);
            }
            Purge::Subject(who, keys) => {
                self.verdicts.retain(|_, record| !who.is_meant_by(record));
                for key in keys {
                    self.profiles.remove(&key);
                }
                self.forgotten.note_all();
                // An answer does not say whose it is. It is made again from a token, at the cost of one signature check.
                self.answers.clear();
            }
            Purge::Everybody => self.purge_memory_of_everybody(),
        }
    }

    /// Forgets all answers, verdicts and profiles in memory.
    pub fn purge_memory_of_everybody(&self) {
        self.forgotten.note_all();
        self.verdicts.clear();
        self.profiles.clear();
        self.forgotten.note_all();
        self.answers.clear();
    }

    /// Whether there is a disk store that is not well.
    #[must_use]
    pub fn disk_is_degraded(&self) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.disk_is_degraded())
    }

    /// The shared store, if there is one.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedStore> {
        self.archive.as_ref().and_then(|archive| archive.shared())
    }

    /// Whether there is a shared store that is away.
    #[must_use]
    pub fn shared_is_degraded(&self) -> bool {
        self.shared().is_some_and(SharedStore::is_degraded)
    }

    /// Brings the gauge `records` up to date.
    pub fn count(&self) {
        let records = self.answers.len() + self.verdicts.len() + self.profiles.len();
        self.metrics.records("memory", records as u64);
        if let Some(records) = self.archive.as_ref().and_then(|archive| archive.count()) {
            self.metrics.records("disk", records);
        }
    }
}

fn cache<K, V>(bytes: u64, typical: u64) -> Cache<K, V, Weight, BuildDigestHasher>
where
    K: Hash + Eq,
    V: Clone,
    Weight: Weighter<K, V>,
{
    let items = usize::try_from(bytes / (typical + ENTRY_OVERHEAD)).unwrap_or(usize::MAX).clamp(16, 1 << 20);
    Cache::with(
        items,
        bytes,
        Weight,
        BuildDigestHasher::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    )
}

/// Weighs entries in bytes, near enough to bound memory.
#[derive(Clone)]
struct Weight;

impl Weighter<TokenDigest, Arc<Pass>> for Weight {
    fn weight(&self, _: &TokenDigest, pass: &Arc<Pass>) -> u64 {
        ENTRY_OVERHEAD + pass.weight()
    }
}

impl Weighter<TokenDigest, Refused> for Weight {
    fn weight(&self, _: &TokenDigest, _: &Refused) -> u64 {
        ENTRY_OVERHEAD + 200
    }
}

impl Weighter<TokenDigest, Arc<VerdictRecord>> for Weight {
    fn weight(&self, _: &TokenDigest, record: &Arc<VerdictRecord>) -> u64 {
        let texts = record.issuer.len() + record.subject.len() + record.claims.len();
        ENTRY_OVERHEAD + 160 + (texts + record.email.as_ref().map_or(0, String::len)) as u64
    }
}

impl Weighter<SubjectKey, Arc<ProfileRecord>> for Weight {
    fn weight(&self, _: &SubjectKey, record: &Arc<ProfileRecord>) -> u64 {
        let texts = [&record.email, &record.name].into_iter().flatten().map(String::len).sum::<usize>();
        ENTRY_OVERHEAD + 100 + texts as u64
    }
}
