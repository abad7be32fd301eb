//! Records beyond memory, shared and on disk. They are sealed before they are written, and opened and checked
//! after they are read.
//!
//! [`SharedStore`] and [`DiskStore`] keep bytes and have no encryption key; [`Sealer`] has the key and no
//! store. This module joins them. What does not open (another secret, another version, a flipped bit) is a
//! miss, and is counted. [`Archive::load`] is the lookup in both.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tracing::warn;

use super::disk::{DiskError, DiskStats, DiskStore};
use super::purge::{Purge, Subject};
use super::shared::{Forget, SharedError, SharedStore};
use super::unfinished::Unfinished;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{DIGEST_LENGTH, TokenDigester};
use crate::tiers::policy::{Known, Plan, Policy, RecordKind};
use crate::tiers::record::{Family, Record, VerdictRecord};
use crate::tiers::seal::Sealer;

/// The records beyond memory: shared, on disk, or both.
pub struct Archive {
    pub(super) shared: Option<SharedStore>,
    pub(super) disk: Option<DiskStore>,
    pub(super) sealer: Arc<Sealer>,
    forgetting: Mutex<Forgetting>,
    /// The disk store's counts when they were last copied to the metrics.
    reported: Mutex<DiskStats>,
    /// The archive under the old instance secret, while the secret is rotated.
    pub(super) former: Option<Former>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

/// The archive under the old instance secret, while the secret is rotated. The module `rotation` uses it.
pub(super) struct Former {
    /// The same stores, with the names and seals of the old secret.
    pub(super) archive: Arc<Archive>,
    /// Knows the digests under both secrets.
    pub(super) digester: TokenDigester,
    /// Whether records are still looked for there.
    pub(super) is_read: AtomicBool,
    /// The old digests of what instances with only the old secret have forgotten. They wait here until the
    /// same token or subject comes, since only that tells the new digest.
    pub(super) forgotten: Mutex<HashSet<[u8; DIGEST_LENGTH]>>,
    /// Whether any digest waits.
    pub(super) waits: AtomicBool,
}

/// Prevents a record that one store still has from being copied to the other, which has already forgotten it.
#[derive(Debug, Default)]
struct Forgetting {
    /// How often forgetting began or ended.
    generation: u64,
    /// How many callers are forgetting something now.
    under_way: usize,
}

/// Ends an invalidation that [`Archive::begin_to_forget`] began, also when the caller is cancelled.
struct InvalidationGuard<'a>(&'a Mutex<Forgetting>);

impl Drop for InvalidationGuard<'_> {
    fn drop(&mut self) {
        let mut forgetting = lock(self.0);
        forgetting.generation += 1;
        forgetting.under_way -= 1;
    }
}

/// A poisoned lock does no harm: the content is consistent after each statement.
pub(super) fn lock<T>(numbers: &Mutex<T>) -> MutexGuard<'_, T> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record, and its sealed bytes.
type Sealed<R> = (R, Vec<u8>);

impl Archive {
    /// An archive over these stores.
    pub(super) fn new(
        shared: Option<SharedStore>,
        disk: Option<DiskStore>,
        sealer: Arc<Sealer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (forgetting, reported) = Default::default();
        Self { shared, disk, sealer, forgetting, reported, former: None, clock, metrics }
    }

    /// The lookup: the shared store, then the disk. A shared record that may be served at once ends it, since
    /// the shared store has the latest record of all instances. Otherwise the record of the younger tier is
    /// taken. A record that the other store lacks, or has in an older version, is copied there.
    pub(super) async fn load_current<R: Record>(
        &self,
        key: &[u8],
        policy: &Policy,
    ) -> Option<(R, &'static str)> {
        let since = self.generation();
        let shared = self.in_shared::<R>(key).await;
        if let Some((record, sealed)) = &shared
            && self.plan(record, policy).serves_now().is_some()
        {
            self.copy_to_disk::<R>(key, sealed, since);
            return shared.map(|(record, _)| (record, "shared"));
        }
        let on_disk = self.on_disk::<R>(key).await;
        match (shared, on_disk) {
            (Some((shared, _)), Some((disk, sealed))) if self.prefers(&disk, &shared, policy) => {
                self.copy_to_shared(key, &disk, sealed, policy, since);
                Some((disk, "disk"))
            }
            (Some((shared, sealed)), None) => {
                self.copy_to_disk::<R>(key, &sealed, since);
                Some((shared, "shared"))
            }
            (Some((shared, _)), Some(_)) => Some((shared, "shared")),
            (None, Some((disk, sealed))) => {
                self.copy_to_shared(key, &disk, sealed, policy, since);
                Some((disk, "disk"))
            }
            (None, None) => None,
        }
    }

