//! Runs the commands that the pages tell a new user to paste. Only addresses, directories and the tenant are
//! replaced, and commands that need root or the network (`sudo`, `systemctl`, `useradd`, …) are recorded
//! instead of run. README.md shows the same as the examples, within its size limit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_devtenant::{EchoBackend, Options, Tenant};
use support::example::changed;
use support::page::{blocks, blocks_of};
use support::yaml::in_repository;
use support::{Holdfast, exchange_unix, until};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::Command;

const README: &str = include_str!("../README.md");

#[test]
fn the_readme_shows_what_the_examples_say() {
    let nginx = blocks_of(README, "A minute with nginx", "sh");
    assert_eq!(nginx, blocks("examples/nginx/README.md", "On a server"));
    let traefik = blocks_of(README, "A minute with Traefik", "sh");
    assert_eq!(traefik, blocks("examples/traefik/README.md", "With your tenant"));
    // Of the file Traefik reads, the README leaves lines out and changes none.
    let [shown] = &blocks_of(README, "A minute with Traefik", "yaml")[..] else { panic!("one block") };
    let file = std::fs::read_to_string(in_repository("examples/traefik/dynamic.yml")).unwrap();
    let mut lines = file.lines();
    for line in shown.lines() {
        assert!(lines.any(|other| other == line), "dynamic.yml does not say, in this order: {line}");
    }
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let lines = README.lines().count();
    assert!(lines <= 160, "{lines} lines: move what is not needed at first into docs/");
}

