//! One pooled HTTP client for all calls to issuers, with every bound that a call must have.

use std::error::Error as _;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Request, RequestBuilder, redirect};
use thiserror::Error;
use tokio::time::Instant;

use super::cause::NoConnection;

/// The connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a whole call.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// How long an idle connection stays in the pool: shorter than common edge servers keep one (nginx 75 s,
/// cloud balancers 60 s), so that our side closes it.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// How often the kernel asks a silent peer whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long sent data may stay unacknowledged before the peer counts as dead: a few retransmissions, and less
/// than half of the timeout of a call, so that there is time for another connection.
const UNACKNOWLEDGED: Duration = Duration::from_millis(1_200);

/// The longest answer that is read, in bytes. Auth0's are under 10 KiB.
const MAX_BODY: usize = 64 * 1024;

/// An answer of any status.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers, for the rate limits.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no usable answer. Never contains the request, and so no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// No connection.
    #[error("no connection to the issuer: {0}")]
    Connect(NoConnection),
    /// The call took longer than its timeout.
    #[error("the issuer did not answer in time")]
    Timeout,
    /// The answer is longer than 64 KiB.
    #[error("the issuer's answer is longer than 64 KiB")]
    TooLarge,
    /// The answer is not HTTP.
    #[error("the server there does not speak HTTP; if it expects TLS, the URL must begin with https://")]
    NotHttp,
    /// The connection broke.
    #[error("the connection to the issuer broke before its answer was complete")]
    Broken,
    /// The answer is compressed, although no compression was requested, with a broken or unsupported
    /// encoding.
    #[error(
        "the issuer's answer has an unsupported compression, which was not requested; a server in front of \
         the issuer adds it"
    )]
    Encoded,
    /// The token cannot be sent in a header.
    #[error("the token cannot be sent in a header")]
    Unsendable,
}

impl CallError {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::NotHttp => "not_http",
            Self::Broken => "broken",
            Self::Encoded => "encoded",
            Self::Unsendable => "unsendable",
        }
    }
}

/// The TLS library could not be started.
#[derive(Debug, Error)]
#[error("the HTTPS client cannot start; are CA certificates installed (package ca-certificates)? {0}")]
pub struct ClientError(#[source] reqwest::Error);

/// Makes calls to issuers.
#[derive(Clone, Debug)]
pub struct Client {
    pooled: reqwest::Client,
    /// Makes a connection for each call.
    fresh: reqwest::Client,
    /// When a call was last answered. The pool can hold a connection only after that.
    answered: Arc<Mutex<Option<Instant>>>,
}

impl Client {
    /// A client with a pool of its own. It uses no proxy, follows no redirect and keeps no cookie.
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub fn new() -> Result<Self, ClientError> {
        let build = |idle| {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                .redirect(redirect::Policy::none())
                .no_proxy()
                .pool_max_idle_per_host(idle)
                .pool_idle_timeout(POOL_IDLE)
                .tcp_keepalive(KEEP_ALIVE)
                .tcp_keepalive_interval(KEEP_ALIVE)
                .tcp_user_timeout(UNACKNOWLEDGED)
                .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(ClientError)
        };
        Ok(Self { pooled: build(16)?, fresh: build(0)?, answered: Arc::default() })
    }

    /// Makes a call. A connection from the pool may be dead, because the other side closed it just now or
    /// disappeared: if no answer arrives on it, the call is made once more on a fresh one, within the same
    /// time (RFC 9110 §9.2.2). So a call must change nothing at the issuer, whatever its method.
    ///
    /// # Errors
    /// [`CallError`]; an answer of any status is not an error here.
    pub async fn send(&self, call: &Request) -> Result<Reply, CallError> {
        let began = Instant::now();
        let may_be_reused = self.answered().is_some_and(|at| began.duration_since(at) < POOL_IDLE);
        let reply = match send(&self.pooled, call, TIMEOUT).await {
            // TCP's user timeout detects a dead peer, and is shorter than the call's.
            Err(Failed { error: CallError::Broken | CallError::Timeout, nothing_came: true })
                if may_be_reused && began.elapsed() < TIMEOUT =>
            {
                let left = TIMEOUT.saturating_sub(began.elapsed());
                send(&self.fresh, call, left).await
            }
            reply => reply,
        };
        if reply.is_ok() {
            *self.answered() = Some(Instant::now());
        }
        reply.map_err(|failed| failed.error)
    }

    fn answered(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failed call, and whether no head of an answer arrived.
struct Failed {
    error: CallError,
    nothing_came: bool,
}

async fn send(client: &reqwest::Client, call: &Request, timeout: Duration) -> Result<Reply, Failed> {
    let failed = |nothing_came| move |error: reqwest::Error| Failed { error: classify(&error), nothing_came };
    // Only a streamed body cannot be sent twice.
    let unsendable = Failed { error: CallError::Unsendable, nothing_came: false };
    let request = RequestBuilder::from_parts(client.clone(), call.try_clone().ok_or(unsendable)?);
    // Not every edge server respects the second header, so gzip is read anyway.
    let request = request.header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "identity");
    let mut response = request.timeout(timeout).send().await.map_err(failed(true))?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed(false))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Failed { error: CallError::TooLarge, nothing_came: false });
        }
        body.extend_from_slice(&chunk);
    }
    let headers = std::mem::take(response.headers_mut());
    let body = decoded(body.freeze(), headers.get(CONTENT_ENCODING))
        .map_err(|error| Failed { error, nothing_came: false })?;
    Ok(Reply { status: response.status().as_u16(), headers, body })
}

/// The body as it was before an edge server compressed it, within the bound of any body.
fn decoded(body: Bytes, encoding: Option<&HeaderValue>) -> Result<Bytes, CallError> {
    let encoding = encoding.map_or(&b"identity"[..], HeaderValue::as_bytes);
    if encoding.eq_ignore_ascii_case(b"identity") {
        return Ok(body);
    }
    if !encoding.eq_ignore_ascii_case(b"gzip") {
        return Err(CallError::Encoded);
    }
    let mut plain = Vec::new();
    let read = GzDecoder::new(&*body).take(MAX_BODY as u64 + 1).read_to_end(&mut plain);
    match read {
        Err(_) => Err(CallError::Encoded),
        Ok(length) if length > MAX_BODY => Err(CallError::TooLarge),
        Ok(_) => Ok(plain.into()),
    }
}

fn classify(error: &reqwest::Error) -> CallError {
    if error.is_connect() {
        CallError::Connect(match NoConnection::of(error) {
            // The type of the client's own timeout error is private.
            NoConnection::Other if error.is_timeout() => NoConnection::TimedOut,
            cause => cause,
        })
    } else if error.is_timeout() {
        CallError::Timeout
    } else if is_no_http(error) {
        CallError::NotHttp
    } else {
        CallError::Broken
    }
}

/// Whether the answer cannot be read as HTTP, such as the alert of a TLS server.
fn is_no_http(error: &reqwest::Error) -> bool {
    let mut said = error.source();
    while let Some(error) = said {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        said = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use tokio::time::Instant;
    use url::Url;

    use super::*;

    /// Time that passes only while nothing else can happen shows how long the call waits, and takes none.
    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_never_answers_is_given_up_in_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", silent.local_addr().unwrap())).unwrap();
        let began = Instant::now();
        let call = Request::new(Method::GET, url);
        assert_eq!(Client::new().unwrap().send(&call).await.unwrap_err(), CallError::Timeout);
        assert!(began.elapsed() <= TIMEOUT + Duration::from_millis(2), "{:?}", began.elapsed());
    }
}
