//! Thread pools for cryptography: one for new tokens, and one for DPoP proofs.
//!
//! One RSA decryption takes a quarter of a millisecond, and anybody can cause it. On the threads that answer
//! requests, a flood of forged tokens would delay requests whose answer is ready. So the work is done here,
//! behind a short queue. When the queue is full, the result is "cannot tell" at once.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use thiserror::Error;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// How many jobs may wait for each thread: a quarter of a second of the most expensive kind.
const QUEUE_PER_THREAD: usize = 1_000;

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// Too many jobs wait already, or the job ended without a result.
    #[error("too many tokens wait for their first check")]
    Busy,
}

/// A pool of threads. After it is dropped, the threads end when the queue is empty.
#[derive(Clone)]
pub struct Pool(SyncSender<Job>);

impl Pool {
    /// A pool of `threads` threads of this name, at least one.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (sender, receiver) = sync_channel::<Job>(threads * QUEUE_PER_THREAD);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// A pool that leaves one core for prepared answers.
    ///
    /// # Errors
    /// As [`Pool::start`].
    pub fn start_default(name: &str) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::start(name, cores.saturating_sub(1))
    }

    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// [`PoolError::Busy`], at once if the queue is full.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (answer, result) = oneshot::channel();
        // A caller that went away does not need the result.
        let job: Job = Box::new(move || {
            if !answer.is_closed() {
                drop(answer.send(job()))
            }
        });
        self.0.try_send(job).map_err(|_| PoolError::Busy)?;
        result.await.map_err(|_| PoolError::Busy)
    }
}

/// A job that panics only loses its own result.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_only_its_own_caller() {
        let pool = Pool::start("test", 1).unwrap();
        assert_eq!(pool.run(|| panic!("expected in this test")).await.map(|()| 0), Err(PoolError::Busy));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_answers_at_once() {
        let pool = Pool::start("test", 1).unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (entered, started) = oneshot::channel();
        let blocked = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = entered.send(());
                    let _ = gate.recv();
                })
                .await
            }
        });
        started.await.unwrap();
        let mut waiting: Vec<_> = (0..QUEUE_PER_THREAD).map(|_| Box::pin(pool.run(|| ()))).collect();
        for job in &mut waiting {
            assert!(futures_poll_once(job).is_none());
        }
        assert_eq!(pool.run(|| ()).await, Err(PoolError::Busy));
        release.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        for job in waiting {
            job.await.unwrap();
        }
    }

    /// Polls once, so that the job is queued, and returns the result if there is one already.
    fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
