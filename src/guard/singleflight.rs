//! Singleflight: callers who ask the same at the same time share one call and its answer.
//!
//! The caller that starts a call also drives it, which is cheaper than a task and two context switches. But
//! it does not own the call: if it goes away before the end, a task of its own drives the rest. So a client
//! that hangs up, even the first one, does not cancel the call for the others.
//!
//! **Why a key cannot get stuck.** A value that lives in the call removes the key from the map when it is
//! dropped. Answer, panic, timeout and a runtime that shuts down all end in that drop, and callers that still
//! wait get [`SingleflightError::Lost`], because the channel closes with it.
//!
//! **Why there are no interleavings to check.** Joining a call and starting one happen under one lock, as
//! does taking the key out; the lock is never held across an await. An answer is published before its key is
//! removed, so a caller that joins in between has it at once; after a panic the key is removed before the
//! channel closes, so a caller in between starts a new call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

/// How many may wait, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct SingleflightSettings {
    /// How many callers may wait for one key (default 1,000).
    pub waiters_per_key: usize,
    /// How many callers may wait for all keys together, and how many calls may be under way (default 10,000).
    pub waiters: usize,
    /// After this time a call is abandoned (default 10 s; where calls wait for their turn, that comes on
    /// top). The call should have a shorter timeout of its own; this one is the last resort.
    pub timeout: Duration,
}

impl Default for SingleflightSettings {
    fn default() -> Self {
        Self { waiters_per_key: 1_000, waiters: 10_000, timeout: Duration::from_secs(10) }
    }
}

impl SingleflightSettings {
    /// For calls that wait for their turn for up to `wait` before they leave.
    #[must_use]
    pub fn with_wait(wait: Duration) -> Self {
        let settings = Self::default();
        Self { timeout: settings.timeout + wait, ..settings }
    }
}

/// Whether a caller started the call or found it under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This caller started the call.
    Led,
    /// The call was under way.
    Joined,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SingleflightError {
    /// Too many callers wait already.
    #[error("too many requests wait for the issuer already; ask again shortly")]
    Busy,
    /// The call ended without an answer: it panicked or took too long.
    #[error("the call to the issuer ended without an answer; ask again shortly")]
    Lost,
}

impl SingleflightError {
    /// The metric label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Busy => "singleflight_busy",
            Self::Lost => "singleflight_lost",
        }
    }
}

/// Merges equal calls into one. Cheap to clone; clones share their calls.
#[derive(Debug)]
pub struct Singleflight<K, V> {
    shared: Arc<Shared<K, V>>,
}

#[derive(Debug)]
struct Shared<K, V> {
    settings: SingleflightSettings,
    permits: Semaphore,
    calls: Mutex<Calls<K, V>>,
}

/// The calls under way, each with the channel of its answer.
type Calls<K, V> = HashMap<K, watch::Sender<Option<V>>>;

impl<K, V> Singleflight<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Creates it without any calls.
    #[must_use]
    pub fn new(settings: SingleflightSettings) -> Self {
        let permits = Semaphore::new(settings.waiters.min(Semaphore::MAX_PERMITS));
        Self { shared: Arc::new(Shared { settings, permits, calls: Mutex::default() }) }
    }

    /// Waits for the call under `key` if there is one, else makes it.
    ///
    /// # Errors
    /// [`SingleflightError::Busy`] at once if too many wait already; [`SingleflightError::Lost`] if the call
    /// panicked or took too long.
    pub async fn run<F, Fut>(&self, key: K, make: F) -> Result<(V, Role), SingleflightError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        let _permit = self.shared.permits.try_acquire().map_err(|_| SingleflightError::Busy)?;
        let (value, role) = match self.join_or_start(key, make)? {
            Place::Joined(mut answer) => {
                let value =
                    answer.wait_for(Option::is_some).await.map_err(|_| SingleflightError::Lost)?.clone();
                (value, Role::Joined)
            }
            Place::Led(lead) => (lead.await, Role::Led),
        };
        value.map(|value| (value, role)).ok_or(SingleflightError::Lost)
    }

    /// How many calls are under way.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.shared.calls().len()
    }

    fn join_or_start<F, Fut>(&self, key: K, make: F) -> Result<Place<V>, SingleflightError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        let settings = &self.shared.settings;
        let (mut landing, answer) = {
            let mut calls = self.shared.calls();
            let under_way = calls.len();
            match calls.entry(key) {
                // Receivers are made only here, under the lock, and are dropped with their callers.
                Entry::Occupied(call) if call.get().receiver_count() >= settings.waiters_per_key => {
                    return Err(SingleflightError::Busy);
                }
                Entry::Occupied(call) => return Ok(Place::Joined(call.get().subscribe())),
                Entry::Vacant(_) if under_way >= settings.waiters => return Err(SingleflightError::Busy),
                Entry::Vacant(place) => {
                    let (sender, receiver) = watch::channel(None);
                    let landing = RemoveOnDrop {
                        shared: Arc::clone(&self.shared),
                        key: place.key().clone(),
                        answer: sender.clone(),
                        value: None,
                    };
                    place.insert(sender);
                    (landing, receiver)
                }
            }
        };
        let timeout = settings.timeout;
        let call = Box::pin(async move {
            // `make` is called in here so that its panic, too, is the call's.
            let value = tokio::time::timeout(timeout, async move { make().await }).await.ok();
            landing.value.clone_from(&value);
            drop(landing);
            value
        });
        Ok(Place::Led(Lead { call: Some(call), _receiver: answer }))
    }
}

