//! URLs of requests, normalized so that the same place is the same text (RFC 9449 §4.3, check 9): by syntax
//! (RFC 3986 §6.2.2) and by the rules of `http` and `https` (§6.2.3). Query and fragment do not count.
//!
//! holdfast has its own parser, because libraries that parse URLs as browsers do also repair them: they turn
//! `\` into `/` and drop tabs. Here, anything that is not plainly a URL is refused.

/// The scheme, authority and path of a URL, normalized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// Reads an absolute URL. `None` if it is not an `http` or `https` URL.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Self::of(scheme, authority, path)
    }

    /// The URL of a request by its parts. A WebSocket is opened by a request with `http` or `https`.
    #[must_use]
    pub fn of(scheme: &str, authority: &str, target: &str) -> Option<Self> {
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        let (scheme, default_port) = match () {
            () if is("https") || is("wss") => ("https", 443),
            () if is("http") || is("ws") => ("http", 80),
            () => return None,
        };
        let (host, port) = split_port(authority)?;
        let path = &target[..target.find(['?', '#']).unwrap_or(target.len())];
        if !(path.is_empty() || path.starts_with('/')) {
            return None;
        }
        let mut url = format!("{scheme}://{}", normal(host, "/\\?#@")?.to_ascii_lowercase());
        // The triplets of a host were written in capital letters.
        if url.contains('%') {
            return None;
        }
        if let Some(port) = port.filter(|port| *port != default_port) {
            url.push_str(&format!(":{port}"));
        }
        url.push_str(&without_dot_segments(&normal(path, "\\")?));
        Some(Self(url))
    }

    /// The normalized text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Host and port of an authority without user information. A port may be empty (RFC 3986 §3.2.3).
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    if host.is_empty()
        || (host.contains(':') && !is_address)
        || !port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    Some((host, port))
}

/// With percent-encoded unreserved characters decoded and all other triplets in capital letters (RFC 3986
/// §6.2.2.1, §6.2.2.2). `None` if it has characters that no URL has, or one of `never`.
fn normal(text: &str, never: &str) -> Option<String> {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let char = char::from(byte);
        if byte == b'%' {
            let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
            let (high, low) = (hex(rest.next())?, hex(rest.next())?);
            let decoded = char::from_u32(high * 16 + low)?;
            if decoded.is_ascii_alphanumeric() || "-._~".contains(decoded) {
                normal.push(decoded);
            } else {
                normal.push_str(&format!("%{high:X}{low:X}"));
            }
        } else if byte.is_ascii_graphic() && !never.contains(char) {
            normal.push(char);
        } else {
            return None;
        }
    }
    Some(normal)
}

/// RFC 3986 §5.2.4. An empty path is `/` (§6.2.3).
fn without_dot_segments(path: &str) -> String {
    let (mut segments, mut last) = (Vec::new(), "");
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
        last = segment;
    }
    // A path that ends in a dot segment names a directory.
    if matches!(last, "." | "..") {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalized(url: &str) -> Option<String> {
        HttpUrl::parse(url).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn one_place_is_one_text() {
        for (url, expected) in [
            ("https://server.example.com/resource", "https://server.example.com/resource"),
            // RFC 3986 §6.2.2: the example, with a web scheme.
            ("HTTPS://a/./b/../b/%63/%7bfoo%7d", "https://a/b/c/%7Bfoo%7D"),
            // §6.2.3: its four URLs.
            ("http://example.com", "http://example.com/"),
            ("http://example.com/", "http://example.com/"),
            ("http://example.com:/", "http://example.com/"),
            ("http://example.com:80/", "http://example.com/"),
            ("https://example.com:0443/", "https://example.com/"),
            ("https://example.com:80/", "https://example.com:80/"),
            ("https://EXAMPLE.com/A?q=/x#f", "https://example.com/A"),
            ("https://example.com?q", "https://example.com/"),
            ("https://example.com#f", "https://example.com/"),
            ("https://ex%61mple.com/%7euser/%2e%2e/a%2fb", "https://example.com/a%2Fb"),
            // A trailing dot, a slash more and an encoded slash are other places.
            ("https://example.com./x", "https://example.com./x"),
            ("https://example.com/x/", "https://example.com/x/"),
            ("https://example.com//x", "https://example.com//x"),
            ("https://example.com/x//", "https://example.com/x//"),
            ("https://example.com/x/.", "https://example.com/x/"),
            ("https://example.com/x//.", "https://example.com/x//"),
            ("https://example.com/x/..", "https://example.com/"),
            ("https://example.com/../x", "https://example.com/x"),
            ("https://example.com/.../x", "https://example.com/.../x"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x"),
            ("https://[::FF]/x", "https://[::ff]/x"),
        ] {
            assert_eq!(normalized(url).as_deref(), Some(expected), "{url}");
        }
        let socket = HttpUrl::of("wss", "a.example:443", "/chat?x").unwrap();
        assert_eq!(socket.as_str(), "https://a.example/chat");
    }

    #[test]
    fn what_is_not_plainly_a_url_is_none() {
        for url in [
            "",
            "/x",
            "server.example.com/x",
            "//a/x",
            "ftp://a/x",
            "https:/a/x",
            "https:///x",
            "https://:443/x",
            "https://user@a/x",
            "https://user:secret@a/x",
            "https://a:b/x",
            "https://a:65536/x",
            "https://a:+1/x",
            "https://a:1:2/x",
            "https://a\\b/x",
            "https://a/x\\y",
            "https://a%40b/x",
            "https://a/%",
            "https://a/%4",
            "https://a/%zz",
            "https://a/%+1",
            "https://a/x y",
            "https://a/x\t",
            "https://a/ü",
            "https://ü/",
            "https://a/\u{7f}",
        ] {
            assert_eq!(normalized(url), None, "{url}");
        }
        for target in ["*", "a", "https://b/x"] {
            assert_eq!(HttpUrl::of("https", "a", target), None, "{target}");
        }
    }

    proptest! {
        #[test]
        fn a_normalized_url_is_its_own_normal_form(
            url in "(https?|HTTP)://[aB.%4]{1,6}(:[0-9]{0,3})?[/.%2eEfa?#]{0,20}"
        ) {
            if let Some(once) = normalized(&url) {
                prop_assert_eq!(normalized(&once), Some(once.clone()), "{}", url);
                let path = once.splitn(4, '/').nth(3).unwrap();
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", once);
            }
        }

        #[test]
        fn no_text_makes_it_panic(url in ".{0,60}") {
            let _ = HttpUrl::parse(&url);
            let _ = HttpUrl::of("https", &url, &url);
        }
    }
}
