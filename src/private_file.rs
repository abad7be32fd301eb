//! Files of keys and secrets. They are read only if no other user can read or write them.
//!
//! A user who can read the file may have the key, and a user who can write it may have replaced it. So such a
//! file is refused at start and at reload, where an operator sees the error.
//!
//! **The rule is PostgreSQL's** for its `ssl_key_file`: only the owner may have access to a file (mode 0600
//! or less), but a file of root may be readable by its group (0640 or less). That is how a system hands out
//! keys: in a group whose members may use them, as Debian's `ssl-cert`, or as the files of a Kubernetes
//! Secret under `fsGroup`. Only root can make such a file, so its group was chosen on purpose and does not
//! come from a umask.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use thiserror::Error;

/// The user id of root.
const ROOT: u32 = 0;

/// Why a file of keys or secrets is not read.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// The operating system does not let us read it.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Not a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// Other users have access to it.
    #[error(
        "is open to other users (mode {mode:04o}); run `chmod 600` on it, or `chmod 640` if root owns it \
         and a group is to read it"
    )]
    Permissions {
        /// Its permission bits.
        mode: u32,
    },
    /// It is too long.
    #[error("is longer than {most} bytes")]
    TooLong {
        /// The longest length that is read.
        most: u64,
    },
}

/// The bytes of the file at `path`, at most `most` of them.
///
/// # Errors
/// [`PrivateFileError`]; also if others may read or write it.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, PrivateFileError> {
    let file = File::open(path)?;
    // Asked of the open file, not of the path, so that nobody can exchange it in between.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if !is_private(metadata.uid(), mode) {
        return Err(PrivateFileError::Permissions { mode });
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(PrivateFileError::TooLong { most });
    }
    Ok(bytes)
}

/// As [`read`], for a secret that is one line: without trailing line ends, which editors and `echo` add.
///
/// # Errors
/// As [`read`].
pub fn read_line(path: &Path, most: u64) -> Result<Vec<u8>, PrivateFileError> {
    let mut secret = read(path, most)?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(secret)
}

/// Whether the file's mode gives access only to its owner, or to root and, to read, a group that root chose.
const fn is_private(owner: u32, mode: u32) -> bool {
    let for_others = if owner == ROOT { 0o037 } else { 0o077 };
    mode & for_others == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    const NOBODY: u32 = 65534;

    /// A mode, and whether a file of it may be read if a user owns it, and if root does.
    const MODES: [(u32, bool, bool); 11] = [
        (0o600, true, true),
        (0o400, true, true),
        (0o700, true, true),
        (0o640, false, true),
        (0o440, false, true),
        (0o660, false, false),
        (0o620, false, false),
        (0o650, false, false),
        (0o604, false, false),
        (0o602, false, false),
        (0o644, false, false),
    ];

    #[test]
    fn a_group_may_read_what_root_owns_and_others_nothing() {
        for (mode, of_user, of_root) in MODES {
            assert_eq!((is_private(1000, mode), is_private(ROOT, mode)), (of_user, of_root), "{mode:o}");
        }
    }

    #[test]
    fn the_owner_and_the_mode_of_the_file_itself_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("key"), directory.path().join("link"));
        fs::write(&path, b"12345678").unwrap();
        // As Kubernetes mounts a Secret.
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let ours = fs::metadata(&path).unwrap().uid();
        // Only root can give a file away.
        let owners = if ours == ROOT { vec![ROOT, NOBODY] } else { vec![ours] };
        for owner in owners {
            chown(&path, Some(owner), Some(owner)).unwrap();
            for (mode, of_user, of_root) in MODES {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let good = if owner == ROOT { of_root } else { of_user };
                match read(&link, 8) {
                    Ok(bytes) => assert!(good && bytes == b"12345678", "{owner} {mode:o}"),
                    Err(PrivateFileError::Permissions { mode: found }) => assert!(!good && mode == found),
                    Err(error) => panic!("{owner} {mode:o}: {error}"),
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_or_no_file_is_refused_and_line_ends_are_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, b"12\n456\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, 8).unwrap(), b"12\n456\r\n");
        assert_eq!(read_line(&path, 8).unwrap(), b"12\n456");
        assert!(matches!(read(&path, 7), Err(PrivateFileError::TooLong { most: 7 })));
        assert!(matches!(read(directory.path(), 8), Err(PrivateFileError::NotAFile)));
        assert!(matches!(read(&directory.path().join("none"), 8), Err(PrivateFileError::Read(_))));
    }
}
