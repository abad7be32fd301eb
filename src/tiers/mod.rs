//! What may be answered from records. Pure: no store, and no I/O except the secret's file.
//!
//! A tier is an age, not a place ([`table`]). What may be done with a record of some age is a pure function
//! ([`policy`]). Stores keep a [`record`] once, [`seal`]ed under the instance [`secret`], by a keyed
//! [`digest`]. Storing records is the task of [`store`](crate::store).

pub mod digest;
mod family;
pub mod policy;
pub mod record;
pub mod seal;
pub mod secret;
pub mod table;
