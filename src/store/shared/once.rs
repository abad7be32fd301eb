//! What may come once in the whole fleet.

use std::time::Duration;

use super::SharedStore;
use super::error::SharedError;

impl SharedStore {
    /// Whether this was told before, by any instance, within `keep`; it is told from now on. A Redis that
    /// cannot tell in time says no: the caller remembers what came to itself.
    pub async fn came_before(&self, id: &[u8], keep: Duration) -> bool {
        let told = match self.shared.connection.load_full() {
            Some(connection) if !connection.is_lost() => {
                let name = self.shared.names.once(id);
                connection.claim(&name, keep, self.shared.settings.read_timeout).await
            }
            _ => return false,
        };
        told.unwrap_or_else(|error: SharedError| {
            self.shared.metrics.store_failed("shared", error.reason());
            false
        })
    }
}
