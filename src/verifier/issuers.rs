//! The configured issuers, and the lookup of a token's issuer.

use std::sync::Arc;

use crate::issuer::Issuer;
use crate::token::refusal::Refusal;

/// The configured issuers. There is at least one.
#[derive(Clone)]
pub struct Issuers(Arc<[Arc<Issuer>]>);

impl Issuers {
    /// Takes the issuers in the order of the configuration. The first one is asked about tokens that name no
    /// issuer.
    #[must_use]
    pub fn new(issuers: Vec<Arc<Issuer>>) -> Self {
        Self(issuers.into())
    }

    /// All issuers, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.0.iter()
    }

    /// The issuer with exactly this URL, or with this alias.
    ///
    /// # Errors
    /// [`Refusal::IssuerUnknown`].
    pub fn named(&self, name: Option<&str>) -> Result<&Arc<Issuer>, Refusal> {
        let found = name.and_then(|name| self.0.iter().find(|issuer| issuer.settings().is_named(name)));
        found.ok_or_else(|| self.unknown())
    }

    /// The issuer with exactly this URL, which is its name in metrics and records.
    #[must_use]
    pub fn of_url(&self, url: &str) -> Option<&Arc<Issuer>> {
        self.0.iter().find(|issuer| **issuer.name() == *url)
    }

    /// The refusal of a token that comes from none of them.
    pub(super) fn unknown(&self) -> Refusal {
        let names: Vec<&str> = self.iter().map(|issuer| &**issuer.name()).collect();
        Refusal::IssuerUnknown { configured: names.join(", ") }
    }
}
