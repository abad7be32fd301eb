//! TLS on the listeners: the server certificate, and the check of client certificates.
//!
//! TLS secures the connection between a proxy or an operator and holdfast on different machines. The client
//! certificate decides once for each connection whether the client may ask at all. It says nothing about the
//! user of a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::x509::X509;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};
use tokio_rustls::server::TlsStream;
use tracing::warn;

use crate::clock::Timestamp;
use crate::private_file::{self, PrivateFileError};

/// The longest file of certificates or keys that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// `[auth.tls]`, `[admin.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The table, for messages: `auth.tls` or `admin.tls`.
    pub table: &'static str,
    /// `certificate`: the certificate chain in PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// `key`: the private key of the certificate, in PEM, in a private file.
    pub key: PathBuf,
    /// `client_ca`: the CAs, in PEM. One of them must have signed the client's certificate. Without this
    /// setting, anybody who can reach the port may ask.
    pub client_ca: Option<PathBuf>,
    /// `handshake_timeout`: how long a client may take for the TLS handshake. Default 5 s.
    pub handshake_timeout: Duration,
}

/// The server side of TLS, ready to accept connections.
pub struct ServerTls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
    expires: String,
    expires_at: Option<Timestamp>,
    verifies_clients: bool,
}

/// Why TLS cannot be set up with these settings.
#[derive(Debug, Error)]
#[error("{table}.{key}: {} {problem}", file.display())]
pub struct TlsError {
    /// The table of the setting.
    pub table: &'static str,
    /// The setting.
    pub key: &'static str,
    /// The file that it names.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: TlsProblem,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum TlsProblem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A key file that is not private, or cannot be read.
    #[error("{0}")]
    Private(#[from] PrivateFileError),
    /// The file is not PEM, or does not contain the wanted item.
    #[error("holds no usable {wanted} in PEM: {error}")]
    Pem {
        /// The wanted item.
        wanted: &'static str,
        /// The error of the PEM reader.
        error: pem::Error,
    },
    /// A certificate or key that TLS cannot use, or a certificate and a key that do not match.
    #[error("cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// CAs that cannot be used.
    #[error("cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl ServerTls {
    /// Reads certificate, key and CAs, and checks that certificate and key match.
    ///
    /// # Errors
    /// [`TlsError`], which names the setting and the file.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let at = |key, file: &Path| {
            let file = file.to_owned();
            move |problem| TlsError { table: settings.table, key, file, problem }
        };
        let chain = certificates(&settings.certificate).map_err(at("certificate", &settings.certificate))?;
        let key = private_key(&settings.key).map_err(at("key", &settings.key))?;
        let (expires, expires_at) = expires(&chain, settings);
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| at("certificate", &settings.certificate)(error.into()))?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = roots(file).map_err(at("client_ca", file))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| at("client_ca", file)(TlsProblem::from(error)))?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| at("key", &settings.key)(TlsProblem::from(error)))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshake_timeout: settings.handshake_timeout,
            expires,
            expires_at,
            verifies_clients: settings.client_ca.is_some(),
        })
    }

    /// When the certificate expires, as text for people.
    #[must_use]
    pub fn expires(&self) -> &str {
        &self.expires
    }

    /// When the certificate expires; `None` if that cannot be read.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether every client of an accepted connection has shown a certificate of `client_ca`.
    #[must_use]
    pub const fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    /// Does the TLS handshake on a connection. A client that is silent or slow is dropped after
    /// `handshake_timeout`, so that it does not occupy a connection slot.
    ///
    /// # Errors
    /// When the client does not speak TLS 1.2 or 1.3, presents no certificate although one is required, or
    /// takes too long.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        tokio::time::timeout(self.handshake_timeout, self.acceptor.accept(stream))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let wanted = |error| TlsProblem::Pem { wanted: "certificate", error };
    let bytes = read(file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(wanted)?;
    if chain.is_empty() { Err(wanted(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let bytes = private_file::read(file, MAX_FILE_BYTES)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| TlsProblem::Pem { wanted: "private key without a passphrase", error })
}

fn roots(file: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(file)?, MAX_FILE_BYTES), &mut bytes)?;
    Ok(bytes)
}

/// The expiry of the server certificate, as text and as a time. Logs a warning if it has expired. The
/// certificate is used anyway, because refusing it would also be an outage.
fn expires(chain: &[CertificateDer<'_>], settings: &TlsSettings) -> (String, Option<Timestamp>) {
    let Some(own) = chain.first().and_then(|own| X509::from_der(own).ok()) else {
        return ("unknown".to_owned(), None);
    };
    if Asn1Time::days_from_now(0).is_ok_and(|now| own.not_after() < now) {
        let file = settings.certificate.display();
        warn!("{}.certificate: {file} has expired: {}", settings.table, own.not_after());
    }
    (own.not_after().to_string(), timestamp(own.not_after()))
}

/// `None` for a time before 1970.
fn timestamp(at: &Asn1TimeRef) -> Option<Timestamp> {
    let since_1970 = Asn1Time::from_unix(0).ok()?.diff(at).ok()?;
    let secs = i64::from(since_1970.days) * 86_400 + i64::from(since_1970.secs);
    u64::try_from(secs).ok().map(Timestamp::from_secs)
}
