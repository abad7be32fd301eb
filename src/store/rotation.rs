//! Rotation of the instance secret: records under the old secret are still found and forgotten.
//!
//! Names and seals of records depend on the secret. While `secret_file_old` is set, an instance has two
//! archives over the same stores: its own, and one with the names and seals of the old secret ([`Former`]).
//! Records are written only to its own archive, looked up in both, and forgotten in both. It reads the
//! messages of both secrets.
//!
//! An instance that has only the old secret names what it forgets by old digests. Nobody can compute the new
//! digest of a token from its old one. So the old digest waits here until the same token comes. Then the
//! token is forgotten, before anything is answered from it.
//!
//! Instances that rotate notify each other by new digests. Their messages under the old secret are only for
//! instances that do not rotate, which a flag in the sender says. Otherwise two rotating instances would
//! answer each other for ever.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;
use tracing::warn;

use super::archive::{Archive, Former, lock};
use super::purge::{Purge, Subject};
use super::shared::{Forget, SharedStore};
use super::stores::Stores;
use super::unfinished::Unfinished;
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey, TokenDigest, TokenDigester};
use crate::tiers::policy::Policy;
use crate::tiers::record::{Family, Record};

/// The most digests that may wait: three hours of refusals at 25 calls a second. With more, all records are
/// forgotten.
const MAX_FORGOTTEN: usize = 1 << 18;

type Digest = [u8; DIGEST_LENGTH];

impl Former {
    pub(super) fn new(archive: Arc<Archive>, digester: TokenDigester) -> Self {
        let (is_read, waits) = (true.into(), false.into());
        Self { archive, digester, is_read, forgotten: Mutex::default(), waits }
    }

    /// The old key. Keys that are no digests are the same under both secrets.
    fn key(&self, family: Family, key: &[u8]) -> Option<Vec<u8>> {
        match (family, Digest::try_from(key)) {
            (Family::Keys, _) | (_, Err(_)) => Some(key.to_vec()),
            (_, Ok(digest)) => self.digester.before(&digest).map(|old| old.to_vec()),
        }
    }

    fn forget(&self, family: Family, key: &[u8], policy: &Policy) {
        match self.key(family, key) {
            Some(old) => self.archive.forget_current(family, &old, policy),
            None => self.stop_reading(),
        }
    }

    /// Stops reading records under the old secret, because one could not be forgotten: its old digest was
    /// made too long ago.
    fn stop_reading(&self) {
        if self.is_read.swap(false, Relaxed) {
            warn!("too much was forgotten at once: records under secret_file_old are not read any more");
        }
    }

    /// The same purge by old digests.
    fn purge(&self, purge: &Purge) -> Option<Purge> {
        match purge {
            Purge::Token(digest) => self.digester.before(&digest.0).map(|old| Purge::Token(TokenDigest(old))),
            Purge::Subject(who, _) => Some(self.purge_of(who, self.digester.former()?)),
            Purge::Everybody => Some(Purge::Everybody),
        }
    }

    fn purge_of(&self, who: &Subject, digester: &TokenDigester) -> Purge {
        let keys = who.issuers.iter().map(|issuer| digester.subject(issuer, &who.subject)).collect();
        Purge::Subject(who.clone(), keys)
    }

    /// Whether an instance with only the old secret has forgotten this. Then the caller forgets it.
    fn takes(&self, digest: &Digest) -> bool {
        if !self.waits.load(Acquire) {
            return false;
        }
        let Some(old) = self.digester.before(digest) else { return false };
        let mut forgotten = lock(&self.forgotten);
        let taken = forgotten.remove(&old);
        self.waits.store(!forgotten.is_empty(), Release);
        taken
    }

    /// Lets an old digest wait. Returns false if too many wait: then all are dropped, and everything must be
    /// forgotten.
    fn await_token(&self, old: Digest) -> bool {
        let mut forgotten = lock(&self.forgotten);
        let fits = forgotten.len() < MAX_FORGOTTEN;
        if fits {
            forgotten.insert(old);
        } else {
            *forgotten = HashSet::new();
        }
        self.waits.store(fits, Release);
        fits
    }
}

impl Archive {
    /// The same archive, which also reads and forgets the records under the old secret in `former`.
    pub(super) fn rotating_from(mut self, former: Self, digester: TokenDigester) -> Self {
        self.former = Some(Former::new(Arc::new(former), digester));
        self
    }

