//! The requirements of a route hold, wherever they are written; and only two kinds of requests, both
//! configured, need no token.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::path::Path;
use std::process::Command;

use holdfast::clock::Clock;
use holdfast_devtenant::Tenant;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use support::service::{Running, issuer, request, tenant, value};
use support::{Holdfast, Reply, exchange, exchange_unix};
use tokio::net::TcpStream;

const EMAIL: &str = "alice@example.com";

/// Rules for the tests, on tokens that [`token`] makes: `read` is met, `write` is not.
const RULES: &str = r#"
[[rule]]
path_prefix = "/internal"
deny = true
[[rule]]
host = ["app.example", "*.cdn.example"]
path = "/robots.txt"
path_prefix = "/public"
public = true
[[rule]]
methods = ["DELETE", "PUT"]
require = { scope = "write" }
[[rule]]
path_prefix = "/reports"
require = { scope = ["audit", "read"], email_domain = "example.com", max_tier = "secondary" }
[[rule]]
path_prefix = "/admin"
require = { role = "admin" }
[[rule]]
require = {}
"#;

fn token(tenant: &Tenant) -> String {
    let mint = tenant.mint().subject("auth0|alice").email_direct(EMAIL).scope("read");
    mint.claim("https://ns/roles", json!(["staff"])).build().unwrap()
}

async fn served(auth: &str, more: &str) -> (Tenant, Running, String) {
    let tenant = tenant().await;
    let config = format!("{}{more}", issuer(&tenant, ""));
    let holdfast = Running::start_with_auth(auth, &config, Clock::system()).await;
    let token = token(&tenant);
    (tenant, holdfast, token)
}

