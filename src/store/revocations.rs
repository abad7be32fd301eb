//! Deny records in every store: in memory, on disk, and in the log that instances share.
//!
//! A revocation takes effect in this instance at once. It is acknowledged after it is synced to the disk and
//! appended to the log in Redis. A message then makes the other instances read the log. A lost message does
//! no harm: each instance polls the log once a second. At each start, and whenever Redis has lost entries, an
//! instance compares all its deny records with the log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tracing::warn;

use super::archive::Archive;
use super::disk::DiskError;
use super::shared::{LogId, SharedError, SharedStore};
use super::target::Target;
use crate::clock::{Clock, Ticks, Timestamp};
use crate::revocation::{Denial, Kind, RevocationKey, RevocationSet};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::TokenDigester;

/// If the log was not read for longer than this, the instance may have missed a revocation.
const MAX_LAG: Duration = Duration::from_millis(2_500);

/// The most labels in memory.
const MAX_LABELS: usize = 10_000;

/// Who asked for a revocation: the metric label `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An operator, on the admin listener.
    Admin,
    /// The issuer, by OpenID Connect Back-Channel Logout.
    BackchannelLogout,
    /// Another instance.
    Shared,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::BackchannelLogout, Self::Shared];

    /// The metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::BackchannelLogout => "backchannel_logout",
            Self::Shared => "shared",
        }
    }
}

/// A change that is in force in this instance, and that a store does not have yet.
#[derive(Debug, Error)]
pub enum NotStored {
    /// One store has it. The other store gets it when it recovers.
    #[error("{0} is degraded and gets it when it recovers: {1}")]
    Pending(&'static str, String),
    /// No store has it yet.
    #[error("no store has it yet, and a restart before one recovers loses it: {0}")]
    Nowhere(String),
}

/// The deny records of this process, in all stores. All configurations share them.
pub struct Revocations {
    pub(super) set: Arc<RevocationSet>,
    pub(super) archive: Option<Arc<Archive>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// Serialises changes, so that two changes in the same millisecond have an order.
    changing: tokio::sync::Mutex<()>,
    /// Whether the disk was read.
    pub(super) loaded: AtomicBool,
    /// When the log was last read to its end, in milliseconds of the monotonic clock, plus 1; 0 means never.
    pub(super) read_at: AtomicU64,
    /// The disk store's count of recoveries from a fault when its deny records were last compared with `set`.
    compared: AtomicU64,
    /// Records that still have to be written to the disk.
    pub(super) unwritten: Mutex<HashMap<RevocationKey, Denial>>,
    /// Labels of records, if there is no disk that has them; at most [`MAX_LABELS`].
    labels: Mutex<HashMap<RevocationKey, String>>,
    /// Whether the log may lack a change of this instance. If so, it is appended when Redis recovers.
    pub(super) unappended: AtomicBool,
    /// The last entry of the log that this instance wrote and has not read yet.
    pub(super) written: Mutex<Option<LogId>>,
    /// The records under the old instance secret, while the secret is rotated.
    pub(super) former: OnceLock<Arc<Self>>,
    /// If these are the records under the old secret: the records under the new one, which take them over.
    pub(super) successor: Option<Successor>,
}

/// The deny records under the new instance secret, seen from those under the old one.
pub(super) struct Successor {
    pub(super) revocations: Weak<Revocations>,
    pub(super) digester: TokenDigester,
}

/// Sets `unappended` if it is dropped before the change is in the log, because Redis refused the change or
/// the caller was cancelled.
struct AppendGuard<'r>(Option<&'r AtomicBool>);

impl Drop for AppendGuard<'_> {
    fn drop(&mut self) {
        if let Some(unappended) = self.0 {
            unappended.store(true, Relaxed);
        }
    }
}

