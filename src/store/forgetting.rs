//! Forgets, in all stores, what an operator purges or another instance has forgotten.

use super::archive::Archive;
use super::purge::Purge;
use super::shared::Forget;
use super::stores::Stores;
use super::unfinished::Unfinished;
use crate::tiers::digest::{SubjectKey, TokenDigest};
use crate::tiers::record::{Family, Record, VerdictRecord};

impl Stores {
    /// Forgets what `purge` names in all stores, tells the other instances to forget it, and waits until this
    /// is done. Deny records, remembered refusals and issuers' keys stay.
    ///
    /// # Errors
    /// The store that could not forget now. It forgets before it answers again. Memory has forgotten.
    pub async fn purge(&self, purge: Purge) -> Result<(), Unfinished> {
        // Memory last: otherwise a request could bring back to memory what another store still has.
        self.note(&purge);
        let beyond = match &self.archive {
            None => Ok(()),
            Some(archive) => archive.purge(&purge, &self.policy).await,
        };
        self.purge_memory(purge);
        beyond
    }

    /// Forgets what another instance has forgotten, in memory and on disk.
    pub async fn follow(&self, forget: Forget) {
        let purge = forget.clone().into_purge();
        match (&forget, &purge) {
            (Forget::Profile(key), _) => self.invalidations.note(key),
            (_, Some(purge)) => self.note(purge),
            (_, None) => {}
        }
        if let Some(archive) = &self.archive {
            archive.follow(&forget).await;
        }
        if let Forget::Profile(key) = &forget {
            self.invalidations.note(key);
            self.profiles.remove(&SubjectKey(*key));
        }
        if let Some(purge) = purge {
            self.purge_memory(purge);
        }
    }

    /// How many records of this instance, in memory and on its disk, a purge is about. They are counted
    /// before the purge: a record that comes in between is forgotten and not counted.
    pub async fn known_of(&self, purge: &Purge) -> u64 {
        match purge {
            Purge::Token(digest) => {
                let since = self.epoch(digest);
                let is_known = self.ready.derived().is_some_and(|derived| derived.has(digest))
                    || self.verdict(digest, since).await.is_some();
                u64::from(is_known)
            }
            Purge::Subject(who, keys) => {
                let mut profiles = 0;
                for key in keys {
                    profiles += u64::from(self.profile(key).await.is_some());
                }
                let on_disk = match &self.archive {
                    Some(archive) => archive.count_verdicts_of(who.clone()).await,
                    None => 0,
                };
                let is_meant =
                    |bytes: &[u8]| VerdictRecord::decode(bytes).is_ok_and(|record| who.matches(&record));
                let in_memory = self.verdicts.iter().filter(|(_, bytes)| is_meant(bytes)).count();
                // With a disk, what is in memory is on disk as well.
                profiles + on_disk.max(in_memory as u64)
            }
            Purge::Everybody => {
                let in_memory = (self.verdicts.len() + self.profiles.len()) as u64;
                let on_disk = self.archive.as_ref().and_then(|archive| archive.count()).unwrap_or_default();
                in_memory.max(on_disk)
            }
        }
    }

    /// Forgets what is known of a token in all stores, without waiting, and tells the other instances.
    pub(super) fn forget_token(&self, archive: &Archive, digest: &TokenDigest) {
        self.invalidations.note(&digest.0);
        archive.forget(Family::Verdicts, &digest.0, &self.policy);
        self.purge_memory(Purge::Token(*digest));
    }

    /// Invalidates what `purge` is about. Digests do not tell whose token they are, so a purge of a subject
    /// invalidates all of them.
    pub(super) fn note(&self, purge: &Purge) {
        match purge {
            Purge::Token(digest) => self.invalidations.note(&digest.0),
            Purge::Subject(..) | Purge::Everybody => self.invalidations.note_all(),
        }
    }

    /// Records first, then answers, which are made from records.
    pub(super) fn purge_memory(&self, purge: Purge) {
        self.note(&purge);
        match purge {
            Purge::Token(digest) => {
                self.verdicts.remove(&digest);
                self.invalidations.note(&digest.0);
                for ready in self.all_ready() {
                    ready.forget(&digest);
                }
            }
            Purge::Subject(who, keys) => {
                self.verdicts.retain(|_, bytes| {
                    VerdictRecord::decode(bytes).is_ok_and(|record| !who.matches(&record))
                });
                for key in keys {
                    self.profiles.remove(&key);
                }
                self.invalidations.note_all();
                // An answer does not say whose it is. Making it again costs one signature check.
                self.all_ready().iter().for_each(|ready| ready.forget_all());
            }
            Purge::Everybody => self.purge_memory_of_everybody(),
        }
    }

    /// Forgets all answers, verdicts and profiles in memory.
    pub fn purge_memory_of_everybody(&self) {
        self.invalidations.note_all();
        self.verdicts.clear();
        self.profiles.clear();
        self.invalidations.note_all();
        self.all_ready().iter().for_each(|ready| ready.forget_all());
    }
}
