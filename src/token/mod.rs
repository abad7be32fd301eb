//! Bytes → verified claims. Only this module can make a verified value from an unverified one.

pub mod algorithm;
pub mod binding;
pub mod claims;
pub mod compact;
pub mod dpop;
pub mod email;
pub mod json;
pub mod jwe;
pub mod jws;
pub mod lenient;
pub mod logout;
pub mod pointer;
pub mod pool;
pub mod refusal;
