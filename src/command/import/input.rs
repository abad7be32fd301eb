//! Types and limits that the readers of all formats share.

use std::io::{self, BufRead};

/// The longest user in a file, in bytes; also the longest JSON text that the strict reader takes.
pub(super) const MAX_USER_BYTES: usize = 256 * 1024;

/// The text of a file, inflated.
pub(super) type Input = Box<dyn BufRead>;

/// The result of a reader: a line number, and the text or fields of one user, or why the user is skipped. The
/// outer error means that the file cannot be read any further.
pub(super) type Found<T> = Result<Option<(u64, Result<T, &'static str>)>, String>;

/// Passes over these bytes, and counts the lines that end among them. Returns the byte that follows; `None`
/// at the end of the file.
pub(super) fn skip(input: &mut Input, line: &mut u64, is_skipped: fn(&u8) -> bool) -> io::Result<Option<u8>> {
    loop {
        match input.fill_buf()?.first().copied() {
            Some(byte) if is_skipped(&byte) => {
                *line += u64::from(byte == b'\n');
                input.consume(1);
            }
            next => return Ok(next),
        }
    }
}

/// The error of a file that cannot be read any further.
pub(super) fn unreadable(line: u64, error: &io::Error) -> String {
    format!("line {line}: cannot read the file any further: {error}")
}
