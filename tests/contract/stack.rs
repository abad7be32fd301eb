//! All parts, running: client → proxy → (relay →) holdfast → dev tenant, and proxy → backend.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use holdfast_devtenant::{EchoBackend, Options, Tenant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::certificates::Authority;
use crate::client::{Client, Door};
use crate::marks;
use crate::proxy::{Addresses, Listens, Proxy, TlsFiles};
use crate::support::example::{changed, loopback};
use crate::support::relay::Relay;
use crate::support::{Holdfast, Reply};

/// How long a proxy may take to start, and to answer. Some are large, some are patient, and the machine may
/// be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Stack {
    pub tenant: Tenant,
    pub backend: EchoBackend,
    pub holdfast: Holdfast,
    /// Between the proxy and holdfast.
    pub relay: Relay,
    /// The instances that a proxy of the option `fleet` asks.
    pub fleet: Vec<Instance>,
    pub client: Client,
    pub http2: Client,
    proxy: Child,
    directory: TempDir,
}

/// One of several, which comes back to its address after a restart.
pub struct Instance {
    directory: TempDir,
    config: String,
    pub running: Option<Holdfast>,
}

impl Instance {
    /// On a loopback address of its own, so that its port stays free while it is away.
    async fn start(config: &str, loopback: Ipv4Addr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |port| config.replacen("127.0.0.1:0", &format!("{loopback}:{port}"), 1);
        let running = Holdfast::start(directory.path(), &at(0), 1).await.ready().await;
        let config = at(running.auth_tcp().port());
        Self { directory, config, running: Some(running) }
    }

    fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().auth_tcp()
    }
}

/// What differs from the plain example.
#[derive(Default)]
struct Changes<'c> {
    auth: Option<SocketAddr>,
    requirements: Option<&'c str>,
    /// What is replaced in holdfast's configuration.
    config: &'c [(&'c str, &'c str)],
    options: &'c [&'c str],
    /// Who signs the certificates of server and clients, if there is to be TLS.
    authority: Option<&'c Authority>,
}

impl Stack {
    pub async fn start(proxy: Proxy) -> Self {
        Self::start_with(proxy, Changes::default()).await
    }

    /// As the example says by its marks for these options: `rules`, `header`, `preflight`, `login`, `fleet`.
    pub async fn start_for(proxy: Proxy, options: &[&str]) -> Self {
        Self::start_with(proxy, Changes { options, ..Changes::default() }).await
    }

    /// The same, and the proxy speaks TLS to its clients. The authority signs for them.
    pub async fn start_with_tls(proxy: Proxy, options: &[&str]) -> (Self, Authority) {
        let authority = Authority::new("clients and server");
        let changes = Changes { options, authority: Some(&authority), ..Changes::default() };
        (Self::start_with(proxy, changes).await, authority)
    }

    /// With another auth server in holdfast's place.
    pub async fn start_with_auth(proxy: Proxy, auth: SocketAddr) -> Self {
        Self::start_with(proxy, Changes { auth: Some(auth), ..Changes::default() }).await
    }

    /// With other requirements on `/admin` than the scope `admin`.
    pub async fn start_requiring(proxy: Proxy, requirements: &str) -> Self {
        Self::start_with(proxy, Changes { requirements: Some(requirements), ..Changes::default() }).await
    }

    /// With these replacements in holdfast's configuration.
    pub async fn start_configured(proxy: Proxy, config: &[(&str, &str)]) -> Self {
        Self::start_with(proxy, Changes { config, ..Changes::default() }).await
    }

