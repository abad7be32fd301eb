//! Untrusted JSON, parsed once, by one reader.
//!
//! Two parsers that disagree about one text are a security hole: the code that checks claims and the code
//! that uses them must see the same ones. So where JSON is ambiguous, nothing is guessed. But one unreadable
//! value does not invalidate the others: a name that is cut in the middle of an emoji must not lock a user
//! out.
//!
//! **An odd value is read as null.** A value is odd if it has half of a surrogate pair, bytes that are not
//! UTF-8 or a number out of range, if it is nested deeper than 16 levels, or if its name occurs twice in one
//! object (RFC 8259 §4 calls the meaning of that unpredictable). A decision that needs such a value is a
//! refusal. Other decisions are not affected. Only the claims of every decision (`iss`, `sub`, `exp` and so
//! on, and emails) invalidate the whole text if they occur twice.
//!
//! A tree takes many times the memory of its text, and much longer to build than the text takes to scan. So
//! the number of values is bounded, and an unverified text is only read by [`text_member`], which builds
//! nothing.

mod error;
mod reader;

use std::borrow::Cow;

use self::reader::Reader;

pub use self::error::JsonError;
pub use self::reader::Object;

/// The most values in one text, including nested ones and the object itself. A token of 16 KiB has a
/// few dozen.
const MAX_VALUES: usize = 4096;

/// Parses `text` as one JSON object. Odd values are null.
///
/// # Errors
/// See [`JsonError`].
pub fn object(text: &[u8]) -> Result<Object, JsonError> {
    Reader::whole(text, MAX_VALUES, |reader| reader.object(0))
}

/// The same for a file of the operator, where an odd value is an error.
///
/// # Errors
/// See [`JsonError`].
pub fn strict_object(text: &[u8]) -> Result<Object, JsonError> {
    Reader::whole(text, MAX_VALUES, |reader| reader.strictly().object(0))
}

/// The string under `name` in the object `text`; `None` if it is absent or not a string. The whole text is
/// scanned by the same rules as in [`object`], and nothing is built.
///
/// # Errors
/// See [`JsonError`]; [`JsonError::DuplicateName`] for this name alone.
pub fn text_member<'t>(text: &'t [u8], name: &str) -> Result<Option<Cow<'t, str>>, JsonError> {
    Reader::whole(text, MAX_VALUES, |reader| {
        let mut found = None;
        reader.members(0, |reader, own| {
            if !own.is(name) {
                return reader.skip(1);
            }
            match found.replace(reader.text_or_skip(1)?) {
                None => Ok(()),
                Some(_) => Err(JsonError::DuplicateName),
            }
        })?;
        Ok(found.flatten())
    })
}

