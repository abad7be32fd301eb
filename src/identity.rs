//! Resolves verified claims, or the issuer's answer, to an [`Identity`].
//!
//! This is the one place that defines the order in which the email is searched:
//!
//! 1. the token's own claims, in the order of `email_claims` (direct, nested, namespaced);
//! 2. the *authorization context*, which is what the issuer says of the authorization behind the token:
//!    1. the stored profile of the subject, while its tier is fresh enough to answer;
//!    2. `/userinfo`, behind singleflight, budget and breaker;
//!    3. if that cannot tell: the stored profile again, from any older tier.
//!
//! The answer of `/userinfo` is searched in the same order as the claims. If claims name different emails,
//! the first in this order is taken and the conflict is counted.
//!
//! A foreign token has no readable claims. Its lookup is the whole of step 2, with a verdict instead of a
//! profile; see `lookup`.

mod from_claims;
mod identities;
pub mod importer;
mod lease;
mod lookup;
mod profile;
mod resolve;
mod resolved;
mod revalidation;
mod verdict;

pub use self::identities::Identities;
pub use self::resolved::{Attempt, Identity, Resolved};
