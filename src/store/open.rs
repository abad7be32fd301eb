//! `[store]`, and opening the stores beyond memory: the data directory with its secret, the shared store, or
//! both.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::{debug, error, info, warn};

use super::archive::Archive;
use super::disk::{self, DiskError, DiskSettings, DiskStore, Opened};
use super::shared::{RedisServers, SharedError, SharedSettings, SharedStore};
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::TokenDigester;
use crate::tiers::seal::Sealer;
use crate::tiers::secret::{DerivationFailed, InstanceSecret, SecretError, SecretFile};

/// The file of the instance secret in the data directory.
pub const SECRET_FILE: &str = "secret";

/// What is wrong if the old and the new secret are the same.
pub const SAME_SECRET: &str = "store.secret_file_old: it is the same secret as the new one, so nothing is \
     rotated; make a new secret in the other file, or remove this setting";

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `path`, `--data`: the data directory, for records and keys that survive a restart. Default: none,
    /// everything is kept in memory.
    pub path: Option<PathBuf>,
    /// `memory`: the most that the memory stores take, in bytes. Default 256 MiB.
    pub memory: u64,
    /// `block_cache`: the most that the disk store caches of its files in memory, in bytes. Default 32 MiB.
    pub block_cache: usize,
    /// `sync_interval`: how much of the latest writes a power cut can lose. A crash of holdfast alone loses
    /// nothing. Default 1 s.
    pub sync_interval: Duration,
    /// `checkpoint_interval`: how often a copy is made that takes over if the store is corrupt. Default 6 h;
    /// zero: never.
    pub checkpoint_interval: Duration,
    /// `secret_file`: the instance secret, 32 random bytes. Default: the file `secret` in the data directory,
    /// created at the first start.
    pub secret_file: Option<PathBuf>,
    /// `secret_file_old`: the previous instance secret, while the secret is rotated. Records under it are
    /// read, too.
    pub secret_file_old: Option<PathBuf>,
    /// `redis`, or `redis_cluster`, or `redis_sentinels` with `redis_sentinel_master` and `redis_user`: the
    /// Redis through which several instances share records. None by default.
    pub redis: Option<RedisServers>,
    /// `redis_password_file`: a file with Redis's password, in place of the URL's.
    pub redis_password_file: Option<PathBuf>,
    /// `redis_timeout`: how long a request waits for Redis before the lookup goes on to the disk. Default 50
    /// ms.
    pub redis_timeout: Duration,
}

impl StoreSettings {
    /// The settings of the disk store; `None` without a data directory.
    #[must_use]
    pub fn disk(&self) -> Option<DiskSettings> {
        Some(DiskSettings {
            block_cache: self.block_cache,
            sync_interval: self.sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            ..DiskSettings::at(self.path.as_ref()?)
        })
    }

    /// The settings of the shared store and the file of the instance secret; `None` without a Redis.
    #[must_use]
    pub fn shared(&self) -> Option<(SharedSettings, &Path)> {
        let settings = SharedSettings {
            password_file: self.redis_password_file.clone(),
            read_timeout: self.redis_timeout,
            ..SharedSettings::of(self.redis.clone()?)
        };
        Some((settings, self.secret_file.as_deref()?))
    }
}

/// Why the archive cannot be opened.
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
    /// The old secret is the new one.
    #[error("{}", SAME_SECRET)]
    SameSecret,
    /// The data directory cannot be made.
    #[error("cannot make the data directory {path}: {problem}; give it to the user that holdfast runs as")]
    Directory {
        /// The directory.
        path: String,
        /// What the system says.
        problem: String,
    },
}

impl Archive {
    /// Opens the configured stores beyond memory; `None` if there are none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open_all(
        settings: &StoreSettings,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<(Option<Arc<Self>>, TokenDigester), ArchiveError> {
        let secret_file = settings.secret_file.as_deref();
        let (mut archive, mut digester) = match (settings.shared(), settings.disk()) {
            (Some((shared, secret_file)), disk) => {
                Self::open_shared(shared, disk, secret_file, clock.clone(), metrics.clone())?
            }
            (None, Some(disk)) => Self::open(disk, secret_file, clock.clone(), metrics.clone())?,
            (None, None) => {
                let secret = secret_file.map_or_else(InstanceSecret::random, InstanceSecret::load)?;
                return Ok((None, TokenDigester::new(&secret)?));
            }
        };
        if let Some(old) = &settings.secret_file_old {
            let shared = settings.shared().map(|(shared, _)| shared);
            (archive, digester) = archive.rotating(digester, old, shared)?;
        }
        Ok((Some(Arc::new(archive)), digester))
    }

