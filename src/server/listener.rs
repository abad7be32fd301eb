//! Sockets: binds them, accepts a bounded number of connections, and closes both gracefully.

use std::convert::Infallible;
use std::fmt::Display;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::descriptors;
use super::stream::BoundedStream;
use crate::config::Listen;
use crate::route::peer::Peer;
use crate::tls::ServerTls;

/// How many connections the kernel queues until they are accepted. If the queue is full, the kernel drops the
/// packets of a TCP client, which tries again only a second later, and refuses a unix socket's client at
/// once. So the queue is as long as the kernel allows by default (`net.core.somaxconn`), which is enough for
/// the reload of a proxy with a worker per core.
const BACKLOG: u32 = 4096;

/// How long accepting pauses after the descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a first request that has partly arrived may take to arrive completely after the service stops.
const HEAD_GRACE: Duration = Duration::from_secs(1);

/// The most header lines that are read. hyper's default of 100 is fewer than some proxies pass on.
const MAX_HEADER_LINES: usize = 256;

/// Listening on a socket failed.
#[derive(Debug, Error)]
#[error("cannot listen on {listen}: {problem}")]
pub struct ListenError {
    listen: String,
    problem: String,
}

/// A bound socket.
pub struct Listener {
    socket: Socket,
    /// Its actual address: the system chooses a port in place of 0.
    pub name: String,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The other end of the connection.
    pub peer: Peer,
    /// Whether it has shown a client certificate, which the listener then demands from everybody.
    pub is_certified: bool,
}

enum Socket {
    Tcp(TcpListener),
    Tls(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// Removes the socket file when the listener is dropped.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Who may connect to a unix socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketAccess {
    /// The permission bits of its file.
    pub mode: u32,
    /// The group of its file; by default the group of the process.
    pub group: Option<u32>,
}

/// Bounds of the connections of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a connection may wait for its next request, take to send one, or leave an answer unread.
    pub idle_timeout: Duration,
    /// The most connections. Accepting waits while there are as many.
    pub max_connections: usize,
    /// The longest head of a request that is read, in bytes.
    pub max_head: usize,
    /// How long a shutdown waits for unfinished requests.
    pub drain_timeout: Duration,
}

impl Listener {
    /// Binds a socket. Replaces a unix socket file if no process listens on it any more.
    ///
    /// # Errors
    /// [`ListenError`], such as when the address is in use.
    pub async fn bind(listen: &Listen, access: SocketAccess) -> Result<Self, ListenError> {
        let failed = |problem: String| ListenError { listen: listen.to_string(), problem };
        match listen {
            Listen::Tcp(address) | Listen::Tls(address) => {
                let bound = bind_tcp(*address).and_then(|listener| Ok((listener.local_addr()?, listener)));
                let (address, listener) = bound.map_err(|error| failed(error.to_string()))?;
                Ok(match listen {
                    Listen::Tls(_) => {
                        Self { socket: Socket::Tls(listener), name: Listen::Tls(address).to_string() }
                    }
                    _ => Self { socket: Socket::Tcp(listener), name: address.to_string() },
                })
            }
            Listen::Unix(path) => {
                let socket = bind_unix(path, access).await.map_err(failed)?;
                Ok(Self { socket, name: listen.to_string() })
            }
        }
    }

    /// Serves connections until `stop` changes, then drains. A TLS listener calls `tls` for each connection,
    /// so that a reload brings a new certificate. If `tls` returns none, the connection is closed.
    pub async fn serve<S, T, F, B>(self, service: S, tls: T, bounds: Bounds, mut stop: watch::Receiver<bool>)
    where
        T: Fn() -> Option<Arc<ServerTls>>,
        S: Fn(Request<Incoming>, Client) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(bounds.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // A client that has closed its sending side still waits for its answer. A client that is gone is
            // noticed only when the answer is written; until then its request costs as much as any other.
            .half_close(true)
            .header_read_timeout(bounds.idle_timeout)
            .max_headers(MAX_HEADER_LINES)
            .max_buf_size(bounds.max_head);
        let mut are_out = false;
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if descriptors::are_out(&error) => {
                    if !are_out {
                        warn!("cannot accept connections on {}: {error}", self.name);
                    }
                    are_out = true;
                    // Without a pause this loop would spin.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    debug!("a connection ended before it was accepted: {error}");
                    continue;
                }
            };
            are_out = false;
            let secured = match &self.socket {
                Socket::Tls(_) => Some(tls()),
                _ => None,
            };
            let connection = Connection { permit, watcher: graceful.watcher(), stop: stop.clone(), bounds };
            let (service, builder) = (service.clone(), builder.clone());
            tokio::spawn(async move {
                let (mut stream, is_certified) = match secured {
                    None => (stream, false),
                    Some(tls) => match secure(stream, tls, connection.stop.clone()).await {
                        Ok(secured) => secured,
                        Err(error) => return debug!("no TLS with a client: {error}"),
                    },
                };
                let client = Client { peer, is_certified };
                let first_request_until = Instant::now() + bounds.idle_timeout;
                match first_byte(&mut stream, connection.stop.clone(), first_request_until).await {
                    // Boxed, so that the task is small until the first byte arrives.
                    Ok(first) => {
                        let stream = BoundedStream::new(stream, first, bounds.idle_timeout);
                        let answer = move |request| service(request, client);
                        Box::pin(connection.serve(stream, &builder, answer, first_request_until)).await;
                    }
                    Err(error) => debug!("a connection ended before its first request: {error}"),
                }
            });
        }
        let Self { socket, name } = self;
        drop(socket);
        if tokio::time::timeout(bounds.drain_timeout, graceful.shutdown()).await.is_err() {
            warn!("{name}: some requests were still under way after the drain timeout");
        }
    }
}