async fn served_by_rules(more: &str) -> (Tenant, Running, String) {
    let how = if more.contains("forwarded = ") { "" } else { "forwarded = \"x-forwarded\"\n" };
    let auth = format!("requirements_from = \"rules\"\ntrusted_peers = [\"127.0.0.1\"]\n{how}{more}");
    // Where the client writes the host, no rule may depend on it.
    let hosts = "host = [\"app.example\", \"*.cdn.example\"]\n";
    let rules = if more.contains("x-original-url") { RULES.replace(hosts, "") } else { RULES.to_owned() };
    served(&auth, &format!("{rules}\n[headers]\n\"X-Plan\" = {{ claim = \"plan\", default = \"free\" }}\n"))
        .await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn forwarded(method: &str, host: &str, uri: &str) -> String {
    format!("X-Forwarded-Method: {method}\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Uri: {uri}\r\n")
}

/// Asserts that every identity header occurs once, with the anonymous value.
fn assert_anonymous(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    for (name, expected) in [
        ("x-user-email", "anonymous"),
        ("x-user-id", "anonymous"),
        ("x-auth-tier", "none"),
        ("x-auth-source", "none"),
        ("x-auth-age", "none"),
    ] {
        assert_eq!(value(reply, name), Some(expected), "{what}: {reply:?}");
    }
}

fn assert_alice(reply: &Reply, what: &str) {
    assert_eq!((reply.status, value(reply, "x-user-email")), (200, Some(EMAIL)), "{what}: {reply:?}");
    assert_eq!(value(reply, "x-auth-source"), Some("claims"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requirements_in_the_query_hold() {
    let (_tenant, holdfast, token) = served("", "").await;
    for (query, status) in [
        ("email=alice@example.com", 200),
        ("email=ALICE%40Example.COM", 200),
        ("email=bob@example.com", 403),
        ("email=bob@example.com&email=alice@example.com", 200),
        ("email=alice@example.com.evil.example", 403),
        ("email=alice", 500),
        ("scope=read&email=bob@example.com", 403),
        ("scope=write&scope=read&role=staff", 200),
        ("unknown=1", 500),
        ("scope=read&unknown=1", 500),
        ("unknown=1&scope=write", 500),
    ] {
        let reply = holdfast.ask_at(&format!("/auth?{query}"), &token).await;
        assert_eq!(reply.status, status, "{query}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requirements_in_a_header_hold_and_the_query_is_not_looked_at() {
    let (_tenant, holdfast, token) = served("requirements_from = \"header\"", "").await;
    for (lines, status) in [
        ("X-Holdfast-Require: scope=read\r\n", 200),
        ("x-holdfast-require: scope=write&scope=read&role=staff\r\n", 200),
        ("X-Holdfast-Require: scope=write\r\n", 403),
        ("X-Holdfast-Require: any\r\n", 200),
        ("X-Holdfast-Require: unknown=1\r\n", 500),
        ("X-Holdfast-Require: any&scope=read\r\n", 500),
        ("X-Holdfast-Require: scope=r\u{e9}ad\r\n", 500),
        ("", 500),
        ("X-Holdfast-Require:\r\n", 500),
        ("X-Holdfast-Require: &\r\n", 500),
        ("X-Holdfast-Require: any\r\nX-Holdfast-Require: any\r\n", 500),
        ("X-Holdfast-Require: scope=write\r\nX-Holdfast-Require: any\r\n", 500),
        ("X_Holdfast_Require: any\r\n", 500),
        ("X.Holdfast.Require: any\r\n", 500),
    ] {
        for path in ["/auth", "/auth?q=1&scope=none", "/auth/search?unknown"] {
            let reply = holdfast.raw(&request(path, &format!("{lines}{}", bearer(&token)))).await;
            assert_eq!(reply.status, status, "{path} {lines}: {reply:?}");
            assert_eq!(value(&reply, "x-user-email").is_some(), status == 200, "{path} {lines}");
            let reply = holdfast.raw(&request(path, lines)).await;
            assert!(matches!(reply.status, 401 | 500), "{path} {lines} without a token: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rule_that_fits_decides() {
    let (_tenant, holdfast, token) = served_by_rules("").await;
    for (method, host, uri, with, without) in [
        ("GET", "app.example", "/", 200, 401),
        ("GET", "app.example", "/x?/public", 200, 401),
        ("GET", "app.example", "/internal", 403, 403),
        ("GET", "app.example", "/internal/x", 403, 403),
        ("GET", "app.example", "/internals", 200, 401),
        ("GET", "app.example", "/public/x", 200, 200),
        ("POST", "APP.EXAMPLE:8443", "/public?x=1", 200, 200),
        ("GET", "a.cdn.example", "/robots.txt", 200, 200),
        ("GET", "cdn.example", "/robots.txt", 200, 401),
        ("GET", "app.example", "/publicity", 200, 401),
        ("GET", "app.example", "/Public", 200, 401),
        ("DELETE", "app.example", "/x", 403, 401),
        ("GET", "app.example", "/reports/1", 200, 401),
        ("GET", "app.example", "/admin", 403, 401),
        ("GET", "app.example", "/%61dmin", 403, 401),
        ("GET", "app.example", "/admin?scope=read", 403, 401),
    ] {
        let lines = forwarded(method, host, uri);
        // What is in the auth URL does not count.
        for path in ["/auth", "/auth?role=none", "/auth/public?x"] {
            let reply = holdfast.raw(&request(path, &format!("{lines}{}", bearer(&token)))).await;
            assert_eq!(reply.status, with, "{path}: {method} {host}{uri} with a token: {reply:?}");
            if with == 200 {
                assert_alice(&reply, uri);
            }
            let reply = holdfast.raw(&request(path, &lines)).await;
            assert_eq!(reply.status, without, "{path}: {method} {host}{uri} without a token: {reply:?}");
            if without == 200 {
                assert_anonymous(&reply, uri);
                assert_eq!(value(&reply, "x-plan"), Some("anonymous"));
            }
        }
    }
    assert_eq!(holdfast.answered("public").await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_path_never_shows_an_identity_that_was_not_verified() {
    let (tenant, holdfast, token) = served_by_rules("").await;
    let other = support::service::tenant().await;
    let lines = forwarded("GET", "app.example", "/public");
    let expired = tenant.mint().email_direct(EMAIL).expires_in(-600).build().unwrap();
    let forged = other.mint().email_direct(EMAIL).build().unwrap();
    let cut = token[..token.len() - 4].to_owned();
    let without_email = tenant.mint().build().unwrap();
    tenant.set_fault(holdfast_devtenant::Endpoint::Userinfo, holdfast_devtenant::Fault::Status(500));
    for (what, bad) in [
        ("expired", &expired),
        ("of another issuer", &forged),
        ("cut off", &cut),
        ("not a token", &"x".to_owned()),
        ("no email, and the issuer cannot tell", &without_email),
    ] {
        for _ in 0..2 {
            assert_anonymous(
                &holdfast.raw(&request("/auth", &format!("{lines}{}", bearer(bad)))).await,
                what,
            );
        }
    }
    for more in ["Authorization: Basic YTpi\r\n".to_owned(), bearer(&token) + &bearer(&token)] {
        assert_anonymous(&holdfast.raw(&request("/auth", &format!("{lines}{more}"))).await, &more);
    }
    let own = "X-User-Email: bob@example.com\r\nX-Auth-Source: claims\r\n";
    assert_anonymous(
        &holdfast.raw(&request("/auth", &format!("{lines}{own}"))).await,
        "the client's own headers",
    );
    assert_alice(
        &holdfast.raw(&request("/auth", &format!("{lines}{}", bearer(&token)))).await,
        "a good token",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anonymous_value_can_be_chosen() {
    let (_tenant, holdfast, _token) = served_by_rules("anonymous = \"-\"").await;
    let reply = holdfast.raw(&request("/auth", &forwarded("GET", "app.example", "/public"))).await;
    assert_eq!(
        (reply.status, value(&reply, "x-user-email"), value(&reply, "x-plan")),
        (200, Some("-"), Some("-"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_listed_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("auth.sock");
    for (trusted, tcp, unix) in
        [("\"unix\"", 403, 200), ("\"127.0.0.0/8\"", 200, 403), ("\"10.0.0.1\", \"::1\"", 403, 403)]
    {
        let auth = format!(
            "listen = [\"127.0.0.1:0\", \"unix:{}\"]\nrequirements_from = \"rules\"\ntrusted_peers = [{trusted}]\nforwarded = \"x-forwarded\"",
            socket.display()
        );
        let (_tenant, holdfast, token) = served(&auth, RULES).await;
        for uri in ["/public", "/"] {
            let ask = request("/auth", &(forwarded("GET", "app.example", uri) + &bearer(&token)));
            assert_eq!(holdfast.raw(&ask).await.status, tcp, "{trusted} {uri} over TCP");
            assert_eq!(
                exchange_unix(&socket, &ask).await.status,
                unix,
                "{trusted} {uri} over the unix socket"
            );
        }
        assert_eq!(
            holdfast.answered("untrusted_peer").await,
            [tcp, unix].iter().filter(|s| **s == 403).count() as u64 * 2
        );
        holdfast.service.drain().await;
    }
}

/// How each proxy describes the original request: setting, target, header lines.
fn told(how: &str, method: &str, host: &str, uri: &str) -> (String, String) {
    let target = "/auth".to_owned();
    match how {
        "x-forwarded" => (format!("GET {target}"), forwarded(method, host, uri)),
        "x-original" => (
            format!("GET {target}"),
            format!("X-Original-Method: {method}\r\nX-Original-Host: {host}\r\nX-Original-URI: {uri}\r\n"),
        ),
        "x-original-url" => (
            format!("GET {target}"),
            format!("X-Original-Method: {method}\r\nX-Original-URL: https://{host}{uri}\r\n"),
        ),
        "request" => (format!("{method} {target}{uri}"), format!("Host: {host}\r\n")),
        _ => panic!("{how}"),
    }
}

fn raw(line: &str, lines: &str) -> Vec<u8> {
    let host = if lines.starts_with("Host: ") { "" } else { "Host: auth\r\n" };
    format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{lines}\r\n").into_bytes()
}

const PROTOCOLS: [&str; 4] = ["x-forwarded", "x-original", "x-original-url", "request"];

#[tokio::test(flavor = "multi_thread")]
async fn each_protocol_tells_the_original_request_and_none_counts_for_another() {
    for configured in PROTOCOLS {
        let (_tenant, holdfast, token) = served_by_rules(&format!("forwarded = \"{configured}\"")).await;
        for told_by in PROTOCOLS {
            for (uri, with, without) in
                [("/public/x", 200, 200), ("/x?y", 200, 401), ("/admin", 403, 401), ("/internal", 403, 403)]
            {
                let (line, lines) = told(told_by, "GET", "app.example", uri);
                let status_without = holdfast.raw(&raw(&line, &lines)).await.status;
                let status_with = holdfast.raw(&raw(&line, &(lines + &bearer(&token)))).await.status;
                let expected = if told_by == configured { (with, without) } else { (403, 403) };
                assert_eq!((status_with, status_without), expected, "{configured}, told by {told_by}: {uri}");
            }
        }
        // The one that counts beside another that says otherwise.
        for other in PROTOCOLS.into_iter().filter(|other| ![configured, "request"].contains(other)) {
            let (line, lines) = told(configured, "GET", "app.example", "/admin");
            // `X-Original-Method` belongs to two of them; twice is not once.
            let (_, more) = told(other, "GET", "app.example", "/public");
            let reply = holdfast.raw(&raw(&line, &(lines + &more))).await;
            assert!(matches!(reply.status, 401 | 403), "{configured} beside {other}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_told_exactly_once_is_refused() {
    let (_tenant, holdfast, token) = served_by_rules("").await;
    let line = |name: &str, text: &str| format!("{name}: {text}\r\n");
    let (method, host, uri) = (
        line("X-Forwarded-Method", "GET"),
        line("X-Forwarded-Host", "app.example"),
        line("X-Forwarded-Uri", "/public"),
    );
    for (what, lines, reason) in [
        ("no method", format!("{host}{uri}"), "forwarded_missing"),
        ("no host", format!("{method}{uri}"), "forwarded_missing"),
        ("no path", format!("{method}{host}"), "forwarded_missing"),
        ("nothing", String::new(), "forwarded_missing"),
        ("an empty host", format!("{method}{uri}X-Forwarded-Host:\r\n"), "forwarded_missing"),
        ("two paths", format!("{method}{host}{uri}{uri}"), "forwarded_repeated"),
        ("two hosts", format!("{method}{host}{host}{uri}"), "forwarded_repeated"),
        ("two methods", format!("{method}{method}{host}{uri}"), "forwarded_repeated"),
        (
            "a list of hosts",
            format!("{method}{uri}{}", line("X-Forwarded-Host", "app.example, evil")),
            "bad_host",
        ),
        (
            "a host with a user",
            format!("{method}{uri}{}", line("X-Forwarded-Host", "app.example@evil")),
            "bad_host",
        ),
        (
            "a host with a path",
            format!("{method}{uri}{}", line("X-Forwarded-Host", "app.example/x")),
            "bad_host",
        ),
        (
            "a host with a dot behind",
            format!("{method}{uri}{}", line("X-Forwarded-Host", "app.example.")),
            "bad_host",
        ),
        ("a bad port", format!("{method}{uri}{}", line("X-Forwarded-Host", "app.example:x")), "bad_host"),
        (
            "a method in small letters",
            format!("{host}{uri}{}", line("X-Forwarded-Method", "get")),
            "bad_method",
        ),
        (
            "two methods on a line",
            format!("{host}{uri}{}", line("X-Forwarded-Method", "GET, PUT")),
            "bad_method",
        ),
        (
            "an underscore",
            format!("{method}{host}{}", line("X_Forwarded_Uri", "/public")),
            "forwarded_missing",
        ),
        ("dots", format!("{method}{host}{}", line("X.Forwarded.Uri", "/public")), "forwarded_missing"),
    ] {
        for more in [String::new(), bearer(&token)] {
            let before = holdfast.answered(reason).await;
            let reply = holdfast.raw(&request("/auth", &format!("{lines}{more}"))).await;
            assert_eq!(reply.status, 403, "{what}: {reply:?}");
            assert_eq!(value(&reply, "www-authenticate"), None, "{what}: no token would help");
            assert_eq!(holdfast.answered(reason).await - before, 1, "{what}: not counted as {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_passes_only_where_configured_and_only_as_one() {
    let preflight = "Origin: https://spa.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for how in PROTOCOLS {
        let auth = format!("preflight = \"allow\"\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"{how}\"");
        let (_tenant, holdfast, token) = served(&auth, "").await;
        let ask = async |method: &str, more: &str| {
            let (line, lines) = told(how, method, "app.example", "/x");
            holdfast.raw(&raw(&line, &format!("{lines}{more}"))).await
        };
        assert_anonymous(&ask("OPTIONS", preflight).await, how);
        assert_anonymous(
            &ask("OPTIONS", &format!("{preflight}{}", bearer(&token))).await,
            "nobody is looked at",
        );
        for (method, more) in [
            ("GET", preflight),
            ("HEAD", preflight),
            ("options", preflight),
            ("OPTIONS", ""),
            ("OPTIONS", "Origin: https://spa.example\r\n"),
            ("OPTIONS", "Access-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin:\r\nAccess-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin: a\r\nOrigin: b\r\nAccess-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin: a\r\nAccess_Control_Request_Method: PUT\r\n"),
            // As proxies write several lines.
            ("OPTIONS", "Origin: a, b\r\nAccess-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin: a,b\r\nAccess-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin: a b\r\nAccess-Control-Request-Method: PUT\r\n"),
            ("OPTIONS", "Origin: a\r\nAccess-Control-Request-Method: PUT, GET\r\n"),
        ] {
            assert_eq!(ask(method, more).await.status, 401, "{how}: {method} {more}");
        }
        if how != "request" {
            let line = "OPTIONS /auth";
            assert_eq!(
                holdfast.raw(&raw(line, preflight)).await.status,
                401,
                "{how}: the proxy's own method"
            );
        }
    }
    for auth in
        ["", "trusted_peers = [\"127.0.0.1\"]", "preflight = \"allow\"\ntrusted_peers = [\"10.0.0.1\"]"]
    {
        let auth = &format!("forwarded = \"x-forwarded\"\n{auth}");
        let (_tenant, holdfast, _token) = served(auth, "").await;
        let lines = forwarded("OPTIONS", "app.example", "/x") + preflight;
        for line in ["GET /auth", "OPTIONS /auth", "OPTIONS /auth/x"] {
            assert_eq!(holdfast.raw(&raw(line, &lines)).await.status, 401, "{auth:?}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_does_not_pass_where_nobody_does() {
    let (_tenant, holdfast, _token) = served_by_rules("preflight = \"allow\"").await;
    let preflight = "Origin: https://spa.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for (uri, status) in
        [("/admin", 200), ("/public", 200), ("/internal", 403), ("/public/../internal", 403), ("/a%2fb", 403)]
    {
        let reply =
            holdfast.raw(&request("/auth", &(forwarded("OPTIONS", "app.example", uri) + preflight))).await;
        assert_eq!(reply.status, status, "{uri}");
        if status == 200 {
            assert_anonymous(&reply, uri);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_new_rules_and_keeps_the_old_ones_if_the_new_are_bad() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    std::fs::write(&file, RULES).unwrap();
    let auth = format!(
        "requirements_from = \"rules\"\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\nrules_file = \"{}\"",
        file.display()
    );
    let (_tenant, holdfast, _token) = served(&auth, "").await;
    let ask = async |uri| holdfast.raw(&request("/auth", &forwarded("GET", "app.example", uri))).await.status;
    assert_eq!((ask("/public").await, ask("/open").await), (200, 401));
    std::fs::write(&file, "[[rule]]\npath = \"/open\"\npublic = true\n[[rule]]\nrequire = {}\n").unwrap();
    holdfast.service.reload().unwrap();
    assert_eq!((ask("/public").await, ask("/open").await), (401, 200));
    std::fs::write(&file, "[[rule]]\npath = \"/open\"\npublic = true\n").unwrap();
    let error = holdfast.service.reload().unwrap_err().to_string();
    assert!(error.contains("rules.toml:1: rule[0] = the last rule"), "{error}");
    assert_eq!((ask("/public").await, ask("/open").await), (401, 200));
}

/// Any client can have a wrong proxy ask, so it must not be able to fill the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_gets_wrong_is_logged_once_and_not_each_time() {
    let tenant = tenant().await;
    for (auth, rules, lines, status, logged) in [
        (
            "requirements_from = \"header\"",
            "",
            "X-Holdfast-Require: scop=read\r\n",
            500,
            "unknown requirement, scop; known are scope",
        ),
        ("requirements_from = \"header\"", "", "", 500, "not exactly one header with requirements"),
        ("requirements_from = \"rules\"", RULES, "", 403, "sent no x-forwarded-method"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[auth]\nlisten = [\"127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n{auth}\n[admin]\nlisten = \"127.0.0.1:0\"\n{}{rules}",
            issuer(&tenant, "")
        );
        let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        for _ in 0..50 {
            let stream = TcpStream::connect(holdfast.auth_tcp()).await.unwrap();
            let ask = request("/auth", &format!("{lines}{}", bearer(&token(&tenant))));
            assert_eq!(exchange(stream, &ask).await.status, status, "{logged}");
        }
        holdfast.told(logged).await;
        // A minute may end meanwhile, hardly two.
        let count = holdfast.log().matches(logged).count();
        assert!(count <= 2, "{count} lines for 50 requests");
    }
}

/// Every example of the page on routes is a configuration that `holdfast check` finds good.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_documentation_are_good() {
    let tenant = tenant().await;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/routes.md")).unwrap();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4, "the page has lost its examples");
    for example in examples {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("holdfast.toml");
        std::fs::write(&file, example).unwrap();
        let (url, audience) = (tenant.issuer(), tenant.audience().to_owned());
        let check = tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_holdfast"))
                .args(["check", "--issuer", &url, "--audience", &audience, "--config"])
                .arg(&file)
                .output()
                .unwrap()
        });
        let check = check.await.unwrap();
        let said = String::from_utf8_lossy(&check.stderr) + String::from_utf8_lossy(&check.stdout);
        assert!(check.status.success(), "{example}\n{said}");
    }
}

/// A header line that may or may not be what a rule needs.
fn line() -> impl Strategy<Value = String> {
    let names = vec![
        "X-Forwarded-Method",
        "X-Forwarded-Host",
        "X-Forwarded-Uri",
        "X-Original-Method",
        "X-Original-URI",
        "Origin",
        "Access-Control-Request-Method",
        "X_Forwarded_Uri",
        "X-Forwarded-Prefix",
        "Cookie",
        "Authorization",
        "X-User-Email",
        "X-Auth-Source",
        "User-Agent",
        "X-Holdfast-Require",
    ];
    let values = vec![
        "GET",
        "OPTIONS",
        "app.example",
        "/public",
        "/public/../admin",
        "/admin#/public",
        "/",
        "any",
        "Bearer a.b.c",
        "Bearer x",
        "alice@example.com",
        "claims",
        "",
        "kube-probe/1.29",
        "session=x",
        "https://spa.example",
    ];
    (
        select(names),
        prop_oneof![select(values).prop_map(str::to_owned), "[ -~]{0,20}", "[\u{80}-\u{ff}]{1,4}"],
    )
        .prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

/// Requests of a stranger: no token of the issuer in them.
fn strange_request() -> impl Strategy<Value = String> {
    let methods = select(vec!["GET", "OPTIONS", "HEAD", "POST", "PURGE"]);
    let paths = select(vec![
        "/auth",
        "/auth/",
        "/auth/public",
        "/auth?public=true",
        "/auth/healthz",
        "/auth//",
        "/auth?scope=read",
    ]);
    let lines = proptest::collection::vec(line(), 0..8);
    (methods, paths, any::<bool>(), lines).prop_map(|(method, path, told, lines)| {
        let told = if told { forwarded(method, "app.example", "/public") } else { String::new() };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{told}{}\r\n",
            lines.concat()
        )
    })
}

/// The invariant: a 200 implies a verified identity. With the two exceptions that can be configured: those
/// say nobody's name.
#[test]
fn a_200_without_a_good_token_is_nobodys_and_only_where_configured() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (closed, open) = runtime.block_on(async {
        (
            served("trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"", "").await,
            served_by_rules("preflight = \"allow\"").await,
        )
    });
    let seen_open = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in strange_request())| {
        let reply = runtime.block_on(closed.1.raw(text.as_bytes()));
        prop_assert!(matches!(reply.status, 400 | 401 | 500), "{} to {}", reply.status, text);
        let reply = runtime.block_on(open.1.raw(text.as_bytes()));
        if reply.status == 200 {
            assert_anonymous(&reply, &text);
            prop_assert_eq!(value(&reply, "x-plan"), Some("anonymous"));
            seen_open.set(seen_open.get() + 1);
        } else {
            prop_assert_eq!(value(&reply, "x-user-email"), None);
        }
    });
    assert!(seen_open.get() > 20, "the property was hardly put to the test: {}", seen_open.get());
}

/// The proxy may pass on any host that a client writes; an operator should check that.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_public_by_host_is_warned_of_at_start() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    for (host, warns) in [("host = \"cdn.example\"\n", true), ("", false)] {
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\nrequirements_from = \"rules\"\ntrusted_peers = \"127.0.0.1\"\n\
             forwarded = \"x-forwarded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}\
             [[rule]]\n{host}path_prefix = \"/static\"\npublic = true\n\
             [[rule]]\nhost = \"app.example\"\nrequire = {{ scope = \"read\" }}\n[[rule]]\nrequire = {{}}\n",
            issuer(&tenant, "")
        );
        let holdfast = Holdfast::start(directory.path(), &config, 1).await;
        let log = holdfast.log();
        assert_eq!(log.contains("some rules make requests public by host"), warns, "{log}");
    }
}
