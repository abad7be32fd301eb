//! All deny records in force, by key, and the epochs that show whether a cached answer is still current.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use self::table::Table;
use super::denial::{DIGEST_PART, Denial, Kind, RevocationKey};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::tiers::digest::TokenDigester;

mod table;

/// How many stripes there are. Each stores one epoch in 4 bytes.
const STRIPES: usize = 1 << 16;

/// The last epoch. Once it is reached, no cached answer counts as current. That is slow but never wrong, and
/// takes four billion revocations in one process.
const LAST_EPOCH: u32 = u32::MAX;

/// A deny record in memory: 16 bytes, plus 16 bytes for the key.
#[derive(Clone, Copy)]
struct Entry {
    /// Milliseconds since the Unix epoch.
    changed_at: u64,
    /// Seconds since the Unix epoch, rounded down; 0 if the revocation was undone.
    issued_before: u32,
    /// When the record is dropped, in seconds of the monotonic clock.
    ends: u32,
}

/// All deny records of this process. All configurations share this set.
pub struct RevocationSet {
    clock: Clock,
    /// One table for each [`Kind`].
    entries: RwLock<[Table<Entry>; Kind::ALL.len()]>,
    stripes: Box<[AtomicU32]>,
    /// The epoch of the latest change that may concern every answer.
    floor: AtomicU32,
    /// The epoch of the latest change.
    latest: AtomicU32,
    /// The longest retention of any record so far, in seconds from its change.
    longest_keep: AtomicU64,
    /// The set whose marks answers carry, if it is not this one.
    marking: Option<Arc<Self>>,
}

/// The epoch at which an answer was checked, and the stripes whose later changes concern it; 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    epoch: u32,
    subject: u16,
    session: u16,
}

/// What a deny record can match.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'t> {
    /// The issuer that vouches for the token.
    pub issuer: &'t str,
    /// The subject's key.
    pub subject: RevocationKey,
    /// The session's key, if the token names its session.
    pub session: Option<RevocationKey>,
    /// The token itself. Only its key is looked for, and only if any token is revoked.
    pub token: &'t str,
    /// The key that signed it, if it was verified here and has a `kid`.
    pub kid: Option<&'t str>,
    /// `iat`, or the Unix epoch if there is none. For a foreign token: when its issuer first vouched for it.
    pub issued_at: Timestamp,
}

