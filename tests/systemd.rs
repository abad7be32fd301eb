//! The shipped unit allows what holdfast does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

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

/// What the filters of the unit leave, in their order: the first makes a list of what is allowed, `~` takes away.
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

/// systemd gives holdfast the time that it takes to leave with its defaults, and a lame duck time of 5 s.
#[test]
fn the_unit_waits_for_the_drain() {
    let stop = UNIT.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(stop.parse::<u64>().unwrap() > 5 + 10, "{stop}");
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/holdfast.service").exists());
}
