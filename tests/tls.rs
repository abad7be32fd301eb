//! TLS and mutual TLS on the auth listener: real certificates, curl, and the real nginx with the example's
//! files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "tls/certificates.rs"]
mod certificates;

use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use certificates::{Authority, Identity};
use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::guard::{Priority, Reason};
use holdfast::issuer::CannotTell;
use holdfast::issuer::cause::NoConnection;
use holdfast::issuer::client::CallError;
use holdfast::service::Service;
use holdfast_devtenant::{EchoBackend, Options, Tenant};
use openssl::ssl::{SslAcceptor, SslConnector, SslFiletype, SslMethod, SslVersion};
use support::curl::curl;
use support::example::changed;
use support::service::Running;
use support::{Holdfast, PATIENCE, exchange, exchange_unix, until};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

/// A tenant, a directory of certificates, and the configuration that uses them.
struct Scene {
    tenant: Tenant,
    directory: TempDir,
    authority: Authority,
    ca: PathBuf,
    server: Identity,
}

impl Scene {
    async fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA");
        let ca = authority.file(directory.path(), "ca.pem");
        let server = authority.server(directory.path(), "server");
        Self { tenant: Tenant::start(Options::default()).await.unwrap(), directory, authority, ca, server }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration; `auth` are further lines of `[auth]`, `tls` of `[auth.tls]`.
    fn config(&self, auth: &str, tls: &str) -> String {
        format!(
            "[auth]\nlisten = [\"tls:127.0.0.1:0\", \"unix:{}/auth.sock\"]\n{auth}\n[auth.tls]\ncertificate = {:?}\n\
             key = {:?}\n{tls}\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n",
            self.path().display(),
            self.server.certificate,
            self.server.key,
            self.tenant.issuer(),
            self.tenant.audience()
        )
    }

    async fn start(&self, auth: &str, tls: &str) -> Holdfast {
        Holdfast::start(self.path(), &self.config(auth, tls), 2).await.ready().await
    }

    fn token(&self) -> String {
        self.tenant.mint().email_direct("alice@example.com").build().unwrap()
    }

    /// What curl says, as `exit code, status, HTTP version`.
    async fn curl(&self, holdfast: &Holdfast, arguments: &[&str]) -> (Option<i32>, String) {
        let credential = ["--header", &format!("Authorization: Bearer {}", self.token())];
        let url = format!("https://{}/auth", address(holdfast));
        curl(&url, "%{http_code} %{http_version}", &[&credential, arguments].concat()).await
    }

    fn trusting(&self) -> [&str; 2] {
        ["--cacert", self.ca.to_str().unwrap()]
    }
}

fn address(holdfast: &Holdfast) -> SocketAddr {
    holdfast.auth.iter().find_map(|name| name.strip_prefix("tls:")).unwrap().parse().unwrap()
}

fn showing(identity: &Identity) -> [&str; 4] {
    ["--cert", identity.certificate.to_str().unwrap(), "--key", identity.key.to_str().unwrap()]
}

fn answered() -> (Option<i32>, String) {
    (Some(0), "200 1.1".to_owned())
}

