//! Opens `db/`, and notices if it has lost a part of itself.
//!
//! RocksDB lists the files of a database in its MANIFEST: it appends to it, and begins one of a higher number
//! at each open. A MANIFEST that is cut short is valid. RocksDB then opens an older state of the database,
//! and deletes the files that this state does not name. Sequence numbers do not show the loss, because the
//! write-ahead log brings the latest ones. So the number and the length of the MANIFEST are noted in the data
//! directory. A database that is behind this note is corrupt if there is a checkpoint to take its place;
//! without one, what is left is better than nothing.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::engine::Engine;
use super::error::DiskError;
use super::fault::Fault;
use super::kept;
use super::layout::{self, Layout, PROGRESS_FILE};
use super::settings::DiskSettings;
use crate::clock::Clock;

/// In place of a number and a length: the database is known to have lost something.
const LOST: &str = "lost";

/// How far a database has come. A later state is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    /// The number of its MANIFEST.
    manifest: u64,
    /// The length of its MANIFEST, in bytes.
    length: u64,
}

impl Progress {
    /// How far the database in this directory has come; `None` if that is unknown.
    fn of(database: &Path) -> Option<Self> {
        let current = fs::read_to_string(database.join("CURRENT")).ok()?;
        let manifest = current.trim_end().strip_prefix("MANIFEST-")?.parse().ok()?;
        Some(Self { manifest, length: fs::metadata(database.join(current.trim_end())).ok()?.len() })
    }

    fn parse(text: &str) -> Option<Self> {
        let (manifest, length) = text.trim_end().split_once(' ')?;
        Some(Self { manifest: manifest.parse().ok()?, length: length.parse().ok()? })
    }
}

/// Opens the database; makes it if `create`. One that has lost something is corrupt.
pub(super) fn open(
    layout: &Layout,
    create: bool,
    settings: &DiskSettings,
    clock: &Clock,
) -> Result<Engine, Fault> {
    let lost = lost(layout).filter(|_| kept::newest(layout).is_some());
    if lost.is_some() {
        // RocksDB begins a new MANIFEST now, which does not show the loss. The next open must know of it.
        layout::write_whole(layout.root(), PROGRESS_FILE, LOST)
            .map_err(|error| Fault::Disk(format!("noting that the database is damaged: {error}")))?;
    }
    let engine = Engine::open(&layout.database(), create, settings, clock)?;
    match lost {
        Some(cause) => Err(Fault::Corrupt(cause)),
        None => Ok(engine),
    }
}

/// Notes how far the database has come. Only the instance that holds the database may call this.
pub(super) fn note_progress(layout: &Layout) -> Result<(), DiskError> {
    let database = layout.database();
    let Some(progress) = Progress::of(&database) else { return Ok(()) };
    let Progress { manifest, length } = progress;
    if noted(layout).as_deref().and_then(Progress::parse) == Some(progress) {
        return Ok(());
    }
    layout.file_system("noting the state of the database", || {
        // What is noted must be on the disk, or a power cut would look like a loss.
        File::open(database.join(format!("MANIFEST-{manifest:06}")))?.sync_all()?;
        layout::write_whole(layout.root(), PROGRESS_FILE, &format!("{manifest} {length}\n"))
    })
}

/// Forgets how far the database had come, because another one takes its place.
pub(super) fn forget_progress(layout: &Layout) -> Result<(), DiskError> {
    layout.file_system("removing the note on the former database", || {
        match fs::remove_file(layout.root().join(PROGRESS_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    })
}

/// What the database has lost, if anything.
fn lost(layout: &Layout) -> Option<String> {
    // The note first: an instance that runs may append to its MANIFEST meanwhile.
    let noted = noted(layout)?;
    if noted == LOST {
        return Some("its MANIFEST was cut short or replaced by an older one".to_owned());
    }
    let (noted, found) = (Progress::parse(&noted)?, Progress::of(&layout.database())?);
    let describe = |Progress { manifest, length }| format!("MANIFEST-{manifest:06} of {length} bytes");
    (found < noted).then(|| format!("it had a {}, and has a {}", describe(noted), describe(found)))
}

fn noted(layout: &Layout) -> Option<String> {
    fs::read_to_string(layout.root().join(PROGRESS_FILE)).ok()
}
