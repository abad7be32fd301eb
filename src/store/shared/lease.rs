//! A lease: of several instances that need the same record at the same time, one asks the issuer, and the
//! others wait for it.
//!
//! The lease is a value in Redis that only one instance can set, for a short [`LIFE`]. The holder renews it
//! while it asks, so an issuer that is slow, or a call that waits for the budget, does not end it; and if the
//! holder dies, another instance takes it soon. When the record is written, the holder publishes a
//! [`Notice`] and deletes the lease, in this order. So an instance that waits finds the record, and one that
//! takes the lease afterwards finds it, too, if it looks once more.
//!
//! **A lease is only about who asks first.** It protects no data. If Redis loses it, or holds it for too
//! long, or lies, then two instances ask, or some wait for a bounded time and ask then.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::error::SharedError;
use super::notice::{Notice, Told};
use super::reconnect;
use super::state::Shared;
use crate::tiers::digest::DIGEST_LENGTH;

/// How long a lease lasts that is not renewed: the most that the death of its holder costs.
const LIFE: Duration = Duration::from_secs(2);

/// How often the holder renews it, and how often those who wait look whether it is still there.
const INTERVAL: Duration = Duration::from_millis(500);

/// Prolongs a lease, if it is still the holder's own.
const RENEW: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, -1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Publishes a notice, and deletes the lease if it is still the holder's own.
const END: &str = r"
redis.call('PUBLISH', ARGV[2], ARGV[3])
if redis.call('GETRANGE', KEYS[1], 0, -1) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
";

/// Who asks.
pub enum Turn {
    /// This instance. It ends the lease when it has asked.
    Mine(Lease),
    /// Another one has.
    Told(Told),
    /// Another one does, and has not for as long as this one waits.
    InVain,
    /// Redis does not say.
    Unknown,
}

/// The leave to ask for all instances. If it is dropped, the others are told that nobody has asked.
#[must_use = "dropping a lease tells the others that nobody has asked"]
pub struct Lease {
    shared: Arc<Shared>,
    key: [u8; DIGEST_LENGTH],
    /// Different for each lease of each instance.
    value: String,
    told: Told,
}

/// Takes the lease under `key`, or waits for what its holder has to tell, but no longer than `patience`.
pub(super) async fn turn(shared: &Arc<Shared>, key: [u8; DIGEST_LENGTH], patience: Duration) -> Turn {
    // From here on, no word is missed: a holder that has not ended its lease yet publishes after it was seen.
    let mut waiter = shared.waiters.wait_for(key);
    let end = Instant::now() + patience;
    loop {
        match take(shared, key).await {
            Ok(Some(lease)) => return Turn::Mine(lease),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("no lease, so this instance asks: {error}");
                return Turn::Unknown;
            }
        }
        let now = Instant::now();
        if now >= end {
            return Turn::InVain;
        }
        match tokio::time::timeout_at(end.min(now + INTERVAL), waiter.told()).await {
            // Then this instance may take it.
            Ok(Some(Told::NotAsked)) | Err(_) => {}
            Ok(Some(told)) => return Turn::Told(told),
            Ok(None) => return Turn::Unknown,
        }
    }
}

/// Takes the lease; `None` if another instance has it. A request waits, so the time is bounded as for a read.
async fn take(shared: &Arc<Shared>, key: [u8; DIGEST_LENGTH]) -> Result<Option<Lease>, SharedError> {
    let connection = shared.open_connection()?;
    let value = format!("{:x}.{:x}", shared.sender, shared.leases.fetch_add(1, Relaxed));
    let mut set = redis::cmd("SET");
    set.arg(shared.names.lease(&key)).arg(&value).arg("NX").arg("PX").arg(LIFE.as_millis().to_string());
    let lease = || Lease { shared: shared.clone(), key, value: value.clone(), told: Told::NotAsked };
    match tokio::time::timeout(shared.settings.read_timeout, connection.query::<bool>(&set)).await {
        Ok(taken) => Ok(taken?.then(lease)),
        Err(_) => {
            // It may still be set. Dropped, it is deleted after that.
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
                // If it fails, the lease ends early, and another instance may ask as well.
                let _ = connection.query::<i64>(&renew).await;
            }
        }
    }

    /// Ends the lease, behind the request, and tells the others this. The records that wait to be written are
    /// written first.
    pub fn end(mut self, told: Told) {
        self.told = told;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (shared, key, value, told) = (self.shared.clone(), self.key, self.value.clone(), self.told);
        // Without a runtime the process ends, and the lease with its life.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { end(&shared, key, value, told).await });
        }
    }
}

async fn end(shared: &Shared, key: [u8; DIGEST_LENGTH], value: String, told: Told) {
    let Ok(connection) = shared.open_connection() else { return };
    if reconnect::write(shared, &connection).await.is_err() {
        // The task that keeps the connection would have noticed, had it written.
        connection.give_up();
        return;
    }
    let Some(notice) = (Notice::Asked { key, told }).seal(&shared.sealer, shared.clock.now()) else { return };
    let mut end = redis::cmd("EVAL");
    end.arg(END).arg(1).arg(shared.names.lease(&key)).arg(value).arg(shared.names.channel()).arg(notice);
    // If it fails, the lease ends with its life.
    let _ = connection.query::<i64>(&end).await;
}
