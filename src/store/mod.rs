//! Where records are kept: in memory, in Redis, on disk.
//!
//! [`stores`] holds the memory stores and is the interface for the rest of the program. Behind it [`archive`]
//! looks up sealed records: the [`shared`] store, in Redis, serves several instances; the [`disk`] store
//! survives restarts. Its writer writes behind the request, and its checkpoints are copies that take over
//! when it is corrupt. A record that was forgotten while a request was under way does not come back with that
//! request ([`invalidation`]). [`importing`] keeps profiles that an operator gives. [`revocations`] keeps
//! deny records in all stores. `rotation` joins the records under two instance secrets. [`subscriber`]
//! applies what other instances have forgotten. Whether a record may be served is decided elsewhere, in
//! [`tiers::policy`](crate::tiers::policy).

pub mod archive;
mod denials;
pub mod disk;
mod forgetting;
pub mod importing;
pub mod invalidation;
pub mod memory;
pub mod open;
pub mod purge;
pub mod refused;
mod revocation_rotation;
mod revocation_sync;
pub mod revocations;
mod rotation;
pub mod shared;
pub mod stores;
pub mod subscriber;
pub mod target;
pub mod unfinished;
