//! `holdfast serve`.

use std::io;
use std::process::ExitCode;

use holdfast::clock::Clock;
use holdfast::service::Service;
use holdfast::telemetry::{lines, logs};
use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::{SourceArguments, address_space, answering_threads, block_on, fail, misconfigured, threads};

/// Serves until SIGTERM or SIGINT; reloads on SIGHUP; logs its status on SIGUSR1. A signal that arrives
/// during the start is handled after it. Until the configuration is read, SIGTERM and SIGINT end the process
/// at once. Notifies systemd if systemd started the process.
pub fn run(source: SourceArguments) -> Result<(), ExitCode> {
    let EarlySignals { mut hangup, mut user1, mut user2 } = EarlySignals::receive().map_err(fail)?;
    let (settings, source) = source.read()?;
    address_space::check(&settings).map_err(fail)?;
    let answering = answering_threads().map_err(|error| misconfigured(&error))?;
    threads::check(&settings, answering).map_err(fail)?;
    logs::install(&settings.log);
    // Like all log lines: the default hook would block if stderr is not read.
    std::panic::set_hook(Box::new(|panic| error!("{panic}")));
    let result = block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let service = Service::start_with(settings, source, Clock::system()).await.map_err(fail)?;
        tell(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    tell(&[NotifyState::Reloading]);
                    if let Err(error) = service.reload() {
                        error!("the new configuration is invalid, and the old one stays in force:\n{error}");
                    }
                    tell(&[NotifyState::Ready]);
                }
                _ = user1.recv() => info!("status: {}", service.status()),
                // Without a handler this signal would end the process.
                _ = user2.recv() => info!("SIGUSR2 does nothing"),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tell(&[NotifyState::Stopping]);
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        service.leave(again).await;
        info!("stopping: no new connections, requests under way are finished");
        service.drain().await;
        Ok(())
    });
    lines::flush();
    result
}

/// Signals that would end the process while it reads its configuration, from a slow disk for example.
struct EarlySignals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl EarlySignals {
    /// Installs the handlers. From now on, signals wait until they are received here.
    ///
    /// Handlers are installed once for the process, and whichever runtime runs passes the signals on. So a
    /// runtime without threads installs them here and ends.
    fn receive() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _guard = runtime.enter();
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Notifies systemd. Does nothing without systemd.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
