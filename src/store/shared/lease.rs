//! Leases: when several instances need the same record at the same time, one asks the issuer, and the others
//! wait for it.
//!
//! A lease is a value in Redis that only one instance can set, for a short [`LIFE`]. The holder renews it
//! while it asks, so a slow issuer, or a call that waits for the budget, does not end it. If the holder
//! crashes, another instance acquires the lease soon. The holder writes the record, publishes a [`Notice`]
//! and deletes the lease, in this order. So a waiting instance finds the record, and an instance that
//! acquires the lease afterwards finds it, too, if it looks once more.
//!
//! **A lease only decides who asks first.** It protects no data. If Redis loses it or keeps it for too long,
//! then two instances ask, or some wait for a bounded time and then ask themselves.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::error::SharedError;
use super::notice::{Notice, SharedResult};
use super::reconnect;
use super::state::Shared;
use crate::tiers::digest::DIGEST_LENGTH;

/// The expiry of a lease that is not renewed. After a holder crashes, the others wait this long at most.
const LIFE: Duration = Duration::from_secs(2);

/// How often the holder renews its lease, and how often a waiting instance tries to acquire it.
const INTERVAL: Duration = Duration::from_millis(500);

/// Extends a lease if this instance still holds it.
const RENEW: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, -1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Publishes a notice, and deletes the lease if this instance still holds it.
const RELEASE: &str = r"
redis.call('PUBLISH', ARGV[2], ARGV[3])
if redis.call('GETRANGE', KEYS[1], 0, -1) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
";

/// What came of the attempt to acquire a lease.
pub enum LeaseOutcome {
    /// This instance holds the lease, asks the issuer, and then releases the lease.
    Acquired(Lease),
    /// Another instance held the lease and published its result.
    Ended(SharedResult),
    /// Another instance still holds the lease after the timeout.
    TimedOut,
    /// Redis is unreachable or fails.
    Unavailable,
}

/// The permission to ask for all instances. If it is dropped, the others learn that nobody has asked.
#[must_use = "dropping a lease tells the other instances that nobody has asked"]
pub struct Lease {
    shared: Arc<Shared>,
    key: [u8; DIGEST_LENGTH],
    /// Unique for each lease of each instance.
    value: String,
    result: SharedResult,
}

/// Acquires the lease under `key`, or waits up to `timeout` for the result of its holder.
pub(super) async fn acquire_or_wait(
    shared: &Arc<Shared>,
    key: [u8; DIGEST_LENGTH],
    timeout: Duration,
) -> LeaseOutcome {
    // Subscribes before the lease is looked at, so no result is missed.
    let mut waiter = shared.waiters.wait_for(key);
    let end = Instant::now() + timeout;
    loop {
        match try_acquire(shared, key).await {
            Ok(Some(lease)) => return LeaseOutcome::Acquired(lease),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("no lease, so this instance asks: {error}");
                return LeaseOutcome::Unavailable;
            }
        }
        let now = Instant::now();
        if now >= end {
            return LeaseOutcome::TimedOut;
        }
        match tokio::time::timeout_at(end.min(now + INTERVAL), waiter.next()).await {
            // Nobody asked, or it is time to look again.
            Ok(Some(SharedResult::NotAsked)) | Err(_) => {}
            Ok(Some(result)) => return LeaseOutcome::Ended(result),
            Ok(None) => return LeaseOutcome::Unavailable,
        }
    }
}

/// Tries to acquire the lease; `None` if another instance holds it. A request waits, so the time is bounded
/// as for a read.
async fn try_acquire(shared: &Arc<Shared>, key: [u8; DIGEST_LENGTH]) -> Result<Option<Lease>, SharedError> {
    let connection = shared.open_connection()?;
    let value = format!("{:x}.{:x}", shared.sender, shared.leases.fetch_add(1, Relaxed));
    let mut set = redis::cmd("SET");
    set.arg(shared.names.lease(&key)).arg(&value).arg("NX").arg("PX").arg(LIFE.as_millis().to_string());
    let lease =
        || Lease { shared: shared.clone(), key, value: value.clone(), result: SharedResult::NotAsked };
    match tokio::time::timeout(shared.settings.read_timeout, connection.query::<bool>(&set)).await {
        Ok(taken) => Ok(taken?.then(lease)),
        Err(_) => {
            // Redis may still set it. Dropping it here deletes it afterwards.
            drop(lease());
            Err(SharedError::Timeout)
        }
    }
}

impl Lease {
    /// Waits for `ask`, and renews the lease meanwhile.
    pub async fn while_held<T>(&self, ask: impl Future<Output = T>) -> T {
        tokio::select! {
            said = ask => said,
            never = self.renew() => match never {},
        }
    }

    async fn renew(&self) -> Infallible {
        let Self { shared, key, value, .. } = self;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let mut renew = redis::cmd("EVAL");
            renew.arg(RENEW).arg(1).arg(shared.names.lease(key)).arg(value).arg(LIFE.as_millis().to_string());
            if let Ok(connection) = shared.open_connection() {
                // If this fails, the lease expires early, and another instance may ask as well.
                let _ = connection.query::<i64>(&renew).await;
            }
        }
    }

    /// Writes the waiting records, publishes the result, and deletes the lease, all in the background.
    pub fn release(mut self, result: SharedResult) {
        self.result = result;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (shared, key, value, result) = (self.shared.clone(), self.key, self.value.clone(), self.result);
        // Without a runtime the process is ending, and the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { release(&shared, key, value, result).await });
        }
    }
}

async fn release(shared: &Shared, key: [u8; DIGEST_LENGTH], value: String, result: SharedResult) {
    let Ok(connection) = shared.open_connection() else { return };
    if reconnect::write(shared, &connection).await.is_err() {
        // The reconnect task has not seen this error.
        connection.give_up();
        return;
    }
    let Some(notice) = (Notice::LeaseEnded { key, result }).seal(&shared.sealer, shared.clock.now()) else {
        return;
    };
    let mut end = redis::cmd("EVAL");
    end.arg(RELEASE).arg(1).arg(shared.names.lease(&key)).arg(value).arg(shared.names.channel()).arg(notice);
    // If this fails, the lease expires by itself.
    let _ = connection.query::<i64>(&end).await;
}
