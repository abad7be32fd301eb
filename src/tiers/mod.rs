//! What may be answered from what was learned earlier. Pure: no store, no I/O but the secret's file.
//!
//! A tier is an age, not a place ([`table`]); what may be done with a record of some age is a pure function
//! ([`policy`]). Stores keep a [`record`] once, [`seal`]ed under the instance [`secret`], by a keyed [`digest`]. Where
//! records lie is [`store`](crate::store)'s.

pub mod digest;
mod family;
pub mod policy;
pub mod record;
pub mod seal;
pub mod secret;
pub mod table;
