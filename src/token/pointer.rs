//! Paths to a claim: the small language of `email_claims` and `[headers]`.
//!
//! | written | means |
//! |---|---|
//! | `email`, `https://api.example.com/email` | the claim of exactly this name |
//! | `/user/email` | a JSON pointer (RFC 6901) |
//! | `*/email` | the claim `email` under any namespace: a claim whose name is a URL that ends in `/email` |
//! | `/*~1user/email` | a JSON pointer that starts at such a claim (`~1` is the pointer's spelling of `/`) |

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::json::Object;

/// The path of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    written: String,
    first: Name,
    rest: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Exact(String),
    AnyNamespace { suffix: String },
}

impl ClaimPath {
    /// The claim of exactly this name.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self { written: name.to_owned(), first: Name::Exact(name.to_owned()), rest: Vec::new() }
    }

    /// Where the email is looked for by default, in this order: the direct claim, nested claims, namespaced
    /// claims.
    #[must_use]
    pub fn email_default() -> Vec<Self> {
        ["email", "/user/email", "/*~1user/email", "*/email"]
            .iter()
            .filter_map(|path| path.parse().ok())
            .collect()
    }

    /// The path as in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it is the plain claim `name`.
    #[must_use]
    pub fn is_member(&self, name: &str) -> bool {
        self.rest.is_empty() && matches!(&self.first, Name::Exact(exact) if exact == name)
    }

    /// All values at this path, in the order of the claims' names; more than one only if several namespaces
    /// have it.
    pub fn values<'c>(&'c self, claims: &'c Object) -> impl Iterator<Item = &'c Value> + 'c {
        self.places(claims).filter_map(|(holder, name)| holder.get(name))
    }

    /// The first of [`ClaimPath::values`].
    #[must_use]
    pub fn value<'c>(&'c self, claims: &'c Object) -> Option<&'c Value> {
        self.values(claims).next()
    }

    /// For each value, the object that holds it and its name there, where a companion claim would be.
    pub(super) fn places<'c>(
        &'c self,
        claims: &'c Object,
    ) -> impl Iterator<Item = (&'c Object, &'c str)> + 'c {
        // Sorted, so that the order of namespaces in a token does not matter.
        let mut names: Vec<&String> = claims.keys().filter(|name| self.first.matches(name)).collect();
        names.sort_unstable();
        names.into_iter().filter_map(move |name| {
            let mut holder = claims;
            let mut last = name.as_str();
            for step in &self.rest {
                holder = holder.get(last)?.as_object()?;
                last = step;
            }
            holder.contains_key(last).then_some((holder, last))
        })
    }
}

impl Name {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::AnyNamespace { suffix } => {
                (name.starts_with("https://") || name.starts_with("http://"))
                    && name.ends_with(suffix.as_str())
            }
        }
    }
}

impl FromStr for ClaimPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || {
            "a claim's name, a JSON pointer such as /user/email, or */email for a claim under any namespace"
                .to_owned()
        };
        let mut parts: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => vec![text.to_owned()],
        };
        if parts.iter().any(String::is_empty) {
            return Err(allowed());
        }
        let first = parts.remove(0);
        let first = match first.strip_prefix('*') {
            Some(suffix) if suffix.len() > 1 && suffix.starts_with('/') => {
                Name::AnyNamespace { suffix: suffix.to_owned() }
            }
            Some(_) => return Err(allowed()),
            None => Name::Exact(first),
        };
        Ok(Self { written: text.to_owned(), first, rest: parts })
    }
}

/// Whether `text` is a JSON pointer (RFC 6901 §3), below the whole. Besides `~0` and `~1` it may have `~2`,
/// for a colon.
#[must_use]
pub fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1', '2']))
}

/// The value at a pointer (RFC 6901 §4). An item of a list is at its index.
#[must_use]
pub fn at<'c>(claims: &'c Object, pointer: &str) -> Option<&'c Value> {
    let pointer = pointer.replace("~2", ":");
    let names = pointer.strip_prefix('/')?;
    let (first, rest) = names.split_at(names.find('/').unwrap_or(names.len()));
    claims.get(&unescape(first))?.pointer(rest)
}

/// RFC 6901 §4: `~1` first, then `~0`, or `~01` would come out wrong.
fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::json;

    #[test]
    fn each_spelling_finds_its_place() {
        let claims = json::object(
            br#"{"email":"direct","user":{"email":"nested"},"https://b.example/email":"second",
                "https://a.example/email":"namespaced","https://a.example/user":{"email":"both"},
                "xemail":"no",
                "a/b":{"~":"escaped"},"list":[{"email":"no"}]}"#,
        )
        .unwrap();
        let found = |path: &str| {
            let path: ClaimPath = path.parse().unwrap();
            path.values(&claims).filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found("email"), ["direct"]);
        assert_eq!(found("/user/email"), ["nested"]);
        assert_eq!(found("https://a.example/email"), ["namespaced"]);
        assert_eq!(found("*/email"), ["namespaced", "second"]);
        assert_eq!(found("/*~1user/email"), ["both"]);
        assert_eq!(found("/a~1b/~0"), ["escaped"]);
        assert!(found("/list/0/email").is_empty());
        assert!(found("/email/deeper").is_empty());
        assert!(found("absent").is_empty());
    }

    #[test]
    fn the_pointers_of_the_rfc_find_what_it_says() {
        let claims = json::object(
            br#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,
                "urn:x":{"a:b":9},"~2":10}"#,
        )
        .unwrap();
        for (pointer, expected) in [
            ("/foo/0", Some("\"bar\"")),
            ("/foo/1", Some("\"baz\"")),
            ("/foo/2", None),
            ("/foo/00", None),
            ("/foo/-", None),
            ("/foo/0/x", None),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/c%d", Some("2")),
            ("/e^f", Some("3")),
            ("/g|h", Some("4")),
            ("/i\\j", Some("5")),
            ("/k\"l", Some("6")),
            ("/ ", Some("7")),
            ("/m~0n", Some("8")),
            ("/urn~2x/a~2b", Some("9")),
            ("/urn:x/a:b", Some("9")),
            ("/~02", Some("10")),
        ] {
            assert_eq!(at(&claims, pointer).map(Value::to_string).as_deref(), expected, "{pointer}");
        }
        for (text, is) in [("/a", true), ("/~0~1~2", true), ("", false), ("a", false), ("/~", false)] {
            assert_eq!(is_pointer(text), is, "{text}");
        }
        assert!(!is_pointer("/a~3") && !is_pointer("#/a") && !is_pointer("/m~n"));
    }

    #[test]
    fn nonsense_is_not_a_path() {
        for text in ["", "/", "//", "/a//b", "*", "*/", "*email"] {
            assert!(text.parse::<ClaimPath>().is_err(), "{text:?}");
        }
    }
}