/// Calls `each` for the members of the object `text`, in their order, with the name, and the value if it is a
/// string. There may be `max_values` values in all; nested ones are only scanned. `each` may stop with an
/// error.
///
/// # Errors
/// See [`JsonError`]; `each` has to detect a name that occurs twice.
pub(super) fn members<'t>(
    text: &'t [u8],
    max_values: usize,
    mut each: impl FnMut(Cow<'t, str>, Option<Cow<'t, str>>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    Reader::whole(text, max_values, |reader| {
        reader.members(0, |reader, name| {
            let value = reader.text_or_skip(1)?;
            name.read().map_or(Ok(()), |name| each(name, value))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::reader::{MAX_BYTES, NEVER_TWICE};
    use super::*;

    #[test]
    fn what_is_no_json_is_refused() {
        for (text, expected) in [
            (r#"{"a":NaN}"#, JsonError::Malformed),
            (r#"{"a":1} x"#, JsonError::Malformed),
            ("{\"a\":\"\u{0}\"}", JsonError::Malformed),
            (r#"{"a":"\x"}"#, JsonError::Malformed),
            (r#"{"a":"\u12g4"}"#, JsonError::Malformed),
            (r#"{"a":01}"#, JsonError::Malformed),
            (r#"{"a":1.}"#, JsonError::Malformed),
            (r#"{"a":.5}"#, JsonError::Malformed),
            (r#"{"a":+1}"#, JsonError::Malformed),
            (r#"{"a":-}"#, JsonError::Malformed),
            (r#"{"a":1,}"#, JsonError::Malformed),
            (r#"{"a":[1,]}"#, JsonError::Malformed),
            (r#"{"a" 1}"#, JsonError::Malformed),
            (r#"{a:1}"#, JsonError::Malformed),
            (r#"{"a":tru}"#, JsonError::Malformed),
            (r#"{"a":[1}"#, JsonError::Malformed),
            (r#"{"a":"x"#, JsonError::Malformed),
            ("\u{feff}{}", JsonError::Malformed),
            ("[1]", JsonError::NotAnObject),
            ("7", JsonError::NotAnObject),
            ("", JsonError::Malformed),
        ] {
            assert_eq!(object(text.as_bytes()), Err(expected), "{text}");
        }
        assert_eq!(object(b"{\"a\":\xff}"), Err(JsonError::Malformed));
    }

    #[test]
    fn what_decides_occurs_once_and_nothing_else_condemns_a_text() {
        for name in NEVER_TWICE {
            let text = format!(r#"{{"{name}":"a","b":1,"{name}":"a"}}"#);
            assert_eq!(object(text.as_bytes()), Err(JsonError::DuplicateName), "{text}");
        }
        assert_eq!(object(br#"{"sub":"a","su\u0062":"b"}"#), Err(JsonError::DuplicateName));
        // Inside other values they do not matter.
        assert!(object(br#"{"user":{"sub":"a","sub":"b"}}"#).is_ok());
        // But an email there may be the one that counts.
        for name in ["email", "email_verified", "https://a.example/email"] {
            let text = format!(r#"{{"user":{{"{name}":"a@x.org","{name}":"a@x.org"}}}}"#);
            assert_eq!(object(text.as_bytes()), Err(JsonError::DuplicateName), "{text}");
        }
    }

    #[test]
    fn what_is_odd_is_null_and_costs_its_own_place_alone() {
        for (odd, expected) in [
            (r#""Ada \ud83d""#, json!(null)),
            (r#""\udc00 Ada""#, json!(null)),
            (r#""\ud83d\u0041""#, json!(null)),
            (r#""\ud83d\ud83d""#, json!(null)),
            (r#""\ud83d\ude00""#, json!("\u{1f600}")),
            ("1e999", json!(null)),
            ("-1e999", json!(null)),
            ("1e-999", json!(0.0)),
            (&"9".repeat(400), json!(null)),
            (r#"{"a":1,"a":2,"b":3}"#, json!({"a": null, "b": 3})),
            (r#"{"a":1,"\u0061":2,"a":3}"#, json!({"a": null})),
            (r#"{"name":"\ud83d","email":"a@x.org"}"#, json!({"name": null, "email": "a@x.org"})),
            (r#"["a","\ud83d",1e999,"b"]"#, json!(["a", null, null, "b"])),
            (r#"{"\ud83d":1,"b":2}"#, json!({"b": 2})),
            (
                &format!("{}1{}", "[".repeat(100), "]".repeat(100)),
                (0..15).fold(json!(null), |inner, _| json!([inner])),
            ),
        ] {
            let text = format!(r#"{{"sub":"a","odd":{odd},"exp":7}}"#);
            let expected = json!({"sub": "a", "odd": expected, "exp": 7});
            assert_eq!(object(text.as_bytes()).map(Value::Object), Ok(expected), "{text}");
            assert_eq!(text_member(text.as_bytes(), "sub"), Ok(Some("a".into())), "{text}");
        }
        // As truncating clients cut them: in the middle of a character.
        let text = b"{\"sub\":\"a\",\"name\":\"Ada \xf0\x9f\",\"\xff\":1}";
        assert_eq!(object(text).map(Value::Object), Ok(json!({"sub": "a", "name": null})));
        // The requested member then has no value, but its name still shows that it is present.
        let found = object(br#"{"nonce":1e999,"iss":"\ud83d"}"#).unwrap();
        assert!(found.contains_key("nonce") && found["iss"].is_null());
        assert_eq!(text_member(br#"{"iss":"\ud83d"}"#, "iss"), Ok(None));
    }

    #[test]
    fn in_a_file_of_the_operators_nothing_may_be_odd() {
        for (text, expected) in [
            (r#"{"a":1,"a":1}"#, JsonError::DuplicateName),
            (r#"{"a":{"b":1,"b":1}}"#, JsonError::DuplicateName),
            (r#"{"a":"\ud83d"}"#, JsonError::Malformed),
            (r#"{"\ud83d":1}"#, JsonError::Malformed),
            (r#"{"a":1e999}"#, JsonError::Malformed),
            (&format!(r#"{{"a":{}1{}}}"#, "[".repeat(16), "]".repeat(16)), JsonError::TooDeep),
        ] {
            assert_eq!(strict_object(text.as_bytes()), Err(expected), "{text}");
        }
        assert!(strict_object(br#"{"a":null,"b":[{"c":1.5}]}"#).is_ok());
    }

    #[test]
    fn sixteen_levels_are_built_more_are_read_over_and_too_many_are_refused() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let depth = |text: &str| {
            let mut value = Value::Object(object(text.as_bytes()).unwrap());
            let mut depth = 0;
            while let Some(inner) = value.get_mut("a").map(Value::take) {
                (value, depth) = (inner, depth + 1);
            }
            (depth, value)
        };
        assert_eq!(depth(&nested(16)), (16, json!(1)));
        assert_eq!(depth(&nested(17)), (16, json!(null)));
        assert_eq!(depth(&nested(128)), (16, json!(null)));
        for too_deep in [129, 10_000] {
            assert_eq!(object(nested(too_deep).as_bytes()), Err(JsonError::TooDeep));
            assert_eq!(text_member(nested(too_deep).as_bytes(), "iss"), Err(JsonError::TooDeep));
        }
        let list = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        assert_eq!(object(list.as_bytes()), Err(JsonError::TooDeep));
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
            (r#"{"iss":"a","b":1e400}"#, Ok(Some("a"))),
            (r#"{"iss":"a","b":1,"b":2}"#, Ok(Some("a"))),
            (r#"{"iss":"a"} x"#, Err(JsonError::Malformed)),
        ] {
            let found = text_member(text.as_bytes(), "iss").map(|found| found.map(Cow::into_owned));
            assert_eq!(found, expected.map(|text| text.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_text_over_the_limit_is_not_even_looked_at() {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(object(text.as_bytes()), Err(JsonError::TooLarge));
    }

    /// Values of which no name in them occurs twice, since serde_json keeps but one.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(?s).{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(?s).{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_and_what_is_read_are_what_serde_json_says(
            text in r#"[\{\}\[\]",:a-c0-9.eE+ \-\\u]{0,40}"#
        ) {
            // It reads over what it does not build, odd or not.
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let is_object = is_json && text.trim_start().starts_with('{');
            prop_assert_eq!(object(text.as_bytes()).is_ok(), is_object);
            if let (Ok(ours), Ok(theirs)) = (object(text.as_bytes()), serde_json::from_str::<Object>(&text)) {
                for (name, value) in &ours {
                    prop_assert!(value.is_null() || theirs.get(name) == Some(value) || !value.is_string());
                }
            }
        }

        #[test]
        fn every_value_comes_out_as_serde_json_wrote_it(value in value()) {
            let text = json!({ "a": value }).to_string();
            let read = object(text.as_bytes()).unwrap();
            prop_assert_eq!(text_member(text.as_bytes(), "a"), Ok(value.as_str().map(Into::into)));
            prop_assert_eq!(Value::Object(read), serde_json::from_str::<Value>(&text).unwrap());
        }

        #[test]
        fn an_odd_member_changes_nothing_beside_it(
            members in prop::collection::btree_map("[a-d]{1,3}", value(), 0..5),
            odd in prop::sample::select(vec![
                r#""\ud83d""#, "1e999", r#"{"x":1e999}"#, "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"
            ]),
            at in any::<prop::sample::Index>(),
        ) {
            let mut written: Vec<String> =
                members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
            written.insert(at.index(written.len() + 1), format!(r#""odd":{odd}"#));
            let text = format!("{{{}}}", written.join(","));
            let mut read = object(text.as_bytes()).unwrap();
            prop_assert!(read.remove("odd").is_some());
            let good = json!(members).to_string();
            prop_assert_eq!(Value::Object(read), serde_json::from_str::<Value>(&good).unwrap());
        }

        #[test]
        fn whatever_the_bytes_both_ways_of_reading_agree(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut text = br#"{"iss":"a","b":"#.to_vec();
            text.extend(bytes);
            text.push(b'}');
            if let Ok(read) = object(&text) {
                let found = text_member(&text, "iss").map(|found| found.map(|text| text.into_owned()));
                prop_assert_eq!(found, Ok(read["iss"].as_str().map(str::to_owned)));
            }
        }
    }
}
