//! Which checkpoints there are, and which of them stay.
//!
//! The newest [`MAX_CHECKPOINTS`] stay. One more stays if the database was replaced by one with fewer
//! changes, such as an empty one: the checkpoints of the new database must not push out the last one of the
//! old database.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::delete_markers::DeleteMarkers;
use super::error::DiskError;
use super::layout::{self, Layout, SEQUENCE_FILE};
use crate::clock::Timestamp;

/// How many checkpoints are kept.
pub(super) const MAX_CHECKPOINTS: usize = 2;

/// A checkpoint that is complete.
pub(super) struct CheckpointDirectory {
    pub(super) path: PathBuf,
    number: u64,
    pub(super) made_at: Timestamp,
}

impl CheckpointDirectory {
    /// How many changes the database had had; `None` in checkpoints of older versions.
    fn sequence(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(SEQUENCE_FILE)).ok()?.trim_end().parse().ok()
    }
}

/// Notes beside a checkpoint that is being made how many changes the database has had.
pub(super) fn note_sequence(checkpoint: &Path, sequence: u64) -> io::Result<()> {
    layout::write_whole(checkpoint, SEQUENCE_FILE, &format!("{sequence}\n"))
}

/// The complete checkpoints of a version that can be read.
pub(super) fn newest_first(layout: &Layout) -> Vec<CheckpointDirectory> {
    let directory = layout.checkpoints();
    let mut complete: Vec<_> = layout::names_in(&directory)
        .into_iter()
        .filter_map(|name| {
            let (number, made_at) = number_and_time(&name)?;
            Some(CheckpointDirectory { path: directory.join(&name), number, made_at })
        })
        .filter(|kept| matches!(layout::check_format(&kept.path), Ok(true)))
        .collect();
    complete.sort_by_key(|kept| std::cmp::Reverse(kept.number));
    complete
}

/// The newest checkpoint.
pub(super) fn newest(layout: &Layout) -> Option<CheckpointDirectory> {
    newest_first(layout).into_iter().next()
}

/// Where the next checkpoint goes.
pub(super) fn next(layout: &Layout, now: Timestamp) -> PathBuf {
    let names = layout::names_in(&layout.checkpoints());
    let last = names.iter().filter_map(|name| number_and_time(name)).map(|(number, _)| number).max();
    let number = last.unwrap_or(0).saturating_add(1);
    layout.checkpoints().join(format!("{number:08}-{:012}", now.as_secs()))
}

/// Removes the checkpoints that do not stay.
pub(super) fn prune(layout: &Layout) -> Result<(), DiskError> {
    let mut stay = newest_first(layout);
    let go = stay.split_off(MAX_CHECKPOINTS.min(stay.len()));
    let most = stay.iter().filter_map(CheckpointDirectory::sequence).max();
    let richer = |kept: &CheckpointDirectory| {
        most.zip(kept.sequence()).is_some_and(|(most, sequence)| sequence > most)
    };
    let older = go.iter().position(richer);
    let (between, extra) = older.map_or((&[][..], None), |at| (&go[..at], go.get(at)));
    if let Some(extra) = extra {
        tracing::warn!(
            checkpoint = %extra.path.display(),
            "an old checkpoint is kept: the database was replaced since, and has had fewer changes than it; \
             restore it (`holdfast restore --from`), or remove it if its records are not wanted"
        );
        for newer in between {
            let carried = DeleteMarkers::carry(&newer.path, &extra.path);
            carried.map_err(|source| DiskError::FileSystem {
                doing: "noting deletes beside an old checkpoint",
                path: extra.path.clone(),
                source,
            })?;
        }
    }
    let stays = |path: &Path| stay.iter().chain(extra).any(|kept| kept.path == path);
    let others = layout::names_in(&layout.checkpoints()).into_iter();
    let mut others = others.map(|name| layout.checkpoints().join(name)).filter(|path| !stays(path));
    others.try_for_each(|path| layout.remove(&path))
}

/// What the name of a checkpoint says.
fn number_and_time(name: &str) -> Option<(u64, Timestamp)> {
    let (number, seconds) = name.split_once('-')?;
    Some((number.parse().ok()?, Timestamp::from_secs(seconds.parse().ok()?)))
}
