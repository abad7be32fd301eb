//! Forgets, in Redis and on disk, what an operator purges or another instance has forgotten.

use std::fmt;
use std::sync::Arc;

use tracing::warn;

use super::archive::Archive;
use super::disk::{DiskError, DiskStore};
use super::purge::{Purge, Subject};
use super::shared::{Forget, SharedError};
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey};
use crate::tiers::policy::Policy;
use crate::tiers::record::{Family, Record, VerdictRecord};

/// What could not be purged now. The store forgets it before it answers again. Memory has forgotten it.
#[derive(Debug, thiserror::Error)]
pub struct Unfinished {
    /// What is wrong with the disk store.
    pub disk: Option<DiskError>,
    /// What is wrong with the shared store.
    pub shared: Option<SharedError>,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = "is not well and forgets before it answers again";
        let disk = self.disk.as_ref().map(|error| format!("the disk store {then}: {error}"));
        let shared = self.shared.as_ref().map(|error| format!("the shared store {then}: {error}"));
        f.write_str(&disk.into_iter().chain(shared).collect::<Vec<_>>().join("; "))
    }
}

impl Archive {
    /// Forgets what `purge` names in both stores, tells the other instances to forget it, and waits until
    /// this is done.
    ///
    /// # Errors
    /// Which store is degraded. It forgets before it answers again.
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
            // As when this instance forgets a record: no new checkpoint is made for one record.
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

    /// How many verdicts on disk name this subject; 0 if the disk store is degraded.
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

    /// Forgets these records on disk and in every checkpoint, and waits until this is done. Blocks.
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

    /// Forgets on disk what is known of a subject: the profiles under `keys`, and all verdicts that name it.
    /// Reads all verdicts, since they are found by token only. If the disk store is degraded, *all* verdicts
    /// and profiles are forgotten before it answers again. Blocks.
    fn forget_subject(&self, disk: &DiskStore, keys: &[SubjectKey], who: &Subject) -> Result<(), DiskError> {
        let mut records: Vec<_> = keys.iter().map(|key| (Family::Profiles, key.0)).collect();
        // A scan does not see what waits to be written.
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

    /// Checkpoints hold the same records as the store, so they are removed, too. A new one takes their place.
    fn drop_for_good(&self, disk: &DiskStore, families: &[Family]) -> Result<(), DiskError> {
        disk.purge(families)?;
        if disk.keeps_checkpoints()
            && let Err(error) = disk.checkpoint()
        {
            // The purge is done; the next checkpoint is made on schedule.
            warn!("no checkpoint was made after a purge: {error}");
        }
        Ok(())
    }
}
