//! One pooled HTTP client for all calls to issuers, with every bound that a call must have.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect;
use thiserror::Error;
use url::Url;

/// How long it may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a whole call may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer that is read, in bytes. Auth0's are under 10 KiB.
const MAX_BODY: usize = 64 * 1024;

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers, for what they say of rate limits.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// Why nothing usable came back. Never holds the request, and so no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// No connection: refused, unreachable, no such host, or TLS failed.
    #[error("no connection to the issuer (refused, unreachable, name not found, or TLS failed)")]
    Connect,
    /// It took longer than a call may take.
    #[error("the issuer did not answer in time")]
    Timeout,
    /// The answer is longer than 64 KiB.
    #[error("the issuer's answer is longer than 64 KiB")]
    TooLarge,
    /// The connection broke, or what came is not HTTP.
    #[error("the connection to the issuer broke before its answer was complete")]
    Broken,
    /// The token cannot be sent in a header.
    #[error("the token cannot be sent in a header")]
    Unsendable,
}

impl CallError {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
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
pub struct Client(reqwest::Client);

impl Client {
    /// A client with a pool of its own. It goes through no proxy, follows no redirect and keeps no cookie.
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub fn new() -> Result<Self, ClientError> {
        reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(16)
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(ClientError)
    }

    /// `GET url`, with `bearer` as the credential if there is one.
    ///
    /// # Errors
    /// [`CallError`]; an answer of any status is not an error here.
    pub async fn get(&self, url: &Url, bearer: Option<&str>) -> Result<Reply, CallError> {
        let mut request = self.0.get(url.clone()).header(ACCEPT, "application/json");
        if let Some(token) = bearer {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| CallError::Unsendable)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(CallError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Reply { status: response.status().as_u16(), headers, body: body.freeze() })
    }
}

fn classify(error: &reqwest::Error) -> CallError {
    if error.is_timeout() {
        CallError::Timeout
    } else if error.is_connect() {
        CallError::Connect
    } else {
        CallError::Broken
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Time that passes only while nothing else can happen shows how long the call waits, and takes none.
    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_never_answers_is_given_up_in_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", silent.local_addr().unwrap())).unwrap();
        let began = Instant::now();
        assert_eq!(Client::new().unwrap().get(&url, None).await.unwrap_err(), CallError::Timeout);
        assert!(began.elapsed() <= TIMEOUT + Duration::from_millis(2), "{:?}", began.elapsed());
    }
}
