//! A tenant starts, counts, rotates, goes down, comes back and ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use std::collections::BTreeMap;
use std::io;

use holdfast_devtenant::{Calls, Options, Tenant, TenantError};
use josekit::jwk::JwkSet;
use support::{PATIENCE, Reply, get, request, tenant, userinfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const JWKS: &str = "/.well-known/jwks.json";
const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn discovery_leads_to_the_keys_and_to_userinfo() {
    let tenant = tenant().await;
    let discovery = get(tenant.address(), DISCOVERY).await.json();
    assert_eq!(discovery["issuer"], tenant.issuer());
    assert_eq!(tenant.issuer(), format!("http://{}/", tenant.address()));
    assert_eq!(discovery["jwks_uri"], format!("{}.well-known/jwks.json", tenant.issuer()));
    assert_eq!(discovery["userinfo_endpoint"], format!("{}userinfo", tenant.issuer()));
}

#[tokio::test]
async fn every_call_is_counted_where_it_was_made() {
    let tenant = tenant().await;
    for path in [DISCOVERY, JWKS, JWKS, "/userinfo", "/nowhere", "/dev/calls", "/"] {
        get(tenant.address(), path).await;
    }
    userinfo(&tenant, &tenant.mint().build().unwrap()).await;
    let expected = Calls {
        discovery: 1,
        jwks: 2,
        userinfo: 2,
        total: 6,
        userinfo_by_status: BTreeMap::from([(200, 1), (401, 1)]),
    };
    assert_eq!(tenant.calls(), expected);
    assert_eq!(tenant.userinfo_call_times().len(), 2);
    tenant.reset_calls();
    assert_eq!(tenant.calls(), Calls::default());
    assert!(tenant.userinfo_call_times().is_empty());
}

#[tokio::test]
async fn rotation_adds_keys_and_revocation_takes_the_old_ones_away() {
    let tenant = tenant().await;
    let old = tenant.mint().build().unwrap();
    let rs256_kids = async || {
        let keys = JwkSet::from_bytes(get(tenant.address(), JWKS).await.body).unwrap();
        let rs256 = keys.keys().into_iter().filter(|key| key.algorithm() == Some("RS256"));
        rs256.map(|key| key.key_id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rs256_kids().await, ["dev-rs-1"]);
    tenant.rotate_keys();
    assert_eq!(rs256_kids().await, ["dev-rs-2", "dev-rs-1"]);
    let new = tenant.mint().build().unwrap();
    assert_eq!((userinfo(&tenant, &old).await.status, userinfo(&tenant, &new).await.status), (200, 200));
    tenant.revoke_old_keys();
    assert_eq!(rs256_kids().await, ["dev-rs-2"]);
    assert_eq!((userinfo(&tenant, &old).await.status, userinfo(&tenant, &new).await.status), (401, 200));
}

#[tokio::test]
async fn down_means_refused_and_cut_and_back_means_the_same_port_and_the_same_keys() {
    let tenant = tenant().await;
    let token = tenant.mint().build().unwrap();
    let mut idle = TcpStream::connect(tenant.address()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: dev\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    tenant.go_down().await;
    let refused = request(tenant.address(), "GET", JWKS, None).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap();
    assert!(cut.is_ok() || cut.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));

    tenant.come_back().await.unwrap();
    tenant.come_back().await.unwrap();
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
}

#[tokio::test]
async fn the_server_ends_with_its_last_handle() {
    let tenant = tenant().await;
    let address = tenant.address();
    let other = tenant.clone();
    drop(tenant);
    assert_eq!(get(address, JWKS).await.status, 200);
    drop(other);
    // The listener closes as soon as its task runs.
    let refused = async {
        while request(address, "GET", JWKS, None).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn stop_ends_it_for_every_handle() {
    let tenant = tenant().await;
    let other = tenant.clone();
    tenant.stop().await;
    assert!(request(other.address(), "GET", JWKS, None).await.is_err());
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let options = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    assert!(matches!(Tenant::start(options).await, Err(TenantError::NotLoopback(_))));
    let tenant = tenant().await;
    let options = Options { listen: tenant.address(), ..Options::default() };
    assert!(matches!(Tenant::start(options).await, Err(TenantError::Listen { .. })));
}

#[tokio::test]
async fn two_tenants_of_one_process_sign_with_different_keys() {
    let (one, two) = (tenant().await, tenant().await);
    let modulus = |keys: Reply| keys.json()["keys"][0]["n"].as_str().unwrap().to_owned();
    assert_ne!(modulus(get(one.address(), JWKS).await), modulus(get(two.address(), JWKS).await));
}

#[tokio::test]
async fn people_with_curl_can_do_what_tests_can() {
    let tenant = tenant().await;
    let send = async |method: &str, path: &str| request(tenant.address(), method, path, None).await.unwrap();
    assert!(send("GET", "/").await.body.contains("/dev/token"));
    for shape in ["jws", "jwe", "dir", "opaque"] {
        for email in ["none", "direct", "nested", "namespaced"] {
            let token = send("GET", &format!("/dev/token?shape={shape}&email={email}&sub=auth0%7Cbob")).await;
            assert_eq!(token.status, 200, "{shape} {email}");
            assert_eq!(userinfo(&tenant, &token.body).await.json()["sub"], "auth0|bob", "{shape} {email}");
        }
    }
    let token = send("GET", "/dev/token?session=s1").await.body;
    let payload = token.split('.').nth(1).unwrap().replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - payload.len() % 4) % 4);
    let claims = openssl::base64::decode_block(&(payload + &padding)).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims[format!("{}/session_id", tenant.audience())], "s1");
    assert_eq!(send("GET", "/dev/token?shape=round").await.status, 400);
    assert_eq!(send("GET", "/dev/token?expires_in=soon").await.status, 400);
    let token = tenant.mint().build().unwrap();
    let now = async || userinfo(&tenant, &token).await.status;

    assert_eq!(send("POST", "/dev/fault?endpoint=userinfo&kind=429&retry_after=5").await.status, 200);
    assert_eq!(userinfo(&tenant, &token).await.header("retry-after"), Some("5"));
    assert_eq!(send("POST", "/dev/fault?kind=nonsense").await.status, 400);
    send("DELETE", "/dev/fault").await;
    assert_eq!(now().await, 200);
    send("POST", "/dev/limit?burst=0").await;
    assert_eq!(now().await, 429);
    send("POST", "/dev/limit").await;
    assert_eq!(now().await, 200);
    send("POST", "/dev/rotate").await;
    send("POST", "/dev/revoke-keys").await;
    assert_eq!(now().await, 401);
    let fresh = send("GET", "/dev/token?sub=auth0%7Cnew").await.body;
    assert_eq!(userinfo(&tenant, &fresh).await.status, 401);
    send("POST", "/dev/user?sub=auth0%7Cnew&email=new%40example.com").await;
    assert_eq!(userinfo(&tenant, &fresh).await.json()["email"], "new@example.com");
    send("POST", &format!("/dev/revoke?token={fresh}")).await;
    assert_eq!(userinfo(&tenant, &fresh).await.status, 401);
    assert_eq!(send("GET", "/dev/calls").await.json()["userinfo"], tenant.calls().userinfo);
    send("DELETE", "/dev/calls").await;
    assert_eq!(tenant.calls().total, 0);
    assert_eq!(send("GET", "/dev/nothing").await.status, 404);
}
