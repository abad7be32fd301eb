//! The floor: a bare hyper server with hyper's own settings that answers everything with the headers of an
//! identity. It listens as holdfast does, in a process of its own, and says so in the same words.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const HEADERS: [(&str, &str); 7] = [
    ("x-user-email", "alice@example.com"),
    ("x-user-id", "auth0|00000001"),
    ("x-auth-tier", "primary"),
    ("x-user-email-encoding", "none"),
    ("x-auth-source", "claims"),
    ("x-auth-age", "0"),
    ("cache-control", "no-store"),
];

/// Serves until it is killed. The directory has the certificate and gets the unix socket.
pub fn serve(directory: &Path) {
    let threads = std::env::var("TOKIO_WORKER_THREADS").unwrap().parse().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = directory.join("floor.sock");
        let (tcp, tls) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let unix = UnixListener::bind(&socket).unwrap();
        let chain = CertificateDer::from_pem_file(directory.join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = tcp.local_addr().unwrap();
        eprintln!("auth listener on {address} ");
        eprintln!("auth listener on unix:{} ", socket.display());
        eprintln!("auth listener on tls:{} ", tls.local_addr().unwrap());
        eprintln!("admin listener on {address} ");
        tokio::spawn(async move {
            while let Ok((stream, _)) = unix.accept().await {
                tokio::spawn(connection(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                stream.set_nodelay(true).unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move { connection(acceptor.accept(stream).await.unwrap()).await });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(connection(stream));
            }
        })
        .await
        .unwrap();
    });
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

/// With the request's map of headers, so that nothing is allocated for one.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut headers = std::mem::take(request.headers_mut());
    headers.clear();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut response = Response::new(Empty::new());
    *response.headers_mut() = headers;
    Ok(response)
}
