//! A client that closes its half of the connection after its request, as some health checkers and HTTP/1.0
//! tools do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault};
use support::service::{Running, issuer, tenant};
use support::{PATIENCE, Reply, parse, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Asks, closes its half, and reads what comes.
async fn half_close(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Option<Reply> {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    parse(&String::from_utf8_lossy(&bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_half_closes_after_its_request_gets_its_answer_and_then_the_end() {
    let tenant = tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("auth.sock");
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", socket.display());
    let clock = Clock::system();
    let running = Running::start_with_auth(&listen, &issuer(&tenant, ""), clock).await;
    // The answer is not there yet when the half is closed.
    tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_millis(200)));
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for kept in ["", "Connection: keep-alive\r\n"] {
            let token = || tenant.mint().opaque().build().unwrap();
            let request = |token: String| {
                format!("GET /auth {version}\r\nHost: h\r\n{kept}Authorization: Bearer {token}\r\n\r\n")
            };
            let stream = TcpStream::connect(running.auth).await.unwrap();
            let reply = half_close(stream, &request(token())).await;
            assert_eq!(reply.map(|reply| reply.status), Some(200), "{version} {kept}");
            let stream = UnixStream::connect(&socket).await.unwrap();
            let reply = half_close(stream, &request(token())).await;
            assert_eq!(reply.map(|reply| reply.status), Some(200), "{version} {kept} on the unix socket");
        }
    }
    let stream = TcpStream::connect(running.admin).await.unwrap();
    let reply = half_close(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(reply.map(|reply| reply.status), Some(200));
    // Half a request is none.
    let stream = TcpStream::connect(running.auth).await.unwrap();
    assert!(
        half_close(stream, "GET /auth HTTP/1.1\r\nHost: h\r\n").await.is_none_or(|reply| reply.status == 400)
    );
}

/// Its place is free again once its answer is there, as if it had stayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_while_it_waits_gives_its_place_back() {
    let tenant = tenant().await;
    let auth = "max_connections = 1\nidle_timeout = \"1h\"";
    let running = Running::start_with_auth(auth, &issuer(&tenant, ""), Clock::system()).await;
    tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_millis(200)));
    let token = tenant.mint().opaque().build().unwrap();
    let asked = tenant.calls().userinfo;
    let mut gone = TcpStream::connect(running.auth).await.unwrap();
    let request = format!("GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    gone.write_all(request.as_bytes()).await.unwrap();
    until("its question", async || (tenant.calls().userinfo > asked).then_some(())).await;
    drop(gone);
    assert_eq!(running.ask(&token).await.status, 200);
}
