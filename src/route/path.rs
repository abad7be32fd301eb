//! The path of the original request, accepted only if it has a single reading.
//!
//! A rule about a path is only safe if the proxy and the backend read the path in the same way. They differ:
//! one decodes `%2f`, one merges `//`, one resolves `..`, one cuts at `;` or `#`, one decodes twice. So
//! nothing is repaired here. Percent-encoding is undone once, and a path on which two readers could disagree
//! is refused. The accepted paths have one reading (the test below reads them in all those ways).

use std::borrow::Cow;

use thiserror::Error;

/// A path with one reading: begins with `/`; decoded; no empty, `.` or `..` segment; none of `\ ; # ? %`; no
/// control characters; UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'r>(Cow<'r, str>);

/// Why a path has more than one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Ambiguous {
    /// It does not begin with `/`.
    #[error("it does not begin with a slash")]
    NotAbsolute,
    /// A character with a special meaning for some readers: `\`, `;`, `#`, a blank, a control character; or,
    /// percent-encoded, one of these, `/`, `?`, `%` or `.`.
    #[error("it has a character that servers read in different ways")]
    Character,
    /// `%` without two hexadecimal digits behind it.
    #[error("its percent-encoding is broken")]
    Encoding,
    /// Decoded, it is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// An empty segment (`//`), `.` or `..`.
    #[error("it has an empty segment, or a segment of dots")]
    Segment,
}

impl<'r> NormalPath<'r> {
    /// Reads the path of a request target; the query is cut off at the first `?`. Nothing is allocated unless
    /// something is percent-encoded.
    ///
    /// # Errors
    /// [`Ambiguous`], if it has another possible reading.
    pub fn parse(target: &'r [u8]) -> Result<Self, Ambiguous> {
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        if path.first() != Some(&b'/') {
            return Err(Ambiguous::NotAbsolute);
        }
        let path = match decode(path)? {
            Cow::Borrowed(bytes) => {
                std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Ambiguous::NotUtf8)
            }
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Ambiguous::NotUtf8),
        }?;
        // Including the Unicode controls and line separators.
        if path.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(Ambiguous::Character);
        }
        let segments = &path[1..];
        let last_is_empty = segments.is_empty() || segments.ends_with('/');
        let count = segments.split('/').count() - usize::from(last_is_empty);
        if segments.split('/').take(count).any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Ambiguous::Segment);
        }
        Ok(Self(path))
    }

    /// The decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `other`, with ASCII letters in any case if `ignore_case` says so.
    #[must_use]
    pub fn is(&self, other: &Self, ignore_case: bool) -> bool {
        same(self.0.as_bytes(), other.0.as_bytes(), ignore_case)
    }

    /// Whether it is `prefix` or lies below it: `/api` covers `/api`, `/api/` and `/api/x`, not `/apis`.
    /// ASCII letters count in any case if `ignore_case` says so.
    #[must_use]
    pub fn is_below(&self, prefix: &Self, ignore_case: bool) -> bool {
        let prefix = prefix.0.trim_end_matches('/').as_bytes();
        self.0.as_bytes().split_at_checked(prefix.len()).is_some_and(|(start, rest)| {
            same(start, prefix, ignore_case) && matches!(rest.first(), None | Some(b'/'))
        })
    }

    /// An owned copy.
    #[must_use]
    pub fn into_owned(self) -> NormalPath<'static> {
        NormalPath(Cow::Owned(self.0.into_owned()))
    }
}

fn same(one: &[u8], other: &[u8], ignore_case: bool) -> bool {
    if ignore_case { one.eq_ignore_ascii_case(other) } else { one == other }
}

