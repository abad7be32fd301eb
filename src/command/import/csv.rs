//! Users in CSV (RFC 4180) with a header line.
//!
//! `csv-core` parses into buffers of a fixed size. So a quotation mark that is never closed does not load the
//! whole file into memory.

use csv_core::{ReadRecordResult, Reader};
use holdfast::token::json::Object;
use serde_json::Value;

use super::input::{Found, Input, MAX_USER_BYTES, skip, unreadable};

/// The most columns.
const MAX_COLUMNS: usize = 1024;

/// The columns that are read. `user_id` and `sub` both become the claim `sub`.
const COLUMNS: [&str; 5] = ["user_id", "sub", "email", "email_verified", "name"];

/// Users in the rows of a table.
pub(super) struct Csv {
    input: Input,
    parser: Reader,
    /// The line of the next row.
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
    header: Option<Header>,
}

struct Header {
    /// How many columns there are.
    width: usize,
    /// The columns that are read, with their indices.
    columns: Vec<(usize, &'static str)>,
}

impl Csv {
    pub(super) fn new(input: Input, line: u64) -> Self {
        Self {
            input,
            parser: Reader::new(),
            line,
            text: vec![0; MAX_USER_BYTES],
            ends: vec![0; MAX_COLUMNS],
            header: None,
        }
    }

    /// The next row.
    pub(super) fn read(&mut self) -> Found<Object> {
        if self.header.is_none() {
            self.header = Some(self.read_header()?);
        }
        let Some((line, row)) = self.row()? else { return Ok(None) };
        let user = row.and_then(|width| self.user(width));
        Ok(Some((line, user)))
    }

    fn read_header(&mut self) -> Result<Header, String> {
        let Some((line, row)) = self.row()? else { return Err("the file has no header line".to_owned()) };
        let width = row.map_err(|why| format!("line {line}: the header: {why}"))?;
        let name = |column: &usize| self.field(*column).trim_ascii();
        let columns: Vec<_> = (0..width)
            .filter_map(|column| {
                let known = COLUMNS.iter().find(|known| name(&column) == known.as_bytes())?;
                Some((column, *known))
            })
            .collect();
        match columns.iter().any(|(_, name)| ["user_id", "sub"].contains(name)) {
            true => Ok(Header { width, columns }),
            false => Err(format!("line {line}: the header has neither a column user_id nor a column sub")),
        }
    }

    fn user(&self, width: usize) -> Result<Object, &'static str> {
        let Some(header) = self.header.as_ref().filter(|header| header.width == width) else {
            return Err("the line has more or fewer fields than the header");
        };
        let mut user = Object::new();
        for (column, name) in &header.columns {
            let text = std::str::from_utf8(self.field(*column)).map_err(|_| "it is not UTF-8")?;
            if !text.is_empty() {
                user.insert((*name).to_owned(), Value::String(text.to_owned()));
            }
        }
        Ok(user)
    }

    fn field(&self, column: usize) -> &[u8] {
        let end = |column: usize| self.ends.get(column).copied().unwrap_or_default();
        let start = column.checked_sub(1).map_or(0, end);
        self.text.get(start..end(column)).unwrap_or_default()
    }

    /// Reads a row into the buffers. Returns its line and its number of fields.
    fn row(&mut self) -> Found<usize> {
        // So that the number of the line is that of the row.
        let skipped = skip(&mut self.input, &mut self.line, |byte| matches!(byte, b'\n' | b'\r'));
        skipped.map_err(|error| unreadable(self.line, &error))?;
        let (line, mut length, mut width, mut fits) = (self.line, 0, 0, true);
        loop {
            let chunk = self.input.fill_buf().map_err(|error| unreadable(self.line, &error))?;
            let (text, ends) = (self.text.get_mut(length..), self.ends.get_mut(width..));
            let (result, taken, written, ended) =
                self.parser.read_record(chunk, text.unwrap_or_default(), ends.unwrap_or_default());
            let lines = chunk.iter().take(taken).filter(|byte| **byte == b'\n').count();
            self.line += lines as u64;
            self.input.consume(taken);
            (length, width) = (length + written, width + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                // A row that does not fit is skipped.
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (length, width, fits) = (0, 0, false);
                }
                ReadRecordResult::Record => {
                    let row = if fits {
                        Ok(width)
                    } else {
                        Err("it is longer than 256 KiB, or has over 1024 fields")
                    };
                    return Ok(Some((line, row)));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }
}
