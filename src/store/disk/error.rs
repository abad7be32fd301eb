//! What can go wrong with the disk store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::fault::Fault;

/// The version of the layout that this program writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// Why something about the disk store failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The data directory cannot be made, read or written to.
    #[error(
        "cannot write to the data directory {}: {source}: give it to the user that holdfast runs as, on a \
         file system that is not read-only",
        path.display()
    )]
    Unwritable {
        /// The data directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another instance has it open.
    #[error(
        "another holdfast is running on {}: it holds the lock on the file LOCK there; stop it, or give this \
         one a data directory of its own",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error(
        "{} is in format {found}, which a newer holdfast wrote; this one reads up to format {FORMAT}: run \
         the newer one, or start with an empty data directory",
        path.display()
    )]
    NewerFormat {
        /// The data directory, or the backup.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file `FORMAT` says nothing that any version writes.
    #[error(
        "{} holds a file FORMAT that no holdfast wrote: check that this is the right directory, or start \
         with an empty one",
        path.display()
    )]
    UnknownFormat {
        /// The data directory, or the backup.
        path: PathBuf,
    },
    /// RocksDB failed.
    #[error("{doing} failed{}: {message}", in_directory(path))]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// Where; empty where it does not matter.
        path: PathBuf,
        /// What RocksDB says.
        message: String,
    },
    /// The file system failed.
    #[error("{doing} failed in {}: {source}", path.display())]
    FileSystem {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The store is degraded.
    #[error("the disk store is degraded: its disk is full or broken; the store recovers when the disk does")]
    Degraded,
    /// The store is closed.
    #[error("the disk store is closed")]
    Closed,
    /// Too many lookups wait for the disk.
    #[error("too many lookups wait for the disk")]
    Busy,
    /// The disk did not answer in time, or did not lately.
    #[error("the disk does not answer in time")]
    Slow,
    /// A thread could not be started.
    #[error("cannot start a thread for the disk store: {0}: raise the limit on processes")]
    Thread(#[source] io::Error),
    /// There is no store or backup at this place.
    #[error("there is neither a store nor a backup of one in {}", path.display())]
    NothingThere {
        /// The place.
        path: PathBuf,
    },
    /// A running instance holds the store, and there is no checkpoint to back up instead.
    #[error(
        "holdfast is running on {} and has made no checkpoint yet: name its admin listener (--admin, or \
         --config), so that it can be asked for one, or stop it for the backup",
        path.display()
    )]
    NoCheckpoint {
        /// The data directory.
        path: PathBuf,
    },
    /// A backup would overwrite something.
    #[error("{} exists already: name a directory that does not", path.display())]
    TargetExists {
        /// The directory.
        path: PathBuf,
    },
    /// A backup or checkpoint is damaged.
    #[error("the copy in {} is damaged ({message}): use another", path.display())]
    Damaged {
        /// The copy.
        path: PathBuf,
        /// What RocksDB says.
        message: String,
    },
}

impl DiskError {
    /// The metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unwritable { .. } => "unwritable",
            Self::InUse { .. } => "in_use",
            Self::NewerFormat { .. } | Self::UnknownFormat { .. } => "format",
            Self::Engine { .. } | Self::FileSystem { .. } | Self::Thread(_) => "io",
            Self::Degraded => "degraded",
            Self::Closed => "closed",
            Self::Busy => "busy",
            Self::Slow => "timeout",
            Self::NothingThere { .. } | Self::NoCheckpoint { .. } | Self::TargetExists { .. } => "usage",
            Self::Damaged { .. } => "damaged",
        }
    }

    /// Whether the fault may pass without a change of the configuration. Then the store starts degraded
    /// instead of not at all.
    #[must_use]
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Engine { .. } | Self::FileSystem { .. } => true,
            Self::Unwritable { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// A fault of the engine, with what was being done and where.
    pub(super) fn engine(doing: &'static str, path: &Path, fault: &Fault) -> Self {
        Self::Engine { doing, path: path.to_owned(), message: fault.message().to_owned() }
    }
}

fn in_directory(path: &Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!(" in {}", path.display()) }
}
