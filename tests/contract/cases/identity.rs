//! The identity that the backend receives.

use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;
use crate::support::relay::server_that_answers;
use crate::support::{IDENTITY, Reply};

/// The identity headers that a backend received, in any spelling that some backend accepts:
/// many make every character but letters and digits the same (CGI, WSGI, PHP).
pub fn identity(page: &str) -> Vec<&str> {
    let names_one = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim().to_lowercase();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        IDENTITY.contains(&name.as_str())
    };
    page.lines().skip(1).filter(names_one).collect()
}

/// Asserts that the backend saw exactly this user, and each header once.
pub fn assert_user(page: &str, email: &str, id: &str, what: &str) {
    let identity = identity(page);
    let values = |name: &str| {
        let lines = identity.iter().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
    };
    assert_eq!(values("X-User-Email"), [email], "{what}: {page}");
    assert_eq!(values("X-User-Id"), [id], "{what}: {page}");
    assert_eq!(values("X-Auth-Tier"), ["primary"], "{what}: {page}");
    assert_eq!(values("X-Auth-Source"), ["claims"], "{what}: {page}");
    assert_eq!(values("X-Auth-Age").len(), 1, "{what}: {page}");
    let encoding = if email.contains('%') { "percent" } else { "none" };
    assert_eq!(values("X-User-Email-Encoding"), [encoding], "{what}: {page}");
    assert_eq!(identity.len(), IDENTITY.len(), "{what}: {page}");
}

pub fn assert_alice(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    assert_user(&reply.body, "alice@example.com", "auth0|alice", what);
}

pub async fn a_good_token_passes_and_the_backend_sees_its_email_once(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    assert_alice(&stack.client.get(&stack.alice()).await, "direct claim");
    let mint = || stack.tenant.mint();
    let nested = mint().email_nested("alice@example.com").build().unwrap();
    assert_alice(&stack.client.get(&nested).await, "nested claim");
    let named =
        mint().email_namespaced("https://api.example.com/email", "alice@example.com").build().unwrap();
    assert_alice(&stack.client.get(&named).await, "namespaced claim");
    let page = stack.client.get(&mint().email_direct("jürgen@example.com").build().unwrap()).await;
    assert_user(&page.body, "j%C3%BCrgen@example.com", "auth0|alice", "not ASCII");
    assert!(stack.relay.sent().to_lowercase().contains("authorization: bearer "), "nobody asked holdfast");
}

/// What a client may try. Each is sent before and after the token, with it and without.
const FORGED: [&str; 12] = [
    "X-User-Email: evil@example.com\r\n",
    "x-user-email: evil@example.com\r\n",
    "X-USER-EMAIL: evil@example.com\r\nx-user-email: evil@example.com\r\n",
    "X_User_Email: evil@example.com\r\nx_user_id: evil\r\nX-User_Email: evil@example.com\r\n",
    "X.User.Email: evil@example.com\r\n",
    "X~User~Email: evil@example.com\r\nX!User!Id: evil\r\nX-User+Email: evil@example.com\r\n",
    "X-User-Id: evil\r\nX-User-Id: evil\r\nX-User-Email-Encoding: evil\r\n",
    "X-Auth-Tier: evil\r\nX-Auth-Age: evil\r\nX-Auth-Source: evil\r\n",
    "X-User-Email : evil@example.com\r\n",
    "X-User-Email: a\r\n evil@example.com\r\n",
    "Connection: X-User-Email\r\nX-User-Email: evil@example.com\r\n",
    "Connection: X-User-Email, X-User-Id, X-Auth-Tier\r\nConnection: x-auth-age\r\n",
];

pub async fn forged_identity_headers_never_reach_the_backend(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = bearer(&stack.alice());
    for forged in FORGED {
        let reply = stack.client.request("GET", "/page", &format!("{forged}{token}{forged}")).await;
        if reply.status == 200 {
            assert_alice(&reply, forged);
            assert!(!reply.body.contains("evil"), "{forged:?}: {reply:?}");
        } else {
            assert_eq!(reply.status, 400, "{forged:?}: {reply:?}");
        }
        let reply = stack.client.request("GET", "/public/page", forged).await;
        assert!(matches!(reply.status, 200 | 400), "{forged:?}: {reply:?}");
        assert!(identity(&reply.body).is_empty() && !reply.body.contains("evil"), "{forged:?}: {reply:?}");
        stack.assert_refused(&[401, 400], &request("GET", "/page", forged)).await;
    }
    assert!(!stack.relay.sent().contains("evil"), "holdfast was told: {}", stack.relay.sent());
}

