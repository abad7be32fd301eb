//! The instances of a fleet, as they tell each other what they need and what they learned. Pure.
//!
//! Each instance tells the others about each of its endpoints once a second, and at once if it needs more. An
//! instance that is silent for 3 s is gone, and the others use its share.
//!
//! **Without Redis each uses an even share** of the budget: one part for each instance that it last knew of.
//! So the fleet stays within the budget, and an instance that never knew another one has all of it. When
//! Redis is back, others may connect later than this one. They count for 10 s, also if
//! they are silent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::share::{Share, fair_share};
use crate::clock::Ticks;

/// How long an instance counts that is silent. Each tells the others something once a second.
const LIFE: Duration = Duration::from_secs(3);

/// The same after Redis was unreachable: twice the longest pause between two attempts to connect.
const LIFE_AFTER_RECONNECT: Duration = Duration::from_secs(10);

/// The most instances that are remembered, and the most endpoints of one.
const MAX_INSTANCES: usize = 1_000;
const MAX_ENDPOINTS: usize = 1_000;

/// Names an endpoint of an issuer in all instances.
pub type EndpointId = u64;

/// What an instance tells about one of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointNews {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// The share of the budget that it needs, from 0 to 1.
    pub demand: f64,
    /// Whether its breaker is open because of what the issuer did.
    pub is_open: bool,
}

/// What an instance tells the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceNews {
    /// Which instance: a random number.
    pub instance: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointNews>,
}

/// What follows from what another instance told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether it was not known. It does not know this instance either.
    pub is_new: bool,
    /// The endpoints whose breaker it has opened since it was last heard.
    pub opened: Vec<EndpointId>,
}

/// The other instances.
#[derive(Debug)]
pub struct Peers {
    own: InstanceNews,
    peers: BTreeMap<u64, Peer>,
    is_connected: bool,
}

#[derive(Debug)]
struct Peer {
    counts_until: Ticks,
    endpoints: Vec<EndpointNews>,
}

impl Peers {
    /// This instance alone.
    #[must_use]
    pub fn none(instance: u64) -> Self {
        let own = InstanceNews { instance, endpoints: Vec::new() };
        Self { own, peers: BTreeMap::new(), is_connected: false }
    }

    /// This instance.
    #[must_use]
    pub fn own_instance(&self) -> u64 {
        self.own.instance
    }

    /// The others were told this about this instance.
    pub fn told(&mut self, endpoints: Vec<EndpointNews>) {
        self.own.endpoints = endpoints;
    }

    /// An instance told something.
    pub fn heard(&mut self, news: InstanceNews, now: Ticks) -> Heard {
        let InstanceNews { instance, mut endpoints } = news;
        let is_full = self.peers.len() >= MAX_INSTANCES && !self.peers.contains_key(&instance);
        if instance == self.own.instance || is_full {
            return Heard::default();
        }
        endpoints.truncate(MAX_ENDPOINTS);
        let before = self.peers.get(&instance).map(|peer| &peer.endpoints);
        let was_open = |endpoint| {
            before.is_some_and(|before| before.iter().any(|news| news.endpoint == endpoint && news.is_open))
        };
        let opened = endpoints.iter().filter(|news| news.is_open && !was_open(news.endpoint));
        let heard = Heard { is_new: before.is_none(), opened: opened.map(|news| news.endpoint).collect() };
        self.peers.insert(instance, Peer { counts_until: now.after(LIFE), endpoints });
        heard
    }

    /// Redis is unreachable: from now on nobody is heard, and nobody is forgotten.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Redis is reachable.
    pub fn connected(&mut self, now: Ticks) {
        self.is_connected = true;
        self.peers.values_mut().for_each(|peer| peer.counts_until = now.after(LIFE_AFTER_RECONNECT));
    }

    /// Forgets instances that are silent for too long.
    pub fn forget_silent(&mut self, now: Ticks) {
        if self.is_connected {
            self.peers.retain(|_, peer| now <= peer.counts_until);
        }
    }

    /// How many instances there are, this one included.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.peers.len()
    }

    /// The share of the budget of an endpoint that this instance may use.
    #[must_use]
    pub fn share(&self, endpoint: EndpointId) -> Share {
        let demand = |endpoints: &[EndpointNews]| {
            endpoints.iter().find(|news| news.endpoint == endpoint).map(|news| news.demand)
        };
        let others = self.peers.values().filter_map(|peer| demand(&peer.endpoints));
        match self.is_connected {
            true => fair_share(demand(&self.own.endpoints).unwrap_or_default(), others),
            false => Share::even(1 + others.count()),
        }
    }
}

#[cfg(test)]
mod tests;
