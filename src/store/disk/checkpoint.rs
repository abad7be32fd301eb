//! Copies of the disk store: periodic checkpoints and backups, and how a copy becomes the store.
//!
//! RocksDB makes a checkpoint in one step: it links the table files and copies the rest. So a checkpoint
//! costs nearly nothing until compaction replaces the linked files. It is complete once its `FORMAT` file is
//! there, which is written last. The highest number marks the newest checkpoint, not the time: a wrong clock
//! must not make an old one the newest.
//!
//! A copy becomes the store only after two steps: every block of it was read with the right checksum, and the
//! records that were deleted since were deleted from it (`delete_markers.rs`). Linked files share bytes with
//! the original, so one flipped bit in a table file damages the checkpoints, too. If no checkpoint is whole,
//! the readable records of the newest are copied one by one. That costs the damaged block, not the store.
//!
//! The instance secret is in no copy. Without the secret a copy opens, but none of its records does.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;

use super::database;
use super::delete_markers::{DENIABLE, DeleteMarkers, Deleted};
use super::engine::{Batch, Change, Engine};
use super::error::DiskError;
use super::fault::Fault;
use super::kept::{self, CheckpointDirectory};
use super::layout::{self, CopyMode, Layout, ReplaceReason};
use super::settings::DiskSettings;
use crate::clock::{Clock, Timestamp};
use crate::tiers::record::Family;

