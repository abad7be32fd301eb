//! What holdfast remembers, and what it may still answer from it.
//!
//! A tier is an age, not a place ([`table`]); what may be done with a record of some age is a pure function
//! ([`policy`]). Stores keep a [`record`] once, [`seal`]ed under the instance [`secret`], by a keyed [`digest`]. The
//! [`disk`] store survives restarts; the writer puts what it keeps behind the request, [`checkpoint`] makes copies. The
//! [`shared`] store, in Redis, is for several instances; [`archive`] is the walk over both. What was [`forgotten`] while a
//! request was under way does not come back with it.

pub mod archive;
pub mod checkpoint;
pub mod digest;
pub mod disk;
pub mod follower;
pub mod forgotten;
pub mod policy;
pub mod purge;
pub mod record;
pub mod seal;
pub mod secret;
pub mod shared;
pub mod stores;
pub mod table;
mod tombstones;
mod writer;
