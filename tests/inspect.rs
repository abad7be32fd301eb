//! `holdfast inspect`, the real binary: its verdict is the server's, its output serves people and programs,
//! and never contains the token.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "tls/certificates.rs"]
mod certificates;
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use certificates::Authority;
use holdfast_devtenant::{Options, Tenant, TokenBuilder};
use openssl::x509::X509;
use serde_json::Value;
use support::dpop::{Prover, sha256};
use support::redis::RedisServer;
use support::service::request;
use support::{Holdfast, exchange, until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

/// A tenant, and the configuration of a holdfast that trusts it.
struct Scene {
    tenant: Tenant,
    directory: TempDir,
    config: String,
}

impl Scene {
    async fn new(holds_key: bool, more: &str) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pem");
        std::fs::write(&key, tenant.jwe_private_key_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = if holds_key { format!("decryption_keys = [{key:?}]\n") } else { String::new() };
        let config = format!(
            "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\nurl = {:?}\n\
             audience = [\"https://api.example.com\"]\n{keys}{more}",
            tenant.issuer()
        );
        std::fs::write(directory.path().join("inspect.toml"), &config).unwrap();
        Self { tenant, directory, config }
    }

    fn mint(&self) -> TokenBuilder {
        self.tenant.mint().email_direct("alice@example.com")
    }

    /// Inspects `token` from stdin, and checks that no telling part of it is in the output.
    async fn inspect(&self, token: &str, arguments: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["inspect", "--config", "inspect.toml"])
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended already, for bad usage.
        let _ = stdin.write_all(format!("\n  {token} \r\n").as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        for part in token.split('.').filter(|part| part.len() >= 16) {
            for stream in [&output.stdout, &output.stderr] {
                let text = String::from_utf8_lossy(stream);
                assert!(!text.contains(&part[..16]), "a part of the token is told: {text}");
            }
        }
        output
    }

    async fn report(&self, token: &str, arguments: &[&str]) -> (Value, i32) {
        let output = self.inspect(token, &[&["--json"], arguments].concat()).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
        (serde_json::from_str(&text).unwrap(), output.status.code().unwrap())
    }
}

fn failed(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.filter(|check| check["ok"] == false).map(|check| check["name"].as_str().unwrap()).collect()
}

fn check<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_explained_and_the_exit_code_is_0() {
    let scene = Scene::new(true, "").await;
    let (report, code) = scene.report(&scene.mint().build().unwrap(), &[]).await;
    assert_eq!((code, &report["answer"]["status"]), (0, &200.into()), "{report}");
    assert_eq!(report["answer"]["headers"]["x-user-email"], "alice@example.com");
    assert_eq!(report["format"], "jws");
    assert_eq!(report["header"]["alg"], "RS256");
    assert_eq!(report["issuer"], scene.tenant.issuer());
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{report}");
    let kid = report["header"]["kid"].as_str().unwrap();
    assert!(check(&report, "key")["expected"].as_str().unwrap().contains(kid), "{report}");
    assert_eq!(report["email"]["source"], "claims");
    assert_eq!(report["email"]["email_verified"], true);
    assert_eq!(report["email"]["tried"][0]["result"], "found alice@example.com");

    let token = scene.mint().nested_jwe().build().unwrap();
    let (report, code) = scene.report(&token, &[]).await;
    assert_eq!((code, &report["format"]), (0, &"jwe".into()), "{report}");
    assert_eq!(report["nested_header"]["alg"], "RS256");
    assert_eq!(check(&report, "decryption")["ok"], true);
    assert_eq!(check(&report, "content")["found"], "a signed token");
    assert_eq!(scene.tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_needs_its_proof_here_too_and_the_step_that_fails_is_named() {
    let scene = Scene::new(true, "[dpop]\nproof_age = \"600s\"\n").await;
    let prover = Prover::new();
    let url = "https://api.example.com/orders";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for bound in [scene.mint(), scene.mint().nested_jwe()] {
        let token = bound.claim("cnf", prover.cnf()).build().unwrap();
        let good = prover.proof(&token, "POST", url, now).sign();
        let with = ["--dpop", &good, "--method", "POST", "--url", "https://API.example.com:443/orders?x"];
        let (report, code) = scene.report(&token, &with).await;
        assert_eq!((code, &report["answer"]["status"]), (0, &200.into()), "{report}");
        assert_eq!(check(&report, "sender")["found"], "proven");
        let old = prover.proof(&token, "GET", url, now - 9_000).sign();
        for (arguments, found) in [
            (vec![], "no DPoP header"),
            (vec!["--dpop", &good, "--url", url], "another method"),
            (vec!["--dpop", &good, "--method", "POST", "--url", "https://api.example.com/"], "another URL"),
            (vec!["--dpop", &old, "--url", url], "at most dpop.proof_age"),
            (vec!["--dpop", "x", "--url", url], "not a signed JWT"),
        ] {
            let (report, code) = scene.report(&token, &arguments).await;
            assert_eq!((code, &report["answer"]["status"]), (1, &401.into()), "{report}");
            assert_eq!(failed(&report), ["sender"], "{report}");
            assert!(check(&report, "sender")["found"].as_str().unwrap().contains(found), "{report}");
            assert!(report["answer"]["headers"]["www-authenticate"].as_str().unwrap().starts_with("DPoP "));
        }
    }
    let identity = Authority::new("clients").client(scene.directory.path(), "client");
    let der = X509::from_pem(&std::fs::read(&identity.certificate).unwrap()).unwrap().to_der().unwrap();
    std::fs::write(scene.directory.path().join("client.der"), &der).unwrap();
    let bound = scene.mint().claim("cnf", serde_json::json!({ "x5t#S256": sha256(&der) })).build().unwrap();
    let file = identity.certificate.to_str().unwrap();
    for (arguments, status, found) in [
        (vec!["--client-cert", file], 200, "proven"),
        (vec!["--client-cert", "client.der"], 200, "proven"),
        (vec!["--client-cert", "inspect.toml"], 401, "no certificate that can be read"),
        (vec![], 401, "give it with --client-cert"),
    ] {
        let (report, _) = scene.report(&bound, &arguments).await;
        assert_eq!(report["answer"]["status"], status, "{report}");
        assert!(check(&report, "sender")["found"].as_str().unwrap().contains(found), "{report}");
    }
    let (report, code) = scene.report(&scene.mint().build().unwrap(), &["--dpop", "x", "--url", url]).await;
    assert_eq!((code, failed(&report)), (1, vec!["sender"]), "{report}");
    let unknown = scene.mint().claim("cnf", serde_json::json!({ "kid": "k" })).build().unwrap();
    let (report, code) = scene.report(&unknown, &[]).await;
    assert_eq!((code, failed(&report)), (1, vec!["cnf"]), "{report}");
    let output = scene.inspect(&unknown, &["--dpop", "x", "--url", "/orders"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_header_line_is_as_good_as_the_token_in_it() {
    let scene = Scene::new(true, "").await;
    let token = scene.mint().build().unwrap();
    for before in
        ["Bearer ", "Authorization: Bearer ", "authorization:  bearer ", "Authorization: DPoP ", "DPoP "]
    {
        let (report, code) = scene.report(&format!("{before}{token}"), &[]).await;
        assert_eq!((code, &report["format"]), (0, &"jws".into()), "{before}: {report}");
    }
    let (_, code) = scene.report("Basic YTpi", &[]).await;
    assert_eq!(code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_fails_at_the_check_that_it_breaks() {
    let scene = Scene::new(true, "").await;
    for (token, row) in [
        (scene.mint().expires_in(-3600), "exp"),
        (scene.mint().not_before_in(3600), "nbf"),
        (scene.mint().audience("https://other.example.com"), "aud"),
        (scene.mint().issuer("https://other.example.com/"), "iss"),
        (scene.mint().kid(Some("unheard-of")), "key"),
        (scene.mint().typ("logout+jwt"), "typ"),
        (scene.mint().algorithm("ES256"), "alg"),
        (scene.mint().signed_by_stranger(), "signature"),
        (scene.mint().claim("nonce", "n"), "not an ID token"),
        (scene.mint().remove_claim("sub"), "sub"),
        (scene.mint().nested_jwe().audience("https://other.example.com"), "aud"),
        (scene.mint().bare_jwe(), "content"),
        (scene.mint().nested_jwe().jwe_header("iss", "https://other.example.com/"), "header iss"),
        (scene.mint().unsigned(), "format"),
    ] {
        let (report, code) = scene.report(&token.build().unwrap(), &[]).await;
        assert_eq!((code, &report["answer"]["status"]), (1, &401.into()), "{row}: {report}");
        assert_eq!(failed(&report), [row], "{report}");
        let rows = report["checks"].as_array().unwrap();
        let at = rows.iter().position(|check| check["name"] == row).unwrap();
        assert!(rows[..at].iter().all(|check| check["ok"] == true), "{report}");
        assert!(rows[at + 1..].iter().all(|check| check["ok"].is_null()), "{report}");
    }
    let token = scene.mint().expires_in(-3600).build().unwrap();
    let (report, _) = scene.report(&token, &[]).await;
    let found = check(&report, "exp")["found"].as_str().unwrap();
    assert!(found.contains("1h") && found.ends_with(" ago"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_at_all_is_refused_and_not_repeated() {
    let scene = Scene::new(false, "").await;
    for token in [
        "two.parts-of-a-token-only",
        "{\"not\": \"a token, although long enough\"}",
        &"a".repeat(16 * 1024 + 1),
    ] {
        let (report, code) = scene.report(token, &["--ask"]).await;
        assert_eq!((code, &report["answer"]["status"]), (1, &401.into()), "{report}");
        assert_eq!(failed(&report), ["format"], "{report}");
    }
    let long = "a".repeat(16 * 1024 + 1);
    let (report, _) = scene.report(&long, &[]).await;
    assert_eq!(report["answer"]["reason"], "the token is longer than 16 KiB");
    assert_eq!(scene.tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_asked_only_on_request() {
    let scene = Scene::new(false, "").await;
    for token in [scene.tenant.mint().opaque(), scene.tenant.mint().tenant_dir_jwe(), scene.tenant.mint()] {
        scene.tenant.reset_calls();
        let token = token.build().unwrap();
        let (report, code) = scene.report(&token, &[]).await;
        assert_eq!((code, &report["answer"]["status"]), (1, &Value::Null), "{report}");
        let reason = report["answer"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("would ask the issuer") && reason.contains("--ask"), "{report}");
        assert_eq!(scene.tenant.calls().userinfo, 0);

        let (report, code) = scene.report(&token, &["--ask"]).await;
        assert_eq!((code, &report["answer"]["status"]), (0, &200.into()), "{report}");
        assert_eq!(report["email"]["source"], "userinfo", "{report}");
        assert_eq!(check(&report, "issuer's word")["ok"], true);
        assert_eq!(scene.tenant.calls().userinfo, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_ways_fail_the_answer_says_which_and_why() {
    let scene = Scene::new(false, "").await;
    // Nested, and no key here for it; the issuer knows no such token either.
    let token = scene.mint().tenant_dir_jwe().signed_by_stranger().build().unwrap();
    let (report, code) = scene.report(&token, &["--ask"]).await;
    assert_eq!((code, &report["answer"]["status"]), (1, &401.into()), "{report}");
    assert_eq!(failed(&report), ["decryption", "issuer's word"], "{report}");
    let reason = report["answer"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("local decryption: no decryption key fits"), "{reason}");
    assert!(reason.contains("; issuer: ") && reason.contains("401 from /userinfo"), "{reason}");

    let scene = Scene::new(false, "foreign_tokens = \"refuse\"\n").await;
    let token = scene.mint().nested_jwe().build().unwrap();
    let (report, code) = scene.report(&token, &["--ask"]).await;
    assert_eq!((code, failed(&report)), (1, vec!["decryption", "foreign tokens"]), "{report}");
    assert!(
        check(&report, "decryption")["found"].as_str().unwrap().contains("no decryption key"),
        "{report}"
    );
    assert_eq!(report["issuer"], scene.tenant.issuer(), "whose setting refuses it");
    let (report, _) = scene.report(&scene.tenant.mint().opaque().build().unwrap(), &["--ask"]).await;
    assert_eq!(failed(&report), ["claims", "foreign tokens"], "{report}");
    assert_eq!(scene.tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_instances_share_does_not_answer_in_place_of_the_issuer() {
    let Some(redis) = RedisServer::start().await else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), [7; 32]).unwrap();
    let store = format!("[store]\nredis = {:?}\nsecret_file = {:?}\n", redis.url(), secret.path());
    let scene = Scene::new(false, &store).await;
    let holdfast = Holdfast::start(scene.directory.path(), &scene.config, 1).await.ready().await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
    let records = async || {
        let mut client = redis.client().await;
        let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
        // The lease of the first call may still be there.
        names.iter().filter(|name| !name.contains(":lease:")).count()
    };
    until("the verdict is in Redis", async || (records().await > 1).then_some(())).await;
    let before = records().await;

    scene.tenant.revoke_token(&token);
    scene.tenant.reset_calls();
    let (report, code) = scene.report(&token, &["--ask"]).await;
    assert_eq!((code, &report["answer"]["status"]), (1, &401.into()), "{report}");
    assert_eq!(scene.tenant.calls().userinfo, 1);
    let unseen = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(scene.report(&unseen, &["--ask"]).await.1, 0);
    assert_eq!(records().await, before, "what was asked for an explanation is not shared");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_of_the_email_is_told_and_why_it_was_passed_over() {
    let scene = Scene::new(false, "").await;
    let token = scene
        .tenant
        .mint()
        .claim("email", "two words@example.com")
        .email_nested("alice@example.com")
        .email_namespaced("https://api.example.com/email", "mallory@example.com")
        .build()
        .unwrap();
    let (report, code) = scene.report(&token, &[]).await;
    assert_eq!(code, 0, "{report}");
    let tried: Vec<_> =
        report["email"]["tried"].as_array().unwrap().iter().map(|t| t["result"].as_str().unwrap()).collect();
    assert!(tried[0].contains("is not a valid address"), "{tried:?}");
    assert_eq!(tried[1], "found alice@example.com");
    assert_eq!(tried[2], "there is no such claim");
    assert!(tried[3].contains("conflict"), "{tried:?}");
    assert_eq!(report["email"]["conflict"], true);

    let scene = Scene::new(false, "userinfo = false\n[policy]\nrequire_verified_email = true\n").await;
    let token = scene.tenant.mint().claim("email", "alice@example.com").build().unwrap();
    let (report, code) = scene.report(&token, &[]).await;
    assert_eq!((code, &report["answer"]["status"]), (1, &403.into()), "{report}");
    assert!(report["email"]["tried"][0]["result"].as_str().unwrap().contains("not verified"), "{report}");

    let scene = Scene::new(false, "email_domains = [\"example.org\"]\n").await;
    let token = scene.tenant.mint().claim("email", "alice@example.com").build().unwrap();
    let (report, code) = scene.report(&token, &[]).await;
    assert_eq!((code, &report["answer"]["status"]), (1, &403.into()), "{report}");
    assert!(report["email"]["tried"][0]["result"].as_str().unwrap().contains("`email_domains`"), "{report}");
    assert!(report["answer"]["reason"].as_str().unwrap().contains("`email_domains`"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_answer_is_the_answer_of_the_server() {
    let scene = Scene::new(true, "").await;
    let holdfast = Holdfast::start(scene.directory.path(), &scene.config, 1).await.ready().await;
    let plain = || scene.tenant.mint();
    for token in [
        scene.mint(),
        scene.mint().expires_in(-10),
        scene.mint().expires_in(-3600),
        scene.mint().audience("https://other.example.com"),
        scene.mint().kid(Some("unheard-of")),
        scene.mint().signed_by_stranger(),
        scene.mint().unsigned(),
        scene.mint().claim("nonce", "n"),
        scene.mint().email_direct("jürgen@example.com"),
        scene.mint().nested_jwe(),
        scene.mint().nested_jwe().without_cty(),
        scene.mint().nested_jwe_with("dir", "A256GCM"),
        scene.mint().bare_jwe(),
        plain().subject("auth0|bob"),
        plain().subject("auth0|noemail"),
        plain().tenant_dir_jwe(),
        plain().tenant_dir_jwe().signed_by_stranger(),
        plain().opaque(),
        plain().opaque().signed_by_stranger(),
    ] {
        let token = token.build().unwrap();
        let (report, code) = scene.report(&token, &["--ask"]).await;
        let reply = holdfast.ask(&token).await;
        assert_eq!(report["answer"]["status"], reply.status, "{report} {reply:?}");
        assert_eq!(code == 0, reply.status == 200, "{report}");
        let told = report["answer"]["headers"].as_object().unwrap();
        for (name, value) in told.iter().filter(|(name, _)| *name != "x-auth-age") {
            assert_eq!(reply.header(name), [value.as_str().unwrap()], "{report} {reply:?}");
        }
        let ours = |name: &str| name.starts_with("x-") || name == "www-authenticate";
        let silent: Vec<_> =
            reply.headers.iter().filter(|(name, _)| ours(name) && !told.contains_key(name)).collect();
        assert!(silent.is_empty(), "{silent:?} {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_lines_without_colour_or_control_characters_in_a_pipe() {
    let scene = Scene::new(false, "").await;
    let token = scene.mint().subject("a\u{1b}[2Jb\u{202e}c").expires_in(-3600).build().unwrap();
    let output = scene.inspect(&token, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("NO exp"), "{text}");
    assert!(text.contains("401: the token expired"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_at_a_terminal_get_colour_unless_they_do_not_want_it() {
    let scene = Scene::new(false, "").await;
    std::fs::write(scene.directory.path().join("token"), scene.mint().build().unwrap()).unwrap();
    let shown = async |no_colour: &str| {
        let inspect =
            format!("{} inspect --config inspect.toml --file token", env!("CARGO_BIN_EXE_holdfast"));
        // `script`, of util-linux, runs it at a terminal of its own.
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &inspect, "/dev/null"])
            .env("NO_COLOR", no_colour)
            .current_dir(scene.directory.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    };
    let coloured = shown("").await;
    assert!(coloured.contains("\u{1b}[32mok\u{1b}[0m exp"), "{coloured:?}");
    assert!(coloured.contains("\u{1b}[32m200\u{1b}[0m: the token is good"), "{coloured:?}");
    let plain = shown("1").await;
    assert!(plain.contains("ok exp") && !plain.contains('\u{1b}'), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_reached_leaves_it_open_whether_the_token_is_good() {
    let scene = Scene::new(false, "").await;
    let (signed, foreign) = (scene.mint().build().unwrap(), scene.mint().nested_jwe().build().unwrap());
    scene.tenant.go_down().await;
    for (token, arguments) in [(&signed, &[][..]), (&foreign, &["--ask"][..])] {
        let (report, code) = scene.report(token, arguments).await;
        assert_eq!((code, &report["answer"]["status"]), (1, &503.into()), "{report}");
        assert!(report["answer"]["headers"]["retry-after"].is_string(), "{report}");
        assert!(
            report["answer"]["reason"].as_str().unwrap().contains("no connection to the issuer"),
            "{report}"
        );
    }
    // It does not say that a check of the signed token failed, because that is unknown.
    let (report, _) = scene.report(&signed, &[]).await;
    assert!(failed(&report).is_empty() && check(&report, "key")["ok"].is_null(), "{report}");
    assert!(
        check(&report, "key")["found"].as_str().unwrap().contains("no connection to the issuer"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_requires_is_judged_as_the_server_does() {
    let scene = Scene::new(false, "").await;
    let token = scene.mint().scope("read write").claim("https://ns.example.com/roles", vec!["editor"]);
    let token = token.build().unwrap();
    for (required, status, reason) in [
        ("", 200, "the token is good"),
        ("scope=read&role=admin&role=editor&max_tier=primary", 200, "the token is good"),
        ("scope=read&role=admin", 403, "the token is good, but the route requires another role"),
        ("scope=delete", 403, "the token is good, but the route requires another scope"),
    ] {
        let (report, code) = scene.report(&token, &["--require", required]).await;
        assert_eq!(report["answer"]["reason"], reason, "{required}");
        assert_eq!(
            (&report["answer"]["status"], code),
            (&status.into(), i32::from(status != 200)),
            "{required}"
        );
    }
    let service = Holdfast::start(scene.directory.path(), &scene.config, 1).await.ready().await;
    let request = request("/auth?scope=read&role=admin", &format!("Authorization: Bearer {token}\r\n"));
    let served = exchange(TcpStream::connect(service.auth_tcp()).await.unwrap(), &request).await;
    let (report, _) = scene.report(&token, &["--require", "scope=read&role=admin"]).await;
    let told = report["answer"]["headers"]["www-authenticate"].as_str().unwrap();
    assert_eq!((served.status, served.header("www-authenticate")), (403, vec![told]));
    for bad in ["scop=read", "scope=", "max_tier=none", "claim=azp:a", "max_age=5m", "typ=JWT"] {
        let output = scene.inspect(&token, &["--require", bad]).await;
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("holdfast: --require: "), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_requires_of_the_token_is_shown_beside_what_the_token_has() {
    let scene = Scene::new(true, "").await;
    let login = scene.tenant.time() - 100;
    let mint = || scene.mint().claim("azp", "app").claim("amr", vec!["pwd"]).claim("auth_time", login);
    let required = "claim=/azp:app&claim=/amr:mfa&claim=/amr:otp&acr=gold&max_age=50&typ=at%2Bjwt&actor=none";
    for token in [mint(), mint().nested_jwe()] {
        let token = token.typ("at+jwt").build().unwrap();
        let (report, code) = scene.report(&token, &["--require", required]).await;
        assert_eq!((code, &report["answer"]["status"]), (1, &403.into()), "{report}");
        assert_eq!(failed(&report), ["claim", "acr", "max_age"], "{report}");
        let rows: Vec<_> =
            report["checks"].as_array().unwrap().iter().skip_while(|row| row["name"] != "claim").collect();
        let told = |row: usize, member: &str| rows[row][member].as_str().unwrap().to_owned();
        assert_eq!([told(0, "expected"), told(0, "found")], ["/amr:mfa or /amr:otp", "[\"pwd\"]"]);
        assert_eq!([told(1, "expected"), told(1, "found")], ["/azp:app", "\"app\""]);
        assert_eq!([told(2, "name"), told(2, "found")], ["typ", "at+jwt"]);
        assert_eq!([told(3, "name"), told(3, "found")], ["actor", "absent"]);
        assert_eq!([told(4, "expected"), told(4, "found")], ["gold", "absent, or not one text"]);
        assert!(told(5, "expected") == "50" && told(5, "found").ends_with(" ago"), "{report}");
    }
    let (report, _) = scene.report(&mint().build().unwrap(), &["--require", "acr=gold&max_age=50"]).await;
    let challenge = report["answer"]["headers"]["www-authenticate"].as_str().unwrap();
    assert!(challenge.ends_with("acr_values=\"gold\", max_age=\"50\""), "{report}");
    assert_eq!(
        report["answer"]["reason"],
        "the token is good, but the route requires another login, with acr gold, within seconds: 50"
    );
    let opaque = scene.tenant.mint().opaque().build().unwrap();
    let (report, _) = scene.report(&opaque, &["--ask", "--require", "actor=none"]).await;
    assert_eq!(report["answer"]["status"], 403, "{report}");
    assert!(check(&report, "actor")["found"].as_str().unwrap().contains("only the issuer"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_an_issuer_is_known_and_told() {
    let alias = "https://login.example.com/";
    let scene = Scene::new(true, &format!("aliases = [{alias:?}]\n")).await;
    for token in [scene.mint(), scene.mint().nested_jwe()] {
        let (report, code) = scene.report(&token.issuer(alias).build().unwrap(), &[]).await;
        assert_eq!((code, &report["issuer"]), (0, &scene.tenant.issuer().into()), "{report}");
    }
    let stranger = scene.mint().issuer("https://login.example.com").build().unwrap();
    let (report, _) = scene.report(&stranger, &[]).await;
    assert_eq!(failed(&report), ["iss"]);
    assert_eq!(check(&report, "iss")["expected"], format!("{} or {alias}", scene.tenant.issuer()));
    let said = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["check", "--config", "inspect.toml"])
        .current_dir(scene.directory.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(&format!("  also named {alias}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_and_bad_usage_is_exit_code_2() {
    let scene = Scene::new(false, "").await;
    std::fs::write(scene.directory.path().join("token"), scene.mint().build().unwrap() + "\n").unwrap();
    assert_eq!(scene.report("", &["--file", "token"]).await.1, 0);
    for (token, arguments) in [
        ("", &[][..]),
        ("", &["--file", "absent"]),
        ("", &["--unheard-of"]),
        ("", &["a-token-on-the-command-line"]),
        ("a", &["--issuer", "no url"]),
    ] {
        let output = scene.inspect(token, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
