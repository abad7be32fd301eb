//! Redis as people run it: a primary with replicas that sentinels watch, and a cluster. Records, forgetting and
//! revocations are shared as with a single Redis, and nobody is refused while a primary dies or a slot is moved.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "topologies/cluster.rs"]
mod cluster;
#[path = "shared/scene.rs"]
mod scene;
#[path = "topologies/sentinel.rs"]
mod sentinel;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::Reply;
use support::service::Running;

/// Asks about known users again and again, and now and then about a new one, until it is told to stop.
/// Returns how many were asked about, and the replies that let nobody in.
fn load(
    running: &Arc<Running>,
    known: Vec<String>,
    new: Vec<String>,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<(usize, Vec<Reply>)> {
    let (running, stop) = (running.clone(), stop.clone());
    tokio::spawn(async move {
        let (mut new, mut refused, mut count) = (new.into_iter(), Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let next = if count % 50 == 0 { new.next() } else { None };
            let reply = running.ask(next.as_ref().unwrap_or(&known[count % known.len()])).await;
            count += 1;
            if reply.status != 200 {
                refused.push(reply);
            }
        }
        (count, refused)
    })
}
