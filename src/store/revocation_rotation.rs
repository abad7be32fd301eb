//! Deny records while the instance secret is rotated: records under the old secret stay in force, and are
//! copied to the new secret.
//!
//! Each secret has its own [`Revocations`]: the same stores, other keys and seals, another log in Redis. A
//! change is made under both, since some instances have only the old secret.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::archive::Archive;
use super::disk::DiskError;
use super::revocations::{NotStored, Revocations, Source, Successor};
use super::target::{Target, named_by};
use crate::clock::{Clock, Timestamp};
use crate::revocation::{Denial, RevocationKey, RevocationSet};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::TokenDigester;

impl Revocations {
    /// Loads the deny records from the disk. Blocks while the disk is read.
    #[must_use]
    pub fn open(
        archive: Option<Arc<Archive>>,
        digester: &TokenDigester,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let former = archive.as_ref().and_then(|archive| archive.former()).cloned();
        let set = RevocationSet::new(clock.clone());
        let this = Self::load_from(archive, set, None, clock.clone(), metrics.clone());
        if let Some(archive) = former {
            let set = RevocationSet::former(clock.clone(), this.set());
            let successor = Successor { revocations: Arc::downgrade(&this), digester: digester.clone() };
            let _ = this.former.set(Self::load_from(Some(archive), set, Some(successor), clock, metrics));
        }
        this
    }

    /// The records under the old instance secret, while the secret is rotated.
    #[must_use]
    pub fn former(&self) -> Option<&Arc<Self>> {
        self.former.get()
    }

    pub(super) async fn change(
        &self,
        targets: Vec<Target>,
        issued_before: Timestamp,
        keep: Duration,
        source: Source,
    ) -> Result<(), NotStored> {
        let Some(former) = self.former.get() else {
            return self.change_here(targets, issued_before, keep, source).await;
        };
        let keyed = |Target { former, label, .. }: &Target| {
            Some(Target { key: (*former)?, former: None, label: label.clone() })
        };
        let formerly = targets.iter().filter_map(keyed).collect();
        let done = self.change_here(targets, issued_before, keep, source).await;
        done.and(former.change_here(formerly, issued_before, keep, source).await)
    }

    pub(super) fn load(&self) -> Result<(), DiskError> {
        let now = self.clock.now();
        match (&self.archive, &self.successor) {
            (None, _) => {}
            (Some(archive), None) => archive.read_denials(|records| self.set.apply_all(records))?,
            // With labels, which say what to copy.
            (Some(archive), Some(_)) => archive.scan_denials(|key, denial| {
                if denial.until > now {
                    self.set.apply(key, &denial);
                    self.hand_over(key, &denial);
                }
            })?,
        }
        self.loaded.store(true, Relaxed);
        Ok(())
    }

    /// Copies a record under the old secret to the new secret. A record of a single token cannot be copied:
    /// nobody knows the token.
    pub(super) fn hand_over(&self, key: RevocationKey, denial: &Denial) {
        let Some((successor, revocations)) =
            self.successor.as_ref().and_then(|successor| Some((successor, successor.revocations.upgrade()?)))
        else {
            return;
        };
        if let Some(key) = named_by(&denial.label, key.kind, &successor.digester)
            && let Some(merged) = revocations.apply(key, denial)
        {
            let Some(archive) = &revocations.archive else { return };
            if archive.has_disk() {
                revocations.unwritten().insert(key, merged);
            }
            revocations.unappended.store(archive.shared().is_some(), Relaxed);
        }
    }
}
