//! What can go wrong in RocksDB, by what is to be done about it.

use rocksdb::ErrorKind;

/// What went wrong, by what is to be done about it. Holds RocksDB's own sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another instance holds the lock.
    Locked,
    /// What is on the disk is not what was written: no retry helps.
    Corrupt(String),
    /// It would have to wait until flushes or compactions have caught up.
    Stalled,
    /// The disk is full or broken: a later retry may help.
    Disk(String),
}

impl Fault {
    /// RocksDB's sentence.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Locked => "another process holds the lock",
            Self::Stalled => "the disk does not keep up with the writes",
            Self::Corrupt(message) | Self::Disk(message) => message,
        }
    }
}

impl From<&rocksdb::Error> for Fault {
    /// RocksDB's C interface gives errors as text alone. A test meets each of these with the RocksDB that is linked.
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