/// The role of a caller in a call.
enum Place<V: Send + 'static> {
    /// The caller waits for a call that another caller drives.
    Joined(watch::Receiver<Option<V>>),
    /// The caller drives the call.
    Led(Lead<V>),
}

/// A call and the caller that drives it; the answer is `None` if there was none.
struct Lead<V: Send + 'static> {
    /// `None` after the call has ended.
    call: Option<Pin<Box<dyn Future<Output = Option<V>> + Send>>>,
    /// The leader counts as a waiting caller.
    _receiver: watch::Receiver<Option<V>>,
}

impl<V: Send + 'static> Future for Lead<V> {
    type Output = Option<V>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<V>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        // A panic ends the call, not the request that happens to drive it. What is left of the call is
        // dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        let polled = polled.unwrap_or(Poll::Ready(None));
        if polled.is_ready() {
            self.call = None;
        }
        polled
    }
}

impl<V: Send + 'static> Drop for Lead<V> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(call);
        }
    }
}

impl<K, V> Clone for Singleflight<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> Shared<K, V> {
    /// Nothing that can panic runs under the lock but the key's own `Hash` and `Eq`, and the map is whole
    /// between two operations, so a poisoned lock is as good as any other.
    fn calls(&self) -> MutexGuard<'_, Calls<K, V>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives in a call; takes its key out when the call ends, however it ends.
struct RemoveOnDrop<K: Hash + Eq, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
    answer: watch::Sender<Option<V>>,
    value: Option<V>,
}

impl<K: Hash + Eq, V> Drop for RemoveOnDrop<K, V> {
    fn drop(&mut self) {
        // Under one lock, so that a caller that comes after an answer was published does not join that call.
        let mut calls = self.shared.calls();
        if let Some(value) = self.value.take() {
            self.answer.send_replace(Some(value));
        }
        // The map holds one sender and this value the other: when both are gone, the channel is closed.
        let sender = calls.remove(&self.key);
        drop(calls);
        drop(sender);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::*;

    type Flights = Singleflight<&'static str, usize>;

    fn flights() -> Flights {
        Singleflight::new(SingleflightSettings::default())
    }

    /// A call that is counted when it starts, and ends on a signal.
    #[derive(Clone, Default)]
    struct Upstream {
        calls: Arc<AtomicUsize>,
        gate: Arc<Notify>,
    }

    impl Upstream {
        fn call(
            &self,
        ) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = usize> + Send>> + Send + 'static {
            let upstream = self.clone();
            move || {
                Box::pin(async move {
                    let number = upstream.calls.fetch_add(1, Ordering::SeqCst) + 1;
                    upstream.gate.notified().await;
                    number
                })
            }
        }

        fn count(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }
    }

    async fn until(done: impl Fn() -> bool) {
        while !done() {
            yield_now().await;
        }
    }

