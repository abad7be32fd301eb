//! Forgets for good: in the database and in every checkpoint.

use tracing::warn;

use super::super::purge::{Purge, Subject};
use super::{DiskError, DiskStore};
use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::record::{Family, VerdictRecord};

impl DiskStore {
    /// Forgets what `purge` names, and waits until this is done. `open` opens a sealed verdict by its key.
    /// Blocks.
    ///
    /// # Errors
    /// When the store is degraded. It forgets before it answers again; for a subject, *all* verdicts and
    /// profiles.
    pub fn forget_for_good(
        &self,
        purge: &Purge,
        open: impl Fn(&[u8], &[u8]) -> Option<VerdictRecord>,
    ) -> Result<(), DiskError> {
        match purge {
            Purge::Token(digest) => self.forget_records(&[(Family::Verdicts, digest.0)]),
            Purge::Everybody => self.drop_for_good(&[Family::Verdicts, Family::Profiles]),
            Purge::Subject(who, keys) => {
                let mut records: Vec<_> = keys.iter().map(|key| (Family::Profiles, key.0)).collect();
                let read = self.verdicts_of(who, open, |key| {
                    records.extend(key.try_into().map(|key| (Family::Verdicts, key)));
                });
                match read {
                    Ok(()) => self.forget_records(&records),
                    Err(error) => self.drop_for_good(&[Family::Verdicts, Family::Profiles]).and(Err(error)),
                }
            }
        }
    }

    /// How many verdicts name this subject; 0 if the store is degraded. Blocks.
    pub fn count_verdicts_of(
        &self,
        who: &Subject,
        open: impl Fn(&[u8], &[u8]) -> Option<VerdictRecord>,
    ) -> u64 {
        let mut records = 0;
        self.verdicts_of(who, open, |_| records += 1).map_or(0, |()| records)
    }

    /// Shows the key of each verdict that names this subject to `visit`. Reads all verdicts, since they are
    /// found by token only.
    fn verdicts_of(
        &self,
        who: &Subject,
        open: impl Fn(&[u8], &[u8]) -> Option<VerdictRecord>,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), DiskError> {
        // A scan does not see what waits to be written.
        self.sync()?;
        self.scan(Family::Verdicts, |key, sealed| {
            if open(key, sealed).is_some_and(|record| who.matches(&record)) {
                visit(key);
            }
        })
    }

    fn forget_records(&self, records: &[(Family, [u8; DIGEST_LENGTH])]) -> Result<(), DiskError> {
        for (family, key) in records {
            self.delete(*family, key);
        }
        self.drop_for_good(&[])
    }

    /// Checkpoints hold the same records as the store, so they are removed, too. A new one takes their place.
    fn drop_for_good(&self, families: &[Family]) -> Result<(), DiskError> {
        self.purge(families)?;
        if self.keeps_checkpoints()
            && let Err(error) = self.checkpoint()
        {
            // The purge is done; the next checkpoint is made on schedule.
            warn!("no checkpoint was made after a purge: {error}");
        }
        Ok(())
    }
}
