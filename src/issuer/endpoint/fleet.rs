//! An endpoint as one of several instances has it.

use std::sync::Arc;

use aws_lc_rs::digest;
use tokio::sync::Notify;

use super::Endpoint;
use crate::guard::peers::{EndpointId, EndpointNews};
use crate::guard::share::Share;

impl Endpoint {
    /// What the other instances are told about it.
    #[must_use]
    pub fn news(&self) -> EndpointNews {
        let (demand, is_open) = self.guard.news();
        EndpointNews { endpoint: self.id(), demand, is_open }
    }

    /// Its name in all instances: the beginning of a SHA-256.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        let digest = digest::digest(&digest::SHA256, format!("{}\n{}", self.issuer, self.name).as_bytes());
        EndpointId::from_be_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Notifies `news` from now on when the other instances should be told something at once.
    pub fn notify(&self, news: &Arc<Notify>) {
        self.guard.notify(news);
    }

    /// Sets the share of its budget that this instance may use.
    pub fn set_share(&self, share: Share) {
        self.guard.set_share(share);
    }

    /// Another instance has opened its breaker of this endpoint.
    pub fn advise(&self) {
        self.report(self.guard.advise());
    }
}
