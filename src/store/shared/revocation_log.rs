//! The log of revocations in Redis: a stream. Each instance appends to it, and reads it from the last entry
//! that it has.
//!
//! Entries never change, and Redis numbers them. So a lost message does no harm: the next read brings the
//! entry. A read begins *with* the last known entry. If that entry is gone, Redis has lost entries (it was
//! flushed, or a replica that lacked them took over), and the caller compares everything again.

use std::collections::HashMap;
use std::time::Duration;

use super::connection::Connection;
use super::error::SharedError;
use super::forget::Forget;
use super::reconnect::needs_reconnect;
use super::state::Shared;

/// The most entries of one read.
const PAGE: usize = 256;

/// How much longer than its record an entry stays, because the clocks of instances may differ.
const MARGIN: Duration = Duration::from_secs(86_400);

/// Appends an entry, and removes entries that are too old. Redis's own clock decides.
const APPEND: &str = r"
local oldest = (tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1])) * 1000
if oldest < 0 then oldest = 0 end
local first = string.format('%.0f', oldest)
return redis.call('XADD', KEYS[1], 'MINID', '~', first, '*', 'k', ARGV[2], 'r', ARGV[3])
";

/// The place of an entry in the log, as Redis writes it.
pub type LogId = String;

/// The place before every entry.
pub const LOG_START: &str = "0-0";

/// A part of the log, in order.
#[derive(Debug, Default)]
pub struct LogPage {
    /// Each entry's place, its key, and its sealed record.
    pub entries: Vec<(LogId, Vec<u8>, Vec<u8>)>,
    /// Whether more entries may follow.
    pub is_full: bool,
}

/// Appends a record, and publishes a message that makes the other instances read it. Returns its place.
pub(super) async fn append(
    shared: &Shared,
    key: &[u8],
    sealed: &[u8],
    keep: Duration,
) -> Result<LogId, SharedError> {
    let connection = shared.open_connection()?;
    let mut command = redis::cmd("EVAL");
    command.arg(APPEND).arg(1).arg(shared.names.revocations());
    command.arg((keep + MARGIN).as_secs()).arg(key).arg(sealed);
    let place: LogId = connection.query(&command).await.inspect_err(|error| leave(&connection, error))?;
    if let Some(message) = Forget::Revocations.seal(&shared.sealer, shared.sender, shared.clock.now()) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(shared.names.channel()).arg(message);
        // An instance that misses the message reads the entry within a second.
        let _ = connection.query::<i64>(&publish).await;
    }
    Ok(place)
}

/// The entries from `first` on, including `first`.
pub(super) async fn read(shared: &Shared, first: &str) -> Result<LogPage, SharedError> {
    let connection = shared.open_connection()?;
    let mut command = redis::cmd("XRANGE");
    command.arg(shared.names.revocations()).arg(first).arg("+").arg("COUNT").arg(PAGE);
    // Anybody who may write to Redis can use a field name that is not UTF-8.
    type Entries = Vec<(LogId, HashMap<Vec<u8>, Vec<u8>>)>;
    let entries: Entries = connection.query(&command).await.inspect_err(|error| leave(&connection, error))?;
    let is_full = entries.len() >= PAGE;
    let parts = entries.into_iter().map(|(place, mut fields)| {
        let mut field = |name: &str| fields.remove(name.as_bytes()).unwrap_or_default();
        (place, field("k"), field("r"))
    });
    Ok(LogPage { entries: parts.collect(), is_full })
}

/// Gives the connection up if the server did not answer in time, or if another server accepts writes now.
/// After any other refusal the connection stays. A broken connection is noticed elsewhere.
fn leave(connection: &Connection, error: &SharedError) {
    let gives_up = match error {
        SharedError::Refused(code) => needs_reconnect(code),
        error => *error == SharedError::Timeout,
    };
    if gives_up {
        connection.give_up();
    }
}
