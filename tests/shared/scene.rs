//! Several instances, a Redis, a tenant.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::redis::RedisServer;
use crate::support::service::{Running, held_clock, issuer, tenant, value};
use crate::support::{PATIENCE, Reply, exchange};

pub const ALICE: &str = "alice@example.com";
pub const HOUR: Duration = Duration::from_secs(3600);

/// A Redis, a tenant, and the secret that instances share.
pub struct Scene {
    pub redis: RedisServer,
    pub tenant: Tenant,
    pub files: TempDir,
    pub clock: Clock,
}

impl Scene {
    pub async fn new() -> Option<Self> {
        Some(Self::on(RedisServer::start().await?).await)
    }

    pub async fn on(redis: RedisServer) -> Self {
        let tenant = tenant().await;
        // One person asks more than Auth0 would allow.
        tenant.set_per_user_limit(None);
        tenant.set_userinfo_limit(None);
        let clock = held_clock(&tenant);
        let scene = Self { redis, tenant, files: tempfile::tempdir().unwrap(), clock };
        scene.secret("secret", 7);
        scene
    }

    pub fn secret(&self, name: &str, byte: u8) -> PathBuf {
        write_secret(&self.files.path().join(name), &[byte; 32])
    }

    /// `[store]` and the issuer. The timeout of Redis is long by default, since the machine may be slow.
    pub fn config(&self, store: &str) -> String {
        let secret = self.files.path().join("secret");
        let timeout = if store.contains("redis_timeout") { "" } else { "redis_timeout = \"10s\"\n" };
        let secret = match store.contains("secret_file") {
            true => String::new(),
            false => format!("secret_file = \"{}\"\n", secret.display()),
        };
        let redis = self.redis.url();
        // The clock stands, so the budget, which instances share, is never refilled.
        format!(
            "[store]\nredis = \"{redis}\"\n{secret}{timeout}{store}\n[budget]\nburst = 1000\n{}",
            issuer(&self.tenant, "")
        )
    }

    /// An instance that knows the issuer's keys and is connected.
    pub async fn instance(&self) -> Running {
        self.instance_with("", &self.clock).await
    }

    pub async fn instance_with(&self, store: &str, clock: &Clock) -> Running {
        let running = Running::start(&self.config(store), clock.clone()).await;
        connected(&running).await;
        running
    }

    /// An instance on a data directory that another one has only just let go of.
    pub async fn instance_after(&self, store: &str) -> Running {
        Running::start_after(&self.config(store), &self.clock).await
    }

    pub fn opaque(&self) -> String {
        self.tenant.mint().opaque().build().unwrap()
    }

    pub fn silence(&self) {
        for endpoint in [Endpoint::Discovery, Endpoint::Jwks, Endpoint::Userinfo] {
            self.tenant.set_fault(endpoint, Fault::Status(503));
        }
    }
}

pub fn write_secret(file: &Path, bytes: &[u8]) -> PathBuf {
    std::fs::write(file, bytes).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_owned()
}

pub async fn connected(running: &Running) {
    let instance = running.service.instance();
    tokio::time::timeout(PATIENCE, instance.stores.shared().unwrap().connected()).await.unwrap();
}

pub fn assert_alice(reply: &Reply) {
    assert_eq!((reply.status, value(reply, "x-user-email")), (200, Some(ALICE)), "{reply:?}");
}

pub async fn admin(running: &Running, request: String) -> Reply {
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await
}

pub async fn readyz(running: &Running) -> String {
    admin(running, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned())
        .await
        .body
}

pub async fn purge(running: &Running, body: &str) -> Reply {
    order(running, "/purge", body).await
}

/// Sends an order to the admin listener.
pub async fn order(running: &Running, path: &str, body: &str) -> Reply {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    admin(running, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
}

pub async fn lookups(running: &Running, result: &str) -> u64 {
    running.counted("holdfast_store_lookups_total{", &format!("result=\"{result}\",store=\"shared\"")).await
}

/// How many answers came from a record in Redis. (Lookups count the issuer's keys at the start, too.)
pub async fn shared_hits(running: &Running) -> u64 {
    running.counted("holdfast_tier_hits_total{", "store=\"shared\"").await
}

pub async fn errors(running: &Running, kind: &str) -> u64 {
    running.counted("holdfast_store_errors_total{", &format!("kind=\"{kind}\",store=\"shared\"")).await
}
