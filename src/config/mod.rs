//! The configuration: a file, variables and flags → checked, typed [`Settings`].
//!
//! Three steps, one file each: `node` merges the sources, `section` reads a table strictly,
//! `value` knows the kinds of values. [`settings`] is the list of all sections; each section has a file here
//! that reads it. The settings types belong to the modules that they set. To add a setting, add a field with
//! its default there and a line here.
//!
//! ```
//! # use holdfast::config::{Settings, Source};
//! let text = r#"
//!     [[issuer]]
//!     url = "https://tenant.eu.auth0.com/"
//!     audience = ["https://api.example.com"]
//! "#;
//! let settings = Settings::read(&Source::text("holdfast.toml", text)).unwrap();
//! assert_eq!(settings.policy.leeway.as_secs(), 30);
//! ```

mod admin;
mod auth;
mod credential;
mod dpop;
mod error;
mod fingerprint;
mod group;
mod guard;
mod headers;
mod issuer;
mod log;
mod login;
pub mod mangled;
mod node;
mod origin;
mod policy;
mod problems;
mod resource;
mod revocation;
mod routes;
mod section;
pub mod settings;
mod source;
mod store;
mod tiers;
mod tls;
mod value;
mod written;

pub use admin::{AdminClientSettings, AdminSettings};
pub use auth::AuthSettings;
pub use error::{ConfigError, ConfigErrors};
pub use fingerprint::Fingerprint;
pub use node::Node;
pub use origin::Origin;
pub use settings::Settings;
pub use source::{Flag, Source};
pub use value::Listen;
pub use written::Written;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
