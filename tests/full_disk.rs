//! A disk that is full, or becomes full while holdfast runs: requests are still answered, holdfast says what
//! is wrong, and it recovers without a restart once there is room.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod support;

use std::path::Path;

use holdfast_devtenant::{Tenant, User};
use support::service::{issuer, tenant};
use support::{Holdfast, exchange, small_disk, until};
use tokio::net::TcpStream;

#[test]
fn a_full_disk_is_said_by_readyz_and_passes_without_a_restart() {
    small_disk::run("child_on_a_disk_that_is_full");
}

#[test]
fn a_disk_that_fills_up_costs_no_answer_and_what_comes_after_it_is_kept() {
    small_disk::run("child_on_a_disk_that_fills_up");
}

#[test]
fn keys_are_looked_for_again_when_the_disk_is_well() {
    small_disk::run("child_whose_keys_lie_on_a_disk_that_is_full");
}

const DEGRADED: &str = "ready, but degraded: the disk store fails";
const ERRORS: &str = "holdfast_store_errors_total{";

/// With a budget that admits all calls: filling a disk takes many.
fn config(tenant: &Tenant, data: &Path) -> String {
    format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"{}\"\n\
         sync_interval = \"5ms\"\ncheckpoint_interval = \"0s\"\n[budget]\nrate = 100000\n\
         burst = 100\nbackground_share = 1\nfirst_seen_share = 1\n{}",
        data.display(),
        issuer(tenant, "")
    )
}

async fn readyz_says(holdfast: &Holdfast, wanted: &str) {
    until(wanted, async || {
        let reply = holdfast.admin("/readyz").await;
        assert_eq!(reply.status, 200, "{}", holdfast.log());
        reply.body.starts_with(wanted).then_some(())
    })
    .await;
}

/// Waits until there is a record on the disk, besides the keys: a database without any is opened again in
/// little room.
async fn is_written(holdfast: &Holdfast) {
    until("a record is on disk", async || {
        let records = holdfast.counted("holdfast_records{", "store=\"disk\"").await;
        (records >= 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, on a small file system"]
async fn child_on_a_disk_that_is_full() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&tenant, &small_disk::directory().join("data"));
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let known = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&known).await.status, 200);
    assert_eq!(holdfast.admin("/readyz").await.body, "ready\n");

    is_written(&holdfast).await;
    holdfast.kill().await;
    let ballast = small_disk::fill_up();
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    readyz_says(&holdfast, DEGRADED).await;
    assert_ne!(holdfast.counted(ERRORS, "kind=\"degraded\",store=\"disk\"").await, 0);
    let body = r#"{"all": true}"#;
    let purge = format!(
        "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let reply = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), purge.as_bytes()).await;
    assert_eq!(reply.status, 202, "{}", holdfast.log());
    let said = "forgotten in memory: everybody; the disk store is degraded";
    assert!(reply.body.contains(said), "{}", reply.body);
    let purge = ["purge", "--all", "--admin", &holdfast.admin.to_string()];
    let output =
        tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast")).args(purge).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3), "it is not done: {output:?}");
    let revoke = ["revoke", "--subject", "auth0|zoe", "--admin", &holdfast.admin.to_string()];
    let output =
        tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast")).args(revoke).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "it is not kept: {output:?}");
    for _ in 0..2 {
        assert_eq!(holdfast.ask(&known).await.status, 200, "{}", holdfast.log());
    }
    assert_eq!(tenant.calls().userinfo, 2, "once before, and once again; then kept in memory");
    std::fs::remove_file(ballast).unwrap();
    readyz_says(&holdfast, "ready\n").await;
    holdfast.told("the disk store is back").await;
    // Only the disk knows the name.
    until("the revocation is on disk", async || {
        holdfast.admin("/revocations").await.body.contains("auth0|zoe").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, on a small file system"]
async fn child_on_a_disk_that_fills_up() {
    let tenant = tenant().await;
    // The log has some MiB preallocated, which small records would take long to fill.
    let large = User::new("auth0|large").email("large@example.com").claim("padding", "x".repeat(50_000));
    tenant.add_user(large);
    let directory = tempfile::tempdir().unwrap();
    let config = config(&tenant, &small_disk::directory().join("data"));
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let opaque = |number: i32| tenant.mint().opaque().claim("number", number).build().unwrap();
    let old = opaque(-1);
    assert_eq!(holdfast.ask(&old).await.status, 200);
    let errors = holdfast.counted(ERRORS, "store=\"disk\"").await;
    let ballast = small_disk::fill_up();
    let mut number = 0;
    until(DEGRADED, async || {
        number += 1;
        let token = tenant.mint().subject("auth0|large").opaque().claim("number", number).build().unwrap();
        assert_eq!(holdfast.ask(&token).await.status, 200, "{}", holdfast.log());
        holdfast.admin("/readyz").await.body.starts_with(DEGRADED).then_some(())
    })
    .await;
    // Users notice nothing: known users are answered from memory, new ones from the issuer and then from
    // memory.
    let new = opaque(-2);
    tenant.reset_calls();
    for token in [&old, &new, &new] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200, "{}", holdfast.log());
        assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
    }
    assert_eq!(tenant.calls().userinfo, 1);
    assert!(
        holdfast.counted(ERRORS, "store=\"disk\"").await > errors,
        "a record was not kept, and nobody is told"
    );
    assert_eq!(holdfast.admin("/healthz").await.status, 200);

    std::fs::remove_file(ballast).unwrap();
    readyz_says(&holdfast, "ready\n").await;
    let after = opaque(-3);
    assert_eq!(holdfast.ask(&after).await.status, 200);
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());
    tenant.go_down().await;
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    for (token, when) in [(&old, "before the disk was full"), (&after, "after it")] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200, "what was written {when} is lost: {}", holdfast.log());
        assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
    }
    // It was learned while there was no room.
    assert_eq!(holdfast.ask(&new).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, on a small file system"]
async fn child_whose_keys_lie_on_a_disk_that_is_full() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&tenant, &small_disk::directory().join("data"));
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let signed = tenant.mint().build().unwrap();
    assert_eq!(holdfast.ask(&signed).await.status, 200);
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());
    tenant.go_down().await;

    let ballast = small_disk::fill_up();
    let holdfast = Holdfast::start(directory.path(), &config, 1).await;
    holdfast.told("cannot fetch the keys").await;
    assert_eq!(holdfast.ask(&signed).await.status, 503, "{}", holdfast.log());

    std::fs::remove_file(ballast).unwrap();
    until("the keys", async || (holdfast.ask(&signed).await.status == 200).then_some(())).await;
}
