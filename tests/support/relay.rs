//! Helpers between a proxy and its neighbours in a test: a relay that records, and a server with one answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Counts connections and keeps what the proxy sent.
pub struct Relay {
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    sent: Mutex<Vec<u8>>,
}

impl Relay {
    /// Listens at this path and asks at the other.
    pub fn unix(path: &str, to: PathBuf) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let seen = Arc::new(Seen::default());
        let accepting = {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (seen, to) = (Arc::clone(&seen), to.clone());
                    tokio::spawn(async move { relay(client, UnixStream::connect(to).await, &seen).await });
                }
            })
        };
        Self { seen, accepting }
    }

    /// Listens at an address of its own, which it returns, and connects to `to`.
    pub async fn tcp(to: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let accepting = {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let seen = Arc::clone(&seen);
                    tokio::spawn(async move { relay(client, TcpStream::connect(to).await, &seen).await });
                }
            })
        };
        (Self { seen, accepting }, address)
    }

    /// How many connections the proxy has opened.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// All that the proxy has sent.
    pub fn sent(&self) -> String {
        String::from_utf8_lossy(&self.seen.sent.lock().unwrap()).into_owned()
    }

    /// Listens no longer: the proxy's connections are refused.
    pub fn refuse(&self) {
        self.accepting.abort();
    }
}

/// Copies both ways; without a server it just hangs up.
async fn relay<C, S>(client: C, server: std::io::Result<S>, seen: &Seen)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(server) = server else { return };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let questions = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            seen.sent.lock().unwrap().extend_from_slice(&buffer[..length]);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    // The first end closes both: dropping the halves closes the connections.
    tokio::select! {
        () = questions => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// A server, backend or auth server, that has only this one answer.
pub async fn server_that_answers(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                // The whole head first: to close a connection with something unread resets it.
                while stream.read_line(&mut line).await.is_ok_and(|length| length > 2) {
                    line.clear();
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}
