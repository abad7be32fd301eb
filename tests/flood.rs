//! A flood of forged tokens, each of which costs an RSA decryption: those whose answers lie in memory do not notice, and
//! the issuer is not asked. How much later answers come then is measured by `benches/flood.rs`; here is what does not
//! depend on time.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

#[path = "../benches/scene/mod.rs"]
mod scene;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use scene::{Client, Scene, forged_jwe, request};
use tokio::runtime::Builder;

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
