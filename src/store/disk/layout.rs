//! The data directory: its files, and who may open it.
//!
//! | name | what |
//! |---|---|
//! | `FORMAT` | the version of this layout, written before anything else |
//! | `db/` | the database in use |
//! | `PROGRESS` | how far `db/` had come: the number and the length of its MANIFEST |
//! | `checkpoints/<number>-<time>/` | the newest copies of it, each with the deletes since |
//! | `db.draft/`, `db.salvaged/` | a copy that is being made and checked; removed if that was interrupted |
//! | `db.restoring/` | a copy that passed the check and becomes `db/` |
//! | `db.corrupt-<time>/`, `db.replaced-<time>/` | former `db/`, the newest of each, until the next purge |
//!
//! `db/` is a directory inside the data directory so that it can be renamed even if the data directory is a
//! mount.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::error::{DiskError, FORMAT};
use crate::clock::Timestamp;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_WORD: &str = "holdfast-disk";
const CORRUPT: &str = "db.corrupt-";
const REPLACED: &str = "db.replaced-";

/// Beside a checkpoint's own files: the deletes since.
pub(super) const DELETE_MARKERS_FILE: &str = "deleted-since";

/// Beside a checkpoint's own files: how many changes the database had had by then.
pub(super) const SEQUENCE_FILE: &str = "sequence";

/// In the data directory: how far `db/` had come.
pub(super) const PROGRESS_FILE: &str = "PROGRESS";

/// A data directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// The data directory and the database, by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    root: (u64, u64),
    database: (u64, u64),
}

/// Why `db/` was replaced: part of the name it is kept under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplaceReason {
    /// It was corrupt.
    Corrupt,
    /// An administrator restored another.
    Replaced,
}

impl Layout {
    /// The directory at `root`, which need not exist yet.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The data directory itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The database in use.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Where a copy is made and checked.
    pub(super) fn draft(&self) -> PathBuf {
        self.root.join("db.draft")
    }

    /// Where the readable records of a damaged copy are written.
    pub(super) fn salvaged(&self) -> PathBuf {
        self.root.join("db.salvaged")
    }

    /// Where a copy that passed the check waits to become the database.
    pub(super) fn restoring(&self) -> PathBuf {
        self.root.join("db.restoring")
    }

