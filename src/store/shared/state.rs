//! The state that requests and the reconnect task share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, broadcast, watch};

use super::connection::Connection;
use super::error::SharedError;
use super::forget::Forget;
use super::names::Names;
use super::pending::Pending;
use super::settings::SharedSettings;
use super::waiters::Waiters;
use crate::clock::Clock;
use crate::guard::peers::InstanceNews;
use crate::telemetry::metrics::Metrics;
use crate::tiers::seal::Sealer;

/// The state of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Connecting for the first time.
    Starting,
    /// Connected.
    Up,
    /// Trying to connect.
    Down,
}

/// The state that requests and the reconnect task share.
pub(super) struct Shared {
    pub(super) settings: SharedSettings,
    pub(super) names: Names,
    pub(super) sealer: Arc<Sealer>,
    /// This process, as the sender of messages.
    pub(super) sender: u64,
    /// The open connection; none while Redis is unreachable.
    pub(super) connection: ArcSwapOption<Connection>,
    pub(super) pending: Mutex<Pending>,
    pub(super) arrived: Notify,
    /// Notified when the log of revocations has a new entry.
    pub(super) revoked: Notify,
    /// Redis serves reads but refuses writes, for example because it is full.
    pub(super) refuses: AtomicBool,
    /// Held while writing, so that a purge and a write of the same record do not overlap.
    pub(super) writing: tokio::sync::Mutex<()>,
    pub(super) health: watch::Sender<Health>,
    pub(super) forgets: broadcast::Sender<Forget>,
    /// What other instances tell about themselves.
    pub(super) news: broadcast::Sender<InstanceNews>,
    /// The requests that wait for the call of another instance.
    pub(super) waiters: Waiters,
    /// How many leases this process has tried to acquire.
    pub(super) leases: AtomicU64,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

/// Whether a sender writes under the old instance secret because it rotates to a new one.
pub(super) const fn is_former(sender: u64) -> bool {
    sender & FORMER != 0
}

/// The bit of a sender that says so.
const FORMER: u64 = 1 << 63;

/// A sender for these random bits.
pub(super) const fn sender(random: u64, is_former: bool) -> u64 {
    if is_former { random | FORMER } else { random & !FORMER }
}

impl Shared {
    /// The connection, unless there is none or it is given up.
    pub(super) fn open_connection(&self) -> Result<Arc<Connection>, SharedError> {
        let connection = self.connection.load_full().ok_or(SharedError::Disconnected)?;
        if connection.is_lost() { Err(SharedError::Disconnected) } else { Ok(connection) }
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds this lock. If something did, the map would still be consistent.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
