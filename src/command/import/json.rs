//! Users in JSON: one a line (NDJSON), or the elements of an array.
//!
//! This finds only where a user begins and ends. The strict JSON reader parses it.

use std::io::{self, BufRead as _, Read as _};

use super::input::{Found, Input, MAX_USER_BYTES, skip, unreadable};

const TOO_LONG: &str = "it is longer than 256 KiB";

/// One user a line.
pub(super) struct Lines {
    input: Input,
    line: u64,
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: Input, line: u64) -> Self {
        Self { input, line, text: Vec::new() }
    }

    /// The next line that is not blank.
    pub(super) fn read(&mut self) -> Found<&[u8]> {
        loop {
            self.text.clear();
            let line = self.line;
            let is_too_long = self.read_line().map_err(|error| unreadable(line, &error))?;
            if self.text.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if is_too_long {
                return Ok(Some((line, Err(TOO_LONG))));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(Some((line, Ok(&self.text))));
            }
        }
    }

    /// Reads a line with its end, and says whether it is too long. Of a long line only the beginning is kept.
    fn read_line(&mut self) -> io::Result<bool> {
        let most = MAX_USER_BYTES as u64 + 1;
        self.input.by_ref().take(most).read_until(b'\n', &mut self.text)?;
        let is_too_long = self.text.len() as u64 == most && !self.text.ends_with(b"\n");
        if is_too_long {
            self.input.skip_until(b'\n')?;
        }
        Ok(is_too_long)
    }
}

/// The elements of an array whose bracket is open.
pub(super) struct Elements {
    input: Input,
    line: u64,
    text: Vec<u8>,
    closed: bool,
    /// Whether an element was read. A comma or the end of the array follows it.
    any: bool,
}

/// The reader's position in an element.
#[derive(Default)]
struct Position {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

/// The meaning of a byte.
enum Step {
    Inside,
    Comma,
    End,
}

impl Position {
    fn step(&mut self, byte: u8) -> Step {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' if self.depth == 0 => return Step::End,
            b']' | b'}' => self.depth -= 1,
            b',' if self.depth == 0 => return Step::Comma,
            _ => {}
        }
        Step::Inside
    }
}

impl Elements {
    pub(super) fn new(input: Input, line: u64) -> Self {
        Self { input, line, text: Vec::new(), closed: false, any: false }
    }

    /// The next element.
    pub(super) fn read(&mut self) -> Found<&[u8]> {
        if self.closed {
            return self.nothing_follows();
        }
        self.text.clear();
        let (mut position, mut start, mut too_long) = (Position::default(), None, false);
        loop {
            let chunk = self.input.fill_buf().map_err(|error| unreadable(self.line, &error))?;
            if chunk.is_empty() {
                return Err(format!("line {}: the array does not end", self.line));
            }
            let mut taken = 0;
            let mut step = Step::Inside;
            for byte in chunk {
                taken += 1;
                step = position.step(*byte);
                if !matches!(step, Step::Inside) {
                    break;
                }
                if start.is_some() || !byte.is_ascii_whitespace() {
                    start = start.or(Some(self.line));
                    too_long |= self.text.len() == MAX_USER_BYTES;
                    if !too_long {
                        self.text.push(*byte);
                    }
                }
                self.line += u64::from(*byte == b'\n');
            }
            self.input.consume(taken);
            match step {
                Step::Inside => continue,
                Step::Comma => {}
                Step::End => self.closed = true,
            }
            if self.closed && start.is_none() && !self.any {
                return self.nothing_follows();
            }
            self.any = true;
            let text = if too_long { Err(TOO_LONG) } else { Ok(&self.text[..]) };
            return Ok(Some((start.unwrap_or(self.line), text)));
        }
    }

    fn nothing_follows(&mut self) -> Found<&[u8]> {
        match skip(&mut self.input, &mut self.line, u8::is_ascii_whitespace) {
            Ok(None) => Ok(None),
            Ok(Some(_)) => Err(format!("line {}: something follows the array", self.line)),
            Err(error) => Err(unreadable(self.line, &error)),
        }
    }
}
