//! Log lines on their way to stderr. No request waits for them.
//!
//! stderr may be a pipe that its reader does not drain, such as a log shipper that hangs. A thread of its own
//! writes the lines; a line without room is dropped and counted. The number of dropped lines is logged as
//! soon as the pipe drains, and is always in the metric `log_lines_dropped_total`.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait to be written.
const ROOM: usize = 1_024;

/// How long the process waits at its end for unwritten lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The shortest time between two log lines about dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static WRITER: OnceLock<SyncSender<Message>> = OnceLock::new();

/// How many lines were dropped since the start of the process.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// Notifies when all earlier lines are written.
    Flush(SyncSender<()>),
}

/// Waits until all lines so far are written, for at most half a second. Called at the end of the process.
pub fn flush() {
    let Some(writer) = WRITER.get() else { return };
    let (done, written) = sync_channel(1);
    let until = Instant::now() + FLUSH_TIMEOUT;
    let mut message = Message::Flush(done);
    while let Err(TrySendError::Full(back)) = writer.try_send(message) {
        if Instant::now() >= until {
            return;
        }
        message = back;
        thread::sleep(Duration::from_millis(5));
    }
    let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
}

/// Writes a message of a command to stderr, after the log lines so far. Waits for at most half a second.
pub fn say(words: impl Display) {
    let lines = Lines::to_stderr();
    drop(Line { to: lines.0.as_ref(), bytes: format!("{words}\n").into_bytes() });
    flush();
}

/// Where the logger writes.
pub(super) struct Lines(Option<SyncSender<Message>>);

impl Lines {
    /// Lines for stderr. Without a thread they are written at once.
    pub fn to_stderr() -> Self {
        if let Some(writer) = WRITER.get() {
            return Self(Some(writer.clone()));
        }
        let (sender, lines) = sync_channel(ROOM);
        let started =
            thread::Builder::new().name("log".to_owned()).spawn(move || write(&lines, io::stderr()));
        if started.is_err() {
            return Self(None);
        }
        // Of several loggers only the first is ever used.
        Self(Some(WRITER.get_or_init(|| sender).clone()))
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { to: self.0.as_ref(), bytes: Vec::with_capacity(256) }
    }
}

/// One line; it is sent when it is complete.
pub(super) struct Line<'a> {
    to: Option<&'a SyncSender<Message>>,
    bytes: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        match self.to {
            Some(writer) => {
                if writer.try_send(Message::Line(line)).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => drop(io::stderr().write_all(&line)),
        }
    }
}

/// Writes lines until there are no more. It goes on after the pipe is closed, because somebody may ask for a
/// flush.
fn write(lines: &Receiver<Message>, mut to: impl io::Write) {
    let (mut reported, mut next) = (0, Instant::now());
    loop {
        match lines.recv_timeout(REPORT_INTERVAL) {
            Ok(Message::Line(line)) => drop(to.write_all(&line)),
            Ok(Message::Flush(done)) => drop(done.try_send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let dropped = dropped();
        if dropped > reported && Instant::now() >= next {
            warn!(lines = dropped - reported, "log lines were dropped: the log was not read");
            (reported, next) = (dropped, Instant::now() + REPORT_INTERVAL);
        }
    }
}
