//! The admin listener: the status page, metrics, health, status and operator requests. It never shares a port
//! with the auth listener.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::events::{self, Events};
use super::listener::Client;
use super::plain::{Reply, respond, text};
use super::status::Observer;
use super::{operator, page};
use crate::instance::Instance;

/// The body of an answer: whole, or the events of the status page.
pub type AdminBody = Either<Full<Bytes>, Events>;

const TOO_MANY_PAGES: &str = "too many status pages are open; close one\n";

/// Answers one request of an operator or a monitoring system.
///
/// # Errors
/// Never.
pub async fn answer(
    observer: Arc<Observer>,
    request: Request<Incoming>,
    client: Client,
) -> Result<Response<AdminBody>, Infallible> {
    let asks_for_events = request.uri().path() == "/events" && request.method() == Method::GET;
    let answer = answer_whole(&observer, request, client).await;
    if asks_for_events && answer.status() == StatusCode::OK {
        return Ok(match events::answer(observer) {
            Some(events) => events.map(Either::Right),
            None => text(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_PAGES).map(Either::Left),
        });
    }
    Ok(answer.map(Either::Left))
}

async fn answer_whole(observer: &Observer, request: Request<Incoming>, client: Client) -> Reply {
    let instance = observer.instance();
    if !super::named::is_allowed(request.uri(), request.headers(), &instance.settings.admin.hosts) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this Host is not allowed: use the address, localhost, or a name in admin.hosts\n",
        );
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if (matches!(method, Method::POST | Method::DELETE) || path == "/revocations")
        && let Err(refused) = operator::check(request.headers(), client, &instance)
    {
        return refused.answer();
    }
    let done = match (method.as_str(), path.as_str()) {
        ("POST", "/revoke") => super::revoke::answer(instance, request, false).await,
        ("POST", "/unrevoke") | ("DELETE", "/revoke") => super::revoke::answer(instance, request, true).await,
        ("POST", "/purge") => super::purge::answer(instance, request).await,
        ("POST", "/import") => super::import::answer(instance, request, client).await,
        ("POST", "/breaker") => super::breaker::answer(&instance, request).await,
        ("POST", "/checkpoint") => super::checkpoint::answer(&instance, request).await,
        ("GET" | "HEAD", path) => Ok(show(observer, &instance, path).await),
        _ => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            Ok(answer)
        }
    };
    done.unwrap_or_else(|refused| refused.answer())
}

async fn show(observer: &Observer, instance: &Instance, path: &str) -> Reply {
    match path {
        "/revocations" => super::revoke::list(instance).await,
        "/metrics" => super::metrics::page(instance),
        "/" => page::html(),
        "/page.css" => page::css(),
        "/page.js" => page::js(),
        // Answered above as a stream; this is the answer to HEAD.
        "/events" => respond(StatusCode::OK, events::MEDIA_TYPE, Vec::new()),
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" if observer.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"),
        "/readyz" => ready(instance),
        "/status" => {
            let body = format!("{:#}\n", observer.status());
            respond(StatusCode::OK, "application/json", body.into_bytes())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "here are / (the status page), /metrics, /healthz, /readyz, /status, /events, POST /purge,
POST /breaker, POST /checkpoint, POST /import, POST /revoke, DELETE /revoke, POST /unrevoke
and /revocations\n",
        ),
    }
}

/// Ready once the keys of every issuer are known: before that, tokens cannot be verified.
fn ready(instance: &Instance) -> Reply {
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
                ", but degraded: the disk store fails, so records on it are not kept or not read"
            }
            (false, true) => ", but degraded: the shared store fails, so records are not shared",
            (true, true) => {
                ", but degraded: the disk store and the shared store fail, so records are kept in \
                 memory only"
            }
        };
        text(StatusCode::OK, format!("ready{degraded}{behind}\n"))
    } else {
        let body = format!("not ready: no keys yet of {}\n", waiting.join(", "));
        text(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}
