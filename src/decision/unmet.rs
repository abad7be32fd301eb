//! Why a known identity may not pass.

use hyper::header::HeaderName;
use thiserror::Error;

use super::header_rule::HeaderRule;
use crate::route::requirement::BadRequirement;

/// Why a known identity may not pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unmet {
    /// A required header has no value.
    #[error("the identity has no value for the required header {0}")]
    Header(HeaderName),
    /// The issuer names only addresses of domains that it may not name.
    #[error("the issuer names an email of a domain that is not in its `email_domains`")]
    EmailNotAllowed,
    /// All headers together are longer than a proxy accepts.
    #[error(
        "the identity's headers would take {bytes} bytes of the {} that there are; the longest is {longest}",
        HeaderRule::MAX_BYTES
    )]
    TooLarge {
        /// Their length.
        bytes: usize,
        /// The longest of them.
        longest: HeaderName,
    },
    /// A route requirement is not met.
    #[error("the route requires another {0}")]
    Requirement(&'static str),
    /// The answer is older than `max_tier` allows.
    #[error("the identity was confirmed too long ago for this route")]
    TooOld,
}

/// Why an allow is not valid on a route.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// A requirement is not met.
    #[error("{0}")]
    Unmet(Unmet),
    /// A requirement is not understood.
    #[error("{0}")]
    Bad(BadRequirement),
}
