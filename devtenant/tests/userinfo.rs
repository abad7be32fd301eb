//! `/userinfo` answers as Auth0's: to whom, what, how often.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use std::time::{Duration, Instant};

use holdfast_devtenant::{Options, RateLimit, Tenant, User};
use serde_json::json;
use support::{get, request, tenant, userinfo};

#[tokio::test]
async fn every_shape_the_tenant_stands_by_is_accepted() {
    let tenant = tenant().await;
    let mint = || tenant.mint();
    for (name, builder) in [
        ("jws", mint()),
        ("es256", mint().algorithm("ES256")),
        ("eddsa", mint().algorithm("EdDSA")),
        ("hs256", mint().algorithm("HS256").hs_secret([9; 32])),
        ("nested", mint().nested_jwe()),
        ("ecdh", mint().nested_jwe_with("ECDH-ES+A256KW", "A256CBC-HS512")),
        ("bare under a shared key", mint().nested_jwe_with("dir", "A256GCM").bare_jwe()),
        ("dir", mint().tenant_dir_jwe()),
        ("opaque", mint().opaque()),
        ("another kid", mint().kid(Some("other"))),
        ("no exp", mint().remove_claim("exp")),
    ] {
        let reply = userinfo(&tenant, &builder.build().unwrap()).await;
        assert_eq!(reply.status, 200, "{name}");
        let profile = json!({"sub": "auth0|alice", "name": "Alice", "email": "alice@example.com", "email_verified": true});
        assert_eq!(reply.json(), profile, "{name}");
    }
}

#[tokio::test]
async fn everything_else_is_unauthorized() {
    let tenant = tenant().await;
    let stranger = Tenant::start(Options::default()).await.unwrap();
    let mint = || tenant.mint();
    for (name, builder) in [
        ("expired", mint().expires_in(-1)),
        ("expired opaque", mint().opaque().expires_in(-1)),
        ("expired dir", mint().tenant_dir_jwe().expires_in(-1)),
        ("not yet", mint().not_before_in(60)),
        ("forged", mint().signed_by_stranger()),
        ("forged inside", mint().nested_jwe().signed_by_stranger()),
        ("foreign dir", mint().tenant_dir_jwe().signed_by_stranger()),
        ("foreign opaque", mint().opaque().signed_by_stranger()),
        ("unsigned", mint().unsigned()),
        ("bare under a public key", mint().bare_jwe()),
        ("unknown user", mint().subject("auth0|nobody")),
        ("another tenant's", stranger.mint()),
        ("another tenant's opaque", stranger.mint().opaque()),
    ] {
        let reply = userinfo(&tenant, &builder.build().unwrap()).await;
        assert_eq!((reply.status, reply.body.as_str()), (401, "Unauthorized"), "{name}");
        assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#), "{name}");
    }
    for token in ["", "x", "a.b.c", "a.b.c.d.e", "....", "ey.ey.ey"] {
        assert_eq!(userinfo(&tenant, token).await.status, 401, "{token}");
    }
    assert_eq!(get(tenant.address(), "/userinfo").await.status, 401);
    let put = request(tenant.address(), "PUT", "/userinfo", Some(&mint().build().unwrap())).await.unwrap();
    assert_eq!(put.status, 405);
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_or_its_user_forgotten() {
    let tenant = tenant().await;
    let (one, two) = (tenant.mint().opaque().build().unwrap(), tenant.mint().build().unwrap());
    tenant.revoke_token(&one);
    assert_eq!(userinfo(&tenant, &one).await.status, 401);
    assert_eq!(userinfo(&tenant, &two).await.status, 200);
    tenant.remove_user("auth0|alice");
    assert_eq!(userinfo(&tenant, &two).await.status, 401);
}

#[tokio::test]
async fn a_user_is_told_as_they_are() {
    let tenant = tenant().await;
    let told = async |sub: &str| userinfo(&tenant, &tenant.mint().subject(sub).build().unwrap()).await.json();
    assert_eq!(told("auth0|noemail").await, json!({"sub": "auth0|noemail", "name": "No Email"}));
    tenant.add_user(
        User::new("auth0|new").email("n@example.com").email_verified(false).claim("https://x/role", "r"),
    );
    assert_eq!(
        told("auth0|new").await,
        json!({"sub": "auth0|new", "email": "n@example.com", "email_verified": false, "https://x/role": "r"})
    );
}

#[tokio::test]
async fn the_tenants_time_ends_tokens() {
    let tenant = tenant().await;
    tenant.set_time(Some(1_000));
    let token = tenant.mint().expires_in(60).build().unwrap();
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
    tenant.set_time(Some(1_059));
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
    tenant.set_time(Some(1_060));
    assert_eq!(userinfo(&tenant, &token).await.status, 401);
    tenant.set_time(None);
    assert!(tenant.time() > 1_700_000_000);
}

#[tokio::test]
async fn the_tenants_limit_lets_exactly_its_burst_through_however_many_ask_at_once() {
    let options = Options { userinfo_limit: Some(RateLimit::new(5, 0.0)), ..Options::default() };
    let tenant = Tenant::start(options).await.unwrap();
    let token = tenant.mint().tenant_dir_jwe().build().unwrap();
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (tenant, token) = (tenant.clone(), token.clone());
            tokio::spawn(async move { userinfo(&tenant, &token).await.status })
        })
        .collect();
    let mut passed = 0;
    for call in calls {
        passed += u32::from(call.await.unwrap() == 200);
    }
    assert_eq!(passed, 5);
    let calls = tenant.calls();
    assert_eq!(calls.userinfo, 40);
    assert_eq!(calls.userinfo_by_status, [(200, 5), (429, 35)].into());
    let times = tenant.userinfo_call_times();
    assert_eq!(times.len(), 40);
    assert!(times.is_sorted());
}

