//! The metadata of the protected resource, and the challenges that point to it, as docs/how-to/mcp.md has it.

use serde_json::{Value, json};

use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;

const PATH: &str = "/.well-known/oauth-protected-resource";
const POINTER: &str = "resource_metadata=\"https://api.example.com/.well-known/oauth-protected-resource\"";

pub async fn a_client_without_a_token_finds_out_who_issues_one(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["resource"]).await;
    let token = bearer(&stack.alice());
    for (path, lines, status) in [
        ("/page", "", 401),
        ("/page", "Authorization: Bearer a.b.c\r\n", 401),
        ("/page", "X-Forwarded-Host: evil.example.com\r\nX-Forwarded-Proto: http\r\n", 401),
        ("/admin/x", &*token, 403),
    ] {
        let reply = stack.assert_refused(&[status], &request("GET", path, lines)).await;
        let challenge = reply.header("www-authenticate");
        assert_eq!(challenge.len(), 1, "{path} {lines}: {reply:?}");
        assert!(challenge[0].starts_with("Bearer ") && challenge[0].ends_with(POINTER), "{reply:?}");
        if status == 403 {
            assert!(challenge[0].contains("error=\"insufficient_scope\""), "{reply:?}");
        }
    }
    let expected = json!({
        "resource": "https://api.example.com",
        "authorization_servers": [stack.tenant.issuer()],
        "bearer_methods_supported": ["header"],
    });
    let evil = "X-Forwarded-Host: evil.example.com\r\nForwarded: host=evil.example.com\r\nCookie: a=b\r\n";
    for lines in ["", evil, &*token, "Authorization: Bearer a.b.c\r\n"] {
        let (asks, reply) = stack.asks(stack.client.request("GET", PATH, lines)).await;
        assert_eq!((reply.status, asks), (200, 0), "{lines}: {reply:?}");
        assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), expected, "{lines}");
        assert_eq!(reply.header("access-control-allow-origin"), ["*"], "{reply:?}");
        assert_eq!(reply.header("cache-control"), ["public, max-age=300"], "{reply:?}");
    }
    let head = stack.client.request("HEAD", PATH, "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    let origin = "Origin: https://inspector.example.com\r\nAccess-Control-Request-Method: GET\r\n\
                  Access-Control-Request-Headers: mcp-protocol-version\r\n";
    let preflight = stack.client.request("OPTIONS", PATH, origin).await;
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-headers"), ["*"], "{preflight:?}");
    // No other path becomes open by it, and nothing but the document comes from holdfast.
    for path in ["/x", "/../page", "/..%2f..%2fauth", "/%2e%2e/%2e%2e/auth", ";/../auth", "%2f", "?/../page"]
    {
        let (asks, reply) = stack.asks(stack.client.request("GET", &format!("{PATH}{path}"), "")).await;
        assert_eq!(asks, 0, "{path}: {reply:?}");
        assert!(reply.status >= 400 || path.starts_with('?'), "{path}: {reply:?}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let (asks, reply) = stack.asks(stack.client.request(method, PATH, "Content-Length: 0\r\n")).await;
        assert_eq!(asks, 0, "{method}: {reply:?}");
        assert!(reply.status >= 400, "{method}: {reply:?}");
    }
}
