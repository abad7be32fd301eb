//! What is wrong with a configuration.

use thiserror::Error;

use super::origin::Origin;

/// One problem of the configuration, as a sentence that names the place, the key, the value, and what is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {problem}")]
    Unreadable {
        /// The file.
        file: String,
        /// The operating system's error.
        problem: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        problem: String,
    },
    /// A key that holdfast does not know.
    #[error("{origin}: unknown key {key}{}", match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => format!("; known here are: {known}"),
    })]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// The most similar known key, if one is similar.
        nearest: Option<String>,
        /// All keys known in the section.
        known: String,
    },
    /// A value that is not allowed, or missing.
    #[error("{origin}: {key} = {value}: allowed is {allowed}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// The bad value as written.
        value: String,
        /// What would be good.
        allowed: String,
    },
    /// Something that is wrong with a table, or with several settings together.
    #[error("{origin}: {key}: {problem}")]
    Unfit {
        /// Where.
        origin: Origin,
        /// The table.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } | Self::Syntax { .. } => None,
            Self::UnknownKey { key, .. } | Self::Value { key, .. } | Self::Unfit { key, .. } => Some(key),
        }
    }
}

/// All problems of the configuration; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);
