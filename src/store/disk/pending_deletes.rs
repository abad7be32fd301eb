//! Deletes that a degraded store has not applied yet, and where deletes are noted.

use std::time::Instant;

use super::checkpoint;
use super::delete_markers::{DENIABLE, DeleteMarkers};
use super::engine::{Batch, Change, Engine};
use super::error::DiskError;
use super::fault::Fault;
use super::kept;
use super::layout::Layout;
use super::opener::Opener;
use super::queue::CHANGE_OVERHEAD;
use crate::tiers::record::Family;

/// Deletes that a degraded store has not applied yet.
#[derive(Default)]
pub(super) struct PendingDeletes {
    pub(super) deletes: Vec<Change>,
    pub(super) bytes: usize,
    pub(super) purge: Vec<Family>,
    /// When to retry the removal of the copies, after a purge failed to remove them.
    pub(super) remove_copies_at: Option<Instant>,
}

impl PendingDeletes {
    pub(super) fn add(&mut self, deletes: Vec<Change>, limit: usize) {
        for delete in deletes {
            self.bytes += delete.bytes() + CHANGE_OVERHEAD;
            self.deletes.push(delete);
        }
        if self.bytes > limit {
            self.purge(&DENIABLE);
            self.deletes.clear();
            self.bytes = 0;
        }
    }

    pub(super) fn purge(&mut self, families: &[Family]) {
        for family in families {
            if !self.purge.contains(family) {
                self.purge.push(*family);
            }
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.purge.is_empty()
    }

    /// Applies all pending deletes. Keeps them if that fails. Returns the file in which deletes are noted
    /// from then on.
    pub(super) fn settle(
        &mut self,
        engine: &Engine,
        opener: &Opener,
    ) -> Result<Option<DeleteMarkers>, DiskError> {
        let fault = |fault: Fault| DiskError::engine("deleting", opener.layout().root(), &fault);
        if self.remove_copies_at.is_some() {
            checkpoint::remove_all(opener.layout())?;
            self.remove_copies_at = None;
        }
        let mut markers = markers_of(opener.layout()).map_err(fault)?;
        if !self.purge.is_empty() {
            engine.purge(&self.purge).map_err(fault)?;
            self.purge.clear();
        }
        if !self.deletes.is_empty() {
            let batch: Batch = std::mem::take(&mut self.deletes).into_iter().collect();
            let settled = note(markers.as_mut(), &batch)
                .and_then(|()| engine.write_with_retry(&batch))
                .and_then(|()| engine.sync());
            if let Err(failed) = settled {
                self.deletes = batch.into_changes();
                return Err(fault(failed));
            }
            self.bytes = 0;
        }
        Ok(markers)
    }
}

/// The file in which deletes are noted, beside the newest checkpoint if there is one.
pub(super) fn markers_of(layout: &Layout) -> Result<Option<DeleteMarkers>, Fault> {
    let newest = kept::newest(layout).map(|newest| DeleteMarkers::of(&newest.path)).transpose();
    newest.map_err(|error| Fault::Disk(format!("opening the file of deletes: {error}")))
}

/// Notes the deletes and deny records of the batch before it is written.
pub(super) fn note(markers: Option<&mut DeleteMarkers>, batch: &Batch) -> Result<(), Fault> {
    let noted = markers.map_or(Ok(()), |markers| markers.note(batch.refusals()));
    noted.map_err(|error| Fault::Disk(format!("noting a delete or deny record: {error}")))
}
