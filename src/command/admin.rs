//! The client of the running holdfast's admin listener.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use holdfast::admin_token::{AdminToken, AdminTokenError};
use holdfast::config::{AdminClientSettings, AdminSettings};
use holdfast::private_file::{self, PrivateFileError};
use reqwest::header::{AUTHORIZATION, HOST, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, RequestBuilder, Response, StatusCode};
use thiserror::Error;
use tokio_rustls::rustls;

/// The longest key file that is read, in bytes.
const MAX_KEY_BYTES: u64 = 1024 * 1024;

/// The admin listener of a holdfast that may be running.
pub struct Admin {
    client: Client,
    address: SocketAddr,
    /// The base URL, to which a path is appended.
    base: String,
    token: Option<HeaderValue>,
}

/// Why the running holdfast did not answer.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No process listens at the address.
    #[error(
        "no holdfast answers on its admin listener {0}: is it running, and is --admin or admin.listen its \
         address?"
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
    /// The HTTP client cannot be created.
    #[error("the HTTP client cannot start: {0}")]
    Client(String),
    /// A file of `[admin.client]` cannot be used.
    #[error("admin.client.{key}: {} {problem}", file.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The token for operator requests cannot be read.
    #[error("{0}")]
    Token(#[from] AdminTokenError),
    /// The holdfast runs with another configuration than the command.
    #[error(
        "the holdfast at {address} has {what} than this configuration, so no order was sent: name the right \
         address with --admin, or its configuration with --config; if the file has changed since the start, \
         send SIGHUP; --any-instance sends the order anyway"
    )]
    Another {
        /// The address.
        address: SocketAddr,
        /// What differs.
        what: &'static str,
    },
    /// The holdfast refuses the request.
    #[error("{status}: {body}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The body of its answer.
        body: String,
    },
}

/// What is wrong with a file of `[admin.client]`.
#[derive(Debug, Error)]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A key file that is not private, or cannot be read.
    #[error("{0}")]
    Private(#[from] PrivateFileError),
    /// It does not contain what it should.
    #[error("cannot be used: {0}")]
    Unusable(String),
}

impl Admin {
    /// The listener of these settings.
    ///
    /// # Errors
    /// [`AdminError::File`], [`AdminError::Client`].
    pub fn at(settings: &AdminSettings) -> Result<Self, AdminError> {
        // A purge reads every verdict on the disk.
        Self::with_timeout(settings, Duration::from_secs(120))
    }

    /// Like [`Admin::at`], with this timeout for an answer.
    ///
    /// # Errors
    /// As [`Admin::at`].
    pub fn with_timeout(settings: &AdminSettings, timeout: Duration) -> Result<Self, AdminError> {
        let address = settings.listen;
        // A request to a loopback address never goes through a proxy.
        let mut builder = Client::builder().no_proxy().timeout(timeout);
        let mut base = format!("http://{address}");
        if settings.speaks_tls {
            builder = with_tls(builder, &settings.client)?.https_only(true);
            base = format!("https://{address}");
            if let Some(name) = &settings.client.server_name {
                builder = builder.resolve(name, address);
                base = format!("https://{name}:{}", address.port());
            }
        }
        let client = builder.build().map_err(|error| AdminError::Client(causes(&error)))?;
        Ok(Self { client, address, base, token: None })
    }

    /// Adds the token that operator requests need.
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
        let request = self.with_own_token(self.client.get(self.url(path)));
        Ok(self.answer(request.send().await).await?.1)
    }

    /// Posts this JSON to `path`, and returns the body of the answer.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn post(&self, path: &str, json: String) -> Result<String, AdminError> {
        Ok(self.post_for_status(path, json).await?.1)
    }

    /// Like [`Admin::post`], and returns the status too, which is a 2xx.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn post_for_status(
        &self,
        path: &str,
        json: String,
    ) -> Result<(StatusCode, String), AdminError> {
        let request = self.client.post(self.url(path)).header("content-type", "application/json").body(json);
        self.answer(self.with_own_token(request).send().await).await
    }

    fn with_own_token(&self, request: RequestBuilder) -> RequestBuilder {
        // The listener always accepts its address as `Host`.
        let request = request.header(HOST, self.address.to_string());
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn answer(
        &self,
        answer: Result<Response, reqwest::Error>,
    ) -> Result<(StatusCode, String), AdminError> {
        let failed = |error: reqwest::Error| match error.is_connect() && !is_of_tls(&error) {
            true => AdminError::NotThere(self.address),
            false => AdminError::Failed { address: self.address, problem: causes(&error.without_url()) },
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

/// Adds the CAs that are trusted, and the certificate that is shown.
fn with_tls(mut builder: ClientBuilder, settings: &AdminClientSettings) -> Result<ClientBuilder, AdminError> {
    let at = |key, file: &Path| {
        let file = file.to_owned();
        move |problem| AdminError::File { key, file, problem }
    };
    let unusable = |error: reqwest::Error| FileProblem::Unusable(causes(&error));
    if let Some(file) = &settings.ca {
        let pem = fs::read(file).map_err(FileProblem::from).map_err(at("ca", file))?;
        let trusted = Certificate::from_pem_bundle(&pem).map_err(unusable).map_err(at("ca", file))?;
        if trusted.is_empty() {
            return Err(at("ca", file)(FileProblem::Unusable("it holds no certificate in PEM".to_owned())));
        }
        builder = builder.tls_certs_only(trusted);
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        let mut pem =
            fs::read(certificate).map_err(FileProblem::from).map_err(at("certificate", certificate))?;
        pem.push(b'\n');
        pem.extend(
            private_file::read(key, MAX_KEY_BYTES).map_err(FileProblem::from).map_err(at("key", key))?,
        );
        builder = builder.identity(Identity::from_pem(&pem).map_err(unusable).map_err(at("key", key))?);
    }
    Ok(builder)
}

/// The text of an error with its causes.
fn causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        said = format!("{said}: {error}");
        next = error.source();
    }
    said
}

/// Whether TLS failed. Then somebody listens.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|error| is_of_tls(error))
        || error.source().is_some_and(is_of_tls)
}
