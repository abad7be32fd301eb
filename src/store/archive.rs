//! Records beyond memory, shared and on disk: sealed on the way down, opened and checked on the way up.
//!
//! [`SharedStore`] and [`DiskStore`] keep bytes and know no key; [`Sealer`] knows the key and no store. This is where they
//! meet. Whatever does not open (another secret, another version, a flipped bit) is a miss, and counted. The walk over
//! both stands in [`Archive::load`].

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use super::disk::layout::Layout;
use super::disk::{DiskError, DiskSettings, DiskStats, DiskStore, Opened};
use super::purge::{Purge, Subject, Unfinished};
use super::shared::{Forget, SharedError, SharedSettings, SharedStore};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey, TokenDigester};
use crate::tiers::policy::{Known, Policy, RecordKind};
use crate::tiers::record::{Family, Record, VerdictRecord};
use crate::tiers::seal::Sealer;
use crate::tiers::secret::{DerivationFailed, InstanceSecret, SecretError};

/// The file of the instance secret in the data directory.
pub const SECRET_FILE: &str = "secret";

/// Why the records cannot be had.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The disk.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The shared store.
    #[error("{0}")]
    Shared(#[from] SharedError),
    /// The instance secret.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The keys derived from it.
    #[error("{0}")]
    Keys(#[from] DerivationFailed),
    /// The data directory cannot be made.
    #[error("cannot make the data directory {path}: {problem}; give it to the user that holdfast runs as")]
    Directory {
        /// The directory.
        path: String,
        /// What the system says.
        problem: String,
    },
}

/// The records beyond memory: shared, on disk, or both.
pub struct Archive {
    shared: Option<SharedStore>,
    disk: Option<DiskStore>,
    keeps_checkpoints: bool,
    sealer: Arc<Sealer>,
    forgetting: Mutex<Forgetting>,
    /// What the disk had counted when its counts were last taken over into the metrics.
    told: Mutex<DiskStats>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What keeps a record that one store still has from being copied to the other, which has forgotten it already.
#[derive(Debug, Default)]
struct Forgetting {
    /// How often forgetting began or ended.
    turns: u64,
    /// How many are at it.
    under_way: usize,
}

/// Ends what [`Archive::begin_to_forget`] began, also for a caller that goes away.
struct Turn<'a>(&'a Mutex<Forgetting>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut forgetting = lock(self.0);
        forgetting.turns += 1;
        forgetting.under_way -= 1;
    }
}

/// Numbers are whole whatever happened to whoever held them.
fn lock<T>(numbers: &Mutex<T>) -> MutexGuard<'_, T> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record that opens, and its bytes, sealed.
type Sealed<R> = (R, Vec<u8>);

impl Archive {
    /// Opens the data directory, making it and its secret if they are not there. A `secret_file` that is given has to
    /// be there.
    ///
    /// # Errors
    /// [`ArchiveError`], such as when another instance has it open. A full disk is no error, once the secret is there: the
    /// store starts degraded and recovers by itself.
    pub fn open(
        settings: DiskSettings,
        secret_file: Option<&Path>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let path = settings.path.clone();
        let had_records = Layout::new(&path).has_database() == Ok(true);
        let (disk, keeps_checkpoints) = open_disk(settings, &clock, &metrics)?;
        let secret = match secret_file {
            Some(file) => InstanceSecret::load(file)?,
            None => {
                let file = path.join(SECRET_FILE);
                if had_records && !file.exists() {
                    warn!(
                        "there are records in {}, but their instance secret {} is gone: a new one is made, with \
                         which none of them opens; if you have a copy of it, stop holdfast and put it there",
                        path.display(),
                        file.display()
                    );
                }
                InstanceSecret::load_or_create(&file)?
            }
        };
        let digester = TokenDigester::new(&secret)?;
        let sealer = Arc::new(Sealer::new(&secret)?);
        let (forgetting, told) = Default::default();
        let disk = Some(disk);
        let archive =
            Self { shared: None, disk, keeps_checkpoints, sealer, forgetting, told, clock, metrics };
        Ok((archive, digester))
    }