    /// The archive under the old secret, while the secret is rotated.
    #[must_use]
    pub fn former(&self) -> Option<&Arc<Self>> {
        self.former.as_ref().map(|former| &former.archive)
    }

    /// The lookup, also under the old secret. A record that is found there is written under the new one if
    /// Redis has it, or if there is no Redis. If only the disk has it, another instance may have forgotten
    /// it: then it is written when its issuer confirms it.
    pub async fn load<R: Record>(&self, key: &[u8], policy: &Policy) -> Option<(R, &'static str)> {
        let since = self.generation();
        let found = self.load_current::<R>(key, policy).await;
        let is_final =
            found.as_ref().is_some_and(|(record, _)| self.plan(record, policy).serves_now().is_some());
        let Some(former) = self.former.as_ref().filter(|former| !is_final && former.is_read.load(Relaxed))
        else {
            return found;
        };
        let Some(old_key) = former.key(R::FAMILY, key) else { return found };
        let (record, store) = match (found, former.archive.load_current::<R>(&old_key, policy).await) {
            (found, None) => return found,
            (Some(found), Some((older, _))) if !self.prefers(&older, &found.0, policy) => {
                return Some(found);
            }
            (_, Some(older)) => older,
        };
        if store == "shared" || self.shared.is_none() {
            self.copy(since, || self.keep(key, &record, &record.kept(), policy));
        }
        Some((record, store))
    }

    /// Forgets a record in both stores, under both secrets, and tells the other instances to forget it.
    pub fn forget(&self, family: Family, key: &[u8], policy: &Policy) {
        self.forget_current(family, key, policy);
        if let Some(former) = &self.former {
            former.forget(family, key, policy);
        }
    }

    /// Forgets what `purge` names in both stores, under both secrets, tells the other instances to forget it,
    /// and waits until this is done.
    ///
    /// # Errors
    /// Which store is degraded. It forgets before it answers again.
    pub async fn purge(&self, purge: &Purge, policy: &Policy) -> Result<(), Unfinished> {
        let done = self.purge_current(purge, policy).await;
        let Some(former) = &self.former else { return done };
        match former.purge(purge) {
            Some(purge) => done.and(former.archive.purge_current(&purge, policy).await),
            None => {
                former.stop_reading();
                done
            }
        }
    }

    /// What instances with only the old secret forget, from now on.
    #[must_use]
    pub fn former_forgets(&self) -> Option<broadcast::Receiver<Forget>> {
        self.former()?.forgets()
    }
}

impl Stores {
    /// The shared store under the old secret, while the secret is rotated and if there is a Redis.
    #[must_use]
    pub fn former_shared(&self) -> Option<&SharedStore> {
        self.archive.as_ref()?.former()?.shared()
    }

    /// Forgets a token that an instance with only the old secret has forgotten. Call it before anything about
    /// the token is looked up.
    pub fn catch_up(&self, digest: &TokenDigest) {
        if let Some(archive) = self.archive.as_ref().filter(|archive| archive.takes(&digest.0)) {
            self.forget_token(archive, digest);
        }
    }

    /// The same for a subject.
    pub(super) fn catch_up_profile(&self, key: &SubjectKey) {
        if self.archive.as_ref().is_some_and(|archive| archive.takes(&key.0)) {
            self.forget_profile(key);
        }
    }

    /// Applies a message of an instance that has only the old secret.
    pub async fn follow_former(&self, forget: Forget) {
        let Some((archive, former)) =
            self.archive.as_ref().and_then(|archive| Some((archive, archive.former.as_ref()?)))
        else {
            return;
        };
        former.archive.follow(&forget).await;
        let purge = match forget {
            Forget::Token(old) | Forget::Profile(old) if former.await_token(old) => return,
            Forget::Token(_) | Forget::Profile(_) | Forget::Everybody => Purge::Everybody,
            Forget::Subject { subject, issuers, .. } => {
                former.purge_of(&Subject { subject, issuers }, &former.digester)
            }
            Forget::Revocations => return,
        };
        // Not under the old secret: the sender has done that.
        self.note(&purge);
        if let Err(error) = archive.purge_current(&purge, &self.policy).await {
            warn!("what an instance with the old secret purged is forgotten later: {error}");
        }
        self.purge_memory(purge);
    }
}

impl Archive {
    fn takes(&self, digest: &Digest) -> bool {
        self.former.as_ref().is_some_and(|former| former.takes(digest))
    }
}
