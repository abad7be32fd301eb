//! The echo backend tells exactly what it received.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use holdfast_devtenant::EchoBackend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn exchange(backend: &EchoBackend, bytes: &str) -> String {
    let mut stream = TcpStream::connect(backend.address()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn backend() -> EchoBackend {
    EchoBackend::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn headers_come_back_in_order_with_their_case_and_their_duplicates() {
    let backend = backend().await;
    let request = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-User: one\r\nconnection: close\r\nx-user:two\r\nX-User: \r\n\r\n";
    let answer = exchange(&backend, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    let page = "GET /a?b=c HTTP/1.1\nHost: x\nX-User: one\nconnection: close\nx-user:two\nX-User: \n\nbody: 0 bytes\n";
    assert!(answer.ends_with(&format!("\r\n\r\n{page}")), "{answer}");
    assert_eq!(backend.last_request().as_deref(), Some(page));
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn one_connection_carries_many_requests_with_bodies_of_every_kind() {
    let backend = backend().await;
    let requests = "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
                    POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n\
                    HEAD /3 HTTP/1.1\r\n\r\n\
                    GET /4 HTTP/1.0\r\n\r\n";
    let answer = exchange(&backend, requests).await;
    assert_eq!(backend.requests(), 4);
    let bodies: Vec<_> = answer.lines().filter(|line| line.starts_with("body: ")).collect();
    assert_eq!(bodies, ["body: 5 bytes", "body: 7 bytes", "body: 0 bytes"], "HEAD has none");
    assert!(answer.contains("GET /4 HTTP/1.0\n"));
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_is_not_counted() {
    let backend = backend().await;
    assert_eq!(exchange(&backend, "POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n").await, "");
    assert_eq!(exchange(&backend, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await, "");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_stops() {
    assert!(EchoBackend::start("0.0.0.0:0".parse().unwrap()).await.is_err());
    let backend = backend().await;
    let address = backend.address();
    backend.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn whoever_asks_for_a_tunnel_gets_one() {
    let backend = backend().await;
    for (head, answer, upgrade) in [
        (
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            "101 Switching Protocols",
            "websocket",
        ),
        ("GET / HTTP/1.1\r\nUpgrade: websocket, h2c\r\n", "101 Switching Protocols", "h2c"),
        ("CONNECT x:80 HTTP/1.1\r\n", "200 Connected", ""),
    ] {
        let mut stream = TcpStream::connect(backend.address()).await.unwrap();
        stream.write_all(format!("{head}\r\nto and fro").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert!(
            got.starts_with(&format!("HTTP/1.1 {answer}\r\n")) && got.ends_with("\r\n\r\nto and fro"),
            "{got}"
        );
        assert!(upgrade.is_empty() || got.contains(&format!("\r\nUpgrade: {upgrade}\r\n")), "{got}");
    }
    assert_eq!(backend.requests(), 3);
}