    /// Starts the shared store, with the disk beside it if there is one. The secret has to be there: it is what makes
    /// several instances understand one another. Has to be called within a runtime.
    ///
    /// # Errors
    /// [`ArchiveError`]. A Redis that is away is no error.
    pub fn open_shared(
        settings: SharedSettings,
        disk: Option<DiskSettings>,
        secret_file: &Path,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let secret = InstanceSecret::load(secret_file)?;
        let disk = disk.map(|disk| open_disk(disk, &clock, &metrics)).transpose()?;
        let (disk, keeps_checkpoints) =
            disk.map_or((None, false), |(disk, keeps_checkpoints)| (Some(disk), keeps_checkpoints));
        let sealer = Arc::new(Sealer::new(&secret)?);
        let shared = SharedStore::start(settings, &secret, sealer.clone(), clock.clone(), metrics.clone())?;
        let digester = TokenDigester::new(&secret)?;
        let (forgetting, told) = Default::default();
        let shared = Some(shared);
        let archive = Self { shared, disk, keeps_checkpoints, sealer, forgetting, told, clock, metrics };
        Ok((archive, digester))
    }

    /// The walk: the shared store, then the disk. A shared record that may answer at once ends it, since what is shared
    /// is the latest that any instance knows; otherwise the record of the younger tier is taken. What one store has and
    /// the other has not, or has older, is written there.
    pub async fn load<R: Record>(&self, key: &[u8], policy: &Policy) -> Option<(R, &'static str)> {
        let plan = |record: &R| policy.before_asking(&record.kept(), self.clock.now(), None);
        let since = lock(&self.forgetting).turns;
        let shared = self.in_shared::<R>(key).await;
        if let Some((record, sealed)) = &shared
            && plan(record).serves_now().is_some()
        {
            self.copy_to_disk::<R>(key, sealed, since);
            return shared.map(|(record, _)| (record, "shared"));
        }
        let on_disk = self.on_disk::<R>(key).await;
        match (shared, on_disk) {
            (Some((shared, _)), Some((disk, sealed))) if plan(&disk).is_better_than(plan(&shared)) => {
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

    /// Whether another instance may have shared a better record than the one that is known: it would not answer at once.
    #[must_use]
    pub fn may_know_better<R: Record>(&self, record: &R, policy: &Policy) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.is_degraded())
            && policy.before_asking(&record.kept(), self.clock.now(), None).serves_now().is_none()
    }

    /// Whether `one` is to be preferred to `other`.
    #[must_use]
    pub fn prefers<R: Record>(&self, one: &R, other: &R, policy: &Policy) -> bool {
        let plan = |record: &R| policy.before_asking(&record.kept(), self.clock.now(), None);
        plan(one).is_better_than(plan(other))
    }

    async fn in_shared<R: Record>(&self, key: &[u8]) -> Option<Sealed<R>> {
        let found = match self.shared.as_ref()?.lookup(R::FAMILY, key).await {
            // Nobody waited: no lookup.
            Err(SharedError::Away) => return None,
            found => found.map_err(|error| (error.reason(), error.to_string())),
        };
        self.opened("shared", key, found)
    }

    async fn on_disk<R: Record>(&self, key: &[u8]) -> Option<Sealed<R>> {
        let found = self.disk.as_ref()?.lookup(R::FAMILY, key).await;
        self.opened("disk", key, found.map_err(|error| (read_failure(&error), error.to_string())))
    }

    /// What was found in `store`, if it is a record; all else is counted.
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

    /// Writes what was found shared to the disk as well, so that it is there when Redis is not.
    fn copy_to_disk<R: Record>(&self, key: &[u8], sealed: &[u8], since: u64) {
        if let Some(disk) = &self.disk {
            self.copy(since, || self.put_on(disk, R::FAMILY, key, sealed.to_vec()));
        }
    }

    /// Writes what was found on disk to the shared store as well. If another instance has it forgotten there, the mark in
    /// its place is younger, and stays; of a purge of everybody there is none.
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

    /// Queues the write of a record that was looked for since `since`, unless something was or is being forgotten, which
    /// may be this. What is queued before is dropped by whoever begins to forget after it.
    fn copy(&self, since: u64, put: impl FnOnce()) {
        let forgetting = lock(&self.forgetting);
        if forgetting.turns == since && forgetting.under_way == 0 {
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

    /// Keeps a record in both stores, behind the request. `known` tells until when it can be of use.
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
            // The queue takes it, and its writer drops it.
            self.metrics.store_failed("disk", "degraded");
        }
    }

    /// Forgets a record in both stores, and has the other instances forget it.
    pub fn forget(&self, family: Family, key: &[u8], policy: &Policy) {
        let _turn = self.begin_to_forget();
        if let Some(shared) = &self.shared {
            shared.forget(family, key, self.mark(family, policy));
        }
        if let Some(disk) = &self.disk {
            disk.delete(family, key);
        }
    }

    /// Nothing is copied from one store to the other until both have forgotten.
    fn begin_to_forget(&self) -> Turn<'_> {
        let mut forgetting = lock(&self.forgetting);
        forgetting.turns += 1;
        forgetting.under_way += 1;
        drop(forgetting);
        Turn(&self.forgetting)
    }

