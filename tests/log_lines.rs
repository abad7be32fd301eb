//! Log lines about refused requests: they name the request, and contain no data of users.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast_devtenant::{Options, Tenant};
use support::service::request;
use support::{Holdfast, Reply, exchange};
use tempfile::TempDir;
use tokio::net::TcpStream;

struct Scene {
    tenant: Tenant,
    holdfast: Holdfast,
    token: String,
    _directory: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[credential]\ncookie = \"session\"\n\
             [[issuer]]\nurl = {:?}\naudience = [{:?}]\n",
            tenant.issuer(),
            tenant.audience()
        );
        let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        let token = tenant.mint().email_direct("alice@example.com").scope("read").build().unwrap();
        Self { tenant, holdfast, token, _directory: directory }
    }

    async fn ask(&self, query: &str, lines: &str) -> Reply {
        let stream = TcpStream::connect(self.holdfast.auth_tcp()).await.unwrap();
        exchange(stream, &request(&format!("/auth{query}"), lines)).await
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// The one line that holds these words, once it is there.
    async fn line(&self, words: &str) -> String {
        let line = self.holdfast.told(words).await;
        assert_eq!(self.holdfast.log().matches(words).count(), 1, "{}", self.holdfast.log());
        line
    }

    /// Nothing in the log is a token or a user's.
    fn assert_nothing_is_told(&self) {
        let log = self.holdfast.log();
        for part in self.token.split('.') {
            assert!(!log.contains(&part[..16]), "a part of the token is told: {log}");
        }
        assert!(!log.contains("alice") && !log.contains("auth0|"), "a user is told: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_names_the_token_the_request_and_the_requirement_with_its_value_once_a_minute() {
    let scene = Scene::new().await;
    let lines = format!("{}X-Request-Id: 7f-abc.1\r\n", scene.bearer());
    for _ in 0..5 {
        assert_eq!(scene.ask("?scope=admin&scope=write", &lines).await.status, 403);
    }
    let line = scene.line("a valid token does not suffice").await;
    for part in ["TokenDigest(", "7f-abc.1", "another scope: scope=admin or write", "INFO"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    scene.assert_nothing_is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_over_an_address_does_not_tell_the_address() {
    let scene = Scene::new().await;
    let lines = format!("{}X-Request-Id: bob@example.com\r\n", scene.bearer());
    assert_eq!(scene.ask("?email=bob@example.com", &lines).await.status, 403);
    let line = scene.line("a valid token does not suffice").await;
    assert!(line.contains("email=(an address)") && line.contains("(not shown)"), "{line}");
    assert!(!scene.holdfast.log().contains("bob"), "{}", scene.holdfast.log());
    scene.assert_nothing_is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_requirement_is_named_and_a_token_in_its_place_is_not() {
    let scene = Scene::new().await;
    let lines = format!("{}X-Request-Id: r1\r\n", scene.bearer());
    assert_eq!(scene.ask("?permision=orders:write", &lines).await.status, 500);
    let line = scene.line("wrong requirements").await;
    for part in ["unknown requirement, permision;", "known are scope, ", "r1"] {
        assert!(line.contains(part), "{part}: {line}");
    }

    let scene = Scene::new().await;
    assert_eq!(scene.ask("?max_tier=primry", &scene.bearer()).await.status, 500);
    let line = scene.line("wrong requirements").await;
    assert!(line.contains("max_tier=primry"), "{line}");

    let scene = Scene::new().await;
    assert_eq!(scene.ask(&format!("?{}", scene.token), &scene.bearer()).await.status, 500);
    let line = scene.line("wrong requirements").await;
    assert!(line.contains(&format!("({} bytes)", scene.token.len())), "{line}");
    scene.assert_nothing_is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_that_could_steer_the_log_or_hold_a_token_is_not_shown() {
    for id in ["a b", "x=\u{1b}[2J", &"a".repeat(65), "eyJhbGciOiJSUzI1NiJ9", "1\r\nX-Request-Id: 2"] {
        let scene = Scene::new().await;
        let lines = format!("{}X-Request-Id: {id}\r\n", scene.bearer());
        let status = scene.ask("?scope=admin", &lines).await.status;
        if status == 403 {
            let line = scene.line("a valid token does not suffice").await;
            assert!(line.contains("(not shown)"), "{id:?}: {line}");
        } else {
            assert_eq!(status, 400, "{id:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_that_differ_are_refused_with_the_reason_once_a_minute_and_equal_ones_pass() {
    let scene = Scene::new().await;
    let (token, expired) = (&scene.token, scene.tenant.mint().expires_in(-3600).build().unwrap());
    for cookie in [
        format!("session={token}; session={token}"),
        format!("session=; session={token}"),
        format!("session={token}\r\nCookie: session="),
    ] {
        assert_eq!(scene.ask("", &format!("Cookie: {cookie}\r\n")).await.status, 200, "{cookie}");
    }
    assert!(!scene.holdfast.log().contains("a request is refused"));
    for _ in 0..3 {
        let reply = scene.ask("", &format!("Cookie: session={token}; session={expired}\r\n")).await;
        assert_eq!(reply.status, 401);
        assert!(reply.header("www-authenticate")[0].contains("More than one credential"), "{reply:?}");
    }
    let line = scene.line("a request is refused").await;
    assert!(line.contains("INFO") && line.contains("several_credentials"), "{line}");
    assert!(line.contains("the request carries the cookie more than once, with different values"), "{line}");
    scene.assert_nothing_is_told();
}
