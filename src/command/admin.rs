//! The client of the running holdfast's admin listener.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use holdfast::admin_token::{AdminToken, AdminTokenError};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use thiserror::Error;

/// The admin listener of a holdfast that may be running.
pub struct Admin {
    client: Client,
    address: SocketAddr,
    token: Option<HeaderValue>,
}

/// Why the running holdfast did not answer.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No process listens there.
    #[error(
        "no holdfast answers on its admin listener {0}: is it running, and is --admin or admin.listen its address?"
    )]
    NotThere(SocketAddr),
    /// It listens, but does not answer.
    #[error("the admin listener {address} did not answer: {problem}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        problem: String,
    },
    /// The token for orders cannot be read.
    #[error("{0}")]
    Token(#[from] AdminTokenError),
    /// It runs with another configuration than the command.
    #[error(
        "the holdfast at {address} has {what} than this configuration, so nothing was asked of it: name the right address \
         with --admin, or its own configuration with --config; if the file was changed since, SIGHUP makes it read that; \
         --any-instance asks it all the same"
    )]
    Another {
        /// The address.
        address: SocketAddr,
        /// What differs.
        what: &'static str,
    },
    /// It refuses.
    #[error("{status}: {body}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The body of its answer.
        body: String,
    },
}

impl Admin {
    /// The listener at `address`.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn at(address: SocketAddr) -> Result<Self, reqwest::Error> {
        // A purge reads every verdict on the disk.
        Self::patient(address, Duration::from_secs(120))
    }

    /// Like [`Admin::at`], with the timeout `patience` for an answer.
    ///
    /// # Errors
    /// As [`Admin::at`].
    pub fn patient(address: SocketAddr, patience: Duration) -> Result<Self, reqwest::Error> {
        // A request to a loopback address never goes through a proxy.
        let client = Client::builder().no_proxy().timeout(patience).build()?;
        Ok(Self { client, address, token: None })
    }

    /// Adds the token that orders need.
    ///
    /// # Errors
    /// The token's file cannot be read.
    pub fn with_token(mut self, file: Option<&Path>) -> Result<Self, AdminTokenError> {
        self.token = file.map(AdminToken::load).transpose()?.and_then(|token| token.to_header());
        Ok(self)
    }

    /// Gets `path`, and returns the body.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn get(&self, path: &str) -> Result<String, AdminError> {
        Ok(self.answer(self.with_own_token(self.client.get(self.url(path))).send().await).await?.1)
    }

    /// Posts this JSON to `path`, and returns the body of the answer.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn post(&self, path: &str, json: String) -> Result<String, AdminError> {
        Ok(self.order(path, json).await?.1)
    }

    /// Like [`Admin::post`], and returns the status too, which is a 2xx.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn order(&self, path: &str, json: String) -> Result<(StatusCode, String), AdminError> {
        let request = self.client.post(self.url(path)).header("content-type", "application/json").body(json);
        self.answer(self.with_own_token(request).send().await).await
    }

    fn with_own_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn answer(
        &self,
        answer: Result<Response, reqwest::Error>,
    ) -> Result<(StatusCode, String), AdminError> {
        let failed = |error: reqwest::Error| match error.is_connect() {
            true => AdminError::NotThere(self.address),
            false => AdminError::Failed { address: self.address, problem: error.without_url().to_string() },
        };
        let answer = answer.map_err(failed)?;
        let status = answer.status();
        let body = answer.text().await.map_err(failed)?;
        if status.is_success() {
            Ok((status, body))
        } else {
            Err(AdminError::Refused { status, body: body.trim_end().to_owned() })
        }
    }
}
