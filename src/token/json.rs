//! JSON from strangers, parsed once and strictly.
//!
//! Two parsers that disagree about one text are a hole: whoever checks and whoever uses must see the same claims.
//! So what JSON leaves open is refused here instead of guessed at: duplicate member names (RFC 8259 §4 calls their
//! meaning unpredictable, RFC 7515 §4 lets us reject them), deep nesting, numbers that no finite `f64` holds.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// A JSON object whose member names are unique.
pub type Object = Map<String, Value>;

/// The deepest nesting that is read. Auth0 nests claims two or three levels deep; sixteen leaves room.
const MAX_DEPTH: u8 = 16;

/// The longest text that is read, in bytes: Auth0 allows 100 KB of custom claims, the inflated payload of a JWE may
/// be 256 KiB.
const MAX_BYTES: usize = 256 * 1024;

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
    /// JSON, but not an object.
    #[error("the JSON text is not an object")]
    NotAnObject,
}

/// Parses `text` as one JSON object.
///
/// # Errors
/// See [`JsonError`].
pub fn object(text: &[u8]) -> Result<Object, JsonError> {
    if text.len() > MAX_BYTES {
        return Err(JsonError::TooLarge);
    }
    let fault = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0, fault: &fault }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(JsonError::NotAnObject),
        Err(_) => Err(fault.get().unwrap_or(JsonError::Malformed)),
    }
}

/// Builds a [`Value`], noting in `fault` what serde's error type has no room for.
#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: u8,
    fault: &'f Cell<Option<JsonError>>,
}

impl<'f> Strict<'f> {
    fn deeper<E: serde::de::Error>(self) -> Result<Strict<'f>, E> {
        if self.depth == MAX_DEPTH {
            self.fault.set(Some(JsonError::TooDeep));
            return Err(E::custom("too deep"));
        }
        Ok(Strict { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
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
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                self.fault.set(Some(JsonError::DuplicateName));
                return Err(A::Error::custom("duplicate member name"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
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
    fn a_text_over_the_limit_is_not_even_looked_at() {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(object(text.as_bytes()), Err(JsonError::TooLarge));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_what_serde_json_reads(text in r#"[\{\}\[\]",:a-c0-9.eE+ \-]{0,40}"#) {
            if let Ok(ours) = object(text.as_bytes()) {
                prop_assert_eq!(Value::Object(ours), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
