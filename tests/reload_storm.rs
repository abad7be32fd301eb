//! Many reloads in a row, under load: nobody notices, and nothing of the old configurations stays.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast::clock::Clock;
use support::service::{Running, issuer, tenant};
use support::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_cost_no_request_and_leave_no_instance_behind() {
    let tenant = tenant().await;
    let running = Arc::new(Running::start(&issuer(&tenant, ""), Clock::system()).await);
    let local = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let opaque = tenant.mint().opaque().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let users: Vec<_> = [local, opaque]
        .into_iter()
        .map(|token| {
            let (running, stop) = (running.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    let reply = running.ask(&token).await;
                    assert_eq!(reply.status, 200, "after {asked} requests: {reply:?}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let mut former = Vec::new();
    for _ in 0..100 {
        former.push(Arc::downgrade(&running.service.instance()));
        running.service.reload().unwrap();
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    for user in users {
        assert_ne!(user.await.unwrap(), 0, "there was no load");
    }
    until("the instances of before are gone", async || {
        former.iter().all(|instance| instance.strong_count() == 0).then_some(())
    })
    .await;
    assert_eq!(running.counted("holdfast_config_reloads_total{", "ok").await, 100);
    assert_eq!(tenant.calls().userinfo, 1, "records outlive reloads");
}
