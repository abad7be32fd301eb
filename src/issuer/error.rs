//! Why a configured issuer cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use crate::token::jwe::KeyFileError;

/// Why a configured issuer cannot be used.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// The shared secret cannot be read.
    #[error("issuer {issuer}: {setting} {file}: {problem}")]
    Secret {
        /// The issuer.
        issuer: String,
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A decryption key cannot be used.
    #[error("issuer {issuer}: {problem}")]
    DecryptionKey {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        problem: KeyFileError,
    },
}
