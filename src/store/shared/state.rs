//! What requests and the task that keeps the connection share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, broadcast, watch};

use super::connection::Connection;
use super::forget::Forget;
use super::names::Names;
use super::pending::Pending;
use super::settings::SharedSettings;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use crate::tiers::seal::Sealer;

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Connecting for the first time.
    Starting,
    /// Connected.
    Well,
    /// Trying to connect.
    Away,
}

/// What requests and the task share.
pub(super) struct Shared {
    pub(super) settings: SharedSettings,
    pub(super) names: Names,
    pub(super) sealer: Arc<Sealer>,
    /// Who says so, in messages: this process.
    pub(super) sender: u64,
    /// The open connection; none while the store is away.
    pub(super) connection: ArcSwapOption<Connection>,
    pub(super) pending: Mutex<Pending>,
    pub(super) arrived: Notify,
    /// Redis reads, but refuses to write: it is full, say.
    pub(super) refuses: AtomicBool,
    /// Held by whoever writes, so that what a purge forgets is not written at the same moment.
    pub(super) writing: tokio::sync::Mutex<()>,
    pub(super) health: watch::Sender<Health>,
    pub(super) forgets: broadcast::Sender<Forget>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

impl Shared {
    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds this lock; if something did, the map would still be whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
