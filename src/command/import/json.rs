//! Users in JSON: one a line (NDJSON), or the elements of an array.
//!
//! This finds only where a user begins and ends. The strict JSON reader parses it.

use super::input::{Found, Input, MAX_USER_BYTES, unreadable};

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
            let (mut any, mut too_long, mut ended) = (false, false, false);
            while !ended {
                let chunk = self.input.fill_buf().map_err(|error| unreadable(self.line, &error))?;
                if chunk.is_empty() {
                    break;
                }
                any = true;
                let end = chunk.iter().position(|byte| *byte == b'\n');
                let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
                too_long |= self.text.len() + part.len() > MAX_USER_BYTES;
                if !too_long {
                    self.text.extend_from_slice(part);
                }
                let taken = part.len() + usize::from(end.is_some());
                ended = end.is_some();
                self.input.consume(taken);
            }
            if !any {
                return Ok(None);
            }
            let line = self.line;
            self.line += 1;
            if too_long {
                return Ok(Some((line, Err(TOO_LONG))));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(Some((line, Ok(&self.text))));
            }
        }
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
        loop {
            let chunk = self.input.fill_buf().map_err(|error| unreadable(self.line, &error))?;
            match chunk.first().copied() {
                None => return Ok(None),
                Some(byte) if byte.is_ascii_whitespace() => {
                    self.line += u64::from(byte == b'\n');
                    self.input.consume(1);
                }
                Some(_) => return Err(format!("line {}: something follows the array", self.line)),
            }
        }
    }
}