/// What was done about a corrupt store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What was wrong, in RocksDB's words.
    pub cause: String,
    /// Where the corrupt database is now.
    pub moved_to: Option<PathBuf>,
    /// The checkpoint that took its place, and when it was made; `None`: the store starts empty.
    pub restored_from: Option<(PathBuf, Timestamp)>,
    /// The checkpoint is damaged, too; its readable records were taken.
    pub salvaged: bool,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk store was corrupt ({})", self.cause)?;
        if let Some(moved_to) = &self.moved_to {
            write!(f, ", it is now in {}", moved_to.display())?;
        }
        match &self.restored_from {
            Some((path, _)) if self.salvaged => {
                write!(f, ", and what could be read of the checkpoint {} took its place", path.display())
            }
            Some((path, _)) => write!(f, ", and the checkpoint {} took its place", path.display()),
            None => write!(f, ", and the store starts empty, because no checkpoint is usable"),
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

/// Makes a backup of the store in the new directory `to`, which appears complete or not at all. If an
/// instance holds the store, the backup is a copy of its newest checkpoint. May block for long.
///
/// # Errors
/// When `to` exists, nothing can be read or written, or an instance holds the store and has made no
/// checkpoint yet.
pub fn backup(settings: &DiskSettings, clock: &Clock, to: &Path) -> Result<Backup, DiskError> {
    let layout = Layout::new(&settings.path);
    if layout.has_database() != Ok(true) {
        return Err(DiskError::NothingThere { path: settings.path.clone() });
    }
    layout::check_format(layout.root())?;
    match database::open(&layout, false, settings, clock) {
        Ok(engine) => {
            make_backup(&engine, &layout, to)?;
            Ok(Backup { state_of: clock.now(), from_checkpoint: false })
        }
        Err(Fault::Locked) => loop {
            let newest = kept::newest_first(&layout).into_iter().next();
            let CheckpointDirectory { path, made_at, .. } =
                newest.ok_or_else(|| DiskError::NoCheckpoint { path: settings.path.clone() })?;
            match copy_complete(&path, to) {
                Ok(()) => return Ok(Backup { state_of: made_at, from_checkpoint: true }),
                // A newer checkpoint replaced it during the copy.
                Err(_) if !path.exists() => {}
                Err(error) => return Err(error),
            }
        },
        Err(fault) => Err(DiskError::engine("opening the store", &settings.path, &fault)),
    }
}

/// Replaces the store by the backup or checkpoint in `from`, after reading all of it. Returns the new path of
/// the former store. No instance may be running on it. May block for long.
///
/// # Errors
/// When an instance is running, or `from` is not a backup, is of a newer version, or is damaged. The store
/// then stays as it is.
pub fn restore(settings: &DiskSettings, clock: &Clock, from: &Path) -> Result<Option<PathBuf>, DiskError> {
    // Before a directory is made for the store.
    if !layout::check_format(from)? {
        return Err(DiskError::NothingThere { path: from.to_owned() });
    }
    let layout = Layout::new(&settings.path);
    layout.prepare()?;
    // Hold the store while the copy is made, so that no instance starts on a store that is about to be moved.
    let mut held = hold(&layout, settings, clock)?;
    layout.finish_restoring()?;
    // A restored copy must not bring back records that were deleted since, as far as delete markers tell.
    let noted = kept::newest_first(&layout).into_iter().rev().map(|kept| Deleted::since(&kept.path));
    let deleted = noted.filter(|noted| *noted != Deleted::Unknown).reduce(Deleted::and);
    let deleted = deleted.unwrap_or(Deleted::These(Vec::new()));
    // It may not undo what was revoked since.
    let deleted = deleted.and(Deleted::These(revocations(held.as_ref())));
    copy_and_check(&layout, settings, clock, from, CopyMode::Nothing, &deleted)?;
    if held.is_none() {
        held = hold(&layout, settings, clock)?;
    }
    // Close RocksDB before its files are moved: otherwise it would remove files of the new database.
    drop(held);
    // The copy is another database: how far this one had come says nothing about it.
    database::forget_progress(&layout)?;
    layout.install_restored(ReplaceReason::Replaced, clock.now())
}

/// The deny records of a database, as far as it opens and reads.
fn revocations(engine: Option<&Engine>) -> Vec<Change> {
    let mut records = Vec::new();
    if let Some(engine) = engine
        && let Err(fault) = engine.scan(Family::Revocations, |key, value| {
            records.push(Change::Put(Family::Revocations, key.to_vec(), value.to_vec()));
        })
    {
        tracing::warn!("not all deny records of the replaced database can be read: {}", fault.message());
    }
    records
}

/// Opens the store to take its lock, if there is one that opens.
fn hold(layout: &Layout, settings: &DiskSettings, clock: &Clock) -> Result<Option<Engine>, DiskError> {
    if layout.has_database() != Ok(true) {
        return Ok(None);
    }
    match database::open(layout, false, settings, clock) {
        Ok(engine) => Ok(Some(engine)),
        Err(Fault::Locked) => Err(DiskError::InUse { path: layout.database() }),
        // The operator may be replacing it because it does not open.
        Err(_) => Ok(None),
    }
}

/// Makes a checkpoint among the others and drops the oldest.
pub(super) fn make(engine: &Engine, layout: &Layout, now: Timestamp) -> Result<PathBuf, DiskError> {
    let path = kept::next(layout, now);
    make_at(engine, &path)?;
    kept::prune(layout)?;
    Ok(path)
}

/// Makes a backup in the new directory `to`, which shares no bytes with the store.
pub(super) fn make_backup(engine: &Engine, layout: &Layout, to: &Path) -> Result<(), DiskError> {
    can_be_made(to)?;
    let links = layout.checkpoints().join("backup");
    layout.remove(&links)?;
    make_at(engine, &links)?;
    let copied = copy_complete(&links, to);
    copied.and(layout.remove(&links))
}

/// Makes a checkpoint in the new directory `to`.
fn make_at(engine: &Engine, to: &Path) -> Result<(), DiskError> {
    let made = Checkpoint::new(engine.database()).and_then(|checkpoint| checkpoint.create_checkpoint(to));
    made.map_err(|error| DiskError::engine("making a checkpoint", to, &Fault::from(&error)))?;
    let completed = DeleteMarkers::start(to)
        .and_then(|()| kept::note_sequence(to, engine.sequence()))
        .and_then(|()| layout::write_format(to));
    completed.map_err(copying_to(to))
}

/// Copies to a temporary name beside `to` first, so that a failed copy does not block a second try.
fn copy_complete(from: &Path, to: &Path) -> Result<(), DiskError> {
    can_be_made(to)?;
    let name = to.file_name().ok_or_else(|| DiskError::TargetExists { path: to.to_owned() })?;
    let mut draft_name = OsString::from(".");
    draft_name.push(name);
    draft_name.push(".partial");
    let draft = to.with_file_name(draft_name);
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copied = || {
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        layout::copy_database(from, &draft, CopyMode::Nothing)?;
        layout::write_format(&draft)?;
        fs::rename(&draft, to)?;
        layout::sync_directory(parent)
    };
    copied().map_err(|error| {
        // If this fails, the next try removes the rest.
        let _ = fs::remove_dir_all(&draft);
        copying_to(to)(error)
    })
}

fn copying_to(to: &Path) -> impl FnOnce(io::Error) -> DiskError {
    |source| DiskError::FileSystem { doing: "making a copy", path: to.to_owned(), source }
}

/// Drops all copies that hold the same records as the store: checkpoints and former databases.
pub(super) fn remove_all(layout: &Layout) -> Result<(), DiskError> {
    let names = layout::names_in(&layout.checkpoints());
    let removed = names.into_iter().map(|name| layout.remove(&layout.checkpoints().join(name)));
    // If one cannot be removed, remove the others all the same.
    let failed = removed.chain([layout.remove_former()]).filter_map(Result::err).last();
    failed.map_or(Ok(()), Err)
}

/// Moves a corrupt database aside and puts the newest good checkpoint in its place, else the readable part of
/// a damaged one, else nothing.
pub(super) fn recover(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    cause: String,
) -> Result<Recovered, DiskError> {
    // The deletes since a checkpoint are noted beside it and beside each newer one.
    let mut deleted = Deleted::These(Vec::new());
    let candidates: Vec<_> = kept::newest_first(layout)
        .into_iter()
        .map(|kept| {
            let since = Deleted::since(&kept.path).and(std::mem::replace(&mut deleted, Deleted::Unknown));
            deleted = since.clone();
            (kept, since)
        })
        .collect();
    for salvaged in [false, true] {
        for (CheckpointDirectory { path, made_at, .. }, deleted) in &candidates {
            let copied = match salvaged {
                false => copy_and_check(layout, settings, clock, path, CopyMode::Links, deleted),
                true => salvage(layout, settings, clock, path, deleted),
            };
            match copied {
                Ok(()) => {
                    let moved_to = layout.install_restored(ReplaceReason::Corrupt, clock.now())?;
                    let restored_from = Some((path.clone(), *made_at));
                    return Ok(Recovered { cause, moved_to, restored_from, salvaged });
                }
                Err(error) => {
                    tracing::warn!(checkpoint = %path.display(), %error, "a checkpoint is not usable")
                }
            }
        }
    }
    let moved_to = layout.move_aside(ReplaceReason::Corrupt, clock.now())?;
    Ok(Recovered { cause, moved_to, restored_from: None, salvaged: false })
}

/// Makes a copy of `from` that may become the database: reads every block and applies the deletes since.
fn copy_and_check(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    from: &Path,
    sharing: CopyMode,
    deleted: &Deleted,
) -> Result<(), DiskError> {
    let copy = layout.draft();
    layout.remove(&copy)?;
    let copied = || {
        layout.file_system("copying", || layout::copy_database(from, &copy, sharing))?;
        let checked = Engine::open(&copy, false, settings, clock).and_then(|engine| {
            Family::ALL.into_iter().try_for_each(|family| engine.scan(family, |_, _| ()))?;
            forget(&engine, deleted)
        });
        checked.map_err(damaged(from))?;
        layout.approve(&copy)
    };
    copied().inspect_err(|_| drop_draft(layout))
}

/// Makes a database of the readable records of `from`.
fn salvage(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    from: &Path,
    deleted: &Deleted,
) -> Result<(), DiskError> {
    let (copy, salvaged) = (layout.draft(), layout.salvaged());
    layout.remove(&copy)?;
    layout.remove(&salvaged)?;
    let read = || {
        layout.file_system("copying", || layout::copy_database(from, &copy, CopyMode::Links))?;
        let taken = Engine::open(&copy, false, settings, clock).and_then(|damaged| {
            let whole = Engine::open(&salvaged, true, settings, clock)?;
            Family::ALL.into_iter().try_for_each(|family| take_what_opens(&damaged, &whole, family))?;
            forget(&whole, deleted)?;
            whole.sync()
        });
        taken.map_err(damaged(from))?;
        layout.approve(&salvaged)
    };
    let done = read();
    drop_draft(layout);
    done
}

fn take_what_opens(from: &Engine, to: &Engine, family: Family) -> Result<(), Fault> {
    const BATCH_BYTES: usize = 256 * 1024;
    let mut batch = Batch::default();
    from.scan_what_opens(family, |key, value| {
        batch.push(Change::Put(family, key.to_vec(), value.to_vec()));
        if batch.bytes() < BATCH_BYTES { Ok(()) } else { to.write_with_retry(&std::mem::take(&mut batch)) }
    })?;
    to.write_with_retry(&batch)
}

fn forget(engine: &Engine, deleted: &Deleted) -> Result<(), Fault> {
    match deleted {
        Deleted::These(changes) => {
            let batch: Batch = changes.iter().cloned().collect();
            engine.write_with_retry(&batch)?;
            engine.sync()
        }
        Deleted::Unknown => engine.purge(&DENIABLE),
    }
}

fn damaged(copy: &Path) -> impl FnOnce(Fault) -> DiskError {
    |fault| DiskError::Damaged { path: copy.to_owned(), message: fault.message().to_owned() }
}

fn drop_draft(layout: &Layout) {
    if let Err(error) = layout.remove_drafts() {
        tracing::warn!(%error, "a useless copy could not be removed");
    }
}

/// Checks whether a backup may be made at `to`, where nothing may exist yet.
///
/// # Errors
/// [`DiskError::TargetExists`], also for a link that leads nowhere.
pub fn can_be_made(to: &Path) -> Result<(), DiskError> {
    if to.symlink_metadata().is_ok() { Err(DiskError::TargetExists { path: to.to_owned() }) } else { Ok(()) }
}
