//! Log lines: text for people, JSON for machines, to stderr.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lines::Lines;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::Timestamp;

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `format`: `text` or `json`. Default `text`.
    pub json: bool,
    /// `level`: a level or a list of `target=level`, as for `RUST_LOG`. Default `info`.
    pub level: String,
}

/// Installs the process's logger. A second call is without effect, so that tests may start several instances.
pub fn install(settings: &LogSettings) {
    let filter: Targets = settings.level.parse().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = tracing_subscriber::fmt::layer().with_writer(Lines::to_stderr()).with_ansi(ansi);
    // The error says that a logger is installed already, which is what we want.
    let _ =
        if settings.json { registry.with(layer.json()).try_init() } else { registry.with(layer).try_init() };
}

/// Allows one line a minute of a kind that strangers can cause, and counts the others.
#[derive(Debug, Default)]
pub struct RateLimitedLog {
    next_secs: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimitedLog {
    const PAUSE_SECS: u64 = 60;

    /// Whether a line may be written at `now`; if so, how many were suppressed since the last one.
    pub fn allow(&self, now: Timestamp) -> Option<u64> {
        let now = now.as_secs();
        let next = self.next_secs.load(Ordering::Relaxed);
        // A clock that was set back must not silence the line for as long as it was set back.
        let due = now >= next || next - now > Self::PAUSE_SECS;
        let mine = due
            && self
                .next_secs
                .compare_exchange(next, now + Self::PAUSE_SECS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_tells_how_many_it_stands_for() {
        let log = RateLimitedLog::default();
        let allow = |secs| log.allow(Timestamp::from_secs(secs));
        assert_eq!(allow(1_000), Some(0));
        assert_eq!((allow(1_000), allow(1_059)), (None, None));
        assert_eq!(allow(1_060), Some(2));
        assert_eq!(allow(500), Some(0), "the clock was set back");
        assert_eq!(allow(501), None);
    }
}