    /// When a record that is verified now would be of no use any more.
    fn mark(&self, family: Family, policy: &Policy) -> Timestamp {
        let kind = match family {
            Family::Verdicts => RecordKind::ForeignVerdict,
            Family::Profiles | Family::Revocations => RecordKind::Profile,
            Family::Keys => RecordKind::Keys,
        };
        policy.useless_from(&Known { kind, verified_at: self.clock.now(), not_after: None })
    }

    /// Forgets what `purge` names in both stores, has the other instances forget it, and waits until that is so.
    ///
    /// # Errors
    /// Which store is not well. It forgets before it answers again.
    pub async fn purge(self: &Arc<Self>, purge: &Purge, policy: &Policy) -> Result<(), Unfinished> {
        let _turn = self.begin_to_forget();
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
    pub async fn follow(self: &Arc<Self>, forget: &Forget) {
        let _turn = self.begin_to_forget();
        if let Some(shared) = &self.shared {
            shared.unqueue(forget);
        }
        match (forget, &self.disk) {
            // As for a no of this instance: no checkpoint is made anew for one record.
            (Forget::Token(digest), Some(disk)) => disk.delete(Family::Verdicts, digest),
            (Forget::Profile(key), Some(disk)) => disk.delete(Family::Profiles, key),
            _ => {
                if let Some(purge) = forget.clone().into_purge()
                    && let Err(error) = self.purge_disk(purge).await
                {
                    warn!("what another instance purged is forgotten before the disk answers again: {error}");
                }
            }
        }
    }

    /// What other instances have forgotten, from now on; `None` if nothing is shared.
    #[must_use]
    pub fn forgets(&self) -> Option<broadcast::Receiver<Forget>> {
        self.shared.as_ref().map(SharedStore::forgets)
    }

    async fn purge_disk(self: &Arc<Self>, purge: Purge) -> Result<(), DiskError> {
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let archive = self.clone();
        let work = tokio::task::spawn_blocking(move || match purge {
            Purge::Token(digest) => archive.forget_for_good(&disk, &[(Family::Verdicts, digest.0)]),
            Purge::Subject(who, keys) => archive.forget_subject(&disk, &keys, &who),
            Purge::Everybody => archive.drop_for_good(&disk, &[Family::Verdicts, Family::Profiles]),
        });
        work.await.unwrap_or(Err(DiskError::Closed))
    }

    /// How many verdicts on disk name this subject; none if the disk is not well.
    pub async fn count_verdicts_of(self: &Arc<Self>, who: Subject) -> u64 {
        let Some(disk) = self.disk.clone() else { return 0 };
        let archive = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut records = 0;
            let read = disk.sync().and_then(|()| {
                disk.scan(Family::Verdicts, |key, sealed| {
                    let record = VerdictRecord::open(&archive.sealer, key, sealed);
                    records += u64::from(record.is_ok_and(|record| who.is_meant_by(&record)));
                })
            });
            read.map_or(0, |()| records)
        });
        work.await.unwrap_or_default()
    }

    /// Forgets these records on disk and in every checkpoint, and waits until that is so. Blocks.
    fn forget_for_good(
        &self,
        disk: &DiskStore,
        records: &[(Family, [u8; DIGEST_LENGTH])],
    ) -> Result<(), DiskError> {
        for (family, key) in records {
            disk.delete(*family, key);
        }
        self.drop_for_good(disk, &[])
    }

    /// Forgets on disk what is known of a subject: the profiles under `keys`, and all verdicts that name it. Reads all
    /// verdicts, since tokens are what they are found by. If the disk is not well, *all* verdicts and profiles are
    /// forgotten before it answers again. Blocks.
    fn forget_subject(&self, disk: &DiskStore, keys: &[SubjectKey], who: &Subject) -> Result<(), DiskError> {
        let mut records: Vec<_> = keys.iter().map(|key| (Family::Profiles, key.0)).collect();
        // What waits to be written would be missed.
        let read = disk.sync().and_then(|()| {
            disk.scan(Family::Verdicts, |key, sealed| {
                if let Ok(record) = VerdictRecord::open(&self.sealer, key, sealed)
                    && who.is_meant_by(&record)
                    && let Ok(key) = key.try_into()
                {
                    records.push((Family::Verdicts, key));
                }
            })
        });
        match read {
            Ok(()) => self.forget_for_good(disk, &records),
            Err(error) => self.drop_for_good(disk, &[Family::Verdicts, Family::Profiles]).and(Err(error)),
        }
    }

    /// Checkpoints have the same records as the store, so they go too; a new one takes their place.
    fn drop_for_good(&self, disk: &DiskStore, families: &[Family]) -> Result<(), DiskError> {
        disk.purge(families)?;
        if self.keeps_checkpoints
            && let Err(error) = disk.checkpoint()
        {
            // What was asked for is done; the next checkpoint comes by itself.
            warn!("no checkpoint was made after a purge: {error}");
        }
        Ok(())
    }

    /// Makes a checkpoint of the disk store now and returns where.
    ///
    /// # Errors
    /// When there is no disk store, or it is not well.
    pub async fn checkpoint(&self) -> Result<PathBuf, DiskError> {
        let disk = self.disk.clone().ok_or(DiskError::NothingThere { path: PathBuf::new() })?;
        tokio::task::spawn_blocking(move || disk.checkpoint()).await.unwrap_or(Err(DiskError::Closed))
    }

    /// The shared store, if there is one.
    #[must_use]
    pub const fn shared(&self) -> Option<&SharedStore> {
        self.shared.as_ref()
    }

    /// Whether there is a disk that is not well, or does not answer.
    #[must_use]
    pub fn disk_is_degraded(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_degraded() || disk.is_slow())
    }

    /// Takes over into the metrics what the disk store has counted by itself.
    pub fn tell(&self) {
        let Some(disk) = &self.disk else { return };
        let mut told = lock(&self.told);
        let now = disk.stats();
        for (kind, before, now) in
            [("recovered", told.recoveries, now.recoveries), ("write", told.write_errors, now.write_errors)]
        {
            (before..now).for_each(|_| self.metrics.store_failed("disk", kind));
        }
        *told = now;
    }

    /// About how many records there are on disk; `None` without one. Those in the shared store are not counted: Redis
    /// would have to walk over all of them.
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

