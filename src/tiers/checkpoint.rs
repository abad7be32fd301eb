//! Copies of the disk store: periodic checkpoints, backups, and how either becomes the store again.
//!
//! A checkpoint is a directory that RocksDB fills in one moment: table files are linked, the rest is copied, so it costs
//! next to nothing until compaction replaces the linked files. It counts only when its `FORMAT` file is there, which is
//! written last. A copy becomes the store only after every block of it was read and its checksum was right: links share
//! bytes with the original, so a damaged original may have damaged its checkpoints as well.
//!
//! The instance secret is in no copy. Without it a copy opens, and none of its records do.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;

use super::disk::engine::{Engine, Fault};
use super::disk::layout::{self, Aside, Layout, Sharing};
use super::disk::{DiskError, DiskSettings};
use super::record::Family;
use crate::clock::{Clock, Timestamp};

/// How many checkpoints are kept.
pub const KEPT: usize = 2;

/// What was done about a corrupt store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What was wrong, in RocksDB's words.
    pub cause: String,
    /// Where the corrupt database is now.
    pub moved_to: Option<PathBuf>,
    /// The checkpoint that took its place, and when it was made; `None`: the store starts empty.
    pub restored_from: Option<(PathBuf, Timestamp)>,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk store was corrupt ({})", self.cause)?;
        if let Some(moved_to) = &self.moved_to {
            write!(f, ", it is now in {}", moved_to.display())?;
        }
        match &self.restored_from {
            Some((path, _)) => write!(f, ", and the checkpoint {} took its place", path.display()),
            None => write!(f, ", and with no good checkpoint the store starts empty"),
        }
    }
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The state that it holds.
    pub state_of: Timestamp,
    /// Whether it is a copy of the newest checkpoint, because a running instance holds the store.
    pub from_checkpoint: bool,
}

/// Makes a backup of the store in the new directory `to`. If an instance holds the store, its newest checkpoint is what
/// is backed up. May block for long.
///
/// # Errors
/// When `to` exists, nothing can be read or written, or an instance holds the store and has made no checkpoint yet.
pub fn backup(settings: &DiskSettings, clock: &Clock, to: &Path) -> Result<Backup, DiskError> {
    let layout = Layout::new(&settings.path);
    if layout.has_database() != Ok(true) {
        return Err(DiskError::NothingThere { path: settings.path.clone() });
    }
    layout::check_format(layout.root())?;
    match Engine::open(&layout.database(), false, settings, clock) {
        Ok(engine) => {
            make_backup(&engine, &layout, to)?;
            Ok(Backup { state_of: clock.now(), from_checkpoint: false })
        }
        Err(Fault::Locked) => {
            let newest = newest_first(&layout).into_iter().next();
            let (from, state_of) =
                newest.ok_or_else(|| DiskError::NoCheckpoint { path: settings.path.clone() })?;
            copy_complete(&from, to)?;
            Ok(Backup { state_of, from_checkpoint: true })
        }
        Err(fault) => Err(DiskError::engine("opening the store", &settings.path, &fault)),
    }
}

/// Puts the backup or checkpoint in `from` in the place of the store, after reading all of it, and returns where the
/// store that was there is now. No instance may be running on it. May block for long.
///
/// # Errors
/// When an instance runs, `from` is no backup, of a newer version, or damaged: the store is then left as it is.
pub fn restore(settings: &DiskSettings, clock: &Clock, from: &Path) -> Result<Option<PathBuf>, DiskError> {
    let layout = Layout::new(&settings.path);
    layout.prepare()?;
    if !layout::check_format(from)? {
        return Err(DiskError::NothingThere { path: from.to_owned() });
    }
    // A store that opens, or does not for any other reason, is not held by an instance.
    if layout.has_database() == Ok(true)
        && matches!(Engine::open(&layout.database(), false, settings, clock), Err(Fault::Locked))
    {
        return Err(DiskError::InUse { path: layout.database() });
    }
    copy_and_check(&layout, settings, clock, from, Sharing::Nothing)?;
    layout.install_restored(Aside::Replaced, clock.now())
}

/// Makes a checkpoint among the others and drops the oldest.
pub(super) fn make(engine: &Engine, layout: &Layout, now: Timestamp) -> Result<PathBuf, DiskError> {
    let path = layout.checkpoints().join(format!("{:012}", now.as_secs()));
    // Two in one second: the newer one counts.
    remove(layout, &path)?;
    make_at(engine, &path)?;
    let kept: Vec<_> = newest_first(layout).into_iter().take(KEPT).map(|(path, _)| path).collect();
    for name in layout::names_in(&layout.checkpoints()) {
        let other = layout.checkpoints().join(name);
        if !kept.contains(&other) {
            remove(layout, &other)?;
        }
    }
    Ok(path)
}

