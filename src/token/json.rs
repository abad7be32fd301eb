//! JSON from strangers, parsed once and strictly.
//!
//! Two parsers that disagree about one text are a hole: whoever checks and whoever uses must see the same claims.
//! So what JSON leaves open is refused here instead of guessed at: duplicate member names (RFC 8259 §4 calls their
//! meaning unpredictable, RFC 7515 §4 lets us reject them), deep nesting, numbers that no finite `f64` holds.
//!
//! A tree takes many times the memory of its text, and many times as long as reading over it. So the number of values is
//! bounded, and of a text that nobody vouches for only [`text_member`] is taken, which builds nothing.

mod skim;

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

pub(super) use skim::members;
pub use skim::text_member;

/// A JSON object whose member names are unique.
pub type Object = Map<String, Value>;

/// The deepest nesting that is read. Auth0 nests claims two or three levels deep; sixteen leaves room.
const MAX_DEPTH: u8 = 16;

/// The longest text that is read, in bytes: Auth0 allows 100 KB of custom claims, the inflated payload of a JWE may
/// be 256 KiB.
const MAX_BYTES: usize = 256 * 1024;

/// The most values in one text, those inside of others and the object itself counted. A token of 16 KiB has a few dozen.
const MAX_VALUES: usize = 4096;

/// Why a text is not the JSON object we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Longer than is read.
    #[error("the JSON text is longer than 256 KiB")]
    TooLarge,
    /// Not JSON, or with a number out of range.
    #[error("the text is not well-formed JSON")]
    Malformed,
    /// One object has the same member name twice.
    #[error("a JSON member name occurs twice")]
    DuplicateName,
    /// Nested deeper than is read.
    #[error("the JSON text is nested deeper than 16 levels")]
    TooDeep,
    /// More values than are read.
    #[error("the JSON text has too many values")]
    TooMany,
    /// JSON, but not an object.
    #[error("the JSON text is not an object")]
    NotAnObject,
}

/// Parses `text` as one JSON object.
///
/// # Errors
/// See [`JsonError`].
pub fn object(text: &[u8]) -> Result<Object, JsonError> {
    let bounds = Bounds::new(MAX_VALUES);
    match bounds.read(text, Strict(bounds.outermost()))? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAnObject),
    }
}

/// How many values a reader may still read, and what ended it, for which serde's error type has no room.
struct Bounds {
    left: Cell<usize>,
    fault: Cell<Option<JsonError>>,
}

impl Bounds {
    fn new(max_values: usize) -> Self {
        Self { left: Cell::new(max_values), fault: Cell::new(None) }
    }

    fn outermost(&self) -> Within<'_> {
        Within { depth: 0, bounds: self }
    }

    /// Reads the whole `text`.
    fn read<'t, S: DeserializeSeed<'t>>(&self, text: &'t [u8], reader: S) -> Result<S::Value, JsonError> {
        if text.len() > MAX_BYTES {
            return Err(JsonError::TooLarge);
        }
        // Checked at once it takes less time than for each text in it.
        let text = std::str::from_utf8(text).map_err(|_| JsonError::Malformed)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value =
            reader.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        value.map_err(|_| self.fault.get().unwrap_or(JsonError::Malformed))
    }
}

/// How deep a reader is.
#[derive(Clone, Copy)]
struct Within<'l> {
    depth: u8,
    bounds: &'l Bounds,
}

