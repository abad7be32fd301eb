//! The real holdfast binary for tests, and a client that shows raw answers.
//!
//! Ports are never guessed: holdfast binds port 0, and its log says which port that became.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

pub mod callgrind;
pub mod curl;
pub mod dpop;
pub mod example;
pub mod node;
pub mod page;
pub mod redis;
pub mod relay;
pub mod service;
pub mod small_disk;
pub mod yaml;

/// How long a test waits for what must come before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The headers of an identity, as holdfast gives them by default.
pub const IDENTITY: [&str; 6] =
    ["x-user-email", "x-user-email-encoding", "x-user-id", "x-auth-tier", "x-auth-age", "x-auth-source"];

/// A running `holdfast serve`; it is killed when dropped.
#[derive(Debug)]
pub struct Holdfast {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Where it listens for questions: addresses as the log has them, such as `127.0.0.1:41234` or
    /// `unix:/path`.
    pub auth: Vec<String>,
    /// Where it listens for metrics and health.
    pub admin: SocketAddr,
}

impl Holdfast {
    /// Writes `config` to `holdfast.toml` in `directory`, serves it, and waits until each of its auth
    /// listeners is there, and the admin listener.
    pub async fn start(directory: &Path, config: &str, auth_listeners: usize) -> Self {
        Self::start_with(directory, config, auth_listeners, &[]).await
    }

    /// The same with these variables.
    pub async fn start_with(
        directory: &Path,
        config: &str,
        auth_listeners: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        std::fs::write(directory.join("holdfast.toml"), config).unwrap();
        Self::run(directory, &["serve", "--config", "holdfast.toml"], auth_listeners, variables).await
    }

    /// Runs it in `directory` with these arguments, and waits as [`Holdfast::start`] does.
    pub async fn run(
        directory: &Path,
        arguments: &[&str],
        auth_listeners: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(arguments);
        Self::launch(command, directory, auth_listeners, variables).await
    }

    /// Runs this command, which has to become holdfast, and waits as [`Holdfast::start`] does.
    pub async fn launch(
        mut command: Command,
        directory: &Path,
        auth_listeners: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut child = command
            .current_dir(directory)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();

        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut auth, mut admin, mut log) = (Vec::new(), None, String::new());
        while auth.len() < auth_listeners || admin.is_none() {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            let Ok(Ok(Some(line))) = line else {
                panic!("holdfast did not start to listen: {command:?}\n{log}")
            };
            auth.extend(address_after("auth listener on ", &line));
            admin = admin.or(address_after("admin listener on ", &line));
            log = log + &line + "\n";
        }

        let log = Arc::new(Mutex::new(log));
        let rest = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                *rest.lock().unwrap() += &(line + "\n");
            }
        });
        let admin = admin.unwrap();
        let admin = admin.strip_prefix("tls:").unwrap_or(&admin).parse().unwrap();
        Self { child, log, auth, admin }
    }

    /// Waits until it knows the issuer's keys.
    pub async fn ready(self) -> Self {
        until(&format!("/readyz says 200; the log: {}", self.log()), async || {
            (self.admin("/readyz").await.status == 200).then_some(())
        })
        .await;
        self
    }

    /// Asks about a token as a proxy does.
    pub async fn ask(&self, token: &str) -> Reply {
        let request = service::request("/auth", &format!("Authorization: Bearer {token}\r\n"));
        exchange(TcpStream::connect(self.auth_tcp()).await.unwrap(), &request).await
    }

    /// Gets a page of the admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        exchange(TcpStream::connect(self.admin).await.unwrap(), &service::request(path, "")).await
    }

    /// The sum of the metrics whose line begins with `name` and contains `label`.
    pub async fn counted(&self, name: &str, label: &str) -> u64 {
        service::counted(&self.admin("/metrics").await, name, label)
    }

    /// The first TCP address where it listens for questions.
    pub fn auth_tcp(&self) -> SocketAddr {
        self.auth.iter().find_map(|address| address.parse().ok()).unwrap()
    }

    /// The first unix socket where it listens for questions.
    pub fn auth_unix(&self) -> PathBuf {
        self.auth.iter().find_map(|address| address.strip_prefix("unix:")).unwrap().into()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The line of its log with these words, once it is there. A line arrives later than what it tells.
    pub async fn told(&self, words: &str) -> String {
        until(words, async || self.log().lines().find(|line| line.contains(words)).map(str::to_owned)).await
    }

    /// Sends it a signal by name, such as `TERM` or `HUP`.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().await.unwrap();
        assert!(status.success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The most memory that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How long its threads have run so far.
    pub fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let ran = tasks.map(|task| {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().unwrap().parse().unwrap_or(0)
        });
        Duration::from_nanos(ran.sum())
    }

    /// Waits until it has ended by itself, and gives its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }

    /// Kills it, as a crash would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Drop for Holdfast {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of holdfast:\n{}", self.log());
        }
    }
}

/// The address that a line of the log tells after these words.
pub fn address_after(words: &str, line: &str) -> Option<String> {
    let address = line.split_once(words)?.1;
    Some(address.split(['"', ' ', '\u{1b}']).next()?.to_owned())
}

/// Asks again and again until there is an answer, or [`PATIENCE`] is over; `what` says what never came.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// An answer; headers in order, names in lower case.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    /// The values of a header, one for each of its lines.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Sends these bytes over a connection of its own and reads the answer to its end; the request must ask for
/// `Connection: close`.
pub async fn exchange(stream: impl AsyncRead + AsyncWrite, request: &[u8]) -> Reply {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut bytes = Vec::new();
    // At the same time, and without minding a broken pipe: the server may answer before it has read all.
    let (_, read) =
        tokio::join!(to.write_all(request), tokio::time::timeout(PATIENCE, from.read_to_end(&mut bytes)));
    let text = String::from_utf8_lossy(&bytes);
    let request = String::from_utf8_lossy(&request[..request.len().min(500)]);
    assert!(read.is_ok(), "no end of the answer: {text} to {request}");
    parse(&text).unwrap_or_else(|| panic!("no answer: {text:?} to {request}"))
}

/// The same to a unix socket.
pub async fn exchange_unix(path: &Path, request: &[u8]) -> Reply {
    exchange(UnixStream::connect(path).await.unwrap(), request).await
}

/// Reads an answer; `None` if its head has not ended.
pub fn parse(text: &str) -> Option<Reply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Some(Reply { status, headers, body: body.to_owned() })
}
