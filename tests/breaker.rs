//! How an operator controls the breakers, by `holdfast breaker` and `POST /breaker`, and the effects on
//! users.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast_devtenant::{Endpoint, Fault, Tenant, User};
use serde_json::Value;
use support::service::{Running, assert_undecided, held_clock, issuer, request, tenant};
use support::{Holdfast, Reply, exchange, until};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn ask(holdfast: &Holdfast, token: &str) -> Reply {
    let request = request("/auth", &format!("Authorization: Bearer {token}\r\n"));
    exchange(TcpStream::connect(holdfast.auth_tcp()).await.unwrap(), &request).await
}

/// Runs `holdfast breaker` to its end: exit code, and what it said.
async fn breaker(admin: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command.args(["breaker", "--admin", admin]).args(arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

async fn post(running: &Running, kind: &str, body: &str) -> Reply {
    let request = format!(
        "POST /breaker HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {body}",
        body.len()
    );
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await
}

/// What `/status` says of the guard of `/userinfo`.
async fn userinfo(admin: std::net::SocketAddr) -> Value {
    let reply = exchange(TcpStream::connect(admin).await.unwrap(), &request("/status", "")).await;
    let status: Value = serde_json::from_str(&reply.body).unwrap();
    status["issuers"][0]["endpoints"]["userinfo"].clone()
}

/// Waits for a log line of a transition of `/userinfo`'s breaker with this reason.
async fn logged(holdfast: &Holdfast, what: &str, reason: &str) {
    until(&format!("{what}, reason {reason}"), async || {
        let log = holdfast.log();
        let is = |line: &&str| line.contains(what) && line.contains("userinfo") && line.contains(reason);
        log.lines().find(is).map(drop)
    })
    .await;
}

/// Different users, each with a token that names no email.
fn tokens(tenant: &Tenant, name: &str, count: usize) -> Vec<String> {
    let subject = |number| format!("auth0|{name}-{number}");
    (0..count)
        .map(|number| {
            tenant.add_user(User::new(subject(number)).email(format!("{name}-{number}@example.com")));
            tenant.mint().subject(subject(number)).build().unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_stops_all_calls_and_lets_them_leave_again() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let head = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let config = format!("{head}{}", issuer(&tenant, ""));
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let admin = holdfast.admin.to_string();
    let users = tokens(&tenant, "user", 3);
    assert_eq!(ask(&holdfast, &users[0]).await.status, 200);
    let status = userinfo(holdfast.admin).await;
    assert_eq!((&status["breaker"], &status["since"]), (&"closed".into(), &Value::Null), "{status}");

    let (code, said) = breaker(&admin, &["force-open", "--endpoint", "userinfo", "--for", "2h"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" userinfo: open, since 2") && said.contains(", reason forced;"), "{said}");
    assert!(!said.contains("jwks"), "only what was named: {said}");
    let status = userinfo(holdfast.admin).await;
    assert_eq!((&status["breaker"], &status["forced"]), (&"open".into(), &true.into()), "{status}");
    let date = |key: &str| humantime::parse_rfc3339(status[key].as_str().unwrap()).unwrap();
    let lasts = date("until").duration_since(date("since")).unwrap();
    assert!((7_195..=7_205).contains(&lasts.as_secs()), "{status}");
    logged(&holdfast, "breaker opened", "forced").await;
    assert_eq!(holdfast.log().matches("breaker opened").count(), 1, "{}", holdfast.log());

    tenant.reset_calls();
    assert_eq!(ask(&holdfast, &users[0]).await.status, 200, "who is known is served");
    assert_undecided(&ask(&holdfast, &users[1]).await, "nobody knows this one, and nobody is asked");
    assert_eq!(tenant.calls().userinfo, 0);

    let (code, said) = breaker(&admin, &["reset"]).await;
    assert_eq!((code, said.matches(": closed, since ").count()), (Some(0), 3), "{said}");
    logged(&holdfast, "breaker closed", "reset").await;
    assert_eq!(ask(&holdfast, &users[1]).await.status, 200);

    // Forced closed, it takes any number of failures.
    let (code, said) = breaker(&admin, &["force-closed"]).await;
    assert_eq!((code, said.matches("reason forced").count()), (Some(0), 3), "{said}");
    tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    for user in tokens(&tenant, "failing", 12) {
        assert_undecided(&ask(&holdfast, &user).await, "the issuer is not well");
    }
    assert_eq!(userinfo(holdfast.admin).await["breaker"], "closed");
    tenant.clear_faults();
    assert_eq!(ask(&holdfast, &users[2]).await.status, 200);
    assert_eq!(userinfo(holdfast.admin).await["forced"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forced_ends_by_itself() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let users = tokens(&tenant, "user", 2);
    tenant.reset_calls();

    let reply = post(&running, "application/json", r#"{"action": "force-open", "for": "90s"}"#).await;
    assert_eq!((reply.status, reply.body.matches("forced open for 1m 30s").count()), (200, 3), "{reply:?}");
    clock.advance(Duration::from_secs(89));
    assert_undecided(&running.ask(&users[0]).await, "one second before the end");
    assert_eq!(tenant.calls().userinfo, 0);
    clock.advance(Duration::from_secs(1));
    let status = userinfo(running.admin).await;
    assert_eq!((&status["breaker"], &status["forced"]), (&"half_open".into(), &false.into()), "{status}");
    assert_eq!(running.ask(&users[0]).await.status, 200, "the probe");

    let reply = post(&running, "application/json", r#"{"action": "force-closed"}"#).await;
    assert_eq!((reply.status, reply.body.matches("for 10m").count()), (200, 3), "{reply:?}");
    clock.advance(Duration::from_secs(599));
    assert_eq!(userinfo(running.admin).await["forced"], true);
    clock.advance(Duration::from_secs(1));
    tenant.set_fault(Endpoint::Userinfo, Fault::RateLimited { retry_after: None, reset: None });
    assert_undecided(&running.ask(&users[1]).await, "a 429 of the tenant opens it at once, as ever");
    let status = userinfo(running.admin).await;
    assert_eq!((&status["breaker"], &status["reason"]), (&"open".into(), &"rate_limited".into()), "{status}");
    assert_eq!(running.counted("holdfast_breaker_transitions_total{endpoint=\"userinfo\"", "").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_understood_changes_nothing() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    for (kind, body, status) in [
        ("text/plain", r#"{"action": "force-open"}"#, 415),
        // A page whose name an attacker leads to the loopback address may post what it likes, but not without
        // an origin.
        ("application/json\r\nOrigin: http://evil.example:9180", r#"{"action": "force-open"}"#, 403),
        ("application/json\r\nOrigin: null", r#"{"action": "force-open"}"#, 403),
        ("application/json", "", 400),
        ("application/json", "{}", 400),
        ("application/json", r#"{"action": "open"}"#, 400),
        ("application/json", r#"{"action": "force-open", "fore": "1h"}"#, 400),
        ("application/json", r#"{"action": "force-open", "for": "25h"}"#, 400),
        ("application/json", r#"{"action": "force-open", "for": "0s"}"#, 400),
        ("application/json", r#"{"action": "force-open", "for": "for ever"}"#, 400),
        ("application/json", r#"{"action": "reset", "for": "1h"}"#, 400),
        ("application/json", r#"{"action": "force-open", "issuer": "https://other.example.com/"}"#, 404),
        ("application/json", r#"{"action": "force-open", "endpoint": "token"}"#, 404),
    ] {
        let reply = post(&running, kind, body).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert_eq!(userinfo(running.admin).await["reason"], Value::Null, "{body}");
    }
    let admin = running.admin.to_string();
    let (code, said) = breaker(&admin, &["force-open", "--for", "2d"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("a duration from 1s to 24h"), "{said}");
    let (code, said) = breaker(&admin, &["status", "--issuer", "https://other.example.com/"]).await;
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = breaker(&admin, &["status"]).await;
    assert_eq!((code, said.matches(": closed; budget ").count()), (Some(0), 3), "{said}");
}
