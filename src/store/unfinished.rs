//! What a purge leaves to do, because a store is degraded.

use std::fmt;

use thiserror::Error;

use super::disk::DiskError;
use super::shared::SharedError;

/// What could not be purged now. The store forgets it before it answers again. Memory has forgotten it.
#[derive(Debug, Error)]
pub struct Unfinished {
    /// What is wrong with the disk store.
    pub disk: Option<DiskError>,
    /// What is wrong with the shared store.
    pub shared: Option<SharedError>,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = "is degraded and forgets before it answers again";
        let disk = self.disk.as_ref().map(|error| format!("the disk store {then}: {error}"));
        let shared = self.shared.as_ref().map(|error| format!("the shared store {then}: {error}"));
        f.write_str(&disk.into_iter().chain(shared).collect::<Vec<_>>().join("; "))
    }
}
