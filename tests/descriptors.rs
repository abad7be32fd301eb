//! Requests are still answered when connections use all the file descriptors that they may have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast_devtenant::{Options, Tenant};
use support::Holdfast;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

struct Scene {
    tenant: Tenant,
    holdfast: Holdfast,
    _directory: TempDir,
}

impl Scene {
    /// A holdfast under these limits of file descriptors, with a data directory.
    async fn limited(soft: u32, hard: u32) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\nidle_timeout = \"1h\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\n\
             path = \"data\"\n[[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n",
            tenant.issuer(),
            tenant.audience()
        );
        std::fs::write(directory.path().join("holdfast.toml"), config).unwrap();
        let mut command = Command::new("sh");
        let limits =
            format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" serve --config holdfast.toml");
        command.args(["-c", &limits, env!("CARGO_BIN_EXE_holdfast")]);
        let holdfast = Holdfast::launch(command, directory.path(), 1, &[]).await.ready().await;
        Self { tenant, holdfast, _directory: directory }
    }

    /// This many connections without a request. Those that are not accepted wait in the kernel's queue.
    async fn idle(&self, number: usize) -> Vec<TcpStream> {
        let mut idle = Vec::new();
        for _ in 0..number {
            idle.push(TcpStream::connect(self.holdfast.auth_tcp()).await.unwrap());
        }
        idle
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_so_that_idle_connections_shut_out_nobody() {
    let scene = Scene::limited(128, 600).await;
    let _idle = scene.idle(300).await;
    let token = scene.tenant.mint().build().unwrap();
    assert_eq!(scene.holdfast.ask(&token).await.status, 200, "{}", scene.holdfast.log());
    assert_eq!(scene.holdfast.admin("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_and_the_issuer_are_reached_while_the_auth_listener_is_full() {
    let scene = Scene::limited(256, 256).await;
    let said = "there are 256 file descriptors, so each auth listener takes 192 connections";
    assert!(scene.holdfast.log().contains(said), "{}", scene.holdfast.log());
    let _all_but_one = scene.idle(191).await;
    // Its email only the issuer knows: that takes another connection.
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(scene.holdfast.ask(&token).await.status, 200, "{}", scene.holdfast.log());
    let _more_than_all = scene.idle(60).await;
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(scene.holdfast.admin(path).await.status, 200, "{path}");
    }
    assert!(!scene.holdfast.log().contains("cannot accept"), "{}", scene.holdfast.log());
}
