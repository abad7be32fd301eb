//! Crowds of users on a held clock: rushes, floods of garbage, a cold start, and eight hours with a storm and
//! an outage. Real HTTP, and calls counted by the dev tenant itself. `make drills` prints the table and draws
//! pictures.
//!
//! Apart from the other drills, because they keep the machine busy, and some of those mind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "support/drill.rs"]
mod drill;

#[path = "drills/crowd.rs"]
mod crowd;
#[path = "drills/fleet_rush.rs"]
mod fleet_rush;
#[path = "drills/garbage.rs"]
mod garbage;
#[path = "drills/picture.rs"]
mod picture;
#[path = "drills/promise.rs"]
mod promise;
#[path = "drills/rush.rs"]
mod rush;
