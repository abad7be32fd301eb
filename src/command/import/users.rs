//! A file of users, read one by one in constant memory: NDJSON, a JSON array, or CSV, plain or gzip.
//!
//! A user that cannot be read is reported with its line number, and reading goes on. Reading ends at the
//! first error of the file itself.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use holdfast::token::json::{self as strict, Object};
use serde_json::Value;

use super::csv::Csv;
use super::input::{Input, MAX_USER_BYTES, skip};
use super::json::{Elements, Lines};

/// The longest claims of a user, in bytes. An email has 254, a subject 255.
const MAX_CLAIMS_BYTES: usize = 16 * 1024;

/// The first bytes of gzip (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A user, or why it cannot be read.
pub(super) struct Entry {
    /// The line where it begins; the first line is 1.
    pub line: u64,
    /// The claims that `/userinfo` would give.
    pub user: Result<Object, String>,
}

/// The users of a file.
pub(super) enum Users {
    Lines(Lines),
    Elements(Elements),
    Csv(Box<Csv>),
    /// The file is read, or cannot be read any further.
    End,
}

impl Users {
    /// Opens a file, and detects its format by its first bytes.
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(MAX_USER_BYTES, File::open(file)?);
        let input: Input = match raw.fill_buf()?.starts_with(&GZIP) {
            true => Box::new(BufReader::with_capacity(MAX_USER_BYTES, MultiGzDecoder::new(raw))),
            false => Box::new(raw),
        };
        Self::of(input)
    }

    fn of(mut input: Input) -> io::Result<Self> {
        let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
        input.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
        if start == BYTE_ORDER_MARK {
            start.clear();
        }
        let mut input: Input = Box::new(io::Cursor::new(start).chain(input));
        let mut line = 1;
        let first = skip(&mut input, &mut line, u8::is_ascii_whitespace)?;
        Ok(match first {
            Some(b'[') => {
                input.consume(1);
                Self::Elements(Elements::new(input, line))
            }
            Some(b'{') => Self::Lines(Lines::new(input, line)),
            Some(_) => Self::Csv(Box::new(Csv::new(input, line))),
            None => Self::End,
        })
    }

    fn entry(&mut self) -> Result<Option<Entry>, String> {
        let text = |text: Result<&[u8], &'static str>| {
            let object = text.map_err(str::to_owned).and_then(|text| {
                strict::object(text).map_err(|error| format!("not a user as a JSON object: {error}"))
            });
            object.and_then(|object| claims(object).map_err(str::to_owned))
        };
        let found = match self {
            Self::Lines(lines) => lines.read()?.map(|(line, found)| (line, text(found))),
            Self::Elements(elements) => elements.read()?.map(|(line, found)| (line, text(found))),
            Self::Csv(csv) => {
                let found = csv.read()?;
                found.map(|(line, user)| (line, user.and_then(claims).map_err(str::to_owned)))
            }
            Self::End => None,
        };
        Ok(found.map(|(line, user)| Entry { line, user }))
    }
}

impl Iterator for Users {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry();
        if !matches!(entry, Ok(Some(_))) {
            *self = Self::End;
        }
        entry.transpose()
    }
}

