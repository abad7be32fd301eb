//! Replay detection for the whole fleet.

use std::time::Duration;

use redis::ErrorKind;

use super::SharedStore;
use super::connection::Connection;
use super::error::SharedError;

impl SharedStore {
    /// Whether any instance has recorded this id within `keep`. Records it if none has. `false` if Redis does
    /// not answer in time: then the caller relies on its own cache.
    pub async fn is_replay(&self, id: &[u8], keep: Duration) -> bool {
        let connection = match self.shared.connection.load_full() {
            Some(connection) if !connection.is_lost() => connection,
            _ => return false,
        };
        let name = self.shared.names.replay(id);
        let claimed = claim(&connection, &name, keep, self.shared.settings.read_timeout).await;
        claimed.map(|first| !first).unwrap_or_else(|error| {
            self.shared.metrics.store_failed("shared", error.reason());
            false
        })
    }
}

/// Sets a name for `keep`. Returns whether it was not set before. A request waits for this.
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
