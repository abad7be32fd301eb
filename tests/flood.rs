//! A flood of forged tokens, each of which costs an RSA decryption: users whose answers are in memory are
//! still answered, and the issuer is not asked. `benches/flood.rs` measures the delay of answers; the
//! assertions here do not depend on time.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

#[path = "../benches/scene/mod.rs"]
mod scene;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, Waker};
use std::thread;

use scene::{Client, Scene, forged_jwe, request};
use tokio::runtime::Builder;

/// While the pool has more to do than may wait, a token that was never seen is neither accepted nor refused,
/// at once; what lies in memory is answered.
#[test]
fn when_the_pool_is_full_new_tokens_are_turned_away_and_hits_are_not() {
    let scene = Scene::new();
    let good = request(&scene.token());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (service, address) = runtime.block_on(scene.holdfast());
    let mut client = Client::connect(address);
    client.warm_up(&good);
    let (instance, tenant) = (service.instance(), &scene.tenant);
    let unseen = |subject: &str| tenant.mint().subject(subject).email_direct("bob@example.com");
    let (signed, sealed) =
        (unseen("auth0|1").build().unwrap(), unseen("auth0|2").nested_jwe().build().unwrap());

    // Jobs that end when the gate opens: first one for each thread, then as many as may wait.
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap();
    let (begun, is_begun) = std::sync::mpsc::channel();
    let mut context = Context::from_waker(Waker::noop());
    let mut queue = || {
        let (gate, begun) = (gate.clone(), begun.clone());
        let job = instance.pool().run(move || {
            begun.send(()).unwrap();
            drop(gate.read());
        });
        let mut job = Box::pin(job);
        match job.as_mut().poll(&mut context) {
            Poll::Pending => Ok(job),
            Poll::Ready(result) => Err(result.unwrap_err()),
        }
    };
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
    let mut waiting: Vec<_> = (0..threads).map(|_| queue().unwrap()).collect();
    for _ in 0..threads {
        is_begun.recv().unwrap();
    }
    while let Ok(job) = queue() {
        waiting.push(job);
    }
    for token in [&forged_jwe(1), &signed, &sealed] {
        assert_eq!(client.ask(&request(token)), 503);
        assert_eq!(client.ask(&good), 200);
    }
    let raw = client.ask_for_all(&request(&forged_jwe(2)));
    assert!(raw.to_lowercase().contains("\r\nretry-after: "), "{raw}");
    assert!(!raw.to_lowercase().contains("www-authenticate"), "{raw}");

    drop(closed);
    for job in waiting {
        runtime.block_on(job).unwrap();
    }
    assert_eq!(client.ask(&request(&forged_jwe(1))), 401, "it was not refused before, and is now");
    for token in [&signed, &sealed] {
        assert_eq!(client.ask(&request(token)), 200);
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

const FORGED: u64 = 5_000;
const ATTACKERS: u64 = 16;

#[test]
fn in_a_flood_of_forged_jwes_every_hit_is_answered_and_every_forged_token_refused() {
    let scene = Scene::new();
    let good = request(&scene.token());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_service, address) = runtime.block_on(scene.holdfast());
    let mut client = Client::connect(address);
    client.warm_up(&good);

    let over = AtomicBool::new(false);
    let (hits, refused) = thread::scope(|scope| {
        let hits = scope.spawn(|| {
            let mut hits = 0_u64;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(client.ask(&good), 200, "after {hits} hits");
                hits += 1;
            }
            hits
        });
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|attacker| {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let (mut refused, mut busy) = (0_u64, 0_u64);
                    for number in (attacker..FORGED).step_by(ATTACKERS as usize) {
                        match client.ask(&request(&forged_jwe(number))) {
                            401 => refused += 1,
                            503 => busy += 1,
                            status => unreachable!("{status} for a forged token"),
                        }
                    }
                    (refused, busy)
                })
            })
            .collect();
        let results: Vec<_> = attackers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let refused =
            results.into_iter().map(Result::unwrap).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (hits.join().unwrap(), refused)
    });
    println!("{hits} hits beside {} forged tokens refused and {} not looked at", refused.0, refused.1);
    assert!(hits > 0);
    assert!(refused.0 > 0, "no forged token was judged");
    assert_eq!(refused.0 + refused.1, FORGED);
    assert_eq!(scene.tenant.calls().userinfo, 0);
}
