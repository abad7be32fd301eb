//! How often the issuer is asked: rarely, and not at all while it fails.
//!
//! Every call to an endpoint of an issuer passes, in this order:
//!
//! 1. [`Singleflight`]: one call for each token or subject, however many callers wait for it;
//! 2. [`Guard::admit_in_turn`]: checks whether the subject is in back-off ([`subject_backoff`]), whether the
//!    breaker is open ([`breaker`]), whether calls about first-seen tokens pause ([`first_seen`]), and when
//!    the budget has a token ([`budget`]). A call waits for that token if it comes soon ([`waiting`]).
//!    Otherwise its caller is told when to come back, and then goes first (`promises`);
//! 3. the HTTP client, and then [`Admission::finish`] with the result of the call.
//!
//! A call that is not admitted is "cannot tell", never a failure: it is answered from older tiers, and does
//! not count against the issuer.
//!
//! **No single user can stop everybody's calls.** A failure that one token or one user may have caused counts
//! at most once against the endpoint: see [`outcome`].
//!
//! The parts are pure: each takes `now` and returns a value. [`Guard`] is the thin shell that holds the
//! breaker, the budget, the subject back-off and the pause of first-seen tokens of one endpoint behind
//! **one** lock.
//!
//! **There are no interleavings to check, by construction.** All shared state of a guard is one value behind
//! one mutex. Each public method takes the lock once, reads the clock under it, calls pure functions, and
//! releases it before it returns. Nothing awaits, calls back, or takes another lock under it. So every
//! concurrent execution equals some sequence of those method calls, and the property tests explore arbitrary
//! sequences.

mod admission;
pub mod breaker;
mod bucket;
pub mod budget;
mod caller;
pub mod first_seen;
pub mod outcome;
pub mod peers;
mod promises;
pub mod retry_after;
mod settings;
pub mod share;
pub mod singleflight;
mod state;
pub mod subject_backoff;
mod suppressed;
pub mod waiting;
pub mod window;

pub use admission::{Admission, Allowance};
pub use breaker::{BreakerSettings, ForcedState, Reason, State, Transition};
pub use budget::{BudgetSettings, BudgetStatus, Plan, Priority};
pub use outcome::CallOutcome;
pub use settings::GuardSettings;
pub use singleflight::{Role, Singleflight, SingleflightError, SingleflightSettings};
pub use state::{Guard, GuardStatus, Jitter, random_jitter};
pub use subject_backoff::{SubjectBackoffSettings, SubjectKey};
pub use suppressed::{SuppressReason, Suppressed};

#[cfg(test)]
mod tests;
