//! Clients that hide nothing: raw HTTP/1.1, and curl for HTTP/2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::certificates::Identity;
use crate::stack::in_time;
use crate::support::{Reply, parse};

/// Where a proxy is reached.
#[derive(Clone)]
pub enum Door {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Clone)]
pub struct Client {
    pub door: Door,
    /// Whether TLS is spoken there.
    pub tls: bool,
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

    /// Whether this page exists; any error counts as no.
    pub async fn answers(&self, path: &str) -> bool {
        if self.tls {
            return self.try_https(path, None, &[]).await.is_ok_and(|reply| reply.status == 200);
        }
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

    /// These bytes. The connection is dropped as soon as the answer is complete: a proxy may linger before it
    /// closes.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        let (mut from, mut to) = tokio::io::split(self.connect().await.unwrap());
        let shown = String::from_utf8_lossy(&request[..request.len().min(500)]);
        let answering = async {
            let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
            while !is_complete(&bytes, request.starts_with(b"HEAD ")) {
                match from.read(&mut buffer).await {
                    Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
                    _ => break,
                }
            }
            bytes
        };
        // At the same time, and without minding a broken pipe: the proxy may answer before it has read all.
        let writing = async {
            let _ = to.write_all(request).await;
            std::future::pending::<()>().await;
        };
        let bytes = in_time(&format!("an answer to {shown}"), async {
            tokio::select! { bytes = answering => bytes, () = writing => unreachable!() }
        })
        .await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        parse(&text).unwrap_or_else(|| panic!("no answer: {text:?} to {shown}"))
    }

    /// A GET over TLS with these header lines, showing this certificate.
    pub async fn https(&self, path: &str, shown: Option<&Identity>, lines: &[&str]) -> Reply {
        self.try_https(path, shown, lines).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn try_https(&self, path: &str, shown: Option<&Identity>, lines: &[&str]) -> Result<Reply, String> {
        let mut curl = Command::new("curl");
        // Whose certificate the server shows does not matter here.
        curl.args(["--silent", "--show-error", "--include", "--http1.1", "--insecure", "--max-time", "60"]);
        let url = match &self.door {
            Door::Unix(socket) => {
                curl.arg("--unix-socket").arg(socket);
                format!("https://example.com{path}")
            }
            Door::Tcp(address) => {
                let port = address.port();
                curl.args(["--resolve", &format!("example.com:{port}:{}", address.ip())]);
                curl.args(["--header", "Host: example.com"]);
                format!("https://example.com:{port}{path}")
            }
        };
        if let Some(Identity { certificate, key }) = shown {
            curl.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        curl.args(lines.iter().flat_map(|line| ["--header", line]));
        let output = curl.arg(&url).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        parse(&text).ok_or_else(|| format!("{text} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The same by HTTP/2 without TLS; `arguments` are curl's.
    pub async fn http2(&self, path: &str, arguments: &[&str]) -> Reply {
        self.try_http2(path, arguments).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The same, or what curl says why not.
    pub async fn try_http2(&self, path: &str, arguments: &[&str]) -> Result<Reply, String> {
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
        if text.starts_with("HTTP/2 ") {
            Ok(parse(&text).unwrap())
        } else {
            Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

impl Client {
    /// Sends a request with the body `hello` and perhaps a trailer, and waits until it is answered or
    /// refused. By hand, since no client at hand sends trailers: frames of RFC 9113, headers as literals of
    /// RFC 7541 §6.2.2.
    pub async fn http2_with_trailer(&self, headers: &[(&str, &str)], trailer: Option<(&str, &str)>) {
        const END_STREAM: u8 = 0x1;
        const END_HEADERS: u8 = 0x4;
        let [data, header_block, reset, settings, go_away] = [0, 1, 3, 4, 7];
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
        };
        let (body_flags, trailers) = match trailer {
            Some(trailer) => (0, frame(header_block, END_HEADERS | END_STREAM, 1, &literals(&[trailer]))),
            None => (END_STREAM, Vec::new()),
        };
        let request = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(settings, 0, 0, &[]),
            frame(header_block, END_HEADERS, 1, &literals(headers)),
            frame(data, body_flags, 1, b"hello"),
            trailers,
        ];
        let mut stream = self.connect().await.unwrap();
        stream.write_all(&request.concat()).await.unwrap();
        let answered = async {
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                let ended = stream.read_exact(&mut payload).await.is_err();
                let [kind, flags] = [head[3], head[4]];
                let last = (kind == data || kind == header_block) && flags & END_STREAM != 0;
                if ended || last || kind == reset || kind == go_away {
                    break;
                }
            }
        };
        in_time("an end of the stream", answered).await;
    }
}

/// Header fields without indexing and without Huffman coding.
fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits (RFC 7541 §5.1).
            let mut rest = text.len();
            if rest < 127 {
                block.push(rest as u8);
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Whether this is a whole answer; one without a length ends with its connection.
fn is_complete(bytes: &[u8], without_body: bool) -> bool {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let reply = parse(&String::from_utf8_lossy(&bytes[..head + 4])).unwrap();
    let length = reply.header("content-length").first().map(|length| length.parse::<usize>().unwrap());
    match length {
        _ if without_body => true,
        Some(length) => bytes.len() >= head + 4 + length,
        None => false,
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

/// Reads the head of one answer from a connection that stays open.
pub async fn read_head(stream: &mut dyn Stream) -> Reply {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        let length = in_time("an answer", stream.read(&mut byte)).await.unwrap();
        assert_eq!(length, 1, "the connection was closed: {}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    parse(&String::from_utf8_lossy(&bytes)).unwrap()
}

/// Reads one answer from a connection that stays open; its length must be announced.
pub async fn read_reply(stream: &mut dyn Stream) -> Reply {
    let mut reply = read_head(stream).await;
    if reply.status != 101 {
        let length: usize = reply.header("content-length")[0].parse().unwrap();
        let mut body = vec![0; length];
        in_time("the body", stream.read_exact(&mut body)).await.unwrap();
        reply.body = String::from_utf8_lossy(&body).into_owned();
    }
    reply
}
