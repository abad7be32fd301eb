//! Files of keys and secrets: read only if nobody but their owner can.
//!
//! Whoever could read the file may have the key, and whoever could write it may have put it there; so such a file is
//! refused where a person reads the answer, at start and at reload.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use thiserror::Error;

/// Permission bits of group and others.
const NOT_THE_OWNER: u32 = 0o077;

/// Why a file of keys or secrets is not read.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// The operating system does not let us read it.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Not a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// Other users can get at it.
    #[error("is open to other users (mode {mode:04o}); run `chmod 600` on it")]
    Permissions {
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than such a file is.
    #[error("is longer than {most} bytes")]
    TooLong {
        /// The greatest length that is read.
        most: u64,
    },
}

/// The bytes of the file at `path`, at most `most` of them.
///
/// # Errors
/// [`PrivateFileError`]; also if others than its owner may read or write it.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, PrivateFileError> {
    let file = File::open(path)?;
    // Asked of the open file, not of the path, so that nobody can exchange it in between.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & NOT_THE_OWNER != 0 {
        return Err(PrivateFileError::Permissions { mode });
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(PrivateFileError::TooLong { most });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_file_that_its_owner_alone_can_read_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, b"12345678").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read(&path, 8) {
                Ok(bytes) => assert!(good && bytes == b"12345678", "{mode:o}"),
                Err(PrivateFileError::Permissions { mode: found }) => assert!(!good && mode == found),
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, 7), Err(PrivateFileError::TooLong { most: 7 })));
        assert!(matches!(read(directory.path(), 8), Err(PrivateFileError::NotAFile)));
        assert!(matches!(read(&directory.path().join("none"), 8), Err(PrivateFileError::Read(_))));
    }
}
