//! What instances tell each other about themselves: notices that Redis passes on and does not keep.

use std::time::Duration;

use tokio::sync::broadcast;

use super::SharedStore;
use super::error::SharedError;
use super::notice::Notice;
use super::state::Health;
use crate::guard::peers::InstanceNews;

/// How long Redis may take to pass a notice on. Then it counts as unreachable.
const TIMEOUT: Duration = Duration::from_millis(500);

impl SharedStore {
    /// Tells the other instances about this one.
    ///
    /// # Errors
    /// When Redis is unreachable, does not answer in time, or refuses.
    pub async fn tell(&self, news: InstanceNews) -> Result<(), SharedError> {
        let connection = self.shared.open_connection()?;
        let notice = Notice::Instance(news).seal(&self.shared.sealer, self.shared.clock.now());
        let Some(notice) = notice else { return Ok(()) };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.shared.names.channel()).arg(notice);
        let told = tokio::time::timeout(TIMEOUT, connection.query::<i64>(&publish)).await;
        told.unwrap_or(Err(SharedError::Timeout)).map(|_| ())
    }

    /// What other instances tell about themselves, from now on. This instance's own notices are among them.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<InstanceNews> {
        self.shared.news.subscribe()
    }

    /// Waits until the store is not connected.
    pub async fn disconnected(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.health.subscribe().wait_for(|health| *health != Health::Up).await;
    }
}
