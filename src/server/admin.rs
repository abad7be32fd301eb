//! The admin listener: metrics, health, status. Never on the port that proxies ask.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::instance::Instance;

/// Answers one request of an operator or a monitoring system.
///
/// # Errors
/// Never.
pub async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST && request.uri().path() == "/purge" {
        return Ok(super::purge::answer(instance, request).await);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            instance.stores.count();
            let body = instance.metrics.render();
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => ready(&instance),
        "/status" => {
            let body = format!("{:#}\n", status(&instance));
            respond(StatusCode::OK, "application/json", body.into_bytes())
        }
        _ => text(StatusCode::NOT_FOUND, "here are /metrics, /healthz, /readyz, /status, and POST /purge\n"),
    })
}

/// Ready once the keys of every issuer are known: before that, tokens cannot be verified.
fn ready(instance: &Instance) -> Response<Full<Bytes>> {
    let waiting: Vec<&str> =
        instance.issuers.iter().filter(|issuer| !issuer.is_ready()).map(|issuer| &**issuer.name()).collect();
    if waiting.is_empty() {
        let degraded = match (instance.stores.disk_is_degraded(), instance.stores.shared_is_degraded()) {
            (false, false) => "",
            (true, false) => ", but degraded: the disk store is not well, records are not kept on disk",
            (false, true) => ", but degraded: the shared store is not well, records are not shared",
            (true, true) => {
                ", but degraded: the disk store and the shared store are not well, records are kept in memory only"
            }
        };
        text(StatusCode::OK, format!("ready{degraded}\n"))
    } else {
        let body = format!("not ready: no keys yet of {}\n", waiting.join(", "));
        respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", body.into_bytes())
    }
}

fn status(instance: &Instance) -> Value {
    let issuers: Vec<Value> = instance
        .issuers
        .iter()
        .map(|issuer| {
            let guards = issuer.guards().map(|(endpoint, status)| {
                let guard = json!({
                    "breaker": status.state.as_str(),
                    "reason": status.reason.map(crate::guard::Reason::as_str),
                    "refuses_for_seconds": status.refuses_for.as_secs_f64(),
                    "budget": status.budget,
                    "held_back_subjects": status.held_back,
                });
                (endpoint.to_owned(), guard)
            });
            json!({
                "url": &**issuer.name(),
                "ready": issuer.is_ready(),
                "keys": issuer.key_ids(),
                "endpoints": guards.collect::<serde_json::Map<_, _>>(),
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
    json!({ "version": env!("CARGO_PKG_VERSION"), "issuers": issuers, "tiers": tiers,
        "disk_degraded": instance.stores.disk_is_degraded(),
        "shared_degraded": instance.stores.shared_is_degraded() })
}

pub(super) fn text(status: StatusCode, body: impl Into<Vec<u8>>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
