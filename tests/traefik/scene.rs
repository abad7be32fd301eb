//! The real Traefik with an example's configuration, before a real holdfast, a dev tenant and a backend.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use holdfast_devtenant::EchoBackend;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::dynamic::Dynamic;
use crate::support::{PATIENCE, Reply, parse};

pub struct Traefik {
    pub backend: EchoBackend,
    address: SocketAddr,
    process: Child,
    directory: TempDir,
}

impl Traefik {
    /// Starts it with these words as its static configuration, which must have the entry point `web`, and
    /// with this dynamic one. An error is what it complains about before it serves.
    pub async fn start(words: &[String], dynamic: &Dynamic, auth: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let backend = EchoBackend::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let file = dynamic.file(auth, &format!("http://{}", backend.address()));
        std::fs::write(directory.path().join("dynamic.yml"), file).unwrap();
        // The socket arrives as standard input; the shell moves it to where LISTEN_FDS begins.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let log = std::fs::File::create(directory.path().join("traefik.log")).unwrap();
        let script =
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$ exec traefik \"$@\"";
        let python = std::env::var("HOLDFAST_TEST_PYTHON").unwrap_or_default();
        let installed = Path::new(&python).parent().unwrap_or(Path::new("")).display();
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(words)
            .current_dir(directory.path())
            .env("PATH", format!("{installed}:{}", std::env::var("PATH").unwrap()))
            .env("HOME", directory.path())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut traefik = Self { backend, address, process, directory };
        traefik.serves().await.map(|()| traefik)
    }

    /// Waits until the open page is there, or a complaint.
    async fn serves(&mut self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
        loop {
            let is_there = self.answer("/public/", "").await.is_some_and(|reply| reply.status == 200);
            let ended = self.process.try_wait().unwrap().is_some();
            let log = std::fs::read_to_string(self.directory.path().join("traefik.log")).unwrap();
            let complains = ["ERR", "WRN", "\"level\":\"error\""].iter().any(|word| log.contains(word));
            match (is_there, complains || ended) {
                (_, true) => return Err(log),
                (true, false) => return Ok(()),
                (false, false) => {}
            }
            assert!(tokio::time::Instant::now() < deadline, "Traefik does not serve: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn get(&self, path: &str, headers: &str) -> Reply {
        self.answer(path, headers).await.unwrap_or_else(|| panic!("no answer for {path}"))
    }

    async fn answer(&self, path: &str, headers: &str) -> Option<Reply> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{headers}\r\n");
        let mut answer = String::new();
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.read_to_string(&mut answer).await.ok()?;
        parse(&answer)
    }
}
