//! The clock that tests can hold still.
//!
//! Every rule that depends on time (token life, tiers, breaker, budget) takes `now` as an argument; this is
//! where `now` comes from. There are two readings, because they answer different questions:
//!
//! - [`Clock::now`] is wall time, for comparing with `exp`, `nbf` and a record's `verified_at`. It may jump.
//! - [`Clock::ticks`] is monotonic time, for windows, back-offs and buckets. It never goes back.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A point of wall time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The latest time that can be represented.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch (a JWT `NumericDate`, RFC 7519 §2); saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `duration`, saturating at [`Timestamp::MAX`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This time minus `duration`, saturating at [`Timestamp::EPOCH`].
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

/// A point of monotonic time, in microseconds since the clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(u64);

impl Ticks {
    /// When the clock was made.
    pub const ZERO: Self = Self(0);

    /// From the time that has passed since the clock was made.
    #[must_use]
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// This time minus `duration`, saturating at [`Ticks::ZERO`].
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Two generations of what counts for a limited time. Things are dropped with their generation and not one by
/// one, so each counts for one to two times as long as a generation lasts.
#[derive(Debug, Default)]
pub struct Generations<T> {
    /// What was added since this generation began.
    pub younger: T,
    /// What was added in the generation before.
    pub older: T,
    since: Ticks,
}

impl<T: Default> Generations<T> {
    /// Begins a new generation, if the younger one has lasted for `lasting`.
    pub fn rotate(&mut self, now: Ticks, lasting: Duration) {
        let age = now.since(self.since);
        if age >= lasting {
            let younger = std::mem::take(&mut self.younger);
            // After twice the time, the younger one is over as well.
            self.older = if age < 2 * lasting { younger } else { T::default() };
            self.since = now;
        }
    }
}

/// Where `now` comes from: the machine, or a test. Cheap to clone; clones of a held clock share its time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { started: Instant },
    Held(Arc<HeldTime>),
}

struct HeldTime {
    wall_millis: AtomicU64,
    elapsed_micros: AtomicU64,
    /// Notified when time passes, for sleeping tasks.
    moved: Notify,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `now` until it is moved.
    #[must_use]
    pub fn held_at(now: Timestamp) -> Self {
        Self(Source::Held(Arc::new(HeldTime {
            wall_millis: AtomicU64::new(now.0),
            elapsed_micros: AtomicU64::new(0),
            moved: Notify::new(),
        })))
    }

    /// Wall time. A machine clock set before 1970 reads as the epoch, at which no token is valid yet.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => {
                Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis))
            }
            Source::Held(hands) => Timestamp(hands.wall_millis.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn ticks(&self) -> Ticks {
        match &self.0 {
            Source::System { started } => Ticks::from_elapsed(started.elapsed()),
            Source::Held(hands) => Ticks(hands.elapsed_micros.load(Ordering::SeqCst)),
        }
    }

    /// Waits until `at`. On a held clock that is when somebody has moved it there.
    pub async fn sleep_until(&self, at: Ticks) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(at.since(self.ticks())).await,
            Source::Held(hands) => loop {
                let mut moved = pin!(hands.moved.notified());
                // Enabled before the clock is read, so that a move in between is not missed.
                moved.as_mut().enable();
                if self.ticks() >= at {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Lets time pass on a held clock: both readings move on. Does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Held(hands) = &self.0 {
            hands.wall_millis.fetch_add(millis(by), Ordering::SeqCst);
            hands.elapsed_micros.fetch_add(Ticks::from_elapsed(by).0, Ordering::SeqCst);
            hands.moved.notify_waiters();
        }
    }

    /// Sets the wall time of a held clock, forward or back, as an administrator or NTP does: monotonic time
    /// does not move. Does nothing to the system clock.
    pub fn set_wall(&self, now: Timestamp) {
        if let Source::Held(hands) = &self.0 {
            hands.wall_millis.store(now.0, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.0 {
            Source::System { .. } => "system",
            Source::Held(_) => "held",
        };
        write!(f, "Clock({source} {})", self.now().as_millis())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_by_hand() {
        let clock = Clock::held_at(Timestamp::from_secs(1_000));
        let twin = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(twin.now(), Timestamp::from_secs(1_005));
        assert_eq!(twin.ticks().since(Ticks::ZERO), Duration::from_secs(5));
        clock.set_wall(Timestamp::from_secs(10));
        assert_eq!(twin.now(), Timestamp::from_secs(10));
        assert_eq!(twin.ticks().since(Ticks::ZERO), Duration::from_secs(5));
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::MAX.after(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.before(Duration::from_secs(1)), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_secs(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
    }
}
