//! The page of metrics. Gauges are updated when they are read, from values that need no search.

use hyper::StatusCode;

use super::plain::{Reply, respond};
use crate::instance::Instance;
use crate::issuer::endpoint::Endpoint;

/// The answer to `GET /metrics`.
pub(super) fn page(instance: &Instance) -> Reply {
    refresh(instance);
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", instance.metrics.render())
}

/// Updates the gauges.
pub(super) fn refresh(instance: &Instance) {
    let (stores, condition) = (&instance.stores, &instance.metrics.condition);
    instance.revocations.show();
    stores.count();
    condition.store_is("disk", stores.disk_is_degraded());
    condition.store_is("shared", stores.shared_is_degraded());
    condition.revocations_are(instance.revocations.is_behind());
    condition.show_users(instance.clock.ticks());
    for (listener, tls) in [("auth", &instance.tls), ("admin", &instance.admin_tls)] {
        if let Some(at) = tls.as_ref().and_then(|tls| tls.expires_at()) {
            condition.certificate_expires(listener, at);
        }
    }
    instance.issuers.iter().flat_map(|issuer| issuer.endpoints()).for_each(Endpoint::show);
    instance.forget_former_issuers();
}
