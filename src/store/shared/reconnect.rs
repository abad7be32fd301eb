//! The task that keeps the connection: it connects, writes waiting changes, reads messages of other
//! instances, and notices when the connection is lost.
//!
//! While there is no connection, requests do not wait for one. After a reconnect, waiting forgets are written
//! before the first read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::connection::{Connection, Push, scan};
use super::error::SharedError;
use super::forget::Forget;
use super::notice::Notice;
use super::pending::{Change, Which};
use super::settings::read_password;
use super::state::{Health, Shared, is_former};
use crate::clock::Timestamp;
use crate::store::purge::Purge;
use crate::tiers::digest::DIGEST_LENGTH;
use crate::tiers::record::{Family, Record as _, VerdictRecord};

/// The wait before the first attempt to reconnect. It doubles after each failed attempt.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often an idle connection is checked.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How many changes are written at once.
const BATCH: usize = 256;

/// How many records are read at once: so many of the longest take 8 MiB.
const READ_BATCH: usize = 32;

/// The families that are about people.
const USER_FAMILIES: [Family; 2] = [Family::Verdicts, Family::Profiles];

/// A record that a purge removes: its family and key.
type Marked = (Family, [u8; DIGEST_LENGTH]);

/// The task.
pub(super) struct ReconnectTask {
    shared: Arc<Shared>,
    /// Whether the log has what Redis or a sentinel itself says is wrong, since it was last well.
    is_explained: bool,
}

