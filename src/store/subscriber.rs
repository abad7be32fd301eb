//! Applies what other instances have forgotten, for all configurations that are in use.
//!
//! A reload creates a second set of answers beside the first. A message that is being applied at that moment
//! must be applied completely, and in both. So one task serves all configurations, and lives until the last
//! one is gone.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::shared::Forget;
use super::stores::Stores;

/// The task. It ends when this is dropped.
pub struct Subscriber {
    served: Arc<SubscribedStores>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct SubscribedStores(Mutex<Vec<Weak<Stores>>>);

impl Subscriber {
    /// Starts the task, which applies these messages, and those of instances that have only the old secret.
    #[must_use]
    pub fn start(mut forgets: Receiver<Forget>, mut former: Option<Receiver<Forget>>) -> Self {
        let served = Arc::new(SubscribedStores::default());
        let all = served.clone();
        let task = tokio::spawn(async move {
            loop {
                let (heard, is_former) = tokio::select! {
                    heard = forgets.recv() => (heard, false),
                    heard = next_of(&mut former) => (heard, true),
                };
                match heard {
                    Ok(forget) => all.follow(&forget, is_former).await,
                    // It is not known which messages were lost, so everything is forgotten.
                    Err(RecvError::Lagged(_)) => all.follow(&Forget::Everybody, is_former).await,
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Self { served, task }
    }

    /// Applies messages to these stores as well, for as long as they are in use.
    pub fn serve(&self, stores: &Arc<Stores>) {
        let mut served = self.served.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.retain(|stores| stores.strong_count() > 0);
        served.push(Arc::downgrade(stores));
    }
}

/// The next message. Waits for ever if there is no channel.
async fn next_of(forgets: &mut Option<Receiver<Forget>>) -> Result<Forget, RecvError> {
    match forgets {
        Some(forgets) => forgets.recv().await,
        None => std::future::pending().await,
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SubscribedStores {
    /// Applies a message, also to stores that are added meanwhile.
    async fn follow(&self, forget: &Forget, is_former: bool) {
        let mut done: Vec<Arc<Stores>> = Vec::new();
        while let Some(next) = self.next(&done) {
            match is_former {
                true => next.follow_former(forget.clone()).await,
                false => next.follow(forget.clone()).await,
            }
            done.push(next);
        }
    }

    fn next(&self, done: &[Arc<Stores>]) -> Option<Arc<Stores>> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut instances_ready = served.iter().filter_map(Weak::upgrade);
        instances_ready.find(|stores| !done.iter().any(|done| Arc::ptr_eq(done, stores)))
    }
}
