//! The metadata of the protected resource, and the challenges that point to it (RFC 9728). Both come from the
//! configuration alone, so nothing that a client sends can change them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use serde_json::{Value, json};
use support::Reply;
use support::service::{Running, held_clock, issuer, request, tenant, value};

const PATH: &str = "/.well-known/oauth-protected-resource/mcp";
const URL: &str = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp";
const RESOURCE: &str =
    "[resource]\nid = \"https://mcp.example.com/mcp\"\nscopes = [\"read:tools\", \"write\"]\n";

/// One request; `lines` are its header lines.
fn with(method: &str, target: &str, lines: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n").into_bytes()
}

fn challenge(reply: &Reply) -> &str {
    value(reply, "www-authenticate").unwrap_or_else(|| panic!("no challenge: {reply:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_says_where_tokens_come_from_and_anybody_may_keep_it() {
    let tenant = tenant().await;
    let second = "[[issuer]]\nurl = \"https://second.example.com/\"\naudience = [\"a\"]\n";
    let config = format!("{}{second}{RESOURCE}", issuer(&tenant, ""));
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
    let clock = held_clock(&tenant);
    let running = Running::start_without_keys_with_auth(auth, &config, clock).await;
    let reply = running.raw(&request(PATH, "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(value(&reply, "content-type"), Some("application/json"));
    assert_eq!(value(&reply, "cache-control"), Some("public, max-age=300"));
    assert_eq!(value(&reply, "access-control-allow-origin"), Some("*"));
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    let expected = json!({
        "resource": "https://mcp.example.com/mcp",
        "authorization_servers": [tenant.issuer(), "https://second.example.com/"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["read:tools", "write"],
        "dpop_signing_alg_values_supported": document["dpop_signing_alg_values_supported"],
    });
    assert_eq!(document, expected);
    let refused = running.raw(&request("/auth", "Authorization: DPoP a.b\r\n")).await;
    assert_eq!(refused.status, 401, "{refused:?}");

    let head = running.raw(&with("HEAD", PATH, "")).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    assert_eq!(value(&head, "content-length"), Some(reply.body.len().to_string().as_str()));
    let ask = "Origin: https://inspector.example.com\r\nAccess-Control-Request-Method: GET\r\n\
               Access-Control-Request-Headers: mcp-protocol-version\r\n";
    let preflight = running.raw(&with("OPTIONS", PATH, ask)).await;
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""), "{preflight:?}");
    for (name, expected) in [("origin", "*"), ("methods", "GET, HEAD, OPTIONS"), ("headers", "*")] {
        let name = format!("access-control-allow-{name}");
        assert_eq!(value(&preflight, &name), Some(expected), "{preflight:?}");
    }
    for method in ["POST", "PUT", "DELETE", "get", "TRACE"] {
        let refused = running.raw(&with(method, PATH, "Content-Length: 0\r\n")).await;
        assert_eq!((refused.status, refused.body.as_str()), (405, ""), "{method}: {refused:?}");
        assert_eq!(value(&refused, "allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_sends_changes_the_metadata() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
    let config = format!("{}{RESOURCE}", issuer(&tenant, ""));
    let running = Running::start_without_keys_with_auth(auth, &config, clock).await;
    let plain = running.raw(&request(PATH, "")).await.body;
    let none = challenge(&running.raw(&request("/auth", "")).await).to_owned();
    assert_eq!(none, format!("Bearer realm=\"holdfast\", resource_metadata=\"{URL}\""));
    for lines in [
        "Host: evil.example.com\r\n",
        "X-Forwarded-Host: evil.example.com\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Uri: /evil\r\n",
        "Forwarded: host=evil.example.com;proto=http\r\n",
        "X-Original-URL: https://evil.example.com/\r\nOrigin: https://evil.example.com\r\n",
        "Authorization: Bearer evil\r\nAccept: text/html\r\nCookie: evil=1\r\n",
        "Range: bytes=0-3\r\nIf-None-Match: *\r\n",
    ] {
        // The only `Host` of the request.
        let host = if lines.starts_with("Host:") { "" } else { "Host: localhost\r\n" };
        let ask = |target: &str| {
            format!("GET {target} HTTP/1.1\r\n{host}Connection: close\r\n{lines}\r\n").into_bytes()
        };
        for target in [PATH.to_owned(), format!("{PATH}?evil"), format!("http://evil.example.com{PATH}")] {
            let reply = running.raw(&ask(&target)).await;
            assert_eq!((reply.status, &reply.body), (200, &plain), "{target} {lines}");
            assert!(!format!("{reply:?}").contains("evil"), "{target} {lines}: {reply:?}");
        }
        let refused = running.raw(&ask("/auth")).await;
        assert!(challenge(&refused).ends_with(&format!(", resource_metadata=\"{URL}\"")), "{refused:?}");
        assert!(!format!("{refused:?}").contains("evil"), "{lines}: {refused:?}");
    }
    for target in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/MCP",
        "/.well-known/oauth-protected-resource/mcp/",
        "/.well-known/oauth-protected-resource/mcp/x",
        "/.well-known/oauth-protected-resource//mcp",
        "/.well-known/oauth-protected-resource/./mcp",
        "/.well-known/oauth-protected-resource/x/../mcp",
        "/.well-known/oauth-protected-resource/%6dcp",
        "/.well-known/oauth-protected-resource%2fmcp",
        "/.well-known/oauth-protected-resource/mcp%00",
        "/.well-known/oauth-protected-resource/mcp;x",
        "/%2ewell-known/oauth-protected-resource/mcp",
        "//.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource/../../etc/passwd",
        "/.well-known/oauth-authorization-server",
        "/mcp/.well-known/oauth-protected-resource",
        "*",
    ] {
        let reply = running.raw(&request(target, "")).await;
        assert!(matches!(reply.status, 404 | 400), "{target}: {reply:?}");
        assert_eq!(reply.body, "", "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_challenge_points_to_the_metadata_and_no_other_answer_does() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let config = format!("{}{RESOURCE}", issuer(&tenant, ""));
    let running = Running::start(&config, clock.clone()).await;
    let good = || tenant.mint().email_direct("alice@example.com");
    let bound = good().claim("cnf", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }));
    let bound = bound.build().unwrap();
    let expired = good().claim("exp", tenant.time() - 3600).build().unwrap();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let cases = [
        ("/auth", String::new(), 401, "Bearer realm=\"holdfast\", resource_metadata"),
        ("/auth", "Authorization: Basic YTpi\r\n".to_owned(), 401, "Bearer realm=\"holdfast\", resource"),
        ("/auth", bearer("ü"), 401, "error=\"invalid_request\""),
        ("/auth", bearer(&expired), 401, "error=\"invalid_token\""),
        ("/auth", bearer("a.b.c"), 401, "error=\"invalid_token\""),
        ("/auth", bearer(&bound), 401, "DPoP realm=\"holdfast\", algs=\""),
        ("/auth", format!("Authorization: DPoP {bound}\r\n"), 401, "error=\"invalid_dpop_proof\""),
        ("/auth?scope=admin", bearer(&good().build().unwrap()), 403, "error=\"insufficient_scope\""),
        ("/auth?acr=gold", bearer(&good().build().unwrap()), 401, "insufficient_user_authentication"),
    ];
    for (path, lines, status, expected) in &cases {
        for round in ["first", "again"] {
            let reply = running.raw(&request(path, lines)).await;
            assert_eq!(reply.status, *status, "{round} {expected}: {reply:?}");
            let challenge = challenge(&reply);
            assert!(challenge.contains(expected), "{round} {expected}: {reply:?}");
            assert!(challenge.ends_with(&format!(", resource_metadata=\"{URL}\"")), "{round}: {reply:?}");
            assert_eq!(challenge.matches("resource_metadata").count(), 1);
        }
    }
    let allowed = running.ask(&good().build().unwrap()).await;
    assert_eq!((allowed.status, value(&allowed, "www-authenticate")), (200, None));

    // Without [resource], a challenge says nothing of it, and there is no document.
    let without = Running::start(&issuer(&tenant, ""), clock).await;
    for (path, lines, status, _) in &cases {
        let reply = without.raw(&request(path, lines)).await;
        assert_eq!(reply.status, *status);
        assert!(!challenge(&reply).contains("resource_metadata"), "{reply:?}");
    }
    assert_eq!(without.raw(&request(PATH, "")).await.status, 404);
    assert_eq!(without.raw(&request("/.well-known/oauth-protected-resource", "")).await.status, 404);
}
