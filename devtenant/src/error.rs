//! What can go wrong with the dev tenant, in one enum.

use std::io;
use std::net::SocketAddr;

use josekit::JoseError;

/// Why the dev tenant could not do what was asked. No variant holds a token or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// The address is not a loopback address: its keys and tokens are for everybody who can reach it.
    #[error("the dev tenant listens on loopback only, not on {0}: use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The listening socket could not be opened.
    #[error("cannot listen on {address}: {source}; is the port taken?")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A key could not be made or used.
    #[error("the JOSE library refused: {0}")]
    Jose(#[from] JoseError),
    /// An algorithm that the dev tenant cannot sign or encrypt with.
    #[error(
        "the dev tenant knows no algorithm {0:?}: see the documentation of TokenBuilder for those it knows"
    )]
    UnknownAlgorithm(String),
    /// `HS256` was chosen without a secret.
    #[error("HS256 needs a secret: call hs_secret() with at least 32 bytes")]
    MissingSecret,
    /// A value could not be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A task of the dev tenant ended before its work was done.
    #[error("a background task of the dev tenant ended early")]
    Task,
}
