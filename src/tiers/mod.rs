//! What holdfast remembers, and what it may still answer from it.
//!
//! A tier is an age, not a place ([`table`]); what may be done with a record of some age is a pure function
//! ([`policy`]).

pub mod policy;
pub mod table;