async fn requests(holdfast: &Holdfast) -> f64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), request).await.body;
    let lines = metrics.lines().filter(|line| line.starts_with("holdfast_requests_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_answered_over_tls_by_a_server_that_it_can_verify_and_the_unix_socket_stays_plain() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", "").await;
    assert_eq!(scene.curl(&holdfast, &scene.trusting()).await, answered());
    let [option, ca] = scene.trusting();
    // A client that also speaks HTTP/2 gets HTTP/1.1 by ALPN.
    assert_eq!(scene.curl(&holdfast, &[option, ca, "--http2"]).await, answered());
    for version in ["1.2", "1.3"] {
        let arguments = [option, ca, &format!("--tlsv{version}"), "--tls-max", version];
        assert_eq!(scene.curl(&holdfast, &arguments).await, answered(), "{version}");
    }
    let (code, _) = scene.curl(&holdfast, &[]).await;
    assert_eq!(code, Some(60), "curl trusts a CA that it was not told of");

    let plain = b"GET /auth HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange_unix(&holdfast.auth_unix(), plain).await.status, 401);
    let mut stream = TcpStream::connect(address(&holdfast)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, plain).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP was answered where TLS is spoken");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_of_tls_are_refused() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", "").await;
    let connect = |most: SslVersion| {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        // Otherwise this client would not offer what the server must refuse.
        connector.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        connector.set_min_proto_version(Some(SslVersion::TLS1)).unwrap();
        connector.set_max_proto_version(Some(most)).unwrap();
        connector.set_ca_file(&scene.ca).unwrap();
        let connector = connector.build();
        let address = address(&holdfast);
        tokio::task::spawn_blocking(move || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            connector.connect("127.0.0.1", stream).map(|_| ()).map_err(|error| error.to_string())
        })
    };
    assert_eq!(connect(SslVersion::TLS1_2).await.unwrap(), Ok(()));
    let refused = connect(SslVersion::TLS1_1).await.unwrap().unwrap_err();
    assert!(refused.contains(" alert "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_nobody_asks_without_a_certificate_of_it() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", &format!("client_ca = {:?}", scene.ca)).await;
    let good = scene.authority.client(scene.path(), "client");
    let stranger = Authority::new("test CA").client(scene.path(), "stranger");
    let server = scene.authority.server(scene.path(), "other-server");
    let [option, ca] = scene.trusting();
    let with = |identity| {
        let [cert, certificate, key, file] = showing(identity);
        [option, ca, cert, certificate, key, file]
    };
    let before = requests(&holdfast).await;
    for (who, arguments) in [
        ("nobody", &[option, ca][..]),
        ("a client of another CA of the same name", &with(&stranger)[..]),
        ("a certificate that is for servers", &with(&server)[..]),
    ] {
        let (code, written) = scene.curl(&holdfast, arguments).await;
        assert_ne!(code, Some(0), "{who}: {written}");
        assert!(written.starts_with("000"), "{who}: {written}");
    }
    assert_eq!(requests(&holdfast).await, before, "a request was read without a handshake");
    assert_eq!(scene.curl(&holdfast, &with(&good)).await, answered());
    assert_eq!(requests(&holdfast).await, before + 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_handshake_keeps_no_place() {
    let scene = Scene::set().await;
    let holdfast = scene.start("max_connections = 1", "handshake_timeout = \"2s\"").await;
    let mut silent = TcpStream::connect(address(&holdfast)).await.unwrap();
    // The only place is taken; the next client gets it when the silent one has been given up.
    assert_eq!(scene.curl(&holdfast, &scene.trusting()).await, answered());
    assert_eq!(tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_handshake() {
    let scene = Scene::set().await;
    let text = scene.config("drain_timeout = \"10m\"", "handshake_timeout = \"60s\"");
    let service = Service::start(Source::text("test.toml", &text), Clock::system()).await.unwrap();
    let address = service.auth_addresses()[0].strip_prefix("tls:").unwrap().to_owned();
    let _silent = TcpStream::connect(&address).await.unwrap();
    tokio::time::timeout(PATIENCE, service.drain()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_a_new_certificate_and_keeps_the_old_one_if_the_new_is_bad() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", "").await;
    let renewed = Authority::new("renewed CA");
    let new_ca = renewed.file(scene.path(), "new-ca.pem");
    let trusting_new = ["--cacert", new_ca.to_str().unwrap()];

    // The certificate is there, its key is not yet: as in the midst of a renewal.
    let new = renewed.server(scene.path(), "renewed");
    std::fs::copy(&new.certificate, &scene.server.certificate).unwrap();
    holdfast.signal("HUP").await;
    holdfast.told("the new configuration is invalid").await;
    holdfast.told("auth.tls.key").await;
    assert_eq!(scene.curl(&holdfast, &scene.trusting()).await, answered());

    std::fs::copy(&new.key, &scene.server.key).unwrap();
    holdfast.signal("HUP").await;
    until("the new certificate", async || {
        (scene.curl(&holdfast, &trusting_new).await == answered()).then_some(())
    })
    .await;
    assert_eq!(scene.curl(&holdfast, &scene.trusting()).await.0, Some(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_good_stop_the_start_with_the_setting_and_the_file() {
    let scene = Scene::set().await;
    let start = async |tls: &str| {
        let source = Source::text("test.toml", &scene.config("", tls));
        Service::start(source, Clock::system()).await.map(|_| ()).unwrap_err().to_string()
    };
    let empty = scene.path().join("empty.pem");
    std::fs::write(&empty, "no PEM\n").unwrap();
    for (tls, expected) in [
        (format!("client_ca = {empty:?}"), "auth.tls.client_ca: "),
        (format!("client_ca = {:?}", scene.path().join("nowhere")), "cannot be read"),
    ] {
        let said = start(&tls).await;
        assert!(said.contains(expected), "{said}");
    }
    std::fs::set_permissions(&scene.server.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = start("").await;
    assert!(said.starts_with("auth.tls.key: ") && said.contains("chmod 600"), "{said}");
    std::fs::set_permissions(&scene.server.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&scene.server.key, "no PEM\n").unwrap();
    let said = start("").await;
    assert!(said.contains("no usable private key"), "{said}");
}

/// An HTTPS server with this certificate: its address, and how many requests got through a handshake.
fn https_server(identity: &Identity) -> (SocketAddr, Arc<AtomicU64>) {
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls()).unwrap();
    acceptor.set_private_key_file(&identity.key, SslFiletype::PEM).unwrap();
    acceptor.set_certificate_chain_file(&identity.certificate).unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let count = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(mut stream) = acceptor.accept(stream)
                && stream.read(&mut [0; 1]).is_ok_and(|read| read > 0)
            {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_certificate_nobody_vouches_for_is_told_nothing_and_counts_as_failing() {
    let scene = Scene::set().await;
    let (address, requests) = https_server(&scene.server);
    let config = format!("[[issuer]]\nurl = \"https://{address}/\"\naudience = [\"a\"]\n");
    let running = Running::start_without_keys(&config, Clock::system()).await;
    let issuer = running.service.instance().issuers.iter().next().unwrap().clone();
    let mut failures = 0;
    let suppressed = loop {
        match issuer.refresh(Priority::Foreground).await.unwrap_err() {
            CannotTell::Failed(CallError::Connect(cause)) => {
                assert_eq!(cause, NoConnection::UntrustedAuthority);
                failures += 1;
            }
            other => break other,
        }
        assert!(failures <= 10, "the breaker stays closed");
    };
    assert!(matches!(suppressed, CannotTell::Suppressed(_)), "{suppressed}");
    assert_eq!(issuer.endpoints().next().unwrap().status().reason, Some(Reason::Failures));
    assert_eq!(running.counted("holdfast_upstream_requests_total{", "status=\"connect\"").await, 10);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_verifies_holdfast_and_shows_its_own_certificate() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", &format!("client_ca = {:?}", scene.ca)).await;
    let client = scene.authority.client(scene.path(), "client");
    let other_ca = Authority::new("test CA").file(scene.path(), "other-ca.pem");
    let backend = EchoBackend::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        scene.token()
    );
    for (trusted, status) in [(&scene.ca, 200), (&other_ca, 503)] {
        let nginx = Nginx::start(address(&holdfast), &backend, trusted, &client).await;
        let before = requests(&holdfast).await;
        let reply = exchange_unix(&nginx.socket, request.as_bytes()).await;
        assert_eq!(reply.status, status, "{reply:?}");
        let asked = requests(&holdfast).await - before;
        assert_eq!(
            asked,
            if status == 200 { 1.0 } else { 0.0 },
            "nginx asked a server that it cannot verify"
        );
        assert_eq!(reply.body.contains("X-User-Email: alice@example.com"), status == 200, "{reply:?}");
    }
}

/// nginx with the files of `examples/nginx/`, changed as `snippets/tls.conf` says.
struct Nginx {
    child: tokio::process::Child,
    socket: PathBuf,
    _directory: TempDir,
}

impl Nginx {
    async fn start(holdfast: SocketAddr, backend: &EchoBackend, ca: &Path, client: &Identity) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("front.sock");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let changes = [
            ("127.0.0.1:8080", format!("unix:{}", text(&directory.path().join("other.sock")))),
            ("127.0.0.1:8081", format!("unix:{}", text(&socket))),
            ("127.0.0.1:4191", backend.address().to_string()),
            ("127.0.0.1:4180", holdfast.to_string()),
            ("    proxy_pass http://holdfast_tcp/auth;", {
                "    proxy_pass https://holdfast_tcp/auth;\n    include snippets/tls.conf;".to_owned()
            }),
            ("/etc/nginx/holdfast/ca.pem", text(ca)),
            ("/etc/nginx/holdfast/client.pem", text(&client.certificate)),
            ("/etc/nginx/holdfast/client.key", text(&client.key)),
        ];
        let mut unused: Vec<&str> = changes.iter().map(|(from, _)| *from).collect();
        let snippets = directory.path().join("snippets");
        std::fs::create_dir(&snippets).unwrap();
        let files = std::fs::read_dir(example.join("snippets")).unwrap().map(|entry| {
            let name = entry.unwrap().file_name();
            (example.join("snippets").join(&name), snippets.join(name))
        });
        for (from, to) in files.chain([(example.join("nginx.conf"), directory.path().join("nginx.conf"))]) {
            let mut file = std::fs::read_to_string(from).unwrap();
            for (from, to) in &changes {
                if file.contains(from) {
                    unused.retain(|other| other != from);
                    file = changed(&file, from, to);
                }
            }
            std::fs::write(to, file).unwrap();
        }
        assert!(unused.is_empty(), "the example does not say {unused:?}");
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off;", "-p"])
            .arg(directory.path())
            .env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run nginx; was `make setup` run? {error}"));
        until("nginx listens", async || UnixStream::connect(&socket).await.ok()).await;
        Self { child, socket, _directory: directory }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // nginx goes before its directory does.
        let _ = self.child.start_kill();
    }
}
