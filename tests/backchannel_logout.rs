//! OpenID Connect Back-Channel Logout 1.0: a user whom the issuer logged out is let in nowhere, whatever the
//! token's `exp`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::Tenant;
use serde_json::json;
use support::service::{Running, held_clock, issuer, tenant};
use support::{Reply, exchange, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ALICE: &str = "auth0|alice";
const SESSION: &str = "https://holdfast.example/session_id";
const CLIENT: &str = "GbXqTy2cClientId";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FORM: &str = "application/x-www-form-urlencoded";

async fn start() -> (Tenant, Running, Clock) {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    // Tokens say when they were issued, by the tenant's clock.
    tenant.set_time(Some(clock.now().as_secs()));
    let config = format!("[backchannel_logout]\naudience = [\"{CLIENT}\"]\n{}", issuer(&tenant, ""));
    let running = Running::start(&config, clock.clone()).await;
    (tenant, running, clock)
}

/// A logout token in Auth0's form, with this `jti`.
fn logout(tenant: &Tenant, jti: &str) -> holdfast_devtenant::TokenBuilder {
    let token = tenant.mint().subject(ALICE).audience(CLIENT).typ("JWT").expires_in(120);
    token
        .remove_claim("scope")
        .claim("sid", "s1")
        .claim("jti", jti)
        .claim("trace_id", "t")
        .claim("events", json!({ EVENT: {} }))
}

async fn post(running: &Running, kind: &str, body: &str) -> Reply {
    let request = format!(
        "POST /backchannel-logout HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(TcpStream::connect(running.auth).await.unwrap(), request.as_bytes()).await
}

async fn send(running: &Running, token: &str) -> u16 {
    let reply = post(running, FORM, &format!("logout_token={token}")).await;
    assert_eq!(reply.header("cache-control"), ["no-store"], "{reply:?}");
    reply.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_the_session_where_tokens_name_one_and_all_that_name_none() {
    let (tenant, running, clock) = start().await;
    let mint = |session: Option<&str>| {
        let token = tenant.mint().subject(ALICE).email_direct("a@x.org");
        match session {
            Some(session) => token.claim(SESSION, session),
            None => token,
        }
    };
    let [ended, other, none] = [Some("s1"), Some("s2"), None].map(|session| mint(session).build().unwrap());
    let opaque = tenant.mint().subject(ALICE).opaque().build().unwrap();
    let bob = tenant.mint().subject("auth0|bob").email_direct("b@x.org").build().unwrap();
    for token in [&ended, &other, &none, &opaque, &bob] {
        assert_eq!(running.ask(token).await.status, 200);
    }
    assert_eq!(send(&running, &logout(&tenant, "j1").build().unwrap()).await, 200);
    for (token, status) in [(&ended, 401), (&other, 200), (&none, 401), (&opaque, 401), (&bob, 200)] {
        assert_eq!(running.ask(token).await.status, status);
    }
    // An operator can take it back.
    for (path, body) in
        [("/unrevoke", json!({ "subject": ALICE })), ("/unrevoke", json!({ "session": "s1" }))]
    {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    for token in [&ended, &none, &opaque] {
        assert_eq!(running.ask(token).await.status, 200);
    }
    assert_eq!(send(&running, &logout(&tenant, "j1b").build().unwrap()).await, 200);
    assert_eq!(running.ask(&none).await.status, 401);
    // Who logs in again is let in.
    clock.advance(Duration::from_secs(1));
    tenant.set_time(Some(clock.now().as_secs()));
    assert_eq!(running.ask(&mint(None).claim("n", 2).build().unwrap()).await.status, 200);
    // Without a session it is everything that the subject has.
    let everything = logout(&tenant, "j2").remove_claim("sid").build().unwrap();
    assert_eq!(send(&running, &everything).await, 200);
    assert_eq!(running.ask(&other).await.status, 401);
    let counted = running.counted("holdfast_revocations_total{", "source=\"backchannel_logout\"").await;
    assert_eq!(counted, 5, "a session and a subject without one, twice, and a subject");
    assert_eq!(running.counted("holdfast_logout_requests_total{", "done").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_logout_token_of_ours_logs_nobody_out() {
    let (tenant, running, _) = start().await;
    let known = tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    assert_eq!(running.ask(&known).await.status, 200);
    let good = || logout(&tenant, "j");
    let build = |token: holdfast_devtenant::TokenBuilder| token.build().unwrap();
    for (what, token) in [
        ("an access token", known.clone()),
        ("an ID token", build(tenant.mint().subject(ALICE).audience(CLIENT).claim("nonce", "n"))),
        ("a nonce", build(good().claim("nonce", "n"))),
        ("another audience", build(good().audience(tenant.audience()))),
        ("another typ", build(good().typ("at+jwt"))),
        ("another event", build(good().claim("events", json!({ "urn:other": {} })))),
        ("no event", build(good().remove_claim("events"))),
        ("nobody", build(good().remove_claim("sub").remove_claim("sid"))),
        ("no jti", build(good().remove_claim("jti"))),
        ("no iat", build(good().remove_claim("iat"))),
        ("expired", build(good().expires_in(-60))),
        ("a stranger's", build(good().signed_by_stranger())),
        ("unsigned", build(good().unsigned())),
        ("another issuer's", build(good().issuer("https://evil.example/"))),
        ("opaque", "opaque".to_owned()),
        ("nothing", String::new()),
    ] {
        assert_eq!(send(&running, &token).await, 400, "{what}");
    }
    assert_eq!(running.ask(&known).await.status, 200);
    assert_eq!(running.counted("holdfast_revocations_total{", "").await, 0);
    // And a logout token is no access token.
    let logout = build(good().audiences([CLIENT.to_owned(), tenant.audience().to_owned()]));
    assert_eq!(running.ask(&logout).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_counts_once_and_its_repetition_changes_nothing() {
    let (tenant, running, clock) = start().await;
    let token = logout(&tenant, "j").build().unwrap();
    assert_eq!([send(&running, &token).await, send(&running, &token).await], [200, 400]);
    clock.advance(Duration::from_secs(2));
    tenant.set_time(Some(clock.now().as_secs()));
    let again = tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    running.service.reload().unwrap();
    assert_eq!(send(&running, &token).await, 200, "a reload does not know that it came before");
    assert_eq!(running.ask(&again).await.status, 200, "who logged in since is not logged out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_another_form_is_refused() {
    let (tenant, running, _) = start().await;
    let token = logout(&tenant, "j").build().unwrap();
    let field = format!("logout_token={token}");
    for (what, kind, body) in [
        ("JSON", "application/json", format!("{{\"logout_token\":\"{token}\"}}")),
        ("no type", "", field.clone()),
        ("twice", FORM, format!("{field}&{field}")),
        ("another field", FORM, format!("token={token}")),
        ("nothing", FORM, String::new()),
        ("no text", FORM, format!("{field}%ff")),
        ("too long", FORM, format!("{field}&x={}", "x".repeat(64 * 1024))),
    ] {
        assert_eq!(post(&running, kind, &body).await.status, 400, "{what}");
    }
    let get = b"GET /backchannel-logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let reply = exchange(TcpStream::connect(running.auth).await.unwrap(), get).await;
    assert_eq!((reply.status, reply.header("allow")), (405, vec!["POST"]));
    let other = format!("state=x&{field}");
    let kind = format!("{FORM}; charset=utf-8");
    assert_eq!(post(&running, &kind, &other).await.status, 200, "what stands beside it is not looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_there_is_no_such_path() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    let token = logout(&tenant, "j").build().unwrap();
    let reply = post(&running, FORM, &format!("logout_token={token}")).await;
    assert_eq!(reply.status, 404, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_slowly_are_read_in_bounded_number_and_later_all_is_well() {
    let (tenant, running, _) = start().await;
    let token = logout(&tenant, "j").build().unwrap();
    let address = running.auth;
    // More than are read at once, and each opened again when it has timed out.
    let slow: Vec<_> = (0..300)
        .map(|_| {
            tokio::spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                    let head = format!(
                        "POST /backchannel-logout HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 60000\r\n\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            })
        })
        .collect();
    let send = async || post(&running, FORM, &format!("logout_token={token}")).await;
    let reply = until("a 503", async || Some(send().await).filter(|reply| reply.status == 503)).await;
    assert_eq!(reply.header("retry-after"), ["5"]);
    let known = tenant.mint().subject("auth0|bob").email_direct("b@x.org").build().unwrap();
    assert_eq!(running.ask(&known).await.status, 200, "nobody else notices");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    let last = logout(&tenant, "last").build().unwrap();
    until("a 200", async || {
        let reply = post(&running, FORM, &format!("logout_token={last}")).await;
        (reply.status == 200).then_some(())
    })
    .await;
}