impl ReconnectTask {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, is_explained: false }
    }

    /// Works until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let started = Instant::now();
            let error = match self.connect().await {
                Ok((connection, pushes)) => {
                    self.connected(connection.clone());
                    connection.why(self.serve(&connection, pushes).await)
                }
                Err(error) => error,
            };
            self.disconnected(&error);
            // After a connection that held for a while, the back-off starts again.
            pause = if started.elapsed() > LONGEST_PAUSE { SHORTEST_PAUSE } else { pause };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<(Arc<Connection>, mpsc::Receiver<Push>), SharedError> {
        let settings = &self.shared.settings;
        let password = settings.password_file.as_deref().map(read_password).transpose()?;
        let channel = self.shared.names.channel();
        // Weak, because `self.shared` owns the connection.
        let shared = Arc::downgrade(&self.shared);
        let read = move |message: &[u8]| shared.upgrade().and_then(|shared| read(&shared, message));
        let server = settings.servers.locate(password.as_deref()).await?;
        let (connection, pushes) =
            Connection::open(&server, settings.servers.are_cluster(), &channel, read).await?;
        connection.ping().await?;
        write(&self.shared, &connection).await?;
        Ok((Arc::new(connection), pushes))
    }

    fn connected(&self, connection: Arc<Connection>) {
        self.shared.connection.store(Some(connection));
        self.shared.revoked.notify_one();
        match self.shared.health.send_replace(Health::Up) {
            Health::Down => tracing::info!("the shared store is back"),
            Health::Starting | Health::Up => tracing::info!("records are shared through Redis"),
        }
    }

    /// Logs the first error, and later once what a server itself says: a sentinel that was only slow at
    /// first may name the mistake in the settings.
    fn disconnected(&mut self, error: &SharedError) {
        self.shared.connection.store(None);
        self.shared.waiters.cancel_all();
        let explains = error.is_by_a_server();
        if self.shared.health.send_replace(Health::Down) != Health::Down {
            self.shared.metrics.store_failed("shared", "degraded");
            tracing::warn!("the shared store is degraded; holdfast goes on without it: {error}");
            self.is_explained = explains;
        } else if explains && !self.is_explained {
            tracing::warn!("the shared store is still degraded: {error}");
            self.is_explained = true;
        }
    }

    /// Serves the connection until it fails. Returns the reason.
    async fn serve(&self, connection: &Connection, mut pushes: mpsc::Receiver<Push>) -> SharedError {
        loop {
            let done = tokio::select! {
                () = connection.lost.notified() => Err(SharedError::Timeout),
                () = connection.moved() => Err(SharedError::Refused("MOVED".to_owned())),
                push = pushes.recv() => {
                    if connection.lost_messages() {
                        self.shared.metrics.store_failed("shared", "message_lost");
                        // It is not known what the message was about, so everything is forgotten.
                        drop(self.shared.forgets.send(Forget::Everybody));
                    }
                    self.handle(push)
                }
                () = self.shared.arrived.notified() => write(&self.shared, connection).await,
                () = tokio::time::sleep(PING_INTERVAL) => self.check(connection).await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Checks an idle connection. While Redis refuses writes, the check is a write. So it is known when Redis
    /// accepts them again, although no record may wait to be written then.
    async fn check(&self, connection: &Connection) -> Result<(), SharedError> {
        write(&self.shared, connection).await?;
        if !self.shared.refuses.load(Relaxed) {
            return connection.ping().await;
        }
        let written = connection.try_write(&self.shared.names.trial()).await;
        note_refusal(&self.shared, &written);
        match written {
            Err(SharedError::Refused(code)) if !needs_reconnect(&code) => Ok(()),
            written => written,
        }
    }

    fn handle(&self, push: Option<Push>) -> Result<(), SharedError> {
        match push {
            None | Some(Push::End) => Err(SharedError::Redis("the connection broke".to_owned())),
            Some(Push::Forget(Forget::Revocations)) => {
                self.shared.revoked.notify_one();
                Ok(())
            }
            Some(Push::Forget(forget)) => {
                // Without a receiver an instance is still being built, and has nothing to forget.
                drop(self.shared.forgets.send(forget));
                Ok(())
            }
        }
    }
}

/// Reads a message of another instance. A notice is handled at once, and a forget is returned.
fn read(shared: &Shared, message: &[u8]) -> Option<Forget> {
    if let Some((from, forget)) = Forget::open(&shared.sealer, message) {
        // Rotating instances notify each other under the new secret.
        let is_told_otherwise = is_former(shared.sender) && is_former(from);
        return (from != shared.sender && !is_told_otherwise).then_some(forget);
    }
    match Notice::open(&shared.sealer, message, shared.clock.now()) {
        Some(Notice::LeaseEnded { key, result }) => shared.waiters.notify(&key, result),
        // Without a receiver an instance is still being built.
        Some(Notice::Instance(news)) => drop(shared.news.send(news)),
        None => shared.metrics.store_failed("shared", "message"),
    }
    None
}

/// Writes all waiting changes, forgets first. A change that fails waits again.
pub(super) async fn write(shared: &Shared, connection: &Connection) -> Result<(), SharedError> {
    let _lock = shared.writing.lock().await;
    if shared.pending().must_forget_everybody() {
        forget_everybody(shared, connection).await?;
        shared.pending().everybody_forgotten();
    }
    let changes = shared.pending().take();
    let written = write_changes(shared, connection, changes).await;
    shared.pending().written();
    written
}

async fn write_changes(
    shared: &Shared,
    connection: &Connection,
    changes: Vec<(Which, Change)>,
) -> Result<(), SharedError> {
    let (mut forgets, mut puts): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|(_, change)| matches!(change, Change::Forget { .. }));
    while !forgets.is_empty() {
        let batch = forgets.split_off(forgets.len().saturating_sub(BATCH));
        if let Err(error) = write_forgets(shared, connection, &batch).await {
            shared.metrics.store_failed("shared", "write");
            requeue(shared, [forgets, batch, puts].concat());
            return Err(error);
        }
    }
    while !puts.is_empty() {
        let batch = puts.split_off(puts.len().saturating_sub(BATCH));
        let written = connection.put(&shared.names, batch.iter().cloned(), &shared.clock).await;
        if written != Err(SharedError::Refused("TRYAGAIN".to_owned())) {
            note_refusal(shared, &written);
        }
        match written {
            Ok(()) => {}
            // The slot is being moved, and only one of two nodes has both names that the script reads. The
            // check of an idle connection writes them.
            Err(SharedError::Refused(code)) if code == "TRYAGAIN" => {
                requeue(shared, [puts, batch].concat());
                return Ok(());
            }
            // The server still serves reads and forgets, so the connection is kept.
            Err(SharedError::Refused(code)) if !needs_reconnect(&code) => {
                shared.metrics.store_failed("shared", "refused");
            }
            Err(error) => {
                shared.metrics.store_failed("shared", "write");
                requeue(shared, [puts, batch].concat());
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Whether the server says that another one accepts writes now, or that it accepts none yet: after a
/// failover, or while it loads. A reconnect then finds the right server.
pub(super) fn needs_reconnect(code: &str) -> bool {
    matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "MOVED" | "CLUSTERDOWN")
}

/// Logs one line when Redis begins to refuse writes, and one when it accepts them again.
fn note_refusal(shared: &Shared, written: &Result<(), SharedError>) {
    match written {
        Err(error @ SharedError::Refused(_)) if !shared.refuses.swap(true, Relaxed) => {
            tracing::warn!("the shared store refuses records: {error}");
        }
        Ok(()) if shared.refuses.swap(false, Relaxed) => {
            tracing::info!("the shared store accepts records again")
        }
        Ok(()) | Err(_) => {}
    }
}

async fn write_forgets(
    shared: &Shared,
    connection: &Connection,
    batch: &[(Which, Change)],
) -> Result<(), SharedError> {
    let now = shared.clock.now();
    let marks = batch.iter().filter_map(|((family, key), change)| match change {
        Change::Forget { useless_from } => Some((shared.names.of(*family, key), *useless_from)),
        Change::Put { .. } => None,
    });
    let told = batch.iter().filter_map(|((family, key), _)| Forget::of_record(*family, key));
    let messages = told.filter_map(|forget| forget.seal(&shared.sealer, shared.sender, now)).collect();
    let marked = connection.forget(marks, now, &shared.names.channel(), messages).await;
    marked.map(|marked| note_missing_marks(shared, marked))
}

/// The record is forgotten, but a Redis that is full has no mark in its place: an instance that missed the
/// message may bring the record back. Writing the mark again and again would not help.
fn note_missing_marks(shared: &Shared, marked: bool) {
    if !marked {
        shared.metrics.store_failed("shared", "refused");
        note_refusal(shared, &Err(SharedError::Refused("OOM".to_owned())));
    }
}

fn requeue(shared: &Shared, changes: Vec<(Which, Change)>) {
    for _ in 0..shared.pending().restore(changes) {
        shared.metrics.store_failed("shared", "queue_full");
    }
}

/// Forgets what an operator names; see [`SharedStore::purge`](super::SharedStore::purge).
pub(super) async fn purge(
    shared: &Shared,
    purge: &Purge,
    mark: &(impl Fn(Family) -> Timestamp + Send + Sync),
) -> Result<(), SharedError> {
    let _lock = shared.writing.lock().await;
    let connection = shared.connection.load_full();
    match purge {
        Purge::Token(digest) => shared.pending().drop_put(Family::Verdicts, &digest.0),
        Purge::Subject(..) | Purge::Everybody => shared.pending().drop_user_puts(),
    }
    let done = match connection {
        None => Err(SharedError::Disconnected),
        Some(connection) => {
            let done = purge_now(shared, &connection, purge, mark).await;
            // What is still to be forgotten is done at the next connect, before the first read.
            done.inspect_err(|_| connection.give_up())
        }
    };
    if done.is_err() {
        let mut pending = shared.pending();
        match purge {
            Purge::Token(digest) => {
                let useless_from = mark(Family::Verdicts);
                pending.add((Family::Verdicts, digest.0.to_vec()), Change::Forget { useless_from });
            }
            Purge::Subject(..) | Purge::Everybody => pending.forget_everybody(),
        }
        shared.arrived.notify_one();
    }
    done
}

async fn purge_now(
    shared: &Shared,
    connection: &Connection,
    purge: &Purge,
    mark: &(impl Fn(Family) -> Timestamp + Send + Sync),
) -> Result<(), SharedError> {
    let records: Vec<Marked> = match purge {
        Purge::Everybody => return forget_everybody(shared, connection).await,
        Purge::Token(digest) => vec![(Family::Verdicts, digest.0)],
        Purge::Subject(who, keys) => {
            let mut records: Vec<Marked> = keys.iter().map(|key| (Family::Profiles, key.0)).collect();
            let pattern = shared.names.pattern(Family::Verdicts);
            for mut node in connection.nodes(&shared.names.absent()).await? {
                let mut cursor = 0;
                loop {
                    let (next, names) = scan(&mut node, cursor, &pattern).await?;
                    for names in names.chunks(READ_BATCH) {
                        let values = connection.get_all(names).await?;
                        records.extend(names.iter().zip(values).filter_map(|(name, sealed)| {
                            let key = shared.names.key_of(Family::Verdicts, name)?;
                            let record = VerdictRecord::open(&shared.sealer, &key, &sealed?).ok()?;
                            who.matches(&record).then_some((Family::Verdicts, key))
                        }));
                    }
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
            records
        }
    };
    let now = shared.clock.now();
    let message = Forget::of_purge(purge).seal(&shared.sealer, shared.sender, now);
    let marks = records.iter().map(|(family, key)| (shared.names.of(*family, key), mark(*family)));
    let messages = message.into_iter().collect();
    let marked = connection.forget(marks, now, &shared.names.channel(), messages).await;
    marked.map(|marked| note_missing_marks(shared, marked))
}

/// Removes all verdicts and profiles under this secret. The mark and the message come first: from then on
/// records from before are not written, and the others drop what they could copy back. `SCAN` finds all names
/// that existed when it began.
async fn forget_everybody(shared: &Shared, connection: &Connection) -> Result<(), SharedError> {
    let now = shared.clock.now();
    let messages = Forget::Everybody.seal(&shared.sealer, shared.sender, now).into_iter().collect();
    let (mark, channel) = (shared.names.purged(), shared.names.channel());
    let marked = connection.mark_purged(&mark, &channel, messages).await?;
    note_missing_marks(shared, marked);
    for family in USER_FAMILIES {
        let pattern = shared.names.pattern(family);
        for mut node in connection.nodes(&shared.names.absent()).await? {
            let mut cursor = 0;
            loop {
                let (next, names) = scan(&mut node, cursor, &pattern).await?;
                connection.unlink(&names).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}
