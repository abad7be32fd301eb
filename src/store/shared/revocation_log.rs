//! The log of revocations in Redis: a stream, to which each instance appends and of which each reads on from
//! the last entry that it has.
//!
//! An entry is never changed, and Redis numbers it, so a message that is lost costs nothing: the next read
//! brings the entry. A read begins *with* the last entry that is known. If it is not there any more, Redis
//! has lost entries (it was flushed, or a replica took over that did not have them), and everything is
//! compared anew.

use std::collections::HashMap;
use std::time::Duration;

use super::connection::Connection;
use super::error::SharedError;
use super::forget::Forget;
use super::reconnect::is_elsewhere;
use super::state::Shared;

/// How many entries one read brings at most.
const PAGE: usize = 256;

/// How long an entry outlives the records in it, for instances whose clocks are wrong.
const MARGIN: Duration = Duration::from_secs(86_400);

/// Appends an entry, and removes entries that are too old by Redis's own clock.
const APPEND: &str = r"
local oldest = (tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1])) * 1000
if oldest < 0 then oldest = 0 end
return redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%.0f', oldest), '*', 'k', ARGV[2], 'r', ARGV[3])
";

/// The place of an entry in the log, as Redis writes it.
pub type LogId = String;

/// Before every entry.
pub const LOG_START: &str = "0-0";

/// A part of the log, in order.
#[derive(Debug, Default)]
pub struct LogPage {
    /// Each entry's place, its key, and its sealed record.
    pub entries: Vec<(LogId, Vec<u8>, Vec<u8>)>,
    /// Whether there may be more.
    pub is_full: bool,
}

/// Appends a record and has the others read it. Returns its place.
pub(super) async fn append(
    shared: &Shared,
    key: &[u8],
    sealed: &[u8],
    keep: Duration,
) -> Result<LogId, SharedError> {
    let connection = connection(shared)?;
    let mut command = redis::cmd("EVAL");
    command.arg(APPEND).arg(1).arg(shared.names.revocations());
    command.arg((keep + MARGIN).as_secs()).arg(key).arg(sealed);
    let place: LogId = connection.query(&command).await.inspect_err(|error| leave(&connection, error))?;
    if let Some(message) = Forget::Revocations.seal(&shared.sealer, shared.sender, shared.clock.now()) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(shared.names.channel()).arg(message);
        // Whoever does not hear of it reads it within a second.
        let _ = connection.query::<i64>(&publish).await;
    }
    Ok(place)
}

/// The entries from `first` on, that one included.
pub(super) async fn read(shared: &Shared, first: &str) -> Result<LogPage, SharedError> {
    let connection = connection(shared)?;
    let mut command = redis::cmd("XRANGE");
    command.arg(shared.names.revocations()).arg(first).arg("+").arg("COUNT").arg(PAGE);
    // Whoever may write to Redis may have named a field as no text is.
    type Entries = Vec<(LogId, HashMap<Vec<u8>, Vec<u8>>)>;
    let entries: Entries = connection.query(&command).await.inspect_err(|error| leave(&connection, error))?;
    let is_full = entries.len() >= PAGE;
    let parts = entries.into_iter().map(|(place, mut fields)| {
        let mut field = |name: &str| fields.remove(name.as_bytes()).unwrap_or_default();
        (place, field("k"), field("r"))
    });
    Ok(LogPage { entries: parts.collect(), is_full })
}

fn connection(shared: &Shared) -> Result<std::sync::Arc<Connection>, SharedError> {
    let connection = shared.connection.load_full().ok_or(SharedError::Away)?;
    if connection.is_lost() { Err(SharedError::Away) } else { Ok(connection) }
}

/// A server that says no still answers, unless another one takes writes now. One that does not answer is
/// given up. A connection that breaks is noticed elsewhere.
fn leave(connection: &Connection, error: &SharedError) {
    let gives_up = match error {
        SharedError::Refused(code) => is_elsewhere(code),
        error => *error == SharedError::Timeout,
    };
    if gives_up {
        connection.give_up();
    }
}
