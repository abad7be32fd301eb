//! What else goes through a proxy: bodies, upgrades, methods, HTTP/2, long and broken connections.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::identity::{assert_alice, assert_user, identity};
use crate::client::{bearer, read_reply, request};
use crate::proxy::{Method, Proxy};
use crate::stack::{Stack, in_time};
use crate::support::until;

pub async fn a_large_body_reaches_the_backend_whole_and_holdfast_not_at_all(proxy: Proxy) {
    const LENGTH: usize = 10_000_000;
    let stack = Stack::start(proxy).await;
    let body = "b".repeat(LENGTH);
    let head =
        |token: &str| format!("POST /upload HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{token}");
    let token = bearer(&stack.alice());
    for rest in [
        format!("Content-Length: {LENGTH}\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{LENGTH:x}\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let request = head(&token) + &rest;
        if rest.starts_with("Transfer") && !proxy.differs.takes_chunks {
            stack.assert_refused(&[411], request.as_bytes()).await;
            continue;
        }
        let reply = stack.client.raw(request.as_bytes()).await;
        assert_alice(&reply, "a large body");
        assert!(reply.body.starts_with("POST /upload HTTP/1.1\n"), "{reply:?}");
        assert!(reply.body.ends_with(&format!("\nbody: {LENGTH} bytes\n")), "{reply:?}");
    }
    let small = format!("{}Content-Length: 5\r\n\r\nhello", head(""));
    stack.assert_refused(&[401], small.as_bytes()).await;
    let sent = stack.relay.sent();
    assert!(sent.len() < 8_000 && !sent.contains("bbbb") && !sent.contains("hello"), "{sent}");
}

pub async fn a_websocket_opens_with_a_token_and_not_without(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let handshake = |token: &str, close: &str| {
        format!(
            "GET /socket HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade{close}\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n"
        )
    };
    let (asks, reply) = stack
        .asks(async {
            let mut stream = stack.client.connect().await.unwrap();
            stream.write_all(handshake("", "").as_bytes()).await.unwrap();
            read_reply(&mut *stream).await
        })
        .await;
    assert_eq!((reply.status, asks), (401, 0), "{reply:?}");

    let mut stream = stack.client.connect().await.unwrap();
    stream.write_all(handshake(&bearer(&stack.alice()), "").as_bytes()).await.unwrap();
    let reply = read_reply(&mut *stream).await;
    assert_eq!(reply.status, 101, "{reply:?}");
    assert_user(&stack.backend.last_request().unwrap(), "alice@example.com", "auth0|alice", "WebSocket");
    for _ in 0..3 {
        stream.write_all(b"to and fro").await.unwrap();
        let mut back = [0; 10];
        in_time("the WebSocket's bytes", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"to and fro");
    }
}

pub async fn every_method_is_asked_about_and_reaches_the_backend_as_it_is(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = bearer(&stack.alice());
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "PURGE"] {
        let reply = stack.client.request(method, "/page", &token).await;
        assert_eq!(reply.status, 200, "{method}: {reply:?}");
        assert_eq!(reply.body.is_empty(), method == "HEAD", "{method}: {reply:?}");
        let seen = stack.backend.last_request().unwrap();
        assert!(seen.starts_with(&format!("{method} /page HTTP/1.1\n")), "{seen}");
        assert_user(&seen, "alice@example.com", "auth0|alice", method);
        let asked = if proxy.differs.method == Method::Original { method } else { "GET" };
        let sent = stack.relay.sent();
        assert!(sent.lines().rfind(|line| line.contains(" /auth")).unwrap().starts_with(asked), "{sent}");
        // A preflight carries no token; nobody passes for looking like one, unless holdfast is told so.
        let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n";
        stack.assert_refused(&[401], &request(method, "/page", preflight)).await;
    }
}

