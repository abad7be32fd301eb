//! The HTTP server: listener, connections, routing.
//!
//! One task accepts and owns every connection's task. To stop, it ends that one task: the listener and all
//! connections close, and nothing is left.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::body::{self, AnswerBody};
use crate::control;
use crate::error::TenantError;
use crate::faults::{Endpoint, Fault, header};
use crate::lock;
use crate::state::State;
use crate::userinfo::userinfo;

/// A listener and its connections; both end when this is dropped or closed.
#[derive(Debug)]
pub(crate) struct Server {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `listener`; each connection is one call of `serve`.
    pub(crate) fn start<F, S>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(());
        Self { stop, task: tokio::spawn(accept(listener, stopped, serve)) }
    }

    /// Stops listening and cuts every connection; done when both have happened.
    pub(crate) async fn close(self) {
        drop(self.stop);
        // It ends by itself, and a panic in it leaves nothing to close.
        let _ = self.task.await;
    }
}

/// Opens a listening socket on loopback.
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), TenantError> {
    if !address.ip().is_loopback() {
        return Err(TenantError::NotLoopback(address));
    }
    let failed = |source| TenantError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn accept<F, S>(listener: TcpListener, mut stopped: watch::Receiver<()>, serve: F)
where
    F: Fn(TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent: this ends when the sender is gone.
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream));
                }
                // Most likely out of file descriptors. Waits until some are closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection of the tenant to its end.
pub(crate) async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(Notify::new());
    let service = service_fn({
        let reset = Arc::clone(&reset);
        move |request| {
            let (state, reset) = (Arc::clone(&state), Arc::clone(&reset));
            async move { Ok::<_, Infallible>(handle(&state, request, &reset).await) }
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // The client went away or did not send HTTP, so nobody waits for an answer.
        _ = &mut connection => {}
        () = reset.notified() => {
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }
}

async fn handle(state: &Arc<State>, request: Request<Incoming>, reset: &Notify) -> Response<AnswerBody> {
    let endpoint = match request.uri().path() {
        "/.well-known/openid-configuration" => Endpoint::Discovery,
        "/.well-known/jwks.json" => Endpoint::Jwks,
        "/userinfo" => Endpoint::Userinfo,
        path => {
            return control::handle(state, request.method(), path, request.uri().query()).unwrap_or_else(
                || {
                    state.count(None);
                    json_answer(404, &json!({ "error": "not_found" }))
                },
            );
        }
    };
    state.count(Some(endpoint));
    let response = respond(state, endpoint, &request, reset).await;
    if endpoint == Endpoint::Userinfo {
        state.count_userinfo_status(response.status().as_u16());
    }
    response
}

async fn respond(
    state: &State,
    endpoint: Endpoint,
    request: &Request<Incoming>,
    reset: &Notify,
) -> Response<AnswerBody> {
    let fault = lock(&state.faults).of(endpoint);
    if let Some(response) = fault.as_ref().and_then(|fault| fault.canned_answer(state.now())) {
        return response;
    }
    match fault {
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => {
            reset.notify_one();
            std::future::pending().await
        }
        _ => {}
    }
    if ![Method::GET, Method::HEAD, Method::POST].contains(request.method()) {
        return json_answer(405, &json!({ "error": "method_not_allowed" }));
    }
    match endpoint {
        Endpoint::Userinfo => {
            let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            if let Some(Fault::TooLong(most)) = fault
                && authorization.is_some_and(|value| value.len() > most)
            {
                return json_answer(431, &json!({ "error": "request_header_fields_too_large" }));
            }
            userinfo(state, authorization, fault.as_ref())
        }
        Endpoint::Jwks => jwks(state, fault.as_ref()),
        Endpoint::Discovery | Endpoint::All => json_answer(200, &discovery(state.issuer())),
    }
}

fn jwks(state: &State, fault: Option<&Fault>) -> Response<AnswerBody> {
    let keys = match fault {
        Some(Fault::EmptyKeys) => Ok(json!({ "keys": [] })),
        Some(Fault::WrongKey) => lock(&state.keys).wrong_jwks(),
        _ => lock(&state.keys).jwks(),
    };
    match keys {
        Ok(keys) => json_answer(200, &keys),
        Err(error) => json_answer(500, &json!({ "error": error.to_string() })),
    }
}

/// OpenID Connect Discovery 1.0 §3, with the members that Auth0 gives.
fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}authorize"),
        "token_endpoint": format!("{issuer}oauth/token"),
        "device_authorization_endpoint": format!("{issuer}oauth/device/code"),
        "userinfo_endpoint": format!("{issuer}userinfo"),
        "mfa_challenge_endpoint": format!("{issuer}mfa/challenge"),
        "jwks_uri": format!("{issuer}.well-known/jwks.json"),
        "registration_endpoint": format!("{issuer}oidc/register"),
        "revocation_endpoint": format!("{issuer}oauth/revoke"),
        "end_session_endpoint": format!("{issuer}oidc/logout"),
        "scopes_supported": ["openid", "profile", "offline_access", "name", "email", "email_verified"],
        "response_types_supported": ["code", "token", "id_token", "code token", "code id_token"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["HS256", "RS256", "PS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "claims_supported": ["aud", "auth_time", "email", "email_verified", "exp", "iat", "iss", "name", "sub"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
    })
}

/// An answer; a status or header that HTTP does not allow becomes 500 or is left out.
pub(crate) fn answer(status: u16, headers: &[(String, String)], body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

pub(crate) fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    answer(
        status,
        &[header("content-type", "application/json; charset=utf-8")],
        body::full(value.to_string()),
    )
}

pub(crate) fn text_answer(status: u16, text: impl Into<String>) -> Response<AnswerBody> {
    answer(status, &[header("content-type", "text/plain; charset=utf-8")], body::full(text.into()))
}
