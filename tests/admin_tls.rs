//! TLS and mutual TLS on the admin listener: real certificates, curl, and the commands of the real binary.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "tls/certificates.rs"]
mod certificates;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use certificates::{Authority, Identity};
use holdfast_devtenant::Tenant;
use support::curl::curl;
use support::service::{issuer, tenant};
use support::{Holdfast, PATIENCE, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

/// A tenant, and a directory with certificates.
struct Scene {
    tenant: Tenant,
    directory: TempDir,
    ca: PathBuf,
    server: Identity,
    operator: Identity,
}

impl Scene {
    async fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA");
        let ca = authority.file(directory.path(), "ca.pem");
        let server = authority.server(directory.path(), "server");
        let operator = authority.client(directory.path(), "operator");
        Self { tenant: tenant().await, directory, ca, server, operator }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it with these lines of `[admin]` and `[admin.tls]`, and with `[admin.client]` for the commands.
    async fn start(&self, admin: &str, tls: &str) -> Holdfast {
        let (certificate, key) = (&self.server.certificate, &self.server.key);
        let config = format!(
            "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"tls:127.0.0.1:0\"\n{admin}\n[admin.tls]\ncertificate \
             = {certificate:?}\nkey = {key:?}\n{tls}\n[admin.client]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n[store]\npath \
             = {:?}\n{}",
            self.ca,
            self.operator.certificate,
            self.operator.key,
            self.path().join("data"),
            issuer(&self.tenant, ""),
        );
        let holdfast = Holdfast::start(self.path(), &config, 1).await;
        until("it is ready", async || {
            let ready = self.run(&holdfast, &["health", "--ready"], &[]).await;
            ready.status.success().then_some(())
        })
        .await;
        holdfast
    }

    fn client_ca(&self) -> String {
        format!("client_ca = {:?}", self.ca)
    }

    /// A file with the token for orders, as a line of `[admin]`.
    fn token_file(&self) -> String {
        let file = self.path().join("token");
        std::fs::write(&file, "0123456789abcdef").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("token_file = {file:?}")
    }

    /// Runs a command of holdfast with the configuration of the running one, and these variables.
    async fn run(&self, holdfast: &Holdfast, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(arguments)
            .args(["--config", "holdfast.toml", "--admin", &format!("tls:{}", holdfast.admin)])
            .current_dir(self.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// What curl says of an order without a token, as `exit code, status`.
    async fn curl(&self, holdfast: &Holdfast, arguments: &[&str]) -> (Option<i32>, String) {
        let order = ["--json", r#"{"subject":"auth0|alice"}"#];
        let url = format!("https://{}/revoke", holdfast.admin);
        curl(&url, "%{http_code}", &[&order, arguments].concat()).await
    }

    fn trusting(&self) -> [&str; 2] {
        ["--cacert", self.ca.to_str().unwrap()]
    }

    fn showing<'i>(&'i self, identity: &'i Identity) -> [&'i str; 6] {
        let [option, ca] = self.trusting();
        let (certificate, key) = (identity.certificate.to_str().unwrap(), identity.key.to_str().unwrap());
        [option, ca, "--cert", certificate, "--key", key]
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_reaches_an_admin_listener_that_demands_certificates_with_its_own() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", &scene.client_ca()).await;
    std::fs::write(scene.path().join("users.json"), r#"[{"user_id": "auth0|a", "email": "a@x.org"}]"#)
        .unwrap();
    let token = scene.tenant.mint().subject("auth0|alice").email_direct("alice@x.org").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
    for (arguments, expected) in [
        (&["health"][..], "alive"),
        (&["tiers"], "primary"),
        (&["breaker", "status"], "closed"),
        (&["purge", "--subject", "auth0|alice"], "forgotten"),
        (&["revoke", "--subject", "auth0|alice"], "revoked"),
        (&["revoke", "--list"], "auth0|alice"),
        // It says who users are, so it needs a proof of who sends it; the certificate is one.
        (&["import", "--profiles", "users.json"], "1"),
        (&["backup", "--to", "copy"], "backup made"),
    ] {
        let output = scene.run(&holdfast, arguments, &[]).await;
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
    assert_eq!(holdfast.ask(&token).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_nobody_gives_orders_or_reads_without_a_certificate_of_it() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", &scene.client_ca()).await;
    let stranger = Authority::new("test CA").client(scene.path(), "stranger");
    for (who, arguments) in [
        ("nobody", &scene.trusting()[..]),
        ("a client of another CA of the same name", &scene.showing(&stranger)),
        ("a certificate that is for servers", &scene.showing(&scene.server)),
    ] {
        let (code, status) = scene.curl(&holdfast, arguments).await;
        assert_ne!(code, Some(0), "{who}: {status}");
        assert_eq!(status, "000", "{who}");
    }
    let none = scene.path().join("none.toml");
    std::fs::write(&none, format!("[admin.client]\nca = {:?}\n", scene.ca)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["revoke", "--subject", "auth0|alice", "--config", none.to_str().unwrap()])
        .args(["--admin", &format!("tls:{}", holdfast.admin)])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("did not answer"), "{}", said(&output));
    let list = scene.run(&holdfast, &["revoke", "--list"], &[]).await;
    assert!(list.status.success() && list.stdout.is_empty(), "somebody was revoked: {}", said(&list));

    assert_eq!(scene.curl(&holdfast, &scene.showing(&scene.operator)).await, (Some(0), "200".to_owned()));
    let plain = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(holdfast.admin).await.unwrap();
    stream.write_all(plain).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP was answered where TLS is spoken");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_and_a_client_ca_an_order_needs_both() {
    let scene = Scene::set().await;
    let holdfast = scene.start(&scene.token_file(), &scene.client_ca()).await;
    let by = scene.showing(&scene.operator);
    assert_eq!(scene.curl(&holdfast, &by).await, (Some(0), "401".to_owned()));
    let token = [&by[..], &["--header", "Authorization: Bearer 0123456789abcdef"]].concat();
    assert_eq!(scene.curl(&holdfast, &token).await, (Some(0), "200".to_owned()));
    let output = scene.run(&holdfast, &["unrevoke", "--subject", "auth0|alice"], &[]).await;
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asks_only_a_holdfast_that_it_can_verify() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", "").await;
    let other = Authority::new("test CA").file(scene.path(), "other.pem");
    let empty = scene.path().join("empty.pem");
    std::fs::write(&empty, "no PEM\n").unwrap();
    let name = "HOLDFAST_ADMIN__CLIENT__SERVER_NAME";
    for (variable, value, expected) in [
        ("HOLDFAST_ADMIN__CLIENT__CA", other.to_str().unwrap(), "invalid peer certificate"),
        ("HOLDFAST_ADMIN__CLIENT__CA", empty.to_str().unwrap(), "admin.client.ca: "),
        ("HOLDFAST_ADMIN__CLIENT__CA", "/nowhere", "admin.client.ca: /nowhere cannot be read"),
        ("HOLDFAST_ADMIN__CLIENT__KEY", empty.to_str().unwrap(), "admin.client.key: "),
        (name, "other.internal", "not valid for name"),
    ] {
        let output = scene.run(&holdfast, &["health"], &[(variable, value)]).await;
        assert_eq!(output.status.code(), Some(1), "{variable}={value}: {}", said(&output));
        assert!(said(&output).contains(expected), "{variable}={value}: {}", said(&output));
    }
    // The certificate names it, and no name needs to resolve to it.
    let output = scene.run(&holdfast, &["health"], &[(name, "holdfast.internal")]).await;
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_a_new_certificate_to_the_admin_listener() {
    let scene = Scene::set().await;
    let holdfast = scene.start("", &scene.client_ca()).await;
    let renewed = Authority::new("renewed CA");
    let new = renewed.server(scene.path(), "renewed");
    std::fs::copy(&new.certificate, &scene.server.certificate).unwrap();
    holdfast.signal("HUP").await;
    until("the bad pair is refused", async || {
        holdfast.log().contains("the new configuration is invalid").then_some(())
    })
    .await;
    assert!(holdfast.log().contains("admin.tls.key"), "{}", holdfast.log());
    assert!(scene.run(&holdfast, &["health"], &[]).await.status.success());

    std::fs::copy(&new.key, &scene.server.key).unwrap();
    holdfast.signal("HUP").await;
    let ca = renewed.file(scene.path(), "renewed-ca.pem");
    let trusting = [("HOLDFAST_ADMIN__CLIENT__CA", ca.to_str().unwrap())];
    until("the new certificate", async || {
        scene.run(&holdfast, &["health"], &trusting).await.status.success().then_some(())
    })
    .await;
    assert!(!scene.run(&holdfast, &["health"], &[]).await.status.success());
    // Clients are still verified, by the CA of before.
    let by = scene.showing(&scene.operator);
    let by = [&["--cacert", ca.to_str().unwrap()], &by[2..]].concat();
    assert_eq!(scene.curl(&holdfast, &by).await, (Some(0), "200".to_owned()));
    assert_ne!(scene.curl(&holdfast, &by[..2]).await.0, Some(0));
}
