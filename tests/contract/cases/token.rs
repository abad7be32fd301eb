//! What routes require of the token itself, and lists and issuers with several names, through every proxy.

use serde_json::json;

use super::identity::{assert_alice, identity};
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

/// In a header that every example passes on.
pub async fn a_list_and_the_name_of_the_issuer_reach_the_backend_as_configured(proxy: Proxy) {
    let alias = "https://login.example.com/";
    let rows = "[headers]\n\"X-User-Id\" = { claim = \"permissions\", join = \",\", default = \"-\" }\n";
    let config = [
        ("\naudience = [", format!("\naliases = [\"{alias}\"]\naudience = [")),
        ("\n[[issuer]]", format!("\n{rows}[[issuer]]")),
    ];
    let stack =
        Stack::start_configured(proxy, &config.each_ref().map(|(from, to)| (*from, to.as_str()))).await;
    for (list, expected) in [
        (json!(["read:a", "a,b", "50%", "ü", " x "]), "read:a,a%2Cb,50%25,%C3%BC,%20x%20"),
        (json!([]), "-"),
        (json!("one"), "one"),
    ] {
        let token = stack.tenant.mint().email_direct("alice@example.com").claim("permissions", list);
        let token = token.issuer(alias).build().unwrap();
        let forged = format!("X-User-Id: admin\r\n{}", bearer(&token));
        let reply = stack.client.request("GET", "/page", &forged).await;
        let ids =
            identity(&reply.body).into_iter().filter(|line| line.to_lowercase().starts_with("x-user-id"));
        let ids: Vec<_> = ids.filter_map(|line| line.split_once(": ")).map(|(_, value)| value).collect();
        assert_eq!((reply.status, ids), (200, vec![expected]), "{reply:?}");
    }
}
