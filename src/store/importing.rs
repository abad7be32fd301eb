//! Profiles that an operator imports.
//!
//! An import waits: for room in the queues, and for the disk to sync. A record that is known and as young
//! stays, so a second import of the same export changes nothing, and no import replaces what the issuer said
//! later.

use std::collections::HashSet;
use std::sync::Arc;

use thiserror::Error;

use super::archive::Archive;
use super::disk::DiskError;
use super::memory;
use super::stores::Stores;
use crate::tiers::digest::SubjectKey;
use crate::tiers::policy::Policy;
use crate::tiers::record::{Family, ProfileRecord, Record};

/// What became of imported profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many are kept.
    pub kept: u64,
    /// How many were known already, as young or younger.
    pub known: u64,
}

/// Why an import ended.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The disk store.
    #[error("the disk store cannot keep profiles: {0}")]
    Disk(#[from] DiskError),
    /// Redis, where it is the only store beyond memory.
    #[error("Redis is not well or has no room, and there is no data directory to keep profiles in")]
    Shared,
}

/// What became of one.
enum Kept {
    New,
    Known,
    /// A queue has no room.
    NoRoom,
}

impl Stores {
    /// Keeps these profiles, and waits until they are synced to the disk. They go to memory only where an
    /// older record is there, or there is no other store: an import of many does not evict the records that
    /// are in use. Of several for one subject the first is kept.
    ///
    /// # Errors
    /// [`ImportError`]. Some profiles may be kept then.
    pub async fn import(
        self: &Arc<Self>,
        profiles: Vec<(SubjectKey, ProfileRecord)>,
    ) -> Result<Imported, ImportError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.import_and_sync(profiles)).await;
        let imported = done.unwrap_or(Err(ImportError::Disk(DiskError::Closed)))?;
        if let Some(archive) = &self.archive
            && let Some(shared) = archive.shared()
        {
            shared.flush().await;
            if !archive.has_disk() && shared.is_degraded() {
                return Err(ImportError::Shared);
            }
        }
        Ok(imported)
    }

    fn import_and_sync(&self, profiles: Vec<(SubjectKey, ProfileRecord)>) -> Result<Imported, ImportError> {
        let (mut imported, mut keys) = (Imported::default(), HashSet::with_capacity(profiles.len()));
        for (key, record) in profiles {
            if !keys.insert(key.0) {
                imported.known += 1;
                continue;
            }
            let mut kept = self.import_one(&key, &record)?;
            if matches!(kept, Kept::NoRoom) {
                self.sync()?;
                kept = self.import_one(&key, &record)?;
            }
            match kept {
                Kept::New => imported.kept += 1,
                Kept::Known => imported.known += 1,
                Kept::NoRoom => return Err(DiskError::Busy.into()),
            }
        }
        if imported.kept > 0 {
            self.sync()?;
        }
        Ok(imported)
    }

    fn import_one(&self, key: &SubjectKey, record: &ProfileRecord) -> Result<Kept, ImportError> {
        let since = self.epoch_of_profile(key);
        let archive = self.archive.as_ref();
        let on_disk = archive.map_or(Ok(None), |archive| archive.profile_on_disk(key))?;
        if on_disk.is_some_and(|known| stays(&known, record)) {
            return Ok(Kept::Known);
        }
        // Whoever is forgotten meanwhile stays forgotten.
        let mut kept = Kept::Known;
        self.invalidations.unless_since(since, &key.0, || {
            // What the issuer says meanwhile is in memory before it is on the disk.
            let in_memory: Option<ProfileRecord> = memory::recall(&self.profiles, key);
            let is_in_memory = in_memory.is_some();
            if in_memory.is_some_and(|known| stays(&known, record)) {
                return;
            }
            if !archive.is_none_or(|archive| archive.import(key, record, &self.policy)) {
                kept = Kept::NoRoom;
                return;
            }
            if is_in_memory || archive.is_none() {
                memory::keep(&self.profiles, *key, record);
            }
            kept = Kept::New;
        });
        Ok(kept)
    }

    fn sync(&self) -> Result<(), DiskError> {
        match self.archive.as_ref().filter(|archive| archive.has_disk()) {
            Some(archive) => archive.sync_disk(),
            None => Ok(()),
        }
    }
}

impl Archive {
    /// The profile on disk. Blocks. What does not open counts as none.
    fn profile_on_disk(&self, key: &SubjectKey) -> Result<Option<ProfileRecord>, DiskError> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let sealed = disk.get(Family::Profiles, &key.0)?;
        Ok(sealed.and_then(|sealed| ProfileRecord::open(&self.sealer, &key.0, &sealed).ok()))
    }

    /// Queues a profile for each store. Returns whether each store that profiles are lost without has room:
    /// the disk, or Redis if there is no disk. A lookup copies it from the disk to Redis.
    fn import(&self, key: &SubjectKey, record: &ProfileRecord, policy: &Policy) -> bool {
        let useless_from = policy.useless_from(&record.kept());
        let Ok(sealed) = record.seal(&self.sealer, &key.0, useless_from) else { return false };
        let shared = self.shared.as_ref().is_some_and(|shared| {
            shared.put(Family::Profiles, &key.0, sealed.clone(), record.verified_at, useless_from)
        });
        self.disk.as_ref().map_or(shared, |disk| disk.put(Family::Profiles, &key.0, sealed))
    }
}

/// Whether a known record stays: it is as young, and was made under the settings that say which email counts.
/// By other settings it is of no use.
fn stays(known: &ProfileRecord, imported: &ProfileRecord) -> bool {
    known.verified_at >= imported.verified_at && known.email_rules == imported.email_rules
}
