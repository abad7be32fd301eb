//! Who it is: verified claims, or the issuer's word, → [`Identity`].
//!
//! The email is looked for in this order, and here it stands once for all:
//!
//! 1. the token's own claims, in the order of `email_claims` (direct, nested, namespaced);
//! 2. the *authorization context*, that is, what the issuer says of the authorization that the token stands for:
//!    1. as it is remembered, the profile of the subject, while its tier is fresh enough to answer;
//!    2. `/userinfo`, behind singleflight, budget and breaker;
//!    3. if that cannot tell: the profile again, from any older tier.
//!
//! The answer of `/userinfo` is searched in the same order as claims are. Wherever claims name different
//! emails, the first in order is taken and the conflict is counted.
//!
//! A foreign token has no claims of its own to look at: it goes through the second as a whole, with a verdict
//! in place of a profile. How, is in `lookup`.

mod from_claims;
mod identities;
pub mod importer;
mod lookup;
mod profile;
mod resolve;
mod resolved;
mod revalidation;
mod verdict;

pub use self::identities::Identities;
pub use self::resolved::{Attempt, Identity, Resolved};
