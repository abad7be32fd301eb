//! The status page: what it is served with, what its events say, and what a person sees in a real browser
//! (Chromium) during an outage.
//!
//! `scripts/setup.sh test` installs Chromium and the npm packages. Without them the browser's tests say that
//! they test nothing; in CI they fail. `HOLDFAST_SCREENSHOTS` (a directory) is where pictures of the page are
//! written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "support/drill.rs"]
mod drill;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use drill::{DAY, HOUR, Stage};
use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use serde_json::{Value, json};
use support::node::{Node, is_there, packages};
use support::service::{Running, issuer, request, tenant, value};
use support::{PATIENCE, Reply, exchange};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A breaker that opens at the second failure and probes at once.
const QUICK: &str = "[breaker]\nminimum_calls = 2\nopen_for = \"1s\"\nopen_for_max = \"1s\"\n";

async fn get(holdfast: &Running, path: &str) -> Reply {
    exchange(TcpStream::connect(holdfast.admin).await.unwrap(), &request(path, "")).await
}

async fn started() -> (Tenant, Running) {
    let tenant = tenant().await;
    let config = format!("{}{QUICK}", issuer(&tenant, ""));
    let holdfast = Running::start(&config, Clock::system()).await;
    (tenant, holdfast)
}

/// New users come, whose tokens have no email, until the issuer's `/userinfo` is not asked any more.
async fn until_the_breaker_opens(tenant: &Tenant, holdfast: &Running) {
    let before = holdfast.answered("breaker_open").await;
    for user in 0..100 {
        let token = tenant.mint().subject(format!("auth0|{before}-{user}")).build().unwrap();
        holdfast.ask(&token).await;
        if holdfast.answered("breaker_open").await > before {
            return;
        }
    }
    panic!("the breaker does not open: {}", get(holdfast, "/status").await.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_may_load_nothing_from_elsewhere_and_only_reads() {
    let (_tenant, holdfast) = started().await;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let reply = get(&holdfast, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(value(&reply, "content-type").unwrap().starts_with(kind), "{reply:?}");
        let policy = value(&reply, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        for (name, wanted) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(value(&reply, name), Some(wanted), "{path}");
        }
        for elsewhere in ["http:", "https:", "//cdn", "@import", "eval("] {
            let text = reply.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(elsewhere), "{path} has {elsewhere}");
        }
    }
    let page = get(&holdfast, "/").await.body;
    assert!(!page.contains("<form") && !page.contains("<button") && !page.contains(" style="), "{page}");
    for path in ["/", "/events"] {
        let foreign = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        let stream = TcpStream::connect(holdfast.admin).await.unwrap();
        assert_eq!(exchange(stream, foreign.as_bytes()).await.status, 421, "{path}");
    }
}

/// The next event of a stream of them.
async fn event(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut line = String::new();
    loop {
        line.clear();
        let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut line)).await.unwrap();
        // The last chunk of an answer is empty (RFC 9112 §7.1).
        if read.unwrap_or(0) == 0 || line == "0\r\n" {
            return None;
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

/// A connection that has asked for events; `None` if it is refused with a 503.
async fn events(holdfast: &Running) -> Option<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(holdfast.admin).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut status = String::new();
    tokio::time::timeout(PATIENCE, stream.read_line(&mut status)).await.unwrap().unwrap();
    assert!(["200", "503"].iter().any(|known| status.contains(known)), "{status}");
    status.contains("200").then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_what_happens() {
    let (tenant, holdfast) = started().await;
    let mut stream = events(&holdfast).await.unwrap();
    let first = event(&mut stream).await.unwrap();
    assert_eq!(first["findings"], json!([]), "{first}");
    tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    until_the_breaker_opens(&tenant, &holdfast).await;
    let finding = loop {
        let next = event(&mut stream).await.unwrap();
        if let Some(finding) = next["findings"].get(0) {
            break finding.clone();
        }
    };
    assert_eq!((finding["party"].as_str(), finding["kind"].as_str()), (Some("issuer"), Some("breaker")));
    assert!(finding["since"].is_string(), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_bounded_and_do_not_hold_up_a_stop() {
    let (_tenant, holdfast) = started().await;
    let mut open = Vec::new();
    while let Some(mut stream) = events(&holdfast).await {
        assert!(event(&mut stream).await.is_some());
        open.push(stream);
        assert!(open.len() <= 32, "no bound");
    }
    assert_eq!(open.len(), 32);
    drop(open.pop());
    support::until("the place of a closed page is free", async || events(&holdfast).await).await;
    holdfast.service.leave(std::future::pending()).await;
    for stream in &mut open {
        while event(stream).await.is_some() {}
    }
    let drained = tokio::time::timeout(PATIENCE, holdfast.service.drain()).await;
    assert!(drained.is_ok(), "open pages hold up the stop");
}

/// A browser on the status page.
struct Browser(Node);

impl Browser {
    /// `None` if it is not installed, which fails the test in CI.
    fn open(admin: SocketAddr) -> Option<Self> {
        let packages = packages("status_page", "playwright-core")?;
        let chromium = PathBuf::from("/usr/bin/chromium");
        let page = format!("http://{admin}/").into();
        let arguments = [packages, is_there(&chromium).then_some(chromium)?, page];
        Some(Self(Node::start("tests/status_page/browser.mjs", &arguments, 6 * PATIENCE)))
    }

    async fn command(&mut self, command: Value) -> Value {
        let answer = self.0.command(&command).await;
        assert!(answer["error"].is_null(), "{command}: {answer}");
        answer["answer"].clone()
    }

    async fn view(&mut self, width: u32, scheme: &str) {
        self.command(json!({ "view": { "width": width, "height": 900, "scheme": scheme } })).await;
    }

    async fn until(&mut self, sentence: &str) -> Value {
        self.command(json!({ "until": sentence })).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_whose_fault_an_outage_is_and_when_it_is_over() {
    let (tenant, holdfast) = started().await;
    let Some(mut browser) = Browser::open(holdfast.admin) else { return };
    browser.view(1280, "light").await;
    let well = browser.until("All is well.").await;
    assert_eq!((&well["party"], &well["connection"]), (&json!("none"), &json!("live")), "{well}");

    tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    until_the_breaker_opens(&tenant, &holdfast).await;
    let opened = Instant::now();
    let outage = browser.until("does not answer at userinfo").await;
    println!("the page says whose fault it is {:?} after the breaker opened", opened.elapsed());
    assert_eq!(outage["party"], "issuer", "{outage}");
    assert_eq!(outage["title"], "holdfast: the identity provider");
    let timeline = &outage["timelines"].as_array().unwrap()[2];
    assert!(timeline["label"].as_str().unwrap().starts_with("breaker of userinfo"), "{timeline}");
    assert!(timeline["states"].as_array().unwrap().contains(&json!("state-open")), "{timeline}");
    assert!(outage["text"].as_str().unwrap().contains("breaker_open"), "{outage}");

    tenant.clear_faults();
    browser.until("All is well.").await;

    let limited = Fault::RateLimited { retry_after: Some("60".to_owned()), reset: None };
    tenant.set_fault(Endpoint::Userinfo, limited);
    until_the_breaker_opens(&tenant, &holdfast).await;
    let limited = browser.until("limits our tenant (429) at userinfo").await;
    assert_eq!(limited["party"], "tenant_limit", "{limited}");

    let done = browser.command(json!({ "done": true })).await;
    let here = format!("http://{}/", holdfast.admin);
    for url in done["loaded"].as_array().unwrap() {
        assert!(url.as_str().unwrap().starts_with(&here) || url == "data:,", "the page loads {url}");
    }
    assert_eq!(done["errors"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_the_page_small_or_large_dark_or_light_and_by_keyboard() {
    let mut stage = Stage::set("status page").await;
    let admin = stage.service.admin_address().parse().unwrap();
    let Some(mut browser) = Browser::open(admin) else { return };
    let months_ago = stage.known_users("months-ago", 3).await;
    stage.advance(70 * DAY);
    let days_ago = stage.known_users("days-ago", 5).await;
    stage.advance(3 * DAY);
    let today = stage.known_users("today", 12).await;
    stage.advance(13 * HOUR);
    stage.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    for users in [&today, &days_ago, &months_ago] {
        assert_eq!(stage.ask_all(users).await.count(200), users.len());
    }
    assert!(stage.userinfo_is_open());
    stage.advance(20);
    stage.ask_all(&today).await;
    let pictures = std::env::var_os("HOLDFAST_SCREENSHOTS").map(PathBuf::from);
    for scheme in ["light", "dark"] {
        for width in [360, 1280] {
            browser.view(width, scheme).await;
            let seen = browser.until("does not answer at userinfo").await;
            let text = seen["text"].as_str().unwrap();
            for told in ["20 in the last ten minutes.", "the first of them is locked out"] {
                assert!(text.contains(told), "{text}");
            }
            assert!(seen["overflow"].as_i64().unwrap() <= 0, "{width}: the page scrolls sideways");
            let violations = browser.command(json!({ "axe": true })).await;
            assert_eq!(violations, json!([]), "{width} {scheme}");
            if let Some(directory) = &pictures {
                let file = directory.join(format!("status-page-{scheme}-{width}.png"));
                browser.command(json!({ "screenshot": file })).await;
            }
        }
    }
    let focused = browser.command(json!({ "keys": 5 })).await;
    assert_eq!(focused, json!(["budgets", "keys", "refusals", "fleet", "configuration"]));
}
