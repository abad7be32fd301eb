//! A logout that Auth0 sends through the proxy, as docs/how-to/revoke.md has it.

use std::fmt::Write as _;

use serde_json::json;

use super::identity::assert_alice;
use crate::client::bearer;
use crate::proxy::Proxy;
use crate::stack::Stack;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn get(token: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{}\r\n", bearer(token))
        .into_bytes()
}

fn post(body: &str) -> Vec<u8> {
    let mut request =
        "POST /backchannel-logout HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n".to_owned();
    let kind = "application/x-www-form-urlencoded";
    write!(request, "Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    request.into_bytes()
}

pub async fn a_logout_that_auth0_sends_ends_the_users_tokens(proxy: Proxy) {
    let stack = Stack::start_for(proxy, &["logout"]).await;
    let token = stack.alice();
    assert_alice(&stack.client.raw(&get(&token)).await, "before");
    let logout = |claims: &[(&str, serde_json::Value)]| {
        let mint = stack.tenant.mint().audience("client-id").typ("JWT").claim("jti", "j").claim("sid", "s");
        let mint = claims.iter().fold(mint, |mint, (name, value)| mint.claim(*name, value.clone()));
        format!("logout_token={}", mint.build().unwrap())
    };
    let event = ("events", json!({ EVENT: {} }));
    for bad in [logout(&[]), logout(&[event.clone(), ("nonce", json!("n"))]), String::new()] {
        assert_eq!(stack.client.raw(&post(&bad)).await.status, 400, "{bad}");
    }
    assert_alice(&stack.client.raw(&get(&token)).await, "after what is no logout");
    let reply = stack.client.raw(&post(&logout(&[event]))).await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, vec!["no-store"]), "{reply:?}");
    stack.assert_refused(&[401], &get(&token)).await;
}
