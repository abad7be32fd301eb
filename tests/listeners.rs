//! Sockets: who may connect to them, how many at once, and what is not accepted as a request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use support::{PATIENCE, exchange, exchange_unix};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

struct Scene {
    service: Service,
    socket: PathBuf,
    _directory: TempDir,
}

impl Scene {
    /// A service on a TCP port and a unix socket; `auth` are further lines of `[auth]`.
    async fn set(auth: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("auth.sock");
        let text = format!(
            "[auth]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n{auth}\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\n\
             url = \"http://127.0.0.1:9/\"\naudience = [\"a\"]\n",
            socket.display()
        );
        let service = Service::start(Source::text("test.toml", &text), Clock::system()).await.unwrap();
        Self { service, socket, _directory: directory }
    }
}

/// How many waiting connections this machine allows at most.
fn somaxconn() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(128)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_connections_waits_in_line_and_none_is_dropped() {
    // One is being served, for as long as this test likes; all others have to wait.
    let scene = Scene::set("max_connections = 1\nidle_timeout = \"1h\"").await;
    let burst = 600.min(somaxconn());
    let address = scene.service.auth_addresses()[0].clone();
    let mut waiting = Vec::new();
    for number in 0..burst {
        // A kernel with a full line lets a client on TCP try again and again, in vain, and refuses one on a
        // unix socket.
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(&address)).await;
        waiting
            .push(connected.unwrap_or_else(|_| panic!("connection {number} found the line full")).unwrap());
    }
    let mut waiting = Vec::new();
    for number in 0..burst {
        let connected = UnixStream::connect(&scene.socket).await;
        waiting.push(connected.unwrap_or_else(|error| panic!("connection {number}: {error}")));
    }
}

fn access(path: &Path) -> (u32, u32) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.permissions().mode() & 0o7777, metadata.gid())
}

/// Otherwise a client that sends requests and reads no answer would keep the only place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answers_loses_its_place() {
    let scene = Scene::set("max_connections = 1\nidle_timeout = \"1s\"").await;
    let requests = b"GET /auth HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    let mut silent = TcpStream::connect(&scene.service.auth_addresses()[0]).await.unwrap();
    let until_it_is_closed = async { while silent.write_all(&requests).await.is_ok() {} };
    let closed = tokio::time::timeout(PATIENCE, until_it_is_closed).await;
    assert!(closed.is_ok(), "the connection is still there");
    let mut silent = UnixStream::connect(&scene.socket).await.unwrap();
    let until_it_is_closed = async { while silent.write_all(&requests).await.is_ok() {} };
    let closed = tokio::time::timeout(PATIENCE, until_it_is_closed).await;
    assert!(closed.is_ok(), "the connection is still there");
    let one = b"GET /auth HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let stream = TcpStream::connect(&scene.service.auth_addresses()[0]).await.unwrap();
    assert_eq!(exchange(stream, one).await.status, 401);
    assert_eq!(exchange_unix(&scene.socket, one).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_has_the_permissions_and_the_group_that_are_configured() {
    let scene = Scene::set("").await;
    assert_eq!(access(&scene.socket).0, 0o660);
    let own = access(&scene.socket).1;
    assert_eq!(access(&Scene::set("socket_mode = \"600\"").await.socket), (0o600, own));
    // Only root may give a file to a group of which it is no member.
    let group = if std::fs::metadata("/proc/self").unwrap().uid() == 0 { 4242 } else { own };
    let scene = Scene::set(&format!("socket_mode = \"620\"\nsocket_group = \"{group}\"")).await;
    assert_eq!(access(&scene.socket), (0o620, group));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_somebody_uses_is_left_alone_and_one_that_was_left_behind_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let start = async |socket: &Path| {
        let text = format!(
            "[auth]\nlisten = \"unix:{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\n\
             url = \"http://127.0.0.1:9/\"\naudience = [\"a\"]\n",
            socket.display()
        );
        Service::start(Source::text("test.toml", &text), Clock::system())
            .await
            .map_err(|error| error.to_string())
    };
    let _datagrams = std::os::unix::net::UnixDatagram::bind(at("datagrams")).unwrap();
    // Nothing accepts, and its queue is full.
    let full = tokio::net::UnixSocket::new_stream().unwrap();
    full.bind(at("full")).unwrap();
    let _full = full.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(connection) = UnixStream::connect(at("full")).await {
        waiting.push(connection);
    }
    for name in ["datagrams", "full"] {
        let inode = std::fs::metadata(at(name)).unwrap().ino();
        let said = start(&at(name)).await.err().unwrap();
        assert!(said.contains("it is left alone"), "{said}");
        assert_eq!(std::fs::metadata(at(name)).unwrap().ino(), inode);
    }
    let left = at("left");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let _service = start(&left).await.map_err(|said| panic!("{said}"));
    let one = b"GET /auth HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange_unix(&left, one).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_protocol_line_is_no_request() {
    let scene = Scene::set("trusted_peers = [\"127.0.0.1\", \"unix\"]\nforwarded = \"x-forwarded\"").await;
    let request = b"GET /auth HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let first = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n".to_vec();
    let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02".to_vec();
    for line in [first, second] {
        let bytes = [&line[..], request].concat();
        let stream = TcpStream::connect(&scene.service.auth_addresses()[0]).await.unwrap();
        assert_eq!(exchange(stream, &bytes).await.status, 400);
        assert_eq!(exchange_unix(&scene.socket, &bytes).await.status, 400);
    }
}
