//! Notices between instances: the end of a lease, and what an instance needs of the budgets. A notice is of
//! use only now.
//!
//! Notices use the channel of [`Forget`](super::forget::Forget) and are sealed like those messages, but for
//! another place, so that neither is taken for the other. A notice says when it was sent. A notice that was
//! recorded and is sent again later is ignored.

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::guard::peers::InstanceNews;
use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::policy::{FUTURE_TOLERANCE, is_from_the_future};
use crate::tiers::record::Family;
use crate::tiers::seal::{Place, Sealer};

const ID_LENGTH: usize = 16;

/// Follows the random bytes in the key that a notice is sealed for.
const PURPOSE: &[u8] = b"notice";

/// The result of a call that one instance made for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedResult {
    /// The issuer answered, and the record is in Redis.
    Record,
    /// The issuer refuses this token.
    Refused {
        /// The digest of the token.
        token: [u8; DIGEST_LENGTH],
        /// Whether the answer is a 403 and not a 401.
        forbids: bool,
        /// Whether the issuer gave a reason that leaves no doubt.
        certain: bool,
    },
    /// The issuer was not asked. Another instance may ask.
    NotAsked,
    /// The issuer was asked, and the others cannot use its answer.
    Unusable,
}

/// A notice to the other instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Notice {
    /// The lease under `key` has ended.
    LeaseEnded {
        /// The key of the lease.
        key: [u8; DIGEST_LENGTH],
        /// The result of the call.
        result: SharedResult,
    },
    /// What an instance needs of the budgets, and which of its breakers are open.
    Instance(InstanceNews),
}

impl Notice {
    /// Seals the notice. `None` if the system gives no random bytes, which does not happen in practice.
    pub(super) fn seal(&self, sealer: &Sealer, now: Timestamp) -> Option<Vec<u8>> {
        let mut id = [0; ID_LENGTH];
        rand::fill(&mut id).ok()?;
        let content = postcard::to_stdvec(&(now, self)).ok()?;
        let key = [id.as_slice(), PURPOSE].concat();
        let sealed = sealer.seal(place(&key), now, &content).ok()?;
        Some([id.as_slice(), &sealed].concat())
    }

    /// Opens a notice. `None` if it was not sealed under this secret, or was not sent just now.
    pub(super) fn open(sealer: &Sealer, message: &[u8], now: Timestamp) -> Option<Self> {
        let (id, sealed) = message.split_first_chunk::<ID_LENGTH>()?;
        let key = [id.as_slice(), PURPOSE].concat();
        let content = sealer.open(place(&key), sealed).ok()?;
        let (sent, notice): (Timestamp, Self) = postcard::from_bytes(&content).ok()?;
        let is_of_now = now.since(sent) <= FUTURE_TOLERANCE && !is_from_the_future(sent, now);
        is_of_now.then_some(notice)
    }
}

fn place(key: &[u8]) -> Place<'_> {
    Place { family: Family::Revocations, key }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::shared::forget::Forget;
    use crate::tiers::secret::InstanceSecret;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const NOTICE: Notice = Notice::LeaseEnded {
        key: [3; 32],
        result: SharedResult::Refused { token: [4; 32], forbids: false, certain: true },
    };

    fn sealer(secret: u8) -> Sealer {
        Sealer::new(&InstanceSecret::from_bytes(&[secret; 32])).unwrap()
    }

    #[test]
    fn a_notice_says_what_was_sealed_and_only_to_those_with_the_secret() {
        let message = NOTICE.seal(&sealer(1), NOW).unwrap();
        assert_eq!(Notice::open(&sealer(1), &message, NOW), Some(NOTICE));
        assert_eq!(Notice::open(&sealer(2), &message, NOW), None);
        for digest in [[3; 32], [4; 32]] {
            assert!(!message.windows(32).any(|window| window == digest));
        }
        for byte in 0..message.len() {
            let mut changed = message.clone();
            changed[byte] ^= 1;
            assert_eq!(Notice::open(&sealer(1), &changed, NOW), None, "byte {byte}");
            assert_eq!(Notice::open(&sealer(1), &message[..byte], NOW), None, "cut at {byte}");
        }
    }

    #[test]
    fn a_notice_that_is_sent_again_later_is_not_read() {
        let message = NOTICE.seal(&sealer(1), NOW).unwrap();
        for (now, expected) in [
            (NOW.after(FUTURE_TOLERANCE), Some(NOTICE)),
            (NOW.before(FUTURE_TOLERANCE), Some(NOTICE)),
            (NOW.after(FUTURE_TOLERANCE + Duration::from_millis(1)), None),
            (NOW.before(FUTURE_TOLERANCE + Duration::from_millis(1)), None),
        ] {
            assert_eq!(Notice::open(&sealer(1), &message, now), expected);
        }
    }

    #[test]
    fn a_notice_is_no_message_to_forget_nor_the_reverse() {
        let notice = NOTICE.seal(&sealer(1), NOW).unwrap();
        assert_eq!(Forget::open(&sealer(1), &notice), None);
        let forget = Forget::Everybody.seal(&sealer(1), 7, NOW).unwrap();
        assert_eq!(Notice::open(&sealer(1), &forget, NOW), None);
    }
}
