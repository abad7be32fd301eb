//! The shared store: sealed records in Redis, so that several instances share what one of them learned.
//!
//! It is optional, and it is nobody's only copy: each instance has its memory and its disk beside it. As the disk store
//! it keeps bytes and knows no key. Three rules shape it:
//!
//! 1. **A Redis that is slow or away never hurts.** A read waits for `read_timeout` at most; after three in a row that
//!    waited in vain, or one error, no request waits until a background task (`reconnect.rs`) has connected anew. That is why the
//!    connection is kept here and not by the client library's own manager, and why it is not a
//!    `guard::breaker`, whose probes are requests: here nobody's request is ever the probe.
//! 2. **Writes go behind the request**, from a bounded map of what each record shall become (`pending.rs`).
//! 3. **A no leaves a mark.** A record that is forgotten is replaced by the time at which that was, and a record must be
//!    younger than what is there to be written. So neither an instance that was slow, nor one whose disk still
//!    has the old record, brings back what was forgotten. The others are told to forget it, too (`forget.rs`).

mod connection;
mod forget;
mod names;
mod pending;
mod reconnect;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ConnectionInfo, IntoConnectionInfo as _};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

pub use self::forget::Forget;

use self::connection::Connection;
use self::names::Names;
use self::pending::{Change, Pending};
use self::reconnect::Keeper;
use super::purge::Purge;
use crate::clock::{Clock, Timestamp};
use crate::private_file;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::policy::FUTURE_TOLERANCE;
use crate::tiers::record::Family;
use crate::tiers::seal::Sealer;
use crate::tiers::secret::InstanceSecret;

/// How many orders to forget may wait to be carried out in this instance.
const MAX_FORGETS: usize = 1024;

/// The longest password file that is read, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Where Redis is, and the name and password to log in with. Shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress(String);

impl RedisAddress {
    /// Reads a URL: `redis://`, `rediss://` (TLS) or `unix://`.
    ///
    /// # Errors
    /// What is allowed, as a text that does not hold the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let allowed = "a URL such as redis://user:password@host:6379/0, rediss://host (TLS), \
                       or unix:///run/redis.sock?db=0&user=name&pass=password";
        // A fragment could switch off the check of the server's certificate.
        let known = ["redis://", "rediss://", "unix://"].iter().any(|scheme| url.starts_with(scheme));
        if !known || url.contains('#') {
            return Err(allowed.to_owned());
        }
        let address = Self(url.to_owned());
        address.info().map(|_| address).map_err(|_| allowed.to_owned())
    }

    fn info(&self) -> Result<ConnectionInfo, SharedError> {
        self.0.as_str().into_connection_info().map_err(SharedError::from)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisAddress")
    }
}

/// Where the shared store is and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// Where Redis is.
    pub address: RedisAddress,
    /// A file with the password, in place of the URL's; read at each connect, so that it may change.
    pub password_file: Option<PathBuf>,
    /// How long a request waits for a record.
    pub read_timeout: Duration,
    /// How many bytes of writes may wait.
    pub queue: usize,
}

impl SharedSettings {
    /// The defaults, for this address.
    #[must_use]
    pub const fn at(address: RedisAddress) -> Self {
        let queue = 8 * 1024 * 1024;
        Self { address, password_file: None, read_timeout: Duration::from_millis(50), queue }
    }
}

/// Why the shared store has nothing to tell. Holds no password, and of what the server says only its code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// There is no connection at present.
    #[error("there is no connection to Redis")]
    Away,
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// Redis, or the way there, failed.
    #[error("Redis failed: {0}")]
    Redis(String),
    /// Redis answered, and said no: its word for why, such as `NOAUTH` or `OOM`.
    #[error("Redis says {0}")]
    Refused(String),
    /// What is there is of another type than a record, or too long for one.
    #[error("what Redis has is no record")]
    NoRecord,
    /// The file with the password is no good.
    #[error("cannot use the password file of Redis: {} {problem}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl SharedError {
    /// The metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Timeout => "timeout",
            Self::Redis(_) => "read",
            Self::Refused(_) => "refused",
            Self::NoRecord => "no_record",
            Self::Password { .. } => "password",
        }
    }
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Connecting for the first time.
    Starting,
    /// Connected.
    Well,
    /// Trying to connect.
    Away,
}

