//! Deny records on disk: encrypted, under their [`RevocationKey`].

use std::collections::HashMap;
use std::num::NonZero;
use std::thread::{self, available_parallelism};

use super::archive::Archive;
use super::disk::{DiskError, DiskStore};
use crate::clock::Timestamp;
use crate::revocation::{Denial, Kind, RevocationKey};
use crate::tiers::record::{Family, Record as _};

/// The most threads that read the deny records.
const MAX_THREADS: usize = 8;

/// How many records are passed on at once.
const AT_ONCE: usize = 256;

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

    /// Passes every deny record on disk that can be decrypted to `visit`: without labels, some at a time,
    /// from several threads at once. Blocks.
    pub(super) fn read_denials(
        &self,
        visit: impl Fn(&[(RevocationKey, Denial)]) + Sync,
    ) -> Result<(), DiskError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let threads = available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let read =
            |slice: usize| self.read_slice(disk, [slice, slice + 1].map(|at| at * 256 / threads), &visit);
        thread::scope(|scope| {
            let other = |slice| thread::Builder::new().spawn_scoped(scope, move || read(slice));
            let others: Vec<_> = (1..threads).map(|slice| (slice, other(slice))).collect();
            let own = read(0);
            others.into_iter().fold(own, |so_far, (slice, other)| {
                so_far.and(match other {
                    Ok(other) => other.join().unwrap_or(Err(DiskError::Closed)),
                    // The system starts no more threads.
                    Err(_) => read(slice),
                })
            })
        })
    }

    /// Reads the records whose digests begin with bytes from `first` up to but not including `end`.
    fn read_slice(
        &self,
        disk: &DiskStore,
        [first, end]: [usize; 2],
        visit: &impl Fn(&[(RevocationKey, Denial)]),
    ) -> Result<(), DiskError> {
        let (mut records, mut buffer) = (Vec::with_capacity(AT_ONCE), Vec::new());
        // The number 256 carries into the byte of the kind.
        let bound = |kind: Kind, at: usize| [kind as u8 + u8::from(at == 256), at as u8];
        for kind in Kind::ALL {
            disk.scan_between(Family::Revocations, &bound(kind, first), &bound(kind, end), |key, sealed| {
                let Some(known) = RevocationKey::from_bytes(key) else { return };
                if let Ok(denial) = Denial::open_unlabelled(&self.sealer, key, sealed, &mut buffer) {
                    records.push((known, denial));
                }
                if records.len() == AT_ONCE {
                    visit(&records);
                    records.clear();
                }
            })?;
        }
        visit(&records);
        Ok(())
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
