//! The issuer's keys: changed during an outage, emptied by mistake.

use holdfast::guard::Priority;
use holdfast_devtenant::{Endpoint, Fault};

use crate::drill::{DAY, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_during_an_outage_are_found_after_it() {
    let mut stage = Stage::set("key rotation during the outage").await;
    let mint = |stage: &Stage| {
        let mint = stage.tenant.mint().algorithm("ES256").expires_in(i64::try_from(DAY).unwrap());
        mint.email_direct("alice@example.com").build().unwrap()
    };
    let old = mint(&stage);
    stage.tenant.go_down().await;
    stage.tenant.rotate_keys();
    let new: Vec<String> = (0..50).map(|_| mint(&stage)).collect();
    assert_eq!(stage.ask(&old).await.status, 200, "the keys that are known still verify");
    assert_eq!(
        stage.ask_all(&new).await.count(503),
        50,
        "a key that cannot be asked for is no reason to say no"
    );
    stage.tenant.come_back().await.unwrap();
    stage.forget_calls();
    stage.advance(301);
    assert_eq!(stage.ask_all(&new).await.count(200), 50);
    assert_eq!(stage.ask(&old).await.status, 200);
    let calls = stage.tenant.calls();
    assert!(calls.jwks <= 2 && calls.discovery <= 2, "{calls:?}");
    stage.row();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_jwks_never_replaces_good_keys() {
    let mut stage = Stage::set("JWKS emptied by mistake").await;
    let keys = stage.issuer().key_ids();
    let faults =
        [Fault::EmptyKeys, Fault::Garbage, Fault::WrongShape, Fault::Truncated, Fault::Huge(1 << 20)];
    for (number, fault) in faults.into_iter().enumerate() {
        stage.tenant.set_fault(Endpoint::Jwks, fault.clone());
        assert!(stage.issuer().refresh(Priority::Background).await.is_err(), "{fault:?}");
        stage.advance(60);
        assert_eq!(stage.issuer().key_ids(), keys, "{fault:?}");
        let token = stage.users(&format!("user-{number}"), 1).pop().unwrap();
        assert_eq!(stage.ask(&token).await.status, 200, "{fault:?}");
    }
    stage.row();
}