/// Opens the data directory, and tells whether it keeps checkpoints.
fn open_disk(
    settings: DiskSettings,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<(DiskStore, bool), ArchiveError> {
    let path = settings.path.clone();
    let keeps_checkpoints = !settings.checkpoint_interval.is_zero();
    std::fs::create_dir_all(&path).map_err(|error| ArchiveError::Directory {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    keep_to_ourselves(&path);
    // Of a recovery tell the store's own counts, whenever it was.
    let Opened { store, recovery: _, degraded } = DiskStore::open(settings, clock.clone())?;
    if let Some(error) = degraded {
        metrics.store_failed("disk", "degraded");
        warn!("the disk store starts degraded; holdfast goes on from memory: {error}");
    }
    info!(path = %path.display(), "records are kept on disk");
    Ok((store, keeps_checkpoints))
}

/// Nobody else has any business in the data directory: records are sealed, but who may write there can destroy them.
fn keep_to_ourselves(path: &Path) {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    if mode.is_ok_and(|mode| mode & 0o077 == 0) {
        return;
    }
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)) {
        Ok(()) => debug!("the data directory {} is for its owner alone now (mode 700)", path.display()),
        Err(error) => warn!(
            "others may enter the data directory {}, and that cannot be changed: {error}; run chmod 700 on it as its owner",
            path.display()
        ),
    }
}
