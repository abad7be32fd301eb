//! Browsers that are sent to a login page, and the cookie with which they come back, as docs/login.md has it
//! for each proxy.

use super::identity::assert_alice;
use crate::client::bearer;
use crate::proxy::Proxy;
use crate::stack::Stack;
use crate::support::Reply;

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";

/// The login page with a way back to `/a?b=c`, or to `/a` if the proxy does not pass on the query.
fn login_page(proxy: &Proxy, path: &str) -> String {
    let query = if proxy.differs.tells_query { "%3Fb%3Dc" } else { "" };
    format!("https://app.example.com/login?return_to=https%3A%2F%2Fapp%2Eexample%2Ecom{path}{query}&expires=")
}

fn asked(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{headers}\r\n")
        .into_bytes()
}

fn assert_redirected(reply: &Reply, to: &str, what: &str) {
    assert_eq!(reply.status, 302, "{what}: {reply:?}");
    let location = reply.header("location");
    assert!(location.len() == 1 && location[0].starts_with(to), "{what}: not {to}: {reply:?}");
    assert_eq!(reply.header("cache-control"), ["no-store"], "{what}: {reply:?}");
}

fn assert_challenged(reply: &Reply, what: &str) {
    assert!(reply.header("www-authenticate")[0].starts_with("Bearer"), "{what}: {reply:?}");
    assert!(
        reply.header("location").is_empty() && reply.header("x-auth-login-url").is_empty(),
        "{what}: {reply:?}"
    );
}

pub async fn a_browser_is_sent_to_the_login_page_and_a_program_is_not(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["login"]).await;
    let mint = || stack.tenant.mint().email_direct("alice@example.com");
    let expired = format!("Cookie: session={}\r\n", mint().expires_in(-3600).build().unwrap());
    // A client cannot claim another original request than its own.
    let forged = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Uri: /evil\r\nX-Original-Host: evil.example\r\n\
                  X-Original-URI: /evil\r\nX-Auth-Login-Url: https://evil.example\r\n";
    for (target, path) in [("/a?b=c", "%2Fa"), ("/admin/x?b=c", "%2Fadmin%2Fx")] {
        for more in ["", &expired, "Cookie: session=nonsense\r\n", forged] {
            for method in ["GET", "HEAD"] {
                let request = asked(method, target, &format!("{more}{BROWSER}"));
                let reply = stack.assert_refused(&[302], &request).await;
                assert_redirected(&reply, &login_page(&proxy, path), more);
            }
            let with = |method: &str, headers: &str| asked(method, target, &format!("{more}{headers}"));
            for request in [
                with("GET", ""),
                with("GET", "Accept: application/json\r\n"),
                with("GET", "Accept: */*\r\n"),
                with("GET", &format!("X-Requested-With: x\r\n{BROWSER}")),
                with("GET", &BROWSER.replace("navigate", "cors").replace("document", "empty")),
                with("GET", &format!("{}{BROWSER}", bearer("nonsense"))),
                with("POST", BROWSER),
            ] {
                let reply = stack.assert_refused(&[401], &request).await;
                assert_challenged(&reply, &String::from_utf8_lossy(&request));
            }
        }
    }
}

pub async fn a_cookie_is_a_credential_and_no_way_around_requirements(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["login"]).await;
    let token = stack.alice();
    let (head, tail) = token.split_at(token.len() / 2);
    for cookie in [
        format!("Cookie: session={token}\r\n"),
        format!("Cookie: theme=dark; session={token}; x=y\r\n"),
        format!("Cookie: session__1={tail}; session__0={head}\r\n"),
    ] {
        for accept in [BROWSER, "Accept: application/json\r\n"] {
            let lines = format!("{cookie}{accept}");
            assert_alice(&stack.client.raw(&asked("GET", "/a?b=c", &lines)).await, &cookie);
            let reply = stack.assert_refused(&[403], &asked("GET", "/admin/x?b=c&scope=admin", &lines)).await;
            assert!(reply.header("location").is_empty(), "{reply:?}");
        }
    }
    let two = format!("Cookie: session={token}; session={token}x\r\n{BROWSER}");
    let reply = stack.assert_refused(&[401], &asked("GET", "/a", &two)).await;
    assert_challenged(&reply, "it would come again after the login");
    let admin = stack.tenant.mint().email_direct("alice@example.com").scope("admin").build().unwrap();
    let admin = format!("Cookie: session={admin}\r\n{BROWSER}");
    assert_alice(&stack.client.raw(&asked("GET", "/admin/x", &admin)).await, "a cookie with the scope");
    assert_alice(&stack.client.raw(&asked("GET", "/a", &bearer(&token))).await, "a program with its token");
}

/// What browsers leave raw in a query, in the address bar and in links.
const RAW: &str = "/a?q=x|y&f={z}^`";

pub async fn a_query_as_browsers_write_it_comes_back_signed(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["login"]).await;
    let reply = stack.assert_refused(&[302], &asked("GET", RAW, BROWSER)).await;
    let query = if proxy.differs.tells_query { "%3Fq%3Dx%257Cy%26f%3D%257Bz%257D%255E%2560" } else { "" };
    let back = format!("return_to=https%3A%2F%2Fapp%2Eexample%2Ecom%2Fa{query}&expires=");
    assert_redirected(&reply, &format!("https://app.example.com/login?{back}"), RAW);
}
