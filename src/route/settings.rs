//! The settings for the requirements of requests, and for trusted peers.

use hyper::header::{HeaderName, HeaderValue};

use super::forwarded::Protocol;
use super::peer::{Peer, Trusted};
use super::requirement::Requirement;
use super::rules::{Requirements, Rules, Verdict};

/// The requirements of requests, and the trusted peers.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// `requirements_from`. Default: the auth URL's query.
    pub requirements_from: RequirementsFrom,
    /// `requirements_header`: the header for [`RequirementsFrom::Header`]. Default `X-Holdfast-Require`.
    pub requirements_header: HeaderName,
    /// `trusted_peers`: the peers that are trusted to describe the original request. Default: none.
    pub trusted_peers: Vec<Trusted>,
    /// `forwarded`: how the proxy describes the original request. Must be set together with `trusted_peers`.
    pub forwarded: Protocol,
    /// `client_certificate_header`: the header in which trusted peers pass on the client's certificate.
    /// Default: none.
    pub client_certificate_header: Option<HeaderName>,
    /// `preflight`: whether CORS preflights pass without a token. Default: no.
    pub preflight: bool,
    /// `anonymous`: the value of identity headers without an identity. Default `anonymous`.
    pub anonymous: HeaderValue,
    /// `[[rule]]`, here or in `rules_file`.
    pub rules: Rules,
}

/// Where requirements come from. Only one place counts, to keep them simple.
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

    /// Whether there are answers without an identity.
    pub fn pass_nobody(&self) -> bool {
        self.preflight || self.rules.public().next().is_some()
    }

    /// Whether `peer` is trusted to describe the original request.
    #[must_use]
    pub fn trusts(&self, peer: Peer) -> bool {
        self.trusted_peers.iter().any(|trusted| trusted.covers(peer))
    }
}
