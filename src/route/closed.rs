//! Why a route allows nobody.

use thiserror::Error;

use super::path;

/// Why nobody may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Closed {
    /// A rule says so.
    #[error("a rule denies it")]
    Denied,
    /// The peer is not in `trusted_peers`.
    #[error("the peer is not in auth.trusted_peers, so its description of the original request is not used")]
    Untrusted,
    /// A header is missing or empty.
    #[error("the proxy sent no {0}")]
    Missing(&'static str),
    /// A header is there more than once.
    #[error("the proxy sent {0} more than once")]
    Repeated(&'static str),
    /// The original method is not a method.
    #[error("the original method is not a method")]
    Method,
    /// The original host is not a host name.
    #[error("the original host is not a host name")]
    Host,
    /// Scheme, host and path do not make a URL.
    #[error("the original request has no URL of http or https")]
    Url,
    /// The original path can be read in more than one way.
    #[error("the original path has more than one reading: {0}")]
    Path(path::Ambiguous),
}

impl Closed {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Untrusted => "untrusted_peer",
            Self::Missing(_) => "forwarded_missing",
            Self::Repeated(_) => "forwarded_repeated",
            Self::Method => "bad_method",
            Self::Host => "bad_host",
            Self::Url => "bad_url",
            Self::Path(_) => "ambiguous_path",
        }
    }
}