    fn waiting(flights: &Flights) -> usize {
        flights.shared.settings.waiters - flights.shared.permits.available_permits()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn five_hundred_callers_at_once_are_one_call() {
        let (flights, upstream) = (flights(), Upstream::default());
        let callers: Vec<_> = (0..500)
            .map(|_| {
                let (flights, call) = (flights.clone(), upstream.call());
                tokio::spawn(async move { flights.run("token", call).await.unwrap() })
            })
            .collect();
        until(|| waiting(&flights) == 500 && upstream.count() == 1).await;
        upstream.gate.notify_one();
        let mut led = 0;
        for caller in callers {
            let (value, role) = caller.await.unwrap();
            assert_eq!(value, 1);
            led += usize::from(role == Role::Led);
        }
        assert_eq!((led, upstream.count()), (1, 1));
        until(|| flights.calls() == 0).await;
        assert_eq!(waiting(&flights), 0);
    }

    #[tokio::test]
    async fn different_keys_are_different_calls_and_a_later_one_is_a_new_one() {
        let flights = flights();
        assert_eq!(flights.run("a", || async { 1 }).await, Ok((1, Role::Led)));
        assert_eq!(flights.run("b", || async { 2 }).await, Ok((2, Role::Led)));
        until(|| flights.calls() == 0).await;
        assert_eq!(flights.run("a", || async { 3 }).await, Ok((3, Role::Led)));
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_does_not_cancel_the_call() {
        let (flights, upstream) = (flights(), Upstream::default());
        let leader = tokio::spawn({
            let (flights, call) = (flights.clone(), upstream.call());
            async move { flights.run("token", call).await }
        });
        until(|| upstream.count() == 1).await;
        let joined = tokio::spawn({
            let (flights, call) = (flights.clone(), upstream.call());
            async move { flights.run("token", call).await }
        });
        until(|| waiting(&flights) == 2).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        upstream.gate.notify_one();
        assert_eq!(joined.await.unwrap(), Ok((1, Role::Joined)));
        assert_eq!(upstream.count(), 1);
    }

    #[tokio::test]
    async fn a_call_that_all_callers_left_still_ends_and_frees_its_key() {
        let (flights, upstream) = (flights(), Upstream::default());
        let only = tokio::spawn({
            let (flights, call) = (flights.clone(), upstream.call());
            async move { flights.run("token", call).await }
        });
        until(|| upstream.count() == 1).await;
        only.abort();
        assert!(only.await.is_err());
        assert_eq!((flights.calls(), waiting(&flights)), (1, 0));
        upstream.gate.notify_one();
        until(|| flights.calls() == 0).await;
    }

    #[tokio::test]
    async fn a_panic_is_told_to_all_who_wait_and_does_not_wedge_the_key() {
        let (flights, gate) = (flights(), Arc::new(Notify::new()));
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let (flights, gate) = (flights.clone(), gate.clone());
                tokio::spawn(async move {
                    let call = || async move {
                        gate.notified().await;
                        panic!("the call fails")
                    };
                    flights.run("token", call).await
                })
            })
            .collect();
        until(|| waiting(&flights) == 5).await;
        gate.notify_one();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Err(SingleflightError::Lost));
        }
        assert_eq!(flights.run("token", || async { 7 }).await, Ok((7, Role::Led)));
    }

    #[tokio::test]
    async fn a_panic_before_the_first_await_does_not_wedge_the_key_either() {
        let flights = flights();
        let call = || -> std::future::Ready<usize> { panic!("the call is never made") };
        assert_eq!(flights.run("token", call).await, Err(SingleflightError::Lost));
        assert_eq!(flights.run("token", || async { 7 }).await, Ok((7, Role::Led)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_given_up() {
        let (flights, started) = (flights(), tokio::time::Instant::now());
        assert_eq!(flights.run("token", pending).await, Err(SingleflightError::Lost));
        assert_eq!(started.elapsed(), SingleflightSettings::default().timeout);
        assert_eq!(flights.run("token", || async { 7 }).await, Ok((7, Role::Led)));
    }

    #[tokio::test]
    async fn callers_are_bounded_for_each_key_and_in_all() {
        let settings =
            SingleflightSettings { waiters_per_key: 2, waiters: 3, ..SingleflightSettings::default() };
        let (flights, upstream) = (Flights::new(settings), Upstream::default());
        let start = |key| {
            let (flights, call) = (flights.clone(), upstream.call());
            tokio::spawn(async move { flights.run(key, call).await })
        };
        let first = start("a");
        let gone = start("a");
        until(|| waiting(&flights) == 2).await;
        assert_eq!(flights.run("a", || async { 0 }).await, Err(SingleflightError::Busy));
        let third = start("b");
        until(|| waiting(&flights) == 3).await;
        assert_eq!(flights.run("c", || async { 0 }).await, Err(SingleflightError::Busy));
        // A caller that goes away leaves its permit to the next.
        gone.abort();
        assert!(gone.await.is_err());
        let next = start("a");
        until(|| waiting(&flights) == 3).await;
        until(|| upstream.count() == 2).await;
        upstream.gate.notify_one();
        upstream.gate.notify_one();
        for caller in [first, third, next] {
            assert!(caller.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn calls_whose_callers_left_are_bounded_too() {
        let settings = SingleflightSettings { waiters: 1, ..SingleflightSettings::default() };
        let (flights, upstream) = (Flights::new(settings), Upstream::default());
        let left = tokio::spawn({
            let (flights, call) = (flights.clone(), upstream.call());
            async move { flights.run("a", call).await }
        });
        until(|| upstream.count() == 1).await;
        left.abort();
        assert!(left.await.is_err());
        assert_eq!(flights.run("b", || async { 0 }).await, Err(SingleflightError::Busy));
        upstream.gate.notify_one();
        until(|| flights.calls() == 0).await;
        assert_eq!(flights.run("b", || async { 1 }).await, Ok((1, Role::Led)));
    }
}
