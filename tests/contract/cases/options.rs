//! What an example can do besides, by the lines that it has marked: requirements by rules and by header,
//! preflights.

use super::identity::{assert_alice, identity};
use super::paths::{CASES, assert_each_is_read_alike, forms};
use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;
use crate::support::Reply;

/// A client's own story of another request than the one it sends.
const STORIES: [&str; 5] = [
    "X-Forwarded-Uri: /public/x\r\nX-Forwarded-Method: OPTIONS\r\nX-Forwarded-Host: example.com\r\n",
    "X-Original-URI: /public/x\r\nX-Original-Method: OPTIONS\r\nX-Original-Host: example.com\r\n",
    "X-Original-URL: http://example.com/public/x\r\nX-Envoy-Original-Path: /public/x\r\nX-Rewrite-Url: /public/x\r\n",
    "X_Forwarded_Uri: /public/x\r\nX.Forwarded.Uri: /public/x\r\nX_Original_Uri: /public/x\r\n",
    "Connection: X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host, X-Original-URI, X-Holdfast-Require\r\n",
];

/// Asserts that the backend got this request without an identity.
fn assert_nobody(reply: &Reply, page: &str, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    let said = |name: &str| {
        let lines = identity(page).into_iter().filter_map(|line| line.split_once(": "));
        let lines = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(said("X-User-Email"), ["anonymous"], "{what}: {page}");
    assert_eq!(said("X-User-Id"), ["anonymous"], "{what}: {page}");
    assert_eq!(said("X-Auth-Source"), ["none"], "{what}: {page}");
    assert!(identity(page).len() == 6 && !page.contains("evil"), "{what}: {page}");
}

pub async fn rules_decide_what_the_proxy_leaves_to_them(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["rules"]).await;
    let plain = bearer(&stack.alice());
    let admin = stack.tenant.mint().email_direct("alice@example.com").scope("read admin").build().unwrap();
    for path in ["/admin", "/admin/", "/admin/users?scope=admin", "/%61dmin/x"] {
        stack.assert_refused(&[401], &request("GET", path, "")).await;
        stack.assert_refused(&[403], &request("GET", path, &plain)).await;
        assert_alice(&stack.client.request("GET", path, &bearer(&admin)).await, path);
    }
    for path in ["/page", "/caf%C3%A9", "/a?b=%2f..;//", "/publicity", "/"] {
        stack.assert_refused(&[401], &request("GET", path, "")).await;
        assert_alice(&stack.client.request("GET", path, &plain).await, path);
    }
    for forged in
        ["", "X-User-Email: evil@example.com\r\nX_User_Id: evil\r\n", "Authorization: Bearer nonsense\r\n"]
    {
        let reply = stack.client.request("GET", "/public/page?x", forged).await;
        assert_nobody(&reply, &reply.body, forged);
    }
    assert_alice(&stack.client.request("GET", "/public/page", &plain).await, "known on a public path");
    for story in STORIES {
        stack.assert_refused(&[400, 401, 403], &request("GET", "/page", story)).await;
        stack.assert_refused(&[400, 403], &request("GET", "/admin/x", &format!("{story}{plain}"))).await;
    }
    for reason in ["forwarded_missing", "forwarded_repeated", "untrusted_peer", "bad_host", "bad_method"] {
        let counted = stack.holdfast.counted("holdfast_requests_total", &format!("\"{reason}\"")).await;
        assert_eq!(counted, 0, "{reason}: {}", stack.relay.sent());
    }
}

/// Letters of another case, too: the rule about `/admin` says `ignore_case`.
pub async fn no_way_to_write_a_path_changes_which_rule_counts(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["rules"]).await;
    assert_each_is_read_alike(&stack, forms().chain(CASES.map(str::to_owned))).await;
}

pub async fn a_header_of_the_proxy_says_what_is_required(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["header"]).await;
    let plain = bearer(&stack.alice());
    let admin = stack.tenant.mint().email_direct("alice@example.com").scope("read admin").build().unwrap();
    for more in
        ["", "X-Holdfast-Require: any\r\n", "x-holdfast-require: any\r\nX-Holdfast-Require: role=x\r\n"]
    {
        for path in ["/admin", "/admin/x?scope=read", "/ADMIN"] {
            stack.assert_refused(&[401], &request("GET", path, more)).await;
            stack.assert_refused(&[403], &request("GET", path, &format!("{more}{plain}"))).await;
            assert_alice(
                &stack.client.request("GET", path, &format!("{more}{}", bearer(&admin))).await,
                path,
            );
        }
        for path in ["/page", "/page?scope=nonsense&skope=x"] {
            stack.assert_refused(&[401], &request("GET", path, more)).await;
            assert_alice(&stack.client.request("GET", path, &format!("{more}{plain}")).await, path);
        }
        assert_eq!(stack.client.request("GET", "/public/page", more).await.status, 200);
    }
    for story in STORIES {
        stack.assert_refused(&[400, 403], &request("GET", "/admin/x", &format!("{story}{plain}"))).await;
    }
}

pub async fn preflights_pass_as_nobody_if_holdfast_lets_them(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["preflight"]).await;
    let plain = bearer(&stack.alice());
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for path in ["/page?x", "/admin/x"] {
        for forged in ["", "X-User-Email: evil@example.com\r\n", plain.as_str()] {
            let reply = stack.client.request("OPTIONS", path, &format!("{preflight}{forged}")).await;
            assert_nobody(&reply, &reply.body, path);
            assert!(reply.body.starts_with(&format!("OPTIONS {path} HTTP/1.1\n")), "{reply:?}");
        }
        for half in ["", "Origin: https://a.example\r\n", "Access-Control-Request-Method: PUT\r\n"] {
            stack.assert_refused(&[401], &request("OPTIONS", path, half)).await;
        }
        for method in ["GET", "POST", "HEAD"] {
            stack.assert_refused(&[401], &request(method, path, preflight)).await;
            for story in STORIES {
                stack
                    .assert_refused(&[400, 401], &request(method, path, &format!("{preflight}{story}")))
                    .await;
            }
        }
    }
    assert_alice(&stack.client.request("OPTIONS", "/page", &plain).await, "OPTIONS with a token");
    stack.assert_refused(&[403], &request("GET", "/admin/x", &format!("{preflight}{plain}"))).await;
}

/// As two lines or as one.
pub async fn two_origins_are_no_preflight(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["preflight"]).await;
    let wanted = "Access-Control-Request-Method: PUT\r\n";
    let one_line = format!("{wanted}Origin: https://a.example, https://b.example\r\n");
    let two_lines = format!("{wanted}Origin: https://a.example\r\nOrigin: https://b.example\r\n");
    let told = [Some(one_line), proxy.differs.tells_each_origin.then_some(two_lines)];
    for origins in told.into_iter().flatten() {
        stack.assert_refused(&[400, 401], &request("OPTIONS", "/page", &origins)).await;
    }
}

pub async fn with_rules_preflights_pass_where_somebody_may(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["rules", "preflight"]).await;
    let plain = bearer(&stack.alice());
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for path in ["/page", "/admin/x", "/public/page"] {
        let reply = stack.client.request("OPTIONS", path, &format!("{preflight}{plain}")).await;
        assert_nobody(&reply, &reply.body, path);
    }
    for path in ["/page", "/admin/x"] {
        stack.assert_refused(&[401], &request("OPTIONS", path, "")).await;
        stack.assert_refused(&[401], &request("PUT", path, preflight)).await;
    }
    stack.assert_refused(&[403], &request("PUT", "/admin/x", &format!("{preflight}{plain}"))).await;
}
