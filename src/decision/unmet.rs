//! Why a known identity may not pass.

use std::fmt;

use hyper::header::HeaderName;
use thiserror::Error;

use super::header_rule::HeaderRule;
use crate::route::Required;
use crate::route::requirement::{BadRequirement, Requirement, max_age};

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
    /// The route requires a claim that holdfast reads only from a token that it verifies itself.
    #[error("the route requires {0}, which holdfast cannot read from a token that only the issuer can judge")]
    Unknowable(&'static str),
    /// The route requires another login, or a younger one (RFC 9470).
    #[error("the route requires another login{0}")]
    StepUp(Box<StepUp>),
    /// The answer is older than `max_tier` allows.
    #[error("the identity was confirmed too long ago for this route")]
    TooOld,
}

/// The login that a route requires, for the challenge (RFC 9470 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUp {
    /// The requirement that is not met: `acr` or `max_age`.
    pub requirement: &'static str,
    /// The required values of `acr`, separated by blanks; empty if any will do.
    pub acr_values: String,
    /// How many seconds ago the login may be; empty if it does not matter.
    pub max_age: String,
}

/// Each requirement, after a comma.
impl fmt::Display for StepUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_of = [(", with acr ", &self.acr_values), (", within seconds: ", &self.max_age)];
        one_of
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .try_for_each(|(what, value)| write!(f, "{what}{value}"))
    }
}

/// The most values of `acr` in a challenge, so that its header fits into a proxy's buffers.
const MAX_ACRS: usize = 16;

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

impl Rejection {
    /// If another login may meet it: with the login that the route requires.
    pub(super) fn with_login(self, required: &Required<'_>) -> Self {
        let login = [Requirement::Acr, Requirement::MaxAge].map(Requirement::name);
        let Self::Unmet(Unmet::Requirement(requirement)) = self else { return self };
        if !login.contains(&requirement) {
            return self;
        }
        let [acr_values, ages] = login.map(|name| required.values_of(name));
        // Any of its values is enough.
        let longest = ages.iter().filter_map(|age| max_age(age)).max();
        Self::Unmet(Unmet::StepUp(Box::new(StepUp {
            requirement,
            acr_values: acr_values.get(..MAX_ACRS).unwrap_or(&acr_values).join(" "),
            max_age: longest.map_or_else(String::new, |longest| longest.as_secs().to_string()),
        })))
    }
}
