//! Copies of the disk store: periodic checkpoints, backups, and how either becomes the store again.
//!
//! A checkpoint is a directory that RocksDB fills in one moment: table files are linked, the rest is copied, so it costs
//! next to nothing until compaction replaces the linked files. It counts only when its `FORMAT` file is there, which is
//! written last. Which is the newest, its number says: a clock that was wrong for a while must not put an old one first.
//!
//! A copy becomes the store only after every block of it was read and its checksum was right, and after what was deleted
//! since was deleted from it (`delete_markers.rs`). Links share bytes with the original, so one flipped bit in a table file
//! damages the checkpoints as well. If no checkpoint is whole, the records that can still be read of the newest are taken
//! one by one: that costs the block that is damaged, not the store.
//!
//! The instance secret is in no copy. Without it a copy opens, and none of its records do.

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
use super::kept::{self, Kept};
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
    /// The checkpoint is damaged as well, and what could be read of it was taken.
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

/// Makes a backup of the store in the new directory `to`, which appears complete or not at all. If an instance holds the
/// store, its newest checkpoint is what is backed up. May block for long.
///
/// # Errors
/// When `to` exists, nothing can be read or written, or an instance holds the store and has made no checkpoint yet.
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
            let Kept { path, made_at, .. } =
                newest.ok_or_else(|| DiskError::NoCheckpoint { path: settings.path.clone() })?;
            match copy_complete(&path, to) {
                Ok(()) => return Ok(Backup { state_of: made_at, from_checkpoint: true }),
                // It made way for a newer one while it was copied.
                Err(_) if !path.exists() => {}
                Err(error) => return Err(error),
            }
        },
        Err(fault) => Err(DiskError::engine("opening the store", &settings.path, &fault)),
    }
}

/// Puts the backup or checkpoint in `from` in the place of the store, after reading all of it, and returns where the
/// store that was there is now. No instance may be running on it. May block for long.
///
/// # Errors
/// When an instance runs, `from` is no backup, of a newer version, or damaged: the store is then left as it is.
pub fn restore(settings: &DiskSettings, clock: &Clock, from: &Path) -> Result<Option<PathBuf>, DiskError> {
    // Before a directory is made for it.
    if !layout::check_format(from)? {
        return Err(DiskError::NothingThere { path: from.to_owned() });
    }
    let layout = Layout::new(&settings.path);
    layout.prepare()?;
    // Held while the copy is made, so that no instance starts on what is about to be moved away.
    let mut held = hold(&layout, settings, clock)?;
    layout.finish_restoring()?;
    // Also a restored copy has nothing of what was forgotten since, as far as that is known here.
    let noted = kept::newest_first(&layout).into_iter().map(|kept| Deleted::since(&kept.path));
    let deleted = noted.filter(|noted| *noted != Deleted::Unknown).reduce(Deleted::and);
    let deleted = deleted.unwrap_or(Deleted::These(Vec::new()));
    copy_and_check(&layout, settings, clock, from, CopyMode::Nothing, &deleted)?;
    if held.is_none() {
        held = hold(&layout, settings, clock)?;
    }
    // RocksDB must not be open on files that are moved: it would clean up after itself in those that come.
    drop(held);
    // The copy is another database: how far this one had come says nothing about it.
    database::forget_progress(&layout)?;
    layout.install_restored(ReplaceReason::Replaced, clock.now())
}

/// Opens the store, if there is one that opens, to have its lock.
fn hold(layout: &Layout, settings: &DiskSettings, clock: &Clock) -> Result<Option<Engine>, DiskError> {
    if layout.has_database() != Ok(true) {
        return Ok(None);
    }
    match database::open(layout, false, settings, clock) {
        Ok(engine) => Ok(Some(engine)),
        Err(Fault::Locked) => Err(DiskError::InUse { path: layout.database() }),
        // It is replaced because it does not open, perhaps.
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

/// Copies under another name beside `to` first: a copy that fails leaves nothing behind that a second try would meet.
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
        // What is left is found and removed by the next try, if it cannot be now.
        let _ = fs::remove_dir_all(&draft);
        copying_to(to)(error)
    })
}

fn copying_to(to: &Path) -> impl FnOnce(io::Error) -> DiskError {
    |source| DiskError::FileSystem { doing: "making a copy", path: to.to_owned(), source }
}

/// Drops all copies that have the same records as the store: checkpoints, and what the store was before.
pub(super) fn remove_all(layout: &Layout) -> Result<(), DiskError> {
    let names = layout::names_in(&layout.checkpoints());
    let removed = names.into_iter().map(|name| layout.remove(&layout.checkpoints().join(name)));
    // One that cannot be removed is no reason to leave the others.
    let failed = removed.chain([layout.remove_former()]).filter_map(Result::err).last();
    failed.map_or(Ok(()), Err)
}

/// Moves a corrupt database aside and puts the newest good checkpoint in its place, or what can be read of a damaged one,
/// or nothing.
pub(super) fn recover(
    layout: &Layout,
    settings: &DiskSettings,
    clock: &Clock,
    cause: String,
) -> Result<Recovered, DiskError> {
    // What was deleted since a checkpoint stands beside it and beside each that is newer.
    let mut deleted = Deleted::These(Vec::new());
    let candidates: Vec<_> = kept::newest_first(layout)
        .into_iter()
        .map(|kept| {
            let since = std::mem::replace(&mut deleted, Deleted::Unknown).and(Deleted::since(&kept.path));
            deleted = since.clone();
            (kept, since)
        })
        .collect();
    for salvaged in [false, true] {
        for (Kept { path, made_at, .. }, deleted) in &candidates {
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

/// Makes a copy of `from` that may become the database: every block of it is read, and what was deleted since is deleted.
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

/// Makes a database of the records of `from` that can still be read.
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
        if batch.bytes() < BATCH_BYTES { Ok(()) } else { to.write_patiently(&std::mem::take(&mut batch)) }
    })?;
    to.write_patiently(&batch)
}

fn forget(engine: &Engine, deleted: &Deleted) -> Result<(), Fault> {
    match deleted {
        Deleted::These(records) => {
            let deletes = records.iter().map(|(family, key)| Change::Delete(*family, key.clone()));
            let batch: Batch = deletes.collect();
            engine.write_patiently(&batch)?;
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
        tracing::warn!(%error, "a copy of no use could not be removed");
    }
}

/// Whether a backup may be made at `to`, which is there once it is made, and not before.
///
/// # Errors
/// [`DiskError::TargetExists`], also for a link that leads nowhere.
pub fn can_be_made(to: &Path) -> Result<(), DiskError> {
    if to.symlink_metadata().is_ok() { Err(DiskError::TargetExists { path: to.to_owned() }) } else { Ok(()) }
}