    /// Where checkpoints are.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Which directories the data directory and the database are, by device and inode: others once they were
    /// deleted or replaced.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        Ok(Identity { root: identity(&self.root)?, database: identity(&self.database())? })
    }

    /// Makes the directory if necessary, proves that it can be written to, and checks its version.
    pub(super) fn prepare(&self) -> Result<(), DiskError> {
        let unwritable = |source| DiskError::Unwritable { path: self.root.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(unwritable)?;
        fs::create_dir_all(self.checkpoints()).map_err(unwritable)?;
        let probe = self.root.join(".writable");
        File::create(&probe).map_err(unwritable)?;
        // An instance that starts at the same moment may have removed the probe and written the version. The
        // lock refuses this instance a little later.
        let _ = fs::remove_file(&probe);
        if !check_format(&self.root)?
            && let Err(source) = write_format(&self.root)
            && !check_format(&self.root)?
        {
            return Err(unwritable(source));
        }
        Ok(())
    }

    /// Whether there is a database to open: `Ok(false)` if there is none yet.
    ///
    /// # Errors
    /// When there are files of a database, but not `CURRENT`, which names the others: RocksDB would create a
    /// new database and delete them.
    pub(super) fn has_database(&self) -> Result<bool, String> {
        let database = self.database();
        if database.join("CURRENT").exists() {
            return Ok(true);
        }
        let is_data =
            |name: &str| name.starts_with("MANIFEST") || name.ends_with(".sst") || name.ends_with(".log");
        let orphan = names_in(&database).into_iter().find(|name| is_data(name));
        orphan.map_or(Ok(false), |orphan| Err(format!("CURRENT is missing although {orphan} is there")))
    }

    /// Moves a copy that passed the check to [`Layout::restoring`]. A copy gets that name complete or not at
    /// all, because the next start trusts what is there.
    pub(super) fn approve(&self, copy: &Path) -> Result<(), DiskError> {
        self.file_system("approving a copy", || {
            remove_if_there(&self.restoring())?;
            fs::rename(copy, self.restoring())?;
            sync_directory(&self.root)
        })
    }

    /// Moves a database that replaced another one to [`Layout::restoring`] until
    /// [`Layout::finish_restoring`], so that RocksDB can close the other one. On close RocksDB writes and
    /// removes files by path, and would damage the new database.
    pub(super) fn set_aside(&self) -> Result<(), DiskError> {
        if self.database().exists() { self.approve(&self.database()) } else { Ok(()) }
    }

    /// Removes a copy, if it is there.
    pub(super) fn remove(&self, copy: &Path) -> Result<(), DiskError> {
        if !copy.exists() {
            return Ok(());
        }
        self.file_system("removing an old copy", || fs::remove_dir_all(copy))
    }

    /// Removes former databases: they hold the same records.
    pub(super) fn remove_former(&self) -> Result<(), DiskError> {
        self.file_system("removing a former database", || {
            let former = |name: &String| [CORRUPT, REPLACED].iter().any(|prefix| name.starts_with(prefix));
            names_in(&self.root)
                .iter()
                .filter(|name| former(name))
                .try_for_each(|name| remove_if_there(&self.root.join(name)))
        })
    }

    /// Removes unfinished copies. Only for the instance that holds the database.
    pub(super) fn remove_drafts(&self) -> Result<(), DiskError> {
        self.file_system("removing an incomplete copy", || {
            remove_if_there(&self.draft()).and_then(|()| remove_if_there(&self.salvaged()))
        })
    }

    /// Replaces the database by the copy at [`Layout::restoring`]. The former database is kept aside, but
    /// only the newest one, because a recurring fault would fill the disk.
    pub(super) fn install_restored(
        &self,
        why: ReplaceReason,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, DiskError> {
        let moved = self.move_aside(why, now)?;
        self.finish_restoring()?;
        Ok(moved)
    }

    /// Completes a [`Layout::install_restored`] that was interrupted between its two steps. Returns whether
    /// there was one.
    pub(super) fn finish_restoring(&self) -> Result<bool, DiskError> {
        if self.database().exists() || !self.restoring().exists() {
            return Ok(false);
        }
        self.file_system("moving a restored copy into place", || {
            fs::rename(self.restoring(), self.database())?;
            sync_directory(&self.root)
        })?;
        Ok(true)
    }

    /// Moves the database aside and returns its new path; `None` if there is no database.
    pub(super) fn move_aside(
        &self,
        why: ReplaceReason,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, DiskError> {
        let prefix = match why {
            ReplaceReason::Corrupt => CORRUPT,
            ReplaceReason::Replaced => REPLACED,
        };
        if !self.database().exists() {
            return Ok(None);
        }
        let aside = self.root.join(format!("{prefix}{}", now.as_secs()));
        self.file_system("moving the old database aside", || {
            for name in names_in(&self.root).into_iter().filter(|name| name.starts_with(prefix)) {
                fs::remove_dir_all(self.root.join(name))?;
            }
            fs::rename(self.database(), &aside)?;
            sync_directory(&self.root)
        })?;
        Ok(Some(aside))
    }

    /// Runs a file system action. An error says what was being done.
    pub(super) fn file_system<T>(
        &self,
        doing: &'static str,
        action: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, DiskError> {
        action().map_err(|source| DiskError::FileSystem { doing, path: self.root.clone(), source })
    }
}

/// The names in a directory; none if it cannot be read.
pub(super) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes the version file of a directory.
pub(super) fn write_format(directory: &Path) -> io::Result<()> {
    write_whole(directory, FORMAT_FILE, &format!("{FORMAT_WORD} {FORMAT}\n"))
}

/// Writes a small file of a directory atomically: it has all of its new content, or stays as it was.
pub(super) fn write_whole(directory: &Path, name: &str, content: &str) -> io::Result<()> {
    let draft = directory.join(format!(".{name}.draft"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, directory.join(name))?;
    sync_directory(directory)
}

/// Checks the version file of a directory; `Ok(false)` if there is none.
pub(super) fn check_format(directory: &Path) -> Result<bool, DiskError> {
    let path = directory.to_owned();
    let text = match fs::read_to_string(directory.join(FORMAT_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            return Err(DiskError::UnknownFormat { path });
        }
        Err(source) => return Err(DiskError::Unwritable { path, source }),
    };
    let found =
        text.trim_end().strip_prefix(FORMAT_WORD).and_then(|version| version.trim_start().parse().ok());
    match found {
        Some(1..=FORMAT) => Ok(true),
        Some(found) if found > FORMAT => Err(DiskError::NewerFormat { path, found }),
        Some(_) | None => Err(DiskError::UnknownFormat { path }),
    }
}

/// Removes a directory with all that is in it.
fn remove_if_there(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Syncs a directory, so that renames in it survive a crash.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whether a copy may share files that never change with its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// By hard links, where the file system supports them: fast, and takes no space.
    Links,
    /// Not at all: damage to one does not damage the other.
    Nothing,
}

/// Makes a copy of a database or checkpoint in a new directory.
pub(super) fn copy_database(from: &Path, to: &Path, sharing: CopyMode) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let is_ours =
            [FORMAT_FILE, DELETE_MARKERS_FILE, SEQUENCE_FILE].iter().any(|name| entry.file_name() == *name);
        if is_ours || !entry.file_type()?.is_file() {
            continue;
        }
        // RocksDB never changes a table file, but it may change all other files.
        let never_changes = source.extension().is_some_and(|extension| extension == "sst");
        let linked = never_changes && sharing == CopyMode::Links && fs::hard_link(&source, &target).is_ok();
        if !linked {
            fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_directory(to)
}
