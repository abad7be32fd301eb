//! Checks before the start whether the system allows as many threads as holdfast needs.
//!
//! With fewer threads, the runtime panics, and RocksDB aborts or hangs. So this check starts as many threads
//! and ends them at once.

use std::io;
use std::sync::Mutex;
use std::thread::{Builder, available_parallelism, scope};

use holdfast::config::Settings;
use thiserror::Error;

/// The threads of the disk store: its writer, and those of RocksDB itself.
const DISK_STORE: usize = 6;

/// The threads of the log and of name lookups, and a reserve.
const OTHERS: usize = 6;

/// The system allows fewer threads than are needed.
#[derive(Debug, Error)]
#[error(
    "this configuration needs {needed} threads, and the system gave {given} ({problem}): raise the limit on \
     processes and threads (ulimit -u, prlimit --nproc, systemd: TasksMax= and LimitNPROC=, containers: the \
     limit on pids)"
)]
pub struct TooFewThreads {
    needed: usize,
    given: usize,
    problem: io::Error,
}

/// Starts as many threads as these settings need. `answering` is how many answer requests.
///
/// # Errors
/// [`TooFewThreads`].
pub fn check(settings: &Settings, answering: usize) -> Result<(), TooFewThreads> {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    let disk = settings.store.disk().map_or(0, |disk| DISK_STORE.saturating_add(disk.readers));
    // One pool for new tokens, and one for proofs.
    let pools = cores.saturating_mul(2);
    start(answering.saturating_add(pools).saturating_add(disk).saturating_add(OTHERS))
}

fn start(needed: usize) -> Result<(), TooFewThreads> {
    let gate = Mutex::new(());
    let closed = gate.lock();
    scope(|scope| {
        // Dropped before the scope waits for the threads.
        let _closed = closed;
        for given in 0..needed {
            Builder::new().spawn_scoped(scope, || drop(gate.lock())).map_err(|problem| TooFewThreads {
                needed,
                given,
                problem,
            })?;
        }
        Ok(())
    })
}
