//! The load generator: one thread, many connections, one request at a time on each.
//!
//! Closed loop, each connection asks again as soon as it is answered, which shows how much a server can do.
//! Open loop, requests are due at a constant rate, whatever happens to earlier ones, and an answer's latency
//! counts from the time when its request was due. So a server that stalls is charged for all who would have
//! asked meanwhile (no coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How a server is reached.
#[derive(Clone)]
pub enum Way {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Tls(SocketAddr, Arc<ClientConfig>),
}

/// When requests are sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Closed loop, until each request of the order was sent once.
    Once,
    /// Closed loop, for so long.
    Closed(Duration),
    /// Open loop: so many a second, for so long.
    Open(f64, Duration),
}

/// What is sent to whom.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub way: &'a Way,
    pub connections: usize,
    pub requests: &'a [Vec<u8>],
    /// Numbers of requests. After the last one it begins again.
    pub order: &'a [u32],
    /// Every answer must have it.
    pub status: u16,
}

/// What came of it.
pub struct Outcome {
    pub lasted: Duration,
    /// One for each answer, sorted.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// Answers a second.
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.lasted.as_secs_f64()
    }

    /// The latency that this part of the answers, in thousandths, did not exceed.
    pub fn at(&self, thousandths: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * thousandths / 1000]
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

struct Connection {
    stream: Box<dyn Stream>,
    due: Instant,
    buffer: [u8; 1024],
    filled: usize,
}

impl Load<'_> {
    pub fn run(&self, pace: Pace) -> Outcome {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1024));
        let mut connections: Vec<_> =
            (0..self.connections).map(|number| self.way.connect(poll.registry(), Token(number))).collect();
        let mut free: VecDeque<usize> = (0..self.connections).collect();
        let (mut due, mut latencies) = (VecDeque::new(), Vec::new());
        let (mut made, mut sent, started) = (0_u32, 0_usize, Instant::now());
        let wait = matches!(pace, Pace::Open(..)).then_some(Duration::ZERO);
        loop {
            let mut all_made = false;
            while !all_made {
                let now = Instant::now();
                let at = match pace {
                    Pace::Open(rate, _) => started + Duration::from_secs_f64(f64::from(made) / rate),
                    Pace::Once | Pace::Closed(_) => now,
                };
                all_made = match pace {
                    Pace::Once => made as usize == self.order.len(),
                    Pace::Closed(length) | Pace::Open(_, length) => at >= started + length,
                };
                let is_closed_and_busy = wait.is_none() && due.len() == free.len();
                if all_made || is_closed_and_busy || at > now {
                    break;
                }
                due.push_back(at);
                made += 1;
            }
            while !due.is_empty() && !free.is_empty() {
                let (at, number) = (due.pop_front().unwrap(), free.pop_front().unwrap());
                connections[number].due = at;
                let request = self.order[sent % self.order.len()] as usize;
                // As much as a request fits into the socket's buffer, since there is only one at a time.
                connections[number].stream.write_all(&self.requests[request]).unwrap();
                sent += 1;
            }
            if all_made && due.is_empty() && free.len() == self.connections {
                break;
            }
            match poll.poll(&mut events, wait) {
                // A server that was started before has ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.unwrap(),
            }
            for event in &events {
                let number = event.token().0;
                let connection = &mut connections[number];
                if connection.receive(self.status) {
                    latencies.push(connection.due.elapsed());
                    free.push_back(number);
                }
            }
        }
        let lasted = started.elapsed();
        latencies.sort_unstable();
        Outcome { lasted, latencies }
    }
}

impl Connection {
    /// Whether the answer is complete.
    fn receive(&mut self, status: u16) -> bool {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
            let answer = &self.buffer[..self.filled];
            if answer.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(answer);
                assert_eq!(text[9..12].parse(), Ok(status), "{text}");
                self.filled = 0;
                return true;
            }
        }
    }
}

impl Way {
    fn connect(&self, registry: &Registry, token: Token) -> Connection {
        let stream: Box<dyn Stream> = match self {
            Self::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address).unwrap();
                Box::new(ready(stream, registry, token))
            }
            Self::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = mio::net::UnixStream::from_std(stream);
                register(&mut stream, registry, token);
                Box::new(stream)
            }
            Self::Tls(address, config) => {
                let name = ServerName::try_from("127.0.0.1").unwrap();
                let mut session = ClientConnection::new(config.clone(), name).unwrap();
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                while session.is_handshaking() {
                    session.complete_io(&mut stream).unwrap();
                }
                Box::new(StreamOwned::new(session, ready(stream, registry, token)))
            }
        };
        Connection { stream, due: Instant::now(), buffer: [0; 1024], filled: 0 }
    }
}

fn ready(stream: std::net::TcpStream, registry: &Registry, token: Token) -> mio::net::TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = mio::net::TcpStream::from_std(stream);
    register(&mut stream, registry, token);
    stream
}

fn register(stream: &mut impl Source, registry: &Registry, token: Token) {
    registry.register(stream, token, Interest::READABLE).unwrap();
}
