//! The shipped unit allows what holdfast does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use holdfast_devtenant::{Options, Tenant};
use support::{Holdfast, until};

const UNIT: &str = include_str!("../deploy/systemd/holdfast.service");

/// The system calls of a group such as `@chown`, or the one of this name, as systemd itself has them.
fn calls(name: &str) -> BTreeSet<String> {
    let Some(_) = name.strip_prefix('@') else { return BTreeSet::from([name.to_owned()]) };
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze; was `make setup` run? {error}"));
    assert!(output.status.success(), "{name}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(calls).collect()
}

/// What the filters of the unit leave, in their order: the first makes a list of what is allowed, `~` takes
/// away.
fn allowed() -> BTreeSet<String> {
    let mut allowed = calls("@default");
    for filter in UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (takes, names) = filter.strip_prefix('~').map_or((false, filter), |names| (true, names));
        for name in names.split(' ') {
            let calls = calls(name);
            match takes {
                true => allowed.retain(|call| !calls.contains(call)),
                false => allowed.extend(calls),
            }
        }
    }
    allowed
}

/// `socket_group` gives the socket to a group, and the limit of descriptors is raised.
#[test]
fn the_unit_allows_what_settings_need_and_no_privileges() {
    let allowed = allowed();
    for call in
        ["chown", "fchmodat", "prlimit64", "bind", "listen", "accept4", "epoll_wait", "futex", "fdatasync"]
    {
        assert!(allowed.contains(call), "{call} is not allowed");
    }
    for call in ["setuid", "mount", "init_module", "reboot", "swapon", "bpf", "ptrace"] {
        assert!(!allowed.contains(call), "{call} is allowed");
    }
}

/// The calls that the real binary makes, from its start to its end: with a socket for a group, records on
/// disk, checkpoints, an issuer that is asked, a reload, and a drain. None of them is refused by the unit.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_binary_calls_is_allowed() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let calls = directory.path().join("calls");
    let output = Command::new("id").arg("-g").output().unwrap();
    let group = String::from_utf8(output.stdout).unwrap();
    let config = format!(
        "[auth]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nsocket_group = {}\nlame_duck = \"10ms\"\n[admin]\n\
         listen = \"127.0.0.1:0\"\n[store]\npath = \"data\"\ncheckpoint_interval = \"1s\"\n[log]\nformat = \"json\"\n\
         [[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n",
        directory.path().join("auth.sock").display(),
        group.trim(),
        tenant.issuer(),
        tenant.audience()
    );
    std::fs::write(directory.path().join("holdfast.toml"), config).unwrap();
    // -D: holdfast is our child, and strace is not in between.
    let mut command = tokio::process::Command::new("strace");
    command.args(["-D", "-f", "-q", "-o"]).arg(&calls);
    command.arg(env!("CARGO_BIN_EXE_holdfast")).args(["serve", "--config", "holdfast.toml"]);
    let mut holdfast = Holdfast::launch(command, directory.path(), 2, &[]).await.ready().await;
    for token in [tenant.mint().build().unwrap(), tenant.mint().opaque().build().unwrap()] {
        assert_eq!(holdfast.ask(&token).await.status, 200);
    }
    let checkpoints = directory.path().join("data/checkpoints");
    let is_made = || std::fs::read_dir(&checkpoints).is_ok_and(|mut made| made.next().is_some());
    until("a checkpoint", async || is_made().then_some(())).await;
    holdfast.signal("HUP").await;
    holdfast.told("configuration reloaded").await;
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0), "{}", holdfast.log());

    let allowed = allowed();
    // strace writes the end of its file after the process has ended.
    let whole = || std::fs::read_to_string(&calls).unwrap();
    until("the last call", async || whole().contains("exited with 0").then_some(())).await;
    let text = whole();
    let made: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| !name.is_empty() && !name.starts_with('<'))
        .collect();
    assert!(made.len() > 30 && made.contains("chown"), "{made:?}");
    let refused: Vec<_> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}

/// systemd gives holdfast the time that it takes to leave with its defaults, and a lame duck time of 5 s.
#[test]
fn the_unit_waits_for_the_drain() {
    let stop = UNIT.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(stop.parse::<u64>().unwrap() > 5 + 10, "{stop}");
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/holdfast.service").exists());
}
