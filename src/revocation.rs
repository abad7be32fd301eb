//! Revocation: a token that was good is refused from now on, in every tier.
//!
//! A deny record ([`Denial`]) names what is revoked ([`Kind`]) and a time, *issued before*. A token of that
//! subject, session or key is refused if its `iat` is at or before this time; a token issued later passes. A
//! token whose `iat` nobody can read (an opaque one) counts as issued when its issuer first vouched for it.
//!
//! [`RevocationSet`] holds all deny records of the process. It is exact: no false positives. Names are not in
//! it, only keyed digests ([`RevocationKey`]), so it says nothing about people.
//!
//! **Why an answer in memory needs no look at the set.** Each change of the set has a number, the epoch. An
//! answer keeps the epoch at which it was checked, and two stripes: one of its subject, one of its session
//! ([`Checked`]). A revocation writes its epoch on its stripe. So a hit compares the epochs: one atomic load
//! if nothing was revoked since, a few more otherwise. If a stripe is newer than the answer, the answer is
//! made anew, and then the set decides. Two identities that share a stripe cost one such check and never a
//! wrong answer.

mod check;
mod denial;
mod set;
pub mod settings;

pub use check::{GoodToken, RevocationCheck};
pub use denial::{Denial, Kind, RevocationKey};
pub use set::{Checked, RevocationSet, TokenFacts};
