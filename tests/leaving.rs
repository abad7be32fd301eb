//! A shutdown without failed requests: not ready, still serving, then drained.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast_devtenant::{Options, Tenant};
use support::{Holdfast, until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

struct Scene {
    tenant: Tenant,
    holdfast: Holdfast,
    _directory: TempDir,
}

impl Scene {
    /// A ready holdfast; `auth` are further lines of `[auth]`.
    async fn set(auth: &str) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\n{auth}\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\nurl = \"{}\"\n\
             audience = [\"{}\"]\n",
            tenant.issuer(),
            tenant.audience()
        );
        let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        Self { tenant, holdfast, _directory: directory }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_first_sigterm_readiness_falls_and_serving_goes_on_until_a_second_one() {
    let mut scene = Scene::set("lame_duck = \"10m\"").await;
    scene.holdfast.signal("TERM").await;
    until("/readyz says 503", async || (scene.holdfast.admin("/readyz").await.status == 503).then_some(()))
        .await;
    // New connections and tokens that were never seen before, too.
    for _ in 0..3 {
        let token = scene.tenant.mint().opaque().build().unwrap();
        assert_eq!(scene.holdfast.ask(&token).await.status, 200, "{}", scene.holdfast.log());
    }
    assert_eq!(scene.holdfast.admin("/healthz").await.status, 200);
    assert_eq!(scene.holdfast.admin("/readyz").await.body, "not ready: stopping\n");
    scene.holdfast.signal("TERM").await;
    assert_eq!(scene.holdfast.ended().await, Some(0), "{}", scene.holdfast.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lame_duck_time_ends_by_itself() {
    let mut scene = Scene::set("lame_duck = \"50ms\"").await;
    scene.holdfast.signal("TERM").await;
    assert_eq!(scene.holdfast.ended().await, Some(0), "{}", scene.holdfast.log());
    scene.holdfast.told("holdfast serves for another 50ms").await;
}

/// Half a head, and a connection that never said anything.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_does_not_hold_the_drain_to_its_end() {
    let mut scene = Scene::set("drain_timeout = \"10m\"\nidle_timeout = \"1h\"").await;
    let mut half = TcpStream::connect(scene.holdfast.auth_tcp()).await.unwrap();
    half.write_all(b"GET /auth HTTP/1.1\r\nHost: h\r\nX-Half: ").await.unwrap();
    let _silent = TcpStream::connect(scene.holdfast.auth_tcp()).await.unwrap();
    let mut kept = TcpStream::connect(scene.holdfast.auth_tcp()).await.unwrap();
    kept.write_all(b"GET /auth HTTP/1.1\r\nHost: h\r\n\r\nGET /auth HT").await.unwrap();
    let token = scene.tenant.mint().build().unwrap();
    // Whatever came before this is with holdfast by now.
    assert_eq!(scene.holdfast.ask(&token).await.status, 200);
    scene.holdfast.signal("TERM").await;
    assert_eq!(scene.holdfast.ended().await, Some(0), "{}", scene.holdfast.log());
}
