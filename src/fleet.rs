//! The fleet: instances that share one Redis are one client of the issuer.
//!
//! One task tells the other instances what this one needs of each budget, and which of its breakers are open.
//! It applies what they tell: the share of each budget, and the advice to be careful. No call waits for it.
//!
//! **Redis only passes notices on** (pub/sub), once a second, and keeps nothing. So there is nothing to lose
//! in a failover, nothing to move with a slot, and no clock to agree on. A notice reaches all instances
//! within milliseconds, and each computes its share from the same numbers; see [`Peers`].

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use crate::clock::{Clock, Ticks};
use crate::guard::peers::{InstanceNews, Peers};
use crate::issuer::endpoint::Endpoint;
use crate::store::archive::Archive;
use crate::store::shared::SharedStore;
use crate::telemetry::metrics::Metrics;
use crate::verifier::Issuers;

/// How often the others are told, at least.
const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two notices. All instances hear each notice: if each newly heard instance were
/// answered by a notice of its own, a fleet that starts at once would send the cube of its size.
const GAP: Duration = Duration::from_millis(100);

/// The task. It ends when this is dropped.
pub struct Fleet {
    endpoints: Arc<Mutex<Vec<Endpoint>>>,
    news: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Fleet {
    /// Starts the task; `None` if there is no shared store.
    #[must_use]
    pub fn start(archive: &Arc<Archive>, clock: Clock, metrics: Arc<Metrics>) -> Option<Self> {
        archive.shared()?;
        let (endpoints, news) = (Arc::<Mutex<Vec<Endpoint>>>::default(), Arc::<Notify>::default());
        let mut instance = [0; 8];
        aws_lc_rs::rand::fill(&mut instance).ok()?;
        let member = Member {
            archive: archive.clone(),
            endpoints: endpoints.clone(),
            news: news.clone(),
            peers: Peers::none(u64::from_le_bytes(instance)),
            started: Instant::now(),
            clock,
            metrics,
        };
        let task = tokio::spawn(member.run());
        Some(Self { endpoints, news, task })
    }

    /// The endpoints of these issuers share their budgets from now on, and no others.
    pub fn serve(&self, issuers: &Issuers) {
        let endpoints: Vec<_> =
            issuers.iter().flat_map(|issuer| issuer.endpoints().map(Clone::clone)).collect();
        endpoints.iter().for_each(|endpoint| endpoint.notify(&self.news));
        *lock(&self.endpoints) = endpoints;
        self.news.notify_one();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Member {
    archive: Arc<Archive>,
    endpoints: Arc<Mutex<Vec<Endpoint>>>,
    news: Arc<Notify>,
    peers: Peers,
    started: Instant,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Member {
    async fn run(mut self) {
        let archive = self.archive.clone();
        let former = archive.former().and_then(|former| former.shared());
        let Some(shared) = archive.shared() else { return };
        // An instance that others know without its endpoints would have no part of any budget in their sums.
        while lock(&self.endpoints).is_empty() {
            self.news.notified().await;
        }
        loop {
            self.apply();
            shared.connected().await;
            self.peers.connected(self.now());
            let error = self.take_part(shared, former).await;
            debug!("the budgets are divided evenly among {} instances: {error}", self.peers.count());
            self.peers.disconnected();
            self.apply();
            tokio::time::sleep(GAP).await;
        }
    }

    /// Tells and hears until Redis is unreachable. Returns the reason.
    async fn take_part(&mut self, shared: &SharedStore, former: Option<&SharedStore>) -> String {
        let mut heard = shared.news();
        // While the instance secret is rotated, instances with only the old one hear the old channel.
        let mut heard_by_former = former.map(SharedStore::news);
        loop {
            if let Err(error) = self.tell(shared, former).await {
                return error;
            }
            let mut interval = pin!(passed(&self.clock, INTERVAL));
            let mut gap = pin!(passed(&self.clock, GAP));
            let mut is_wanted = false;
            loop {
                let news = tokio::select! {
                    () = shared.disconnected() => return "Redis is unreachable".to_owned(),
                    () = &mut interval => break,
                    () = &mut gap, if is_wanted => break,
                    () = self.news.notified() => {
                        is_wanted = true;
                        continue;
                    }
                    news = heard.recv() => news,
                    news = next_of(&mut heard_by_former) => news,
                };
                match news {
                    Ok(news) => is_wanted |= self.hear(news),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return "the store is closed".to_owned(),
                }
            }
        }
    }

    /// Tells the others about this instance.
    async fn tell(&mut self, shared: &SharedStore, former: Option<&SharedStore>) -> Result<(), String> {
        let endpoints: Vec<_> = lock(&self.endpoints).iter().map(Endpoint::news).collect();
        let news = InstanceNews { instance: self.peers.own_instance(), endpoints: endpoints.clone() };
        if let Some(former) = former {
            // Without it, the instances that have only the old secret count this one as gone.
            let _ = former.tell(news.clone()).await;
        }
        shared.tell(news).await.map_err(|error| error.to_string())?;
        self.peers.told(endpoints);
        self.peers.forget_silent(self.now());
        self.apply();
        Ok(())
    }

    /// Applies what another instance told. Returns whether it is new, so that it should be told soon.
    fn hear(&mut self, news: InstanceNews) -> bool {
        let heard = self.peers.heard(news, self.now());
        if heard.is_new {
            info!("{} instances share the budgets of calls to issuers", self.peers.count());
        }
        for endpoint in lock(&self.endpoints).iter().filter(|endpoint| heard.opened.contains(&endpoint.id()))
        {
            endpoint.advise();
        }
        self.apply();
        heard.is_new
    }

    fn apply(&self) {
        lock(&self.endpoints).iter().for_each(|endpoint| endpoint.set_share(self.peers.share(endpoint.id())));
        self.metrics.instances_are(self.peers.count());
    }

    /// The time by which instances are silent: the machine's, also in tests that hold the clock.
    fn now(&self) -> Ticks {
        Ticks::from_elapsed(self.started.elapsed())
    }
}

/// Ends when this time has passed from now on, by the machine's clock or by one that a test moves.
fn passed(clock: &Clock, time: Duration) -> impl Future<Output = ()> + use<> {
    let (clock, due, sleep) = (clock.clone(), clock.ticks().after(time), tokio::time::sleep(time));
    async move {
        tokio::select! {
            () = sleep => {}
            () = clock.sleep_until(due) => {}
        }
    }
}

/// The next notice. Waits for ever if there is no channel.
async fn next_of(
    news: &mut Option<tokio::sync::broadcast::Receiver<InstanceNews>>,
) -> Result<InstanceNews, RecvError> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

/// A poisoned lock does no harm: the list is replaced as a whole.
fn lock(endpoints: &Mutex<Vec<Endpoint>>) -> MutexGuard<'_, Vec<Endpoint>> {
    endpoints.lock().unwrap_or_else(PoisonError::into_inner)
}
