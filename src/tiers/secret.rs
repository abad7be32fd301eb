//! The instance secret: the one secret that digests and seals depend on.
//!
//! It is 32 random bytes in a private file ([`private_file`]). Every key is derived from it by HKDF-SHA-256
//! (RFC 5869) with its own label, so that no key has two purposes. Instances that share a store share the
//! file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};

use crate::private_file::{self, PrivateFileError};

/// The length of the secret, in bytes.
pub const SECRET_LENGTH: usize = 32;

/// The greatest number of bytes that are read, to report the length of a wrong file.
const MAX_FILE_BYTES: u64 = 4096;

/// The instance secret. It holds only what keys are derived from. The memory is cleared when it is dropped.
pub struct InstanceSecret(hkdf::Prk);

impl InstanceSecret {
    /// The secret in the file at `path`. If there is none, makes a new one there, readable only by its owner.
    ///
    /// The file appears atomically: no crash leaves half a secret, and no second instance reads one. If two
    /// instances make a secret at the same moment, both use the first.
    ///
    /// # Errors
    /// When it cannot be read or made, has another length, or others may read it.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        match Self::load(path) {
            Err(SecretError::Read { problem: PrivateFileError::Read(error), .. })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                create(path).map_err(|source| SecretError::Create { path: path.to_owned(), source })?;
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    /// The secret in the file at `path`, which must be there.
    ///
    /// # Errors
    /// As [`InstanceSecret::load_or_create`].
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let bytes = private_file::read(path, MAX_FILE_BYTES)
            .map_err(|problem| SecretError::Read { path: path.to_owned(), problem })?;
        let length = bytes.len();
        let bytes = <[u8; SECRET_LENGTH]>::try_from(bytes)
            .map_err(|_| SecretError::WrongLength { path: path.to_owned(), length })?;
        Ok(Self::from_bytes(&bytes))
    }

    /// A new secret that is stored nowhere.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, SecretError> {
        random().map(|bytes| Self::from_bytes(&bytes)).map_err(SecretError::Random)
    }

    /// A given secret. It must be random: all protection depends on it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SECRET_LENGTH]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, b"holdfast instance secret").extract(bytes))
    }

    /// The key for HMAC-SHA-256 of this label.
    pub(crate) fn hmac_key(&self, label: &str) -> Result<hmac::Key, DerivationFailed> {
        let info = [label.as_bytes()];
        let key = self.0.expand(&info, hmac::HMAC_SHA256).map_err(|_| DerivationFailed)?;
        Ok(hmac::Key::from(key))
    }

    /// The key for AES-256-GCM of this label.
    pub(super) fn aead_key(&self, label: &str) -> Result<UnboundKey, DerivationFailed> {
        let info = [label.as_bytes()];
        let key = self.0.expand(&info, &AES_256_GCM).map_err(|_| DerivationFailed)?;
        Ok(UnboundKey::from(key))
    }
}

impl fmt::Debug for InstanceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceSecret")
    }
}

/// The open file of a secret, which can be put back if it is deleted. The secret itself is not kept in
/// memory.
#[derive(Debug)]
pub struct SecretFile {
    file: File,
    path: PathBuf,
}

impl SecretFile {
    /// The file at `path`, which must be there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, path: path.to_owned() })
    }

    /// Writes the secret to its path if no file is there. Returns whether it did.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn put_back(&self) -> io::Result<bool> {
        if self.path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        let mut secret = [0; SECRET_LENGTH];
        self.file.read_exact_at(&mut secret, 0)?;
        write(&self.path, &secret)?;
        Ok(true)
    }
}

/// Makes a new secret at `path`.
fn create(path: &Path) -> io::Result<()> {
    write(path, &random()?)
}

fn random<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Writes a secret to a temporary name and links it to `path`. That fails if another process was first; then
/// its secret is used.
fn write(path: &Path, secret: &[u8; SECRET_LENGTH]) -> io::Result<()> {
    let suffix: String = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = path.with_extension(suffix);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(secret)?;
            file.sync_all()
        });
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&draft)?;
    linked?;
    // Records that are synced must not outlive the secret that opens them.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// HKDF refused. It does so only for outputs of more than 8160 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key could be derived from the instance secret: this is a fault of the program, please report it")]
pub struct DerivationFailed;

/// Why there is no instance secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// None can be made.
    #[error("{0}")]
    Random(io::Error),
    /// The file cannot be read, or is not private.
    #[error(
        "cannot use the instance secret {}: it {problem}; it must exist and belong to the user that holdfast \
         runs as; if others may have read it, delete it to get a new one",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: PrivateFileError,
    },
    /// The file cannot be made.
    #[error(
        "cannot create the instance secret {}: {source}: check that its directory exists and can \
         be written to",
        path.display()
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not 32 bytes long.
    #[error(
        "the instance secret {} does not hold exactly {SECRET_LENGTH} bytes (read {length}): give it \
         {SECRET_LENGTH} random bytes, not text, or delete it to get a new one (stored records are \
         lost then)",
        path.display()
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// How many bytes were read.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn tag(secret: &InstanceSecret) -> Vec<u8> {
        hmac::sign(&secret.hmac_key("test").unwrap(), b"data").as_ref().to_vec()
    }

    #[test]
    fn a_secret_is_made_once_and_found_again_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instance.secret");
        let first = InstanceSecret::load_or_create(&path).unwrap();
        let second = InstanceSecret::load_or_create(&path).unwrap();
        assert_eq!(tag(&first), tag(&second));
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 32));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a draft was left behind");
        let other = InstanceSecret::load_or_create(&directory.path().join("other.secret")).unwrap();
        assert_ne!(tag(&first), tag(&other));
    }

    #[test]
    fn instances_that_start_at_one_moment_agree_on_one_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instance.secret");
        let tags: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| InstanceSecret::load_or_create(&path))).collect();
            starts.into_iter().map(|start| tag(&start.join().unwrap().unwrap())).collect()
        });
        assert!(tags.iter().all(|tag| *tag == tags[0]));
    }

    #[test]
    fn a_secret_that_others_may_read_or_of_another_length_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instance.secret");
        for mode in [0o644, 0o604, 0o660] {
            fs::write(&path, [7; 32]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = InstanceSecret::load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:04o}")), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for length in [0, 31, 33, 64] {
            fs::write(&path, vec![7; length]).unwrap();
            let error = InstanceSecret::load_or_create(&path).unwrap_err();
            assert!(matches!(error, SecretError::WrongLength { .. }), "{error}");
        }
        fs::write(&path, [7; 32]).unwrap();
        assert_eq!(tag(&InstanceSecret::load(&path).unwrap()), tag(&InstanceSecret::from_bytes(&[7; 32])));
    }

    #[test]
    fn a_missing_directory_is_an_error_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nowhere").join("instance.secret");
        let error = InstanceSecret::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, SecretError::Create { .. }) && error.to_string().contains("nowhere"),
            "{error}"
        );
        assert!(matches!(InstanceSecret::load(&path), Err(SecretError::Read { .. })));
    }

    #[test]
    fn each_label_has_a_key_of_its_own() {
        let secret = InstanceSecret::from_bytes(&[7; 32]);
        let sign = |label| hmac::sign(&secret.hmac_key(label).unwrap(), b"data").as_ref().to_vec();
        assert_eq!(sign("a"), sign("a"));
        assert_ne!(sign("a"), sign("b"));
        assert_eq!(format!("{secret:?}"), "InstanceSecret");
    }
}
