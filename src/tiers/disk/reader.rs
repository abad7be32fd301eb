//! Reads that have to touch the disk, on threads of their own, so that a slow disk never holds up an async worker.
//!
//! The queue is bounded: when the disk is so slow that it fills up, a lookup is answered with [`DiskError::Busy`] at
//! once, which counts as a miss.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::super::record::Family;
use super::{DiskError, Shared};

/// How many lookups may wait for the disk.
const WAITING: usize = 1024;

type Found = Result<Option<Vec<u8>>, DiskError>;

struct Lookup {
    family: Family,
    key: Vec<u8>,
    reply: oneshot::Sender<Found>,
}

/// The reader threads. They end when this is dropped.
pub(super) struct Readers {
    lookups: Option<SyncSender<Lookup>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `count` threads, at least one.
    pub(super) fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let (lookups, waiting) = sync_channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut readers = Self { lookups: Some(lookups), threads: Vec::new() };
        for _ in 0..count.max(1) {
            let (waiting, shared) = (Arc::clone(&waiting), Arc::clone(shared));
            let thread = thread::Builder::new().name("disk-reader".to_owned());
            readers.threads.push(thread.spawn(move || read_all(&waiting, &shared))?);
        }
        Ok(readers)
    }

    /// Reads on one of the threads.
    pub(super) async fn read(&self, family: Family, key: &[u8]) -> Found {
        let (reply, found) = oneshot::channel();
        let lookup = Lookup { family, key: key.to_vec(), reply };
        let queued = self.lookups.as_ref().ok_or(DiskError::Closed)?.try_send(lookup);
        queued.map_err(|error| match error {
            TrySendError::Full(_) => DiskError::Busy,
            TrySendError::Disconnected(_) => DiskError::Closed,
        })?;
        found.await.unwrap_or(Err(DiskError::Closed))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.lookups = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do either.
            let _ = thread.join();
        }
    }
}

fn read_all(waiting: &Mutex<Receiver<Lookup>>, shared: &Shared) {
    loop {
        // The lock is held while waiting, so that one thread waits and the others wait for it: the work is outside.
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(lookup) = next else { return };
        if !lookup.reply.is_closed() {
            // Whoever asked may have gone away meanwhile.
            let _ = lookup.reply.send(shared.get(lookup.family, &lookup.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::{DiskSettings, DiskStore, Inner};
    use super::*;
    use crate::clock::{Clock, Timestamp};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn one_lookup_too_many_is_turned_away_at_once_and_those_that_wait_are_answered() {
        let directory = tempfile::tempdir().unwrap();
        let open = || DiskStore::open(DiskSettings::at(directory.path()), Clock::held_at(NOW)).unwrap().store;
        let value = 1_900_000_000_u64.to_be_bytes().to_vec();
        let store = open();
        assert!(store.put(Family::Profiles, b"key", value.clone()));
        store.compact().unwrap();
        store.close();
        // Open anew, the block cache is cold: every lookup needs the disk. And the disk is so slow that no reader comes.
        let store = open();
        let shared = Arc::clone(&store.0.shared);
        let (sender, waiting) = sync_channel(WAITING);
        let readers = Readers { lookups: Some(sender), threads: Vec::new() };
        let stuck = DiskStore(Arc::new(Inner { shared: shared.clone(), readers, writer: Mutex::new(None) }));
        let lookup = || Box::pin(stuck.lookup(Family::Profiles, b"key"));
        let mut nobody = Context::from_waker(Waker::noop());
        let mut lookups: Vec<_> = (0..WAITING).map(|_| lookup()).collect();
        for lookup in &mut lookups {
            assert!(lookup.as_mut().poll(&mut nobody).is_pending());
        }
        assert_eq!(stuck.stats().busy, 0);
        for turned_away in 1..=3 {
            let Poll::Ready(Err(error)) = lookup().as_mut().poll(&mut nobody) else {
                panic!("it must not wait")
            };
            assert!(matches!(error, DiskError::Busy), "{error}");
            assert_eq!((error.reason(), stuck.stats().busy), ("busy", turned_away));
        }

        let reader = thread::spawn(move || read_all(&Mutex::new(waiting), &shared));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for lookup in lookups {
            assert_eq!(runtime.block_on(lookup).unwrap().as_ref(), Some(&value));
        }
        drop(stuck);
        reader.join().unwrap();
    }
}
