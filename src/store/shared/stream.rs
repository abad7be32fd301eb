//! Opens the connection to Redis: TCP, TLS, or a unix socket.
//!
//! The client library cannot be used for this, because the bound on replies ([`super::framing`]) is applied
//! to the stream.

use std::io;
use std::sync::Arc;

use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects there.
pub(super) async fn connect(address: &ConnectionAddr) -> io::Result<Box<dyn Stream>> {
    match address {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let config = tokio::task::spawn_blocking(tls).await.map_err(io::Error::other)??;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp(host, *port).await?).await?;
            Ok(Box::new(stream))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "an address of an unknown type")),
    }
}

/// Tries all addresses of the host at once, so that an unreachable one does not delay the others.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut attempts: JoinSet<_> = lookup_host((host, port)).await?.map(TcpStream::connect).collect();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt.map_err(io::Error::other).and_then(|connected| connected) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Trusts the system's authorities, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`. Reads files.
fn tls() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if let (true, Some(error)) = (roots.is_empty(), found.errors.into_iter().next()) {
        return Err(io::Error::other(error));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