/// Percent-decoding (RFC 3986 §2.1), once.
fn decode(path: &[u8]) -> Result<Cow<'_, [u8]>, Ambiguous> {
    if path.iter().copied().any(|byte| byte <= b' ' || byte == 0x7f || matches!(byte, b'\\' | b';' | b'#')) {
        return Err(Ambiguous::Character);
    }
    if !path.contains(&b'%') {
        return Ok(Cow::Borrowed(path));
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        let byte = if *byte == b'%' {
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            let (Some(high), Some(low)) = (high, low) else { return Err(Ambiguous::Encoding) };
            let byte = high << 4 | low;
            let hidden = matches!(byte, b'/' | b'\\' | b'.' | b';' | b'#' | b'?' | b'%');
            if hidden || byte < b' ' || byte == 0x7f {
                return Err(Ambiguous::Character);
            }
            byte
        } else {
            *byte
        };
        decoded.push(byte);
    }
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode;
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<String, Ambiguous> {
        NormalPath::parse(target.as_bytes()).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_plain_path_is_taken_as_it_is_and_without_its_query() {
        for (target, path) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b?x=/public&y=#/../%2f", "/a/b"),
            ("/?", "/"),
            ("/%61dmin", "/admin"),
            ("/caf%C3%A9/%c3%A9", "/café/é"),
            ("/café", "/café"),
            ("/a%20b", "/a b"),
            ("/.well-known/a.b/...", "/.well-known/a.b/..."),
            ("/a+b,c=d@e:f!$&'()*~_-", "/a+b,c=d@e:f!$&'()*~_-"),
        ] {
            assert_eq!(parse(target).as_deref(), Ok(path), "{target}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        use Ambiguous::{Character, Encoding, NotAbsolute, NotUtf8, Segment};
        for (target, why) in [
            ("", NotAbsolute),
            ("?/public", NotAbsolute),
            ("*", NotAbsolute),
            ("public", NotAbsolute),
            ("http://app/public", NotAbsolute),
            ("%2fpublic", NotAbsolute),
            ("//", Segment),
            ("//evil/public", Segment),
            ("/public//admin", Segment),
            ("/public/./admin", Segment),
            ("/public/../admin", Segment),
            ("/public/..", Segment),
            ("/public/.", Segment),
            ("/..", Segment),
            ("/a//", Segment),
            ("/public/%2e%2e/admin", Character),
            ("/public/.%2E/admin", Character),
            ("/public%2fadmin", Character),
            ("/public%2Fadmin", Character),
            ("/public%5cadmin", Character),
            ("/public\\..\\admin", Character),
            ("/public;/../admin", Character),
            ("/admin;x=/public", Character),
            ("/public%3b", Character),
            ("/admin#/public", Character),
            ("/admin%23/public", Character),
            ("/admin%3f/public", Character),
            ("/%252e%252e/admin", Character),
            ("/public%25", Character),
            ("/public%00", Character),
            ("/public%0d%0aX:y", Character),
            ("/public%7f", Character),
            ("/public\u{85}", Character),
            ("/public\t", Character),
            ("/public /admin", Character),
            ("/public%", Encoding),
            ("/public%2", Encoding),
            ("/public%zz", Encoding),
            ("/public%u002f", Encoding),
            ("/public%+41", Encoding),
            ("/public%c0%af", NotUtf8),
            ("/public%ff", NotUtf8),
        ] {
            assert_eq!(parse(target), Err(why), "{target}");
        }
        assert_eq!(NormalPath::parse(b"/public\xff"), Err(NotUtf8));
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let path = |text: &'static str| NormalPath::parse(text.as_bytes()).unwrap();
        for (below, prefix) in
            [("/api", "/api"), ("/api/", "/api"), ("/api/x", "/api/"), ("/api", "/api/"), ("/x", "/")]
        {
            assert!(path(below).is_below(&path(prefix), false), "{below} {prefix}");
        }
        for (beside, prefix) in [("/apis", "/api"), ("/API", "/api"), ("/x/api", "/api"), ("/ap", "/api")] {
            assert!(!path(beside).is_below(&path(prefix), false), "{beside} {prefix}");
        }
    }

    /// Ways in which proxies and backends are known to read a path.
    fn readings(target: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        fn until(path: &[u8], end: u8) -> Vec<u8> {
            path.split(|byte| *byte == end).next().unwrap_or_default().to_vec()
        }
        fn segments(path: &[u8], keep: fn(&[u8]) -> bool) -> Vec<u8> {
            let mut kept: Vec<&[u8]> = Vec::new();
            let all: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            for (place, segment) in all.iter().enumerate() {
                match *segment {
                    b".." => drop(kept.pop()),
                    segment if place == 0 || place + 1 == all.len() || keep(segment) => kept.push(segment),
                    _ => {}
                }
            }
            kept.join(&b'/')
        }
        let raw = until(target, b'?');
        let once: Vec<u8> = percent_decode(&raw).collect();
        let twice: Vec<u8> = percent_decode(&once).collect();
        let slashed: Vec<u8> = once.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
        let no_parameters =
            once.split(|byte| *byte == b'/').map(|s| until(s, b';')).collect::<Vec<_>>().join(&b'/');
        vec![
            ("decoded twice", twice),
            ("slashes merged", segments(&once, |segment| !segment.is_empty())),
            (
                "dots resolved, then decoded",
                percent_decode(&segments(&raw, |segment| segment != b".")).collect(),
            ),
            ("decoded, then dots resolved", segments(&once, |segment| segment != b".")),
            ("backslashes turned", slashed),
            ("parameters removed", no_parameters),
            ("cut at a decoded fragment", until(&once, b'#')),
            ("cut at a decoded query", until(&once, b'?')),
            ("cut at NUL", until(&once, 0)),
            ("decoded", once),
        ]
    }

    /// Pieces that paths are attacked with, and plain ones.
    fn target() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "%25", "%252f", ";", "#", "%23", "?",
                "%3f", "\\", "%00", "%", "%c0%af", "%61", "a", "b", "public", "admin", "é", "%C3%A9", " ",
                "%20", "\u{2028}",
            ])
            .prop_map(|piece| piece.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 1..3),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| [b"/".to_vec(), pieces.concat()].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4000, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_accepted_is_read_alike_by_everybody(target in target()) {
            if let Ok(path) = NormalPath::parse(&target) {
                for (how, reading) in readings(&target) {
                    prop_assert_eq!(path.as_str().as_bytes(), &*reading, "{}", how);
                }
            }
        }

        #[test]
        fn normalising_again_changes_nothing(target in target()) {
            if let Ok(path) = NormalPath::parse(&target) && !path.as_str().contains(' ') {
                prop_assert_eq!(NormalPath::parse(path.as_str().as_bytes()), Ok(path.clone()));
            }
        }

        #[test]
        fn what_lies_below_a_prefix_stays_below_it_however_it_is_read(target in target()) {
            let prefix = NormalPath::parse(b"/a").unwrap();
            if let Ok(path) = NormalPath::parse(&target) {
                for (how, reading) in readings(&target) {
                    let below = reading == b"/a" || reading.starts_with(b"/a/");
                    prop_assert_eq!(path.is_below(&prefix, false), below, "{}", how);
                }
            }
        }
    }
}