impl RevocationSet {
    /// Creates an empty set.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            entries: RwLock::default(),
            stripes: (0..STRIPES).map(|_| AtomicU32::new(0)).collect(),
            floor: AtomicU32::new(0),
            latest: AtomicU32::new(0),
            longest_keep: AtomicU64::new(0),
            marking: None,
        }
    }

    /// Creates an empty set of deny records under the old instance secret. Answers carry the marks of
    /// `current`. So each change here makes all of them outdated.
    #[must_use]
    pub fn former(clock: Clock, current: Arc<Self>) -> Self {
        Self { marking: Some(current), ..Self::new(clock) }
    }

    /// The mark for an answer that is about to be checked. Take it *before* [`RevocationSet::denies`]: then a
    /// revocation between the two makes the answer outdated.
    #[must_use]
    pub fn mark(&self, subject: &RevocationKey, session: Option<&RevocationKey>) -> Checked {
        let epoch = self.latest.load(Acquire);
        let subject = stripe(&subject.digest);
        Checked { epoch, subject, session: session.map_or(subject, |session| stripe(&session.digest)) }
    }

    /// Whether the answer is still current: no revocation since its check may concern it. Takes no lock.
    #[must_use]
    pub fn is_current(&self, checked: Checked) -> bool {
        let latest = self.latest.load(Acquire);
        if checked.epoch == latest {
            return latest != LAST_EPOCH;
        }
        let stamped = |stripe: u16| self.stripes[usize::from(stripe)].load(Acquire);
        latest != LAST_EPOCH
            && checked.epoch >= self.floor.load(Acquire)
            && checked.epoch >= stamped(checked.subject)
            && checked.epoch >= stamped(checked.session)
    }

    /// The kind of a deny record that refuses the token, if there is one.
    #[must_use]
    pub fn denies(&self, facts: &TokenFacts<'_>, digester: &TokenDigester) -> Option<Kind> {
        let entries = self.read();
        let covers = |key: &RevocationKey| {
            let entry = entries[index(key.kind)].get(&key.digest);
            entry.is_some_and(|entry| entry.covers(key.kind, facts.issued_at))
        };
        let is_used = |kind: Kind| !entries[index(kind)].is_empty();
        let found = |kind| match kind {
            _ if !is_used(kind) => false,
            Kind::Token => covers(&RevocationKey::token(digester, facts.token)),
            Kind::Session => facts.session.as_ref().is_some_and(covers),
            Kind::Subject => covers(&facts.subject),
            Kind::Sessionless => {
                let key = RevocationKey { kind: Kind::Sessionless, ..facts.subject };
                facts.session.is_none() && covers(&key)
            }
            Kind::Key => {
                facts.kid.is_some_and(|kid| covers(&RevocationKey::kid(digester, facts.issuer, kid)))
            }
            Kind::Everybody => covers(&RevocationKey::everybody(digester, facts.issuer)),
        };
        Kind::ALL.into_iter().find(|kind| found(*kind))
    }

    /// Whether this exact token is revoked. Nothing else about the token needs to be known.
    #[must_use]
    pub fn denies_token(&self, token: &str, digester: &TokenDigester) -> bool {
        let entries = self.read();
        let tokens = &entries[index(Kind::Token)];
        let entry = || tokens.get(&RevocationKey::token(digester, token).digest);
        !tokens.is_empty() && entry().is_some_and(|entry| entry.issued_before != 0)
    }

    /// Merges a deny record into the set. Every request that begins after this returns is subject to it.
    /// Returns the merged record if it differs from the previous one.
    pub fn apply(&self, key: RevocationKey, denial: &Denial) -> Option<Denial> {
        let (now, ticks) = (self.clock.now(), self.clock.ticks());
        let new = Entry::new(denial, now, ticks);
        self.longest_keep.fetch_max(denial.until.since(denial.changed_at).as_secs(), Relaxed);
        let mut entries = self.write();
        let merged = merge(&mut entries[index(key.kind)], &key.digest, new)?;
        self.announce(Some(key));
        Some(Denial { label: denial.label.clone(), ..merged.denial(now, ticks) })
    }

    /// Makes the answers outdated that a change of this record may concern; `None`: all of them. The caller
    /// holds the lock of the entries, so that epochs follow the order of the changes.
    fn announce(&self, key: Option<RevocationKey>) {
        match &self.marking {
            Some(marking) => {
                let _in_turn = marking.write();
                marking.stamp(None);
            }
            None => self.stamp(key),
        }
    }

    /// The stripe is written first: a reader that sees the new epoch also sees the stripe.
    fn stamp(&self, key: Option<RevocationKey>) {
        let epoch = self.latest.load(Acquire).saturating_add(1);
        match key.map(|key| (key.kind, key)) {
            Some((Kind::Subject | Kind::Session | Kind::Sessionless, key)) => {
                self.stripes[usize::from(stripe(&key.digest))].store(epoch, Release);
            }
            // An answer knows neither the key that signed its token nor the other forms of its token.
            Some((Kind::Token | Kind::Key | Kind::Everybody, _)) | None => self.floor.store(epoch, Release),
        }
        self.latest.store(epoch, Release);
    }

    /// Merges many deny records into the set, such as those of the disk, but for expired ones. Afterwards
    /// every cached answer is checked again.
    pub fn apply_all(&self, records: &[(RevocationKey, Denial)]) {
        let (now, ticks) = (self.clock.now(), self.clock.ticks());
        let longest = records.iter().map(|(_, denial)| denial.until.since(denial.changed_at).as_secs()).max();
        self.longest_keep.fetch_max(longest.unwrap_or(0), Relaxed);
        let mut entries = self.write();
        let mut is_changed = false;
        for (key, denial) in records.iter().filter(|(_, denial)| denial.until > now) {
            let new = Entry::new(denial, now, ticks);
            is_changed |= merge(&mut entries[index(key.kind)], &key.digest, new).is_some();
        }
        if is_changed {
            self.announce(None);
        }
    }

    /// The record under `key`, if there is one. Its label is empty.
    #[must_use]
    pub fn get(&self, key: &RevocationKey) -> Option<Denial> {
        let entry = self.read()[index(key.kind)].get(&key.digest)?;
        Some(entry.denial(self.clock.now(), self.clock.ticks()))
    }

    /// The longest retention of any record from its change, including records that were dropped or replaced.
    #[must_use]
    pub fn longest_keep(&self) -> Duration {
        Duration::from_secs(self.longest_keep.load(Relaxed))
    }

    /// Drops expired records, by the monotonic clock.
    pub fn drop_expired(&self) {
        let now = seconds(self.clock.ticks());
        self.write().iter_mut().for_each(|table| table.retain(|entry| entry.ends > now));
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().iter().all(Table::is_empty)
    }

    /// How many records of a kind refuse tokens. Looks at each one.
    #[must_use]
    pub fn count_in_force(&self, kind: Kind) -> usize {
        self.read()[index(kind)].iter().filter(|(_, entry)| entry.issued_before != 0).count()
    }

    /// The number of records of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.read()[index(kind)].len()
    }

    /// All keys with their records. The labels are empty.
    #[must_use]
    pub fn all(&self) -> Vec<(RevocationKey, Denial)> {
        self.all_where(|_, _| true)
    }

    /// The keys with their records for which `wanted` holds. The labels are empty.
    #[must_use]
    pub fn all_where(
        &self,
        wanted: impl Fn(&RevocationKey, &Denial) -> bool,
    ) -> Vec<(RevocationKey, Denial)> {
        let (now, ticks) = (self.clock.now(), self.clock.ticks());
        let entries = self.read();
        let of = |kind: Kind| {
            let known = entries[index(kind)].iter();
            known.map(move |(digest, entry)| {
                (RevocationKey { kind, digest: *digest }, entry.denial(now, ticks))
            })
        };
        Kind::ALL.into_iter().flat_map(of).filter(|(key, denial)| wanted(key, denial)).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, [Table<Entry>; Kind::ALL.len()]> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, [Table<Entry>; Kind::ALL.len()]> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RevocationSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = Kind::ALL.map(|kind| (kind.name(), self.count(kind)));
        f.debug_tuple("RevocationSet").field(&counts).finish()
    }
}