#[tokio::test]
async fn a_refusal_tells_when_to_come_back() {
    let tenant = tenant().await;
    tenant.set_time(Some(1_000));
    tenant.set_userinfo_limit(Some(RateLimit::new(1, 0.1)));
    let token = tenant.mint().build().unwrap();
    let first = userinfo(&tenant, &token).await;
    assert_eq!((first.status, first.header("x-ratelimit-limit")), (200, Some("1")));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("0"));
    let second = userinfo(&tenant, &token).await;
    assert_eq!(second.status, 429);
    assert_eq!(second.json()["error"], "too_many_requests");
    let wait: u64 = second.header("retry-after").unwrap().parse().unwrap();
    assert_eq!((wait, second.header("x-ratelimit-reset")), (10, Some("1010")));
    tenant.set_time(Some(1_009));
    assert_eq!(userinfo(&tenant, &token).await.status, 429);
    tenant.set_time(Some(1_010));
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
    tenant.set_userinfo_limit(None);
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
}

#[tokio::test]
async fn one_users_limit_leaves_the_others_alone() {
    let options = Options { per_user_limit: Some(RateLimit::AUTH0_PER_USER), ..Options::default() };
    let tenant = Tenant::start(options).await.unwrap();
    let alice = tenant.mint().tenant_dir_jwe().build().unwrap();
    let bob = tenant.mint().tenant_dir_jwe().subject("auth0|bob").build().unwrap();
    for left in (0..10).rev() {
        let reply = userinfo(&tenant, &alice).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
    }
    let refused = userinfo(&tenant, &alice).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error_description"], "User limit has been reached");
    assert_eq!(userinfo(&tenant, &bob).await.status, 200);
}

#[tokio::test]
async fn a_limit_fills_again_in_real_time() {
    let tenant = tenant().await;
    let token = tenant.mint().tenant_dir_jwe().build().unwrap();
    tenant.set_userinfo_limit(Some(RateLimit::new(1, 20.0)));
    let start = Instant::now();
    assert_eq!(userinfo(&tenant, &token).await.status, 200);
    while userinfo(&tenant, &token).await.status == 429 {}
    assert!(start.elapsed() >= Duration::from_millis(50));
}
