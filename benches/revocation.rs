//! What revocation costs: for a hit, for a token at first sight, in memory, and at the start.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use holdfast::clock::Clock;
use holdfast::revocation::{Denial, RevocationKey, RevocationSet, TokenFacts};
use holdfast::store::archive::Archive;
use holdfast::store::disk::{DiskSettings, DiskStore};
use holdfast::store::open::SECRET_FILE;
use holdfast::store::revocations::Revocations;
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::digest::TokenDigester;
use holdfast::tiers::record::{Family, Record as _};
use holdfast::tiers::seal::Sealer;
use holdfast::tiers::secret::InstanceSecret;

const RECORDS: usize = 1_000_000;
const ROUNDS: usize = 31;
const CALLS: u32 = 100_000;

fn main() {
    let clock = Clock::system();
    let now = clock.now();
    let digester = TokenDigester::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap();
    let denial = Denial {
        issued_before: now,
        changed_at: now,
        until: now.after(Duration::from_secs(30 * 86_400)),
        label: String::new(),
    };
    let subject =
        |number: usize| RevocationKey::subject(&digester.subject("https://t/", &number.to_string()));
    let set = RevocationSet::new(clock.clone());
    let (ada, token) = (subject(RECORDS + 1), "token");
    let before = set.mark(&ada, None);
    println!("a hit, nothing revoked since       {:>8.2} ns", best(|| set.is_current(before)));
    let counted = measure(|| {
        for number in 0..RECORDS {
            let _ = set.apply(subject(number), &denial);
        }
    });
    println!("{RECORDS} records in memory       {:>8.1} MB", counted.bytes_current as f64 / 1e6);
    println!("  the most while they came         {:>8.1} MB", counted.bytes_max as f64 / 1e6);
    let after = set.mark(&ada, None);
    let _ = set.apply(subject(RECORDS), &denial);
    println!("a hit, others revoked since        {:>8.2} ns", best(|| set.is_current(after)));
    let facts =
        TokenFacts { issuer: "https://t/", subject: ada, session: None, token, kid: None, issued_at: now };
    println!("a token at first sight             {:>8.2} ns", best(|| set.denies(&facts, &digester)));

    // The start, with as many on disk.
    let directory = tempfile::tempdir().unwrap();
    let disk = || DiskSettings::at(directory.path());
    let metrics = || Arc::new(Metrics::new().unwrap());
    drop(Archive::open(disk(), None, clock.clone(), metrics()).unwrap());
    let secret = InstanceSecret::load(&directory.path().join(SECRET_FILE)).unwrap();
    let sealer = Sealer::new(&secret).unwrap();
    let store = DiskStore::open(disk(), clock.clone()).unwrap().store;
    let named =
        Denial { label: "auth0|5f7c8ec7c33c6c004bbafe82 of https://tenant.example/".to_owned(), ..denial };
    for number in 0..RECORDS {
        let key = subject(number).to_bytes();
        let sealed = named.seal(&sealer, &key, named.until).unwrap();
        while !store.put(Family::Revocations, &key, sealed.clone()) {
            std::thread::yield_now();
        }
    }
    store.sync().unwrap();
    store.compact().unwrap();
    drop(store);
    let (archive, _) = Archive::open(disk(), None, clock.clone(), metrics()).unwrap();
    let archive = Arc::new(archive);
    let before = processor_time();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let started = Instant::now();
            black_box(Revocations::open(Some(archive.clone()), &digester, clock.clone(), metrics()));
            started.elapsed()
        })
        .collect();
    let spent = (processor_time() - before) / 5;
    times.sort();
    println!("start with {RECORDS} on disk      {:>8.0} ms more", times[2].as_secs_f64() * 1e3);
    println!("  of the processors, together      {:>8} ms", spent.as_millis());
}

/// What this process has used of all processors, to 10 ms (proc_pid_stat(5), with the usual 100 ticks a
/// second). It says more than a clock on a busy machine.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<u32>().unwrap();
    Duration::from_millis(10) * (ticks(11) + ticks(12))
}

/// The best of many rounds, in nanoseconds a call: what disturbs a measurement only makes it slower.
fn best<T>(mut call: impl FnMut() -> T) -> f64 {
    let round = |call: &mut dyn FnMut()| {
        let started = Instant::now();
        (0..CALLS).for_each(|_| call());
        started.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let mut call = || drop(black_box(call()));
    (0..ROUNDS).map(|_| round(&mut call)).fold(f64::MAX, f64::min)
}
