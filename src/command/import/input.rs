//! What the readers of all formats share.

use std::io::{self, BufRead};

/// The longest user in a file, in bytes; also the longest JSON text that the strict reader takes.
pub(super) const MAX_USER_BYTES: usize = 256 * 1024;

/// The text of a file, inflated.
pub(super) type Input = Box<dyn BufRead>;

/// What a reader found: the line, and the text or fields of one user or why it is skipped. The error is for a
/// file that cannot be read any further.
pub(super) type Found<T> = Result<Option<(u64, Result<T, &'static str>)>, String>;

/// What is wrong with the file itself.
pub(super) fn unreadable(line: u64, error: &io::Error) -> String {
    format!("line {line}: the file cannot be read any further: {error}")
}
