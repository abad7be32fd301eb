//! Three instances of holdfast behind the proxy, restarted one after another while clients ask, as the
//! example has it by its marks for `fleet`. No request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::{PATIENCE, Stack};
use crate::support::until;

/// How many requests have to be answered in each state of the fleet before it changes again.
const ASKED: u64 = 40;

/// How many ask at once: more than Envoy retries at a time by default.
const CLIENTS: u64 = 8;

pub async fn a_rolling_restart_costs_no_request(proxy: Proxy) {
    let mut stack = Stack::start_for(proxy, &["fleet"]).await;
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let token = bearer(&stack.alice());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, token) = (stack.client.clone(), token.clone());
            let (answered, failed, stop) = (answered.clone(), failed.clone(), stop.clone());
            // An auth server is asked about a POST as well.
            let request = request(if number == 0 { "POST" } else { "GET" }, "/page", &token);
            let request = match number {
                0 => String::from_utf8(request).unwrap().replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
                _ => String::from_utf8(request).unwrap(),
            };
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.raw(request.as_bytes()).await;
                    if reply.status != 200 {
                        eprintln!("{reply:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async || {
        let enough = answered.load(Ordering::Relaxed) + ASKED;
        let asking = async {
            while answered.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap();
    };
    more().await;
    for place in 0..stack.fleet.len() {
        stack.stop(place).await;
        more().await;
        stack.restart(place).await;
        more().await;
    }
    // Each has its share again.
    for (place, instance) in stack.fleet.iter().enumerate() {
        until(&format!("instance {place} is asked after its restart"), async || {
            let asked = instance.running.as_ref().unwrap().counted("holdfast_requests_total", "").await;
            (asked > 0).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (answered, failed) = (answered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "{}: of {answered} requests", proxy.name);
}
