//! Introspection of foreign tokens (RFC 7662), by an issuer that answers whatever a test wants: its refusals,
//! faults and lies. Auth0 has no introspection; tests/oidc_provider.rs asks a real provider.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use support::service::{Running, assert_undecided, request, value};
use support::{Holdfast, exchange, until};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const SECRET: &str = "s3cret: with+all %kinds&of=ä";
const REFUSED: (u16, &str) = (401, r#"{"error":"invalid_client","error_description":"wrong secret"}"#);

/// What the issuer answers, and what it was asked at its introspection endpoint.
struct Answers {
    metadata: Value,
    introspection: (u16, String),
    userinfo: (u16, String),
    asked: Vec<String>,
    userinfo_calls: usize,
    /// Whether introspection never answers.
    hangs: bool,
}

/// An issuer on a port of its own.
struct Provider {
    url: String,
    answers: Arc<Mutex<Answers>>,
    files: TempDir,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(Answers {
            metadata: json!({
                "issuer": url, "jwks_uri": format!("{url}jwks"),
                "userinfo_endpoint": format!("{url}userinfo"),
                "introspection_endpoint": format!("{url}introspect"),
            }),
            introspection: (200, r#"{"active":false}"#.to_owned()),
            userinfo: (500, String::new()),
            asked: Vec::new(),
            userinfo_calls: 0,
            hangs: false,
        }));
        let all = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, all.clone()));
            }
        });
        let files = tempfile::tempdir().unwrap();
        for (name, text) in [("client", format!("{SECRET}\n")), ("hs", "x".repeat(32))] {
            let file = files.path().join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { url, answers, files }
    }

    fn says(&self, (status, body): (u16, &str)) {
        self.answers.lock().unwrap().introspection = (status, body.to_owned());
    }

    /// The token is active, with these claims.
    fn accepts(&self, claims: Value) {
        let mut answer = json!({ "active": true, "sub": "alice", "email": "alice@example.com" });
        answer.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.says((200, &answer.to_string()));
    }

    fn asked(&self) -> usize {
        self.answers.lock().unwrap().asked.len()
    }

    fn config(&self, more: &str) -> String {
        let Self { url, files, .. } = self;
        let path = files.path().display();
        format!(
            "[[issuer]]\nurl = \"{url}\"\naudience = [\"https://api\"]\nalgorithms = [\"HS256\"]\n\
             secret_file = \"{path}/hs\"\n[issuer.introspection]\nclient_id = \"holdfast:1\"\n\
             client_secret_file = \"{path}/client\"\n[budget]\nwait = \"0s\"\n{more}"
        )
    }

    async fn running(&self, clock: &Clock) -> Running {
        Running::start(&self.config(""), clock.clone()).await
    }
}

