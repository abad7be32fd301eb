//! What a flood of forged tokens, each of which costs an RSA decryption, does to those whose answers lie in memory: their
//! median and 99th percentile, quiet and in the flood. Attackers, client and server share the machine's cores, so the
//! ratio is worse than it would be with the attackers elsewhere.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

mod scene;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scene::{Client, Scene, forged_jwe, request};
use tokio::runtime::Builder;

const ROUNDS: u64 = 5;
/// In each round no more than so many forged tokens, and no longer than [`LONGEST`].
const FORGED: u64 = 5_000;
const LONGEST: Duration = Duration::from_secs(3);
const ATTACKERS: usize = 16;
const QUIET_HITS: usize = 10_000;

fn main() {
    let scene = Scene::new();
    let good = request(&scene.token());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_service, address) = runtime.block_on(scene.holdfast());
    let mut client = Client::connect(address);
    client.warm_up(&good);

    let (mut calm, mut storm, mut rate) = (Percentiles::NONE, Percentiles::NONE, 0_f64);
    for round in 0..ROUNDS {
        calm.improve((0..QUIET_HITS).map(|_| time(&mut client, &good)).collect());

        let (next, started) = (AtomicU64::new(0), Instant::now());
        let fired = || next.load(Ordering::Relaxed) < FORGED && started.elapsed() < LONGEST;
        storm.improve(thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                scope.spawn(|| {
                    let mut client = Client::connect(address);
                    while fired() {
                        let number = round * 2 * FORGED + next.fetch_add(1, Ordering::Relaxed);
                        client.ask(&request(&forged_jwe(number)));
                    }
                });
            }
            let mut times = Vec::new();
            while fired() {
                times.push(time(&mut client, &good));
            }
            times
        }));
        rate = rate.max(next.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64());
    }
    println!("hits in memory, quiet                 {calm}");
    println!("hits in memory, in {rate:>6.0} forged JWE/s  {storm}");
    println!(
        "99% in the flood / quiet              {:.2}",
        storm.slow.as_secs_f64() / calm.slow.as_secs_f64()
    );
}

fn time(client: &mut Client, request: &[u8]) -> Duration {
    let started = Instant::now();
    assert_eq!(client.ask(request), 200);
    started.elapsed()
}

struct Percentiles {
    median: Duration,
    slow: Duration,
}

impl Percentiles {
    const NONE: Self = Self { median: Duration::MAX, slow: Duration::MAX };

    /// Keeps the best of the rounds: what else runs on the machine only ever makes it slower.
    fn improve(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        self.median = self.median.min(at(50));
        self.slow = self.slow.min(at(99));
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:?}, 99% {:?}", self.median, self.slow)
    }
}
