//! Deny records in every store: in memory, on disk, and in the log that instances share.
//!
//! A revocation counts in this instance at once, is synced to the disk, and is appended to the log in Redis.
//! Only then it is acknowledged. The other instances are told, and read the log. Nothing depends on the
//! message: each reads on once a second. At each start, and whenever Redis has lost entries, an instance
//! compares all that it knows with the log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::warn;

use super::archive::Archive;
use super::disk::DiskError;
use super::shared::{LogId, SharedError, SharedStore};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::revocation::{Denial, Kind, RevocationKey, RevocationSet};
use crate::telemetry::metrics::Metrics;

/// Without a good read for longer than this, the instance may have missed a revocation.
const PATIENCE: Duration = Duration::from_millis(2_500);

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

/// Whom or what a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its key.
    pub key: RevocationKey,
    /// What lists show.
    pub label: String,
}

/// Where a change was not kept yet. It counts in this instance already.
#[derive(Debug, Error)]
pub enum Unkept {
    /// One store has it. The other gets it when it is well again.
    #[error("{0} is not well and gets it when it is back: {1}")]
    Later(&'static str, String),
    /// No store has it yet.
    #[error("no store could keep it yet, and a restart before one is well forgets it: {0}")]
    Nowhere(String),
}

/// The deny records of this process, wherever they lie. All configurations share them.
pub struct Revocations {
    pub(super) set: Arc<RevocationSet>,
    pub(super) archive: Option<Arc<Archive>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// One change at a time, so that two of one moment have an order.
    changing: tokio::sync::Mutex<()>,
    /// Whether the disk was read.
    pub(super) loaded: AtomicBool,
    /// When the log was last read to its end, in milliseconds of the clock that nobody sets, plus 1; 0 for
    /// never.
    pub(super) read_at: AtomicU64,
    /// How often the disk store had come back from a fault when its deny records were last compared with
    /// `set`.
    compared: AtomicU64,
    /// What the disk has still to keep.
    pub(super) unkept: Mutex<HashMap<RevocationKey, Denial>>,
    /// Whether the log may lack a change of this instance, which is to be appended when Redis is well.
    pub(super) untold: AtomicBool,
    /// The last entry of the log that this instance wrote and has not read yet.
    pub(super) written: Mutex<Option<LogId>>,
}

/// Says that the log may lack a change, if it is dropped before the change is in the log: Redis refused it, or
/// nobody waits for it any more.
struct Telling<'r>(Option<&'r AtomicBool>);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(untold) = self.0 {
            untold.store(true, Relaxed);
        }
    }
}

/// The task that follows the log. It ends when this is dropped.
pub struct RevocationTask(JoinHandle<()>);

impl Drop for RevocationTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Revocations {
    /// The deny records that are on disk, and whatever comes. Blocks while the disk is read.
    #[must_use]
    pub fn open(archive: Option<Arc<Archive>>, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        let this = Arc::new(Self {
            set: Arc::new(RevocationSet::new(clock.clone())),
            archive,
            clock,
            metrics,
            changing: tokio::sync::Mutex::default(),
            loaded: AtomicBool::new(false),
            read_at: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            unkept: Mutex::default(),
            untold: AtomicBool::new(false),
            written: Mutex::default(),
        });
        for (kind, source) in Kind::ALL.into_iter().flat_map(|kind| Source::ALL.map(|source| (kind, source)))
        {
            this.metrics.revoked(kind.name(), source.name(), 0);
        }
        if let Err(error) = this.load() {
            warn!("deny records on disk cannot be read now; they are read when the disk is well: {error}");
        }
        this
    }

