//! What is measured, and the floor it is measured against: a holdfast in this process with a dev tenant for
//! its issuer, and a bare hyper server with the same settings that says 200 to everything.
//!
//! Shared by the benches and by the tests that count what the benches time.

#![allow(dead_code, reason = "each user uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be set up has no result")]

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::{Options, Tenant};
use http_body_util::Empty;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// As in `server::listener`, so that the floor has the same to do.
const MAX_HEAD_BYTES: usize = 128 * 1024;
const MAX_HEADER_LINES: usize = 256;
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// An issuer with a runtime of its own, and the directory with the decryption key that holdfast is given.
pub struct Scene {
    pub tenant: Tenant,
    directory: TempDir,
    runtime: Runtime,
}

impl Scene {
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tenant = runtime.block_on(Tenant::start(Options::default())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.path().join("key.pem"))
            .unwrap();
        file.write_all(tenant.jwe_private_key_pem().as_bytes()).unwrap();
        Self { tenant, directory, runtime }
    }

    /// A token with all that an answer needs, so that `/userinfo` is never asked about it.
    pub fn token(&self) -> String {
        self.tenant.mint().subject("auth0|alice").email_direct("alice@example.com").build().unwrap()
    }

    /// The configuration: free ports, one decryption key.
    pub fn source(&self) -> Source {
        Source::text("holdfast.toml", &self.config())
    }

    /// The same as the text of a file.
    pub fn config(&self) -> String {
        format!(
            "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\ndecryption_keys = [\"{}\"]\n",
            self.tenant.issuer(),
            self.tenant.audience(),
            self.directory.path().join("key.pem").display(),
        )
    }

    /// holdfast on the current runtime.
    pub async fn holdfast(&self) -> (Service, SocketAddr) {
        let service = Service::start(self.source(), Clock::system()).await.unwrap();
        let address = service.auth_addresses()[0].parse().unwrap();
        (service, address)
    }

    /// The tenant's public keys.
    pub fn jwks(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.tenant.address()).unwrap();
        let request = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: tenant\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        answer.split_off(head + 4)
    }
}

/// The floor on the current runtime: hyper as holdfast sets it up, and a 200 made of nothing.
pub async fn bare_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_headers(MAX_HEADER_LINES)
            .max_buf_size(MAX_HEAD_BYTES);
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A client with one kept-alive connection that hides nothing.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, buffer: vec![0; 4096] }
    }

    /// Sends `request` and gives the status of the answer, which must have no body.
    pub fn ask(&mut self, request: &[u8]) -> u16 {
        self.exchange(request);
        let status = std::str::from_utf8(&self.buffer[9..12]).unwrap();
        status.parse().unwrap()
    }

    /// The same, and gives all of the answer.
    pub fn ask_for_all(&mut self, request: &[u8]) -> String {
        let length = self.exchange(request);
        String::from_utf8_lossy(&self.buffer[..length]).into_owned()
    }

    fn exchange(&mut self, request: &[u8]) -> usize {
        self.stream.write_all(request).unwrap();
        let mut length = 0;
        while !self.buffer[..length].ends_with(b"\r\n\r\n") {
            let read = self.stream.read(&mut self.buffer[length..]).unwrap();
            assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&self.buffer[..length]));
            length += read;
        }
        length
    }

    /// Asks until the answer is 200: a service that just started fetches its keys first.
    pub fn warm_up(&mut self, request: &[u8]) {
        for _ in 0..500 {
            if self.ask(request) == 200 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no 200 within 5 s");
    }
}

/// What a proxy sends about a request with this token.
pub fn request(token: &str) -> Vec<u8> {
    format!("GET /auth HTTP/1.1\r\nHost: holdfast\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// A JWE that costs an RSA decryption and is nothing: the most expensive thing that anybody can send. Each
/// number makes another one.
pub fn forged_jwe(number: u64) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut sealed_key = [0x5a; 256];
    sealed_key[0] = 0; // below the modulus, or it would be refused without the work
    sealed_key[248..].copy_from_slice(&number.to_be_bytes());
    let header = part(br#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#);
    [header, part(&sealed_key), part(&[1; 12]), part(&[2; 300]), part(&[3; 16])].join(".")
}