pub async fn an_http2_client_gets_what_others_get(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = format!("Authorization: Bearer {}", stack.alice());
    if !proxy.differs.http2 {
        let (asks, answered) = stack.asks(stack.http2.try_http2("/page", &["-H", &token])).await;
        assert!(answered.is_err() && asks == 0, "{answered:?}");
        return;
    }
    assert_alice(&stack.http2.http2("/page", &["-H", &token]).await, "HTTP/2");
    let reply = stack.http2.http2("/page", &["-H", &token, "--head"]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = stack.http2.http2("/page", &["-H", &token, "--data", "hello"]).await;
    assert_alice(&reply, "HTTP/2 with a body");
    assert!(reply.body.ends_with("\nbody: 5 bytes\n"), "{reply:?}");
    let (asks, reply) = stack.asks(stack.http2.http2("/page", &[])).await;
    assert_eq!((reply.status, asks), (401, 0), "{reply:?}");
    assert!(reply.header("www-authenticate")[0].starts_with("Bearer"), "{reply:?}");
    let (asks, reply) = stack.asks(stack.http2.http2("/admin/page", &["-H", &token])).await;
    assert_eq!((reply.status, asks), (403, 0), "{reply:?}");
}

/// Two users and two refusals take turns: none gets what another should.
pub async fn a_hundred_requests_on_one_connection_are_each_their_own(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let mint = || stack.tenant.mint();
    let users = [("alice@example.com", "auth0|alice"), ("bob@example.com", "auth0|bob")];
    let tokens = users.map(|(email, id)| bearer(&mint().subject(id).email_direct(email).build().unwrap()));
    let denied = bearer(&mint().subject("auth0|noemail").build().unwrap());
    let mut stream = stack.client.connect().await.unwrap();
    for number in 0..100 {
        let (headers, status) =
            [(tokens[0].as_str(), 200), ("", 401), (tokens[1].as_str(), 200), (denied.as_str(), 403)]
                [number % 4];
        let request = format!("GET /page?n={number} HTTP/1.1\r\nHost: example.com\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let reply = read_reply(&mut *stream).await;
        assert_eq!(reply.status, status, "{number}: {reply:?}");
        if status == 200 {
            let (email, id) = users[number % 4 / 2];
            assert!(reply.body.starts_with(&format!("GET /page?n={number} HTTP/1.1\n")), "{reply:?}");
            assert_user(&reply.body, email, id, "one connection");
        }
    }
    let sent = stack.relay.sent();
    assert_eq!(sent.lines().filter(|line| line.contains(" /auth")).count(), 100, "{sent}");
    if proxy.differs.keeps_connections {
        let connections = stack.relay.connections();
        assert!(connections <= 20, "{connections} connections for 100 questions");
    }
}

pub async fn long_headers_pass(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let padding: String = (0..4).map(|n| format!("X-Padding-{n}: {}\r\n", "p".repeat(4_000))).collect();
    let reply = stack.client.request("GET", "/page", &(bearer(&stack.alice()) + &padding)).await;
    assert_alice(&reply, "16 KB of headers");
    let long = stack.tenant.mint().email_direct("alice@example.com").claim("groups", "g".repeat(8_500));
    let token = long.build().unwrap();
    assert!((12_000..16_384).contains(&token.len()), "{}", token.len());
    assert_alice(&stack.client.get(&token).await, "a token of 12 KB");
}

pub async fn a_client_that_breaks_off_harms_nobody(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = stack.alice();
    let before = stack.backend.requests();
    for length in [5, 1_000_000] {
        let mut stream = stack.client.connect().await.unwrap();
        let head = format!(
            "POST /page HTTP/1.1\r\nHost: example.com\r\n{}Content-Length: {length}\r\n\r\n{}",
            bearer(&token),
            "b".repeat(length / 2)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
    }
    let mut stream = stack.client.connect().await.unwrap();
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: exam").await.unwrap();
    drop(stream);
    assert_eq!(stack.backend.requests(), before, "half a request is none");
    for _ in 0..20 {
        let mut stream = stack.client.connect().await.unwrap();
        stream.write_all(&request("GET", "/page", &bearer(&token))).await.unwrap();
        drop(stream);
    }
    until("a good token passes afterwards", async || {
        let reply = stack.client.get(&token).await;
        (reply.status == 200 && identity(&reply.body).len() == 6).then_some(())
    })
    .await;
    assert_eq!(stack.client.get("nonsense").await.status, 401);
}
