//! What a proxy is to the contract: files, a command, and what differs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A proxy of `examples/`.
#[derive(Clone, Copy)]
pub struct Proxy {
    /// Its directory in `examples/`.
    pub name: &'static str,
    /// Its files there, beside `holdfast.toml`.
    pub files: &'static [&'static str],
    /// What is replaced in them, and by what: addresses, nothing else.
    pub addresses: fn(&Addresses) -> Vec<(&'static str, String)>,
    /// The same for the option `fleet`.
    pub fleet: fn(&Addresses) -> Vec<(&'static str, String)>,
    /// How it is started in the directory of its files.
    pub command: &'static [&'static str],
    /// Where its clients reach it.
    pub listens: Listens,
    /// What differs.
    pub differs: Differences,
}

/// Where the parts of a test are.
pub struct Addresses {
    /// The proxy's own unix sockets, unless it is given a socket: for HTTP/1.1, and for HTTP/2 if that needs
    /// its own.
    pub front: PathBuf,
    pub front_http2: PathBuf,
    /// Where holdfast is asked.
    pub auth: SocketAddr,
    /// Where the second and the third of a fleet are.
    pub others: [SocketAddr; 2],
    /// A loopback address of its own, for requests of the proxy to itself.
    pub own: std::net::Ipv4Addr,
    pub backend: SocketAddr,
    /// What the proxy needs to speak TLS and to ask for a certificate of the client, if it is to.
    pub tls: Option<TlsFiles>,
}

/// Files for TLS.
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one.
    pub both: PathBuf,
    /// Who signs the certificates of clients.
    pub authority: PathBuf,
}

/// How a proxy comes to a socket that no other test has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    /// On a unix socket, named in its files.
    Unix,
    /// The same, with another one for HTTP/2.
    UnixAndUnixForHttp2,
    /// On a TCP socket that the test binds and hands over, as systemd does (`LISTEN_FDS`).
    Given,
}

/// What a client gets where proxies differ.
#[derive(Clone, Copy)]
pub struct Differences {
    /// Holdfast cannot tell: whether its own `Retry-After` arrives, or one that the proxy has to make up.
    pub passes_retry_after: bool,
    /// Holdfast is gone: the status, and `Retry-After`.
    pub gone: (u16, Option<&'static str>),
    /// Holdfast does not answer: the status.
    pub silent: u16,
    /// Whether connections to holdfast are kept.
    pub keeps_connections: bool,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Whether a body may come without its length.
    pub takes_chunks: bool,
    /// By which method holdfast is asked.
    pub method: Method,
    /// Whether holdfast learns the query of the original request, for the way back from a login page.
    pub tells_query: bool,
    /// Whether holdfast learns of each `Origin` of a request that has two.
    pub tells_each_origin: bool,
}

/// By which method holdfast is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Original,
}

impl Proxy {
    /// The example's files, as name and text.
    pub fn read(&self) -> Vec<(&'static str, String)> {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(self.name);
        let read = |name| {
            let text = std::fs::read_to_string(example.join(name));
            (name, text.unwrap_or_else(|error| panic!("{}/{name}: {error}", example.display())))
        };
        self.files.iter().copied().chain(["holdfast.toml"]).map(read).collect()
    }
}
