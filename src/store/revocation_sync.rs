//! Follows the log of revocations in Redis, and compares it with this instance's deny records.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::archive::Archive;
use super::revocations::{Revocations, Source};
use super::shared::{LOG_START, LogId, SharedError, SharedStore};
use crate::clock::Ticks;
use crate::revocation::{Denial, RevocationKey};

/// The interval of reading the log without a message, and of retrying a disk that could not be read.
const POLL: Duration = Duration::from_secs(1);

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
            if let Some(archive) = self.archive.as_ref().filter(|archive| !archive.disk_is_degraded())
                && let Err(error) = self.write_to_disk(archive).await
            {
                debug!("deny records wait for the disk: {error}");
            }
            if self.clock.ticks().since(swept) > SWEEP {
                self.sweep();
                swept = self.clock.ticks();
            }
            let Some((archive, shared)) =
                self.archive.as_ref().and_then(|archive| Some((archive, archive.shared()?)))
            else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            let at = self.clock.ticks();
            if self.untold.swap(false, Relaxed) {
                last = LOG_START.to_owned();
            }
            match self.read_on(archive, shared, &mut last).await {
                Ok(()) => {
                    let at = at.since(Ticks::from_elapsed(Duration::ZERO)).as_millis();
                    self.read_at.store(u64::try_from(at).unwrap_or(u64::MAX - 1) + 1, Relaxed);
                }
                Err(SharedError::Away) => shared.well_or(POLL).await,
                Err(error) => {
                    self.metrics.store_failed("shared", "revocations");
                    debug!("revocations cannot be read from Redis now: {error}");
                }
            }
            tokio::select! {
                () = shared.revocation_arrived() => {}
                () = tokio::time::sleep(POLL) => {}
            }
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
            Some(place) if is_before_or_at(&place, last) => {
                warn!("Redis has lost a revocation of this instance: it is written to it again");
                self.compare(archive, shared, last).await
            }
            // The entry is after the end of this read. The next read finds it.
            Some(_) => Ok(()),
            None => {
                self.has_read(last);
                Ok(())
            }
        }
    }

    /// Records that the log was read up to this place. An own entry at or before it is no longer awaited.
    fn has_read(&self, place: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref().is_some_and(|written| is_before_or_at(written, place)) {
            *written = None;
        }
    }

    /// Reads the whole log, and appends the records that this instance has and the log lacks.
    async fn compare(
        &self,
        archive: &Arc<Archive>,
        shared: &SharedStore,
        last: &mut LogId,
    ) -> Result<(), SharedError> {
        let mut there = HashSet::new();
        let mut place = LOG_START.to_owned();
        loop {
            let page = shared.revocations_from(&place).await?;
            let before = place.clone();
            for (at, key, sealed) in &page.entries {
                if *at != before
                    && let Some((key, denial)) = self.take(archive, key, sealed)
                {
                    there.insert((key, denial.changed_at));
                }
                place.clone_from(at);
            }
            if !page.is_full {
                break;
            }
        }
        self.has_read(&place);
        let now = self.clock.now();
        let known = if self.set.is_empty() { Vec::new() } else { self.list().await };
        for (key, denial) in known {
            if denial.until > now && !there.contains(&(key, denial.changed_at)) {
                self.append(archive, shared, &[(key, denial)]).await?;
            }
        }
        *last = place;
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
            if merged.is_in_force() {
                self.metrics.revoked(key.kind.name(), Source::Shared.name(), 1);
            }
            if archive.has_disk() {
                self.unkept().insert(key, merged);
            }
        }
        Some((key, denial))
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
