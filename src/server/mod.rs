//! The HTTP server: listeners, the auth service, the admin service. No other module serves HTTP.

pub mod admin;
pub mod auth;
pub mod breaker;
mod checkpoint;
mod denial_log;
pub mod descriptors;
pub mod diagnosis;
mod events;
pub mod import;
pub mod listener;
mod logout;
mod metrics;
mod named;
mod operator;
mod page;
mod plain;
pub mod purge;
pub mod revoke;
pub mod status;
mod stream;
