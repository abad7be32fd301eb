//! All stores behind one interface: it looks up records and keeps them.
//!
//! | store | holds |
//! |---|---|
//! | refusals, in memory | refusals, for `negative_ttl`; apart, so a flood of bad tokens evicts only them |
//! | records, in memory | verdicts on foreign tokens, and profiles |
//! | records, shared | the same, and issuers' keys, for several instances; only with a Redis |
//! | records, on disk | the same, across restarts; only with a data directory |
//!
//! A record is looked up in memory, then in the shared store, then on disk, and what was found is promoted to
//! memory. A record is written to all stores; beyond memory this is done behind the request. The memory
//! stores are bounded by weight and hold encoded records. Their tables have their full size from the start,
//! so no request waits while a table grows. Whether a record may be served is decided in
//! [`crate::tiers::policy`].

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::archive::Archive;
use super::disk::DiskError;
use super::invalidation::{Epoch, Invalidations};
use super::memory::{self, RecordWeight, Records, memory};
use super::refused::{RefusalWeight, Refusals, Refused, TYPICAL_REFUSAL};
use super::shared::SharedStore;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey, TokenDigest};
use crate::tiers::policy::Policy;
use crate::tiers::record::{Family, ProfileRecord, Record, VerdictRecord};
use crate::token::refusal::Refusal;

/// What typical records weigh, in bytes.
const TYPICAL_PROFILE: u64 = 160;
const TYPICAL_VERDICT: u64 = 240;

/// What is made from records, and must be forgotten with them.
pub trait Derived: Send + Sync {
    /// Whether there is anything for this token.
    fn has(&self, token: &TokenDigest) -> bool;

    /// Forgets what was made for this token.
    fn forget(&self, token: &TokenDigest);

    /// Forgets everything.
    fn forget_all(&self);

    /// How many entries there are.
    fn count(&self) -> usize;
}

/// All stores of one instance.
pub struct Stores {
    pub(super) ready: Arc<Ready>,
    /// The ready answers of all configurations that still answer requests.
    pub(super) instances_ready: SharedReady,
    pub(super) verdicts: Arc<Records<TokenDigest>>,
    pub(super) profiles: Arc<Records<SubjectKey>>,
    pub(super) archive: Option<Arc<Archive>>,
    pub(super) invalidations: Arc<Invalidations>,
    pub(super) policy: Policy,
    pub(super) metrics: Arc<Metrics>,
}