    async fn start_with(proxy: Proxy, changes: Changes<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let backend = EchoBackend::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();

        let mut files = proxy.read();
        let secret = directory.path().join("login.secret");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        if !changes.options.is_empty() {
            for (_, text) in &mut files {
                *text = marks::with(changes.options, text);
            }
        }
        let (_, config) = files.pop().unwrap();
        let config = replace(
            vec![("holdfast.toml", config)],
            &[
                ("127.0.0.1:4180", "127.0.0.1:0".to_owned()),
                ("127.0.0.1:9180", "127.0.0.1:0".to_owned()),
                ("http://127.0.0.1:4190/", tenant.issuer()),
                // In a comment, unless the option is `login`.
                ("/etc/holdfast/login.secret", secret.display().to_string()),
            ],
        );
        let mut config = config[0].1.replace(", \"unix:/run/holdfast/auth.sock\"", "");
        for (from, to) in changes.config {
            assert!(config.contains(from), "the example does not say {from:?}");
            config = changed(&config, from, to);
        }
        let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        let (relay, relay_address) = Relay::tcp(holdfast.auth_tcp()).await;
        let mut fleet = Vec::new();
        let is_fleet = changes.options.contains(&"fleet");
        for _ in 0..if is_fleet { 3 } else { 0 } {
            fleet.push(Instance::start(&config, loopback()).await);
        }
        // Without a relay, which would hide that nothing listens behind it.
        let at = |place: usize| fleet.get(place).map_or(relay_address, Instance::address);

        let addresses = Addresses {
            front: directory.path().join("front.sock"),
            front_http2: directory.path().join("front-http2.sock"),
            auth: changes.auth.unwrap_or(at(0)),
            others: [at(1), at(2)],
            own: loopback(),
            backend: backend.address(),
            tls: changes.authority.map(|authority| tls_files(authority, directory.path())),
        };
        let mut replaced = (proxy.addresses)(&addresses);
        replaced.extend((proxy.fleet)(&addresses).into_iter().filter(|_| is_fleet));
        replaced.extend(changes.requirements.map(|requirements| ("scope=admin", requirements.to_owned())));
        for (name, text) in replace(files, &replaced) {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let (child, door) = start(&proxy, directory.path(), &addresses);
        let http2 = match proxy.listens {
            Listens::UnixAndUnixForHttp2 => Door::Unix(addresses.front_http2),
            Listens::Unix | Listens::Given => door.clone(),
        };
        let tls = changes.authority.is_some();
        let (client, http2) = (Client { door, tls }, Client { door: http2, tls });
        let mut stack =
            Self { tenant, backend, holdfast, relay, fleet, client, http2, proxy: child, directory };
        stack.until_it_serves(&proxy).await;
        stack
    }

    /// Waits for the first page from the backend, which also shows that the proxy has read all its files.
    async fn until_it_serves(&mut self, proxy: &Proxy) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.client.answers("/public/").await {
            let ended = self.proxy.try_wait().unwrap();
            assert_eq!(ended, None, "{} has ended: {}", proxy.name, self.proxy_log());
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} does not serve: {}",
                proxy.name,
                self.proxy_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A token that is good, with its email.
    pub fn alice(&self) -> String {
        self.tenant.mint().email_direct("alice@example.com").build().unwrap()
    }

    /// How often the backend is asked while `asking` goes on, and what came of it.
    pub async fn asks<T>(&self, asking: impl Future<Output = T>) -> (u64, T) {
        let before = self.backend.requests();
        let result = asking.await;
        (self.backend.requests() - before, result)
    }

    /// Asserts that this request is refused with one of these statuses, and never reaches the backend.
    pub async fn assert_refused(&self, statuses: &[u16], request: &[u8]) -> Reply {
        let shown = String::from_utf8_lossy(&request[..request.len().min(400)]).into_owned();
        let (asks, reply) = self.asks(self.client.raw(request)).await;
        assert!(statuses.contains(&reply.status), "{statuses:?} for {shown}: {reply:?}");
        assert_eq!(asks, 0, "the backend was asked: {shown}");
        reply
    }

    /// Ends an instance of the fleet as an operator does, and waits until it is gone.
    pub async fn stop(&mut self, place: usize) {
        let mut running = self.fleet[place].running.take().unwrap();
        running.signal("TERM").await;
        assert_eq!(running.ended().await, Some(0), "{}", running.log());
    }

    /// Starts it again where it was, and waits until it is ready.
    pub async fn restart(&mut self, place: usize) {
        let instance = &mut self.fleet[place];
        let started = Holdfast::start(instance.directory.path(), &instance.config, 1).await;
        instance.running = Some(started.ready().await);
    }

    fn proxy_log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("proxy.log") + &read("error.log")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The proxy goes before its directory does.
        let _ = self.proxy.start_kill();
        if std::thread::panicking() {
            eprintln!("proxy: {}\nholdfast: {}", self.proxy_log(), self.holdfast.log());
        }
    }
}

fn tls_files(authority: &Authority, directory: &Path) -> TlsFiles {
    let server = authority.server(directory, "server");
    let both = directory.join("both.pem");
    let parts = [&server.certificate, &server.key].map(|part| std::fs::read_to_string(part).unwrap());
    std::fs::write(&both, parts.concat()).unwrap();
    let authority = authority.file(directory, "authority.pem");
    TlsFiles { certificate: server.certificate, key: server.key, both, authority }
}

/// Replaces in all files; what does not occur in any fails the test.
fn replace(
    mut files: Vec<(&'static str, String)>,
    changes: &[(&'static str, String)],
) -> Vec<(&'static str, String)> {
    for (from, to) in changes {
        assert!(files.iter().any(|(_, text)| text.contains(from)), "the example does not say {from:?}");
        for (_, text) in &mut files {
            *text = changed(text, from, to);
        }
    }
    files
}

fn start(proxy: &Proxy, directory: &Path, addresses: &Addresses) -> (Child, Door) {
    let log = std::fs::File::create(directory.join("proxy.log")).unwrap();
    let mut command;
    let door;
    if proxy.listens == Listens::Given {
        // The socket arrives as standard input; the shell moves it to where LISTEN_FDS begins.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        door = Door::Tcp(listener.local_addr().unwrap());
        command = Command::new("sh");
        let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$ exec \"$@\"";
        command.args(["-c", script, "sh"]).args(proxy.command).stdin(Stdio::from(OwnedFd::from(listener)));
    } else {
        door = Door::Unix(addresses.front.clone());
        command = Command::new(proxy.command[0]);
        command.args(&proxy.command[1..]).stdin(Stdio::null());
    }
    let child = command
        .current_dir(directory)
        .env("PATH", format!("{}:{}:/usr/local/sbin:/usr/sbin", installed(), std::env::var("PATH").unwrap()))
        .env("HOME", directory)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}; was `make setup` run? {error}", proxy.name));
    (child, door)
}

/// Where scripts/setup.sh puts programs that come from PyPI.
fn installed() -> String {
    let python = std::env::var("HOLDFAST_TEST_PYTHON").unwrap_or_default();
    Path::new(&python).parent().map(|bin| bin.display().to_string()).unwrap_or_default()
}

/// Fails instead of hanging.
pub async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}
