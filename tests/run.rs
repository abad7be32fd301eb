//! `make run`, also with ports that are taken, and the lines that it suggests to try; and the tutorial, which
//! continues from there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use support::example::changed;
use support::{Holdfast, PATIENCE};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where cargo puts both programs when it builds the workspace.
fn binaries() -> &'static Path {
    let binaries = Path::new(env!("CARGO_BIN_EXE_holdfast")).parent().unwrap();
    let tenant = binaries.join("holdfast-devtenant");
    assert!(tenant.exists(), "{} is missing: run `cargo test --workspace`", tenant.display());
    binaries
}

/// A command with a sign in place of each port of loopback.
fn without_ports(command: &str) -> String {
    let mut parts = command.split("127.0.0.1:");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        text + "127.0.0.1:…" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_make_run_tells_people_to_try_is_true_also_where_its_ports_are_taken() {
    // Other owners of these ports serve as well.
    let _taken: Vec<_> = [4190, 4180, 8080].map(|port| TcpListener::bind(("127.0.0.1", port))).into();
    // A shell cannot trap a signal that is ignored when it starts, as SIGINT is in what a script runs in the
    // background.
    let mut run = Command::new("env")
        .args(["--default-signal=INT", "bash", "scripts/run.sh"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("HOLDFAST_BINARIES", binaries())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let (mut tried, mut commands, mut directory) = (Vec::new(), Vec::new(), None);
    while tried.len() < 3 {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else { panic!("it ended, or says no more; so far: {tried:?}") };
        directory = directory
            .or_else(|| Some(line.split_once("what happens in ")?.1.split_once("/*.log")?.0.to_owned()));
        if line.starts_with("curl ") {
            let output = Command::new("sh").args(["-c", &format!("{line} -s")]).output().await.unwrap();
            tried.push(String::from_utf8_lossy(&output.stdout).into_owned());
            commands.push(line);
        }
    }
    let [good, none, expired] = &tried[..] else { panic!("{tried:?}") };
    assert!(good.starts_with("HTTP/1.1 200 ") && good.contains("alice@example.com"), "{good}");
    for refused in [none, expired] {
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    }
    for (step, number, output) in [("2", 1, good), ("3", 1, none), ("3", 2, expired)] {
        assert_shown(&shown(step, number), output);
    }

    // The tutorial shows the first command with ports that it does not promise, and tells what to find on the
    // page.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/first-steps.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(without_ports(&tutorial("2", 1)), without_ports(&commands[0]));
    let headers =
        page.split("\n## ").nth(2).unwrap().lines().filter_map(|line| line.strip_prefix("- ")).flat_map(
            |line| {
                line.split('`').skip(1).step_by(2).filter(|name| name.starts_with("X-")).collect::<Vec<_>>()
            },
        );
    let headers: Vec<&str> = headers.map(|header| header.split(':').next().unwrap()).collect();
    assert!(headers.len() >= 5, "{headers:?}");
    for header in headers {
        assert!(good.to_lowercase().contains(&header.to_lowercase()), "{header} is not on the page: {good}");
    }
    let nginx = commands[1].split_whitespace().last().unwrap();
    let forged = tutorial("3", 1).replace("http://127.0.0.1:8080/", nginx);
    let output = Command::new("sh").args(["-c", &format!("{forged} -s")]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 401 "), "{forged}");

    let directory = directory.unwrap();
    assert!(Path::new(&directory).join("holdfast.log").exists());
    let pid = run.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, run.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    assert!(!Path::new(&directory).exists(), "it leaves nothing behind");
}

/// The lines of a block that the tutorial shows.
fn tutorial(step: &str, number: usize) -> String {
    block(step, "sh", number)
}

fn block(step: &str, language: &str, number: usize) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/first-steps.md");
    let page = std::fs::read_to_string(page).unwrap();
    let step = page.split(&format!("\n## {step}. ")).nth(1).unwrap().split("\n## ").next().unwrap();
    step.split(&format!("```{language}\n"))
        .nth(number)
        .unwrap()
        .split("```")
        .next()
        .unwrap()
        .trim_end()
        .to_owned()
}

/// What a block of the tutorial shows of a command's output.
fn shown(step: &str, number: usize) -> String {
    block(step, "text", number)
}

/// Every line that is shown is in the output, in this order. `…` stands for whatever is there.
fn assert_shown(shown: &str, output: &str) {
    let mut lines = output.lines();
    for line in shown.lines() {
        let (start, end) = line.split_once('…').unwrap_or((line, ""));
        let is_it = |other: &str| match line.contains('…') {
            true => other.starts_with(start) && other.ends_with(end),
            false => other == line,
        };
        assert!(lines.any(is_it), "the output lacks, in this place: {line}\n{output}");
    }
}

/// Pastes these lines; they stop at the first that fails. What they print.
async fn paste(lines: &str) -> String {
    let lines = lines.replace("target/release/holdfast", env!("CARGO_BIN_EXE_holdfast"));
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", &lines]).output().await.unwrap();
    assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts the dev tenant as a line of the tutorial says, but on ports that the system chooses; and its
/// issuer's URL.
async fn started_tenant(line: &str) -> (Child, String) {
    let line = changed(line, "127.0.0.1:4190", "127.0.0.1:0");
    let line = changed(&line, "127.0.0.1:4191", "127.0.0.1:0");
    let mut words = line.trim_end_matches(" &").split_whitespace();
    assert_eq!(words.next(), Some("target/release/holdfast-devtenant"));
    let mut command = Command::new(binaries().join("holdfast-devtenant"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut issuer = None;
    // Up to its last line: it would end if nobody took them.
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.starts_with("ready: ")) {
        issuer = issuer.or(line.strip_prefix("issuer ").map(str::to_owned));
    }
    (child, issuer.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_steps_of_the_tutorial_explain_a_token_and_survive_the_tenant() {
    let (start, ask) = (tutorial("5", 1), tutorial("5", 2));
    let [devtenant, pid, serve] = start.lines().collect::<Vec<_>>()[..] else { panic!("{start}") };
    assert_eq!(pid, "tenant=$!");
    let (tenant, issuer) = started_tenant(devtenant).await;
    let with_issuer = |text: &str| changed(text, "http://127.0.0.1:4190/", &issuer);

    let inspect = with_issuer(&tutorial("4", 1));
    let explained = paste(&inspect).await;
    assert_shown(&shown("4", 1), &explained);
    let expired = inspect.replace("email=direct", "email=direct&expires_in=-3600");
    let explained = paste(&format!("! {{ {expired}; }}")).await;
    assert_shown(&shown("4", 2), &explained);

    let serve = with_issuer(serve);
    let arguments: Vec<&str> = serve.trim_end_matches(" &").split_whitespace().skip(1).collect();
    let ports = [("HOLDFAST_AUTH__LISTEN", "127.0.0.1:0"), ("HOLDFAST_ADMIN__LISTEN", "127.0.0.1:0")];
    let directory = tempfile::tempdir().unwrap();
    let holdfast = Holdfast::run(directory.path(), &arguments, 1, &ports).await.ready().await;
    let ask = changed(&with_issuer(&ask), "127.0.0.1:4180", &holdfast.auth[0]);
    let ask = changed(&ask, "127.0.0.1:9180", &holdfast.admin.to_string());
    let answers = paste(&format!("tenant={}\n{ask}", tenant.id().unwrap())).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    assert_eq!(answers.to_lowercase().matches("x-auth-source: userinfo").count(), 2, "{answers}");
    assert!(answers.contains(&issuer), "{answers}");
}
