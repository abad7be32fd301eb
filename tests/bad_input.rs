//! Malformed requests, and malformed answers of the issuer: neither lets anybody in, and neither has effects
//! afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use support::service::{Running, assert_undecided, held_clock, issuer, request, tenant, value};

const EMAIL: &str = "alice@example.com";

async fn served() -> (Tenant, Running, String) {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let token = tenant.mint().email_direct(EMAIL).build().unwrap();
    (tenant, holdfast, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_exactly_one_good_credential_the_answer_is_401() {
    let (tenant, holdfast, token) = served().await;
    let bare = r#"Bearer realm="holdfast""#;
    let line = |value: &str| format!("Authorization: {value}\r\n").into_bytes();
    let good = line(&format!("Bearer {token}"));
    let longest = "a".repeat(16 * 1024);
    let non_ascii = [b"Authorization: Bearer ", token.as_bytes(), b"\xc3\xa9\r\n"].concat();
    let latin = [b"Authorization: Bearer ", token.as_bytes(), b"\xff\r\n"].concat();
    for (what, lines, reason) in [
        ("no header", Vec::new(), "no_credential"),
        ("an empty header", line(""), "no_credential"),
        ("an empty token", line("Bearer"), "no_credential"),
        ("an empty token after a blank", line("Bearer "), "no_credential"),
        ("only padding", line("Bearer ==="), "token_grammar"),
        ("another scheme", line("Basic YWxpY2U6c2VjcmV0"), "other_scheme"),
        ("another scheme with a good token", line(&format!("Digest {token}")), "other_scheme"),
        ("no scheme", line(&token), "other_scheme"),
        ("the scheme glued to the token", line(&format!("Bearer{token}")), "other_scheme"),
        ("two headers, the same", [good.clone(), good.clone()].concat(), "several_credentials"),
        ("two headers, one bad", [line("Basic YTpi"), good.clone()].concat(), "several_credentials"),
        ("two headers, one empty", [line(""), good.clone()].concat(), "several_credentials"),
        ("two tokens on one line", line(&format!("Bearer {token}, Bearer {token}")), "token_grammar"),
        ("two tokens after one scheme", line(&format!("Bearer {token} {token}")), "token_grammar"),
        ("a quoted token", line(&format!("Bearer \"{token}\"")), "token_grammar"),
        ("a token of 16 KiB and a byte", line(&format!("Bearer {longest}a")), "token_too_long"),
        ("a token of 60 KiB", line(&format!("Bearer {}", "a".repeat(60 * 1024))), "token_too_long"),
        ("UTF-8", non_ascii, "token_grammar"),
        ("a byte that is not UTF-8", latin, "token_grammar"),
        ("a percent sign", line("Bearer a%20b"), "token_grammar"),
        (
            "in a cookie, where none is configured",
            format!("Cookie: token={token}\r\n").into(),
            "no_credential",
        ),
        ("under another name", format!("X-Authorization: Bearer {token}\r\n").into(), "no_credential"),
        (
            "under a name with an underscore",
            format!("X_Authorization: Bearer {token}\r\n").into(),
            "no_credential",
        ),
    ] {
        let before = holdfast.answered(reason).await;
        let head = b"GET /auth HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n".to_vec();
        let reply = holdfast.raw(&[head, lines, b"\r\n".to_vec()].concat()).await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        let challenge = value(&reply, "www-authenticate").unwrap();
        if matches!(reason, "no_credential" | "other_scheme") {
            assert_eq!(challenge, bare, "{what}: RFC 6750 §3.1 wants no error code");
        } else {
            assert!(challenge.contains(r#"error="invalid_request""#), "{what}: {challenge}");
        }
        assert_eq!(value(&reply, "content-length"), Some("0"), "{what}");
        assert_eq!(value(&reply, "cache-control"), Some("no-store"), "{what}");
        assert_eq!(value(&reply, "x-user-email"), None, "{what}");
        assert_eq!(holdfast.answered(reason).await - before, 1, "{what}: not metered as {reason}");
    }
    assert_eq!(tenant.calls().userinfo, 0);

    // One byte less is a token, though one that its issuer does not know.
    assert_eq!(holdfast.ask(&longest).await.status, 401);
    assert_eq!(tenant.calls().userinfo, 1);
    for scheme in ["Bearer", "bearer", "BEARER  "] {
        let reply = holdfast.raw(&request("/auth", &format!("Authorization: {scheme} {token}\r\n"))).await;
        assert_eq!(reply.status, 200, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_and_form_of_request_is_answered_alike() {
    let (_tenant, holdfast, token) = served().await;
    let host = holdfast.auth;
    for (line, status) in [
        ("GET /auth HTTP/1.1".to_owned(), 200),
        ("HEAD /auth HTTP/1.1".to_owned(), 200),
        ("OPTIONS /auth HTTP/1.1".to_owned(), 200),
        ("POST /auth HTTP/1.1".to_owned(), 200),
        ("PUT /auth HTTP/1.1".to_owned(), 200),
        ("DELETE /auth HTTP/1.1".to_owned(), 200),
        ("PROPFIND /auth HTTP/1.1".to_owned(), 200),
        ("GET /auth HTTP/1.0".to_owned(), 200),
        ("GET /auth? HTTP/1.1".to_owned(), 200),
        ("GET /auth/ HTTP/1.1".to_owned(), 200),
        ("GET /auth/api/things HTTP/1.1".to_owned(), 200),
        (format!("GET http://{host}/auth HTTP/1.1"), 200),
        ("GET http://elsewhere.example/auth HTTP/1.1".to_owned(), 200),
        ("GET /authx HTTP/1.1".to_owned(), 404),
        ("GET /aut HTTP/1.1".to_owned(), 404),
        ("GET /AUTH HTTP/1.1".to_owned(), 404),
        ("GET //auth HTTP/1.1".to_owned(), 404),
        ("GET /x/auth HTTP/1.1".to_owned(), 404),
        ("GET /%61uth HTTP/1.1".to_owned(), 404),
        ("GET / HTTP/1.1".to_owned(), 404),
        ("GET /metrics HTTP/1.1".to_owned(), 404),
        ("GET /healthz HTTP/1.1".to_owned(), 404),
        ("OPTIONS * HTTP/1.1".to_owned(), 404),
        (format!("GET http://{host}/authx HTTP/1.1"), 404),
        ("GET /auth?nonsense=1 HTTP/1.1".to_owned(), 500),
    ] {
        let with =
            format!("{line}\r\nHost: auth\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        let reply = holdfast.raw(with.as_bytes()).await;
        assert_eq!(reply.status, status, "{line}: {reply:?}");
        assert_eq!(value(&reply, "x-user-email"), (status == 200).then_some(EMAIL), "{line}");
        assert_eq!(reply.body, "", "{line}");

        let without = format!("{line}\r\nHost: auth\r\nConnection: close\r\n\r\n");
        let reply = holdfast.raw(without.as_bytes()).await;
        assert_eq!(reply.status, if status == 404 { 404 } else { 401 }, "{line} without a token: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_ends_the_connection() {
    let (_tenant, holdfast, token) = served().await;
    for (what, bytes) in [
        ("no version", format!("GET /auth\r\nAuthorization: Bearer {token}\r\n\r\n")),
        ("another version", format!("GET /auth HTTP/9.9\r\nAuthorization: Bearer {token}\r\n\r\n")),
        ("a blank in a name", format!("GET /auth HTTP/1.1\r\nAuthorization : Bearer {token}\r\n\r\n")),
        ("a NUL in a value", format!("GET /auth HTTP/1.1\r\nAuthorization: Bearer {token}\0\r\n\r\n")),
        ("a folded line", format!("GET /auth HTTP/1.1\r\nX: y\r\n Authorization: Bearer {token}\r\n\r\n")),
        (
            "two lengths",
            format!(
                "POST /auth HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\nAuthorization: Bearer {token}\r\n\r\n"
            ),
        ),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\u{7c}\x03\x03\r\n\r\n".to_owned()),
    ] {
        let reply = holdfast.raw(bytes.as_bytes()).await;
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        assert_eq!(value(&reply, "x-user-email"), None, "{what}");
    }
    assert_eq!(holdfast.ask(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_headers_is_cut_off() {
    let (_tenant, holdfast, token) = served().await;
    let flood = |count: usize, length: usize| {
        let value = "v".repeat(length);
        let lines: String = (0..count).map(|number| format!("X-Flood-{number}: {value}\r\n")).collect();
        request("/auth", &format!("{lines}Authorization: Bearer {token}\r\n"))
    };
    assert_eq!(holdfast.raw(&flood(90, 600)).await.status, 200, "54 KiB in 90 lines");
    assert_eq!(holdfast.raw(&flood(240, 270)).await.status, 200, "64 KiB in 240 lines");
    assert_eq!(holdfast.raw(&flood(300, 10)).await.status, 431, "300 lines");
    assert_eq!(holdfast.raw(&flood(20, 16 * 1024)).await.status, 431, "320 KiB");
    let long = request(&format!("/auth/{}", "x".repeat(70_000)), "");
    assert_eq!(holdfast.raw(&long).await.status, 414, "a target of 70 kB");
    assert_eq!(holdfast.raw(&flood(0, 0)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_body_is_not_waited_for() {
    let tenant = tenant().await;
    let token = tenant.mint().email_direct(EMAIL).build().unwrap();
    // Who waits for a body waits longer than this test does.
    let idle = "idle_timeout = \"1h\"";
    let holdfast = Running::start_with_auth(idle, &issuer(&tenant, ""), Clock::system()).await;
    for (what, line) in [
        ("a length", "Content-Length: 5"),
        ("a length of many", "Content-Length: 99999999999"),
        ("chunks", "Transfer-Encoding: chunked"),
        ("a wish to be asked", "Expect: 100-continue\r\nContent-Length: 5"),
        ("an upgrade", "Upgrade: websocket"),
    ] {
        let head =
            format!("POST /auth HTTP/1.1\r\nHost: auth\r\n{line}\r\nAuthorization: Bearer {token}\r\n\r\n");
        // Reads to the end of the connection, which nobody but holdfast closes.
        let reply = holdfast.raw(head.as_bytes()).await;
        assert_eq!(reply.status, 200, "{what}: {reply:?}");
        assert_eq!(value(&reply, "connection"), Some("close"), "{what}");
    }
    let smuggled = format!(
        "POST /auth HTTP/1.1\r\nHost: auth\r\nContent-Length: 200\r\n\r\n\
         GET /auth HTTP/1.1\r\nHost: auth\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let reply = holdfast.raw(smuggled.as_bytes()).await;
    assert_eq!(reply.status, 401);
    assert!(!reply.body.contains("HTTP/1.1"), "a body was taken for a request: {reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_one_by_one() {
    let (_tenant, holdfast, token) = served().await;
    let ask = |line: &str, last: &str| format!("GET /auth HTTP/1.1\r\nHost: auth\r\n{line}{last}\r\n");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let all = [
        ask(&bearer, ""),
        ask("", ""),
        ask(&bearer, ""),
        ask("Authorization: Bearer x y\r\n", "Connection: close\r\n"),
    ];
    let reply = holdfast.raw(all.concat().as_bytes()).await;
    let text = format!("HTTP/1.1 {} \r\n\r\n{}", reply.status, reply.body);
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "401", "200", "401"]);
    assert_eq!(reply.body.matches(EMAIL).count(), 1, "an answer has the headers of another: {}", reply.body);
}

/// All that an endpoint can answer that makes no sense.
fn nonsense(elsewhere: &Tenant) -> Vec<(&'static str, Fault)> {
    let json = |body: &str| Fault::Custom {
        status: 200,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_owned(),
    };
    vec![
        ("huge", Fault::Huge(1 << 20)),
        ("HTML", Fault::Garbage),
        ("a list", Fault::WrongShape),
        ("truncated", Fault::Truncated),
        ("redirected", Fault::Redirect(elsewhere.issuer() + "userinfo")),
        ("empty", json("")),
        ("an empty object", json("{}")),
        ("null", json("null")),
        ("members of other types", json(r#"{"keys":{},"sub":["auth0|alice"]}"#)),
        ("twice the same member", json(r#"{"sub":"auth0|alice","sub":"auth0|alice","keys":[],"keys":[]}"#)),
        (
            "deep",
            json(&format!(
                "{{\"sub\":\"auth0|alice\",\"keys\":[],\"x\":{}1{}}}",
                "[".repeat(900),
                "]".repeat(900)
            )),
        ),
        ("cut off", json(r#"{"sub":"auth0|alice","keys":["#)),
        ("the wrong status", Fault::Status(418)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_from_userinfo_is_cannot_tell_and_is_not_kept() {
    let (elsewhere, tenant) = (tenant().await, tenant().await);
    for (what, fault) in nonsense(&elsewhere) {
        let clock = held_clock(&tenant);
        let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
        for token in [tenant.mint().opaque().build().unwrap(), tenant.mint().build().unwrap()] {
            tenant.set_fault(Endpoint::Userinfo, fault.clone());
            assert_undecided(&holdfast.ask(&token).await, what);
            tenant.clear_faults();
            // What fails may be this one token's doing, so it is not asked about at once.
            clock.advance(Duration::from_secs(5));
            let reply = holdfast.ask(&token).await;
            assert_eq!(
                (reply.status, value(&reply, "x-user-email")),
                (200, Some(EMAIL)),
                "{what}: {reply:?}"
            );
        }
    }
    assert_eq!(elsewhere.calls().total, 0, "a redirect was followed, with the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_for_keys_is_cannot_tell_and_never_replaces_good_ones() {
    let (elsewhere, tenant) = (tenant().await, tenant().await);
    let good = tenant.mint().email_direct(EMAIL);
    let mut faults = nonsense(&elsewhere);
    faults.push(("no keys", Fault::EmptyKeys));
    for endpoint in [Endpoint::Jwks, Endpoint::Discovery] {
        for (what, fault) in faults.clone() {
            if endpoint == Endpoint::Discovery && fault == Fault::EmptyKeys {
                continue;
            }
            let what = format!("{endpoint:?}: {what}");
            let token = good.build().unwrap();
            tenant.set_fault(endpoint, fault.clone());
            let holdfast = Running::start_without_keys(&issuer(&tenant, ""), held_clock(&tenant)).await;
            assert_undecided(&holdfast.ask(&token).await, &what);
            tenant.clear_faults();
            assert_eq!(holdfast.ask(&token).await.status, 200, "{what}");

            tenant.set_fault(endpoint, fault);
            for issuer in holdfast.service.instance().issuers.iter() {
                issuer.refresh(holdfast::guard::Priority::Foreground).await.unwrap_err();
            }
            assert_eq!(holdfast.ask(&good.build().unwrap()).await.status, 200, "{what}: good keys were lost");
            tenant.clear_faults();
        }
    }
    assert_eq!(elsewhere.calls().total, 0, "a redirect was followed");
}
