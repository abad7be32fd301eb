//! Bytes → verified claims. Nothing outside this module can make a verified thing out of an unverified one.

pub mod compact;
pub mod json;
pub mod jwe;