/// The task that follows the log. It ends when this is dropped.
pub struct RevocationTask(#[expect(dead_code, reason = "dropping it is its use")] JoinSet<()>);

impl Revocations {
    /// The records in this archive, loaded from its disk. Blocks while the disk is read.
    pub(super) fn load_from(
        archive: Option<Arc<Archive>>,
        set: RevocationSet,
        successor: Option<Successor>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            set: Arc::new(set),
            archive,
            clock,
            metrics,
            changing: tokio::sync::Mutex::default(),
            loaded: AtomicBool::new(false),
            read_at: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            unwritten: Mutex::default(),
            labels: Mutex::default(),
            unappended: AtomicBool::new(false),
            written: Mutex::default(),
            former: OnceLock::new(),
            successor,
        });
        for (kind, source) in Kind::ALL.into_iter().flat_map(|kind| Source::ALL.map(|source| (kind, source)))
        {
            this.metrics.revoked(kind.name(), source.name(), 0);
        }
        if let Err(error) = this.load() {
            warn!("deny records on disk cannot be read now; they are read when the disk recovers: {error}");
        }
        this
    }

    /// Starts the task that follows the log, and the log under the old secret. The task also reads the disk
    /// if `open` could not. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> RevocationTask {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().run());
        if let Some(former) = self.former.get() {
            tasks.spawn(former.clone().run());
        }
        RevocationTask(tasks)
    }

    /// The records in memory, which every token is checked against.
    #[must_use]
    pub fn set(&self) -> Arc<RevocationSet> {
        self.set.clone()
    }

    /// Refuses tokens issued at or before `issued_before`, from now on, for the duration `keep`.
    ///
    /// # Errors
    /// [`NotStored`]. The revocation is in force in this instance nevertheless.
    pub async fn revoke(
        &self,
        targets: Vec<Target>,
        issued_before: Timestamp,
        keep: Duration,
        source: Source,
    ) -> Result<(), NotStored> {
        // The Unix epoch marks a revocation that was lifted.
        self.change(targets, issued_before.max(Timestamp::from_secs(1)), keep, source).await
    }

    /// Lifts revocations.
    ///
    /// # Errors
    /// As [`Revocations::revoke`].
    pub async fn unrevoke(&self, targets: Vec<Target>, keep: Duration) -> Result<(), NotStored> {
        self.change(targets, Timestamp::EPOCH, keep, Source::Admin).await
    }

    pub(super) async fn change_here(
        &self,
        targets: Vec<Target>,
        issued_before: Timestamp,
        keep: Duration,
        source: Source,
    ) -> Result<(), NotStored> {
        let _lock = self.changing.lock().await;
        let mut changed = Vec::new();
        for Target { key, label, .. } in targets {
            let now = self.clock.now();
            // Later than the known change, also if another instance's clock is ahead.
            let next = |known: Timestamp| known.after(Duration::from_millis(1));
            let known = self.set.get(&key).map(|known| known.changed_at);
            let changed_at = known.map_or(now, |known| now.max(next(known)));
            let until = now.max(changed_at).after(keep);
            let merged = self.apply(key, &Denial { issued_before, changed_at, until, label });
            if let Some(denial) = merged {
                if denial.is_in_force() && self.successor.is_none() {
                    self.metrics.revoked(key.kind.name(), source.name(), 1);
                }
                changed.push((key, denial));
            }
        }
        self.keep(changed).await
    }

    /// Merges a record into the set, and keeps its label if there is no disk.
    pub(super) fn apply(&self, key: RevocationKey, denial: &Denial) -> Option<Denial> {
        let merged = self.set.apply(key, denial);
        if merged.is_some() && !self.has_disk() && !denial.label.is_empty() {
            let mut labels = self.labels();
            if labels.len() < MAX_LABELS {
                labels.insert(key, denial.label.clone());
            }
        }
        merged
    }

    /// Drops expired records.
    pub(super) fn sweep(&self) {
        self.set.drop_expired();
        self.labels().retain(|key, _| self.set.get(key).is_some());
    }

    fn has_disk(&self) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.has_disk())
    }

    fn labels(&self) -> MutexGuard<'_, HashMap<RevocationKey, String>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores these changes on the disk and in the log, and waits until both are done.
    async fn keep(&self, changed: Vec<(RevocationKey, Denial)>) -> Result<(), NotStored> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let mut guard = AppendGuard(archive.shared().map(|_| &self.unappended));
        let on_disk = match archive.has_disk() {
            true => Some(self.keep_on_disk(archive, &changed).await.map_err(|error| error.to_string())),
            false => None,
        };
        let shared = match archive.shared() {
            Some(shared) => {
                let appended = self.append(archive, shared, &changed).await;
                if appended.is_ok() {
                    guard.0 = None;
                }
                Some(appended.map_err(|error| error.to_string()))
            }
            None => None,
        };
        match (on_disk, shared) {
            (Some(Err(disk)), Some(Err(shared))) => {
                Err(NotStored::Nowhere(format!("disk: {disk}; Redis: {shared}")))
            }
            (Some(Err(error)), None) | (None, Some(Err(error))) => Err(NotStored::Nowhere(error)),
            (Some(Err(error)), Some(Ok(()))) => Err(NotStored::Pending("the disk", error)),
            (Some(Ok(())), Some(Err(error))) => Err(NotStored::Pending("Redis", error)),
            (Some(Ok(())) | None, Some(Ok(())) | None) => Ok(()),
        }
    }

    async fn keep_on_disk(
        &self,
        archive: &Arc<Archive>,
        changed: &[(RevocationKey, Denial)],
    ) -> Result<(), DiskError> {
        self.unwritten().extend(changed.iter().cloned());
        self.write_to_disk(archive).await
    }

    /// Writes the records in `unwritten` to the disk, and waits for the sync. After a fault the disk may lack
    /// records that it had, because its directory or its database was replaced.
    pub(super) async fn write_to_disk(&self, archive: &Arc<Archive>) -> Result<(), DiskError> {
        let reopened = archive.disk_reopened();
        if self.compared.load(Relaxed) != reopened {
            let disk = archive.clone();
            let kept = tokio::task::spawn_blocking(move || disk.times_of_denials()).await;
            let kept = kept.unwrap_or(Err(DiskError::Closed))?;
            let all = self.set.all().into_iter();
            let lost = all.filter(|(key, denial)| kept.get(key).is_none_or(|at| *at < denial.changed_at));
            let mut unwritten = self.unwritten();
            for (key, denial) in lost {
                unwritten.entry(key).or_insert(denial);
            }
            self.compared.store(reopened, Relaxed);
        }
        let waiting: Vec<_> = self.unwritten().clone().into_iter().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if !waiting.iter().all(|(key, denial)| archive.put_denial(*key, denial)) {
            return Err(DiskError::Busy);
        }
        let archive = archive.clone();
        let synced = tokio::task::spawn_blocking(move || archive.sync_disk()).await;
        synced.unwrap_or(Err(DiskError::Closed))?;
        let mut unwritten = self.unwritten();
        for (key, denial) in waiting {
            if unwritten.get(&key) == Some(&denial) {
                unwritten.remove(&key);
            }
        }
        Ok(())
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, HashMap<RevocationKey, Denial>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn append(
        &self,
        archive: &Archive,
        shared: &SharedStore,
        changed: &[(RevocationKey, Denial)],
    ) -> Result<(), SharedError> {
        // Each append trims entries older than this. Other records may have to stay longer than this one.
        let keep = self.set.longest_keep();
        for (key, denial) in changed {
            let sealed = archive.seal_denial(*key, denial).ok_or(SharedError::NoRecord)?;
            let place = shared.append_revocation(&key.to_bytes(), &sealed, keep).await?;
            *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        }
        Ok(())
    }

    /// Whether this instance may have missed a revocation: the disk is not read yet, or the last complete
    /// read of the log is more than 2.5 seconds ago.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let is_behind = |of: &Self| !of.loaded.load(Relaxed) || of.lag() > MAX_LAG;
        is_behind(self) || self.former.get().is_some_and(|former| is_behind(former))
    }

    /// How long ago the log was last read to its end; zero if nothing is shared.
    #[must_use]
    pub fn lag(&self) -> Duration {
        if self.archive.as_ref().and_then(|archive| archive.shared()).is_none() {
            return Duration::ZERO;
        }
        let now = self.clock.ticks().since(Ticks::from_elapsed(Duration::ZERO));
        match self.read_at.load(Relaxed).checked_sub(1) {
            Some(millis) => now.saturating_sub(Duration::from_millis(millis)),
            None => Duration::MAX,
        }
    }

    /// Brings the gauges up to date.
    pub fn show(&self) {
        for kind in Kind::ALL {
            self.metrics.revocations(kind.name(), self.set.count(kind));
        }
        self.metrics.revocation_lag(self.lag());
    }

    /// Every record, with its label if the disk has the record. Without a disk, the first labels are known.
    pub async fn list(&self) -> Vec<(RevocationKey, Denial)> {
        let mut all: HashMap<RevocationKey, Denial> = self.set.all().into_iter().collect();
        for (key, label) in self.labels().iter() {
            if let Some(denial) = all.get_mut(key) {
                denial.label.clone_from(label);
            }
        }
        if let Some(archive) = self.archive.clone() {
            let read = tokio::task::spawn_blocking(move || {
                let mut labels = Vec::new();
                let _ = archive.scan_denials(|key, denial| labels.push((key, denial.label)));
                labels
            });
            for (key, label) in read.await.unwrap_or_default() {
                if let Some(denial) = all.get_mut(&key) {
                    denial.label = label;
                }
            }
        }
        all.into_iter().collect()
    }

    /// The same records with their labels. Reads no other records.
    pub(super) async fn with_labels(
        &self,
        archive: &Arc<Archive>,
        mut records: Vec<(RevocationKey, Denial)>,
    ) -> Vec<(RevocationKey, Denial)> {
        if !archive.has_disk() {
            let labels = self.labels();
            for (key, denial) in &mut records {
                denial.label = labels.get(key).cloned().unwrap_or_default();
            }
            return records;
        }
        let (archive, unlabelled) = (archive.clone(), records.clone());
        let read = tokio::task::spawn_blocking(move || {
            for (key, denial) in &mut records {
                denial.label = archive.denial(*key).map_or_else(String::new, |kept| kept.label);
            }
            records
        });
        read.await.unwrap_or(unlabelled)
    }

    /// Waits until the log was read once, or Redis is found to be unreachable. Returns at once without Redis.
    pub async fn caught_up(&self) {
        let Some(shared) = self.archive.as_ref().and_then(|archive| archive.shared()) else { return };
        shared.first_attempt().await;
        while !shared.is_degraded() && self.lag() == Duration::MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some(former) = self.former.get() {
            Box::pin(former.caught_up()).await;
        }
    }
}
