//! What edge servers in front of an issuer do to connections and bodies, and the messages of failed calls.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use holdfast::issuer::cause::NoConnection;
use holdfast::issuer::client::{CallError, Client};
use holdfast::issuer::userinfo;
use reqwest::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use url::Url;

/// What an edge does with the request of this number, on the connection of this number; both count from 1.
type Does = fn(usize, usize) -> Act;

enum Act {
    /// Answers, and keeps the connection.
    Answer,
    /// Answers, and closes the connection without having said so.
    AnswerAndClose,
    /// Closes the connection instead of an answer.
    Close,
    /// Resets it.
    Reset,
    /// Says something that is not HTTP: the alert of a TLS server that got no handshake.
    Alert,
}

struct Edge {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Edge {
    async fn start(does: Does) -> Self {
        Self::answering(does, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()).await
    }

    async fn answering(does: Does, answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, kept) = (connections.clone(), heads.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = counted.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(stream, connection, does, answer.clone(), kept.clone()));
            }
        });
        Self { address, connections, heads }
    }

    fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    does: Does,
    answer: Vec<u8>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    for request in 1.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        match does(connection, request) {
            Act::Answer => stream.write_all(&answer).await.unwrap(),
            Act::AnswerAndClose => return stream.write_all(&answer).await.unwrap(),
            Act::Close => return,
            Act::Alert => return stream.write_all(b"\x15\x03\x01\x00\x02\x02\x0a").await.unwrap(),
            Act::Reset => return stream.set_zero_linger().unwrap(),
        }
    }
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_costs_no_call() {
    let dies: [Does; 3] = [
        |connection, request| if (connection, request) == (1, 2) { Act::Close } else { Act::Answer },
        |connection, request| if (connection, request) == (1, 2) { Act::Reset } else { Act::Answer },
        |connection, _| if connection == 1 { Act::AnswerAndClose } else { Act::Answer },
    ];
    for does in dies {
        let edge = Edge::start(does).await;
        let client = Client::new().unwrap();
        for _ in 0..4 {
            assert_eq!(client.send(&get(&edge.url())).await.unwrap().status, 200);
        }
        assert!(edge.connections() >= 2);
    }
}

/// A peer that takes nothing more is to the kernel as one that is gone: what was sent stays unacknowledged.
#[tokio::test]
async fn a_peer_that_went_away_in_silence_costs_no_call() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(16).unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            silent.push(stream);
        }
    });
    let client = Client::new().unwrap();
    assert_eq!(client.send(&get(&url)).await.unwrap().status, 200);
    let longer_than_the_window = "x".repeat(128 * 1024);
    let call = userinfo::call(&url, &longer_than_the_window).unwrap();
    assert_eq!(client.send(&call).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_call_is_made_twice_at_most_and_not_at_all_again_where_no_connection_was_kept() {
    let edge = Edge::start(|_, _| Act::Close).await;
    let client = Client::new().unwrap();
    assert_eq!(client.send(&get(&edge.url())).await.unwrap_err(), CallError::Broken);
    assert_eq!(edge.heads.lock().unwrap().len(), 1);

    let edge = Edge::start(|_, request| if request == 1 { Act::Answer } else { Act::Close }).await;
    let first = Edge::start(|_, _| Act::Answer).await;
    client.send(&get(&first.url())).await.unwrap();
    assert_eq!(client.send(&get(&edge.url())).await.unwrap().status, 200);
    assert_eq!(client.send(&get(&edge.url())).await.unwrap().status, 200, "on a fresh connection");
    assert_eq!(edge.heads.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_call_says_what_it_takes_and_who_makes_it() {
    let edge = Edge::start(|_, _| Act::Answer).await;
    Client::new().unwrap().send(&userinfo::call(&edge.url(), "token").unwrap()).await.unwrap();
    let head = edge.heads.lock().unwrap()[0].to_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        "accept: application/json",
        "accept-encoding: identity",
        "authorization: bearer token",
        &format!("user-agent: holdfast/{version}"),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }
}

/// A call without a credential.
fn get(url: &Url) -> Request {
    Request::new(Method::GET, url.clone())
}

fn compressed(encoding: &str, plain: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(plain).unwrap();
    let body = gzip.finish().unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn a_body_that_an_edge_compressed_unasked_is_read_within_its_bound() {
    for (encoding, plain, expected) in [
        ("gzip", b"{\"keys\":[]}".to_vec(), Ok("{\"keys\":[]}")),
        ("GZIP", b"{}".to_vec(), Ok("{}")),
        ("br", b"{}".to_vec(), Err(CallError::Encoded)),
        ("gzip", vec![b' '; 65_537], Err(CallError::TooLarge)),
    ] {
        let edge = Edge::answering(|_, _| Act::Answer, compressed(encoding, &plain)).await;
        let reply = Client::new().unwrap().send(&get(&edge.url())).await;
        let body = reply.map(|reply| String::from_utf8(reply.body.to_vec()).unwrap());
        assert_eq!(body.as_deref().map_err(|error| *error), expected, "{encoding}");
    }
    let broken = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let edge = Edge::answering(|_, _| Act::Answer, broken).await;
    assert_eq!(Client::new().unwrap().send(&get(&edge.url())).await.unwrap_err(), CallError::Encoded);
}

#[tokio::test]
async fn a_call_without_a_connection_says_why() {
    let client = Client::new().unwrap();
    let cause = async |url: &str| match client.send(&get(&url.parse().unwrap())).await.unwrap_err() {
        CallError::Connect(cause) => cause,
        other => panic!("{url}: {other:?}"),
    };
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    assert_eq!(cause(&format!("http://{free}/")).await, NoConnection::Refused);
    assert_eq!(cause("https://nowhere.invalid/").await, NoConnection::NameNotFound);
    // An edge that speaks HTTP answers a TLS handshake with an error in HTTP.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        assert_ne!(stream.read(&mut hello).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut hello).await;
    });
    assert_eq!(cause(&format!("https://{plain}/")).await, NoConnection::NoTls);
}

#[tokio::test]
async fn a_port_that_takes_no_connection_and_one_that_speaks_no_http_are_told_apart() {
    let client = Client::new().unwrap();
    let edge = Edge::start(|_, _| Act::Alert).await;
    assert_eq!(client.send(&get(&edge.url())).await.unwrap_err(), CallError::NotHttp);
    // With its queue full, the kernel answers no more attempts to connect.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let _queued: Vec<_> = (0..4).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    let mut error = client.send(&get(&format!("http://{address}/").parse().unwrap())).await.unwrap_err();
    if error == CallError::Timeout {
        // The one that still found a place in the queue.
        error = client.send(&get(&format!("http://{address}/").parse().unwrap())).await.unwrap_err();
    }
    assert_eq!(error, CallError::Connect(NoConnection::TimedOut));
    // Takes the connection, and then never answers the handshake of TLS.
    let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let error = client.send(&get(&url.parse().unwrap())).await.unwrap_err();
    assert_eq!(error, CallError::Connect(NoConnection::TimedOut));
}
