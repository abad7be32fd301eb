//! Why the shared store has nothing to tell.

use std::path::PathBuf;

use super::framing::ReplyError;

/// Why the shared store has nothing to tell. Holds no password, and of what the server says only its code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// There is no connection at present.
    #[error("there is no connection to Redis")]
    Away,
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// Redis, or the way there, failed.
    #[error("Redis failed: {0}")]
    Redis(String),
    /// Redis answered, and said no: its word for why, such as `NOAUTH` or `OOM`.
    #[error("Redis says {0}")]
    Refused(String),
    /// What is there is of another type than a record, or too long for one.
    #[error("what Redis has is no record")]
    NoRecord,
    /// Redis sent a reply or message that holdfast does not read.
    #[error("{0}")]
    Reply(#[from] ReplyError),
    /// The file with the password is no good.
    #[error("cannot use the password file of Redis: {} {problem}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl SharedError {
    /// The metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Timeout => "timeout",
            Self::Redis(_) => "read",
            Self::Refused(_) => "refused",
            Self::NoRecord => "no_record",
            Self::Reply(_) => "reply",
            Self::Password { .. } => "password",
        }
    }
}
