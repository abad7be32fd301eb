//! The HTTP server: listeners, the auth service, the admin service. No other module serves HTTP.

pub mod admin;
pub mod auth;
pub mod breaker;
mod checkpoint;
mod denial_log;
pub mod descriptors;
pub mod import;
pub mod listener;
mod logout;
mod metrics;
mod named;
mod order;
mod plain;
pub mod purge;
pub mod revoke;
mod stream;
