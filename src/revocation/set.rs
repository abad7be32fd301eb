//! All deny records in force, by key, and the epochs by which answers in memory know whether they are still
//! current.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::denial::{Denial, Kind, RevocationKey};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::tiers::digest::{BuildDigestHasher, TokenDigest, TokenDigester};

/// How many stripes share the epochs; each takes 4 bytes.
const STRIPES: usize = 1 << 16;

/// The last epoch. From then on no answer in memory is current, which is slow and never wrong. It takes four
/// billion revocations in one process.
const LAST_EPOCH: u32 = u32::MAX;

/// A digest's part as a hash map's key: its own first bytes are the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part([u8; 16]);

impl std::hash::Hash for Part {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// A deny record as it is in memory: 20 bytes, and 16 of the key.
#[derive(Clone, Copy)]
struct Entry {
    /// Milliseconds since the Unix epoch.
    changed_at: u64,
    /// Seconds since the Unix epoch, rounded down; 0 if the revocation was taken back.
    issued_before: u32,
    /// When it is dropped, in seconds of the clock that nobody sets.
    ends: u32,
}

type Entries = HashMap<Part, Entry, BuildDigestHasher>;

/// All deny records of this process. Configurations share it.
pub struct RevocationSet {
    clock: Clock,
    /// One map for each [`Kind`].
    entries: RwLock<[Entries; Kind::ALL.len()]>,
    stripes: Box<[AtomicU32]>,
    /// The epoch of the latest change that concerns every answer.
    floor: AtomicU32,
    /// The epoch of the latest change.
    latest: AtomicU32,
    /// The longest time, in seconds, that any record was to be kept from its change on.
    longest_keep: AtomicU64,
}

/// When an answer was checked, and which later changes concern it. It takes 8 bytes.
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
    /// The digest of the token without its signature.
    pub token: TokenDigest,
    /// The key that signed it, if it was verified here and has a `kid`.
    pub kid: Option<&'t str>,
    /// `iat`; the Unix epoch if it has none. Of a foreign token: when its issuer first vouched for it.
    pub issued_at: Timestamp,
}

impl RevocationSet {
    /// Nothing is revoked.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            entries: RwLock::default(),
            stripes: (0..STRIPES).map(|_| AtomicU32::new(0)).collect(),
            floor: AtomicU32::new(0),
            latest: AtomicU32::new(0),
            longest_keep: AtomicU64::new(0),
        }
    }

    /// The mark for an answer that is about to be checked. Take it *before* [`RevocationSet::denies`]: a
    /// revocation that comes between the two then makes the answer outdated.
    #[must_use]
    pub fn mark(&self, subject: &RevocationKey, session: Option<&RevocationKey>) -> Checked {
        let epoch = self.latest.load(Acquire);
        let subject = stripe(&subject.digest);
        Checked { epoch, subject, session: session.map_or(subject, |session| stripe(&session.digest)) }
    }

    /// Whether nothing that may concern this answer was revoked since it was checked. Takes no lock.
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

    /// Which deny record refuses the token, if one does.
    #[must_use]
    pub fn denies(&self, facts: &TokenFacts<'_>, digester: &TokenDigester) -> Option<Kind> {
        let entries = self.read();
        let covers = |key: &RevocationKey| {
            let map = &entries[index(key.kind)];
            map.get(&Part(key.digest)).is_some_and(|entry| entry.covers(key.kind, facts.issued_at))
        };
        let is_used = |kind: Kind| !entries[index(kind)].is_empty();
        let found = |kind| match kind {
            _ if !is_used(kind) => false,
            Kind::Token => covers(&RevocationKey::token(&facts.token)),
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

    /// Whether this exact token is revoked, which is known before anything else about it is.
    #[must_use]
    pub fn denies_token(&self, token: &TokenDigest) -> bool {
        let key = RevocationKey::token(token);
        let entries = self.read();
        entries[index(key.kind)].get(&Part(key.digest)).is_some_and(|entry| entry.issued_before != 0)
    }

    /// Takes over a deny record. From when this returns, every request that begins is answered by it. Returns
    /// what is known now, if that changed.
    pub fn apply(&self, key: RevocationKey, denial: &Denial) -> Option<Denial> {
        let (now, ticks) = (self.clock.now(), self.clock.ticks());
        let new = Entry::new(denial, now, ticks);
        self.longest_keep.fetch_max(denial.until.since(denial.changed_at).as_secs(), Relaxed);
        let mut entries = self.write();
        let map = &mut entries[index(key.kind)];
        let merged = match map.get(&Part(key.digest)) {
            Some(known) => known.merged_with(new),
            None => new,
        };
        let known = map.insert(Part(key.digest), merged);
        if known.is_some_and(|known| known.says_the_same_as(merged)) {
            return None;
        }
        // Under the lock: epochs are given out in the order of the changes. The stripe first: whoever sees
        // the new epoch sees the stripe.
        let epoch = self.latest.load(Acquire).saturating_add(1);
        match key.kind {
            Kind::Subject | Kind::Session | Kind::Sessionless => {
                self.stripes[usize::from(stripe(&key.digest))].store(epoch, Release);
            }
            // An answer does not know which key signed its token, nor its token's other forms.
            Kind::Token | Kind::Key | Kind::Everybody => self.floor.store(epoch, Release),
        }
        self.latest.store(epoch, Release);
        Some(Denial { label: denial.label.clone(), ..merged.denial(now, ticks) })
    }

    /// When the record under `key` was last changed, if there is one.
    #[must_use]
    pub fn changed_at(&self, key: &RevocationKey) -> Option<Timestamp> {
        let entries = self.read();
        let entry = entries[index(key.kind)].get(&Part(key.digest))?;
        Some(Timestamp::from_millis(entry.changed_at))
    }

    /// The longest time that any record, also an earlier one, is to be kept from its change on.
    #[must_use]
    pub fn longest_keep(&self) -> Duration {
        Duration::from_secs(self.longest_keep.load(Relaxed))
    }

    /// Drops records whose time is over, by the clock that nobody sets.
    pub fn drop_expired(&self) {
        let now = seconds(self.clock.ticks());
        for map in self.write().iter_mut() {
            map.retain(|_, entry| entry.ends > now);
        }
    }

    /// Whether there are no records at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().iter().all(HashMap::is_empty)
    }

    /// How many records of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.read()[index(kind)].len()
    }

    /// Every key, with its record without the label.
    #[must_use]
    pub fn all(&self) -> Vec<(RevocationKey, Denial)> {
        let (now, ticks) = (self.clock.now(), self.clock.ticks());
        let entries = self.read();
        let of = |kind: Kind| {
            let known = entries[index(kind)].iter();
            known.map(move |(part, entry)| (RevocationKey { kind, digest: part.0 }, entry.denial(now, ticks)))
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, [Entries; Kind::ALL.len()]> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, [Entries; Kind::ALL.len()]> {
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

    /// `iat` has whole seconds: a token of the second in which it was revoked is refused.
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

    fn says_the_same_as(self, other: Self) -> bool {
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

const fn index(kind: Kind) -> usize {
    kind as usize - 1
}

fn stripe(digest: &[u8; 16]) -> u16 {
    // Not the bytes that the hash maps use.
    u16::from_le_bytes([digest[8], digest[9]])
}

fn seconds(ticks: Ticks) -> u32 {
    u32::try_from(ticks.since(Ticks::from_elapsed(Duration::ZERO)).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
