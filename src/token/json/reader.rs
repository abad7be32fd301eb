//! The one reader of JSON texts: it scans a text once and separates readable values from odd ones.
//!
//! Invalid JSON is an error. A value that JSON's grammar allows but no value here can hold is *odd*, and only
//! that value is lost: a string with half of a surrogate pair (RFC 8259 §8.2) or bytes that are not UTF-8, a
//! number that no finite `f64` holds (§6).

use std::borrow::Cow;
use std::str;

use serde_json::{Map, Number, Value};

use super::error::JsonError;

/// A JSON object whose member names are unique.
pub type Object = Map<String, Value>;

/// The deepest nesting at which values are built. Auth0 nests claims two or three levels deep; sixteen leaves
/// room.
pub(super) const MAX_DEPTH: u8 = 16;

/// The longest text that is read, in bytes: Auth0 allows 100 KB of custom claims, the inflated payload of a
/// JWE may be 256 KiB.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Claims that decide who the user is and whether a token is valid, and the members of the issuer's documents
/// that decide where its keys are. If one of these names occurs twice in the outermost object, the whole text
/// is invalid.
pub(super) const NEVER_TWICE: [&str; 11] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "events", "keys", "issuer", "jwks_uri"];

/// Whether a text is invalid if `name` occurs twice in one of its objects, with `level` others around it.
/// Emails also occur inside other objects and under namespaces.
fn never_twice(name: &str, level: u8) -> bool {
    (level == 0 && NEVER_TWICE.contains(&name))
        || matches!(name.rsplit('/').next(), Some("email" | "email_verified"))
}

/// The deepest nesting that is scanned, the same as serde_json's. It protects the stack.
const MAX_NESTING: u8 = 128;

/// A position in a text, and how many values may still follow.
pub(super) struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    left: usize,
    /// Whether an odd value is an error.
    strict: bool,
}

/// A string as it is written, with its quotes.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    quoted: &'t [u8],
    escaped: bool,
}

impl<'t> Text<'t> {
    /// Its value; `None` if it is odd.
    pub(super) fn read(self) -> Option<Cow<'t, str>> {
        if self.escaped {
            return serde_json::from_slice(self.quoted).ok().map(Cow::Owned);
        }
        let inner = self.quoted.get(1..self.quoted.len() - 1)?;
        str::from_utf8(inner).ok().map(Cow::Borrowed)
    }

    /// Whether its value is `text`.
    pub(super) fn is(self, text: &str) -> bool {
        self.read().is_some_and(|own| own == text)
    }
}

/// A scalar value.
pub(super) enum Scalar<'t> {
    Null,
    Bool(bool),
    Number(&'t [u8]),
    Text(Text<'t>),
}

impl Scalar<'_> {
    /// As a value; `None` if it is odd.
    fn build(self) -> Option<Value> {
        match self {
            Self::Null => Some(Value::Null),
            Self::Bool(value) => Some(Value::Bool(value)),
            Self::Number(digits) => serde_json::from_slice::<Number>(digits).ok().map(Value::Number),
            Self::Text(text) => text.read().map(|text| Value::String(text.into_owned())),
        }
    }
}

impl<'t> Reader<'t> {
    /// Reads the object `text` to its end with `members`. There may be `max_values` values in all.
    pub(super) fn whole<T>(
        text: &'t [u8],
        max_values: usize,
        members: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        if text.len() > MAX_BYTES {
            return Err(JsonError::TooLarge);
        }
        let mut reader = Self { text, at: 0, left: max_values, strict: false };
        reader.blanks();
        if reader.peek() != Some(b'{') {
            reader.skip(0)?;
            reader.end()?;
            return Err(JsonError::NotAnObject);
        }
        reader.one()?;
        let found = members(&mut reader)?;
        reader.end()?;
        Ok(found)
    }

    /// Makes odd values errors from here on, for texts of our own operators.
    pub(super) fn strictly(&mut self) -> &mut Self {
        self.strict = true;
        self
    }

    /// The replacement of an odd value, or the error `fault` if odd values are errors.
    fn odd(&self, fault: JsonError) -> Result<Value, JsonError> {
        if self.strict { Err(fault) } else { Ok(Value::Null) }
    }

