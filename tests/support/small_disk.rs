//! A file system of 8 MiB that a test may fill up: the test runs itself again, as a child in a mount
//! namespace of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names the small file system to the child.
const DIRECTORY: &str = "HOLDFAST_SMALL_DISK";

/// Runs the ignored test `child` of this binary on a small file system, which is gone when the child is.
/// Needs root, or user namespaces; where there is neither, it only says so, except in CI.
pub fn run(child: &str) {
    const MOUNT: &str = r#"mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@""#;
    let directory = tempfile::tempdir().unwrap();
    let in_namespace = |flags: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", MOUNT]).arg(directory.path());
        command
    };
    let works = |flags: &&&str| {
        let mut probe = in_namespace(flags);
        probe.arg("true").stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(flags) = ["-m", "-Urm"].iter().find(works) else {
        assert!(std::env::var_os("CI").is_none(), "CI must allow unshare -m or unshare -Urm");
        eprintln!("skipped: neither root nor user namespaces");
        return;
    };
    let output = in_namespace(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Where the small file system is, in the child.
pub fn directory() -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).unwrap_or_else(|| panic!("only another test runs this")))
}

/// Takes all the room that is left, to the last byte, in a file that can be deleted.
pub fn fill_up() -> PathBuf {
    let ballast = directory().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    let mut block = 64 * 1024;
    while block > 0 {
        match std::io::Write::write(&mut file, &vec![0xa5; block]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => block /= 2,
            Err(error) => panic!("there may be room left: {error}"),
        }
    }
    ballast
}

/// Makes the small file system read-only. No file on it may be open for writing.
pub fn make_read_only() {
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(directory()).status();
    assert!(status.unwrap().success());
}
