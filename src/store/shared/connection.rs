//! One connection to Redis, and every command that is sent over it, with its bounds.
//!
//! It needs RESP3 with `SUBSCRIBE`, so Redis 6.0 or later.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, Value,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::connect::{TIMEOUT, connect, with_timeout};
use super::error::SharedError;
use super::forget::Forget;
use super::framing::ReplyError;
use super::link::Link;
use super::names::Names;
use super::pending::{Change, Which};
use crate::clock::{Clock, Timestamp};
use crate::tiers::policy::FUTURE_TOLERANCE;
use crate::tiers::record::Family;

/// The longest record that is read, in bytes: twice the longest documents of an issuer. Records of users are
/// shorter.
const MAX_RECORD: usize = 256 * 1024;

/// How long the value of [`Connection::try_write`] stays.
const TRIAL_LIFE: Duration = Duration::from_secs(1);

/// How many reads in a row may time out before the connection is given up. A single timeout may be an
/// exception.
const MAX_STRIKES: u32 = 3;

/// How many records one command of a scan looks at.
const SCAN_BATCH: usize = 500;

/// Messages of other instances that may wait.
const MAX_MESSAGES: usize = 1024;

/// Writes a record, unless Redis has a younger one or the record was forgotten since.
///
/// Of two records of one kind the younger is dropped later. The first 8 bytes of a record say when, in
/// seconds, by the clock of the instance that wrote it. A record that would be dropped later than any correct
/// one has a wrong time, and is replaced. A value that is no record is replaced, too.
///
/// A mark of what was forgotten (in place of the record, or for everybody under the second key) keeps out
/// records that were verified before it or in the same millisecond: it is not known which came first, and a
/// refusal must not be lost. Both times are by Redis's clock, so no instance depends on the clock of another
/// one. A mark in the future comes from a wrong clock, and is ignored.
const PUT: &str = r"
local function number(text)
  local sum = 0
  for i = 1, 8 do sum = sum * 256 + text:byte(i) end
  return sum
end
local time = redis.call('TIME')
local present = time[1] * 1000 + time[2] / 1000 + tonumber(ARGV[5])
local function forgotten(mark)
  local at = number(mark)
  return at >= tonumber(ARGV[4]) and at <= present
end
local there = redis.pcall('GETRANGE', KEYS[1], 0, 7)
if type(there) == 'string' and #there == 8 then
  if redis.call('STRLEN', KEYS[1]) == 8 then
    if forgotten(there) then return 0 end
  else
    there = number(there)
    if there > number(ARGV[1]) and there <= tonumber(ARGV[3]) then return 0 end
  end
end
local purged = redis.pcall('GETRANGE', KEYS[2], 0, 7)
if type(purged) == 'string' and #purged == 8 and forgotten(purged) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Writes a mark of what is forgotten now: the time by Redis's clock, in milliseconds, in 8 bytes.
const MARK: &str = r"
local time = redis.call('TIME')
local left = time[1] * 1000 + math.floor(time[2] / 1000)
local mark = ''
for i = 1, 8 do
  mark = string.char(left % 256) .. mark
  left = math.floor(left / 256)
end
if ARGV[1] then return redis.pcall('SET', KEYS[1], mark, 'PX', ARGV[1]) end
return redis.pcall('SET', KEYS[1], mark)
";

/// The length of the mark in place of a forgotten record, in bytes: its time and nothing else.
const MARK_LENGTH: usize = 8;

/// When records that are not about users count as verified: after any purge. The greatest integer that Lua
/// represents exactly.
const NEVER_PURGED: Timestamp = Timestamp::from_millis((1 << 53) - 1);

/// The resolution of clocks.
const MILLISECOND: Duration = Duration::from_millis(1);

/// What the server pushes.
#[derive(Debug)]
pub(super) enum Push {
    /// A message of another instance.
    Forget(Forget),
    /// The subscription has ended.
    End,
}

