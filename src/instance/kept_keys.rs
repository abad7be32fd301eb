//! Issuers' keys in the stores, so that a restart during an outage still verifies.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::{Clock, Timestamp};
use crate::issuer::{FetchedKeys, Issuer, OnFetch};
use crate::store::archive::Archive;
use crate::tiers::policy::{Plan, Policy};
use crate::tiers::record::KeysRecord;

/// Keeps an issuer's keys whenever they were fetched, so that a restart during an outage still verifies.
pub(super) fn keep_keys(archive: Option<Arc<Archive>>, clock: Clock, policy: Policy) -> OnFetch {
    Box::new(move |issuer, fetched| {
        if let Some(archive) = &archive {
            let FetchedKeys { jwks, discovery } = fetched;
            let record = KeysRecord { verified_at: clock.now(), jwks, discovery };
            archive.keep(issuer.as_bytes(), &record, &record.known(), &policy);
        }
    })
}

/// How long to wait for the shared store, before keys are fetched that it might have.
const SHARED_PATIENCE: Duration = Duration::from_millis(250);

/// How often keys are looked for in the stores while there are none: Redis or the disk may come back first.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Takes the keys that were kept, and then keeps them fresh. Until there are keys, they are looked for again:
/// the issuer may be silent for longer than a store.
pub(super) async fn start(issuer: Arc<Issuer>, archive: Option<Arc<Archive>>, clock: Clock, policy: Policy) {
    let Some(archive) = archive else { return issuer.keep_fresh().await };
    if let Some(shared) = archive.shared() {
        let _ = tokio::time::timeout(SHARED_PATIENCE, shared.tried()).await;
    }
    let mut useless = None;
    restore_keys(&issuer, &archive, &clock, &policy, &mut useless).await;
    let look_again = async {
        while !issuer.is_ready() {
            tokio::time::sleep(LOOK_AGAIN).await;
            restore_keys(&issuer, &archive, &clock, &policy, &mut useless).await;
        }
    };
    tokio::join!(issuer.clone().keep_fresh(), look_again);
}

/// Takes the keys that were kept, if no tier says they are too old and the issuer did not give newer ones.
/// `useless` is when those were fetched that are of no use, which is said once: another instance may share
/// better ones.
async fn restore_keys(
    issuer: &Issuer,
    archive: &Archive,
    clock: &Clock,
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
                info!(issuer = &**issuer.name(), store, age_secs, "keys taken until they are fetched anew");
            }
            Err(problem) => {
                warn!(issuer = &**issuer.name(), store, "the keys that were kept are of no use: {problem}");
                *useless = Some(record.verified_at);
            }
        }
    }
}