/// Makes a backup in the new directory `to`, which shares no bytes with the store.
pub(super) fn make_backup(engine: &Engine, layout: &Layout, to: &Path) -> Result<(), DiskError> {
    refuse_existing(to)?;
    let links = layout.checkpoints().join("backup");
    remove(layout, &links)?;
    make_at(engine, &links)?;
    let copied = copy_complete(&links, to);
    copied.and(remove(layout, &links))
}

/// Makes a checkpoint in the new directory `to`.
fn make_at(engine: &Engine, to: &Path) -> Result<(), DiskError> {
    let made = Checkpoint::new(engine.database()).and_then(|checkpoint| checkpoint.create_checkpoint(to));
    made.map_err(|error| DiskError::engine("making a checkpoint", to, &Fault::from(&error)))?;
    layout::write_format(to).map_err(copying_to(to))
}

fn copy_complete(from: &Path, to: &Path) -> Result<(), DiskError> {
    refuse_existing(to)?;
    let copied = layout::copy_database(from, to, Sharing::Nothing).and_then(|()| layout::write_format(to));
    copied.map_err(copying_to(to))
}

fn copying_to(to: &Path) -> impl FnOnce(io::Error) -> DiskError {
    |source| DiskError::FileSystem { doing: "making a copy", path: to.to_owned(), source }
}

/// Drops all checkpoints.
pub(super) fn remove_all(layout: &Layout) -> Result<(), DiskError> {
    let names = layout::names_in(&layout.checkpoints());
    names.into_iter().try_for_each(|name| remove(layout, &layout.checkpoints().join(name)))
}

/// Moves a corrupt database aside and puts the newest good checkpoint in its place, or nothing.
pub(super) fn recover(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    cause: String,
) -> Result<Recovered, DiskError> {
    for (path, made_at) in newest_first(layout) {
        match copy_and_check(layout, settings, clock, &path, Sharing::Links) {
            Ok(()) => {
                let moved_to = layout.install_restored(Aside::Corrupt, clock.now())?;
                return Ok(Recovered { cause, moved_to, restored_from: Some((path, made_at)) });
            }
            Err(error) => tracing::warn!(checkpoint = %path.display(), %error, "a checkpoint is not usable"),
        }
    }
    let moved_to = layout.move_aside(Aside::Corrupt, clock.now())?;
    Ok(Recovered { cause, moved_to, restored_from: None })
}

/// The complete checkpoints of a version that can be read, with the time they were made at.
fn newest_first(layout: &Layout) -> Vec<(PathBuf, Timestamp)> {
    let directory = layout.checkpoints();
    let mut complete: Vec<_> = layout::names_in(&directory)
        .into_iter()
        .filter_map(|name| Some((directory.join(&name), Timestamp::from_secs(name.parse().ok()?))))
        .filter(|(path, _)| matches!(layout::check_format(path), Ok(true)))
        .collect();
    complete.sort_by_key(|(_, made_at)| std::cmp::Reverse(*made_at));
    complete
}

/// Copies `from` to where the next database waits, and reads every block of the copy.
fn copy_and_check(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    from: &Path,
    sharing: Sharing,
) -> Result<(), DiskError> {
    let copy = layout.restoring();
    remove(layout, &copy)?;
    layout.file_system("copying", || layout::copy_database(from, &copy, sharing))?;
    let checked = Engine::open(&copy, false, settings, clock)
        .and_then(|engine| Family::ALL.into_iter().try_for_each(|family| engine.scan(family, |_, _| ())));
    checked.map_err(|fault| {
        // A copy that is not good must not be taken for one that waits to be put into place.
        if let Err(error) = remove(layout, &copy) {
            tracing::warn!(%error, "a damaged copy could not be removed");
        }
        DiskError::Damaged { path: from.to_owned(), message: fault.message().to_owned() }
    })
}

fn remove(layout: &Layout, path: &Path) -> Result<(), DiskError> {
    if !path.exists() {
        return Ok(());
    }
    layout.file_system("removing an old copy", || fs::remove_dir_all(path))
}

fn refuse_existing(to: &Path) -> Result<(), DiskError> {
    if to.exists() { Err(DiskError::TargetExists { path: to.to_owned() }) } else { Ok(()) }
}
