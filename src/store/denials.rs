//! Deny records on disk: encrypted, under their [`RevocationKey`].

use std::collections::HashMap;

use super::archive::Archive;
use super::disk::DiskError;
use crate::clock::Timestamp;
use crate::revocation::{Denial, RevocationKey};
use crate::tiers::record::{Family, Record as _};

impl Archive {
    /// Calls `visit` with every deny record on disk that can be decrypted. Blocks.
    pub(super) fn scan_denials(&self, mut visit: impl FnMut(RevocationKey, Denial)) -> Result<(), DiskError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.scan(Family::Revocations, |key, sealed| {
            let known = RevocationKey::from_bytes(key);
            if let Some((key, denial)) = known.and_then(|key| Some((key, self.open_denial(key, sealed)?))) {
                visit(key, denial);
            }
        })
    }

    /// The deny record on disk under this key, if it can be read. Blocks.
    pub(super) fn denial(&self, key: RevocationKey) -> Option<Denial> {
        let sealed = self.disk.as_ref()?.get(Family::Revocations, &key.to_bytes()).ok()??;
        self.open_denial(key, &sealed)
    }

    /// When each deny record on disk was last changed. Blocks.
    pub(super) fn times_of_denials(&self) -> Result<HashMap<RevocationKey, Timestamp>, DiskError> {
        let mut times = HashMap::new();
        self.scan_denials(|key, denial| {
            times.insert(key, denial.changed_at);
        })?;
        Ok(times)
    }

    /// How often the disk store recovered from a fault. Its records may be older after that, or missing.
    pub(super) fn disk_reopened(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.stats().reopened)
    }

    pub(super) fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Queues a record for the disk. Returns false if it was not queued; true also if there is no disk.
    pub(super) fn put_denial(&self, key: RevocationKey, denial: &Denial) -> bool {
        let Some(disk) = &self.disk else { return true };
        let sealed = self.seal_denial(key, denial);
        sealed.is_some_and(|sealed| disk.put(Family::Revocations, &key.to_bytes(), sealed))
    }

    pub(super) fn sync_disk(&self) -> Result<(), DiskError> {
        self.disk.as_ref().map_or(Ok(()), |disk| disk.sync())
    }

    /// Encrypts a record. `None` if the system gives no random bytes.
    pub(super) fn seal_denial(&self, key: RevocationKey, denial: &Denial) -> Option<Vec<u8>> {
        denial.seal(&self.sealer, &key.to_bytes(), denial.until).ok()
    }

    pub(super) fn open_denial(&self, key: RevocationKey, sealed: &[u8]) -> Option<Denial> {
        Denial::open(&self.sealer, &key.to_bytes(), sealed).ok()
    }
}
