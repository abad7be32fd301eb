//! A log without a reader: a hung log shipper at the other end of stderr.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::io::{PipeReader, PipeWriter, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use holdfast_devtenant::{Options, Tenant};
use support::service::{counted, request};
use support::{PATIENCE, Reply, address_after, exchange, until};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

async fn get(address: SocketAddr, path: &str, lines: &str) -> Reply {
    let stream = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(PATIENCE, exchange(stream, &request(path, lines))).await.unwrap()
}

/// holdfast with a pipe as its log, and every line that there is. Nothing is read behind the lines that tell
/// its addresses.
async fn start(tenant: &Tenant, directory: &Path) -> (Child, PipeReader, SocketAddr, SocketAddr) {
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\n[[issuer]]\n\
         url = \"{}\"\naudience = [\"{}\"]\n",
        tenant.issuer(),
        tenant.audience()
    );
    std::fs::write(directory.join("holdfast.toml"), config).unwrap();
    let (mut log, stderr) = std::io::pipe().unwrap();
    let holdfast = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["serve", "--config", "holdfast.toml"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let [auth, admin] = ["auth", "admin"].map(|kind| listener(&mut log, kind));
        (log, auth, admin)
    });
    let (log, auth, admin) = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    until("keys", async || (get(admin, "/readyz", "").await.status == 200).then_some(())).await;
    (holdfast, log, auth, admin)
}

/// Reads to the end of the line that tells where this listener is.
fn listener(log: &mut PipeReader, kind: &str) -> SocketAddr {
    let words = format!("{kind} listener on ");
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            log.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        if let Some(address) = address_after(&words, &String::from_utf8_lossy(&line)) {
            return address.trim_end().parse().unwrap();
        }
    }
}

/// A pipe holds 64 KiB, and a thousand lines wait behind it; asks until there are more.
async fn fill(auth: SocketAddr, admin: SocketAddr) {
    for asked in 0..20_000 {
        let bearer = format!("Authorization: Bearer bad-{asked}.a.b\r\n");
        assert_eq!(get(auth, "/auth", &bearer).await.status, 401);
        let name = "holdfast_log_lines_dropped_total";
        if asked % 100 == 0 && counted(&get(admin, "/metrics", "").await, name, "") >= 10 {
            return;
        }
    }
    panic!("no line was dropped");
}

async fn ends(mut holdfast: Child) {
    let pid = holdfast.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap().success());
    assert_eq!(tokio::time::timeout(PATIENCE, holdfast.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing_and_what_was_dropped_is_told() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (holdfast, mut log, auth, admin) = start(&tenant, directory.path()).await;
    fill(auth, admin).await;
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let known = get(auth, "/auth", &format!("Authorization: Bearer {token}\r\n")).await;
    assert_eq!((known.status, get(admin, "/healthz", "").await.status), (200, 200));

    // The log is read again.
    let read = Arc::new(Mutex::new(Vec::new()));
    let all = read.clone();
    let reading = std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(length @ 1..) = log.read(&mut some) {
            all.lock().unwrap().extend_from_slice(&some[..length]);
        }
    });
    let has = |words: &str| String::from_utf8_lossy(&read.lock().unwrap()).contains(words);
    until("the count is told", async || has("log lines were dropped: the log was not read").then_some(()))
        .await;
    ends(holdfast).await;
    reading.join().unwrap();
    assert!(has("stopping: no new connections"), "the last lines come out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_a_reader_either() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (holdfast, _log, auth, admin) = start(&tenant, directory.path()).await;
    fill(auth, admin).await;
    ends(holdfast).await;
}

/// A pipe in which there is no room, and its other end.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    // Opened again, so that it alone does not block. Down to single bytes, since the room may be less than a
    // page.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let filler = tokio::net::unix::pipe::OpenOptions::new().open_sender(path).unwrap();
    for length in [4096, 1] {
        while filler.try_write(&vec![b'x'; length]).is_ok() {}
    }
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_ends_though_nobody_reads_why() {
    let directory = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let issuer = "[[issuer]]\nurl = \"http://127.0.0.1:1/\"\naudience = [\"a\"]\n";
    for (config, code) in [
        ("[auth]\nlisten = 7\n".to_owned(), 2),
        (format!("[auth]\nlisten = \"{taken}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{issuer}"), 1),
    ] {
        std::fs::write(directory.path().join("holdfast.toml"), &config).unwrap();
        let (_log, stderr) = full_pipe();
        let mut holdfast = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["serve", "--config", "holdfast.toml"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let ended = tokio::time::timeout(PATIENCE, holdfast.wait()).await;
        assert_eq!(ended.expect("it waits for a reader").unwrap().code(), Some(code), "{config}");
    }
}
