//! The requests of this instance that wait for the call of another instance, by the key of its lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::notice::SharedResult;
use crate::tiers::digest::DIGEST_LENGTH;

type Key = [u8; DIGEST_LENGTH];

/// The latest result under one key; `None` if none will come.
type Channel = Arc<watch::Sender<Option<SharedResult>>>;

/// All waiting requests.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Key, Channel>>);

/// One waiting request. It receives every result that is published after it was made.
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    key: Key,
    channel: Channel,
    receiver: watch::Receiver<Option<SharedResult>>,
}

impl Waiters {
    /// Subscribes to the results under this key.
    pub(super) fn wait_for(&self, key: Key) -> Waiter<'_> {
        let channel = self.lock().entry(key).or_insert_with(|| Arc::new(watch::Sender::new(None))).clone();
        Waiter { waiters: self, key, receiver: channel.subscribe(), channel }
    }

    /// Passes a result to the requests that wait under this key.
    pub(super) fn notify(&self, key: &Key, result: SharedResult) {
        if let Some(channel) = self.lock().get(key) {
            channel.send_replace(Some(result));
        }
    }

    /// Ends all waits: no result will come.
    pub(super) fn cancel_all(&self) {
        for channel in self.lock().values() {
            channel.send_replace(None);
        }
    }

    /// A poisoned lock does no harm: the map is consistent after each statement.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits for the next result; `None` if none will come.
    pub(super) async fn next(&mut self) -> Option<SharedResult> {
        // The sender lives as long as this does.
        self.receiver.changed().await.ok()?;
        *self.receiver.borrow_and_update()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut channels = self.waiters.lock();
        // The map holds one reference and `self` the other. More are made only under the lock.
        if Arc::strong_count(&self.channel) <= 2 {
            channels.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_reaches_all_who_wait_under_its_key_and_nobody_else() {
        let waiters = Waiters::default();
        waiters.notify(&[1; 32], SharedResult::Unusable);
        let (mut one, mut other) = (waiters.wait_for([1; 32]), waiters.wait_for([1; 32]));
        let mut elsewhere = waiters.wait_for([2; 32]);
        waiters.notify(&[1; 32], SharedResult::Record);
        let late = waiters.wait_for([1; 32]);
        assert_eq!(
            (one.next().await, other.next().await),
            (Some(SharedResult::Record), Some(SharedResult::Record))
        );
        assert!(!late.receiver.has_changed().unwrap() && !elsewhere.receiver.has_changed().unwrap());
        waiters.notify(&[1; 32], SharedResult::NotAsked);
        waiters.notify(&[1; 32], SharedResult::Unusable);
        assert_eq!(one.next().await, Some(SharedResult::Unusable), "the latest word counts");
        waiters.cancel_all();
        assert_eq!((one.next().await, elsewhere.next().await), (None, None));
    }

    #[test]
    fn nothing_stays_of_those_who_have_left() {
        let waiters = Waiters::default();
        let one = waiters.wait_for([1; 32]);
        let other = waiters.wait_for([1; 32]);
        drop(one);
        assert_eq!(waiters.lock().len(), 1);
        drop(other);
        assert!(waiters.lock().is_empty());
    }
}
