//! The admin listener: metrics, health, status and orders. It never shares a port with the auth listener.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::listener::Sender;
use super::order;
use super::plain::{date, respond, text};
use crate::clock::Timestamp;
use crate::guard::{GuardStatus, Reason, State};
use crate::instance::Instance;

/// Answers one request of an operator or a monitoring system. `leaving` says whether the service is stopping.
///
/// # Errors
/// Never.
pub async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
    sender: Sender,
    leaving: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !super::named::is_ours(request.uri(), request.headers(), &instance.settings.admin.hosts) {
        return Ok(text(
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener answers by its address, by localhost, and by the names in admin.hosts\n",
        ));
    }
    let is_order =
        matches!(*request.method(), Method::POST | Method::DELETE) || request.uri().path() == "/revocations";
    if is_order && let Err(refused) = order::check(request.headers(), sender, &instance) {
        return Ok(text(refused.status(), format!("{refused}\n")));
    }
    match request.uri().path() {
        "/revoke" if request.method() == Method::POST => {
            return Ok(super::revoke::answer(instance, request, false).await);
        }
        "/unrevoke" if request.method() == Method::POST => {
            return Ok(super::revoke::answer(instance, request, true).await);
        }
        "/revoke" if request.method() == Method::DELETE => {
            return Ok(super::revoke::answer(instance, request, true).await);
        }
        "/purge" if request.method() == Method::POST => {
            return Ok(super::purge::answer(instance, request).await);
        }
        "/import" if request.method() == Method::POST => {
            return Ok(super::import::answer(instance, request, sender).await);
        }
        "/breaker" if request.method() == Method::POST => {
            return Ok(super::breaker::answer(&instance, request).await);
        }
        "/checkpoint" if request.method() == Method::POST => {
            return Ok(super::checkpoint::answer(&instance, request).await);
        }
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match request.uri().path() {
        "/revocations" => super::revoke::list(&instance).await,
        "/metrics" => super::metrics::page(&instance),
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" if leaving => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"),
        "/readyz" => ready(&instance),
        "/status" => {
            let body = format!("{:#}\n", status(&instance));
            respond(StatusCode::OK, "application/json", body.into_bytes())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /metrics, /healthz, /readyz, /status, POST /purge, POST /breaker,
POST /checkpoint, POST /import, POST /revoke, DELETE /revoke, POST /unrevoke and /revocations\n",
        ),
    })
}

/// Ready once the keys of every issuer are known: before that, tokens cannot be verified.
fn ready(instance: &Instance) -> Response<Full<Bytes>> {
    let waiting: Vec<&str> =
        instance.issuers.iter().filter(|issuer| !issuer.is_ready()).map(|issuer| &**issuer.name()).collect();
    if waiting.is_empty() {
        let behind = match instance.revocations.is_behind() {
            true => ", but behind: revocations of other instances may be missing",
            false => "",
        };
        let degraded = match (instance.stores.disk_is_degraded(), instance.stores.shared_is_degraded()) {
            (false, false) => "",
            (true, false) => {
                ", but degraded: the disk store is not well, records on it are not kept or not read"
            }
            (false, true) => ", but degraded: the shared store is not well, records are not shared",
            (true, true) => {
                ", but degraded: the disk store and the shared store are not well, records are kept in memory only"
            }
        };
        text(StatusCode::OK, format!("ready{degraded}{behind}\n"))
    } else {
        let body = format!("not ready: no keys yet of {}\n", waiting.join(", "));
        respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", body.into_bytes())
    }
}

/// The JSON of `/status`.
#[must_use]
pub fn status(instance: &Instance) -> Value {
    let issuers: Vec<Value> = instance
        .issuers
        .iter()
        .map(|issuer| {
            let guards = issuer.endpoints().map(|endpoint| {
                (endpoint.name().to_owned(), guard_status(&endpoint.status(), instance.clock.now()))
            });
            json!({
                "url": &**issuer.name(),
                "ready": issuer.is_ready(),
                "keys": issuer.key_ids(),
                "held_keys": issuer.held_key_ids(),
                "skipped_keys": issuer.skipped_keys(),
                "endpoints": serde_json::Map::from_iter(guards),
            })
        })
        .collect();
    let tiers: Vec<Value> = instance
        .identities
        .policy()
        .table()
        .iter()
        .map(|(_, row)| json!({ "name": row.name, "age_seconds": row.age.as_secs(), "role": row.role.to_string() }))
        .collect();
    let own = instance.settings.fingerprint();
    json!({ "version": env!("CARGO_PKG_VERSION"),
        "configuration": { "issuers": own.issuers, "store": own.store }, "issuers": issuers, "tiers": tiers,
        "verdict_ceiling": instance.settings.policy.verdict_ceiling,
        "disk_degraded": instance.stores.disk_is_degraded(),
        "shared_degraded": instance.stores.shared_is_degraded(),
        "revocations_behind": instance.revocations.is_behind() })
}

/// The status of one endpoint. Times are dates, because people read them. `until` is when an open breaker
/// lets a probe through, or when a forced state ends.
fn guard_status(status: &GuardStatus, now: Timestamp) -> Value {
    let until = match status.state {
        State::Open => Some(status.refuses_for),
        State::Closed | State::HalfOpen => status.forced_for,
    };
    json!({
        "breaker": status.state.as_str(),
        "since": status.since.map(|since| date(now.before(since))),
        "until": until.map(|until| date(now.after(until))),
        "reason": status.reason.map(Reason::as_str),
        "forced": status.forced_for.is_some(),
        "refuses_for_seconds": status.refuses_for.as_secs_f64(),
        "budget": {
            "available": status.budget.available,
            "rate": status.budget.rate,
            "burst": status.budget.burst,
            "waiting": status.waiting,
            "first_seen_trust": status.trust.as_share(),
            "learned": status.budget.learned.map(|(calls, until)| {
                json!({ "available": calls, "until": date(now.after(until)) })
            }),
        },
        "held_back_subjects": status.held_back,
        "suspects_pause_for_seconds": status.suspects_pause_for.as_secs_f64(),
    })
}
