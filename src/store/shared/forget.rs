//! The messages between instances: forget this, in memory and on disk.
//!
//! A message is sealed like a record, so somebody who can publish on the channel can neither make instances
//! forget nor learn whom they forget. A message that is recorded and replayed makes them forget once more,
//! also on their disks. Records in Redis can be destroyed by everybody who can write there anyway. On the
//! wire a message is 16 random bytes, then the sealed sender and content; the random bytes are the key that
//! it is sealed for.

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::store::purge::{Purge, Subject};
use crate::tiers::digest::{DIGEST_LENGTH, SubjectKey, TokenDigest};
use crate::tiers::record::Family;
use crate::tiers::seal::{Place, Sealer};

const ID_LENGTH: usize = 16;

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forget {
    /// The answer and the verdict of one token.
    Token([u8; DIGEST_LENGTH]),
    /// The profile of one subject.
    Profile([u8; DIGEST_LENGTH]),
    /// All of a subject: verdicts that name it, these profiles, all answers.
    Subject {
        /// `sub`.
        subject: String,
        /// Whose subject it is.
        issuers: Vec<String>,
        /// The keys of its profiles.
        profiles: Vec<[u8; DIGEST_LENGTH]>,
    },
    /// All answers, verdicts and profiles.
    Everybody,
    /// Nothing: the log of revocations has a new entry.
    Revocations,
}

impl Forget {
    /// The same as an operator's purge; `None` for a single profile, which no purge names.
    #[must_use]
    pub fn into_purge(self) -> Option<Purge> {
        match self {
            Self::Token(digest) => Some(Purge::Token(TokenDigest(digest))),
            Self::Profile(_) | Self::Revocations => None,
            Self::Subject { subject, issuers, profiles } => Some(Purge::Subject(
                Subject { subject, issuers },
                profiles.into_iter().map(SubjectKey).collect(),
            )),
            Self::Everybody => Some(Purge::Everybody),
        }
    }

    pub(super) fn of_purge(purge: &Purge) -> Self {
        match purge {
            Purge::Token(digest) => Self::Token(digest.0),
            Purge::Subject(who, keys) => Self::Subject {
                subject: who.subject.clone(),
                issuers: who.issuers.clone(),
                profiles: keys.iter().map(|key| key.0).collect(),
            },
            Purge::Everybody => Self::Everybody,
        }
    }

    /// The message to the others when a record of this family is forgotten, if there is one.
    pub(super) fn of_record(family: Family, key: &[u8]) -> Option<Self> {
        let key = key.try_into().ok()?;
        match family {
            Family::Verdicts => Some(Self::Token(key)),
            Family::Profiles => Some(Self::Profile(key)),
            Family::Keys | Family::Revocations => None,
        }
    }

    /// The sealed message. `None` if the system gives no random bytes, which does not happen in practice.
    pub(super) fn seal(&self, sealer: &Sealer, sender: u64, now: Timestamp) -> Option<Vec<u8>> {
        let mut id = [0; ID_LENGTH];
        rand::fill(&mut id).ok()?;
        let content = postcard::to_stdvec(&(sender, self)).ok()?;
        let sealed = sealer.seal(place(&id), now, &content).ok()?;
        Some([id.as_slice(), &sealed].concat())
    }

    /// The sender and content of a message. `None` if it was not sealed under this secret.
    pub(super) fn open(sealer: &Sealer, message: &[u8]) -> Option<(u64, Self)> {
        let (id, sealed) = message.split_first_chunk::<ID_LENGTH>()?;
        let content = sealer.open(place(id), sealed).ok()?;
        postcard::from_bytes(&content).ok()
    }
}

/// Keys of deny records are digests and longer than this, so a message is never taken for a record, nor the
/// reverse.
fn place(id: &[u8; ID_LENGTH]) -> Place<'_> {
    Place { family: Family::Revocations, key: id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::secret::InstanceSecret;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn sealer(secret: u8) -> Sealer {
        Sealer::new(&InstanceSecret::from_bytes(&[secret; 32])).unwrap()
    }

    #[test]
    fn a_message_says_what_was_sealed_and_names_nobody_in_the_clear() {
        let subject = Forget::Subject {
            subject: "auth0|alice".to_owned(),
            issuers: vec!["https://tenant.example/".to_owned()],
            profiles: vec![[3; 32]],
        };
        for forget in [Forget::Token([1; 32]), Forget::Profile([2; 32]), subject, Forget::Everybody] {
            let message = forget.seal(&sealer(1), 7, NOW).unwrap();
            assert_eq!(Forget::open(&sealer(1), &message), Some((7, forget)));
            for word in [&b"alice"[..], b"tenant", &[1; 32], &[3; 32]] {
                assert!(!message.windows(word.len()).any(|window| window == word));
            }
        }
    }

    #[test]
    fn a_message_that_is_not_ours_or_was_changed_says_nothing() {
        let message = Forget::Everybody.seal(&sealer(1), 7, NOW).unwrap();
        assert_eq!(Forget::open(&sealer(2), &message), None);
        for byte in 0..message.len() {
            let mut changed = message.clone();
            changed[byte] ^= 1;
            assert_eq!(Forget::open(&sealer(1), &changed), None, "byte {byte}");
            assert_eq!(Forget::open(&sealer(1), &message[..byte]), None, "cut at {byte}");
        }
    }
}
