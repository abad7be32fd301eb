//! Each fault shows on the wire as what it is called.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use std::io;
use std::time::{Duration, Instant};

use holdfast_devtenant::{Endpoint, Fault, Tenant};
use josekit::jwk::JwkSet;
use josekit::jws::{self, RS256};
use serde_json::json;
use support::{Reply, get, request, tenant, userinfo};

const JWKS: &str = "/.well-known/jwks.json";
const DISCOVERY: &str = "/.well-known/openid-configuration";

async fn with(tenant: &Tenant, fault: Fault) -> io::Result<Reply> {
    tenant.set_fault(Endpoint::Userinfo, fault);
    let token = tenant.mint().build().unwrap();
    request(tenant.address(), "GET", "/userinfo", Some(&token)).await
}

#[tokio::test]
async fn a_rate_limit_says_what_it_was_told_to_say() {
    let tenant = tenant().await;
    let reply = with(&tenant, Fault::RateLimited { retry_after: Some("soon".into()), reset: Some(77) })
        .await
        .unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("soon")));
    assert_eq!(reply.header("x-ratelimit-reset"), Some("77"));
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(reply.json()["error"], "too_many_requests");
    let bare = with(&tenant, Fault::RateLimited { retry_after: None, reset: None }).await.unwrap();
    assert_eq!((bare.header("retry-after"), bare.header("x-ratelimit-reset")), (None, None));
    tenant.set_time(Some(100));
    let user = with(&tenant, Fault::UserRateLimited).await.unwrap();
    assert_eq!((user.status, user.header("x-ratelimit-limit")), (429, Some("10")));
    assert_eq!((user.header("retry-after"), user.header("x-ratelimit-reset")), (Some("12"), Some("112")));
}

#[tokio::test]
async fn answers_that_are_wrong_are_wrong_in_the_way_they_are_named() {
    let tenant = tenant().await;
    assert_eq!(with(&tenant, Fault::Status(503)).await.unwrap().status, 503);
    assert_eq!(with(&tenant, Fault::Forbidden).await.unwrap().status, 403);
    let page = with(&tenant, Fault::Garbage).await.unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(serde_json::from_str::<serde_json::Value>(&page.body).is_err());
    let list = with(&tenant, Fault::WrongShape).await.unwrap();
    assert!(list.status == 200 && list.json().is_array());
    let huge = with(&tenant, Fault::Huge(300_000)).await.unwrap();
    assert_eq!((huge.status, huge.body.len()), (200, 300_000));
    assert!(huge.json().is_object());
    let away = with(&tenant, Fault::Redirect("http://127.0.0.1:1/x".into())).await.unwrap();
    assert_eq!((away.status, away.header("location")), (302, Some("http://127.0.0.1:1/x")));
    let own = Fault::Custom { status: 418, headers: vec![("x-a".into(), "b".into())], body: "tea".into() };
    let own = with(&tenant, own).await.unwrap();
    assert_eq!((own.status, own.header("x-a"), own.body.as_str()), (418, Some("b"), "tea"));
    let other = with(&tenant, Fault::WrongSubject).await.unwrap();
    assert_eq!((other.status, &other.json()["sub"]), (200, &json!("auth0|somebody-else")));
    let nobody = with(&tenant, Fault::NoSubject).await.unwrap();
    assert!(nobody.status == 200 && nobody.json().get("sub").is_none());
}

#[tokio::test]
async fn a_truncated_answer_announces_more_than_it_sends() {
    let tenant = tenant().await;
    let reply = with(&tenant, Fault::Truncated).await.unwrap();
    let announced: usize = reply.header("content-length").unwrap().parse().unwrap();
    assert!(reply.body.starts_with('{') && reply.body.len() < announced);
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_a_close() {
    let tenant = tenant().await;
    assert_eq!(with(&tenant, Fault::Reset).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    tenant.clear_faults();
    assert_eq!(userinfo(&tenant, &tenant.mint().build().unwrap()).await.status, 200);
    assert_eq!(tenant.calls().userinfo, 2);
    assert_eq!(tenant.calls().userinfo_by_status, [(200, 1)].into(), "a reset has no status");
}

#[tokio::test]
async fn a_slow_answer_is_right_but_late() {
    let tenant = tenant().await;
    let start = Instant::now();
    assert_eq!(with(&tenant, Fault::Slow(Duration::from_millis(80))).await.unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_call_that_hangs_has_no_end_but_the_tenants() {
    let tenant = tenant().await;
    let mut call = tokio::spawn({
        let tenant = tenant.clone();
        async move { with(&tenant, Fault::Hang).await }
    });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut call).await.is_err());
    assert_eq!(tenant.calls().userinfo, 1, "it counts when it arrives");
    tenant.go_down().await;
    assert_ne!(call.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn wrong_keys_keep_their_ids_and_verify_nothing() {
    let tenant = tenant().await;
    let token = tenant.mint().build().unwrap();
    let verifies = async || {
        let keys = JwkSet::from_bytes(get(tenant.address(), JWKS).await.body).unwrap();
        let verifier = RS256.verifier_from_jwk(keys.get("dev-rs-1")[0]).unwrap();
        jws::deserialize_compact(&token, &verifier).is_ok()
    };
    assert!(verifies().await);
    tenant.set_fault(Endpoint::Jwks, Fault::WrongKey);
    assert!(!verifies().await);
    tenant.set_fault(Endpoint::Jwks, Fault::EmptyKeys);
    assert_eq!(get(tenant.address(), JWKS).await.json(), json!({"keys": []}));
    tenant.clear_faults();
    assert!(verifies().await);
}

#[tokio::test]
async fn a_fault_shows_only_where_it_was_set() {
    let tenant = tenant().await;
    let token = tenant.mint().build().unwrap();
    let statuses = async || {
        let userinfo = userinfo(&tenant, &token).await.status;
        (get(tenant.address(), DISCOVERY).await.status, get(tenant.address(), JWKS).await.status, userinfo)
    };
    tenant.set_fault(Endpoint::Jwks, Fault::Status(500));
    assert_eq!(statuses().await, (200, 500, 200));
    tenant.set_fault(Endpoint::Discovery, Fault::Status(502));
    assert_eq!(statuses().await, (502, 500, 200));
    tenant.set_fault(Endpoint::All, Fault::Status(504));
    assert_eq!(statuses().await, (504, 504, 504));
    tenant.clear_faults();
    assert_eq!(statuses().await, (200, 200, 200));
}
