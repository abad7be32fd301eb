//! A real Redis, on a unix socket in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::until;

/// A running `redis-server` that keeps nothing; it is killed when dropped.
pub struct RedisServer {
    child: Child,
    directory: TempDir,
    options: Vec<String>,
    login: String,
}

impl RedisServer {
    /// Starts one and waits until it answers. `None` if there is no `redis-server`, which fails the test in
    /// CI.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[], "").await
    }

    /// With further options; `login` is the end of the URL of those who may ask.
    pub async fn start_with(options: &[&str], login: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let Some(child) = spawn(directory.path(), &options) else {
            assert!(std::env::var_os("CI").is_none(), "CI must have redis-server; see scripts/setup.sh");
            eprintln!("not tested: there is no redis-server; scripts/setup.sh test installs it");
            return None;
        };
        let server = Self { child, directory, options, login: login.to_owned() };
        server.answers().await;
        Some(server)
    }

    async fn answers(&self) {
        until("redis-server answers", async || {
            let mut redis =
                redis::Client::open(self.url()).ok()?.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").exec_async(&mut redis).await.ok()
        })
        .await;
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Where holdfast finds it.
    pub fn url(&self) -> String {
        format!("unix://{}{}", self.socket().display(), self.login)
    }

    pub async fn client(&self) -> MultiplexedConnection {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(super::PATIENCE));
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// All names that there are, in order.
    pub async fn names(&self) -> Vec<String> {
        let names = redis::cmd("KEYS").arg("*").query_async(&mut self.client().await).await;
        let mut names: Vec<String> = names.unwrap();
        names.sort();
        names
    }

    /// The names of this family's records, without what stands where a record was forgotten.
    pub async fn records(&self, family: &str) -> Vec<String> {
        let mut records = Vec::new();
        for name in self.names().await {
            if name.contains(&format!(":{family}:")) && self.value(&name).await.len() > 8 {
                records.push(name);
            }
        }
        records
    }

    pub async fn value(&self, name: &str) -> Vec<u8> {
        redis::cmd("GET").arg(name).query_async(&mut self.client().await).await.unwrap()
    }

    pub async fn set(&self, name: &str, value: &[u8]) {
        redis::cmd("SET").arg(name).arg(value).exec_async(&mut self.client().await).await.unwrap();
    }

    /// Lets it hold so many bytes: with 1 it is full, with 0 there is no limit.
    pub async fn limit(&self, bytes: u64) {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes).exec_async(&mut self.client().await).await.unwrap();
    }

    /// How often it has carried out this command.
    pub async fn carried_out(&self, command: &str) -> u64 {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut self.client().await).await.unwrap();
        let calls = stats.split(&format!("cmdstat_{command}:calls=")).nth(1);
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }

    /// Waits until its clock has moved on, so that what is verified from now on is younger than what was
    /// forgotten.
    pub async fn moment_passes(&self) {
        let mut client = self.client().await;
        let time = async |client: &mut MultiplexedConnection| {
            let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(client).await.unwrap();
            seconds * 1_000_000 + micros
        };
        let start = time(&mut client).await;
        until("its clock moves", async || (time(&mut client).await > start + 2_000).then_some(())).await;
    }

    /// Waits until there are so many records of a family.
    pub async fn has(&self, family: &str, count: usize) {
        until(&format!("{count} {family} in Redis"), async || {
            (self.records(family).await.len() == count).then_some(())
        })
        .await;
    }

    /// Kills it, with all that it has.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
        // A killed server leaves its socket.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it anew, empty.
    pub async fn restart(&mut self) {
        self.child = spawn(self.directory.path(), &self.options).unwrap();
        self.answers().await;
    }

    /// Sends it a signal by name, such as `STOP` or `CONT`.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }
}

fn spawn(directory: &Path, options: &[String]) -> Option<Child> {
    // Debian keeps servers where only root looks.
    let path = format!("{}:/usr/local/bin:/usr/bin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new("redis-server")
        .env("PATH", path)
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir"])
        .arg(directory)
        .arg("--unixsocket")
        .arg(directory.join("redis.sock"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()
}
