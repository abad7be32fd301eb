//! The shared store: sealed records in Redis, so that several instances share what one of them learned.
//!
//! It is optional and never the only copy: each instance has its memory and its disk beside it. Like the disk
//! store it keeps bytes and has no encryption key. It follows three rules:
//!
//! 1. **A Redis that is slow or unreachable does no harm.** A read waits for `read_timeout` at most. After
//!    three timeouts in a row, or one error, no request waits until a background task (`reconnect.rs`) has
//!    reconnected. That is why the connection is kept here and not by the client library's connection
//!    manager, and why it is not a `guard::breaker`, whose probes are requests: here no request is ever the
//!    probe.
//! 2. **Writes happen behind the request**, from a bounded map with the latest change of each record
//!    (`pending.rs`).
//! 3. **A forgotten record leaves a mark.** It is replaced by the time at which it was forgotten, by Redis's
//!    clock, and a record is written only if it was verified later. So neither a slow instance nor one whose
//!    disk still has the old record brings back what was forgotten. The others are told to forget it, too
//!    (`forget.rs`).

mod connect;
mod connection;
mod error;
mod forget;
mod framing;
mod lease;
mod link;
mod names;
mod news;
mod notice;
mod pending;
mod primary;
mod reconnect;
mod replay;
mod revocation_log;
mod settings;
mod state;
mod stream;
mod waiters;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

pub use self::error::SharedError;
pub use self::forget::Forget;
pub use self::framing::ReplyError;
pub use self::lease::{Lease, LeaseOutcome};
pub use self::notice::SharedResult;
pub use self::revocation_log::{LOG_START, LogId, LogPage};
pub use self::settings::{RedisAddress, RedisServers, Sentinels, SharedSettings};

use self::names::Names;
use self::pending::{Change, Pending};
use self::reconnect::ReconnectTask;
use self::settings::read_password;
use self::state::{Health, Shared};
use self::waiters::Waiters;
use super::purge::Purge;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::policy::FUTURE_TOLERANCE;
use crate::tiers::record::Family;
use crate::tiers::seal::Sealer;
use crate::tiers::secret::InstanceSecret;

/// How many messages of other instances may wait to be applied in this instance.
const MAX_FORGETS: usize = 1024;

/// How many notices of other instances about themselves may wait. Newer ones replace them.
const MAX_NEWS: usize = 1024;

/// The shared store. Dropping it ends its task, and waiting writes are lost: see [`SharedStore::flush`].
pub struct SharedStore {
    shared: Arc<Shared>,
    reconnect_task: JoinHandle<()>,
}