    /// The record in the shared store alone, for a caller that did not find it in any store, and knows that
    /// another instance may have put it there since. A second miss is not counted.
    pub async fn load_shared<R: Record>(&self, key: &[u8]) -> Option<R> {
        let since = self.generation();
        let sealed = self.shared.as_ref()?.lookup(R::FAMILY, key).await.ok()??;
        let record = R::open(&self.sealer, key, &sealed).ok()?;
        self.metrics.looked_up("shared", "hit");
        self.copy_to_disk::<R>(key, &sealed, since);
        Some(record)
    }

    /// Whether another instance may have shared a better record, because the known one may not be served at
    /// once.
    #[must_use]
    pub fn may_know_better<R: Record>(&self, record: &R, policy: &Policy) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.is_degraded())
            && self.plan(record, policy).serves_now().is_none()
    }

    /// Whether `one` is better than `other`.
    #[must_use]
    pub fn prefers<R: Record>(&self, one: &R, other: &R, policy: &Policy) -> bool {
        self.plan(one, policy).is_better_than(self.plan(other, policy))
    }

    /// What may be done with a record now, while its issuer can be asked.
    pub(super) fn plan<R: Record>(&self, record: &R, policy: &Policy) -> Plan {
        policy.before_asking(&record.kept(), self.clock.now(), None)
    }

    async fn in_shared<R: Record>(&self, key: &[u8]) -> Option<Sealed<R>> {
        let found = match self.shared.as_ref()?.lookup(R::FAMILY, key).await {
            // No request waited, so this does not count as a lookup.
            Err(SharedError::Disconnected) => return None,
            found => found.map_err(|error| (error.reason(), error.to_string())),
        };
        self.opened("shared", key, found)
    }

    async fn on_disk<R: Record>(&self, key: &[u8]) -> Option<Sealed<R>> {
        let found = self.disk.as_ref()?.lookup(R::FAMILY, key).await;
        self.opened("disk", key, found.map_err(|error| (read_failure(&error), error.to_string())))
    }

    /// What was found in `store`, if it is a record. Misses and errors are counted.
    fn opened<R: Record>(
        &self,
        store: &str,
        key: &[u8],
        found: Result<Option<Vec<u8>>, (&'static str, String)>,
    ) -> Option<Sealed<R>> {
        let sealed = match found {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                self.metrics.looked_up(store, "miss");
                return None;
            }
            Err((kind, error)) => {
                self.metrics.looked_up(store, "error");
                self.metrics.store_failed(store, kind);
                tracing::debug!("a read from {store} failed and counts as a miss: {error}");
                return None;
            }
        };
        match R::open(&self.sealer, key, &sealed) {
            Ok(record) => {
                self.metrics.looked_up(store, "hit");
                Some((record, sealed))
            }
            Err(error) => {
                self.metrics.looked_up(store, "unreadable");
                self.metrics.store_failed(store, error.reason());
                None
            }
        }
    }

    /// Copies a shared record to the disk, so that it is available when Redis is not.
    fn copy_to_disk<R: Record>(&self, key: &[u8], sealed: &[u8], since: u64) {
        if let Some(disk) = &self.disk {
            self.copy(since, || self.put_on(disk, R::FAMILY, key, sealed.to_vec()));
        }
    }

    /// Copies a record on disk to the shared store. If another instance has forgotten it there, or has purged
    /// everybody, the mark of that keeps it out.
    fn copy_to_shared<R: Record>(
        &self,
        key: &[u8],
        record: &R,
        sealed: Vec<u8>,
        policy: &Policy,
        since: u64,
    ) {
        let known = record.kept();
        self.copy(since, || {
            self.put_shared(R::FAMILY, key, sealed, known.verified_at, policy.useless_from(&known));
        });
    }

    /// Queues the write of a record whose lookup began at `since`, unless something was forgotten since or is
    /// being forgotten now, because that may be this record. If a write is already queued, the caller that
    /// forgets drops it.
    pub(super) fn copy(&self, since: u64, put: impl FnOnce()) {
        let forgetting = lock(&self.forgetting);
        if forgetting.generation == since && forgetting.under_way == 0 {
            put();
        }
    }

    fn put_shared(
        &self,
        family: Family,
        key: &[u8],
        sealed: Vec<u8>,
        verified_at: Timestamp,
        useless_from: Timestamp,
    ) {
        if let Some(shared) = &self.shared
            && !shared.put(family, key, sealed, verified_at, useless_from)
        {
            self.metrics.store_failed("shared", "queue_full");
        }
    }

    /// Keeps a record in both stores, behind the request. `known` says until when it is useful.
    pub fn keep<R: Record>(&self, key: &[u8], record: &R, known: &Known, policy: &Policy) {
        let useless_from = policy.useless_from(known);
        let Ok(sealed) = record.seal(&self.sealer, key, useless_from) else {
            self.metrics.store_failed(if self.disk.is_some() { "disk" } else { "shared" }, "seal");
            return;
        };
        if self.shared.is_some() {
            self.put_shared(R::FAMILY, key, sealed.clone(), known.verified_at, useless_from);
        }
        if let Some(disk) = &self.disk {
            self.put_on(disk, R::FAMILY, key, sealed);
        }
    }

    fn put_on(&self, disk: &DiskStore, family: Family, key: &[u8], sealed: Vec<u8>) {
        if !disk.put(family, key, sealed) {
            self.metrics.store_failed("disk", "queue_full");
        } else if disk.is_degraded() {
            // The queue accepts it, and the writer drops it.
            self.metrics.store_failed("disk", "degraded");
        }
    }

    /// Forgets a record in both stores, and tells the other instances to forget it.
    pub(super) fn forget_current(&self, family: Family, key: &[u8], policy: &Policy) {
        let _guard = self.begin_to_forget();
        if let Some(shared) = &self.shared {
            shared.forget(family, key, self.mark(family, policy));
        }
        if let Some(disk) = &self.disk {
            disk.delete(family, key);
        }
    }

    /// Forgets what `purge` names in both stores, tells the other instances to forget it, and waits until
    /// this is done.
    ///
    /// # Errors
    /// Which store is degraded. It forgets before it answers again.
    pub(super) async fn purge_current(&self, purge: &Purge, policy: &Policy) -> Result<(), Unfinished> {
        let _guard = self.begin_to_forget();
        let shared = match &self.shared {
            None => Ok(()),
            Some(shared) => shared.purge(purge, |family| self.mark(family, policy)).await,
        };
        let disk = self.purge_disk(purge.clone()).await;
        match (disk, shared) {
            (Ok(()), Ok(())) => Ok(()),
            (disk, shared) => Err(Unfinished { disk: disk.err(), shared: shared.err() }),
        }
    }

    /// Forgets on this instance's disk what another instance has forgotten.
    pub async fn follow(&self, forget: &Forget) {
        let _guard = self.begin_to_forget();
        if let Some(shared) = &self.shared {
            shared.unqueue(forget);
        }
        match (forget, &self.disk) {
            // As when this instance forgets a record: no new checkpoint is made for one record.
            (Forget::Token(digest), Some(disk)) => disk.delete(Family::Verdicts, digest),
            (Forget::Profile(key), Some(disk)) => disk.delete(Family::Profiles, key),
            _ => {
                if let Some(purge) = forget.clone().into_purge()
                    && let Err(error) = self.purge_disk(purge).await
                {
                    warn!(
                        "the disk store is degraded, and forgets what another instance purged before it \
                         answers again: {error}"
                    );
                }
            }
        }
    }

    async fn purge_disk(&self, purge: Purge) -> Result<(), DiskError> {
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let open = self.opener();
        tokio::task::spawn_blocking(move || disk.forget_for_good(&purge, open))
            .await
            .unwrap_or(Err(DiskError::Closed))
    }

    /// How many verdicts on disk name this subject; 0 if the disk store is degraded.
    pub async fn count_verdicts_of(&self, who: Subject) -> u64 {
        let Some(disk) = self.disk.clone() else { return 0 };
        let open = self.opener();
        tokio::task::spawn_blocking(move || disk.count_verdicts_of(&who, open)).await.unwrap_or_default()
    }

    /// Opens a sealed verdict, for the disk store, which has no key.
    fn opener(&self) -> impl Fn(&[u8], &[u8]) -> Option<VerdictRecord> + Send + 'static {
        let sealer = self.sealer.clone();
        move |key, sealed| VerdictRecord::open(&sealer, key, sealed).ok()
    }

    /// How often forgetting began or ended, for [`Archive::copy`].
    pub(super) fn generation(&self) -> u64 {
        lock(&self.forgetting).generation
    }

    /// Nothing is copied from one store to the other until both have forgotten.
    fn begin_to_forget(&self) -> InvalidationGuard<'_> {
        let mut forgetting = lock(&self.forgetting);
        forgetting.generation += 1;
        forgetting.under_way += 1;
        drop(forgetting);
        InvalidationGuard(&self.forgetting)
    }

    /// When a record that is verified now becomes useless.
    fn mark(&self, family: Family, policy: &Policy) -> Timestamp {
        let kind = match family {
            Family::Verdicts => RecordKind::ForeignVerdict,
            Family::Profiles | Family::Revocations => RecordKind::Profile,
            Family::Keys => RecordKind::Keys,
        };
        policy.useless_from(&Known { kind, verified_at: self.clock.now(), not_after: None })
    }

    /// What other instances have forgotten, from now on; `None` if nothing is shared.
    #[must_use]
    pub fn forgets(&self) -> Option<broadcast::Receiver<Forget>> {
        self.shared.as_ref().map(SharedStore::forgets)
    }

    /// Makes a checkpoint of the disk store now and returns its path.
    ///
    /// # Errors
    /// When there is no disk store, or it is degraded.
    pub async fn checkpoint(&self) -> Result<PathBuf, DiskError> {
        let disk = self.disk.clone().ok_or(DiskError::NothingThere { path: PathBuf::new() })?;
        tokio::task::spawn_blocking(move || disk.checkpoint()).await.unwrap_or(Err(DiskError::Closed))
    }

    /// The shared store, if there is one.
    #[must_use]
    pub const fn shared(&self) -> Option<&SharedStore> {
        self.shared.as_ref()
    }

    /// Whether there is a disk store that is degraded or does not answer.
    #[must_use]
    pub fn disk_is_degraded(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_degraded() || disk.is_slow())
    }

    /// Copies the disk store's own counts to the metrics.
    pub fn report_stats(&self) {
        let Some(disk) = &self.disk else { return };
        let mut reported = lock(&self.reported);
        let now = disk.stats();
        for (kind, before, now) in [
            ("recovered", reported.recoveries, now.recoveries),
            ("write", reported.write_errors, now.write_errors),
        ] {
            (before..now).for_each(|_| self.metrics.store_failed("disk", kind));
        }
        *reported = now;
    }

    /// About how many records are on disk; `None` without a disk store. Records in the shared store are not
    /// counted: Redis would have to walk over all of them.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let disk = self.disk.as_ref()?;
        Some(Family::ALL.into_iter().filter_map(|family| disk.records(family)).sum())
    }
}

/// The metric label of a read that failed.
const fn read_failure(error: &DiskError) -> &'static str {
    match error {
        DiskError::Busy | DiskError::Slow => error.reason(),
        _ => "read",
    }
}
