//! A real Redis, on a unix socket in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::until;

/// The configuration of a sentinel, in its directory.
const SENTINEL: &str = "sentinel.conf";

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
        let mut server = Self::launch(options.iter().map(|option| (*option).to_owned()).collect(), login)?;
        assert!(server.answers().await, "redis-server ended");
        Some(server)
    }

    /// One that listens on a TCP port of 127.0.0.1, too: on the option before it, `--port` or `--tls-port`.
    pub async fn start_on(port_option: &str, options: &[&str]) -> Option<(Self, u16)> {
        loop {
            // Redis takes no port 0 for "any". Another program may take the port first.
            let port = free_port();
            let mut all = vec![port_option.to_owned(), port.to_string()];
            all.extend(options.iter().map(|option| (*option).to_owned()));
            let mut server = Self::launch(all, "")?;
            if server.answers().await {
                return Some((server, port));
            }
        }
    }

    /// A sentinel with these lines of configuration, and its port, which stands after `port_line`.
    pub async fn start_sentinel(port_line: &str, lines: &str) -> Option<(Self, u16)> {
        loop {
            let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
            let own = format!(
                "port 0\n{port_line} {port}\nbind 127.0.0.1\nunixsocket {0}/redis.sock\ndir {0}\n{lines}",
                directory.path().display()
            );
            std::fs::write(directory.path().join(SENTINEL), own).unwrap();
            let mut server = Self::launch_in(directory, Vec::new(), "")?;
            if server.answers().await {
                return Some((server, port));
            }
        }
    }

    fn launch(options: Vec<String>, login: &str) -> Option<Self> {
        Self::launch_in(tempfile::tempdir().unwrap(), options, login)
    }

    fn launch_in(directory: TempDir, options: Vec<String>, login: &str) -> Option<Self> {
        let Some(child) = spawn(directory.path(), &options) else {
            assert!(std::env::var_os("CI").is_none(), "CI must have redis-server; see scripts/setup.sh");
            eprintln!("not tested: there is no redis-server; scripts/setup.sh test installs it");
            return None;
        };
        Some(Self { child, directory, options, login: login.to_owned() })
    }

    /// Waits until it answers; false if it ended.
    async fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        until("redis-server answers", async || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let mut redis = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").exec_async(&mut redis).await.is_ok().then_some(true)
        })
        .await
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
        // A replica that becomes the primary ends all connections, also one that is just being made.
        until("a connection to redis-server", async || {
            client.get_multiplexed_async_connection_with_config(&config).await.ok()
        })
        .await
    }

    /// A section of what it says of itself. Nothing, if it closes the connection, as it does when it becomes a
    /// primary.
    pub async fn info(&self, section: &str) -> Option<String> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("INFO").arg(section).query_async(&mut redis).await.ok()
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

    /// Starts it again, empty.
    pub async fn restart(&mut self) {
        self.child = spawn(self.directory.path(), &self.options).unwrap();
        assert!(self.answers().await, "redis-server ended");
    }

    /// Sends it a signal by name, such as `STOP` or `CONT`.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(directory: &Path, options: &[String]) -> Option<Child> {
    // Debian keeps servers where only root looks.
    let path = format!("{}:/usr/local/bin:/usr/bin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("redis-server");
    if directory.join(SENTINEL).exists() {
        command.arg(directory.join(SENTINEL)).arg("--sentinel");
    } else {
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(["--bind", "127.0.0.1", "--dir"])
            .arg(directory)
            .arg("--unixsocket")
            .arg(directory.join("redis.sock"))
            .args(options);
    }
    command.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().ok()
}

/// A certificate for 127.0.0.1 that vouches for itself.
pub fn certificate(certificate: &str, key: &str) {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let pair = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let mut name = openssl::x509::X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "redis").unwrap();
    let name = name.build();
    let mut builder = openssl::x509::X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&openssl::bn::BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&pair).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    let names =
        SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    // webpki wants the end of a chain to be no authority; trusted by itself it may be both.
    builder.append_extension(BasicConstraints::new().build().unwrap()).unwrap();
    builder.sign(&pair, MessageDigest::sha256()).unwrap();
    std::fs::write(certificate, builder.build().to_pem().unwrap()).unwrap();
    std::fs::write(key, pair.private_key_to_pem_pkcs8().unwrap()).unwrap();
}
