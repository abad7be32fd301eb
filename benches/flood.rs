//! The effect of a flood of forged tokens on users whose answers are in memory: their median and 99th
//! percentile, without and with the flood, one after the other in one run, of a holdfast in a process of its
//! own.
//!
//! The flood is *open loop*: tokens are sent at a fixed rate, whatever happens to earlier ones. Each costs an
//! RSA decryption, which anybody can ask for with the public key. At 5,000 a second that is more than one
//! core can do, so the queue fills and the rest gets a 503. In a second flood the tokens can be decrypted,
//! and contain text for a large tree of JSON.
//!
//! Attackers, client and server share the machine's cores, so the ratio is worse than it would be with the
//! attackers elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot be made has no result, and its figures are not exact"
)]

mod scene;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scene::{Client, Scene, forged_jwe, request};
use support::Holdfast;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

/// How long each part lasts, but for the second flood, whose tokens take long to make.
const PART: Duration = Duration::from_secs(4);
/// Forged tokens a second.
const FORGED_RATE: u64 = 5_000;
/// Tokens a second that open.
const OPENING_RATE: u64 = 500;
const OPENING: u64 = 1_500;
/// More than may wait for the pool, so that some get a 503.
const CONNECTIONS: usize = 1_500;
/// A genuine token that was never seen is sent so often.
const GENUINE_PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let scene = Scene::new();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let holdfast =
        runtime.block_on(async { Holdfast::start(directory.path(), &scene.config(), 1).await.ready().await });
    let address = holdfast.auth_tcp();
    let good = request(&scene.token());
    Client::connect(address).warm_up(&good);

    let forged: Vec<_> =
        (0..FORGED_RATE * PART.as_secs()).map(|number| request(&forged_jwe(number))).collect();
    let lists = vec!["[1]"; 47_000].join(",");
    let opening: Vec<_> = (0..OPENING)
        .map(|number| {
            let claims = format!(r#"{{"iss":"{}","n":{number},"x":[{lists}]}}"#, scene.tenant.issuer());
            let token = scene.tenant.mint().payload(claims).signed_by_stranger().nested_jwe();
            request(&token.jwe_header("zip", "DEF").build().unwrap())
        })
        .collect();

    for (what, flood, rate) in
        [("forged JWE", forged, FORGED_RATE), ("JWE that open to 190 KB", opening, OPENING_RATE)]
    {
        let quiet = hits_while(address, &good, || thread::sleep(PART));
        let (mut flooded, mut genuine) = (Flooded::default(), (0, 0));
        let stormy = hits_while(address, &good, || {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                let sending = scope.spawn(|| send_genuine(address, &scene, &over));
                flooded = runtime.block_on(send(address, flood, rate));
                over.store(true, Ordering::Relaxed);
                genuine = sending.join().unwrap();
            });
        });
        println!("hits in memory, quiet               {quiet}");
        println!("hits in memory, in the flood        {stormy}");
        println!("  {flooded} {what}");
        println!("  genuine new tokens: {} accepted, {} turned away", genuine.0, genuine.1);
        println!(
            "99% in the flood / quiet            {:.2}  target 2.00",
            stormy.slow.as_secs_f64() / quiet.slow.as_secs_f64()
        );
    }
    println!("most memory of the process          {} MiB", holdfast.peak_memory() >> 20);
}

/// Asks about a token in memory, again and again, until `other` has ended.
fn hits_while(address: SocketAddr, request: &[u8], other: impl FnOnce()) -> Percentiles {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let hits = scope.spawn(|| {
            let (mut client, mut times) = (Client::connect(address), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let started = Instant::now();
                assert_eq!(client.ask(request), 200);
                times.push(started.elapsed());
            }
            times
        });
        other();
        over.store(true, Ordering::Relaxed);
        Percentiles::of(hits.join().unwrap())
    })
}

/// Sends tokens of users that were never seen; returns how many were accepted, and how many got a 503.
fn send_genuine(address: SocketAddr, scene: &Scene, over: &AtomicBool) -> (u64, u64) {
    let (mut client, mut accepted, mut turned_away) = (Client::connect(address), 0, 0);
    while !over.load(Ordering::Relaxed) {
        let subject = format!("auth0|{accepted}-{turned_away}-{:?}", Instant::now());
        let token = scene.tenant.mint().subject(subject).email_direct("bob@example.com").build().unwrap();
        match client.ask(&request(&token)) {
            200 => accepted += 1,
            503 => turned_away += 1,
            status => panic!("{status} for a genuine token"),
        }
        thread::sleep(GENUINE_PAUSE);
    }
    (accepted, turned_away)
}

/// Sends `requests` at `rate` a second, each on a connection that is free; if none is, it is not sent.
async fn send(address: SocketAddr, requests: Vec<Vec<u8>>, rate: u64) -> Flooded {
    let (give_back, mut free) = mpsc::unbounded_channel();
    let (mut open, mut flooded) = (0, Flooded::default());
    let (started, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    let tell = Arc::new(give_back);
    for (number, request) in requests.into_iter().enumerate() {
        let due =
            started + Duration::from_secs(1) * u32::try_from(number).unwrap() / u32::try_from(rate).unwrap();
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        while let Some(answered) = tasks.try_join_next() {
            *flooded.answers.entry(answered.unwrap()).or_default() += 1;
        }
        let mut stream = match free.try_recv() {
            Ok(stream) => stream,
            Err(_) if open < CONNECTIONS => {
                open += 1;
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            }
            Err(_) => {
                flooded.unsent += 1;
                continue;
            }
        };
        let tell = tell.clone();
        tasks.spawn(async move {
            stream.write_all(&request).await.unwrap();
            let (mut buffer, mut length) = ([0; 1024], 0);
            while !buffer[..length].ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer[length..]).await.unwrap();
                assert!(read > 0, "the connection ended");
                length += read;
            }
            let status: u16 = std::str::from_utf8(&buffer[9..12]).unwrap().parse().unwrap();
            let _ = tell.send(stream);
            status
        });
    }
    flooded.lasted = started.elapsed();
    while let Some(answered) = tasks.join_next().await {
        *flooded.answers.entry(answered.unwrap()).or_default() += 1;
    }
    flooded
}

/// What became of a flood.
#[derive(Default)]
struct Flooded {
    answers: BTreeMap<u16, u64>,
    unsent: u64,
    lasted: Duration,
}

impl std::fmt::Display for Flooded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sent: u64 = self.answers.values().sum();
        write!(
            f,
            "{:.0} a second, answered {:?}, {} not sent:",
            sent as f64 / self.lasted.as_secs_f64(),
            self.answers,
            self.unsent
        )
    }
}

struct Percentiles {
    count: usize,
    median: Duration,
    slow: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Self { count: times.len(), median: at(50), slow: at(99) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7}, median {:?}, 99% {:?}", self.count, self.median, self.slow)
    }
}
