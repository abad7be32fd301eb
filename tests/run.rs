//! What `make run` starts, with ports that are taken and the lines that it tells people to try.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use support::PATIENCE;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

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
    // Whoever has these already serves as well.
    let _taken: Vec<_> = [4190, 4180, 8080].map(|port| TcpListener::bind(("127.0.0.1", port))).into();
    // A shell cannot trap a signal that is ignored when it starts, as SIGINT is in what a script runs in the background.
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

    // The tutorial shows the first command with ports that it does not promise, and tells what to find on the page.
    let tutorial =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/first-steps.md"));
    let tutorial = tutorial.unwrap();
    let step = |number: usize| tutorial.split("\n## ").nth(number).unwrap();
    let block = |number: usize| step(number).split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(without_ports(block(2).trim()), without_ports(&commands[0]));
    let headers = step(2).lines().filter_map(|line| line.strip_prefix("- ")).flat_map(|line| {
        line.split('`').skip(1).step_by(2).filter(|name| name.starts_with("X-")).collect::<Vec<_>>()
    });
    let headers: Vec<&str> = headers.map(|header| header.split(':').next().unwrap()).collect();
    assert!(headers.len() >= 5, "{headers:?}");
    for header in headers {
        assert!(good.to_lowercase().contains(&header.to_lowercase()), "{header} is not on the page: {good}");
    }
    let nginx = commands[1].split_whitespace().last().unwrap();
    let forged = block(3).trim().replace("http://127.0.0.1:8080/", nginx);
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
