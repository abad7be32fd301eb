//! holdfast in the test's own process, before a dev tenant: so that a test can hold the clock.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Source;
use holdfast::guard::Priority;
use holdfast::service::{Service, ServiceError};
use holdfast_devtenant::{Options, Tenant};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{Reply, exchange, until};

/// A service that listens, everything in memory.
pub struct Running {
    pub service: Service,
    pub auth: SocketAddr,
    pub admin: SocketAddr,
}

impl Running {
    /// Starts it with these `[[issuer]]` tables and whatever else is configured, and fetches the issuers'
    /// keys.
    pub async fn start(config: &str, clock: Clock) -> Self {
        Self::start_without_keys(config, clock).await.with_keys().await
    }

    async fn with_keys(self) -> Self {
        for issuer in self.service.instance().issuers.iter() {
            issuer.refresh(Priority::Foreground).await.unwrap();
            assert!(issuer.is_ready());
        }
        self
    }

    /// The same with further lines of `[auth]`.
    pub async fn start_with_auth(auth: &str, config: &str, clock: Clock) -> Self {
        Self::from(auth, config, clock).await.with_keys().await
    }

    /// Starts it and does not wait for keys.
    pub async fn start_without_keys(config: &str, clock: Clock) -> Self {
        Self::from("", config, clock).await
    }

    /// The same with further lines of `[auth]`.
    pub async fn start_without_keys_with_auth(auth: &str, config: &str, clock: Clock) -> Self {
        Self::from(auth, config, clock).await
    }

    /// Starts it on a data directory that another one has only just let go of, and does not wait for keys.
    pub async fn start_after(config: &str, clock: &Clock) -> Self {
        until("the data directory is free", async || Self::try_start("", config, clock.clone()).await.ok())
            .await
    }

    async fn from(auth: &str, config: &str, clock: Clock) -> Self {
        Self::try_start(auth, config, clock).await.unwrap_or_else(|error| panic!("{error}\n{config}"))
    }

    async fn try_start(auth: &str, config: &str, clock: Clock) -> Result<Self, ServiceError> {
        let listen = if auth.contains("listen =") { "" } else { "listen = [\"127.0.0.1:0\"]\n" };
        let config = format!("[auth]\n{listen}{auth}\n[admin]\nlisten = \"127.0.0.1:0\"\n{config}");
        let service = Service::start(Source::text("test.toml", &config), clock).await?;
        let auth = service.auth_addresses()[0].parse().unwrap();
        let admin = service.admin_address().parse().unwrap();
        Ok(Self { service, auth, admin })
    }

    /// Asks about a token as a proxy does.
    pub async fn ask(&self, token: &str) -> Reply {
        self.ask_at("/auth", token).await
    }

    /// The same at another path or with a query.
    pub async fn ask_at(&self, path: &str, token: &str) -> Reply {
        self.raw(&request(path, &format!("Authorization: Bearer {token}\r\n"))).await
    }

    /// Sends these bytes to the auth listener and reads until it closes the connection.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        exchange(TcpStream::connect(self.auth).await.unwrap(), request).await
    }

    /// How many requests were answered for `reason`, whatever the outcome.
    pub async fn answered(&self, reason: &str) -> u64 {
        self.counted("holdfast_requests_total{", &format!("reason=\"{reason}\"")).await
    }

    /// The sum of the samples whose line begins with `name` and contains `label`.
    pub async fn counted(&self, name: &str, label: &str) -> u64 {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        counted(&exchange(stream, &request("/metrics", "")).await, name, label)
    }
}

/// The sum of the samples on a page of metrics whose line begins with `name` and contains `label`.
pub fn counted(metrics: &Reply, name: &str, label: &str) -> u64 {
    assert_eq!(metrics.status, 200);
    let lines = metrics.body.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A GET with these header lines, each ended by CRLF.
pub fn request(path: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n").into_bytes()
}

/// A dev tenant with its defaults.
pub async fn tenant() -> Tenant {
    Tenant::start(Options::default()).await.unwrap()
}

/// The `[[issuer]]` table of a tenant; `more` are further lines of it.
pub fn issuer(tenant: &Tenant, more: &str) -> String {
    format!("[[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n{more}\n", tenant.issuer(), tenant.audience())
}

/// The tenant's keys for nested JWE in files of mode 0600, and the `decryption_keys` line that names them:
/// RSA, and the shared key for `dir` with A256GCM.
pub fn decryption_keys(tenant: &Tenant) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let rsa = directory.path().join("jwe.pem");
    let shared = directory.path().join("shared.jwk");
    write_secret(&rsa, &tenant.jwe_private_key_pem());
    write_secret(&shared, &tenant.jwe_symmetric_jwk());
    let line = format!("decryption_keys = [\"{}\", \"{}\"]\n", rsa.display(), shared.display());
    (directory, line)
}

fn write_secret(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A clock that stands at the tenant's time until it is moved. The tenant's stands, too: what it signed a
/// second later would be from the future.
pub fn held_clock(tenant: &Tenant) -> Clock {
    let now = tenant.time();
    tenant.set_time(Some(now));
    Clock::held_at(Timestamp::from_secs(now))
}

/// The one value of a header, or nothing.
pub fn value<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
    let values = reply.header(name);
    assert!(values.len() <= 1, "{name} occurs more than once: {reply:?}");
    values.first().copied()
}

/// Asserts that this is a well-formed "cannot tell".
pub fn assert_undecided(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {reply:?}");
    let wait: u64 =
        value(reply, "retry-after").unwrap_or_else(|| panic!("{what}: {reply:?}")).parse().unwrap();
    assert!((1..=300).contains(&wait), "{what}: Retry-After: {wait}");
    assert_eq!(value(reply, "x-user-email"), None, "{what}");
}
