use hyper::header::HeaderName;
use hyper::{Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::config::{Settings, Source};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn login(hosts: &[&str]) -> Login {
    Login {
        url: "https://app.example.com/login".parse().unwrap(),
        answer: LoginAnswer::Redirect,
        return_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        key: Some(hmac::Key::new(hmac::HMAC_SHA256, SECRET)),
        lifetime: Duration::from_secs(600),
    }
}

fn routes() -> RouteSettings {
    let text = "[auth]\ntrusted_peers = \"unix\"\nforwarded = \"x-forwarded\"\n[[issuer]]\nurl = \
                \"https://t/\"\naudience = \"a\"\n";
    Settings::read(&Source::text("test.toml", text)).unwrap().routes
}

fn asked(lines: &[(&str, &str)], peer: Peer) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (method, uri) = (Method::GET, Uri::from_static("/auth"));
    let asked = Subrequest { method: &method, uri: &uri, headers: &headers };
    let login = login(&["app.example.com", ".example.com"]);
    login.url_for(asked, peer, &routes(), NOW).map(|url| url.to_str().unwrap().to_owned())
}

/// A browser's request, as a trusted proxy describes it.
fn told(host: &str, target: &str) -> Option<String> {
    asked(
        &[
            ("accept", BROWSER),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", host),
            ("x-forwarded-uri", target),
        ],
        Peer::Unix,
    )
}

const BARE: &str = "https://app.example.com/login";

#[test]
fn the_return_address_is_signed_as_the_documentation_says() {
    // The signature was made with `openssl dgst -sha256 -hmac` over the three lines, as docs/login.md shows.
    let documentation = include_str!("../../docs/login.md");
    let url = told("app.example.com", "/reports?year=2026&x=%2F").unwrap();
    let (rest, signature) = url.rsplit_once("&signature=").unwrap();
    assert_eq!(
        rest,
        "https://app.example.com/login?return_to=https%3A%2F%2Fapp%2Eexample%2Ecom%2Freports\
         %3Fyear%3D2026%26x%3D%252F&expires=1800000600"
    );
    assert!(documentation.contains(&format!("signature={signature}")), "{url}");
}

#[test]
fn only_a_configured_host_is_returned_to() {
    for host in ["app.example.com", "APP.example.com", "a.b.example.com", "app.example.com:443"] {
        let url = told(host, "/").unwrap();
        let host = host.to_ascii_lowercase().replace(":443", "").replace('.', "%2E");
        assert!(url.contains(&format!("return_to=https%3A%2F%2F{host}%2F&")), "{url}");
    }
    for host in [
        "example.com",
        "evilexample.com",
        "app.example.com.evil.org",
        "app.example.com:8443",
        "app.example.com:80",
        "app.example.com:443:443",
        "app.example.com.",
        ".example.com",
        "a..example.com",
        "user@app.example.com",
        "evil.org\\.example.com",
        "evil.org/.example.com",
        "evil.org?.example.com",
        "evil.org#.example.com",
        "app.example.com,app.example.com",
        "app.еxample.com",
        "a%2eexample.com",
        "[::1]",
        "a b.example.com",
    ] {
        assert_eq!(told(host, "/").as_deref(), Some(BARE), "{host}");
    }
}

#[test]
fn what_browsers_leave_raw_is_encoded_before_it_is_signed() {
    for (target, encoded) in [
        ("/a?q=x|y", "/a?q=x%7Cy"),
        ("/a?{%22k%22}", "/a?%7B%22k%22%7D"),
        ("/a?^`\\", "/a?%5E%60%5C"),
        ("/a|b{c}", "/a%7Cb%7Bc%7D"),
        ("/a?[x]=%7C&y=%", "/a?[x]=%7C&y=%"),
    ] {
        let url = Url::parse(&told("app.example.com", target).unwrap()).unwrap();
        let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["return_to"], format!("https://app.example.com{encoded}"), "{target}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let expires = query["expires"].parse().unwrap();
        assert_eq!(query["signature"], sign(&key, &query["return_to"], expires), "{target}");
    }
}

