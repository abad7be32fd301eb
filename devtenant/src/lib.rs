//! The dev tenant: a stand-in for Auth0, so that holdfast can be tried and tested without an account.
//!
//! It is a real HTTP/1.1 server on loopback with real keys. It mints tokens in every shape that Auth0 gives
//! out (and some that it never would), answers discovery, JWKS and `/userinfo` as Auth0 does, limits rates as
//! Auth0 does, and fails on demand in all the ways a remote service can fail. It counts every call, exactly,
//! so that a test can assert that there was no call.
//!
//! It is for development and tests only: everybody who can reach it can get any token.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # runtime.block_on(async {
//! use holdfast_devtenant::{Endpoint, Fault, Options, Tenant};
//!
//! let tenant = Tenant::start(Options::default()).await?;
//! let token = tenant.mint().subject("auth0|alice").email_direct("alice@example.com").build()?;
//! assert_eq!(token.split('.').count(), 3);
//! tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
//! assert_eq!(tenant.calls().userinfo, 0);
//! tenant.stop().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })
//! # }
//! ```
//!
//! A request passes `serve` (listener, connection, routing) → `faults` (the current faults) → `userinfo`
//! (checks a token with `keys` and `jwe`, counts it with `limits`) or a JWKS; `control` is for use with curl.

mod body;
mod control;
mod echo;
mod error;
mod faults;
mod jwe;
mod keys;
mod limits;
mod mint;
mod serve;
mod state;
mod tenant;
mod userinfo;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::echo::EchoBackend;
pub use crate::error::TenantError;
pub use crate::faults::{Endpoint, Fault};
pub use crate::limits::RateLimit;
pub use crate::mint::TokenBuilder;
pub use crate::state::{Calls, User};
pub use crate::tenant::{Options, Tenant};

/// Locks, also after a panic elsewhere: every critical section leaves its value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
