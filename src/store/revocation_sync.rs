//! Follows the log of revocations in Redis, and compares it with this instance's deny records.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::archive::Archive;
use super::revocations::{Revocations, Source};
use super::shared::{LOG_START, LogId, SharedError, SharedStore};
use crate::clock::{Ticks, Timestamp};
use crate::revocation::{Denial, RevocationKey};

/// How often the log is read without a message, and how often a disk that could not be read is tried again.
const POLL: Duration = Duration::from_secs(1);

/// How many missing records are appended before the log is read again.
const AT_ONCE: usize = 64;

/// How often expired records are dropped from memory.
const SWEEP: Duration = Duration::from_secs(3600);

impl Revocations {
    /// Runs until its task is aborted.
    pub(super) async fn run(self: Arc<Self>) {
        let mut swept = self.clock.ticks();
        let mut last = LOG_START.to_owned();
        loop {
            if !self.loaded.load(Relaxed) {
                let this = self.clone();
                if let Ok(Ok(())) = tokio::task::spawn_blocking(move || this.load()).await {
                    info!("deny records were read from the disk");
                }
            }
            if self.clock.ticks().since(swept) > SWEEP {
                self.sweep();
                swept = self.clock.ticks();
            }
            let Some((archive, shared)) =
                self.archive.as_ref().and_then(|archive| Some((archive, archive.shared()?)))
            else {
                self.write_what_waits().await;
                tokio::time::sleep(POLL).await;
                continue;
            };
            let at = self.clock.ticks();
            if self.unappended.swap(false, Relaxed) {
                last = LOG_START.to_owned();
            }
            match self.read_on(archive, shared, &mut last).await {
                Ok(()) => {
                    let at = at.since(Ticks::from_elapsed(Duration::ZERO)).as_millis();
                    self.read_at.store(u64::try_from(at).unwrap_or(u64::MAX - 1) + 1, Relaxed);
                }
                Err(SharedError::Disconnected) => shared.connected_within(POLL).await,
                Err(error) => {
                    self.metrics.store_failed("shared", "revocations");
                    debug!("revocations cannot be read from Redis now: {error}");
                }
            }
            // After the log is read, so that revocations of other instances wait neither for the disk nor for
            // a poll.
            self.write_what_waits().await;
            tokio::select! {
                () = shared.revocation_arrived() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Writes to the disk what it does not have yet, unless it is degraded.
    async fn write_what_waits(&self) {
        if let Some(archive) = self.archive.as_ref().filter(|archive| !archive.disk_is_degraded())
            && let Err(error) = self.write_to_disk(archive).await
        {
            debug!("deny records wait for the disk: {error}");
        }
    }

    /// Reads the log from its last known entry to its end. Compares everything if that entry is gone, or if
    /// an entry that this instance wrote is gone. Also compares everything from [`LOG_START`], that is, at
    /// the start and after a change that Redis refused.
    async fn read_on(
        &self,
        archive: &Arc<Archive>,
        shared: &SharedStore,
        last: &mut LogId,
    ) -> Result<(), SharedError> {
        if last == LOG_START {
            return self.compare(archive, shared, last).await;
        }
        let mut first = true;
        let mut awaited = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            let page = shared.revocations_from(last).await?;
            let begins_where_it_should = page.entries.first().is_some_and(|(place, ..)| place == last);
            if first && !begins_where_it_should {
                warn!("Redis has lost revocations: they are written to it again");
                return self.compare(archive, shared, last).await;
            }
            first = false;
            for (place, key, sealed) in &page.entries {
                if awaited.as_ref() == Some(place) {
                    awaited = None;
                }
                if place != last {
                    self.take(archive, key, sealed);
                }
            }
            if let Some((place, ..)) = page.entries.last() {
                last.clone_from(place);
            }
            if !page.is_full {
                break;
            }
        }
        match awaited {
            // It was written before this read began, so Redis has lost it.
            Some(_) => {
                warn!("Redis has lost a revocation of this instance: it is written to it again");
                self.compare(archive, shared, last).await
            }
            None => {
                self.has_read(last);
                Ok(())
            }
        }
    }

    /// Records that the log was read up to this place. An entry of this instance at or before it is no longer
    /// awaited.
    fn has_read(&self, place: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref().is_some_and(|written| is_before_or_at(written, place)) {
            *written = None;
        }
    }

    /// Reads the whole log, and appends the records that this instance has and the log lacks.
    ///
    /// When Redis has lost its data, every instance does this at once. So each appends a few records at a
    /// time, reads on before the next ones, and leaves out what others have appended.
    async fn compare(
        &self,
        archive: &Arc<Archive>,
        shared: &SharedStore,
        last: &mut LogId,
    ) -> Result<(), SharedError> {
        let mut there = HashSet::new();
        let mut place = LOG_START.to_owned();
        self.collect(archive, shared, &mut place, &mut there).await?;
        let now = self.clock.now();
        let is_missing = |key: &RevocationKey, denial: &Denial| {
            denial.until > now && !there.contains(&Entry::of(*key, denial))
        };
        // The order of such a set is random, so that instances begin with different records.
        let missing: HashSet<RevocationKey> =
            self.set.all_where(is_missing).into_iter().map(|(key, _)| key).collect();
        let missing: Vec<RevocationKey> = missing.into_iter().collect();
        for (number, keys) in missing.chunks(AT_ONCE).enumerate() {
            if number > 0 {
                self.collect(archive, shared, &mut place, &mut there).await?;
            }
            let known = keys.iter().filter_map(|key| Some((*key, self.set.get(key)?)));
            let lacking = known.filter(|(key, denial)| !there.contains(&Entry::of(*key, denial)));
            let lacking = self.with_labels(archive, lacking.collect()).await;
            self.append(archive, shared, &lacking).await?;
        }
        *last = place;
        Ok(())
    }

    /// Reads the log from `place` to its end, moves `place` there, and adds the entries to `there`.
    async fn collect(
        &self,
        archive: &Arc<Archive>,
        shared: &SharedStore,
        place: &mut LogId,
        there: &mut HashSet<Entry>,
    ) -> Result<(), SharedError> {
        loop {
            let page = shared.revocations_from(place).await?;
            for (at, key, sealed) in &page.entries {
                if at != place
                    && let Some((key, denial)) = self.take(archive, key, sealed)
                {
                    there.insert(Entry::of(key, &denial));
                }
            }
            if let Some((at, ..)) = page.entries.last() {
                place.clone_from(at);
            }
            if !page.is_full {
                break;
            }
        }
        self.has_read(place);
        Ok(())
    }

    /// Applies an entry of the log in memory, and queues it for the disk.
    fn take(&self, archive: &Archive, key: &[u8], sealed: &[u8]) -> Option<(RevocationKey, Denial)> {
        let key = RevocationKey::from_bytes(key);
        let Some((key, denial)) = key.and_then(|key| Some((key, archive.open_denial(key, sealed)?))) else {
            self.metrics.store_failed("shared", "unreadable_revocation");
            return None;
        };
        if denial.until > self.clock.now()
            && let Some(merged) = self.apply(key, &denial)
        {
            self.hand_over(key, &denial);
            if merged.is_in_force() && self.successor.is_none() {
                self.metrics.revoked(key.kind.name(), Source::Shared.name(), 1);
            }
            if archive.has_disk() {
                self.unwritten().insert(key, merged);
            }
        }
        Some((key, denial))
    }
}

/// A record as the log has it, reduced to what memory keeps: times of issue have whole seconds.
#[derive(PartialEq, Eq, Hash)]
struct Entry {
    key: RevocationKey,
    changed_at: Timestamp,
    issued_before: u64,
}

impl Entry {
    const fn of(key: RevocationKey, denial: &Denial) -> Self {
        Self { key, changed_at: denial.changed_at, issued_before: denial.issued_before.as_secs() }
    }
}

/// Whether place `one` in the log is at or before place `other`. A place is two numbers joined by a dash.
fn is_before_or_at(one: &str, other: &str) -> bool {
    let numbers = |place: &str| -> Option<(u64, u64)> {
        let (millis, number) = place.split_once('-')?;
        Some((millis.parse().ok()?, number.parse().ok()?))
    };
    numbers(one).zip(numbers(other)).is_some_and(|(one, other)| one <= other)
}
