//! The token of `admin.token_file`. A request that carries it may change things on the admin listener.

use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use thiserror::Error;

use crate::private_file::{self, PrivateFileError};

/// The longest token, in bytes.
const MAX_TOKEN: u64 = 4096;

/// The shortest token, in bytes. A shorter one could be guessed.
const MIN_TOKEN: usize = 16;

/// The scheme in front of the token (RFC 6750 §2.1).
const SCHEME: &[u8] = b"bearer ";

/// The token that operator requests must carry.
pub struct AdminToken(Vec<u8>);

/// Why the token file cannot be used.
#[derive(Debug, Error)]
pub enum AdminTokenError {
    /// The file cannot be read.
    #[error("admin.token_file: {path} {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        problem: PrivateFileError,
    },
    /// The token is too short, or has characters that a header cannot carry.
    #[error("admin.token_file: {path} must hold one line of at least {MIN_TOKEN} visible ASCII characters")]
    Unfit {
        /// The file.
        path: String,
    },
}

impl AdminToken {
    /// Reads the token from `file`.
    ///
    /// # Errors
    /// [`AdminTokenError`].
    pub fn load(file: &Path) -> Result<Self, AdminTokenError> {
        let path = file.display().to_string();
        let token = private_file::read_line(file, MAX_TOKEN)
            .map_err(|problem| AdminTokenError::File { path: path.clone(), problem })?;
        if token.len() < MIN_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
            return Err(AdminTokenError::Unfit { path });
        }
        Ok(Self(token))
    }

    /// The value of the `Authorization` header with this token, marked as sensitive.
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", self.0.as_slice()].concat()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether a request carries the token, in exactly one `Authorization` header.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        value.as_bytes().split_at_checked(SCHEME.len()).is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(SCHEME) && verify_slices_are_equal(token, &self.0).is_ok()
        })
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_under_its_scheme_is_taken_and_only_once() {
        let token = AdminToken(b"0123456789abcdef".to_vec());
        let is_in = |values: &[&str]| {
            let values = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
            token.is_in(&HeaderMap::from_iter(values))
        };
        assert!(is_in(&["Bearer 0123456789abcdef"]) && is_in(&["bearer 0123456789abcdef"]));
        assert_eq!(token.to_header().unwrap(), "Bearer 0123456789abcdef");
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer  0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!is_in(wrong), "{wrong:?}");
        }
    }
}