    /// Opens the data directory. Creates it and its secret if they do not exist. A `secret_file` that is
    /// configured must exist.
    ///
    /// # Errors
    /// [`ArchiveError`], for example when another instance has it open. A full disk is not an error once the
    /// secret exists: the store starts degraded and recovers by itself.
    pub fn open(
        settings: DiskSettings,
        secret_file: Option<&Path>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let path = settings.path.clone();
        let had_records = disk::has_records(&path);
        let disk = open_disk(settings, &clock, &metrics)?;
        let secret = match secret_file {
            Some(file) => InstanceSecret::load(file)?,
            None => {
                let file = path.join(SECRET_FILE);
                if had_records && !file.exists() {
                    warn!(
                        "there are records in {}, but their instance secret {} is missing: holdfast makes a \
                         new one, which opens none of them; if you have a copy of the old secret, stop \
                         holdfast and put it there",
                        path.display(),
                        file.display()
                    );
                }
                let secret = InstanceSecret::load_or_create(&file)?;
                match SecretFile::open(&file) {
                    Ok(kept) => disk.when_back(move || put_back(&kept, &file)),
                    Err(error) => {
                        warn!("the instance secret is lost if the data directory is deleted: {error}")
                    }
                }
                secret
            }
        };
        let digester = TokenDigester::new(&secret)?;
        let sealer = Arc::new(Sealer::new(&secret)?);
        let archive = Self::new(None, Some(disk), sealer, clock, metrics);
        Ok((archive, digester))
    }

    /// Starts the shared store, with the disk store beside it if there is one. The secret must exist: only
    /// instances with the same secret can read each other's records. Must be called within a runtime.
    ///
    /// # Errors
    /// [`ArchiveError`]. A Redis that is unreachable is not an error.
    pub fn open_shared(
        settings: SharedSettings,
        disk: Option<DiskSettings>,
        secret_file: &Path,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let secret = InstanceSecret::load(secret_file)?;
        let disk = disk.map(|disk| open_disk(disk, &clock, &metrics)).transpose()?;
        let sealer = Arc::new(Sealer::new(&secret)?);
        let shared = SharedStore::start(settings, &secret, sealer.clone(), clock.clone(), metrics.clone())?;
        let digester = TokenDigester::new(&secret)?;
        let archive = Self::new(Some(shared), disk, sealer, clock, metrics);
        Ok((archive, digester))
    }
}

impl Archive {
    /// Rotates the instance secret: also reads the records under the secret in `old_file`, on the same disk
    /// and in the Redis of `shared`. `digester` is the one under the new secret. Must be called within a
    /// runtime if there is a Redis.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn rotating(
        self,
        digester: TokenDigester,
        old_file: &Path,
        shared: Option<SharedSettings>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let secret = InstanceSecret::load(old_file)?;
        let sealer = Arc::new(Sealer::new(&secret)?);
        let former = TokenDigester::new(&secret)?;
        if former.token(b"") == digester.token(b"") {
            return Err(ArchiveError::SameSecret);
        }
        let digester = digester.rotating_from(former);
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let shared = match shared {
            Some(settings) => {
                let (clock, metrics) = (clock.clone(), metrics.clone());
                let settings = SharedSettings { is_former: true, ..settings };
                Some(SharedStore::start(settings, &secret, sealer.clone(), clock, metrics)?)
            }
            None => None,
        };
        let former = Self::new(shared, self.disk.clone(), sealer, clock, metrics);
        info!("records under store.secret_file_old are read, too");
        Ok((self.rotating_from(former, digester.clone()), digester))
    }
}

/// Puts the instance secret back if the data directory was deleted: without it no record opens after a
/// restart.
fn put_back(kept: &SecretFile, file: &Path) {
    let file = file.display();
    match kept.put_back() {
        Ok(false) => {}
        Ok(true) => warn!("the instance secret {file} was missing and has been written again"),
        Err(error) => error!(
            "the instance secret {file} is missing and cannot be written again: {error}; after a restart no \
             record can be opened"
        ),
    }
}

/// Opens the data directory.
fn open_disk(settings: DiskSettings, clock: &Clock, metrics: &Metrics) -> Result<DiskStore, ArchiveError> {
    let path = settings.path.clone();
    std::fs::create_dir_all(&path).map_err(|error| ArchiveError::Directory {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    restrict_to_owner(&path);
    // Recoveries are reported by the store's own counts, whenever they happen.
    let Opened { store, recovery: _, degraded } = DiskStore::open(settings, clock.clone())?;
    if let Some(error) = degraded {
        metrics.store_failed("disk", "degraded");
        warn!("the disk store starts degraded; holdfast goes on from memory: {error}");
    }
    info!(path = %path.display(), "records are kept on disk");
    Ok(store)
}

/// Makes the data directory accessible to its owner alone. Records are sealed, but anybody who may write
/// there can destroy them.
fn restrict_to_owner(path: &Path) {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    if mode.is_ok_and(|mode| mode & 0o077 == 0) {
        return;
    }
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)) {
        Ok(()) => {
            debug!("the data directory {} is now accessible to its owner only (mode 700)", path.display())
        }
        Err(error) => warn!(
            "other users may enter the data directory {}, and its mode cannot be changed: {error}; run chmod \
             700 on it as its owner",
            path.display()
        ),
    }
}