    /// Starts the task that follows the log, and reads the disk if that failed. Has to be called within a
    /// runtime.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> RevocationTask {
        RevocationTask(tokio::spawn(self.clone().run()))
    }

    /// What is looked at for every token.
    #[must_use]
    pub fn set(&self) -> Arc<RevocationSet> {
        self.set.clone()
    }

    /// Refuses tokens issued at or before `issued_before`, from now on and for as long as `keep`.
    ///
    /// # Errors
    /// [`Unkept`]. It counts in this instance all the same.
    pub async fn revoke(
        &self,
        targets: Vec<Target>,
        issued_before: Timestamp,
        keep: Duration,
        source: Source,
    ) -> Result<(), Unkept> {
        // The epoch would say that it was taken back.
        self.change(targets, issued_before.max(Timestamp::from_secs(1)), keep, source).await
    }

    /// Takes revocations back.
    ///
    /// # Errors
    /// As [`Revocations::revoke`].
    pub async fn take_back(&self, targets: Vec<Target>, keep: Duration) -> Result<(), Unkept> {
        self.change(targets, Timestamp::EPOCH, keep, Source::Admin).await
    }

    async fn change(
        &self,
        targets: Vec<Target>,
        issued_before: Timestamp,
        keep: Duration,
        source: Source,
    ) -> Result<(), Unkept> {
        let _turn = self.changing.lock().await;
        let mut changed = Vec::new();
        for Target { key, label } in targets {
            let now = self.clock.now();
            // Later than what is known, also if another instance's clock is ahead.
            let next = |known: Timestamp| known.after(Duration::from_millis(1));
            let changed_at = self.set.changed_at(&key).map_or(now, |known| now.max(next(known)));
            let until = now.max(changed_at).after(keep);
            let merged = self.set.apply(key, &Denial { issued_before, changed_at, until, label });
            if let Some(denial) = merged {
                if denial.is_in_force() {
                    self.metrics.revoked(key.kind.name(), source.name(), 1);
                }
                changed.push((key, denial));
            }
        }
        self.keep(changed).await
    }

    /// Keeps these on disk and in the log, and waits until that is so.
    async fn keep(&self, changed: Vec<(RevocationKey, Denial)>) -> Result<(), Unkept> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let mut telling = Telling(archive.shared().map(|_| &self.untold));
        let on_disk = match archive.has_disk() {
            true => Some(self.keep_on_disk(archive, &changed).await.map_err(|error| error.to_string())),
            false => None,
        };
        let shared = match archive.shared() {
            Some(shared) => {
                let told = self.append(archive, shared, &changed).await;
                if told.is_ok() {
                    telling.0 = None;
                }
                Some(told.map_err(|error| error.to_string()))
            }
            None => None,
        };
        match (on_disk, shared) {
            (Some(Err(disk)), Some(Err(shared))) => {
                Err(Unkept::Nowhere(format!("disk: {disk}; Redis: {shared}")))
            }
            (Some(Err(error)), None) | (None, Some(Err(error))) => Err(Unkept::Nowhere(error)),
            (Some(Err(error)), Some(Ok(()))) => Err(Unkept::Later("the disk", error)),
            (Some(Ok(())), Some(Err(error))) => Err(Unkept::Later("Redis", error)),
            (Some(Ok(())) | None, Some(Ok(())) | None) => Ok(()),
        }
    }

    async fn keep_on_disk(
        &self,
        archive: &Arc<Archive>,
        changed: &[(RevocationKey, Denial)],
    ) -> Result<(), DiskError> {
        self.unkept().extend(changed.iter().cloned());
        self.write_to_disk(archive).await
    }

    /// Writes what the disk has still to keep, and waits until it is synced. After a fault the disk may lack
    /// records that it had, because its directory or its database was replaced.
    pub(super) async fn write_to_disk(&self, archive: &Arc<Archive>) -> Result<(), DiskError> {
        let reopened = archive.disk_reopened();
        if self.compared.load(Relaxed) != reopened {
            let disk = archive.clone();
            let kept = tokio::task::spawn_blocking(move || disk.times_of_denials()).await;
            let kept = kept.unwrap_or(Err(DiskError::Closed))?;
            let all = self.set.all().into_iter();
            let lost = all.filter(|(key, denial)| kept.get(key).is_none_or(|at| *at < denial.changed_at));
            let mut unkept = self.unkept();
            for (key, denial) in lost {
                unkept.entry(key).or_insert(denial);
            }
            self.compared.store(reopened, Relaxed);
        }
        let waiting: Vec<_> = self.unkept().clone().into_iter().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if !waiting.iter().all(|(key, denial)| archive.put_denial(*key, denial)) {
            return Err(DiskError::Busy);
        }
        let archive = archive.clone();
        let synced = tokio::task::spawn_blocking(move || archive.sync_disk()).await;
        synced.unwrap_or(Err(DiskError::Closed))?;
        let mut unkept = self.unkept();
        for (key, denial) in waiting {
            if unkept.get(&key) == Some(&denial) {
                unkept.remove(&key);
            }
        }
        Ok(())
    }

    pub(super) fn unkept(&self) -> MutexGuard<'_, HashMap<RevocationKey, Denial>> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn append(
        &self,
        archive: &Archive,
        shared: &SharedStore,
        changed: &[(RevocationKey, Denial)],
    ) -> Result<(), SharedError> {
        // Each append removes what is older than this, also what others are to keep for longer than this record.
        let keep = self.set.longest_keep();
        for (key, denial) in changed {
            let sealed = archive.seal_denial(*key, denial).ok_or(SharedError::NoRecord)?;
            let place = shared.append_revocation(&key.to_bytes(), &sealed, keep).await?;
            *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        }
        Ok(())
    }

    /// Whether this instance may have missed a revocation: its disk was not read, or the log could not be
    /// read for a while.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.loaded.load(Relaxed) || self.lag() > PATIENCE
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

    /// Every record, with its label where a disk has it.
    pub async fn list(&self) -> Vec<(RevocationKey, Denial)> {
        let mut all: HashMap<RevocationKey, Denial> = self.set.all().into_iter().collect();
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

    /// Waits until the log was read once, or Redis is away, or there is none.
    pub async fn caught_up(&self) {
        let Some(shared) = self.archive.as_ref().and_then(|archive| archive.shared()) else { return };
        shared.tried().await;
        while !shared.is_degraded() && self.lag() == Duration::MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn load(&self) -> Result<(), DiskError> {
        if let Some(archive) = &self.archive {
            let now = self.clock.now();
            archive.scan_denials(|key, denial| {
                if denial.until > now {
                    self.set.apply(key, &denial);
                }
            })?;
        }
        self.loaded.store(true, Relaxed);
        Ok(())
    }
}
