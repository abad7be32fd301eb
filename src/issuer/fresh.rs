//! Calls to an issuer without a request: the refresh of its keys, and probes.
//!
//! **Keys** are fetched again before they grow old. After a failed fetch the pause doubles from
//! [`RETRY_PAUSE`], with jitter, so that the instances of a fleet do not call at the same time, during an
//! outage or after it.
//!
//! **A half-open breaker** waits for a call as its probe. Without requests it would wait for ever. So a
//! breaker that waits at two checks, [`IDLE`] apart, gets a probe. For `/userinfo` this is a call without a
//! token, where a 401 counts as an answer; for introspection a question about a token that nobody has issued.
//! For the other two endpoints it is a fetch of the keys.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Request};
use tracing::{info, warn};

use super::Issuer;
use super::discovery::EndpointKind;
use crate::guard::breaker::shortened;
use crate::guard::{Priority, random_jitter};

/// The pause after the first failed fetch of the keys.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause after failed fetches.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The longest pause while no keys are known: nothing can be verified without them, and no request may come
/// that fetches them.
const LONGEST_PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(30);

/// How often keys are fetched in one `jwks_refresh` while some are held that the newest answer lacks.
const LOOKS_WHILE_HELD: u32 = 8;

/// How often half-open breakers are looked for.
const IDLE: Duration = Duration::from_secs(5);

/// Whether the breaker of each endpoint waited for a probe, in the order of [`EndpointKind::ALL`].
type Waited = [bool; EndpointKind::ALL.len()];

impl Issuer {
    /// Refreshes the keys, and probes endpoints that no request probes, until the task is aborted.
    pub async fn keep_fresh(self: Arc<Self>) {
        tokio::join!(self.keep_keys(), self.probe_what_is_idle());
    }

    /// Instances that were started together fetch at different times. Keys that were fetched before a reload
    /// are not fetched again early.
    async fn keep_keys(self: &Arc<Self>) {
        let jitter = random_jitter();
        let mut failures = 0;
        if let Some(fetched) = self.fetched_at() {
            let age = self.clock.ticks().since(fetched);
            tokio::time::sleep(shortened(self.settings.jwks_refresh, jitter()).saturating_sub(age)).await;
        }
        loop {
            let pause = match self.refresh(Priority::Background).await {
                Ok(()) => {
                    if failures > 0 {
                        info!(issuer = &*self.name, "keys fetched again");
                    }
                    failures = 0;
                    let refresh = self.settings.jwks_refresh;
                    // While answers differ, several are fetched before a key that one of them lacks is
                    // dropped.
                    let pause = if self.holds_keys() { refresh / LOOKS_WHILE_HELD } else { refresh };
                    shortened(pause, jitter())
                }
                Err(error) => {
                    if failures == 0 {
                        warn!(
                            issuer = &*self.name,
                            reason = error.reason(),
                            "cannot fetch the keys: {error}"
                        );
                    }
                    failures += 1;
                    let longest = if self.is_ready() { LONGEST_PAUSE } else { LONGEST_PAUSE_WITHOUT_KEYS };
                    error.retry_after().max(pause_after(failures, longest, jitter()))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn probe_what_is_idle(self: &Arc<Self>) {
        let mut waited = Waited::default();
        loop {
            tokio::time::sleep(IDLE).await;
            waited = self.probe_idle(waited).await;
        }
    }

    /// Probes the endpoints whose breakers wait for a probe and are in `waited`. Returns which ones wait now.
    pub async fn probe_idle(self: &Arc<Self>, waited: Waited) -> Waited {
        let waits = EndpointKind::ALL.map(|kind| self.endpoint(kind).waits_for_a_probe());
        let idle = |kind: &EndpointKind| waits[*kind as usize] && waited[*kind as usize];
        let (fetched, asked): (Vec<_>, Vec<_>) =
            EndpointKind::ALL.into_iter().filter(idle).partition(|kind| kind.is_fetched());
        if !fetched.is_empty() {
            // The breaker and the next fetch handle the result.
            let _ = self.refresh(Priority::Background).await;
        }
        let discovery = self.discovery.load_full();
        for kind in asked {
            if kind == EndpointKind::Introspection {
                // The breaker and the next request handle the result.
                let _ = self.test_introspection(Priority::Background).await;
            } else if let Some(url) = discovery.as_ref().and_then(|discovery| discovery.of(kind)) {
                self.endpoint(kind).probe(Request::new(Method::GET, url.clone())).await;
            }
        }
        waits
    }
}

/// How long to wait after this many failures in a row; `jitter` is a random number from 0 to 1.
fn pause_after(failures: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = RETRY_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    shortened(doubled.min(longest), jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_failures_doubles_up_to_its_longest_less_a_little_jitter() {
        let pauses = |longest, jitter| {
            [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|failures| pause_after(failures, longest, jitter).as_secs())
        };
        assert_eq!(pauses(LONGEST_PAUSE, 0.0), [5, 5, 10, 20, 160, 300, 300, 300]);
        assert_eq!(pauses(LONGEST_PAUSE, 1.0), [4, 4, 8, 16, 128, 240, 240, 240]);
        assert_eq!(pauses(LONGEST_PAUSE_WITHOUT_KEYS, 0.0), [5, 5, 10, 20, 30, 30, 30, 30]);
    }
}