    /// Builds the value that begins here, with `level` others around it. An odd value is null, and so is one
    /// that is nested too deep.
    fn value(&mut self, level: u8) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{' | b'[') if level >= MAX_DEPTH => {
                self.skip(level)?;
                self.odd(JsonError::TooDeep)
            }
            Some(b'{') => {
                self.one()?;
                self.object(level).map(Value::Object)
            }
            Some(b'[') => {
                self.one()?;
                let mut array = Vec::new();
                self.items(level, |reader| {
                    array.push(reader.value(level + 1)?);
                    Ok(())
                })?;
                Ok(Value::Array(array))
            }
            _ => {
                self.one()?;
                self.scalar()?.build().map_or_else(|| self.odd(JsonError::Malformed), Ok)
            }
        }
    }

    /// Builds the object that begins here. A name that occurs twice has the value null, or is an error if it
    /// [decides](never_twice). A member with an odd name is dropped.
    pub(super) fn object(&mut self, level: u8) -> Result<Object, JsonError> {
        let mut object = Object::new();
        self.members(level, |reader, name| {
            let value = reader.value(level + 1)?;
            let Some(name) = name.read() else { return reader.odd(JsonError::Malformed).map(drop) };
            match object.get_mut(&*name) {
                None => {
                    object.insert(name.into_owned(), value);
                }
                Some(_) if never_twice(&name, level) => return Err(JsonError::DuplicateName),
                Some(first) => *first = reader.odd(JsonError::DuplicateName)?,
            }
            Ok(())
        })?;
        Ok(object)
    }

    /// Scans the value that begins here.
    pub(super) fn skip(&mut self, level: u8) -> Result<(), JsonError> {
        self.one()?;
        match self.peek() {
            Some(b'{') => self.members(level, |reader, _| reader.skip(level + 1)),
            Some(b'[') => self.items(level, |reader| reader.skip(level + 1)),
            _ => self.scalar().map(drop),
        }
    }

    /// Scans the value that begins here. Returns its value, if it is a string that is not odd.
    pub(super) fn text_or_skip(&mut self, level: u8) -> Result<Option<Cow<'t, str>>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.skip(level).map(|()| None);
        }
        self.one()?;
        self.text().map(Text::read)
    }

    /// Reads the object that begins here; `each` reads the value of a name.
    pub(super) fn members(
        &mut self,
        level: u8,
        mut each: impl FnMut(&mut Self, Text<'t>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.enter(level)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.text()?;
            self.blanks();
            self.expect(b':')?;
            self.blanks();
            each(self, name)?;
            if self.leave(b'}')? {
                return Ok(());
            }
        }
    }

    fn items(
        &mut self,
        level: u8,
        mut each: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.enter(level)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.leave(b']')? {
                return Ok(());
            }
        }
    }

    /// Moves past the bracket that begins a list or an object.
    fn enter(&mut self, level: u8) -> Result<(), JsonError> {
        if level >= MAX_NESTING {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    /// Moves past the comma after a value, or past the bracket `end`; returns whether it was the bracket.
    fn leave(&mut self, end: u8) -> Result<bool, JsonError> {
        self.blanks();
        if self.take(end) {
            return Ok(true);
        }
        self.expect(b',')?;
        self.blanks();
        Ok(false)
    }

    fn scalar(&mut self) -> Result<Scalar<'t>, JsonError> {
        match self.peek() {
            Some(b'"') => self.text().map(Scalar::Text),
            Some(b't') => self.word(b"true", Scalar::Bool(true)),
            Some(b'f') => self.word(b"false", Scalar::Bool(false)),
            Some(b'n') => self.word(b"null", Scalar::Null),
            _ => self.number().map(Scalar::Number),
        }
    }

    fn word(&mut self, word: &[u8], scalar: Scalar<'t>) -> Result<Scalar<'t>, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(JsonError::Malformed);
        }
        self.at += word.len();
        Ok(scalar)
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Result<&'t [u8], JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(JsonError::Malformed) } else { Ok(()) }
    }

    /// RFC 8259 §7.
    fn text(&mut self) -> Result<Text<'t>, JsonError> {
        let start = self.at;
        let mut escaped = false;
        self.expect(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Ok(Text { quoted: &self.text[start..self.at], escaped }),
                b'\\' => {
                    escaped = true;
                    match self.next()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            for _ in 0..4 {
                                if !self.next()?.is_ascii_hexdigit() {
                                    return Err(JsonError::Malformed);
                                }
                            }
                        }
                        _ => return Err(JsonError::Malformed),
                    }
                }
                0..0x20 => return Err(JsonError::Malformed),
                _ => {}
            }
        }
    }

    /// Counts one more value.
    fn one(&mut self) -> Result<(), JsonError> {
        self.left = self.left.checked_sub(1).ok_or(JsonError::TooMany)?;
        Ok(())
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonError::Malformed) }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.peek().ok_or(JsonError::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(JsonError::Malformed) }
    }
}
