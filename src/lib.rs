//! holdfast answers one question, very often and very fast: *who sent this request, and may it pass?*

pub mod clock;
pub mod config;
pub mod credential;
pub mod guard;
pub mod issuer;
pub mod telemetry;
pub mod tiers;
pub mod token;
pub mod verifier;
