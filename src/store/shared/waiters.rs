//! Who waits in this instance for what another one is asking, by the key of the lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::notice::Told;
use crate::tiers::digest::DIGEST_LENGTH;

type Key = [u8; DIGEST_LENGTH];

/// The latest word to those who wait under one key; `None`: no word will come.
type Line = Arc<watch::Sender<Option<Told>>>;

/// All who wait.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Key, Line>>);

/// One who waits. It hears every word since it was made.
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    key: Key,
    line: Line,
    heard: watch::Receiver<Option<Told>>,
}

impl Waiters {
    /// Begins to wait.
    pub(super) fn wait_for(&self, key: Key) -> Waiter<'_> {
        let line = self.lines().entry(key).or_insert_with(|| Arc::new(watch::Sender::new(None))).clone();
        Waiter { waiters: self, key, heard: line.subscribe(), line }
    }

    /// Tells those who wait under this key.
    pub(super) fn tell(&self, key: &Key, told: Told) {
        if let Some(line) = self.lines().get(key) {
            line.send_replace(Some(told));
        }
    }

    /// Tells all that no word will come.
    pub(super) fn dismiss(&self) {
        for line in self.lines().values() {
            line.send_replace(None);
        }
    }

    /// A poisoned lock does no harm: the map is consistent after each statement.
    fn lines(&self) -> MutexGuard<'_, HashMap<Key, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits for the next word; `None` if none will come.
    pub(super) async fn told(&mut self) -> Option<Told> {
        // The sender lives as long as this does.
        self.heard.changed().await.ok()?;
        *self.heard.borrow_and_update()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut lines = self.waiters.lines();
        // The map has one and this the other. More are made only under the lock.
        if Arc::strong_count(&self.line) <= 2 {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_reaches_all_who_wait_under_its_key_and_nobody_else() {
        let waiters = Waiters::default();
        waiters.tell(&[1; 32], Told::Nothing);
        let (mut one, mut other) = (waiters.wait_for([1; 32]), waiters.wait_for([1; 32]));
        let mut elsewhere = waiters.wait_for([2; 32]);
        waiters.tell(&[1; 32], Told::Record);
        let late = waiters.wait_for([1; 32]);
        assert_eq!((one.told().await, other.told().await), (Some(Told::Record), Some(Told::Record)));
        assert!(!late.heard.has_changed().unwrap() && !elsewhere.heard.has_changed().unwrap());
        waiters.tell(&[1; 32], Told::NotAsked);
        waiters.tell(&[1; 32], Told::Nothing);
        assert_eq!(one.told().await, Some(Told::Nothing), "the latest word counts");
        waiters.dismiss();
        assert_eq!((one.told().await, elsewhere.told().await), (None, None));
    }

    #[test]
    fn nothing_stays_of_those_who_have_left() {
        let waiters = Waiters::default();
        let one = waiters.wait_for([1; 32]);
        let other = waiters.wait_for([1; 32]);
        drop(one);
        assert_eq!(waiters.lines().len(), 1);
        drop(other);
        assert!(waiters.lines().is_empty());
    }
}
