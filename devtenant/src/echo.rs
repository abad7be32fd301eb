//! A backend that answers with the request that it received.
//!
//! It has its own HTTP/1.1 reader, because HTTP libraries normalise headers: here each line comes back
//! exactly as it was received, in order, with its case and its duplicates. That shows whether a proxy passed
//! on a client's own identity header.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::error::TenantError;
use crate::lock;
use crate::serve::{self, Server};

/// The head of a request may be this long.
const MAX_HEAD: u64 = 256 * 1024;

/// A running echo backend; it stops when dropped.
///
/// Every request gets a 200 and a page of text: the request line, each header line as it was received, an
/// empty line, `body: N bytes`, and the trailer lines if there are any. An upgrade to any protocol gets a
/// 101, and `CONNECT` gets a 200. From then on every byte comes back, and frames are not interpreted. So a
/// proxy that passes an upgrade on has opened a tunnel.
#[derive(Debug)]
pub struct EchoBackend {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: Server,
}

#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    last: Mutex<Option<String>>,
}

impl EchoBackend {
    /// Starts a backend on the current tokio runtime.
    ///
    /// # Errors
    /// If the address is not loopback, or taken.
    pub async fn start(listen: SocketAddr) -> Result<Self, TenantError> {
        let (listener, address) = serve::listen(listen).await?;
        let seen = Arc::new(Seen::default());
        let server = Server::start(listener, {
            let seen = Arc::clone(&seen);
            move |stream| {
                let seen = Arc::clone(&seen);
                async move {
                    // A client that disconnects or sends invalid data only affects itself.
                    let _ = echo(stream, &seen).await;
                }
            }
        });
        Ok(Self { address, seen, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests were answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// The page that the last request got.
    #[must_use]
    pub fn last_request(&self) -> Option<String> {
        lock(&self.seen.last).clone()
    }

    /// Stops listening and cuts every connection.
    pub async fn stop(self) {
        self.server.close().await;
    }
}

async fn echo(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(head) = Head::read(&mut stream).await? {
        if head.has("expect", "100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let Body { length, trailers } = head.body(&mut stream).await?;
        let page = format!("{}\r\nbody: {length} bytes\n{trailers}", head.text).replace("\r\n", "\n");
        seen.requests.fetch_add(1, Ordering::SeqCst);
        *lock(&seen.last) = Some(page.clone());

        if let Some(answer) = head.tunnel() {
            stream.write_all(answer.as_bytes()).await?;
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy_buf(&mut BufReader::new(&mut from), &mut to).await?;
            return Ok(());
        }
        let close = head.has("connection", "close") || head.text.contains(" HTTP/1.0\r\n");
        let connection = if close { "connection: close\r\n" } else { "" };
        let body = if head.text.starts_with("HEAD ") { "" } else { page.as_str() };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n{connection}content-length: {}\r\n\r\n{body}",
            page.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if close {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

/// The request line and the header lines, each with its CRLF, as received.
struct Head {
    text: String,
}

impl Head {
    /// The next head; `None` if the client has closed the connection.
    async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut limited = stream.take(MAX_HEAD);
        loop {
            let start = bytes.len();
            if limited.read_until(b'\n', &mut bytes).await? == 0 {
                return if start == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if matches!(&bytes[start..], b"\r\n" | b"\n") {
                bytes.truncate(start);
                return Ok(Some(Self { text: String::from_utf8_lossy(&bytes).into_owned() }));
            }
        }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn has(&self, name: &str, word: &str) -> bool {
        self.values(name).any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    }

    /// The answer that opens a tunnel, if the client asks for one. Of several protocols it takes the first
    /// that is not WebSocket, even if `Connection` does not name it, as the most careless backend would.
    fn tunnel(&self) -> Option<String> {
        if self.text.starts_with("CONNECT ") {
            return Some("HTTP/1.1 200 Connected\r\n\r\n".to_owned());
        }
        let words = || self.values("upgrade").flat_map(|value| value.split(',')).map(str::trim);
        let is_websocket = |word: &&str| word.eq_ignore_ascii_case("websocket");
        if let Some(protocol) = words().find(|word| !is_websocket(word)) {
            return Some(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            ));
        }
        (words().next().is_some() && self.has("connection", "upgrade")).then(|| {
            // RFC 6455 §4.2.2; some proxies check it.
            let key = self.values("sec-websocket-key").next().unwrap_or_default();
            let digest = openssl::sha::sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                STANDARD.encode(digest)
            )
        })
    }

    /// Reads the body (RFC 9112 §6.3).
    async fn body(&self, stream: &mut BufReader<TcpStream>) -> io::Result<Body> {
        if self.has("transfer-encoding", "chunked") {
            return chunked(stream).await;
        }
        let length = match self.values("content-length").next() {
            Some(value) => value.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            None => 0,
        };
        skip(stream, length).await?;
        Ok(Body { length, trailers: String::new() })
    }
}

/// What came after the head.
struct Body {
    length: u64,
    /// The trailer lines, as received.
    trailers: String,
}

/// Reads a chunked body with its trailers (RFC 9112 §7.1).
async fn chunked(stream: &mut BufReader<TcpStream>) -> io::Result<Body> {
    let mut length = 0;
    loop {
        let line = line(stream).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        skip(stream, size).await?;
        line_end(stream).await?;
        length += size;
    }
    let mut trailers = String::new();
    loop {
        let line = line(stream).await?;
        if line.is_empty() {
            return Ok(Body { length, trailers });
        }
        trailers += &(line + "\n");
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.take(MAX_HEAD).read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

async fn line_end(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    if line(stream).await?.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn skip(stream: &mut BufReader<TcpStream>, length: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
