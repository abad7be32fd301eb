//! Records on disk: sealed on the way down, opened and checked on the way up.
//!
//! [`DiskStore`] keeps bytes and knows no key; [`Sealer`] knows the key and no disk. This is where they meet. Whatever
//! does not open (another secret, another version, a flipped bit) is a miss, and counted.

use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tracing::{info, warn};

use super::digest::{DIGEST_LENGTH, SubjectKey, TokenDigester};
use super::disk::{DiskError, DiskSettings, DiskStore, Opened};
use super::policy::{Known, Policy};
use super::purge::Subject;
use super::record::{Family, Record, VerdictRecord};
use super::seal::Sealer;
use super::secret::{DerivationFailed, InstanceSecret, SecretError};
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// The file of the instance secret in the data directory.
pub const SECRET_FILE: &str = "secret";

/// Why the records on disk cannot be had.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The disk.
    #[error("{0}")]
    Disk(#[from] DiskError),
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

/// The records on disk.
pub struct Archive {
    disk: DiskStore,
    sealer: Sealer,
    keeps_checkpoints: bool,
    metrics: Arc<Metrics>,
}

impl Archive {
    /// Opens the data directory, making it and its secret if they are not there. A `secret_file` that is given has to
    /// be there.
    ///
    /// # Errors
    /// [`ArchiveError`], such as when another instance has it open. A full disk is no error: the store starts degraded
    /// and recovers by itself.
    pub fn open(
        settings: DiskSettings,
        secret_file: Option<&Path>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, TokenDigester), ArchiveError> {
        let path = &settings.path.clone();
        let keeps_checkpoints = !settings.checkpoint_interval.is_zero();
        std::fs::create_dir_all(path).map_err(|error| ArchiveError::Directory {
            path: path.display().to_string(),
            problem: error.to_string(),
        })?;
        let Opened { store, recovery, degraded } = DiskStore::open(settings, clock)?;
        if recovery.is_some() {
            metrics.store_failed("disk", "recovered");
        }
        if let Some(error) = degraded {
            metrics.store_failed("disk", "degraded");
            warn!("the disk store starts degraded; holdfast goes on from memory: {error}");
        }
        let secret = match secret_file {
            Some(file) => InstanceSecret::load(file)?,
            None => InstanceSecret::load_or_create(&path.join(SECRET_FILE))?,
        };
        let digester = TokenDigester::new(&secret)?;
        info!(path = %path.display(), "records are kept on disk");
        Ok((Self { disk: store, sealer: Sealer::new(&secret)?, keeps_checkpoints, metrics }, digester))
    }

    /// The record under `key`, if there is one that opens.
    pub async fn load<R: Record>(&self, key: &[u8]) -> Option<R> {
        let sealed = match self.disk.lookup(R::FAMILY, key).await {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                self.metrics.looked_up("disk", "miss");
                return None;
            }
            Err(error) => {
                self.metrics.looked_up("disk", "error");
                self.metrics.store_failed("disk", "read");
                tracing::debug!("a read from disk failed and counts as a miss: {error}");
                return None;
            }
        };
        match R::open(&self.sealer, key, &sealed) {
            Ok(record) => {
                self.metrics.looked_up("disk", "hit");
                Some(record)
            }
            Err(error) => {
                self.metrics.looked_up("disk", "unreadable");
                self.metrics.store_failed("disk", error.reason());
                None
            }
        }
    }

    /// Keeps a record, behind the request. `known` tells until when it can be of use.
    pub fn keep<R: Record>(&self, key: &[u8], record: &R, known: &Known, policy: &Policy) {
        match record.seal(&self.sealer, key, policy.useless_from(known)) {
            Ok(sealed) => {
                if !self.disk.put(R::FAMILY, key, sealed) {
                    self.metrics.store_failed("disk", "queue_full");
                } else if self.disk.is_degraded() {
                    // The queue takes it, and its writer drops it.
                    self.metrics.store_failed("disk", "degraded");
                }
            }
            Err(_) => self.metrics.store_failed("disk", "seal"),
        }
    }

    /// Forgets a record.
    pub fn forget(&self, family: Family, key: &[u8]) {
        self.disk.delete(family, key);
    }

    /// Forgets these records here and in every checkpoint, and waits until that is so. Blocks.
    ///
    /// # Errors
    /// When the disk is not well. What was to be forgotten is then forgotten before the disk answers again.
    pub fn forget_for_good(&self, records: &[(Family, [u8; DIGEST_LENGTH])]) -> Result<(), DiskError> {
        for (family, key) in records {
            self.disk.delete(*family, key);
        }
        self.drop_for_good(&[])
    }

    /// Forgets all verdicts and profiles, as [`Archive::forget_for_good`] does. Issuers' keys and deny records stay.
    /// Blocks.
    ///
    /// # Errors
    /// As there.
    pub fn forget_everybody(&self) -> Result<(), DiskError> {
        self.drop_for_good(&[Family::Verdicts, Family::Profiles])
    }

    /// Forgets what is known of a subject: the profile under `key`, and all verdicts that name one of `issuers` and
    /// the subject. Returns how many verdicts. Reads all verdicts, since tokens are what they are found by. Blocks.
    ///
    /// # Errors
    /// When the disk is not well: then *all* verdicts and profiles are forgotten before the disk answers again.
    pub fn forget_subject(&self, keys: &[SubjectKey], who: &Subject) -> Result<usize, DiskError> {
        let mut records: Vec<_> = keys.iter().map(|key| (Family::Profiles, key.0)).collect();
        let read = self.disk.scan(Family::Verdicts, |key, sealed| {
            if let Ok(record) = VerdictRecord::open(&self.sealer, key, sealed)
                && who.is_meant_by(&record)
                && let Ok(key) = key.try_into()
            {
                records.push((Family::Verdicts, key));
            }
        });
        match read {
            Ok(()) => self.forget_for_good(&records).map(|()| records.len() - keys.len()),
            Err(error) => self.forget_everybody().and(Err(error)),
        }
    }

    /// Checkpoints have the same records as the store, so they go too; a new one takes their place.
    fn drop_for_good(&self, families: &[Family]) -> Result<(), DiskError> {
        self.disk.purge(families)?;
        if self.keeps_checkpoints
            && let Err(error) = self.disk.checkpoint()
        {
            // What was asked for is done; the next checkpoint comes by itself.
            warn!("no checkpoint was made after a purge: {error}");
        }
        Ok(())
    }

    /// Whether the disk is not well, so that holdfast goes on from memory alone.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.disk.is_degraded()
    }

    /// About how many records there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        Family::ALL.into_iter().filter_map(|family| self.disk.records(family)).sum()
    }
}
