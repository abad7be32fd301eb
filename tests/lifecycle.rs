//! Start, reload, stop, crash, and start again while the issuer is down.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use holdfast_devtenant::{Endpoint, Fault, Options, Tenant};
use support::{Holdfast, exchange, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn config(tenant: &Tenant, data: Option<&Path>, more: &str) -> String {
    let data = data.map_or_else(String::new, |data| format!("[store]\npath = \"{}\"\n", data.display()));
    format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{data}[[issuer]]\nurl = \"{}\"\n\
         audience = [\"{}\"]\n{more}",
        tenant.issuer(),
        tenant.audience()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_an_outage_still_verifies_and_still_knows_everybody() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, Some(&data), "");
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let with_email = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let without_email = tenant.mint().build().unwrap();
    let opaque = tenant.mint().opaque().build().unwrap();
    for token in [&without_email, &opaque] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-auth-source"), ["userinfo"]);
    }
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());
    tenant.go_down().await;

    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    for (token, source) in [(&with_email, "claims"), (&without_email, "userinfo"), (&opaque, "userinfo")] {
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200, "{}", holdfast.log());
        assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
        assert_eq!(reply.header("x-auth-source"), [source]);
        assert_eq!(reply.header("x-auth-tier"), ["primary"]);
    }
    // There is no record of this one, and the issuer cannot be asked.
    let unknown = tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = holdfast.ask(&unknown).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after").len(), 1);
    let metrics = holdfast.admin("/metrics").await.body;
    assert!(metrics.contains(r#"holdfast_tier_hits_total{store="disk",tier="primary"} 2"#), "{metrics}");

    // Neither tokens nor addresses lie open in the data directory.
    let mut files = vec![data];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [without_email.as_bytes(), opaque.as_bytes(), b"alice@example.com"] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_an_outage_without_kept_keys_is_not_ready_until_the_issuer_is_back() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    tenant.set_fault(Endpoint::All, Fault::Status(503));
    let directory = tempfile::tempdir().unwrap();
    let holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await;
    assert_eq!(holdfast.admin("/readyz").await.status, 503);
    assert_eq!(holdfast.admin("/healthz").await.status, 200);
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 503);
    tenant.clear_faults();
    // The next token that needs the keys fetches them, without waiting for the background task.
    assert_eq!(holdfast.ask(&token).await.status, 200, "{}", holdfast.log());
    assert_eq!(holdfast.admin("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_one_data_directory_is_refused_and_harms_nothing() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, Some(&data), "");
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let second = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["serve", "--config"])
        .arg(directory.path().join("holdfast.toml"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains("another holdfast is running on") && said.contains("LOCK"), "{said}");
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_good_configuration_and_keeps_the_old_one_instead_of_a_bad_one() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let before = config(&tenant, None, "");
    let holdfast = Holdfast::start(directory.path(), &before, 1).await.ready().await;
    let token = tenant.mint().email_direct("alice@example.com").claim("plan", "gold").build().unwrap();
    assert!(holdfast.ask(&token).await.header("x-plan").is_empty());

    std::fs::write(&file, format!("{before}[headers]\n\"X-Plan\" = \"plan\"\n")).unwrap();
    holdfast.signal("HUP").await;
    until("the new header", async || (holdfast.ask(&token).await.header("x-plan") == ["gold"]).then_some(()))
        .await;

    std::fs::write(&file, format!("{before}[headers]\n\"X-Plan\" = \"plan\"\n[polizy]\n")).unwrap();
    holdfast.signal("HUP").await;
    holdfast.told("unknown key polizy; did you mean policy?").await;
    assert_eq!(holdfast.ask(&token).await.header("x-plan"), ["gold"]);
    let metrics = holdfast.admin("/metrics").await.body;
    assert!(metrics.contains(r#"holdfast_config_reloads_total{result="ok"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"holdfast_config_reloads_total{result="refused"} 1"#), "{metrics}");
    assert_eq!(holdfast.admin("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_says_for_each_issuer_what_becomes_of_tokens_that_only_it_can_judge() {
    let asked = Tenant::start(Options::default()).await.unwrap();
    let refusing = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let second = format!(
        "[[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\nforeign_tokens = \"refuse\"\n",
        refusing.issuer(),
        refusing.audience()
    );
    let holdfast = Holdfast::start(directory.path(), &config(&asked, None, &second), 1).await.ready().await;
    let log = holdfast.log();
    let line = |tenant: &Tenant| {
        let mut lines = log.lines().filter(|line| line.contains("issuer configured"));
        let line = lines.find(|line| line.contains(&tenant.issuer()));
        line.unwrap_or_else(|| panic!("no line for {}: {log}", tenant.issuer())).to_owned()
    };
    let (first, second) = (line(&asked), line(&refusing));
    for words in ["their audience cannot be checked", "any application of the tenant", "audience=checked"] {
        assert!(first.contains(words) && !second.contains(words), "{words}: {log}");
    }
    assert!(second.contains("foreign tokens are refused"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_nothing_that_is_forced_and_asks_for_no_keys_before_it_is_time() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let before = config(&tenant, None, "");
    let holdfast = Holdfast::start(directory.path(), &before, 1).await.ready().await;
    let body = r#"{"action": "force-open", "for": "2h"}"#;
    let request = format!(
        "POST /breaker HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let stream = TcpStream::connect(holdfast.admin).await.unwrap();
    assert_eq!(exchange(stream, request.as_bytes()).await.status, 200);

    std::fs::write(&file, format!("{before}[breaker]\nopen_for = \"7s\"\n[budget]\nrate = 5\n")).unwrap();
    holdfast.signal("HUP").await;
    holdfast.told("configuration reloaded").await;
    holdfast
        .told("[breaker] or [budget] changed in the configuration; that takes effect at the next start")
        .await;
    let status: serde_json::Value = serde_json::from_str(&holdfast.admin("/status").await.body).unwrap();
    for endpoint in ["discovery", "jwks", "userinfo"] {
        let status = &status["issuers"][0]["endpoints"][endpoint];
        assert_eq!((&status["breaker"], &status["forced"]), (&"open".into(), &true.into()), "{status}");
        assert_eq!(status["budget"]["rate"], 4.0, "{status}");
    }
    let calls = tenant.calls();
    assert_eq!((calls.discovery, calls.jwks), (1, 1));
    // The new instance has begun to wait for its first fetch; it did not try in vain.
    assert!(holdfast.admin("/metrics").await.body.contains(r#"suppressed_total{reason="breaker_open"} 0"#));

    // An issuer that is gone leaves nothing behind: a breaker that reads open for ever would be one.
    let other = before.replace(&tenant.issuer(), "http://127.0.0.1:1/");
    std::fs::write(&file, other).unwrap();
    holdfast.signal("HUP").await;
    until("the other issuer alone", async || {
        let metrics = holdfast.admin("/metrics").await.body;
        (metrics.contains("http://127.0.0.1:1/") && !metrics.contains(&tenant.issuer())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_under_way_finish() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await.ready().await;
    tenant.set_fault(Endpoint::Userinfo, Fault::Slow(std::time::Duration::from_secs(1)));
    let token = tenant.mint().opaque().build().unwrap();
    let mut stream = TcpStream::connect(holdfast.auth_tcp()).await.unwrap();
    let request = format!("GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the call to the issuer", async || (tenant.calls().userinfo == 1).then_some(())).await;
    holdfast.signal("TERM").await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(holdfast.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_requests_longer_than_it_is_told_to() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = config(&tenant, None, "").replace("[auth]\n", "[auth]\ndrain_timeout = \"10ms\"\n");
    let mut holdfast = Holdfast::start(directory.path(), &text, 1).await.ready().await;
    tenant.set_fault(Endpoint::Userinfo, Fault::Hang);
    let token = tenant.mint().opaque().build().unwrap();
    let mut stream = TcpStream::connect(holdfast.auth_tcp()).await.unwrap();
    let request = format!("GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the call to the issuer", async || (tenant.calls().userinfo == 1).then_some(())).await;
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0));
    holdfast.told("some requests were still under way").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "an answer that nobody gave: {}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_issuer_no_longer_has_is_good_for_nothing_after_one_refresh() {
    let tenant = support::service::tenant().await;
    let config = support::service::issuer(&tenant, "");
    let clock = support::service::held_clock(&tenant);
    let running = support::service::Running::start(&config, clock.clone()).await;
    let token = |sub: &str| tenant.mint().subject(sub).email_direct("bob@example.com").build().unwrap();
    let [before, held, after] = ["auth0|bob", "auth0|dave", "auth0|carol"].map(token);
    let refetch = async || {
        let instance = running.service.instance();
        instance.issuers.iter().next().unwrap().refresh(holdfast::guard::Priority::Foreground).await.unwrap();
    };
    tenant.rotate_keys();
    refetch().await;
    assert_eq!(running.ask(&before).await.status, 200);
    tenant.revoke_old_keys();
    refetch().await;
    assert_eq!(running.ask(&held).await.status, 200, "it is held for one refresh");
    clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(running.ask(&after).await.status, 401);
    assert_eq!(running.answered("key_unknown").await, 1);
}

/// `holdfast check` with these arguments and variables: its exit code and all it said.
async fn check(arguments: &[&str], variables: &[(&str, &OsStr)]) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .arg("check")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_calls_nothing_good_with_which_serve_could_not_start() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let own = directory.path().join("new/data");
    for (lines, expected) in [
        ("[store]\npath = \"/proc/nope\"\n", "store.path: nothing can be kept in /proc/nope"),
        (
            "[store]\nsecret_file = \"/nope/secret\"\n",
            "store.secret_file: cannot use the instance secret /nope/secret",
        ),
        ("[auth.tls]\ncertificate = \"/nope/c\"\nkey = \"/nope/k\"\n", "/nope/c"),
    ] {
        let text = config(&tenant, None, lines).replace(
            "listen = \"127.0.0.1:0\"\n[admin]",
            match lines {
                tls if tls.contains("tls") => "listen = \"tls:127.0.0.1:0\"\n[admin]",
                _ => "listen = \"127.0.0.1:0\"\n[admin]",
            },
        );
        std::fs::write(&file, text).unwrap();
        let (code, said) = check(&["--config", file.to_str().unwrap()], &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected) && !said.contains("good"), "{said}");
    }
    let issuer = config(&tenant, None, "decryption_keys = [\"/nope/jwe.pem\"]\n");
    std::fs::write(&file, issuer).unwrap();
    let (code, said) = check(&["--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nope/jwe.pem") && !said.contains("good"), "{said}");

    std::fs::write(&file, config(&tenant, Some(&own), "")).unwrap();
    let (code, said) = check(&["--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !own.exists() && directory.path().read_dir().unwrap().count() == 1,
        "check leaves nothing behind"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_no_text_or_no_number_is_told_and_a_strangers_one_is_not_minded() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let (issuer, odd) = (tenant.issuer(), OsStr::from_bytes(b"\xff"));
    let arguments = ["--issuer", &issuer, "--audience", "https://api.example.com"];
    assert_eq!(check(&arguments, &[("SOMEBODYS", odd)]).await.0, Some(0));
    for (name, value) in [("HOLDFAST_POLICY__LEEWAY", odd), ("TOKIO_WORKER_THREADS", OsStr::new("0"))] {
        let (code, said) = check(&arguments, &[(name, value)]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with(&format!("environment variable {name}")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_whether_the_issuer_answers() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let issuer = tenant.issuer();
    let arguments = ["--issuer", &issuer, "--audience", "https://api.example.com"];
    let (code, said) = check(&arguments, &[]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("answers; keys: dev-rs-1"), "{said}");
    tenant.go_down().await;
    let (code, said) = check(&arguments, &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no connection to the issuer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_found_at_once_and_unknown_ones_are_asked_for_once() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await.ready().await;
    let old = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let older = tenant.mint().subject("auth0|bob").email_direct("bob@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&old).await.status, 200);
    tenant.reset_calls();
    tenant.rotate_keys();
    let new = tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(holdfast.ask(&new).await.status, 200, "{}", holdfast.log());
    assert_eq!(tenant.calls().jwks, 1);
    assert_eq!(holdfast.ask(&older).await.status, 200, "the issuer still vouches for its key before");
    for number in 0..50 {
        let kid = format!("unheard-of-{number}");
        let token = tenant.mint().email_direct("alice@example.com").kid(Some(&kid)).build().unwrap();
        assert_eq!(holdfast.ask(&token).await.status, 401);
    }
    assert_eq!(tenant.calls().jwks, 1, "however many unknown kids there are, one fetch a minute");
}

/// The configuration comes from a FIFO, so the read lasts as long as the test wants.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_configuration_is_read_is_handled_when_it_serves() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (fifo, pid) = (directory.path().join("holdfast.toml"), directory.path().join("pid"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let config = config(&tenant, None, "");
    let write = move |signals: &'static [&str]| {
        let (fifo, pid, config) = (fifo.clone(), pid.clone(), config.clone());
        std::thread::spawn(move || {
            // Opens once holdfast opens it for reading.
            let mut to = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
            let pid = std::fs::read_to_string(&pid).unwrap();
            for name in signals {
                let kill = std::process::Command::new("kill").args(["-s", name, pid.trim()]).status();
                assert!(kill.unwrap().success(), "{name}");
            }
            std::io::Write::write_all(&mut to, config.as_bytes()).unwrap();
        })
    };
    let written = write(&["USR1", "USR2", "HUP", "PIPE"]);
    let mut command = tokio::process::Command::new("sh");
    let start = "echo $$ > pid; exec \"$0\" serve --config holdfast.toml";
    command.args(["-c", start, env!("CARGO_BIN_EXE_holdfast")]);
    let holdfast = Holdfast::launch(command, directory.path(), 1, &[]).await;
    written.join().unwrap();
    // For the reload.
    write(&[]).join().unwrap();
    for told in ["status: {", "SIGUSR2 does nothing", "configuration reloaded"] {
        holdfast.told(told).await;
    }
    holdfast.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signal_ends_it_without_a_drain() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut holdfast = Holdfast::start(directory.path(), &config(&tenant, None, ""), 1).await;
    // Before it is ready, too.
    for name in ["USR1", "USR2", "HUP", "PIPE"] {
        holdfast.signal(name).await;
    }
    let mut holdfast = {
        holdfast.told("configuration reloaded").await;
        let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
        holdfast.told(r#""issuers":[{"#).await;
        holdfast = holdfast.ready().await;
        holdfast.signal("USR1").await;
        let told = async || (holdfast.log().matches(r#""issuers":[{"#).count() == 2).then_some(());
        until("another status", told).await;
        assert_eq!(holdfast.ask(&token).await.status, 200);
        holdfast
    };
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0));
}
