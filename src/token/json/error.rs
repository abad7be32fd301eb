//! Why a text is not the JSON object we need.

use thiserror::Error;

/// Why a text is not the JSON object we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Longer than the limit.
    #[error("the JSON text is longer than 256 KiB")]
    TooLarge,
    /// Not JSON.
    #[error("the text is not well-formed JSON")]
    Malformed,
    /// A name that decides occurs twice.
    #[error("a JSON member on which a decision depends, such as `sub`, occurs twice")]
    DuplicateName,
    /// Nested deeper than the limit.
    #[error("the JSON text is nested deeper than 128 levels")]
    TooDeep,
    /// More values than the limit.
    #[error("the JSON text has too many values")]
    TooMany,
    /// JSON, but not an object.
    #[error("the JSON text is not an object")]
    NotAnObject,
}
