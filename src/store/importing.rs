//! Profiles that an operator imports.
//!
//! An import waits for room in the queues and for the sync of the disk. An existing record stays if it is as
//! young or younger. So a second import of the same export changes nothing, and no import replaces a later
//! answer of the issuer.

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

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many profiles were stored.
    pub kept: u64,
    /// How many profiles have an existing record that is as young or younger.
    pub known: u64,
}

/// Why an import failed.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The disk store failed.
    #[error("the disk store cannot keep profiles: {0}")]
    Disk(#[from] DiskError),
    /// Redis failed, and it is the only store besides memory.
    #[error("Redis is unreachable or full, and no data directory is configured: set store.path")]
    Shared,
}

/// The result for one profile.
enum Kept {
    New,
    Known,
    /// A queue is full.
    NoRoom,
}

impl Stores {
    /// Stores these profiles, and waits until they are synced to the disk. A profile goes to memory only if
    /// memory has an older record of it, or if there is no other store. So a large import does not evict
    /// records that are in use. If a subject occurs several times, its first profile is stored.
    ///
    /// # Errors
    /// [`ImportError`]. Some profiles may have been stored.
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
        // A purge since `since` wins: the subject stays forgotten.
        let mut kept = Kept::Known;
        self.invalidations.if_not_invalidated(since, &key.0, || {
            // An answer that the issuer gave meanwhile is in memory before it is on the disk.
            let in_memory: Option<ProfileRecord> = memory::get(&self.profiles, key);
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
    /// The profile on disk. Blocks. A record that cannot be decrypted counts as missing.
    fn profile_on_disk(&self, key: &SubjectKey) -> Result<Option<ProfileRecord>, DiskError> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let sealed = disk.get(Family::Profiles, &key.0)?;
        Ok(sealed.and_then(|sealed| ProfileRecord::open(&self.sealer, &key.0, &sealed).ok()))
    }

    /// Queues a profile for each store. Returns whether the durable store has queued it: the disk, or Redis
    /// if there is no disk. If only Redis has no room, a later lookup copies the profile from the disk to
    /// Redis.
    fn import(&self, key: &SubjectKey, record: &ProfileRecord, policy: &Policy) -> bool {
        let useless_from = policy.useless_from(&record.kept());
        let Ok(sealed) = record.seal(&self.sealer, &key.0, useless_from) else { return false };
        let shared = self.shared.as_ref().is_some_and(|shared| {
            shared.put(Family::Profiles, &key.0, sealed.clone(), record.verified_at, useless_from)
        });
        self.disk.as_ref().map_or(shared, |disk| disk.put(Family::Profiles, &key.0, sealed))
    }
}

/// Whether an existing record stays: it is as young or younger, and was made under the same settings of which
/// email counts. A record made under other settings is not used.
fn stays(known: &ProfileRecord, imported: &ProfileRecord) -> bool {
    known.verified_at >= imported.verified_at && known.email_rules == imported.email_rules
}