/// A machine to paste into: directories that stand for the system's, and commands that do nothing but tell
/// that they ran.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for directory in
            ["bin", "etc/nginx/conf.d", "etc/systemd/system", "usr/local/bin", "run", "var/lib", "log"]
        {
            std::fs::create_dir_all(machine.path(directory)).unwrap();
        }
        machine.command("sudo", "exec \"$@\"");
        for name in ["apt-get", "useradd", "usermod", "systemctl", "nginx"] {
            machine.command(name, &format!("echo \"{name} $*\" >> '{}'", machine.path("ran").display()));
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Pastes these lines in the root of the repository; they stop at the first that fails.
    async fn paste(&self, lines: &str) {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", self.text("bin"), self.text("usr/local/bin"));
        let pasted = Command::new("bash")
            .args(["-euc", lines])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(pasted.status.success(), "{lines}\n{}", String::from_utf8_lossy(&pasted.stderr));
    }

    /// The block with this machine's directories in place of the system's.
    fn adapted(&self, block: &str, tenant: &Tenant) -> String {
        let mut text = block.to_owned();
        for (from, to) in [
            ("/etc/", self.text("etc/")),
            ("/usr/local/bin/", self.text("usr/local/bin/")),
            ("/run/holdfast", self.text("run")),
            ("/var/lib/holdfast", self.text("var/lib")),
            ("/var/log/nginx", self.text("log")),
            ("target/release/holdfast", env!("CARGO_BIN_EXE_holdfast").to_owned()),
            ("https://tenant.eu.auth0.com/", tenant.issuer()),
            ("https://api.example.com", tenant.audience().to_owned()),
        ] {
            text = text.replace(from, &to);
        }
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_commands_check_and_serve_and_curl_gets_a_200() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let machine = Machine::new();
    let without_make = blocks("docs/how-to/install.md", "Without make");
    let [start, ask] = &without_make[..] else { panic!("{without_make:?}") };
    let start = machine.adapted(start, &tenant);
    let lines: Vec<&str> = start.lines().collect();
    let [build, check, serve] = lines[..] else { panic!("{start}") };
    assert_eq!(build, "cargo build --release --locked");
    machine.paste(check).await;
    let arguments: Vec<&str> = serve.split_whitespace().skip(1).collect();
    let ports = [("HOLDFAST_AUTH__LISTEN", "127.0.0.1:0"), ("HOLDFAST_ADMIN__LISTEN", "127.0.0.1:0")];
    let holdfast = Holdfast::run(machine.0.path(), &arguments, 1, &ports).await.ready().await;
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let ask = changed(ask, "127.0.0.1:4180", &holdfast.auth[0]);
    let answer = machine.path("answer");
    machine.paste(&format!("TOKEN={token}\n{} > '{}'", ask.trim_end(), answer.display())).await;
    let answer = std::fs::read_to_string(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("alice@example.com"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_nginx_make_a_site_that_lets_in_good_tokens_alone() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let backend = EchoBackend::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let machine = Machine::new();
    let with_nginx = blocks("examples/nginx/README.md", "On a server");
    let [install, site] = &with_nginx[..] else { panic!("{with_nginx:?}") };

    machine.paste(&machine.adapted(install, &tenant)).await;
    let ran = std::fs::read_to_string(machine.path("ran")).unwrap();
    assert!(ran.contains("usermod -aG holdfast www-data"), "{ran}");
    assert!(machine.path("etc/systemd/system/holdfast.service").exists());
    let config = machine.text("etc/holdfast/holdfast.toml");
    let admin = [("HOLDFAST_ADMIN__LISTEN", "127.0.0.1:0")];
    let holdfast =
        Holdfast::run(machine.0.path(), &["serve", "--config", &config], 1, &admin).await.ready().await;

    // nginx is really asked what it thinks of the site; only `curl`, which is for people, is left out.
    let main = format!(
        "pid nginx.pid;\nevents {{}}\nhttp {{\n{}    include {}/*.conf;\n}}\n",
        ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"]
            .map(|kind| format!("    {kind}_temp_path {kind};\n"))
            .concat(),
        machine.text("etc/nginx/conf.d")
    );
    std::fs::write(machine.path("etc/nginx/nginx.conf"), main).unwrap();
    let nginx = format!(
        "-e stderr -c '{}' -p '{}'",
        machine.text("etc/nginx/nginx.conf"),
        machine.0.path().display()
    );
    machine.command("nginx", &format!("PATH=/usr/local/sbin:/usr/sbin:$PATH\nexec $(PATH=/usr/local/sbin:/usr/sbin command -v nginx) {nginx} \"$@\""));
    let (site, curl) = site.rsplit_once("curl ").unwrap();
    assert!(curl.contains("http://127.0.0.1:8080/"), "{curl}");
    let front = machine.path("front.sock");
    let site =
        changed(&machine.adapted(site, &tenant), "listen 8080", &format!("listen unix:{}", front.display()));
    let holdfast_socket = machine.text("run/auth.sock");
    let addresses = format!(
        "| sed -e 's|/run/holdfast/auth.sock|{holdfast_socket}|' -e 's|127.0.0.1:4191|{}|' | sudo tee",
        backend.address()
    );
    machine.paste(&changed(&site, "| sudo tee", &addresses)).await;

    let mut child = Command::new(machine.path("bin/nginx"))
        .args(["-g", "daemon off; master_process off;"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("nginx listens", async || {
        assert_eq!(child.try_wait().unwrap(), None, "nginx has ended");
        UnixStream::connect(&front).await.ok()
    })
    .await;
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let ask = async |lines: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n");
        exchange_unix(Path::new(&front), request.as_bytes()).await
    };
    let reply = ask(&format!("Authorization: Bearer {token}\r\n")).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", holdfast.log());
    assert!(reply.body.contains("alice@example.com"), "{reply:?}");
    assert_eq!(ask("").await.status, 401);
    until("the access log tells what holdfast said", async || {
        let log = std::fs::read_to_string(machine.path("log/holdfast.log")).ok()?;
        (log.contains("auth=200") && log.contains("auth=401")).then_some(())
    })
    .await;
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_as_the_manual_says_opens_tokens() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let machine = Machine::new();
    let shown = blocks("docs/how-to/jwe-keys.md", "Set up");
    let [make, check] = &shown[..] else { panic!("{shown:?}") };
    let page = std::fs::read_to_string(in_repository("docs/how-to/jwe-keys.md")).unwrap();
    let [config] = &blocks_of(&page, "Set up", "toml")[..] else { panic!("one block") };
    std::fs::create_dir(machine.path("etc/holdfast")).unwrap();
    std::fs::write(machine.path("etc/holdfast/holdfast.toml"), machine.adapted(config, &tenant)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), machine.path("usr/local/bin/holdfast")).unwrap();

    // This machine has no user of that name.
    let make = changed(&machine.adapted(make, &tenant), "-o holdfast -g holdfast ", "");
    machine.paste(&format!("cd '{}'\n{make}", machine.0.path().display())).await;
    let public = std::fs::read_to_string(machine.path("jwe.pub.pem")).unwrap();
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"), "{public}");
    // The lines for the check end with a token. The dev tenant encrypts to a key of its own, so that takes
    // its place.
    let check = machine.adapted(check, &tenant);
    let (check, inspect) = check.trim_end().rsplit_once('\n').unwrap();
    machine.paste(check).await;
    assert!(std::fs::read_to_string(machine.path("ran")).unwrap().contains("systemctl reload holdfast"));
    std::fs::write(machine.path("etc/holdfast/jwe.pem"), tenant.jwe_private_key_pem()).unwrap();
    let token = tenant.mint().email_direct("alice@example.com").nested_jwe().build().unwrap();
    std::fs::write(machine.path("token"), token).unwrap();
    let (command, promise) = inspect.split_once('#').unwrap();
    assert!(promise.contains("format: jwe"), "{promise}");
    let output = machine.path("output");
    machine.paste(&format!("cd '{}'\n{command} > '{}'", machine.0.path().display(), output.display())).await;
    let output = std::fs::read_to_string(output).unwrap();
    assert!(output.lines().any(|line| line.contains("format") && line.contains("jwe")), "{output}");
    assert!(output.contains("alice@example.com"), "{output}");
}
