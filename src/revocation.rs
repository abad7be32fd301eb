//! Revocation: a valid token is refused from now on, in every tier.
//!
//! A deny record ([`Denial`]) names what is revoked ([`Kind`]) and a time, *issued before*. A token of that
//! subject, session or key is refused if its `iat` is at or before this time. A token issued later passes. If
//! the `iat` is not readable (an opaque token), the token counts as issued when its issuer first vouched for
//! it.
//!
//! [`RevocationSet`] holds all deny records of the process. It is exact: it has no false positives. It holds
//! no names, only keyed digests ([`RevocationKey`]), so it reveals nothing about people.
//!
//! **A cached answer needs no lookup in the set.** Each change of the set has a number, the epoch. An answer
//! stores the epoch at which it was checked, and two stripes: one for its subject, one for its session
//! ([`Checked`]). A revocation writes its epoch to its stripe. So a cache hit only compares epochs: one
//! atomic load if nothing was revoked since, a few more otherwise. If a stripe is newer than the answer, the
//! answer is made again, and then the set decides. Two identities that share a stripe cost one such check.
//! They never cause a wrong answer.

mod check;
mod denial;
mod set;
pub mod settings;

pub use check::{GoodToken, RevocationCheck};
pub use denial::{Denial, Kind, RevocationKey};
pub use set::{Checked, RevocationSet, TokenFacts};
