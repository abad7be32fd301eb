//! The data directory is deleted while holdfast runs: requests are answered, holdfast says what is wrong, and
//! later records and all revocations are kept.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod support;

use holdfast_devtenant::User;
use support::service::{issuer, tenant};
use support::{Holdfast, exchange, until};
use tokio::net::TcpStream;

const DEGRADED: &str = "ready, but degraded: the disk store fails";

async fn readyz_says(holdfast: &Holdfast, wanted: &str) {
    until(wanted, async || holdfast.admin("/readyz").await.body.starts_with(wanted).then_some(())).await;
}

async fn revoke(holdfast: &Holdfast, subject: &str) {
    let body = format!(r#"{{"subject": "{subject}"}}"#);
    let request = format!(
        "POST /revoke HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let reply = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), request.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_deleted_is_said_by_readyz_and_made_again_with_the_same_secret() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"{}\"\n\
         sync_interval = \"5ms\"\n{}",
        volume.join("data").display(),
        issuer(&tenant, "")
    );
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let opaque = |number: i32| tenant.mint().opaque().claim("number", number).build().unwrap();
    let (before, after) = (opaque(1), opaque(2));
    assert_eq!(holdfast.ask(&before).await.status, 200);
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let revoked = tenant.mint().subject("auth0|bob").build().unwrap();
    revoke(&holdfast, "auth0|bob").await;
    assert_eq!(holdfast.ask(&revoked).await.status, 401, "{}", holdfast.log());

    // With what it lies in, which holdfast does not make again: so it stays degraded.
    std::fs::remove_dir_all(&volume).unwrap();
    readyz_says(&holdfast, DEGRADED).await;
    let asked = tenant.calls().userinfo;
    assert_eq!(holdfast.ask(&before).await.status, 200, "memory answers: {}", holdfast.log());
    assert_eq!(tenant.calls().userinfo, asked);
    holdfast.told("was deleted or replaced").await;

    std::fs::create_dir(&volume).unwrap();
    readyz_says(&holdfast, "ready\n").await;
    holdfast.told("has been written again").await;
    assert_eq!(holdfast.ask(&after).await.status, 200);
    // When this one is on the disk, all are.
    revoke(&holdfast, "auth0|nobody").await;
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    assert_eq!(holdfast.ask(&revoked).await.status, 401, "{}", holdfast.log());
    tenant.go_down().await;
    assert_eq!(holdfast.ask(&after).await.status, 200, "{}", holdfast.log());
}
