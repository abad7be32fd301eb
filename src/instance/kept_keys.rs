//! Stores the keys of issuers, so that an instance that restarts during an outage can still verify tokens.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::{Clock, Timestamp};
use crate::issuer::{FetchedKeys, Issuer, OnFetch};
use crate::store::archive::Archive;
use crate::telemetry::metrics::Metrics;
use crate::tiers::policy::{Plan, Policy};
use crate::tiers::record::KeysRecord;

/// Stores the keys of an issuer after each fetch, so that an instance that restarts during an outage can
/// still verify tokens.
pub(super) fn keep_keys(
    archive: Option<Arc<Archive>>,
    clock: Clock,
    policy: Policy,
    metrics: Arc<Metrics>,
) -> OnFetch {
    Box::new(move |issuer, fetched| {
        metrics.condition.keys_fetched(issuer, clock.now());
        if let Some(archive) = &archive {
            let FetchedKeys { jwks, discovery } = fetched;
            let record = KeysRecord { verified_at: clock.now(), jwks, discovery };
            archive.keep(issuer.as_bytes(), &record, &record.known(), &policy);
        }
    })
}

/// How long to wait for the shared store before keys are fetched, because it may have them.
const CONNECT_WAIT: Duration = Duration::from_millis(250);

/// How often keys are looked up in the stores while there are none. Redis or the disk may recover before the
/// issuer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Loads the stored keys, and then keeps the keys fresh. The lookup is repeated until there are keys, because
/// the issuer may be down for longer than a store.
pub(super) async fn start(
    issuer: Arc<Issuer>,
    archive: Option<Arc<Archive>>,
    clock: Clock,
    policy: Policy,
    metrics: Arc<Metrics>,
) {
    let Some(archive) = archive else { return issuer.keep_fresh().await };
    if let Some(shared) = archive.shared() {
        let _ = tokio::time::timeout(CONNECT_WAIT, shared.first_attempt()).await;
    }
    let mut useless = None;
    restore_keys(&issuer, &archive, (&clock, &metrics), &policy, &mut useless).await;
    let look_again = async {
        while !issuer.is_ready() {
            tokio::time::sleep(LOOK_AGAIN).await;
            restore_keys(&issuer, &archive, (&clock, &metrics), &policy, &mut useless).await;
        }
    };
    tokio::join!(issuer.clone().keep_fresh(), look_again);
}

/// Loads the stored keys, unless they are too old for every tier or the issuer has already returned newer
/// ones. `useless` is the fetch time of stored keys that are not usable. They are logged once and then
/// skipped, until another instance shares better ones.
async fn restore_keys(
    issuer: &Issuer,
    archive: &Archive,
    (clock, metrics): (&Clock, &Metrics),
    policy: &Policy,
    useless: &mut Option<Timestamp>,
) {
    if !issuer.is_ready()
        && let Some((record, store)) = archive.load::<KeysRecord>(issuer.name().as_bytes(), policy).await
        && !issuer.is_ready()
        && *useless != Some(record.verified_at)
        && policy.before_asking(&record.known(), clock.now(), None) != Plan::NOTHING_KNOWN
    {
        let age_secs = clock.now().since(record.verified_at).as_secs();
        match issuer.restore(&FetchedKeys { jwks: record.jwks, discovery: record.discovery }) {
            Ok(()) => {
                metrics.condition.keys_fetched(issuer.name(), record.verified_at);
                info!(
                    issuer = &**issuer.name(),
                    store, age_secs, "stored keys are in use until the keys are fetched again"
                );
            }
            Err(problem) => {
                warn!(issuer = &**issuer.name(), store, "the stored keys cannot be used: {problem}");
                *useless = Some(record.verified_at);
            }
        }
    }
}