impl Within<'_> {
    fn fail<E: serde::de::Error, T>(self, fault: JsonError) -> Result<T, E> {
        self.bounds.fault.set(Some(fault));
        Err(E::custom(fault))
    }

    /// One more value.
    fn one<E: serde::de::Error>(self) -> Result<(), E> {
        match self.bounds.left.get().checked_sub(1) {
            Some(left) => {
                self.bounds.left.set(left);
                Ok(())
            }
            None => self.fail(JsonError::TooMany),
        }
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return self.fail(JsonError::TooDeep);
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

/// Builds a [`Value`].
#[derive(Clone, Copy)]
struct Strict<'l>(Within<'l>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.one()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = Self(self.0.deeper()?);
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = Self(self.0.deeper()?);
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return self.0.fail(JsonError::DuplicateName);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_json_leaves_open_is_refused() {
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#, JsonError::DuplicateName),
            (r#"{"a":{"b":1,"\u0062":2}}"#, JsonError::DuplicateName),
            (r#"{"a":1e400}"#, JsonError::Malformed),
            (r#"{"a":NaN}"#, JsonError::Malformed),
            (r#"{"a":1} x"#, JsonError::Malformed),
            ("{\"a\":\"\u{0}\"}", JsonError::Malformed),
            ("[1]", JsonError::NotAnObject),
            ("", JsonError::Malformed),
        ] {
            assert_eq!(object(text.as_bytes()), Err(expected), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(JsonError::Malformed));
    }

    #[test]
    fn sixteen_levels_are_read_and_seventeen_are_not() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(object(nested(16).as_bytes()).is_ok());
        assert_eq!(object(nested(17).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(object(nested(10_000).as_bytes()), Err(JsonError::TooDeep));
    }

    #[test]
    fn as_many_values_are_read_as_may_be_and_not_one_more() {
        // The object, the list and what is in it.
        let list = |values: usize| format!(r#"{{"iss":"i","a":[{}]}}"#, vec!["1"; values - 3].join(","));
        let text = list(MAX_VALUES);
        assert!(object(text.as_bytes()).is_ok() && text_member(text.as_bytes(), "iss").is_ok());
        let text = list(MAX_VALUES + 1);
        assert_eq!(object(text.as_bytes()), Err(JsonError::TooMany));
        assert_eq!(text_member(text.as_bytes(), "iss"), Err(JsonError::TooMany));
        let read = |max| members(br#"{"a":1,"b":[]}"#, max, |_, _| Ok(()));
        assert_eq!((read(2), read(3)), (Err(JsonError::TooMany), Ok(())));
    }

    #[test]
    fn members_come_one_by_one_until_one_is_not_taken() {
        let mut seen = Vec::new();
        let text = br#"{"a":"x","\u0062":1,"c":{"d":"y"},"a":"z"}"#;
        let read = members(text, 9, |name, value| {
            seen.push((name.into_owned(), value.map(Cow::into_owned)));
            if seen.len() == 3 { Err(JsonError::DuplicateName) } else { Ok(()) }
        });
        assert_eq!(read, Err(JsonError::DuplicateName));
        let expected = [("a", Some("x")), ("b", None), ("c", None)];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }

    #[test]
    fn one_member_is_found_without_the_others_being_built() {
        for (text, expected) in [
            (r#"{"a":{"iss":"inner"},"iss":"outer"}"#, Ok(Some("outer"))),
            (r#"{"\u0069ss":"a\u0062"}"#, Ok(Some("ab"))),
            (r#"{"a":["iss",null,true,-1,1.5,"\n"]}"#, Ok(None)),
            (r#"{"iss":7}"#, Ok(None)),
            (r#"{"iss":{}}"#, Ok(None)),
            (r#"{"iss":"a","iss":"a"}"#, Err(JsonError::DuplicateName)),
            (r#"{"iss":1,"iss":"a"}"#, Err(JsonError::DuplicateName)),
            (r#"{"iss":"a","b":1e400}"#, Err(JsonError::Malformed)),
            (r#"{"iss":"a"} x"#, Err(JsonError::Malformed)),
        ] {
            let found = text_member(text.as_bytes(), "iss").map(|found| found.map(Cow::into_owned));
            assert_eq!(found, expected.map(|text| text.map(str::to_owned)), "{text}");
        }
        let deep = format!(r#"{{"a":{}1{},"iss":"a"}}"#, "[".repeat(16), "]".repeat(16));
        assert_eq!(text_member(deep.as_bytes(), "iss"), Err(JsonError::TooDeep));
    }

    #[test]
    fn a_text_over_the_limit_is_not_even_looked_at() {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(object(text.as_bytes()), Err(JsonError::TooLarge));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_what_serde_json_reads(text in r#"[\{\}\[\]",:a-c0-9.eE+ \-]{0,40}"#) {
            if let Ok(ours) = object(text.as_bytes()) {
                prop_assert_eq!(text_member(text.as_bytes(), "a"), Ok(ours.get("a").and_then(Value::as_str).map(Into::into)));
                prop_assert_eq!(Value::Object(ours), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
