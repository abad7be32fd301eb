//! A long life of one instance with revocations, against a naive model: whatever comes in between (reloads,
//! restarts, purges, jumps of the clock, backups and restores), who was revoked is refused, and nobody else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "revocation_model/two_instances.rs"]
mod two_instances;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::Tenant;
use serde_json::json;
use support::service::{Running, held_clock, issuer, tenant};
use support::{exchange, until};
use tokio::net::TcpStream;
use tokio::process::Command;

const SUBJECTS: usize = 3;
const LIVES: u64 = 6;
const STEPS: usize = 30;

/// Numbers by a linear congruential generator: the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// The secret that instances share, in this file.
fn shared_secret(file: &Path) -> PathBuf {
    std::fs::write(file, [7; 32]).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_owned()
}

async fn start(config: &str, clock: &Clock) -> Running {
    let running = until("the data directory is free", async || {
        let head = "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let source = Source::text("test.toml", &format!("{head}{config}"));
        let service = Service::start(source, clock.clone()).await.ok()?;
        let auth = service.auth_addresses()[0].parse().unwrap();
        let admin = service.admin_address().parse().unwrap();
        Some(Running { service, auth, admin })
    })
    .await;
    let instance = running.service.instance();
    until("keys", async || instance.issuers.iter().all(|issuer| issuer.is_ready()).then_some(())).await;
    running
}

async fn order(running: &Running, path: &str, body: &str) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let reply = exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await;
    assert_eq!(reply.status, 200, "{path} {body}: {reply:?}");
}

/// Runs a command on the data directory, again and again until the instance has let go of it.
async fn on_directory(arguments: [&str; 5]) {
    until("the store is closed", async || {
        let output = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(arguments).output().await;
        output.unwrap().status.success().then_some(())
    })
    .await;
}

fn subject(number: usize) -> String {
    format!("auth0|{number}")
}

/// A token, its subject, and when it was issued.
fn mint(tenant: &Tenant, number: usize, clock: &Clock) -> (String, usize, u64) {
    let token = tenant.mint().subject(subject(number)).email_direct("a@x.org").expires_in(30 * 86_400);
    (token.claim("n", clock.now().as_millis()).build().unwrap(), number, clock.now().as_secs())
}

async fn live(seed: u64) {
    let mut dice = Dice(seed);
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let follow = |clock: &Clock| tenant.set_time(Some(clock.now().as_secs()));
    follow(&clock);
    let files = tempfile::tempdir().unwrap();
    let (data, backup) = (files.path().join("data"), files.path().join("backup"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let config = format!("[store]\npath = \"{}\"\n{}", text(&data), issuer(&tenant, ""));
    let mut running = start(&config, &clock).await;
    let mut tokens = Vec::new();
    // Of each subject: tokens issued until then are refused.
    let mut model: HashMap<usize, u64> = HashMap::new();
    let mut story = Vec::new();
    for _ in 0..STEPS {
        let (step, number) = (dice.below(10), dice.below(SUBJECTS));
        story.push((step, number));
        match step {
            0 | 1 => {
                tokens.push(mint(&tenant, number, &clock));
            }
            2 | 3 => {
                order(&running, "/revoke", &json!({ "subject": subject(number) }).to_string()).await;
                let until = model.entry(number).or_default();
                *until = (*until).max(clock.now().as_secs());
            }
            4 => {
                order(&running, "/unrevoke", &json!({ "subject": subject(number) }).to_string()).await;
                model.remove(&number);
            }
            5 => {
                clock.advance(Duration::from_secs(1 + 3 * dice.below(600) as u64));
                follow(&clock);
            }
            6 => order(&running, "/purge", "{\"all\": true}").await,
            7 => running.service.reload().unwrap(),
            _ => {
                running.service.drain().await;
                let (data, copy) = (text(&data), text(&backup));
                match (step, backup.exists()) {
                    (9, true) => on_directory(["restore", "--data", &data, "--from", &copy]).await,
                    (9, false) => on_directory(["backup", "--data", &data, "--to", &copy]).await,
                    _ => {}
                }
                running = start(&config, &clock).await;
            }
        }
        for (token, number, issued_at) in &tokens {
            let refused = model.get(number).is_some_and(|until| issued_at <= until);
            let status = running.ask(token).await.status;
            assert_eq!(
                status,
                if refused { 401 } else { 200 },
                "seed {seed}, {story:?}: {number} at {issued_at}"
            );
        }
    }
    running.service.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_revoked_is_refused_whatever_comes_in_between_and_nobody_else() {
    for seed in 0..LIVES {
        live(seed).await;
    }
}