/// The claims of an exported user that are used. The others are dropped: users can write some of them
/// (`user_metadata`), and `/userinfo` does not return them.
fn claims(mut user: Object) -> Result<Object, &'static str> {
    let mut claims = Object::new();
    let subject = user.remove("user_id").or_else(|| user.remove("sub"));
    claims.extend(subject.map(|subject| ("sub".to_owned(), subject)));
    for name in ["email", "email_verified", "name"] {
        claims.extend(user.remove(name).map(|value| (name.to_owned(), value)));
    }
    claims.retain(|_, value| matches!(value, Value::String(_) | Value::Bool(_)));
    let bytes: usize = claims.values().filter_map(Value::as_str).map(str::len).sum();
    if bytes <= MAX_CLAIMS_BYTES { Ok(claims) } else { Err("its email and name are longer than 16 KiB") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::*;

    /// Of each user its line, and its claims or whether it was skipped; and whether the file could be read to
    /// its end.
    fn read(text: &[u8]) -> (Vec<(u64, Option<Value>)>, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let (mut users, mut whole) = (Vec::new(), true);
        for entry in Users::open(file.path()).unwrap() {
            match entry {
                Ok(Entry { line, user }) => users.push((line, user.ok().map(Value::Object))),
                Err(_) => whole = false,
            }
        }
        (users, whole)
    }

    fn user(name: &str) -> Value {
        json!({ "sub": name, "email": format!("{name}@x.org"), "email_verified": true })
    }

    fn line(name: &str) -> String {
        format!(
            r#"{{"user_id":"{name}","email":"{name}@x.org","email_verified":true,"user_metadata":{evil}}}"#,
            evil = r#"{"email":"evil@x.org"}"#
        )
    }

    #[test]
    fn lines_and_arrays_are_read_by_line_and_what_is_bad_is_skipped() {
        let good = [(1, Some(user("a"))), (2, None), (4, Some(user("b")))];
        let lines = format!("{}\n{{\"user_id\":\n\n{}\r\n", line("a"), line("b"));
        assert_eq!(read(lines.as_bytes()), (good.to_vec(), true));
        let array = format!("[{},\n [\"]}},\\\"\"],\n\n{}]\n", line("a"), line("b"));
        assert_eq!(read(array.as_bytes()), (good.to_vec(), true));
        let pretty = format!("\n\u{20}[\n  {}\n]", line("a").replace(',', ",\n"));
        assert_eq!(read(pretty.as_bytes()), (vec![(3, Some(user("a")))], true));
        for empty in ["[]", "[ \n ]", "", " \n"] {
            assert_eq!(read(empty.as_bytes()), (vec![], true), "{empty}");
        }
        let marked = [&BYTE_ORDER_MARK[..], line("a").as_bytes()].concat();
        assert_eq!(read(&marked), (vec![(1, Some(user("a")))], true));
    }

    #[test]
    fn an_array_that_does_not_end_or_is_followed_by_something_is_said() {
        for (text, users) in
            [(format!("[{},", line("a")), 1), (format!("[{}", line("a")), 0), ("[\"".to_owned(), 0)]
        {
            let (read, whole) = read(text.as_bytes());
            assert_eq!((read.len(), whole), (users, false), "{text}");
        }
        let (read, whole) = read(format!("[{}] x", line("a")).as_bytes());
        assert_eq!((read.len(), whole), (1, false));
    }

    #[test]
    fn csv_is_read_by_its_header_with_quotes_and_line_breaks_in_them() {
        let text = "\u{feff}email,\"user_id\",name,email_verified,other\r\na@x.org,a,\"A, \"\"the\"\" \
                    first\nof all\",true,1\r\n\r\nb@x.org,b,,false,2\nc@x.org,c\n";
        let expected = vec![
            (
                2,
                Some(json!({ "sub": "a", "email": "a@x.org", "name": "A, \"the\" first\nof all",
                    "email_verified": "true" })),
            ),
            (5, Some(json!({ "sub": "b", "email": "b@x.org", "email_verified": "false" }))),
            (6, None),
        ];
        assert_eq!(read(text.as_bytes()), (expected, true));
        assert_eq!(read(b"email,name\na@x.org,a\n"), (vec![], false), "no column of users");
        assert_eq!(
            read(b"sub,email\na,\xff\nb,b@x.org").0[1],
            (3, Some(json!({ "sub": "b", "email": "b@x.org" })))
        );
    }

    #[test]
    fn what_is_too_long_is_skipped_and_read_over() {
        let long = "x".repeat(MAX_USER_BYTES);
        let lines = format!("{{\"user_id\":\"{long}\"}}\n{}", line("a"));
        assert_eq!(read(lines.as_bytes()), (vec![(1, None), (2, Some(user("a")))], true));
        let array = format!("[{{\"user_id\":\"{long}\"}},\n{}]", line("a"));
        assert_eq!(read(array.as_bytes()), (vec![(1, None), (2, Some(user("a")))], true));
        let csv = format!("sub,email\n\"{long}\",a@x.org\nb,b@x.org\n{}\nc,c@x.org\n", "x,".repeat(2000));
        let skipped: Vec<_> =
            read(csv.as_bytes()).0.into_iter().map(|(line, user)| (line, user.is_some())).collect();
        assert_eq!(skipped, [(2, false), (3, true), (4, false), (5, true)]);
        let name = "x".repeat(MAX_CLAIMS_BYTES);
        assert_eq!(read(format!("{{\"user_id\":\"a\",\"name\":\"{name}\"}}").as_bytes()).0, [(1, None)]);
    }

    #[test]
    fn gzip_is_told_by_its_first_bytes_and_one_that_is_cut_off_is_said() {
        let zip = |text: &str| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let both = [zip(&line("a")), zip(&format!("\n{}", line("b")))].concat();
        assert_eq!(read(&both), (vec![(1, Some(user("a"))), (2, Some(user("b")))], true));
        let whole = zip(&format!("{}\n", line("a")).repeat(50_000));
        assert!(!read(&whole[..whole.len() / 2]).1);
    }
}
