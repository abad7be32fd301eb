//! holdfast answers one question, very often and very fast: *who sent this request, and may it pass?*

pub mod clock;
pub mod tiers;
