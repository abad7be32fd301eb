//! Start, reload, stop, crash, and start again while the issuer is down.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod support;

use std::path::Path;

use holdfast_devtenant::{Endpoint, Fault, Options, Tenant};
use support::{Holdfast, exchange, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn config(tenant: &Tenant, data: Option<&Path>, more: &str) -> String {
    let data = data.map_or_else(String::new, |data| format!("[store]\npath = \"{}\"\n", data.display()));
    format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{data}[[issuer]]\nurl = \"{}\"\n\
         audience = [\"{}\"]\n{more}",
        tenant.issuer(),
        tenant.audience()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_an_outage_still_verifies_and_still_knows_everybody() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, Some(&data), "");
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let with_email = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let without_email = tenant.mint().build().unwrap();
    let opaque = tenant.mint().opaque().build().unwrap();
    for token in [&without_email, &opaque] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-auth-source"), ["userinfo"]);
    }
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());
    tenant.go_down().await;

    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    for (token, source) in [(&with_email, "claims"), (&without_email, "userinfo"), (&opaque, "userinfo")] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200, "{}", holdfast.log());
        assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
        assert_eq!(reply.header("x-auth-source"), [source]);
        assert_eq!(reply.header("x-auth-tier"), ["primary"]);
    }
    // Nobody knows this one, and nobody can be asked.
    let unknown = tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = holdfast.ask(&unknown).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after").len(), 1);
    let metrics = holdfast.admin("/metrics").await.body;
    assert!(metrics.contains(r#"holdfast_tier_hits_total{store="disk",tier="primary"} 2"#), "{metrics}");

    // Neither tokens nor addresses lie open in the data directory.
    let mut files = vec![data];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [without_email.as_bytes(), opaque.as_bytes(), b"alice@example.com"] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_an_outage_without_kept_keys_is_not_ready_until_the_issuer_is_back() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    tenant.set_fault(Endpoint::All, Fault::Status(503));
    let directory = tempfile::tempdir().unwrap();
    let holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await;
    assert_eq!(holdfast.admin("/readyz").await.status, 503);
    assert_eq!(holdfast.admin("/healthz").await.status, 200);
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 503);
    tenant.clear_faults();
    // The next token that needs the keys fetches them; nobody has to wait for the background.
    assert_eq!(holdfast.ask(&token).await.status, 200, "{}", holdfast.log());
    assert_eq!(holdfast.admin("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_one_data_directory_is_refused_and_harms_nothing() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, Some(&data), "");
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let second = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["serve", "--config"])
        .arg(directory.path().join("holdfast.toml"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains("another holdfast is running on") && said.contains("LOCK"), "{said}");
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_good_configuration_and_keeps_the_old_one_instead_of_a_bad_one() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let before = config(&tenant, None, "");
    let holdfast = Holdfast::start(directory.path(), &before, 1).await.ready().await;
    let token = tenant.mint().email_direct("alice@example.com").claim("plan", "gold").build().unwrap();
    assert!(holdfast.ask(&token).await.header("x-plan").is_empty());

    std::fs::write(&file, format!("{before}[headers]\n\"X-Plan\" = \"plan\"\n")).unwrap();
    holdfast.signal("HUP").await;
    until("the new header", async || (holdfast.ask(&token).await.header("x-plan") == ["gold"]).then_some(()))
        .await;

    std::fs::write(&file, format!("{before}[headers]\n\"X-Plan\" = \"plan\"\n[polizy]\n")).unwrap();
    holdfast.signal("HUP").await;
    until("the refusal in the log", async || {
        holdfast.log().contains("unknown key polizy; did you mean policy?").then_some(())
    })
    .await;
    assert_eq!(holdfast.ask(&token).await.header("x-plan"), ["gold"]);
    let metrics = holdfast.admin("/metrics").await.body;
    assert!(metrics.contains(r#"holdfast_config_reloads_total{result="ok"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"holdfast_config_reloads_total{result="refused"} 1"#), "{metrics}");
    assert_eq!(holdfast.admin("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_nothing_that_is_forced_and_asks_for_no_keys_before_it_is_time() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let before = config(&tenant, None, "");
    let holdfast = Holdfast::start(directory.path(), &before, 1).await.ready().await;
    let body = r#"{"action": "force-open", "for": "2h"}"#;
    let request = format!(
        "POST /breaker HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let stream = TcpStream::connect(holdfast.admin).await.unwrap();
    assert_eq!(exchange(stream, request.as_bytes()).await.status, 200);

    std::fs::write(&file, format!("{before}[breaker]\nopen_for = \"7s\"\n[budget]\nrate = 5\n")).unwrap();
    holdfast.signal("HUP").await;
    until("the reload", async || holdfast.log().contains("configuration reloaded").then_some(())).await;
    assert!(
        holdfast.log().contains(
            "[breaker] or [budget] changed in the configuration; that takes effect at the next start"
        ),
        "{}",
        holdfast.log()
    );
    let status: serde_json::Value = serde_json::from_str(&holdfast.admin("/status").await.body).unwrap();
    for endpoint in ["discovery", "jwks", "userinfo"] {
        let status = &status["issuers"][0]["endpoints"][endpoint];
        assert_eq!((&status["breaker"], &status["forced"]), (&"open".into(), &true.into()), "{status}");
        assert_eq!(status["budget"]["rate"], 4.0, "{status}");
    }
    let calls = tenant.calls();
    assert_eq!((calls.discovery, calls.jwks), (1, 1));
    // The new instance has begun to wait for its first fetch; it did not try in vain.
    assert!(holdfast.admin("/metrics").await.body.contains(r#"suppressed_total{reason="breaker_open"} 0"#));

    // An issuer that is gone leaves nothing behind: a breaker that reads open for ever would be one.
    let other = before.replace(&tenant.issuer(), "http://127.0.0.1:1/");
    std::fs::write(&file, other).unwrap();
    holdfast.signal("HUP").await;
    until("the other issuer alone", async || {
        let metrics = holdfast.admin("/metrics").await.body;
        (metrics.contains("http://127.0.0.1:1/") && !metrics.contains(&tenant.issuer())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_under_way_finish() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await.ready().await;
    tenant.set_fault(Endpoint::Userinfo, Fault::Slow(std::time::Duration::from_secs(1)));
    let token = tenant.mint().opaque().build().unwrap();
    let mut stream = TcpStream::connect(holdfast.auth_tcp()).await.unwrap();
    let request = format!("GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the call to the issuer", async || (tenant.calls().userinfo == 1).then_some(())).await;
    holdfast.signal("TERM").await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(holdfast.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_whether_the_issuer_answers() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let check = async || {
        let issuer = tenant.issuer();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["check", "--issuer", &issuer, "--audience", "https://api.example.com"])
            .output()
            .await
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check().await;
    assert_eq!(code, Some(0));
    assert!(said.contains("answers; keys: dev-rs-1"), "{said}");
    tenant.go_down().await;
    let (code, said) = check().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no connection to the issuer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_found_at_once_and_unknown_ones_are_asked_for_once() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await.ready().await;
    let old = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&old).await.status, 200);
    tenant.reset_calls();
    tenant.rotate_keys();
    let new = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&new).await.status, 200, "{}", holdfast.log());
    assert_eq!(tenant.calls().jwks, 1);
    let older = tenant.mint().subject("auth0|bob").email_direct("bob@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&older).await.status, 200);
    for number in 0..50 {
        let kid = format!("unheard-of-{number}");
        let token = tenant.mint().email_direct("alice@example.com").kid(Some(&kid)).build().unwrap();
        assert_eq!(holdfast.ask(&token).await.status, 401);
    }
    assert_eq!(tenant.calls().jwks, 1, "however many unknown kids there are, one fetch a minute");
}