async fn serve(stream: TcpStream, answers: Arc<Mutex<Answers>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let before = head.len();
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = head[before..].to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        if answers.lock().unwrap().hangs {
            return std::future::pending().await;
        }
        let (status, body) = {
            let mut answers = answers.lock().unwrap();
            match head.split(' ').nth(1).unwrap() {
                "/introspect" => {
                    assert!(head.starts_with("POST "), "{head}");
                    answers.asked.push(head.clone() + &String::from_utf8(body).unwrap());
                    answers.introspection.clone()
                }
                "/userinfo" => {
                    answers.userinfo_calls += 1;
                    answers.userinfo.clone()
                }
                _ => (200, answers.metadata.to_string()),
            }
        };
        let challenge = if status == 401 { "WWW-Authenticate: Basic realm=\"x\"\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 {status} x\r\n{challenge}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn held() -> Clock {
    Clock::held_at(Timestamp::from_secs(NOW))
}

async fn order(running: &Running, path: &str, body: &Value) -> u16 {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_token_is_asked_about_once_with_the_credentials_of_the_client() {
    let (provider, clock) = (Provider::start().await, held());
    provider
        .accepts(json!({ "aud": "https://api", "scope": "read", "exp": NOW + 600, "token_type": "Bearer" }));
    let running = provider.running(&clock).await;
    for _ in 0..3 {
        let reply = running.ask_at("/auth?audience=checked&scope=read", "opaque+token").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(value(&reply, "x-user-id"), Some("alice"));
        assert_eq!(value(&reply, "x-user-email"), Some("alice@example.com"));
        assert_eq!(value(&reply, "x-auth-source"), Some("userinfo"));
    }
    assert_eq!(running.ask_at("/auth?scope=write", "opaque+token").await.status, 403);
    let asked = provider.answers.lock().unwrap().asked.clone();
    assert_eq!(asked.len(), 1);
    let credentials = STANDARD.encode("holdfast%3A1:s3cret%3A%20with%2Ball%20%25kinds%26of%3D%C3%A4");
    assert!(asked[0].contains(&format!("uthorization: Basic {credentials}\r\n")), "{asked:?}");
    assert!(asked[0].ends_with("\r\n\r\ntoken=opaque%2Btoken&token_type_hint=access_token"), "{asked:?}");
    assert_eq!(provider.answers.lock().unwrap().userinfo_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_takes_credentials_only_in_the_form_gets_them_there() {
    let (provider, clock) = (Provider::start().await, held());
    provider.answers.lock().unwrap().metadata["introspection_endpoint_auth_methods_supported"] =
        json!(["client_secret_post"]);
    provider.accepts(json!({}));
    let running = provider.running(&clock).await;
    assert_eq!(running.ask("opaque").await.status, 200);
    let asked = provider.answers.lock().unwrap().asked[0].clone();
    let secret = "client_secret=s3cret%3A%20with%2Ball%20%25kinds%26of%3D%C3%A4";
    assert!(asked.contains("&client_id=holdfast%3A1&") && asked.ends_with(secret), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization:"), "{asked}");
    // The answer names no audience, so none was checked.
    assert_eq!(running.ask_at("/auth?audience=checked", "opaque").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_says_decides_and_what_it_does_not_clearly_say_is_no_answer() {
    let (provider, clock) = (Provider::start().await, held());
    let running = provider.running(&clock).await;
    let huge = format!(r#"{{"active":true,"sub":"alice","x":"{}"}}"#, "x".repeat(70_000));
    let expired = format!(r#"{{"active":true,"sub":"alice","exp":{NOW}}}"#);
    for (number, (answer, status)) in [
        ((200, r#"{"active":false}"#), 401),
        ((200, r#"{"active":true,"sub":"alice","email":"a@b.c"}"#), 200),
        ((200, r#"{"active":"true","sub":"alice","email":"a@b.c"}"#), 503),
        ((200, r#"{"sub":"alice","email":"a@b.c"}"#), 503),
        ((200, r#"{"active":true,"active":true,"sub":"alice","email":"a@b.c"}"#), 503),
        ((200, r#"{"active":true,"email":"a@b.c"}"#), 401),
        ((200, r#"{"active":true,"sub":"alice","email":"a@b.c","iss":"https://evil/"}"#), 401),
        ((200, r#"{"active":true,"sub":"alice","email":"a@b.c","aud":"https://other"}"#), 401),
        ((200, r#"{"active":true,"sub":"alice","email":"a@b.c","cnf":{"x5t#S256":"x"}}"#), 401),
        ((200, expired.as_str()), 401),
        ((200, huge.as_str()), 503),
        ((200, "<html>login</html>"), 503),
        ((204, ""), 503),
        ((302, ""), 503),
        ((400, r#"{"error":"invalid_request"}"#), 503),
        ((403, "<html>blocked</html>"), 503),
        ((429, ""), 503),
        ((500, ""), 503),
        ((502, ""), 503),
    ]
    .into_iter()
    .enumerate()
    {
        provider.says(answer);
        let reply = running.ask(&format!("opaque{number}")).await;
        assert_eq!(reply.status, status, "{answer:?}: {reply:?}");
        clock.advance(Duration::from_secs(300));
    }
    // A token that is bound to a key needs a proof.
    provider.accepts(json!({ "token_type": "DPoP", "cnf": { "jkt": "A".repeat(43) } }));
    assert_eq!(running.ask("bound").await.status, 401);
    assert_eq!(running.answered("bound_as_bearer").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tier_serves_a_token_past_its_exp_and_a_known_end_costs_no_call() {
    let (provider, clock) = (Provider::start().await, held());
    provider.accepts(json!({ "exp": NOW + 60 }));
    let running = provider.running(&clock).await;
    assert_eq!(running.ask("opaque").await.status, 200);
    provider.says((503, ""));
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(running.ask("opaque").await.status, 200);
    clock.advance(Duration::from_millis(1));
    for _ in 0..2 {
        assert_eq!(running.ask("opaque").await.status, 401);
    }
    assert_eq!(running.answered("expired").await, 2);
    assert_eq!(provider.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_longer_active_is_refused_from_the_next_look_on() {
    let (provider, clock) = (Provider::start().await, held());
    provider.accepts(json!({}));
    let running = provider.running(&clock).await;
    assert_eq!(running.ask("opaque").await.status, 200);
    provider.says((200, r#"{"active":false}"#));
    clock.advance(HOUR * 7);
    until("the background look has found it", async || {
        (running.ask("opaque").await.status == 401).then_some(())
    })
    .await;
    provider.says((503, ""));
    clock.advance(HOUR);
    assert_undecided(&running.ask("opaque").await, "its record is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_introspection_is_bridged_as_one_of_userinfo_is_and_the_breaker_is_its_own() {
    let (provider, clock) = (Provider::start().await, held());
    provider.accepts(json!({}));
    let running = provider.running(&clock).await;
    assert_eq!(running.ask("opaque").await.status, 200);
    provider.says((503, ""));
    clock.advance(HOUR * 13);
    let reply = running.ask("opaque").await;
    assert_eq!((reply.status, value(&reply, "x-auth-tier")), (200, Some("emergency")), "{reply:?}");
    assert_undecided(&running.ask("never-seen").await, "nothing is known of it");
    clock.advance(HOUR * 36);
    assert_undecided(&running.ask("opaque").await, "past verdict_ceiling");
    let calls = |endpoint: &str| {
        let label = format!("endpoint=\"{endpoint}\"");
        let running = &running;
        async move { running.counted("holdfast_upstream_requests_total{", &label).await }
    };
    assert_eq!(calls("introspection").await, provider.asked() as u64);
    assert_eq!(calls("userinfo").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_introspection_endpoint_opens_its_breaker_and_known_tokens_pass() {
    let (provider, clock) = (Provider::start().await, held());
    provider.accepts(json!({}));
    let running = Arc::new(provider.running(&clock).await);
    assert_eq!(running.ask("opaque").await.status, 200);
    provider.answers.lock().unwrap().hangs = true;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..10 {
        let running = running.clone();
        asking.spawn(async move { running.ask(&format!("new{number}")).await });
    }
    for reply in asking.join_all().await {
        assert_undecided(&reply, "no answer in time");
    }
    assert_eq!(running.answered("timeout").await, 10);
    assert_undecided(&running.ask("another").await, "without a call");
    assert_eq!(running.answered("breaker_open").await, 1);
    clock.advance(HOUR * 13);
    assert_eq!(running.ask("opaque").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_no_answer_open_the_breaker_and_a_known_token_passes_on() {
    let (provider, clock) = (Provider::start().await, held());
    provider.accepts(json!({}));
    let running = provider.running(&clock).await;
    assert_eq!(running.ask("opaque").await.status, 200);
    for refused in [REFUSED, (400, REFUSED.1), (403, r#"{"error":"unauthorized_client"}"#)] {
        provider.says(refused);
        clock.advance(HOUR);
        assert_undecided(&running.ask(&format!("new-{}", refused.0)).await, "our own fault");
    }
    assert_eq!(running.answered("client_refused").await, 3);
    clock.advance(HOUR * 10);
    assert_eq!(running.ask("opaque").await.status, 200);
    for number in 0..40 {
        assert_undecided(&running.ask(&format!("many{number}")).await, "our own fault");
    }
    let open = running.counted("holdfast_breaker_state{", "endpoint=\"introspection\"").await;
    assert_eq!(open, 1, "one state at a time");
    let label = "endpoint=\"introspection\",issuer";
    let page = exchange(TcpStream::connect(running.admin).await.unwrap(), &request("/metrics", "")).await;
    let lines: Vec<_> =
        page.body.lines().filter(|line| line.contains(label) && line.ends_with(" 1")).collect();
    assert!(lines.iter().any(|line| line.contains("state=\"open\"")), "{lines:?}");
    assert!(provider.asked() < 40, "{}", provider.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_a_session_and_a_token_can_be_revoked_and_iat_tells_which_came_before() {
    let (provider, clock) = (Provider::start().await, held());
    let running = provider.running(&clock).await;
    let mut now = NOW;
    for (kind, revoked) in [("subject", "alice"), ("session", "s1"), ("token", "token1")] {
        let what = json!({ kind: revoked });
        provider.accepts(json!({ "sid": "s1", "iat": now }));
        let token = format!("{kind}1");
        assert_eq!(running.ask(&token).await.status, 200, "{what}");
        assert_eq!(order(&running, "/revoke", &what).await, 200, "{what}");
        assert_eq!(running.ask(&token).await.status, 401, "{what}");
        clock.advance(Duration::from_secs(10));
        now += 10;
        // It was issued before the revocation, although it is seen only now.
        let late = if kind == "token" { 200 } else { 401 };
        assert_eq!(running.ask(&format!("{kind}2")).await.status, late, "{what}");
        provider.accepts(json!({ "sid": "s1", "iat": now }));
        assert_eq!(running.ask(&format!("{kind}3")).await.status, 200, "{what}");
        assert_eq!(order(&running, "/unrevoke", &what).await, 200, "{what}");
    }
    assert_eq!(running.answered("revoked").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_email_that_introspection_does_not_name_comes_from_userinfo_for_the_same_subject() {
    let (provider, clock) = (Provider::start().await, held());
    let active =
        |scope: &str| format!(r#"{{"active":true,"sub":"alice","scope":"{scope}","aud":"https://api"}}"#);
    let userinfo = |status, body: &str| {
        provider.answers.lock().unwrap().userinfo = (status, body.to_owned());
    };
    let headers = "[headers]\n\"X-User-Email\" = { claim = \"email\", default = \"-\" }\n";
    let running = Running::start(&provider.config(headers), clock.clone()).await;
    for (token, scope, (status, body), expected) in [
        (
            "a",
            "openid",
            (200, r#"{"sub":"alice","email":"alice@example.com"}"#),
            (200, Some("alice@example.com")),
        ),
        ("b", "openid", (200, r#"{"sub":"bob","email":"bob@example.com"}"#), (503, None)),
        ("c", "openid", (401, r#"{"error":"invalid_token"}"#), (200, Some("-"))),
        ("d", "openid", (503, ""), (503, None)),
        ("e", "read", (503, ""), (200, Some("-"))),
    ] {
        provider.says((200, &active(scope)));
        userinfo(status, body);
        clock.advance(HOUR);
        let reply = running.ask_at("/auth?audience=checked&claim=/sub:alice", token).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), expected, "{token}: {reply:?}");
    }
    assert_eq!(provider.answers.lock().unwrap().userinfo_calls, 4);
    // A claim of the token that only has the name under which the answer of `/userinfo` is kept.
    provider.accepts(json!({ "email": null, "scope": "read", "userinfo": { "email": "root@example.com" } }));
    let reply = running.ask_at("/auth?claim=/sub:alice", "f").await;
    assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("-")), "{reply:?}");
    let reply = running.ask_at("/auth?claim=/userinfo/email:root@example.com", "f").await;
    assert_eq!(reply.status, 403, "{reply:?}");
}

async fn check(directory: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output =
        command.args(["check", "--config", "holdfast.toml"]).current_dir(directory).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// The whole binary, since its log and its output are what people read.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_said_once_in_the_log_and_by_check_and_the_secret_never() {
    let provider = Provider::start().await;
    let directory = tempfile::tempdir().unwrap();
    let listen =
        "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\n";
    let holdfast =
        Holdfast::start(directory.path(), &format!("{listen}{}", provider.config("")), 1).await.ready().await;
    let (good, said) = check(directory.path()).await;
    assert!(good && said.contains("introspection: answers"), "{said}");

    provider.says(REFUSED);
    for number in 0..3 {
        assert_undecided(&holdfast.ask(&format!("opaque{number}")).await, "our own fault");
    }
    let told = holdfast.told("client credentials").await;
    assert!(told.contains("ERROR") && told.contains("client_secret_file"), "{told}");
    let (good, said) = check(directory.path()).await;
    assert!(!good && said.contains("refuses holdfast's own client credentials (status 401)"), "{said}");
    holdfast.signal("TERM").await;
    let log = holdfast.log();
    let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains("client credentials"));
    assert_eq!(errors.count(), 1, "{log}");
    assert!(log.contains("foreign tokens are asked about by introspection"), "{log}");
    for text in [&log, &said] {
        for secret in ["s3cret", "czNjcmV0", "opaque0"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }

    let secret = provider.files.path().join("client");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (good, said) = check(directory.path()).await;
    assert!(!good && said.contains("introspection.client_secret_file") && said.contains("644"), "{said}");
    provider.answers.lock().unwrap().metadata.as_object_mut().unwrap().remove("introspection_endpoint");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (good, said) = check(directory.path()).await;
    assert!(!good && said.contains("names no introspection_endpoint"), "{said}");
}