/// The shared store. Dropping it ends its task and leaves unwritten what waits: see [`SharedStore::flush`].
pub struct SharedStore {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

/// What requests and the task share.
struct Shared {
    settings: SharedSettings,
    names: Names,
    sealer: Arc<Sealer>,
    /// Who says so, in messages: this process.
    sender: u64,
    /// The open connection; none while the store is away.
    connection: ArcSwapOption<Connection>,
    pending: Mutex<Pending>,
    arrived: Notify,
    /// Redis reads, but refuses to write: it is full, say.
    refuses: AtomicBool,
    /// Held by whoever writes, so that what a purge forgets is not written at the same moment.
    writing: tokio::sync::Mutex<()>,
    health: watch::Sender<Health>,
    forgets: broadcast::Sender<Forget>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl SharedStore {
    /// Starts the store's task, which connects. Never fails because Redis is away; has to be called within a runtime.
    ///
    /// # Errors
    /// When the password file cannot be read, or the system gives no random bytes.
    pub fn start(
        settings: SharedSettings,
        secret: &InstanceSecret,
        sealer: Arc<Sealer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SharedError> {
        settings.password_file.as_deref().map(read_password).transpose()?;
        let mut sender = [0; 8];
        aws_lc_rs::rand::fill(&mut sender)
            .map_err(|_| SharedError::Redis("the system gives no random bytes".to_owned()))?;
        let shared = Arc::new(Shared {
            names: Names::new(secret).map_err(|failed| SharedError::Redis(failed.to_string()))?,
            sealer,
            sender: u64::from_le_bytes(sender),
            connection: ArcSwapOption::empty(),
            pending: Mutex::new(Pending::new(settings.queue)),
            arrived: Notify::new(),
            refuses: AtomicBool::new(false),
            writing: tokio::sync::Mutex::new(()),
            health: watch::Sender::new(Health::Starting),
            forgets: broadcast::Sender::new(MAX_FORGETS),
            settings,
            clock,
            metrics,
        });
        let keeper = tokio::spawn(Keeper::new(shared.clone()).run());
        Ok(Self { shared, keeper })
    }

    /// The value under `key`. Waits no longer than the read timeout; not at all while Redis is away.
    ///
    /// # Errors
    /// When Redis cannot tell: to the request, that is a miss.
    pub async fn lookup(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, SharedError> {
        let connection = self.shared.connection.load_full().ok_or(SharedError::Away)?;
        if connection.is_lost() {
            return Err(SharedError::Away);
        }
        // Asked before reading: what is not to be forgotten by then is a mark in Redis already.
        if self.shared.pending().is_forgetting(family, key) {
            return Ok(None);
        }
        connection.get(&self.shared.names.of(family, key), self.shared.settings.read_timeout).await
    }

    /// Queues a write of a record that was verified at `verified_at`. Never blocks. Returns whether there was room.
    pub fn put(
        &self,
        family: Family,
        key: &[u8],
        sealed: Vec<u8>,
        verified_at: Timestamp,
        useless_from: Timestamp,
    ) -> bool {
        let latest = self.shared.clock.now().after(FUTURE_TOLERANCE).after(useless_from.since(verified_at));
        let change = Change::Put { sealed, verified_at, useless_from, latest };
        let queued = self.shared.pending().add((family, key.to_vec()), change);
        self.shared.arrived.notify_one();
        queued
    }

    /// Queues that a record is forgotten, here and by all instances. Never blocks, and is never turned away.
    /// `useless_from` is when a record that is verified now would be dropped. Until it is done, which takes
    /// milliseconds, or as long as Redis is away, another instance may still find the record; this one does not.
    pub fn forget(&self, family: Family, key: &[u8], useless_from: Timestamp) {
        self.shared.pending().add((family, key.to_vec()), Change::Forget { useless_from });
        self.shared.arrived.notify_one();
    }

    /// Drops a write that waits, since another instance says that the record is to be forgotten.
    pub fn unqueue(&self, forget: &Forget) {
        let mut pending = self.shared.pending();
        match forget {
            Forget::Token(digest) => pending.drop_put(Family::Verdicts, digest),
            Forget::Profile(key) => pending.drop_put(Family::Profiles, key),
            Forget::Subject { .. } | Forget::Everybody => pending.drop_people(),
        }
    }

    /// Forgets what `purge` names, tells the other instances, and waits until that is so. `mark` says when a record of a
    /// family that is verified now would be dropped.
    ///
    /// # Errors
    /// When Redis is away. It is then done before the store answers again; for a subject, that is all verdicts and
    /// profiles.
    pub async fn purge(
        &self,
        purge: &Purge,
        mark: impl Fn(Family) -> Timestamp + Send + Sync,
    ) -> Result<(), SharedError> {
        reconnect::purge(&self.shared, purge, &mark).await
    }

    /// What other instances say is to be forgotten, from now on.
    #[must_use]
    pub fn forgets(&self) -> broadcast::Receiver<Forget> {
        self.shared.forgets.subscribe()
    }

    /// Waits until the first attempt to connect has ended, well or not.
    pub async fn tried(&self) {
        // The sender lives as long as this does.
        let _ = self.shared.health.subscribe().wait_for(|health| *health != Health::Starting).await;
    }

    /// Waits until the store is connected.
    pub async fn well(&self) {
        let _ = self.shared.health.subscribe().wait_for(|health| *health == Health::Well).await;
    }

    /// Waits until the store is not connected.
    pub async fn away(&self) {
        let _ = self.shared.health.subscribe().wait_for(|health| *health == Health::Away).await;
    }

    /// Whether Redis was tried and is away, or takes no records: it is full, or a replica.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        *self.shared.health.borrow() == Health::Away || self.shared.refuses.load(Ordering::Relaxed)
    }

    /// Writes what waits, if Redis is there; for the end of the process.
    pub async fn flush(&self) {
        if let Some(connection) = self.shared.connection.load_full() {
            // What could not be written by then is lost with the process, as it is if that is killed.
            let _ =
                tokio::time::timeout(connection::PATIENCE, reconnect::write(&self.shared, &connection)).await;
        }
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds this lock; if something did, the map would still be whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The password in a private file, without line ends at its end.
fn read_password(path: &Path) -> Result<String, SharedError> {
    let unusable = |problem: String| SharedError::Password { path: path.to_owned(), problem };
    let password =
        private_file::read_line(path, MAX_PASSWORD_BYTES).map_err(|error| unusable(error.to_string()))?;
    String::from_utf8(password).map_err(|_| unusable("is not UTF-8".to_owned()))
}

/// The records of one person that a purge removes: their family and key.
type Marked = (Family, [u8; DIGEST_LENGTH]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_shows_what_it_holds() {
        let address = RedisAddress::parse("redis://name:hunter2@127.0.0.1:6379/3").unwrap();
        assert_eq!(format!("{address:?}"), "RedisAddress");
        let settings = format!("{:?}", SharedSettings::at(address));
        assert!(!settings.contains("hunter2") && !settings.contains("name"), "{settings}");
    }

    #[test]
    fn bad_addresses_are_refused_without_being_shown() {
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://hunter2@host/",
            "redis://",
            "redis://:hunter2@host/zero",
            "rediss://:hunter2@host/#insecure",
            "unix://host/hunter2",
        ] {
            let error = RedisAddress::parse(bad).unwrap_err();
            assert!(error.contains("rediss://") && !error.contains("hunter2"), "{bad}: {error}");
        }
        for good in ["redis://host", "rediss://name:pass@host:1234/2", "unix:///run/redis.sock?db=1"] {
            assert!(RedisAddress::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_password(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("hunter2"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_password(&path).unwrap(), "hunter2");
    }
}