impl SharedStore {
    /// Starts the store's task, which connects. Does not fail if Redis is unreachable. Must be called within
    /// a runtime.
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
            names: Names::new(secret, settings.servers.are_cluster())
                .map_err(|failed| SharedError::Redis(failed.to_string()))?,
            sealer,
            sender: state::sender(u64::from_le_bytes(sender), settings.is_former),
            connection: ArcSwapOption::empty(),
            pending: Mutex::new(Pending::new(settings.queue)),
            arrived: Notify::new(),
            revoked: Notify::new(),
            refuses: AtomicBool::new(false),
            writing: tokio::sync::Mutex::new(()),
            health: watch::Sender::new(Health::Starting),
            forgets: broadcast::Sender::new(MAX_FORGETS),
            news: broadcast::Sender::new(MAX_NEWS),
            waiters: Waiters::default(),
            leases: AtomicU64::new(0),
            settings,
            clock,
            metrics,
        });
        let reconnect_task = tokio::spawn(ReconnectTask::new(shared.clone()).run());
        Ok(Self { shared, reconnect_task })
    }

    /// The value under `key`. Waits no longer than the read timeout, and not at all while Redis is
    /// unreachable.
    ///
    /// # Errors
    /// When Redis cannot tell. The request treats this as a miss.
    pub async fn lookup(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, SharedError> {
        let connection = self.shared.open_connection()?;
        // Checked before the read: once a delete does not wait any more, its mark is in Redis.
        if self.shared.pending().is_forgetting(family, key) {
            return Ok(None);
        }
        connection.get(&self.shared.names.of(family, key), self.shared.settings.read_timeout).await
    }

    /// Queues a write of a record that was verified at `verified_at`. Never blocks. Returns whether there was
    /// room.
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

    /// Queues that a record is forgotten, here and by all instances. Never blocks, and is never rejected.
    /// `useless_from` is when a record that is verified now would be dropped. Until this is done
    /// (milliseconds, or as long as Redis is unreachable), another instance may still find the record. This
    /// instance does not.
    pub fn forget(&self, family: Family, key: &[u8], useless_from: Timestamp) {
        self.shared.pending().add((family, key.to_vec()), Change::Forget { useless_from });
        self.shared.arrived.notify_one();
    }

    /// Drops a waiting write of a record that another instance has forgotten.
    pub fn unqueue(&self, forget: &Forget) {
        let mut pending = self.shared.pending();
        match forget {
            Forget::Token(digest) => pending.drop_put(Family::Verdicts, digest),
            Forget::Profile(key) => pending.drop_put(Family::Profiles, key),
            Forget::Subject { .. } | Forget::Everybody => pending.drop_user_puts(),
            Forget::Revocations => {}
        }
    }

    /// Forgets what `purge` names, tells the other instances, and waits until this is done. `mark` says when
    /// a record of a family that is verified now would be dropped.
    ///
    /// # Errors
    /// When Redis is unreachable. The store then forgets before it answers again; for a subject, it forgets
    /// all verdicts and profiles.
    pub async fn purge(
        &self,
        purge: &Purge,
        mark: impl Fn(Family) -> Timestamp + Send + Sync,
    ) -> Result<(), SharedError> {
        reconnect::purge(&self.shared, purge, &mark).await
    }

    /// Decides which of several instances asks the issuer for the record under `key`. The others wait for it,
    /// for at most `timeout`, and not while Redis is unreachable.
    pub async fn lease(&self, key: [u8; DIGEST_LENGTH], timeout: Duration) -> LeaseOutcome {
        lease::acquire_or_wait(&self.shared, key, timeout).await
    }

    /// What other instances forget, from now on.
    #[must_use]
    pub fn forgets(&self) -> broadcast::Receiver<Forget> {
        self.shared.forgets.subscribe()
    }

    /// Waits until the first attempt to connect has ended, with or without success.
    pub async fn first_attempt(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.health.subscribe().wait_for(|health| *health != Health::Starting).await;
    }

    /// Waits until the store is connected.
    pub async fn connected(&self) {
        let _ = self.shared.health.subscribe().wait_for(|health| *health == Health::Up).await;
    }

    /// Whether Redis is unreachable, or refuses writes because it is full or a replica.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        *self.shared.health.borrow() == Health::Down || self.shared.refuses.load(Ordering::Relaxed)
    }

    /// Appends a deny record to the log that instances share, and notifies them. The record stays there for
    /// `keep`. Returns its place.
    ///
    /// # Errors
    /// When Redis is unreachable or refuses.
    pub async fn append_revocation(
        &self,
        key: &[u8],
        sealed: &[u8],
        keep: Duration,
    ) -> Result<LogId, SharedError> {
        revocation_log::append(&self.shared, key, sealed, keep).await
    }

    /// A page of the log, from this place on.
    ///
    /// # Errors
    /// When Redis is unreachable or refuses.
    pub async fn revocations_from(&self, first: &str) -> Result<LogPage, SharedError> {
        revocation_log::read(&self.shared, first).await
    }

    /// Waits until another instance says that the log has a new entry.
    pub async fn revocation_arrived(&self) {
        self.shared.revoked.notified().await;
    }

    /// Waits until the store is connected, but no longer than `timeout`.
    pub async fn connected_within(&self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.connected()).await;
    }

    /// Writes the waiting changes, if Redis is reachable. Call it at the end of the process.
    pub async fn flush(&self) {
        if let Some(connection) = self.shared.connection.load_full() {
            // Changes that are not written by then are lost, as they are when the process is killed.
            let _ = tokio::time::timeout(connect::TIMEOUT, reconnect::write(&self.shared, &connection)).await;
        }
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.reconnect_task.abort();
    }
}
