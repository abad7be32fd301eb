//! `examples/mcp`, run as docs/how-to/mcp.md tells its reader to: the client and the server are those of the npm
//! package `@modelcontextprotocol/sdk`, the proxies are real, and the dev tenant is the authorization server.
//!
//! `make setup` installs the package. Without it these tests say that they test nothing; in CI they fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use holdfast_devtenant::{Options, Tenant};
use serde_json::{Value, json};
use support::example::loopback;
use support::node::packages;
use support::page::blocks;
use support::service::request;
use support::yaml::in_repository;
use support::{exchange, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A copy of the example on a loopback address of its own, and what runs in it.
struct Machine {
    directory: TempDir,
    host: Ipv4Addr,
    tenant: Tenant,
    running: Vec<Child>,
}

impl Machine {
    /// `None` if the packages are not installed, which fails the test in CI.
    async fn new() -> Option<Self> {
        let packages = packages("mcp", "@modelcontextprotocol/sdk")?;
        let (directory, host) = (tempfile::tempdir().unwrap(), loopback());
        let root = directory.path();
        for part in ["examples/mcp", "examples/nginx/snippets", "target/release", "bin"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        for part in ["examples/mcp", "examples/nginx/snippets"] {
            for file in std::fs::read_dir(in_repository(part)).unwrap() {
                let file = file.unwrap();
                if file.file_type().unwrap().is_file() {
                    let text = std::fs::read_to_string(file.path()).unwrap();
                    let text = text.replace("127.0.0.1", &host.to_string());
                    std::fs::write(root.join(part).join(file.file_name()), text).unwrap();
                }
            }
        }
        let options = Options {
            listen: SocketAddr::from((host, 4190)),
            audience: format!("http://{host}:8080/mcp"),
            ..Options::default()
        };
        let tenant = Tenant::start(options).await.unwrap();
        symlink(env!("CARGO_BIN_EXE_holdfast"), root.join("target/release/holdfast")).unwrap();
        let machine = Self { directory, host, tenant, running: Vec::new() };
        // The test itself is the tenant, and the packages are there.
        machine.command("target/release/holdfast-devtenant", "");
        let modules = packages.join("node_modules");
        machine.command("bin/npm", &format!("ln -s '{}' examples/mcp/node_modules", modules.display()));
        Some(machine)
    }

    fn command(&self, name: &str, script: &str) {
        let file = self.directory.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn shell(&self, lines: &str) -> Command {
        let python = std::env::var("HOLDFAST_TEST_PYTHON").unwrap_or_default();
        let installed = Path::new(&python).parent().unwrap_or(Path::new("")).display();
        let own = self.directory.path().join("bin");
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        shell
            .args(["-euc", &lines.replace("127.0.0.1", &self.host.to_string())])
            .current_dir(self.directory.path())
            .env("PATH", format!("{}:{installed}:{path}:/usr/local/sbin:/usr/sbin", own.display()))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        shell
    }

    /// Pastes lines that go on in the background.
    fn start(&mut self, lines: &str) {
        let mut append = std::fs::File::options();
        let log = append.append(true).create(true).open(self.directory.path().join("log")).unwrap();
        let mut shell = self.shell(&format!("{lines}\nwait"));
        // A group of its own, so that all of it can be ended.
        shell.process_group(0).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(shell.spawn().unwrap());
    }

    /// Pastes lines, and returns what they print.
    async fn paste(&self, lines: &str) -> String {
        let done = self.shell(lines).output().await.unwrap();
        let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{lines}\n{out}\n{errors}\n{}", self.log());
        out.into_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    async fn until_all_serve(&self) {
        until("all parts serve", async || {
            let ask = async |port: u16, path: &str| {
                let stream = TcpStream::connect((self.host, port)).await.ok()?;
                Some(exchange(stream, &request(path, "")).await.status)
            };
            let all = [ask(9180, "/readyz").await?, ask(4192, "/").await?, ask(8080, "/mcp").await?];
            (all == [200, 404, 401]).then_some(())
        })
        .await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for group in self.running.iter().filter_map(Child::id) {
            let group = format!("-{group}");
            let _ = std::process::Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        }
    }
}

async fn a_client_finds_the_login_and_calls_a_tool(proxy: usize, name: &str) {
    let Some(mut machine) = Machine::new().await else { return };
    let page = blocks("docs/how-to/mcp.md", "Try it");
    let [parts, nginx, traefik, ask] = &page[..] else { panic!("{page:?}") };
    let proxies = [nginx, traefik];
    assert!(proxies[proxy].contains(name), "{page:?}");
    machine.start(&format!("{parts}{}", proxies[proxy]));
    machine.until_all_serve().await;

    let host = machine.host;
    let said = machine.paste(ask).await;
    let metadata = format!("http://{host}:8080/.well-known/oauth-protected-resource/mcp");
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    assert!(said.contains(&format!("Bearer realm=\"holdfast\", resource_metadata=\"{metadata}\"")), "{said}");
    let document = said.lines().find_map(|line| line.find('{').map(|at| &line[at..])).unwrap();
    let document = document.split_inclusive('}').next().unwrap();
    let expected = json!({
        "resource": format!("http://{host}:8080/mcp"),
        "authorization_servers": [machine.tenant.issuer()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["read:tools"],
    });
    assert_eq!(serde_json::from_str::<Value>(document).unwrap(), expected);
    let login = |said: &str| {
        let (_, login) = said.split_once("Log in at ").unwrap_or_else(|| panic!("{said}"));
        let login = login.lines().next().unwrap().to_owned();
        assert!(login.starts_with(&format!("{}authorize?", machine.tenant.issuer())), "{login}");
        assert!(login.contains(&format!("resource=http%3A%2F%2F{host}%3A8080%2Fmcp")), "{login}");
        assert!(login.contains("scope=read%3Atools"), "{login}");
    };
    login(&said);
    assert!(said.ends_with("You are alice@example.com\n"), "{said}\n{}", machine.log());

    let client = |token: &str| format!("node examples/mcp/client.mjs http://127.0.0.1:8080/mcp '{token}'");
    // Expired, for another resource, or without the scope: the client is sent to log in again.
    let good = || machine.tenant.mint().email_direct("alice@example.com").scope("read:tools");
    for (what, bad) in [
        ("expired", good().expires_in(-3600)),
        ("for another resource", good().audience("https://other.example.com/mcp")),
        ("without the scope", good().scope("other")),
    ] {
        let said = machine.paste(&client(&bad.build().unwrap())).await;
        assert!(!said.contains("You are"), "{what}: {said}");
        login(&said);
    }
    // What a client says of itself does not reach the server, and no other path is open.
    let forged = "X-User-Email: root@example.com\r\n";
    for path in ["/", "/mcp/", "/MCP", "/mcp/../mcp", "/.well-known/oauth-protected-resource", "/auth"] {
        let stream = TcpStream::connect((host, 8080)).await.unwrap();
        let reply = exchange(stream, &request(path, forged)).await;
        assert!(matches!(reply.status, 400 | 401 | 404), "{path}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_a_client_finds_the_login_and_calls_a_tool() {
    a_client_finds_the_login_and_calls_a_tool(0, "nginx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_traefik_a_client_finds_the_login_and_calls_a_tool() {
    a_client_finds_the_login_and_calls_a_tool(1, "traefik").await;
}
