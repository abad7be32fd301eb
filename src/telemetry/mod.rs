//! What an operator sees: metrics and log lines. Declared here, bumped through named methods elsewhere.

pub mod condition;
pub mod lines;
pub mod logs;
pub mod metrics;
mod registration;
pub mod snapshot;
pub mod stale_users;