/// An error of a body, as hyper takes it.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An accepted connection.
struct Connection {
    permit: OwnedSemaphorePermit,
    watcher: Watcher,
    stop: watch::Receiver<bool>,
    bounds: Bounds,
}

impl Connection {
    /// Answers the requests on this connection until it ends.
    async fn serve<S, F, B>(
        self,
        stream: BoundedStream<Box<dyn Stream>>,
        builder: &http1::Builder,
        answer: S,
        first_request_until: Instant,
    ) where
        S: Fn(Request<Incoming>) -> F + Send,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Self { permit: _permit, watcher, stop, bounds } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let has_asked = asked.clone();
        let service = service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            answer(request)
        });
        let served = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = watcher.watch(served) => if let Err(error) = ended {
                debug!("a connection ended early: {error}");
            },
            () = idle_too_long(stop, &has_asked, bounds.drain_timeout, first_request_until) => {
                debug!("a connection was closed before its first request arrived");
            }
        }
    }
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Waits for the first byte of the first request. hyper's buffers and the state of a connection take 14 KB.
/// So a client that only connects does not take them.
async fn first_byte(
    stream: &mut Box<dyn Stream>,
    mut stop: watch::Receiver<bool>,
    until: Instant,
) -> io::Result<u8> {
    tokio::select! {
        biased;
        read = stream.read_u8() => read,
        _ = stop.wait_for(|stop| *stop) => Err(io::Error::other("the service stops")),
        () = sleep_until(until) => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not arrive in time")),
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener) => {
                let (stream, address) = listener.accept().await?;
                // An answer is one small write, and waiting to fill a packet would only delay it. If this
                // call fails, the connection is slower, or it has ended and the next read fails.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Peer::Address(address.ip())))
            }
            Self::Unix { listener, .. } => Ok((Box::new(listener.accept().await?.0), Peer::Unix)),
        }
    }
}

/// Ends when the first request has not arrived in time, or not within a grace period after the service began
/// to stop. hyper bounds the time for a head only from its first byte on. At a stop, hyper closes connections
/// that wait for a next request, but waits without a bound for the rest of a first request.
async fn idle_too_long(
    mut stop: watch::Receiver<bool>,
    asked: &AtomicBool,
    drain_timeout: Duration,
    until: Instant,
) {
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(HEAD_GRACE.min(drain_timeout)).await;
    };
    tokio::select! {
        () = stopped => {}
        () = sleep_until(until) => {}
    }
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Does the handshake, and says whether the client had to show a certificate. Unfinished handshakes are
/// dropped at shutdown.
async fn secure(
    stream: Box<dyn Stream>,
    tls: Option<Arc<ServerTls>>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<(Box<dyn Stream>, bool)> {
    let tls = tls.ok_or_else(|| io::Error::other("there is no certificate"))?;
    tokio::select! {
        secured = tls.accept(stream) => Ok((Box::new(secured?), tls.verifies_clients())),
        _ = stop.wait_for(|stop| *stop) => Err(io::Error::other("the service stops")),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise a restart would have to wait for connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path, access: SocketAccess) -> Result<Socket, String> {
    let say = |error: io::Error| error.to_string();
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err("a file of that name exists and is not a socket; it is left alone".to_owned());
        }
        // Every other result means that the socket is in use: its backlog is full, it is of another kind, or
        // its permissions forbid connecting. The standard library's `connect` would block on a full backlog.
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(say)?
            }
            Ok(_) => return Err("another process listens there".to_owned()),
            Err(error) => {
                return Err(format!("a socket of that name is in use ({error}); it is left alone"));
            }
        }
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(say)?;
    }
    let socket = UnixSocket::new_stream().map_err(say)?;
    socket.bind(path).map_err(say)?;
    let _file = SocketFile(path.to_owned());
    // Set before it listens, so that no client connects with the permissions of the umask.
    if let Some(group) = access.group {
        chown(path, None, Some(group)).map_err(|error| format!("socket_group {group}: {error}"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode)).map_err(say)?;
    let listener = socket.listen(BACKLOG).map_err(say)?;
    Ok(Socket::Unix { listener, _file })
}

/// Logs the address of a listener.
pub fn announce(kind: &str, name: impl Display) {
    tracing::info!("{kind} listener on {name}");
}
