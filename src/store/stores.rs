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
//! behind the request beyond memory. The memory stores are bounded by weight, and keep what they hold packed; their tables
//! have their full size from the start, so that no request waits while one is copied. Nothing here decides whether a record may be
//! served: that is [`crate::tiers::policy`]'s.

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::archive::Archive;
use super::disk::DiskError;
use super::invalidation::{Epoch, Forgotten};
use super::purge::{Purge, Unfinished};
use super::shared::{Forget, SharedStore};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::decision::Pass;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{BuildDigestHasher, DIGEST_LENGTH, SubjectKey, TokenDigest};
use crate::tiers::policy::Policy;
use crate::tiers::record::{Family, ProfileRecord, Record, VerdictRecord};
use crate::token::refusal::Refusal;

/// What an entry costs besides its content: key, slot, a share of the slots of evicted keys, hash table.
const ENTRY_OVERHEAD: u64 = 112;

/// What a refusal takes apart from its texts: itself, its reference counts, its times.
const REFUSAL_OVERHEAD: u64 = 200;

/// What entries weigh as a rule. Where they are heavier, a part of the tables is never touched, and so is never memory.
const TYPICAL_ANSWER: u64 = 250;
const TYPICAL_PROFILE: u64 = 160;
const TYPICAL_VERDICT: u64 = 240;
const TYPICAL_REFUSAL: u64 = 312;

/// The most entries that tables are made for from the start.
const MAX_PREPARED: usize = 1 << 20;

/// A definitive no, remembered.
#[derive(Clone)]
pub struct Refused {
    refusal: Arc<Refusal>,
    since: Timestamp,
    until: Ticks,
}

impl Refused {
    /// To be remembered for this long from now, in time that passes: the wall clock may be ahead, and be set right.
    #[must_use]
    pub fn new(refusal: Arc<Refusal>, ttl: Duration, clock: &Clock) -> Self {
        Self { refusal, since: clock.now(), until: clock.ticks().after(ttl) }
    }

    /// Whether it still counts. What only the wall clock said does not, once that shows an earlier time.
    fn holds(&self, clock: &Clock) -> bool {
        clock.ticks() < self.until && (!self.refusal.is_the_clocks() || self.since <= clock.now())
    }
}

/// All stores of one instance.
pub struct Stores {
    ready: Arc<Ready>,
    /// Those of all configurations that still answer somebody.
    living: Living,
    verdicts: Arc<Records<TokenDigest>>,
    profiles: Arc<Records<SubjectKey>>,
    archive: Option<Arc<Archive>>,
    forgotten: Arc<Forgotten>,
    policy: Policy,
    metrics: Arc<Metrics>,
}

/// Records in memory, encoded: to decode one takes a tenth of a microsecond, and less than half the memory.
type Records<K> = Cache<K, Box<[u8]>, Weight, BuildDigestHasher>;