#[test]
fn a_target_that_could_lead_elsewhere_is_not_returned_to() {
    for target in [
        "//evil.org",
        "/\\evil.org",
        "\\\\evil.org",
        "https://evil.org/",
        "@evil.org",
        "evil",
        "*",
        "/a b",
        "/a#b",
        "/\u{e9}",
        "/a\tb",
        "/\"",
        "/<a>",
        "/a\\b?c",
        "/a?b\"c",
    ] {
        assert_eq!(told("app.example.com", target).as_deref(), Some(BARE), "{target}");
    }
    let long = format!("/{}", "a".repeat(4000));
    assert_eq!(told("app.example.com", &long).as_deref(), Some(BARE));
}

#[test]
fn nobody_is_sent_to_the_login_page_from_the_login_page() {
    assert_eq!(told("app.example.com", "/login"), None);
    assert_eq!(told("app.example.com", "/login?return_to=x"), None);
    assert!(told("other.example.com", "/login").is_some());
    assert!(told("app.example.com", "/login/help").is_some());
}

#[test]
fn what_a_stranger_tells_is_not_believed() {
    let lines = [
        ("accept", BROWSER),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-host", "app.example.com"),
        ("x-forwarded-uri", "/a"),
    ];
    assert_eq!(asked(&lines, Peer::Address([127, 0, 0, 1].into())).as_deref(), Some(BARE));
    assert_eq!(asked(&lines, Peer::Unix), None, "a POST is not a navigation that can be repeated");
    let aliases = [("accept", BROWSER), ("x_forwarded_host", "app.example.com"), ("x-original-uri", "/a")];
    assert_eq!(asked(&aliases, Peer::Unix).as_deref(), Some(BARE));
    let twice = [&lines[..1], &[("x-forwarded-method", "GET")], &lines[2..], &lines[2..]].concat();
    assert_eq!(asked(&twice, Peer::Unix).as_deref(), Some(BARE));
}

#[test]
fn only_a_browser_that_wants_a_page_is_sent() {
    let is = |lines: &[(&str, &str)]| asked(lines, Peer::Unix).is_some();
    let html = ("accept", BROWSER);
    for lines in [
        &[html][..],
        &[("accept", "*/*"), ("accept", "Text/HTML; q=0.1")],
        &[html, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        &[html, ("x-forwarded-method", "HEAD")],
    ] {
        assert!(is(lines), "{lines:?}");
    }
    for lines in [
        &[][..],
        &[("accept", "*/*")],
        &[("accept", "application/json")],
        &[("accept", "text/html;q=0")],
        &[("accept", "text/html;level=1; Q = 0.000, */*")],
        &[("accept", "text/htmlx")],
        &[html, ("x-requested-with", "XMLHttpRequest")],
        &[html, ("authorization", "Basic YTpi")],
        &[html, ("upgrade", "websocket")],
        &[html, ("sec-fetch-mode", "cors")],
        &[html, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        &[html, ("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "navigate")],
        &[html, ("x-forwarded-method", "PUT")],
        &[html, ("x-forwarded-method", "GET"), ("x-forwarded-method", "GET")],
    ] {
        assert!(!is(lines), "{lines:?}");
    }
}

#[test]
fn a_return_host_is_a_name_or_all_below_one_of_two_labels() {
    for good in ["localhost", "app.example.com", ".example.com", "xn--e1afmkfd.example"] {
        assert!(good.parse::<ReturnHost>().is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "*",
        "*.example.com",
        ".com",
        "App.example.com",
        "a:1",
        "a/",
        "a@b",
        "..example.com",
        "é.org",
    ] {
        assert!(bad.parse::<ReturnHost>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_is_told_the_answer_leads_to_the_login_page_and_back_to_a_configured_host(
        host in "([a-z@:/\\\\.#?%-]{0,8}|app)(\\.example\\.com|example\\.com)?(:443|:80|/|@evil)?",
        target in "[/\\\\@a-z:?#%.]{0,12}",
    ) {
        let Some(url) = told(&host, &target) else { return Ok(()) };
        let url = Url::parse(&url).unwrap();
        prop_assert_eq!(url.host_str(), Some("app.example.com"));
        prop_assert_eq!(url.path(), "/login");
        if let Some((_, back)) = url.query_pairs().find(|(name, _)| name == "return_to") {
            // What a browser would make of it, as the URL standard says.
            let back = Url::parse(&back).unwrap();
            let host = back.host_str().unwrap_or_default();
            prop_assert!(host == "app.example.com" || host.ends_with(".example.com"), "{back}");
            prop_assert!(back.scheme() == "https" && back.port().is_none(), "{back}");
            prop_assert!(back.username().is_empty(), "{back}");
        }
    }
}
