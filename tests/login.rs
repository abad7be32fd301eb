//! Browsers are sent to the login page and programs are not: over HTTP as each proxy asks, and with the real nginx.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_devtenant::{EchoBackend, Endpoint, Fault, Tenant};
use support::example::changed;
use support::service::{Running, held_clock, issuer, request, tenant, value};
use support::{Reply, exchange_unix, until};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

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

/// As Traefik and Caddy tell of a request for `/a?b=c`.
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

#[tokio::test(flavor = "multi_thread")]
async fn nginx_makes_a_redirect_for_browsers_and_leaves_programs_their_401() {
    let scene = Scene::set("forwarded = \"x-original\"", "answer = \"header\"").await;
    let backend = EchoBackend::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let nginx = Nginx::start(&scene.running.auth.to_string(), &backend).await;
    let ask = async |lines: &str| {
        let request =
            format!("GET /a?b=c HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{lines}\r\n");
        exchange_unix(&nginx.socket, request.as_bytes()).await
    };
    let reply = ask(BROWSER).await;
    assert_eq!(reply.status, 302, "{reply:?}");
    assert!(value(&reply, "location").unwrap().starts_with(BACK), "{reply:?}");
    assert_eq!(value(&reply, "cache-control"), Some("no-store"));
    // A client cannot tell nginx's story for it.
    let forged = "X-Original-Host: evil.example\r\nX-Original-URI: /evil\r\nX-Auth-Login-Url: https://evil.example\r\n";
    let reply = ask(&format!("{forged}{BROWSER}")).await;
    assert!(value(&reply, "location").unwrap().starts_with(BACK), "{reply:?}");
    for lines in ["", "Accept: application/json\r\n", "X-Requested-With: x\r\nAccept: text/html\r\n", forged]
    {
        assert_challenged(&ask(lines).await);
    }
    assert_eq!(backend.requests(), 0);
    let good = scene.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let reply = ask(&format!("Cookie: session={good}\r\n{BROWSER}")).await;
    assert!(reply.status == 200 && reply.body.contains("X-User-Email: alice@example.com"), "{reply:?}");
}

/// nginx with the files of `examples/nginx/`, changed as `docs/login.md` says.
struct Nginx {
    child: Child,
    socket: PathBuf,
    _directory: TempDir,
}

impl Nginx {
    async fn start(holdfast: &str, backend: &EchoBackend) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx");
        let mut text = std::fs::read_to_string(example.join("nginx.conf")).unwrap();
        for (from, to) in [
            ("127.0.0.1:8080", format!("unix:{}", path("other.sock"))),
            ("127.0.0.1:8081", format!("unix:{}", path("front.sock"))),
            ("127.0.0.1:4191", backend.address().to_string()),
            ("127.0.0.1:4180", holdfast.to_owned()),
            ("include snippets/ask.conf;", after("ask.conf", "ask-login.conf")),
            ("include snippets/protect.conf;", after("protect.conf", "protect-login.conf")),
            ("include snippets/undecided.conf;", after("undecided.conf", "login.conf")),
        ] {
            assert!(text.contains(from), "the example does not say {from:?}");
            text = changed(&text, from, &to);
        }
        std::fs::write(directory.path().join("nginx.conf"), text).unwrap();
        std::os::unix::fs::symlink(example.join("snippets"), directory.path().join("snippets")).unwrap();
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off;", "-p"])
            .arg(directory.path())
            .env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run nginx; was `make setup` run? {error}"));
        let socket = directory.path().join("front.sock");
        until("nginx listens", async || UnixStream::connect(&socket).await.ok()).await;
        Self { child, socket, _directory: directory }
    }
}

fn after(one: &str, other: &str) -> String {
    format!("include snippets/{one};\n            include snippets/{other};")
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // nginx goes before its directory does.
        let _ = self.child.start_kill();
    }
}