/// A record, and the store that had it.
pub type Found<R> = (Arc<R>, &'static str);

/// What depends on the configuration: answers that lie ready, and refusals.
struct Ready {
    answers: Cache<TokenDigest, Pass, Weight, BuildDigestHasher>,
    refusals: Cache<TokenDigest, Refused, Weight, BuildDigestHasher>,
}

/// A request that began before a reload ends with the configuration that it began with. What it learns to be over must be
/// over for all of them.
type Living = Arc<Mutex<Vec<Weak<Ready>>>>;

impl Stores {
    /// Empty stores of together at most `bytes`: half for answers, a quarter for profiles, an eighth each for verdicts
    /// and refusals. Records are also kept in `archive`, if there is one, for as long as `policy` can use them.
    #[must_use]
    pub fn new(bytes: u64, archive: Option<Arc<Archive>>, policy: Policy, metrics: Arc<Metrics>) -> Self {
        let ready = Arc::new(Ready {
            answers: cache(bytes / 2, TYPICAL_ANSWER),
            refusals: cache(bytes / 8, TYPICAL_REFUSAL),
        });
        Self {
            living: Arc::new(Mutex::new(vec![Arc::downgrade(&ready)])),
            ready,
            profiles: Arc::new(cache(bytes / 4, TYPICAL_PROFILE)),
            verdicts: Arc::new(cache(bytes / 8, TYPICAL_VERDICT)),
            archive,
            forgotten: Arc::default(),
            policy,
            metrics,
        }
    }

    /// Stores with the same records and no answers: answers were made by a configuration, records are what issuers said.
    /// (Which email that is, a configuration says as well: a profile tells by which `email_claims` it was made.)
    #[must_use]
    pub fn without_answers(&self, bytes: u64, policy: Policy) -> Self {
        let new = Self::new(bytes, self.archive.clone(), policy, self.metrics.clone());
        self.living().push(Arc::downgrade(&new.ready));
        Self {
            living: self.living.clone(),
            verdicts: self.verdicts.clone(),
            profiles: self.profiles.clone(),
            forgotten: self.forgotten.clone(),
            ..new
        }
    }

    /// The ready-made answer for a token, if there is one, however old.
    #[must_use]
    pub fn answer(&self, digest: &TokenDigest) -> Option<Pass> {
        self.ready.answers.get(digest)
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
    pub fn keep_answer(&self, digest: TokenDigest, pass: Pass, since: Epoch) {
        self.forgotten.unless_since(since, &digest.0, || self.ready.answers.insert(digest, pass));
    }

    /// The definitive no for a token, if one is remembered and its time is not over.
    #[must_use]
    pub fn refusal(&self, digest: &TokenDigest, clock: &Clock) -> Option<Arc<Refusal>> {
        self.ready.refusals.get(digest).filter(|refused| refused.holds(clock)).map(|refused| refused.refusal)
    }

    /// Remembers a definitive no, and forgets every yes for the same token. Only the issuer can take back what the
    /// issuer said, so a no of our own (of which a stranger can cause any number) is no work for the disk.
    /// For the same reason it ends no epoch: else a flood of bad tokens would have nothing kept any more. A no that may be
    /// of a gateway before the issuer ends ready answers, and leaves the record to the outage that may follow.
    pub fn refuse(&self, digest: TokenDigest, mut refused: Refused) {
        if let Some(earlier) = self.ready.refusals.get(&digest) {
            refused.until = refused.until.max(earlier.until);
        }
        let is_the_issuers = refused.refusal.is_the_issuers();
        let note = || {
            if is_the_issuers {
                self.forgotten.note(&digest.0);
            }
        };
        note();
        if refused.refusal.ends_records() {
            if let Some(archive) = &self.archive {
                archive.forget(Family::Verdicts, &digest.0, &self.policy);
            }
            note();
        }
        if refused.refusal.ends_records() || !is_the_issuers {
            self.verdicts.remove(&digest);
        }
        // A no of our own rests on the configuration, and another one may say yes. The issuer's holds under each.
        let all = if is_the_issuers { self.all_ready() } else { vec![self.ready.clone()] };
        // Before the last note: who begins after it finds the no.
        all.iter().for_each(|ready| ready.refusals.insert(digest, refused.clone()));
        note();
        for ready in all {
            ready.answers.remove(&digest);
        }
    }

    /// The verdict on a foreign token. It is promoted unless the token was forgotten since.
    pub async fn verdict(&self, digest: &TokenDigest, since: Epoch) -> Option<Found<VerdictRecord>> {
        self.find(&self.verdicts, digest, &digest.0, since).await
    }

    /// The walk: memory, then what is shared and on disk, which is promoted. A record in memory that would not answer at
    /// once is no hit where another instance may have shared a younger one.
    async fn find<K, R>(
        &self,
        memory: &Records<K>,
        key: &K,
        bytes: &[u8; DIGEST_LENGTH],
        since: Epoch,
    ) -> Option<Found<R>>
    where
        K: Hash + Eq + Copy,
        R: Record,
    {
        let known = in_memory(memory, key);
        let archive = self.archive.as_ref();
        if let Some(record) = &known
            && !archive.is_some_and(|archive| archive.may_know_better(record, &self.policy))
        {
            self.metrics.looked_up("memory", "hit");
            return known.map(|record| (Arc::new(record), "memory"));
        }
        self.metrics.looked_up("memory", if known.is_some() { "hit" } else { "miss" });
        let loaded = archive?.load::<R>(bytes, &self.policy).await;
        let (record, store) = match (known, loaded) {
            (Some(known), Some((loaded, _))) if !archive?.prefers(&loaded, &known, &self.policy) => {
                return Some((Arc::new(known), "memory"));
            }
            (Some(known), None) => return Some((Arc::new(known), "memory")),
            (_, loaded) => loaded?,
        };
        self.forgotten.unless_since(since, bytes, || keep_in_memory(memory, *key, &record));
        Some((Arc::new(record), store))
    }

    /// The verdict on a foreign token, if it was reached within `time`; in memory only.
    #[must_use]
    pub fn verdict_of(
        &self,
        digest: &TokenDigest,
        time: &RangeInclusive<Timestamp>,
    ) -> Option<Arc<VerdictRecord>> {
        in_memory(&self.verdicts, digest)
            .filter(|record: &VerdictRecord| time.contains(&record.verified_at))
            .map(Arc::new)
    }

    /// Keeps a verdict on a foreign token, unless the token was forgotten since.
    pub fn keep_verdict(&self, digest: TokenDigest, record: Arc<VerdictRecord>, since: Epoch) {
        self.forgotten.unless_since(since, &digest.0, || {
            if let Some(archive) = &self.archive {
                archive.keep(&digest.0, &*record, &record.known(), &self.policy);
            }
            keep_in_memory(&self.verdicts, digest, &*record);
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
        in_memory(&self.profiles, key)
            .filter(|record: &ProfileRecord| time.contains(&record.verified_at))
            .map(Arc::new)
    }

    /// Keeps what is known of a subject, unless the subject was forgotten since. That there is no email is kept in memory
    /// only: it may change soon. But an email that was known before is forgotten, here and beyond memory: the issuer has
    /// withdrawn it.
    pub fn keep_profile(&self, key: SubjectKey, record: Arc<ProfileRecord>, mut since: Epoch) {
        if record.email.is_none() && self.may_have_email(&key) {
            if self.epoch_of_profile(&key) != since {
                return;
            }
            self.forget_profile(&key);
            since = self.epoch_of_profile(&key);
        }
        self.forgotten.unless_since(since, &key.0, || {
            if let Some(archive) = self.archive.as_ref().filter(|_| record.email.is_some()) {
                archive.keep(&key.0, &*record, &record.known(None), &self.policy);
            }
            keep_in_memory(&self.profiles, key, &*record);
        });
    }

    /// Whether some store may have an email of this subject. Who looked for one has it in memory by now, unless it was
    /// pushed out. Then the disk may have it; but not to have all other instances forget it for nothing, again and again,
    /// what is shared is left alone.
    fn may_have_email(&self, key: &SubjectKey) -> bool {
        match in_memory::<_, ProfileRecord>(&self.profiles, key) {
            Some(record) => record.email.is_some(),
            None => self.archive.is_some() && self.shared().is_none(),
        }
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
    /// How many records of this instance, in memory and on its disk, a purge is about. Counted apart from it: what comes in
    /// between is forgotten and not counted.
    pub async fn known_of(&self, purge: &Purge) -> u64 {
        match purge {
            Purge::Token(digest) => {
                let since = self.epoch(digest);
                let is_known = self.answer(digest).is_some() || self.verdict(digest, since).await.is_some();
                u64::from(is_known)
            }
            Purge::Subject(who, keys) => {
                let mut profiles = 0;
                for key in keys {
                    profiles += u64::from(self.profile(key).await.is_some());
                }
                let on_disk = match &self.archive {
                    Some(archive) => archive.count_verdicts_of(who.clone()).await,
                    None => 0,
                };
                let is_meant =
                    |bytes: &[u8]| VerdictRecord::decode(bytes).is_ok_and(|record| who.is_meant_by(&record));
                let in_memory = self.verdicts.iter().filter(|(_, bytes)| is_meant(bytes)).count();
                // What is in memory is on disk as well, if there is one.
                profiles + on_disk.max(in_memory as u64)
            }
            Purge::Everybody => {
                let in_memory = (self.verdicts.len() + self.profiles.len()) as u64;
                let on_disk = self.archive.as_ref().and_then(|archive| archive.count()).unwrap_or_default();
                in_memory.max(on_disk)
            }
        }
    }

    fn living(&self) -> MutexGuard<'_, Vec<Weak<Ready>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all configurations that still answer somebody; those that are gone are let go.
    fn all_ready(&self) -> Vec<Arc<Ready>> {
        let mut living = self.living();
        living.retain(|ready| ready.strong_count() > 0);
        living.iter().filter_map(Weak::upgrade).collect()
    }

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
                for ready in self.all_ready() {
                    ready.answers.remove(&digest);
                }
            }
            Purge::Subject(who, keys) => {
                self.verdicts.retain(|_, bytes| {
                    VerdictRecord::decode(bytes).is_ok_and(|record| !who.is_meant_by(&record))
                });
                for key in keys {
                    self.profiles.remove(&key);
                }
                self.forgotten.note_all();
                // An answer does not say whose it is. It is made again from a token, at the cost of one signature check.
                self.all_ready().iter().for_each(|ready| ready.answers.clear());
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
        self.all_ready().iter().for_each(|ready| ready.answers.clear());
    }

    /// Makes a checkpoint of the disk store now and returns where.
    ///
    /// # Errors
    /// When there is no disk store, or it is not well.
    pub async fn checkpoint(&self) -> Result<PathBuf, DiskError> {
        match &self.archive {
            Some(archive) => archive.checkpoint().await,
            None => Err(DiskError::NothingThere { path: PathBuf::new() }),
        }
    }

    /// Whether there is a disk store that is not well, or does not answer.
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

    /// The bytes that the tables of answers and of profiles have come to use, for measurements: keys, slots, evicted keys.
    #[must_use]
    pub fn table_bytes(&self) -> [usize; 2] {
        [self.ready.answers.memory_used().total(), self.profiles.memory_used().total()]
    }

    /// Brings the gauge `records` up to date.
    pub fn count(&self) {
        let records = self.ready.answers.len() + self.verdicts.len() + self.profiles.len();
        self.metrics.records("memory", records as u64);
        if let Some(archive) = &self.archive {
            archive.tell();
        }
        if let Some(records) = self.archive.as_ref().and_then(|archive| archive.count()) {
            self.metrics.records("disk", records);
        }
    }
}

fn in_memory<K: Hash + Eq, R: Record>(memory: &Records<K>, key: &K) -> Option<R> {
    R::decode(&memory.get(key)?).ok()
}

fn keep_in_memory<K: Hash + Eq, R: Record>(memory: &Records<K>, key: K, record: &R) {
    match record.encode() {
        Ok(bytes) => memory.insert(key, bytes.into_boxed_slice()),
        // What was there is older, and must not stay.
        Err(_) => drop(memory.remove(&key)),
    }
}

fn cache<K, V>(bytes: u64, typical: u64) -> Cache<K, V, Weight, BuildDigestHasher>
where
    K: Hash + Eq,
    V: Clone,
    Weight: Weighter<K, V>,
{
    let items = usize::try_from(bytes / typical).unwrap_or(usize::MAX).clamp(16, MAX_PREPARED);
    let lifecycle = quick_cache::sync::DefaultLifecycle::default();
    // Half of this number of evicted keys are remembered, so that who comes again soon is known to be no stranger. Each takes
    // the slot of an entry: with an eighth as many as entries, as much memory has more hits than with the usual half
    // (ARCHITECTURE.md, "Figures").
    let cache = Cache::with(items / 4, bytes, Weight, BuildDigestHasher::default(), lifecycle);
    cache.reserve(items);
    cache
}

/// Weighs entries in bytes, near enough to bound memory.
#[derive(Clone)]
struct Weight;

impl Weighter<TokenDigest, Pass> for Weight {
    fn weight(&self, _: &TokenDigest, pass: &Pass) -> u64 {
        ENTRY_OVERHEAD + pass.weight()
    }
}

impl Weighter<TokenDigest, Refused> for Weight {
    fn weight(&self, _: &TokenDigest, refused: &Refused) -> u64 {
        ENTRY_OVERHEAD + REFUSAL_OVERHEAD + refused.refusal.text_length() as u64
    }
}

/// A record.
impl<K> Weighter<K, Box<[u8]>> for Weight {
    fn weight(&self, _: &K, record: &Box<[u8]>) -> u64 {
        ENTRY_OVERHEAD + record.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_weighs_what_its_text_does_so_that_strangers_cannot_exceed_the_bound() {
        let clock = Clock::held_at(Timestamp::from_secs(1_800_000_000));
        let weight = |refusal| {
            let refused = Refused::new(Arc::new(refusal), Duration::from_secs(60), &clock);
            Weight.weight(&TokenDigest([0; DIGEST_LENGTH]), &refused)
        };
        assert_eq!(weight(Refusal::KeyUnfit), TYPICAL_REFUSAL);
        let configured = "https://tenant.example/, ".repeat(100);
        assert_eq!(weight(Refusal::IssuerUnknown { configured }), TYPICAL_REFUSAL + 2_500);
    }
}
