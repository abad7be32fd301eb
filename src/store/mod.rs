//! Where records lie: in memory, in Redis, on disk.
//!
//! [`stores`] is the memory, and the door for the rest of the program. Behind it [`archive`] walks over the sealed records:
//! the [`shared`] store, in Redis, is for several instances; the [`disk`] store survives restarts, its writer puts what it
//! keeps behind the request, its checkpoints are copies that take over when it is corrupt. What was forgotten while a
//! request was under way does not come back with it ([`invalidation`]); [`subscriber`] follows what other instances forget.
//! Whether a record may be served is no question here: that is [`tiers::policy`](crate::tiers::policy)'s.

pub mod archive;
pub mod disk;
mod forgetting;
pub mod invalidation;
pub mod memory;
pub mod open;
pub mod purge;
pub mod purging;
pub mod refused;
pub mod settings;
pub mod shared;
pub mod stores;
pub mod subscriber;
