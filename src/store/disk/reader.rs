//! Disk reads, on separate threads, so that a slow disk never blocks an async worker.
//!
//! Two bounds turn a lookup into a miss: the length of the queue, and the time that a lookup waits. After
//! [`MAX_STRIKES`] timeouts in a row no lookup waits any more, because with a hanging disk every request
//! would wait for the full time. From then on one lookup at a time is read as a probe, with no request
//! waiting for it. When a probe is read in time, lookups wait again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::DiskError;
use super::settings::DiskSettings;
use super::state::Shared;
use crate::tiers::record::Family;

/// How many lookups may wait for the disk.
const WAITING: usize = 1024;

/// How many lookups in a row may time out before no lookup waits any more. A single timeout may be a short
/// delay.
const MAX_STRIKES: u32 = 3;

type Found = Result<Option<Vec<u8>>, DiskError>;

struct Lookup {
    family: Family,
    key: Vec<u8>,
    /// Where the request waits; `None` for a probe.
    reply: Option<oneshot::Sender<Found>>,
}

/// How fast the disk answers.
#[derive(Debug)]
struct Pace {
    timeout: Duration,
    strikes: AtomicU32,
    probing: AtomicBool,
}

/// The reader threads. They end when this is dropped.
pub(super) struct Readers {
    lookups: Option<SyncSender<Lookup>>,
    threads: Vec<JoinHandle<()>>,
    pace: Arc<Pace>,
}

impl Readers {
    /// Starts the threads, at least one.
    pub(super) fn start(settings: &DiskSettings, shared: &Arc<Shared>) -> io::Result<Self> {
        let (lookups, waiting) = sync_channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let pace = Arc::new(Pace::new(settings.read_timeout));
        let mut readers = Self { lookups: Some(lookups), threads: Vec::new(), pace };
        for _ in 0..settings.readers.max(1) {
            let (waiting, shared, pace) = (Arc::clone(&waiting), Arc::clone(shared), readers.pace.clone());
            let thread = thread::Builder::new().name("disk-reader".to_owned());
            readers.threads.push(thread.spawn(move || read_all(&waiting, &shared, &pace))?);
        }
        Ok(readers)
    }

    /// Reads on one of the threads.
    pub(super) async fn read(&self, family: Family, key: &[u8]) -> Found {
        if self.is_slow() {
            self.probe(family, key);
            return Err(DiskError::Slow);
        }
        let (reply, found) = oneshot::channel();
        self.queue(Lookup { family, key: key.to_vec(), reply: Some(reply) })?;
        match tokio::time::timeout(self.pace.timeout, found).await {
            Ok(found) => found.unwrap_or(Err(DiskError::Closed)),
            Err(_) => {
                self.pace.missed();
                Err(DiskError::Slow)
            }
        }
    }

    /// Whether so many lookups timed out that no lookup waits any more.
    pub(super) fn is_slow(&self) -> bool {
        self.pace.strikes.load(Relaxed) >= MAX_STRIKES
    }

    fn probe(&self, family: Family, key: &[u8]) {
        if !self.pace.probing.swap(true, Relaxed)
            && self.queue(Lookup { family, key: key.to_vec(), reply: None }).is_err()
        {
            self.pace.probing.store(false, Relaxed);
        }
    }

