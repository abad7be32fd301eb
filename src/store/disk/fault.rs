//! Faults of RocksDB, classed by what to do about them.

use rocksdb::ErrorKind;

/// A fault, classed by what to do about it. Holds RocksDB's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another instance holds the lock.
    Locked,
    /// The data on the disk is not what was written. A retry does not help.
    Corrupt(String),
    /// RocksDB would have to wait for flushes or compactions.
    Stalled,
    /// The disk is full or broken. A later retry may help.
    Disk(String),
}

impl Fault {
    /// RocksDB's message.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Locked => "another process holds the lock",
            Self::Stalled => "the disk does not keep up with the writes",
            Self::Corrupt(message) | Self::Disk(message) => message,
        }
    }
}

impl From<&rocksdb::Error> for Fault {
    /// RocksDB's C interface gives errors only as text. A test provokes each of these with the linked
    /// RocksDB.
    fn from(error: &rocksdb::Error) -> Self {
        let message: &str = error.as_ref();
        let names_a_missing_file = message.contains("No such file or directory");
        let held = message.contains("While lock file") && message.contains("temporarily unavailable");
        if held || message.contains("lock hold by current process") {
            Self::Locked
        } else if error.kind() == ErrorKind::Corruption || names_a_missing_file {
            Self::Corrupt(message.to_owned())
        } else if error.kind() == ErrorKind::Incomplete {
            Self::Stalled
        } else {
            Self::Disk(message.to_owned())
        }
    }
}

impl From<rocksdb::Error> for Fault {
    fn from(error: rocksdb::Error) -> Self {
        Self::from(&error)
    }
}
