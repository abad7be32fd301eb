//! All parts of the example, running: client → nginx → (relay →) holdfast, and nginx → backend.
//!
//! The files are those of `examples/nginx/`. Only addresses are replaced, all in [`Stack::start_with`]; a
//! string that is to be replaced and does not occur fails the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_devtenant::{EchoBackend, Options, Tenant};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::example::changed;
use crate::support::relay::Relay;
use crate::support::{Holdfast, Reply, exchange_unix, until};

pub struct Stack {
    pub tenant: Tenant,
    pub backend: EchoBackend,
    pub holdfast: Holdfast,
    /// nginx asking over the unix socket, and over TCP.
    pub fronts: [Front; 2],
    nginx: Child,
    directory: TempDir,
}

/// One server of nginx, and what it sends to holdfast.
pub struct Front {
    pub name: &'static str,
    pub relay: Relay,
    socket: PathBuf,
}

/// What differs from the plain example.
#[derive(Default)]
pub struct Changes {
    /// Another backend than the echo.
    pub backend: Option<SocketAddr>,
    /// Further lines of holdfast.toml, which ends in a table of its issuer.
    pub holdfast: String,
    /// Another issuer than the tenant.
    pub issuer: Option<String>,
    /// Further replacements in nginx's files.
    pub nginx: Vec<(&'static str, &'static str)>,
}

impl Stack {
    pub async fn start() -> Self {
        Self::start_with(Changes::default()).await
    }

    pub async fn start_with(changes: Changes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let backend = EchoBackend::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();

        let holdfast_files = Files::of_the_example()
            .replace("127.0.0.1:4180", "127.0.0.1:0")
            .replace("127.0.0.1:9180", "127.0.0.1:0")
            .replace("/run/holdfast/auth.sock", &path("holdfast.sock"))
            .replace("http://127.0.0.1:4190/", &changes.issuer.unwrap_or_else(|| tenant.issuer()));
        let config = format!("{}\n{}", holdfast_files.text("holdfast.toml"), changes.holdfast);
        let holdfast = Holdfast::start(directory.path(), &config, 2).await.ready().await;

        let over_unix = Relay::unix(&path("relay.sock"), holdfast.auth_unix());
        let (over_tcp, relay_address) = Relay::tcp(holdfast.auth_tcp()).await;
        // nginx listens on unix sockets, since it cannot report which port 0 became.
        let mut files = Files::of_the_example()
            .replace("127.0.0.1:8080", &format!("unix:{}", path("front-unix.sock")))
            .replace("127.0.0.1:8081", &format!("unix:{}", path("front-tcp.sock")))
            .replace("127.0.0.1:4191", &changes.backend.unwrap_or(backend.address()).to_string())
            .replace("127.0.0.1:4180", &relay_address.to_string())
            .replace("/run/holdfast/auth.sock", &path("relay.sock"));
        for (from, to) in changes.nginx {
            files = files.replace(from, to);
        }
        files.write(directory.path());
        let nginx = start_nginx(directory.path()).await;
        let front = |name, relay, socket| Front { name, relay, socket: path(socket).into() };
        let fronts = [front("unix", over_unix, "front-unix.sock"), front("tcp", over_tcp, "front-tcp.sock")];
        Self { tenant, backend, holdfast, fronts, nginx, directory }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // nginx goes before its directory does.
        let _ = self.nginx.start_kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("error.log"));
            eprintln!("nginx: {}\nholdfast: {}", log.unwrap_or_default(), self.holdfast.log());
        }
    }
}

impl Front {
    /// A request without a body, on a connection of its own.
    pub async fn request(&self, method: &str, path: &str, headers: &str) -> Reply {
        self.raw(format!(
            "{method} {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    pub async fn get(&self, token: &str) -> Reply {
        self.request("GET", "/page", &bearer(token)).await
    }

    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        exchange_unix(&self.socket, request.as_ref()).await
    }
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn start_nginx(directory: &Path) -> Child {
    // One process instead of a master and its workers: it dies with the test, and drops no privileges, so
    // that its directory may stay private when the test runs as root.
    let mut nginx = Command::new("nginx")
        .args(["-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off;", "-p"])
        .arg(directory)
        .env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run nginx; was `make setup` run? {error}"));
    let socket = directory.join("front-tcp.sock");
    until("nginx listens", async || {
        assert_eq!(nginx.try_wait().unwrap(), None, "nginx has ended");
        UnixStream::connect(&socket).await.ok()
    })
    .await;
    nginx
}

/// The files of `examples/nginx/`, as name and text.
struct Files(Vec<(String, String)>);

impl Files {
    fn of_the_example() -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx");
        let names = ["nginx.conf", "holdfast.toml"].map(str::to_owned).into_iter();
        let snippets = std::fs::read_dir(example.join("snippets")).unwrap();
        let snippets =
            snippets.map(|entry| format!("snippets/{}", entry.unwrap().file_name().to_str().unwrap()));
        let read = |name: String| (name.clone(), std::fs::read_to_string(example.join(name)).unwrap());
        Self(names.chain(snippets).map(read).collect())
    }

    fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.0.iter().any(|(_, text)| text.contains(from)), "the example does not say {from:?}");
        for (_, text) in &mut self.0 {
            *text = changed(text, from, to);
        }
        self
    }

    fn text(&self, name: &str) -> &str {
        &self.0.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn write(&self, directory: &Path) {
        std::fs::create_dir(directory.join("snippets")).unwrap();
        for (name, text) in self.0.iter().filter(|(name, _)| name != "holdfast.toml") {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }
}