    fn queue(&self, lookup: Lookup) -> Result<(), DiskError> {
        let queued = self.lookups.as_ref().ok_or(DiskError::Closed)?.try_send(lookup);
        queued.map_err(|error| match error {
            TrySendError::Full(_) => DiskError::Busy,
            TrySendError::Disconnected(_) => DiskError::Closed,
        })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.lookups = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

impl Pace {
    const fn new(timeout: Duration) -> Self {
        Self { timeout, strikes: AtomicU32::new(0), probing: AtomicBool::new(false) }
    }

    fn missed(&self) {
        if self.strikes.fetch_add(1, Relaxed) + 1 == MAX_STRIKES {
            tracing::error!("the disk does not answer in time: no request waits for it until it does");
        }
    }

    fn read(&self, took: Duration) {
        if took <= self.timeout && self.strikes.swap(0, Relaxed) >= MAX_STRIKES {
            tracing::info!("the disk answers in time again");
        }
    }
}

fn read_all(waiting: &Mutex<Receiver<Lookup>>, shared: &Shared, pace: &Pace) {
    loop {
        // One thread holds the lock while it waits for a lookup; the others wait for the lock. The read
        // happens without the lock.
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Lookup { family, key, reply }) = next else { return };
        if reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
            // The request has gone away meanwhile.
            continue;
        }
        let started = Instant::now();
        let found = shared.get(family, &key);
        pace.read(started.elapsed());
        match reply {
            // The request may have gone away meanwhile.
            Some(reply) => drop(reply.send(found)),
            None => pace.probing.store(false, Relaxed),
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
        // The block cache is cold after the reopening, so every lookup needs the disk. There are no readers:
        // the disk is too slow.
        let store = open();
        let shared = Arc::clone(&store.0.shared);
        let (sender, waiting) = sync_channel(WAITING);
        let pace = Arc::new(Pace::new(Duration::from_secs(3600)));
        let readers = Readers { lookups: Some(sender), threads: Vec::new(), pace: pace.clone() };
        let stuck = DiskStore(Arc::new(Inner {
            keeps_checkpoints: false,
            shared: shared.clone(),
            readers,
            writer: Mutex::new(None),
        }));
        let lookup = || Box::pin(stuck.lookup(Family::Profiles, b"key"));
        let mut nobody = Context::from_waker(Waker::noop());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _runtime = runtime.enter();
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

        let reader = thread::spawn(move || read_all(&Mutex::new(waiting), &shared, &pace));
        for lookup in lookups {
            assert_eq!(runtime.block_on(lookup).unwrap().as_ref(), Some(&value));
        }
        drop(stuck);
        reader.join().unwrap();
    }

    #[test]
    fn a_disk_that_hangs_holds_up_a_few_lookups_for_a_time_and_no_other_until_it_answers_again() {
        let directory = tempfile::tempdir().unwrap();
        let settings = DiskSettings::at(directory.path());
        let store = DiskStore::open(settings.clone(), Clock::held_at(NOW)).unwrap().store;
        assert!(store.put(Family::Profiles, b"key", 1_900_000_000_u64.to_be_bytes().to_vec()));
        store.compact().unwrap();
        store.close();
        let store = DiskStore::open(settings, Clock::held_at(NOW)).unwrap().store;
        let shared = Arc::clone(&store.0.shared);
        let (sender, waiting) = sync_channel(WAITING);
        let pace = Arc::new(Pace::new(Duration::from_millis(1)));
        let readers = Readers { lookups: Some(sender), threads: Vec::new(), pace };
        let hung = DiskStore(Arc::new(Inner {
            keeps_checkpoints: false,
            shared: shared.clone(),
            readers,
            writer: Mutex::new(None),
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for waited in 1..=MAX_STRIKES {
            assert!(!hung.is_slow());
            let found = runtime.block_on(hung.lookup(Family::Profiles, b"key"));
            assert!(matches!(found, Err(DiskError::Slow)), "{found:?}");
            assert_eq!(hung.stats().slow, u64::from(waited));
        }
        assert!(hung.is_slow());
        let mut nobody = Context::from_waker(Waker::noop());
        for _ in 0..2 * WAITING {
            let Poll::Ready(Err(error)) =
                Box::pin(hung.lookup(Family::Profiles, b"key")).as_mut().poll(&mut nobody)
            else {
                panic!("it must not wait")
            };
            assert_eq!(error.reason(), "timeout");
        }

        // The disk answers again: no request waits for the queued lookups, and the one probe is read.
        let pace = Arc::new(Pace { timeout: Duration::from_secs(3600), ..Pace::new(Duration::ZERO) });
        pace.strikes.store(MAX_STRIKES, Relaxed);
        pace.probing.store(true, Relaxed);
        drop(hung);
        read_all(&Mutex::new(waiting), &shared, &pace);
        assert_eq!(pace.strikes.load(Relaxed), 0);
        assert!(!pace.probing.load(Relaxed));
    }
}
