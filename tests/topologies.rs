//! Redis as people run it: a primary with replicas that sentinels watch. Records, forgetting and revocations
//! are shared as with a single Redis, and nobody is refused while a primary dies.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/scene.rs"]
mod scene;
#[path = "topologies/sentinel.rs"]
mod sentinel;
mod support;
