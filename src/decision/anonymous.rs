//! The 200 of a request without an identity: a public path, or a preflight.
//!
//! It also has every identity header, with a value that belongs to nobody. Some proxies pass the client's own
//! header on when ours is absent, and then a stranger on a public path could claim to be anyone.

use hyper::header::{HeaderName, HeaderValue};

use super::header_rule::HeaderRule;
use super::names::FIXED;

const NONE: HeaderValue = HeaderValue::from_static("none");

/// The headers of such an answer, ready to be sent.
#[derive(Clone, Debug)]
pub struct Anonymous(Box<[(HeaderName, HeaderValue)]>);

impl Anonymous {
    /// With `value` in every header of `rules`, and `none` for what is known of an identity.
    #[must_use]
    pub fn new(rules: &[HeaderRule], value: &HeaderValue) -> Self {
        let identity = rules.iter().map(|rule| (rule.name.clone(), value.clone()));
        Self(identity.chain(FIXED.iter().map(|name| (name.clone(), NONE))).collect())
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0
    }
}
