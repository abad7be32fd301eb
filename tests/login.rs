//! Browsers are sent to the login page and programs are not: over HTTP, as proxies ask. The real ones are in
//! `tests/contract`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use holdfast_devtenant::{Endpoint, Fault, Tenant};
use support::Reply;
use support::service::{Running, held_clock, issuer, request, tenant, value};
use tempfile::TempDir;

const BROWSER: &str =
    "Accept: text/html,*/*;q=0.8\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
const BACK: &str =
    "https://app.example.com/login?return_to=https%3A%2F%2Fapp%2Eexample%2Ecom%2Fa%3Fb%3Dc&expires=";

struct Scene {
    tenant: Tenant,
    running: Running,
    _directory: TempDir,
}

impl Scene {
    /// A service with a cookie and a login page; further lines of `[auth]` and `[login]`.
    async fn set(auth: &str, login: &str) -> Self {
        let tenant = tenant().await;
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("login.secret");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "[credential]\ncookie = \"session\"\n[login]\nurl = \"https://app.example.com/login\"\n\
             return_hosts = [\"app.example.com\"]\nsecret_file = {secret:?}\n{login}\n{}",
            issuer(&tenant, "")
        );
        let how = if auth.contains("forwarded = ") { "" } else { "forwarded = \"x-forwarded\"\n" };
        let auth = format!("trusted_peers = [\"127.0.0.1\"]\n{how}{auth}");
        let running = Running::start_with_auth(&auth, &config, held_clock(&tenant)).await;
        Self { tenant, running, _directory: directory }
    }

    async fn ask(&self, lines: &str) -> Reply {
        self.running.raw(&request("/auth", lines)).await
    }
}

/// A request for `/a?b=c` as Traefik and Caddy describe it.
fn forwarded(lines: &str) -> String {
    format!(
        "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: app.example.com\r\n\
         X-Forwarded-Uri: /a?b=c\r\n{lines}"
    )
}

fn assert_redirected(reply: &Reply) {
    assert_eq!(reply.status, 302, "{reply:?}");
    assert!(value(reply, "location").unwrap().starts_with(BACK), "{reply:?}");
    assert_eq!(value(reply, "cache-control"), Some("no-store"));
    assert_eq!(value(reply, "content-length"), Some("0"));
    assert_eq!(value(reply, "www-authenticate"), None);
}

fn assert_challenged(reply: &Reply) {
    assert_eq!(reply.status, 401, "{reply:?}");
    assert!(value(reply, "www-authenticate").unwrap().starts_with("Bearer"));
    assert_eq!((value(reply, "location"), value(reply, "x-auth-login-url")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_without_a_good_credential_is_sent_to_the_login_page_and_a_program_is_not() {
    let scene = Scene::set("", "").await;
    assert_redirected(&scene.ask(&forwarded(BROWSER)).await);
    let expired = scene.tenant.mint().email_direct("alice@example.com").expires_in(-3600).build().unwrap();
    for cookie in ["session=e30.e30.e30", &format!("session={expired}")] {
        let with = |more: &str| forwarded(&format!("Cookie: {cookie}\r\n{more}"));
        assert_redirected(&scene.ask(&with(BROWSER)).await);
        assert_challenged(&scene.ask(&with("Accept: application/json\r\n")).await);
        assert_challenged(&scene.ask(&with("")).await);
    }
    let posted = forwarded(BROWSER).replace("Method: GET", "Method: POST");
    assert_challenged(&scene.ask(&posted).await);
    assert_challenged(&scene.ask(&forwarded(&format!("Authorization: Bearer {expired}\r\n{BROWSER}"))).await);
    assert_challenged(&scene.ask(&forwarded(BROWSER).replace("/a?b=c", "/login?x")).await);
    // It would come again after the login.
    for cookie in ["session=a; session=b", "session.1=b", "session=a\u{1f}"] {
        let reply = scene.ask(&forwarded(&format!("Cookie: {cookie}\r\n{BROWSER}"))).await;
        assert!(matches!(reply.status, 400 | 401), "{cookie}: {reply:?}");
        assert_eq!(value(&reply, "location"), None, "{cookie}");
    }
    let good = scene.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let reply = scene.ask(&forwarded(&format!("Cookie: session={good}\r\n{BROWSER}"))).await;
    assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("alice@example.com")));
    let (head, tail) = good.split_at(good.len() / 2);
    let reply =
        scene.ask(&forwarded(&format!("Cookie: session__1={tail}; session__0={head}\r\n{BROWSER}"))).await;
    assert_eq!(reply.status, 200, "a cookie in pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_and_a_cannot_tell_are_never_a_redirect() {
    let scene = Scene::set("undecided_status = 401", "").await;
    let good = scene.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let lines = forwarded(&format!("Cookie: session={good}\r\n{BROWSER}"));
    let reply = scene.running.raw(&request("/auth?scope=never-granted", &lines)).await;
    assert_eq!((reply.status, value(&reply, "location")), (403, None));
    scene.tenant.set_fault(Endpoint::All, Fault::Status(503));
    let unknown = scene.tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = scene.ask(&forwarded(&format!("Cookie: session={unknown}\r\n{BROWSER}"))).await;
    assert_eq!((reply.status, value(&reply, "location")), (401, None));
    assert!(value(&reply, "retry-after").is_some(), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_trusted_cannot_choose_where_the_login_leads_back_to() {
    let scene = Scene::set("", "").await;
    for (from, to) in
        [("app.example.com", "evil.example"), ("/a?b=c", "//evil.example"), ("/a?b=c", "/\\evil")]
    {
        let reply = scene.ask(&forwarded(BROWSER).replace(from, to)).await;
        assert_eq!(value(&reply, "location"), Some("https://app.example.com/login"), "{to}");
    }
    let tenant = tenant().await;
    let config = format!("[login]\nurl = \"https://app.example.com/login\"\n{}", issuer(&tenant, ""));
    let running = Running::start(&config, held_clock(&tenant)).await;
    let reply = running.raw(&request("/auth", &forwarded(BROWSER))).await;
    assert_eq!(value(&reply, "location"), Some("https://app.example.com/login"));
}