/// A record, and the store that had it.
pub type Found<R> = (Arc<R>, &'static str);

/// What depends on the configuration: refusals, and what is derived from records.
pub(super) struct Ready {
    refusals: Refusals,
    derived: OnceLock<Weak<dyn Derived>>,
}

impl Ready {
    pub(super) fn derived(&self) -> Option<Arc<dyn Derived>> {
        self.derived.get()?.upgrade()
    }

    pub(super) fn forget(&self, token: &TokenDigest) {
        if let Some(derived) = self.derived() {
            derived.forget(token);
        }
    }

    pub(super) fn forget_all(&self) {
        if let Some(derived) = self.derived() {
            derived.forget_all();
        }
    }
}

/// A request that began before a reload ends with the configuration that it began with. What it learns to be
/// invalid must become invalid for all configurations.
pub(super) type SharedReady = Arc<Mutex<Vec<Weak<Ready>>>>;

impl Stores {
    /// Empty stores of together at most half of `bytes`: a quarter for profiles, an eighth each for verdicts
    /// and refusals. The other half is for what is derived from them. Records are also kept in `archive`, if
    /// there is one, for as long as `policy` can use them.
    #[must_use]
    pub fn new(bytes: u64, archive: Option<Arc<Archive>>, policy: Policy, metrics: Arc<Metrics>) -> Self {
        let refusals = memory(bytes / 8, TYPICAL_REFUSAL, RefusalWeight);
        let ready = Arc::new(Ready { refusals, derived: OnceLock::new() });
        Self {
            instances_ready: Arc::new(Mutex::new(vec![Arc::downgrade(&ready)])),
            ready,
            profiles: Arc::new(memory(bytes / 4, TYPICAL_PROFILE, RecordWeight)),
            verdicts: Arc::new(memory(bytes / 8, TYPICAL_VERDICT, RecordWeight)),
            archive,
            invalidations: Arc::default(),
            policy,
            metrics,
        }
    }

    /// Stores with the same records and without answers: answers depend on a configuration, records are what
    /// issuers said. (Which claim is the email depends on the configuration, too: a profile says by which
    /// `email_claims` it was made.)
    #[must_use]
    pub fn without_answers(&self, bytes: u64, policy: Policy) -> Self {
        let new = Self::new(bytes, self.archive.clone(), policy, self.metrics.clone());
        self.instances_ready().push(Arc::downgrade(&new.ready));
        Self {
            instances_ready: self.instances_ready.clone(),
            verdicts: self.verdicts.clone(),
            profiles: self.profiles.clone(),
            invalidations: self.invalidations.clone(),
            ..new
        }
    }

    /// Makes `derived` forget from now on whatever is forgotten here. Only the first call has an effect.
    pub fn feed(&self, derived: Weak<dyn Derived>) {
        let _ = self.ready.derived.set(derived);
    }

    /// How often what is known of a token was forgotten. A caller that keeps something passes the epoch in
    /// which it began.
    #[must_use]
    pub fn epoch(&self, digest: &TokenDigest) -> Epoch {
        self.invalidations.epoch(&digest.0)
    }

    /// How often what is known of a subject was forgotten.
    #[must_use]
    pub fn epoch_of_profile(&self, key: &SubjectKey) -> Epoch {
        self.invalidations.epoch(&key.0)
    }

    /// Runs `keep`, which keeps what was derived for a token, unless the token was forgotten since.
    pub fn if_not_forgotten(&self, digest: &TokenDigest, since: Epoch, keep: impl FnOnce()) {
        self.invalidations.if_not_invalidated(since, &digest.0, keep);
    }

    /// The refusal of a token, if one is remembered and has not expired.
    #[must_use]
    pub fn refusal(&self, digest: &TokenDigest, clock: &Clock) -> Option<Arc<Refusal>> {
        self.ready.refusals.get(digest).filter(|refused| refused.holds(clock)).map(|refused| refused.refusal)
    }

    /// Remembers a refusal, and forgets every accepting answer for the same token. Only the issuer can
    /// withdraw its own answer, so a refusal of holdfast's own causes no write to disk: strangers can cause
    /// any number of them. For the same reason it ends no epoch. Otherwise nothing could be kept during a
    /// flood of bad tokens. A refusal that may come from a gateway in front of the issuer ends ready answers,
    /// and keeps the record for an outage that may follow.
    pub fn refuse(&self, digest: TokenDigest, mut refused: Refused) {
        if let Some(earlier) = self.ready.refusals.get(&digest) {
            refused.until = refused.until.max(earlier.until);
        }
        let is_the_issuers = refused.refusal.is_the_issuers();
        let note = || {
            if is_the_issuers {
                self.invalidations.note(&digest.0);
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
        // A refusal of our own depends on the configuration, and another one may accept. The issuer's holds
        // in all.
        let all = if is_the_issuers { self.all_ready() } else { vec![self.ready.clone()] };
        // Inserted before the last note, so a request that begins after the note finds the refusal.
        all.iter().for_each(|ready| ready.refusals.insert(digest, refused.clone()));
        note();
        for ready in all {
            ready.forget(&digest);
        }
    }

    /// The verdict on a foreign token. It is promoted unless the token was forgotten since.
    pub async fn verdict(&self, digest: &TokenDigest, since: Epoch) -> Option<Found<VerdictRecord>> {
        self.find(&self.verdicts, digest, &digest.0, since).await
    }

    /// The lookup: memory, then the shared store and the disk, from which the record is promoted. A record in
    /// memory that may not be served at once is no hit if another instance may have shared a younger one.
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
        let known = memory::get(memory, key);
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
        self.invalidations.if_not_invalidated(since, bytes, || memory::keep(memory, *key, &record));
        Some((Arc::new(record), store))
    }

    /// The verdict on a foreign token that another instance may have shared just now.
    pub async fn shared_verdict(&self, digest: &TokenDigest) -> Option<Arc<VerdictRecord>> {
        self.find_shared(&self.verdicts, digest, &digest.0).await
    }

    /// What another instance may have shared of a subject just now.
    pub async fn shared_profile(&self, key: &SubjectKey) -> Option<Arc<ProfileRecord>> {
        self.find_shared(&self.profiles, key, &key.0).await
    }

    /// Looks in the shared store alone, and promotes what is there.
    async fn find_shared<K, R>(
        &self,
        memory: &Records<K>,
        key: &K,
        bytes: &[u8; DIGEST_LENGTH],
    ) -> Option<Arc<R>>
    where
        K: Hash + Eq + Copy,
        R: Record,
    {
        let since = self.invalidations.epoch(bytes);
        let record = self.archive.as_ref()?.load_shared::<R>(bytes).await?;
        self.invalidations.if_not_invalidated(since, bytes, || memory::keep(memory, *key, &record));
        Some(Arc::new(record))
    }

    /// The verdict on a foreign token, if it was reached within `time`; in memory only.
    #[must_use]
    pub fn verdict_of(
        &self,
        digest: &TokenDigest,
        time: &RangeInclusive<Timestamp>,
    ) -> Option<Arc<VerdictRecord>> {
        memory::get_within(&self.verdicts, digest, time)
    }

    /// Keeps a verdict on a foreign token, unless the token was forgotten since.
    pub fn keep_verdict(&self, digest: TokenDigest, record: Arc<VerdictRecord>, since: Epoch) {
        self.invalidations.if_not_invalidated(since, &digest.0, || {
            if let Some(archive) = &self.archive {
                archive.keep(&digest.0, &*record, &record.known(), &self.policy);
            }
            memory::keep(&self.verdicts, digest, &*record);
        });
    }

    /// What is known of a subject.
    pub async fn profile(&self, key: &SubjectKey) -> Option<Found<ProfileRecord>> {
        self.catch_up_profile(key);
        self.find(&self.profiles, key, &key.0, self.epoch_of_profile(key)).await
    }

    /// What is known of a subject, if it was said within `time`; in memory only.
    #[must_use]
    pub fn profile_of(
        &self,
        key: &SubjectKey,
        time: &RangeInclusive<Timestamp>,
    ) -> Option<Arc<ProfileRecord>> {
        self.catch_up_profile(key);
        memory::get_within(&self.profiles, key, time)
    }

    /// Keeps what is known of a subject, unless the subject was forgotten since. The fact that there is no
    /// email is kept in memory only: it may change soon. But an email that was known before is forgotten, in
    /// memory and beyond: the issuer has withdrawn it.
    pub fn keep_profile(&self, key: SubjectKey, record: Arc<ProfileRecord>, mut since: Epoch) {
        if record.email.is_none() && self.may_have_email(&key) {
            if self.epoch_of_profile(&key) != since {
                return;
            }
            self.forget_profile(&key);
            since = self.epoch_of_profile(&key);
        }
        self.invalidations.if_not_invalidated(since, &key.0, || {
            if let Some(archive) = self.archive.as_ref().filter(|_| record.email.is_some()) {
                archive.keep(&key.0, &*record, &record.known(None), &self.policy);
            }
            memory::keep(&self.profiles, key, &*record);
        });
    }

    /// Whether some store may have an email of this subject. After a lookup it is in memory, unless it was
    /// evicted. Then the disk may have it. The shared store is left alone: otherwise all other instances
    /// would get the message to forget it again and again, without any use.
    fn may_have_email(&self, key: &SubjectKey) -> bool {
        match memory::get::<_, ProfileRecord>(&self.profiles, key) {
            Some(record) => record.email.is_some(),
            None => self.archive.is_some() && self.shared().is_none(),
        }
    }

    /// Forgets what is known of a subject.
    pub fn forget_profile(&self, key: &SubjectKey) {
        if let Some(archive) = &self.archive {
            self.invalidations.note(&key.0);
            archive.forget(Family::Profiles, &key.0, &self.policy);
        }
        self.invalidations.note(&key.0);
        self.profiles.remove(key);
    }

    fn instances_ready(&self) -> MutexGuard<'_, Vec<Weak<Ready>>> {
        self.instances_ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ready answers of all configurations that still answer requests. Configurations that are gone are
    /// removed from the list.
    pub(super) fn all_ready(&self) -> Vec<Arc<Ready>> {
        let mut instances_ready = self.instances_ready();
        instances_ready.retain(|ready| ready.strong_count() > 0);
        instances_ready.iter().filter_map(Weak::upgrade).collect()
    }

    /// Makes a checkpoint of the disk store now and returns its path.
    ///
    /// # Errors
    /// When there is no disk store, or it is degraded.
    pub async fn checkpoint(&self) -> Result<PathBuf, DiskError> {
        match &self.archive {
            Some(archive) => archive.checkpoint().await,
            None => Err(DiskError::NothingThere { path: PathBuf::new() }),
        }
    }

    /// Whether there is a disk store that is degraded or does not answer.
    #[must_use]
    pub fn disk_is_degraded(&self) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.disk_is_degraded())
    }

    /// The shared store, if there is one.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedStore> {
        self.archive.as_ref().and_then(|archive| archive.shared())
    }

    /// Whether there is a shared store that is degraded.
    #[must_use]
    pub fn shared_is_degraded(&self) -> bool {
        self.shared().is_some_and(SharedStore::is_degraded)
    }

    /// The bytes that the table of profiles uses, for measurements: keys, slots, evicted keys.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.profiles.memory_used().total()
    }

    /// Brings the gauge `records` up to date.
    pub fn count(&self) {
        let records = self.ready.derived().map_or(0, |derived| derived.count())
            + self.verdicts.len()
            + self.profiles.len();
        self.metrics.records("memory", records as u64);
        if let Some(archive) = &self.archive {
            archive.report_stats();
        }
        if let Some(records) = self.archive.as_ref().and_then(|archive| archive.count()) {
            self.metrics.records("disk", records);
        }
    }
}
