//! What routes require of the token itself, through every proxy.

use serde_json::json;

use super::identity::assert_alice;
use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;

pub async fn what_a_route_requires_of_the_token_holds_and_the_client_is_told_which_login(proxy: Proxy) {
    let requirements = "claim=/azp:other&claim=/azp:app&claim=/https:~1~1ns.example.com~1dept:sales&typ=at%2Bjwt\
                        &actor=none&acr=gold&acr=platinum&max_age=300";
    let stack = Stack::start_requiring(proxy, requirements).await;
    let login = stack.tenant.time();
    let good = || {
        let token = stack.tenant.mint().email_direct("alice@example.com").typ("at+jwt").claim("azp", "app");
        token.claim("https://ns.example.com/dept", "sales").claim("acr", "gold").claim("auth_time", login)
    };
    for round in ["first", "again"] {
        let reply = stack.client.request("GET", "/admin/x", &bearer(&good().build().unwrap())).await;
        assert_alice(&reply, round);
    }
    for (less, status) in [
        (good().claim("azp", "app2"), 403),
        (good().remove_claim("azp"), 403),
        (good().claim("https://ns.example.com/dept", "SALES"), 403),
        (good().typ("JWT"), 403),
        (good().claim("act", json!({ "sub": "agent" })), 403),
        (good().claim("acr", "silver"), 401),
        (good().claim("auth_time", login - 3_000), 401),
        (good().claim("auth_time", login + 3_000), 401),
        (good().opaque(), 403),
    ] {
        let token = bearer(&less.build().unwrap());
        let reply = stack.assert_refused(&[status], &request("GET", "/admin/x", &token)).await;
        if status == 401 {
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge.len(), 1, "{reply:?}");
            assert!(challenge[0].contains("error=\"insufficient_user_authentication\""), "{reply:?}");
            assert!(challenge[0].ends_with("acr_values=\"gold platinum\", max_age=\"300\""), "{reply:?}");
        }
        assert_eq!(stack.client.request("GET", "/page", &token).await.status, 200, "another route");
    }
}
