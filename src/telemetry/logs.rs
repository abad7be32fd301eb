//! Log lines: text for people, JSON for machines, to stderr.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogSettings;

/// Installs the process's logger. A second call is without effect, so that tests may start several instances.
pub fn install(settings: &LogSettings) {
    let filter: Targets = settings.level.parse().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    // The error says that a logger is installed already, which is what we want.
    let _ =
        if settings.json { registry.with(layer.json()).try_init() } else { registry.with(layer).try_init() };
}
