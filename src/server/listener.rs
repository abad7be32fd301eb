//! Sockets: binding them, accepting connections within a bound, and letting go of both gracefully.

use std::convert::Infallible;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::config::Listen;
use crate::route::peer::Peer;

/// The longest request head that is read, in bytes. Behind nginx a 431 of ours would become a 500, so this is well above
/// what proxies pass on.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// The most header lines that are read. Hyper's own default of 100 is fewer than what some proxies pass on.
const MAX_HEADER_LINES: usize = 256;

/// A socket cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {listen}: {problem}")]
pub struct ListenError {
    listen: String,
    problem: String,
}

/// A bound socket.
pub struct Listener {
    socket: Socket,
    /// Where it really is: a port of 0 was chosen by the system.
    pub name: String,
}

enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// Removes the socket file when the listener goes.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Bounds of the connections of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a connection may wait for its next request, or take to send one.
    pub idle_timeout: Duration,
    /// How many connections there may be; above it, accepting waits.
    pub max_connections: usize,
    /// How long a shutdown waits for requests under way.
    pub drain_timeout: Duration,
}

impl Listener {
    /// Binds a socket. A unix socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`], such as when the address is in use.
    pub async fn bind(listen: &Listen, socket_mode: u32) -> Result<Self, ListenError> {
        let failed = |problem: String| ListenError { listen: listen.to_string(), problem };
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
                let name =
                    listener.local_addr().map_or_else(|_| listen.to_string(), |address| address.to_string());
                Ok(Self { socket: Socket::Tcp(listener), name })
            }
            Listen::Unix(path) => {
                let socket = bind_unix(path, socket_mode).map_err(failed)?;
                Ok(Self { socket, name: listen.to_string() })
            }
        }
    }

    /// Serves connections until `stop` changes, then drains.
    pub async fn serve<S, F, B>(self, service: S, bounds: Bounds, mut stop: watch::Receiver<bool>)
    where
        S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let seats = Arc::new(Semaphore::new(bounds.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.idle_timeout)
            .max_headers(MAX_HEADER_LINES)
            .max_buf_size(MAX_HEAD_BYTES);
        loop {
            let seat = tokio::select! {
                seat = seats.clone().acquire_owned() => seat,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok(seat) = seat else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely. Accepting again at once would spin.
                    warn!("cannot accept a connection on {}: {error}", self.name);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let service = service.clone();
            let service = service_fn(move |request| service(request, peer));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!("a connection ended early: {error}");
                }
                drop(seat);
            });
        }
        let Self { socket, name } = self;
        drop(socket);
        if tokio::time::timeout(bounds.drain_timeout, graceful.shutdown()).await.is_err() {
            warn!("{name}: some requests were still under way after the drain timeout");
        }
    }
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Socket {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // An answer is one small write; waiting to fill a packet would only delay it.
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer::Address(address.ip())))
            }
            Self::Unix { listener, .. } => Ok((Box::new(listener.accept().await?.0), Peer::Unix)),
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> Result<Socket, String> {
    let say = |error: io::Error| error.to_string();
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err("a file of that name exists and is not a socket; it is left alone".to_owned());
        }
        if StdUnixStream::connect(path).is_ok() {
            return Err("another process listens there".to_owned());
        }
        fs::remove_file(path).map_err(say)?;
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(say)?;
    }
    let listener = UnixListener::bind(path).map_err(say)?;
    let _file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(say)?;
    Ok(Socket::Unix { listener, _file })
}

/// Tells people where a listener is.
pub fn announce(kind: &str, name: impl Display) {
    tracing::info!("{kind} listener on {name}");
}