impl Entry {
    fn new(denial: &Denial, now: Timestamp, ticks: Ticks) -> Self {
        // Rounded down, as `iat` is: a token of the next second was issued later.
        let issued_before = denial.issued_before.as_secs();
        let ends = u64::from(seconds(ticks)) + denial.until.since(now).as_secs().max(1);
        Self {
            changed_at: denial.changed_at.as_millis(),
            issued_before: u32::try_from(issued_before).unwrap_or(u32::MAX),
            ends: u32::try_from(ends).unwrap_or(u32::MAX),
        }
    }

    /// Whether the record refuses a token issued at this time. `iat` has whole seconds, so a token issued in
    /// the second of the revocation is refused.
    fn covers(self, kind: Kind, issued_at: Timestamp) -> bool {
        match kind {
            Kind::Token => self.issued_before != 0,
            _ => self.issued_before != 0 && issued_at.as_secs() <= u64::from(self.issued_before),
        }
    }

    /// As [`Denial::merged_with`].
    fn merged_with(self, other: Self) -> Self {
        let rank = |entry: &Self| (entry.changed_at, entry.issued_before);
        let (later, earlier) = if rank(&self) >= rank(&other) { (self, other) } else { (other, self) };
        if later.issued_before == 0 || earlier.issued_before == 0 {
            return later;
        }
        Self {
            issued_before: later.issued_before.max(earlier.issued_before),
            ends: later.ends.max(earlier.ends),
            ..later
        }
    }

    fn is_equivalent_to(self, other: Self) -> bool {
        (self.changed_at, self.issued_before) == (other.changed_at, other.issued_before)
    }

    fn denial(self, now: Timestamp, ticks: Ticks) -> Denial {
        let left = u64::from(self.ends).saturating_sub(u64::from(seconds(ticks)));
        Denial {
            issued_before: Timestamp::from_secs(self.issued_before.into()),
            changed_at: Timestamp::from_millis(self.changed_at),
            until: now.after(Duration::from_secs(left)),
            label: String::new(),
        }
    }
}

/// Merges an entry into what is known. Returns the merged entry if it says something else than before.
fn merge(table: &mut Table<Entry>, digest: &[u8; DIGEST_PART], new: Entry) -> Option<Entry> {
    let (known, merged) = table.put(digest, new, Entry::merged_with);
    (!known.is_some_and(|known| known.is_equivalent_to(merged))).then_some(merged)
}

const fn index(kind: Kind) -> usize {
    kind as usize - 1
}

fn stripe(digest: &[u8; 16]) -> u16 {
    // The hash maps use other bytes.
    u16::from_le_bytes([digest[8], digest[9]])
}

fn seconds(ticks: Ticks) -> u32 {
    u32::try_from(ticks.since(Ticks::from_elapsed(Duration::ZERO)).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