pub async fn forged_identity_headers_never_reach_the_backend_over_http2(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = format!("Authorization: Bearer {}", stack.alice());
    for forged in [
        "x-user-email: evil@example.com",
        "X-User-Id: evil",
        "x_user_email: evil@example.com",
        "x.user.email: evil@example.com",
        "x-auth-tier: evil",
    ] {
        if !proxy.differs.http2 {
            for path in ["/page", "/public/page"] {
                let arguments = ["-H", forged, "-H", &token];
                let (asks, answered) = stack.asks(stack.http2.try_http2(path, &arguments)).await;
                assert!(answered.is_err() && asks == 0, "{forged:?}: {answered:?}");
            }
            continue;
        }
        let reply = stack.http2.http2("/page", &["-H", forged, "-H", &token, "-H", forged]).await;
        if reply.status == 200 {
            assert_alice(&reply, forged);
            assert!(!reply.body.contains("evil"), "{forged:?}: {reply:?}");
        } else {
            assert_eq!(reply.status, 400, "{forged:?}: {reply:?}");
        }
        let reply = stack.http2.http2("/public/page", &["-H", forged]).await;
        assert!(matches!(reply.status, 200 | 400), "{forged:?}: {reply:?}");
        assert!(!reply.body.contains("evil"), "{forged:?}: {reply:?}");
    }
}

/// Announced and not (CVE-2026-88004). A backend that merges trailers into headers would take one for an
/// identity.
pub async fn a_forged_trailer_never_reaches_the_backend(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = bearer(&stack.alice());
    for (path, announced) in
        [("/page", "Trailer: X-User-Email\r\n"), ("/page", ""), ("/public/page", "Trailer: X-User-Email\r\n")]
    {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{token}{announced}\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-User-Email: evil@example.com\r\n\r\n"
        );
        let reply = stack.client.raw(request.as_bytes()).await;
        if reply.status == 200 {
            assert!(reply.body.contains("\nbody: 5 bytes\n"), "{announced:?}: {reply:?}");
            assert!(!reply.body.contains("evil"), "{announced:?}: {reply:?}");
        } else {
            assert!(matches!(reply.status, 400 | 411), "{announced:?}: {reply:?}");
        }
    }
}

/// In HTTP/2 any request may have trailers, whatever its method and with a length, too.
pub async fn a_forged_trailer_never_reaches_the_backend_over_http2(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = format!("Bearer {}", stack.alice());
    for method in ["POST", "GET", "DELETE", "PATCH"] {
        for path in ["/page", "/public/page"] {
            for more in [&[][..], &[("trailer", "x-user-email")][..], &[("content-length", "5")][..]] {
                let mut headers = vec![(":method", method), (":scheme", "http"), (":path", path)];
                headers.extend([(":authority", "example.com"), ("authorization", token.as_str())]);
                headers.extend(more);
                // Without a trailer, to see that these requests are such as pass.
                let (asks, ()) = stack.asks(stack.http2.http2_with_trailer(&headers, None)).await;
                assert_eq!(asks, u64::from(proxy.differs.http2), "{method} {path} {more:?}");
                let trailer = Some(("x-user-email", "evil@example.com"));
                stack.http2.http2_with_trailer(&headers, trailer).await;
                let page = stack.backend.last_request().unwrap();
                assert!(!page.contains("evil"), "{method} {path} {more:?}: {page}");
            }
        }
    }
}

/// GHSA-7r4p-vjf4-gxv4 (Caddy), and what Envoy and HAProxy do by default: if a 200 names nobody, the client's
/// own header passes. holdfast never gives such a 200; the proxy must not depend on that.
pub async fn an_auth_server_that_forgets_the_identity_lets_no_forged_one_through(proxy: Proxy) {
    let careless =
        server_that_answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let stack = Stack::start_with_auth(proxy, careless).await;
    for forged in ["X-User-Email: evil@example.com\r\n", "X-User-Id: evil\r\nX-Auth-Tier: evil\r\n"] {
        let reply = stack.client.request("GET", "/page", forged).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.body.contains("evil"), "{forged:?}: {reply:?}");
        // A name without a value says nobody, too; some proxies leave that.
        assert!(
            identity(&reply.body).iter().all(|line| line.ends_with(": ") || line.ends_with(':')),
            "{reply:?}"
        );
    }
}
