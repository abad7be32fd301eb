//! How to read claims whose type differs between identity providers.
//!
//! | asked for | read as well | not |
//! |---|---|---|
//! | a boolean (`email_verified`) | the texts `true` and `false` | numbers, other texts, other letters |
//! | a list of texts (`permissions`, `roles`) | one text: a list of that one item | a text that is split |
//! | words (`scope`) | a list of texts: the words of all of them | |
//! | a text (a header row, a `claim`) | a number, `true` and `false`, as JSON writes them | lists, objects |
//!
//! A value of another type counts as absent, and so does an item of a list that is not a text. **This never
//! applies to claims that decide whether a token is valid**: `exp`, `nbf` and `iat` are numbers (RFC 7519 §2,
//! `NumericDate`), `iss` and `sub` are texts, and `aud` is a text or a list of nothing but texts (§4.1.3). No
//! other claim is read as a number.

use std::borrow::Cow;

use serde_json::Value;

/// A boolean.
#[must_use]
pub fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text == "true" => Some(true),
        Value::String(text) if text == "false" => Some(false),
        _ => None,
    }
}

/// A list of texts.
pub fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).iter().filter_map(Value::as_str).filter(|text| !text.is_empty())
}

/// A text, or what JSON writes for a number, `true` or `false`.
#[must_use]
pub fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// [`scalar`] of each item of a list. A value that is no list counts as a list of one.
pub fn scalars(value: &Value) -> impl Iterator<Item = Cow<'_, str>> {
    items(value).iter().filter_map(scalar)
}

/// Words, as `scope` has them.
pub fn words(value: &Value) -> impl Iterator<Item = &str> {
    texts(value).flat_map(str::split_ascii_whitespace)
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        one => std::slice::from_ref(one),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_is_read_as_providers_send_it_and_as_nothing_else() {
        for (value, truth_of, texts_of, words_of) in [
            (json!(true), Some(true), vec![], vec![]),
            (json!(false), Some(false), vec![], vec![]),
            (json!("true"), Some(true), vec!["true"], vec!["true"]),
            (json!("false"), Some(false), vec!["false"], vec!["false"]),
            (json!("True"), None, vec!["True"], vec!["True"]),
            (json!(" true"), None, vec![" true"], vec!["true"]),
            (json!(1), None, vec![], vec![]),
            (json!(null), None, vec![], vec![]),
            (json!(""), None, vec![], vec![]),
            (json!(["true"]), None, vec!["true"], vec!["true"]),
            (json!("a b,c"), None, vec!["a b,c"], vec!["a", "b,c"]),
            (json!(["a b", "", 7, null, ["d"], "c"]), None, vec!["a b", "c"], vec!["a", "b", "c"]),
            (json!({"a": "b"}), None, vec![], vec![]),
        ] {
            assert_eq!(truth(&value), truth_of, "{value}");
            assert_eq!(texts(&value).collect::<Vec<_>>(), texts_of, "{value}");
            assert_eq!(words(&value).collect::<Vec<_>>(), words_of, "{value}");
        }
    }
}