/// An open connection.
pub(super) struct Connection {
    redis: Link,
    /// The task that reads and writes. It ends when this is dropped, also if Redis hangs.
    _driver: JoinSet<()>,
    /// Why replies are not read any more.
    failed: Arc<OnceLock<ReplyError>>,
    strikes: AtomicU32,
    /// Whether messages came faster than they were read, and some were dropped.
    dropped_messages: Arc<AtomicBool>,
    /// Notified when the connection is given up.
    pub(super) lost: Notify,
}

impl Connection {
    /// Connects, logs in, and subscribes to `channel`. `read` opens a message of another instance. Messages
    /// that it does not open are dropped at once, so they take no memory.
    pub(super) async fn open(
        server: &ConnectionInfo,
        in_cluster: bool,
        channel: &str,
        read: impl Fn(&[u8]) -> Option<Forget> + Send + Sync + 'static,
    ) -> Result<(Self, mpsc::Receiver<Push>), SharedError> {
        let (sender, pushes) = mpsc::channel(MAX_MESSAGES);
        let dropped_messages = Arc::new(AtomicBool::new(false));
        let dropped = dropped_messages.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                let push = match (push.kind, push.data.as_slice()) {
                    (PushKind::Disconnection | PushKind::Unsubscribe, _) => Some(Push::End),
                    (PushKind::Message, [_, Value::BulkString(message)]) => read(message).map(Push::Forget),
                    _ => None,
                };
                let sent = push.map_or(Ok(()), |push| sender.try_send(push));
                sent.inspect_err(|_| dropped.store(true, Relaxed))
            });
        let failed = Arc::new(OnceLock::new());
        let mut driver = JoinSet::new();
        let subscribe = async {
            let mut redis = connect(server, config, &mut driver, &failed).await?;
            redis.subscribe(channel).await?;
            Ok(redis)
        };
        let redis = with_timeout(subscribe).await.map_err(|error| why(&failed, error))?;
        let redis = Link::new(redis, server.clone(), in_cluster);
        let lost = Notify::new();
        Ok((
            Self { redis, _driver: driver, failed, strikes: AtomicU32::new(0), dropped_messages, lost },
            pushes,
        ))
    }

    /// The record of this name. A request waits for it, for `timeout` at most.
    pub(super) async fn get(&self, name: &str, timeout: Duration) -> Result<Option<Vec<u8>>, SharedError> {
        match self.within(timeout, &range(name)).await? {
            Ok(value) => record(value),
            Err(error) if is_of_wrong_type(&error) => Err(SharedError::NoRecord),
            Err(error) => {
                self.give_up();
                Err(self.why(error.into()))
            }
        }
    }

    /// The reply to a command for which a request waits, for at most `timeout`.
    pub(super) async fn within<T: redis::FromRedisValue>(
        &self,
        timeout: Duration,
        command: &redis::Cmd,
    ) -> Result<Result<T, RedisError>, SharedError> {
        let mut redis = self.redis.clone();
        let Ok(answer) = tokio::time::timeout(timeout, command.query_async::<T>(&mut redis)).await else {
            if self.strikes.fetch_add(1, Relaxed) + 1 >= MAX_STRIKES {
                self.give_up();
            }
            return Err(SharedError::Timeout);
        };
        if answer.is_ok() {
            self.strikes.store(0, Relaxed);
        }
        Ok(answer)
    }

    /// The reason why the connection ended; `error` is what the caller saw of it.
    pub(super) fn why(&self, error: SharedError) -> SharedError {
        why(&self.failed, error)
    }

    /// Whether messages were dropped since the last call.
    pub(super) fn lost_messages(&self) -> bool {
        self.dropped_messages.swap(false, Relaxed)
    }

    /// Waits until our slot of the cluster has moved to another node.
    pub(super) async fn moved(&self) {
        self.redis.moved.notified().await;
    }

    /// Makes the background task reconnect. Until then no request reads.
    pub(super) fn give_up(&self) {
        self.strikes.store(MAX_STRIKES, Relaxed);
        self.lost.notify_one();
    }

    /// Whether the connection is given up.
    pub(super) fn is_lost(&self) -> bool {
        self.strikes.load(Relaxed) >= MAX_STRIKES
    }

    /// The answer to one command for which no request waits.
    pub(super) async fn query<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<T, SharedError> {
        with_timeout(command.query_async(&mut self.redis.clone())).await
    }

    /// Checks that Redis answers.
    pub(super) async fn ping(&self) -> Result<(), SharedError> {
        with_timeout(redis::cmd("PING").exec_async(&mut self.redis.clone())).await
    }

    /// Checks that Redis accepts a write: of a mark under a name that nothing reads.
    pub(super) async fn try_write(&self, name: &str) -> Result<(), SharedError> {
        let mut command = redis::cmd("EVAL");
        command.arg(MARK).arg(1).arg(name).arg(TRIAL_LIFE.as_millis().to_string());
        self.query(&command).await
    }

    /// Replaces records by marks, and notifies the other instances. Returns whether all marks were written: a
    /// full server refuses to set a value, but removes one. The records are gone in any case.
    pub(super) async fn forget(
        &self,
        marks: impl Iterator<Item = (String, Timestamp)>,
        now: Timestamp,
        channel: &str,
        messages: Vec<Vec<u8>>,
    ) -> Result<bool, SharedError> {
        let mut commands = redis::pipe();
        for (name, useless_from) in marks {
            let life = useless_from.since(now).as_millis().max(1);
            commands.cmd("UNLINK").arg(&name);
            commands.cmd("EVAL").arg(MARK).arg(1).arg(name).arg(life.to_string());
        }
        self.publish(commands, channel, messages).await
    }

    /// Writes the mark of a purge of everybody, which keeps out older records, and notifies the other
    /// instances. Returns the same as [`Connection::forget`].
    pub(super) async fn mark_purged(
        &self,
        name: &str,
        channel: &str,
        messages: Vec<Vec<u8>>,
    ) -> Result<bool, SharedError> {
        let mut commands = redis::pipe();
        commands.cmd("EVAL").arg(MARK).arg(1).arg(name);
        self.publish(commands, channel, messages).await
    }

    async fn publish(
        &self,
        mut commands: Pipeline,
        channel: &str,
        messages: Vec<Vec<u8>>,
    ) -> Result<bool, SharedError> {
        for message in messages {
            commands.cmd("PUBLISH").arg(channel).arg(message);
        }
        let failed = self.execute(commands).await?;
        let (full, failed): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|error| error.code() == Some("OOM"));
        match failed.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(full.is_empty()),
        }
    }

    /// The time by Redis's clock.
    async fn time(&self) -> Result<Timestamp, SharedError> {
        let (seconds, micros): (u64, u64) =
            with_timeout(redis::cmd("TIME").query_async(&mut self.redis.clone())).await?;
        Ok(Timestamp::from_secs(seconds).after(Duration::from_micros(micros)))
    }

    /// Writes records. Records that are not useful any more are skipped.
    ///
    /// The time at which a record was verified is converted to Redis's own clock. It may be slightly too
    /// early: by the duration of the `TIME` command, and by a millisecond for the rounding of two clocks.
    pub(super) async fn put(
        &self,
        names: &Names,
        puts: impl Iterator<Item = (Which, Change)>,
        clock: &Clock,
    ) -> Result<(), SharedError> {
        let mut commands = redis::pipe();
        let redis_now = self.time().await?;
        let now = clock.now();
        let tolerance = FUTURE_TOLERANCE.as_millis().to_string();
        for ((family, key), change) in puts {
            let Change::Put { sealed, verified_at, useless_from, latest } = change else { continue };
            if useless_from > now {
                let life = useless_from.since(now).as_millis().to_string();
                let latest = latest.as_millis().div_ceil(1000).to_string();
                let verified = match family {
                    Family::Verdicts | Family::Profiles => {
                        redis_now.before(now.since(verified_at)).before(MILLISECOND)
                    }
                    Family::Keys | Family::Revocations => NEVER_PURGED,
                };
                commands.cmd("EVAL").arg(PUT).arg(2).arg(names.of(family, &key)).arg(names.purged());
                commands.arg(sealed).arg(life).arg(latest).arg(verified.as_millis()).arg(&tolerance);
            }
        }
        let failed = self.execute(commands).await?;
        failed.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Runs these commands and returns the errors that the server replied. The replies are checked one by
    /// one, because the error of a whole pipeline has no code that tells a full server from a broken one.
    async fn execute(&self, mut commands: Pipeline) -> Result<Vec<RedisError>, SharedError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        commands.ignore_errors();
        let done: Vec<Result<Value, RedisError>> =
            with_timeout(commands.query_async(&mut self.redis.clone())).await?;
        Ok(done.into_iter().filter_map(Result::err).collect())
    }

    /// The connections to all nodes that have names of ours: two, while a cluster moves our slot. `absent` is
    /// a name that no server has.
    pub(super) async fn nodes(&self, absent: &str) -> Result<Vec<MultiplexedConnection>, SharedError> {
        with_timeout(self.redis.nodes(&range(absent))).await
    }

    /// The records of these names; `None` for a name without a record.
    pub(super) async fn get_all(&self, names: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, SharedError> {
        let mut commands = redis::pipe();
        for name in names {
            commands.add_command(range(name));
        }
        commands.ignore_errors();
        let values: Vec<Result<Vec<u8>, RedisError>> =
            with_timeout(commands.query_async(&mut self.redis.clone())).await?;
        Ok(values.into_iter().map(|value| record(value.ok()?).ok()?).collect())
    }

    /// Removes these names.
    pub(super) async fn unlink(&self, names: &[Vec<u8>]) -> Result<(), SharedError> {
        let mut commands = redis::pipe();
        // One by one: two nodes of a cluster may have them.
        for name in names {
            commands.cmd("UNLINK").arg(name);
        }
        let failed = self.execute(commands).await?;
        failed.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// One step of a scan of all names at a node that match `pattern`, in bounded batches. It ends when the
/// cursor is 0 again.
pub(super) async fn scan(
    node: &mut MultiplexedConnection,
    cursor: u64,
    pattern: &str,
) -> Result<(u64, Vec<Vec<u8>>), SharedError> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_BATCH);
    with_timeout(command.query_async(node)).await
}

/// Reads no more than the longest record, whatever the value is.
fn range(name: impl redis::ToRedisArgs) -> redis::Cmd {
    let mut command = redis::cmd("GETRANGE");
    command.arg(name).arg(0).arg(MAX_RECORD);
    command
}

/// The record in a value: `None` for no value or a mark.
fn record(value: Vec<u8>) -> Result<Option<Vec<u8>>, SharedError> {
    match value.len() {
        0 | MARK_LENGTH => Ok(None),
        length if length > MAX_RECORD => Err(SharedError::NoRecord),
        _ => Ok(Some(value)),
    }
}

/// If a reply was too long to be read, that is the reason of every later failure.
fn why(failed: &OnceLock<ReplyError>, error: SharedError) -> SharedError {
    failed.get().map_or(error, |failed| SharedError::Reply(*failed))
}

fn is_of_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

impl From<RedisError> for SharedError {
    /// A server can send any text, so only the error code is taken over.
    fn from(error: RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        if error.kind() == ErrorKind::Io {
            Self::Redis(error.to_string())
        } else if !code.is_empty()
            && code.len() <= 32
            && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            Self::Refused(code.to_owned())
        } else {
            Self::Redis(error.category().to_owned())
        }
    }
}
