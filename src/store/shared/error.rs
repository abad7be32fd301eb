//! Why the shared store has no answer.

use std::path::PathBuf;

use super::framing::ReplyError;

/// Why the shared store has no answer. Contains no password, and of the server's text only the error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// There is no connection at present.
    #[error("there is no connection to Redis")]
    Disconnected,
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// Redis failed, or the connection to it.
    #[error("Redis failed: {0}")]
    Redis(String),
    /// Redis refused: its error code, such as `NOAUTH` or `OOM`.
    #[error("Redis says {0}")]
    Refused(String),
    /// No sentinel that answers knows a primary of this name.
    #[error("the sentinels know no primary named {name:?}; check store.redis_sentinel_master")]
    UnknownPrimary {
        /// The name in the settings.
        name: String,
    },
    /// The server that the sentinels name does not say that it is a primary.
    #[error("the server that the sentinels name is not a primary yet")]
    NoPrimary,
    /// The value has another type than a record, or is too long for one.
    #[error("the value in Redis is not a record")]
    NoRecord,
    /// Redis sent a reply or message that is too long to be read.
    #[error("{0}")]
    Reply(#[from] ReplyError),
    /// The password file cannot be used.
    #[error("cannot use the password file of Redis: {} {problem}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl SharedError {
    /// Whether a server says what is wrong. That tells more than the fact that one is down or slow.
    pub(super) const fn is_by_a_server(&self) -> bool {
        !matches!(self, Self::Redis(_) | Self::Timeout | Self::Disconnected)
    }

    /// The metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Disconnected => "away",
            Self::Timeout => "timeout",
            Self::Redis(_) => "read",
            Self::Refused(_) => "refused",
            Self::UnknownPrimary { .. } | Self::NoPrimary => "no_primary",
            Self::NoRecord => "no_record",
            Self::Reply(_) => "reply",
            Self::Password { .. } => "password",
        }
    }
}
