//! The settings that say what a request needs, and whose word about it counts.

use hyper::header::{HeaderName, HeaderValue};

use super::forwarded::Protocol;
use super::peer::{Peer, Trusted};
use super::requirement::Requirement;
use super::rules::{Requirements, Rules, Verdict};

/// What a request needs, and whose word about it counts.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// `requirements_from`. Default: the auth URL's query.
    pub requirements_from: RequirementsFrom,
    /// `requirements_header`: the header for [`RequirementsFrom::Header`]. Default `X-Holdfast-Require`.
    pub requirements_header: HeaderName,
    /// `trusted_peers`: whose word about the original request counts. Default: nobody's.
    pub trusted_peers: Vec<Trusted>,
    /// `forwarded`: how the original request is told. Must be set where `trusted_peers` are.
    pub forwarded: Protocol,
    /// `preflight`: whether CORS preflights pass without a token. Default: no.
    pub preflight: bool,
    /// `anonymous`: what identity headers say where nobody was looked at. Default `anonymous`.
    pub anonymous: HeaderValue,
    /// `[[rule]]`, here or in `rules_file`.
    pub rules: Rules,
}

/// Where requirements come from. Only one place counts, so that nobody has to think about two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequirementsFrom {
    /// The auth URL's query, for proxies that never add to it.
    Query,
    /// A header that the proxy sets.
    Header,
    /// The rules.
    Rules,
}

impl RouteSettings {
    /// The values that rules require of this name, each with the number of its rule.
    pub fn required(&self, name: Requirement) -> impl Iterator<Item = (usize, &str)> {
        self.rules.0.iter().enumerate().flat_map(move |(row, rule)| {
            let Verdict::Require(Requirements(all)) = &rule.verdict else { return Vec::new() };
            all.iter().filter(|(own, _)| *own == name).map(|(_, value)| (row, value.as_str())).collect()
        })
    }

    /// Whether there are answers that are nobody's.
    pub fn pass_nobody(&self) -> bool {
        self.preflight || self.rules.public().next().is_some()
    }

    /// Whether the word of `peer` about the original request counts.
    #[must_use]
    pub fn trusts(&self, peer: Peer) -> bool {
        self.trusted_peers.iter().any(|trusted| trusted.covers(peer))
    }
}
