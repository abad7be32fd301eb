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
//! 3. **A no leaves a mark.** A record that is forgotten is replaced by the time at which that was, by Redis's clock,
//!    and a record is written only if it was verified later. So neither an instance that was slow, nor one whose disk
//!    still has the old record, brings back what was forgotten. The others are told to forget it, too (`forget.rs`).

mod connection;
mod error;
mod forget;
mod framing;
mod names;
mod pending;
mod reconnect;
mod settings;
mod state;
mod stream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

pub use self::error::SharedError;
pub use self::forget::Forget;
pub use self::framing::ReplyError;
pub use self::settings::{RedisAddress, SharedSettings};

use self::names::Names;
use self::pending::{Change, Pending};
use self::reconnect::ReconnectTask;
use self::settings::read_password;
use self::state::{Health, Shared};
use super::purge::Purge;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::tiers::policy::FUTURE_TOLERANCE;
use crate::tiers::record::Family;
use crate::tiers::seal::Sealer;
use crate::tiers::secret::InstanceSecret;

/// How many orders to forget may wait to be carried out in this instance.
const MAX_FORGETS: usize = 1024;

/// The shared store. Dropping it ends its task and leaves unwritten what waits: see [`SharedStore::flush`].
pub struct SharedStore {
    shared: Arc<Shared>,
    reconnect_task: JoinHandle<()>,
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
        let reconnect_task = tokio::spawn(ReconnectTask::new(shared.clone()).run());
        Ok(Self { shared, reconnect_task })
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
        // Subrequest before reading: what is not to be forgotten by then is a mark in Redis already.
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
        self.reconnect_task.abort();
    }
}
