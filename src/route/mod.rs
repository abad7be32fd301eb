//! The requirements of a request, found before its credential is read.
//!
//! Requirements have one source, which the configuration chooses: the auth URL's query, a header that the
//! proxy sets, or rules about the original request. Two kinds of requests need no identity, both off by
//! default: those of a rule that says `public`, and CORS preflights. Every unclear request is
//! [`Demand::Closed`].

mod closed;
pub mod forwarded;
pub mod path;
pub mod peer;
pub mod requirement;
pub mod rules;
pub mod settings;

use std::borrow::Borrow;

use crate::tiers::table::{TierIndex, TierTable};
pub use closed::Closed;
pub use forwarded::AUTH_PATH;
use hyper::header::HeaderValue;

use forwarded::Subrequest;
use peer::Peer;
use requirement::{BadRequirement, Requirement, in_query};
use rules::{Requirements, Verdict};
use settings::{RequirementsFrom, RouteSettings};

/// The header value that says: a verified identity is enough.
const ANY: &[u8] = b"any";

/// The requirements of a request.
#[derive(Clone, Debug)]
pub enum Demand<'r> {
    /// An identity that meets these.
    Identity(Required<'r>),
    /// Nothing; the identity headers are sent if there is a good token.
    Public,
    /// Nothing; a credential is not read. A browser sends a preflight without credentials.
    Preflight,
    /// Nobody may pass.
    Closed(Closed),
    /// The proxy does not state the requirements.
    Unclear(BadRequirement),
}

/// The requirements for an identity.
#[derive(Clone, Debug)]
pub enum Required<'r> {
    /// Those in the auth URL's query.
    Query(&'r str),
    /// Those in a header.
    Header(HeaderValue),
    /// Those of a rule.
    Rule(&'r Requirements),
    /// Nothing.
    Nothing,
}

impl<'r> Demand<'r> {
    /// What a request needs, with this `query` in the auth URL.
    #[must_use]
    pub fn of(
        subrequest: Subrequest<'_>,
        query: Option<&'r str>,
        peer: Peer,
        settings: &'r RouteSettings,
    ) -> Self {
        let demand = match settings.requirements_from {
            RequirementsFrom::Query => Self::Identity(query.map_or(Required::Nothing, Required::Query)),
            RequirementsFrom::Header => in_header(subrequest, settings),
            RequirementsFrom::Rules if !settings.trusts(peer) => Self::Closed(Closed::Untrusted),
            RequirementsFrom::Rules => match settings.forwarded.original(subrequest) {
                Err(closed) => Self::Closed(closed),
                Ok(original) => match settings.rules.verdict(&original) {
                    Verdict::Require(requirements) => Self::Identity(Required::Rule(requirements)),
                    Verdict::Public => Self::Public,
                    Verdict::Deny => Self::Closed(Closed::Denied),
                },
            },
        };
        match demand {
            Self::Identity(_) | Self::Public
                if settings.preflight && is_preflight(subrequest, peer, settings) =>
            {
                Self::Preflight
            }
            demand => demand,
        }
    }
}

impl Required<'_> {
    /// The oldest tier that meets `max_tier`, which may have several values. `None`: every tier does, or it
    /// is not understood.
    #[must_use]
    pub fn oldest_tier(&self, table: &TierTable) -> Option<TierIndex> {
        match self {
            Self::Nothing => None,
            Self::Query(query) => oldest_tier(in_query(query), table),
            Self::Header(value) => oldest_tier(in_query(value.to_str().ok()?), table),
            Self::Rule(requirements) => oldest_tier(requirements.iter(), table),
        }
    }

    /// Whether it is met only by tiers younger than this one.
    #[must_use]
    pub fn is_younger_than(&self, tier: TierIndex, table: &TierTable) -> bool {
        self.oldest_tier(table).is_some_and(|oldest| oldest < tier)
    }

    /// Whether it is met only by an instance that cannot have missed a revocation.
    #[must_use]
    pub fn needs_current_revocations(&self) -> bool {
        !matches!(self, Self::Nothing) && !self.values_of(Requirement::Revocation.name()).is_empty()
    }

    /// Calls `each` with the value of each requirement of a claim and of the issuer.
    pub fn each_claim(&self, each: impl FnMut(&str)) {
        match self {
            Self::Nothing => {}
            Self::Query(query) => each_claim(in_query(query), each),
            Self::Header(value) => each_claim(in_query(value.to_str().unwrap_or_default()), each),
            Self::Rule(requirements) => each_claim(requirements.iter(), each),
        }
    }

    /// The required values of this name, for log lines and challenges.
    #[must_use]
    pub fn values_of(&self, name: &str) -> Vec<String> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Query(query) => values_of(in_query(query), name),
            Self::Header(value) => {
                value.to_str().map(|text| values_of(in_query(text), name)).unwrap_or_default()
            }
            Self::Rule(requirements) => values_of(requirements.iter(), name),
        }
    }
}

fn each_claim<V: Borrow<str>>(
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
    mut each: impl FnMut(&str),
) {
    let claims = asked
        .flatten()
        .filter(|(requirement, _)| matches!(requirement, Requirement::Claim | Requirement::Issuer));
    claims.for_each(|(_, value)| each(value.borrow()));
}

fn values_of<V: Borrow<str>>(
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
    name: &str,
) -> Vec<String> {
    let named = asked.flatten().filter(|(requirement, _)| requirement.name() == name);
    named.map(|(_, value)| value.borrow().to_owned()).collect()
}

fn oldest_tier<V: Borrow<str>>(
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
    table: &TierTable,
) -> Option<TierIndex> {
    let tiers = asked.filter_map(|one| match one {
        Ok((Requirement::MaxTier, name)) => table.find(name.borrow()),
        _ => None,
    });
    tiers.max()
}

fn in_header(subrequest: Subrequest<'_>, settings: &RouteSettings) -> Demand<'static> {
    let mut values = subrequest.headers.get_all(&settings.requirements_header).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == ANY => Demand::Identity(Required::Nothing),
        (Some(value), None) if value.as_bytes().iter().any(|byte| *byte != b'&') => {
            Demand::Identity(Required::Header(value.clone()))
        }
        _ => Demand::Unclear(BadRequirement::Header),
    }
}

/// A CORS-preflight request of the Fetch Standard (§3.2.2): OPTIONS with an origin and the requested method.
/// Each exactly once, from a trusted peer; anything else is an ordinary request and needs a token.
fn is_preflight(subrequest: Subrequest<'_>, peer: Peer, settings: &RouteSettings) -> bool {
    // A proxy may write several lines as one, with commas; neither value ever has one, nor a blank.
    let once = |name: &'static str| {
        subrequest
            .only(name)
            .is_ok_and(|value| value.iter().all(|byte| byte.is_ascii_graphic() && *byte != b','))
    };
    settings.trusts(peer)
        && settings.forwarded.method(subrequest) == Ok("OPTIONS")
        && once("origin")
        && once("access-control-request-method")
}
