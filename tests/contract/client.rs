//! Clients that hide nothing: raw HTTP/1.1, and curl for HTTP/2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::stack::in_time;
use crate::support::{Reply, exchange, parse};

/// Where a proxy is reached.
#[derive(Clone)]
pub enum Door {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

pub struct Client {
    pub door: Door,
}

/// A connection of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    pub async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.door {
            Door::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Door::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    }

    /// Whether this page is there; any trouble is a no.
    pub async fn answers(&self, path: &str) -> bool {
        let Ok(mut stream) = self.connect().await else { return false };
        let request = request("GET", path, "");
        let mut answer = Vec::new();
        let _ = stream.write_all(&request).await;
        let _ = stream.read_to_end(&mut answer).await;
        parse(&String::from_utf8_lossy(&answer)).is_some_and(|reply| reply.status == 200)
    }

    pub async fn get(&self, token: &str) -> Reply {
        self.request("GET", "/page", &bearer(token)).await
    }

    /// A request without a body, on a connection of its own.
    pub async fn request(&self, method: &str, path: &str, headers: &str) -> Reply {
        self.raw(&request(method, path, headers)).await
    }

    /// These bytes, which must ask for `Connection: close`.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        exchange(self.connect().await.unwrap(), request).await
    }

    /// The same by HTTP/2 without TLS; `arguments` are curl's.
    pub async fn http2(&self, path: &str, arguments: &[&str]) -> Reply {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--http2-prior-knowledge", "--max-time", "60"]);
        let url = match &self.door {
            Door::Unix(socket) => {
                curl.arg("--unix-socket").arg(socket);
                format!("http://example.com{path}")
            }
            Door::Tcp(address) => format!("http://{address}{path}"),
        };
        let output =
            curl.args(arguments).arg(&url).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with("HTTP/2 "), "{text} {}", String::from_utf8_lossy(&output.stderr));
        parse(&text).unwrap()
    }
}

/// A request without a body that asks for the connection to be closed.
pub fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{headers}\r\n")
        .into_bytes()
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Reads one answer from a connection that stays open; its length must be announced.
pub async fn read_reply(stream: &mut dyn Stream) -> Reply {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        let length = in_time("an answer", stream.read(&mut byte)).await.unwrap();
        assert_eq!(length, 1, "the connection was closed: {}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    let mut reply = parse(&String::from_utf8_lossy(&bytes)).unwrap();
    if reply.status != 101 {
        let length: usize = reply.header("content-length")[0].parse().unwrap();
        let mut body = vec![0; length];
        in_time("the body", stream.read_exact(&mut body)).await.unwrap();
        reply.body = String::from_utf8_lossy(&body).into_owned();
    }
    reply
}
