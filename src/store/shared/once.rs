//! What may come once in the whole fleet.

use std::time::Duration;

use redis::ErrorKind;

use super::SharedStore;
use super::connection::Connection;
use super::error::SharedError;

impl SharedStore {
    /// Whether this was told before, by any instance, within `keep`; it is told from now on. A Redis that
    /// cannot tell in time says no: the caller remembers what came to itself.
    pub async fn came_before(&self, id: &[u8], keep: Duration) -> bool {
        let connection = match self.shared.connection.load_full() {
            Some(connection) if !connection.is_lost() => connection,
            _ => return false,
        };
        let name = self.shared.names.once(id);
        let claimed = claim(&connection, &name, keep, self.shared.settings.read_timeout).await;
        claimed.map(|first| !first).unwrap_or_else(|error| {
            self.shared.metrics.store_failed("shared", error.reason());
            false
        })
    }
}

/// Takes a name for `keep`, and says whether nobody had it. A request waits for it.
async fn claim(
    connection: &Connection,
    name: &str,
    keep: Duration,
    timeout: Duration,
) -> Result<bool, SharedError> {
    let mut command = redis::cmd("SET");
    command.arg(name).arg(1).arg("NX").arg("PX").arg(keep.as_millis().to_string());
    match connection.within::<Option<String>>(timeout, &command).await? {
        Ok(set) => Ok(set.is_some()),
        // A Redis that is full or a replica still serves reads.
        Err(error) if error.kind() != ErrorKind::Io => Err(error.into()),
        Err(error) => {
            connection.give_up();
            Err(connection.why(error.into()))
        }
    }
}
