//! The Debian package: built, installed, upgraded, removed and purged by the real dpkg, in a directory that stands in
//! for the root of a machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::node::is_there;
use support::yaml::in_repository;

/// A directory as the root of a machine that has no package yet.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "run"]
        {
            std::fs::create_dir_all(machine.path(directory)).unwrap();
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/passwd", "etc/group"] {
            std::fs::write(machine.path(file), "").unwrap();
        }
        machine
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Runs dpkg. Its scripts run outside of the directory, which `DPKG_ROOT` names to them, and touch nothing else. The
    /// packages that ours depends on are the real machine's.
    fn dpkg(&self, arguments: &[&str]) -> Output {
        let output = Command::new("fakeroot")
            .args(["dpkg", "--force-script-chrootless", "--force-depends", "--force-confold"])
            .arg(format!("--root={}", self.0.path().display()))
            .args(arguments)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }
}

/// The package with this revision.
fn package(directory: &Path, revision: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_holdfast"));
    let package = directory.join(format!("holdfast-{revision}.deb"));
    let output = Command::new(in_repository("scripts/deb.sh"))
        .arg(&package)
        .args(["--deb-revision", revision, "--fast"])
        .env("CARGO_TARGET_DIR", binary.ancestors().nth(2).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    package.to_str().unwrap().to_owned()
}

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    if !is_there(&cache.join("holdfast/cargo-deb/bin/cargo-deb")) || !is_there(Path::new("/usr/bin/fakeroot"))
    {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (package(directory.path(), "1"), package(directory.path(), "2"));

    let machine = Machine::new();
    machine.dpkg(&["--install", &first]);
    let config = "etc/holdfast/holdfast.toml";
    assert!(machine.read("etc/passwd").starts_with("holdfast:"), "{}", machine.read("etc/passwd"));
    assert_eq!(std::fs::metadata(machine.path(config)).unwrap().permissions().mode() & 0o777, 0o640);
    for file in [
        "usr/lib/systemd/system/holdfast.service",
        "usr/lib/sysusers.d/holdfast.conf",
        "usr/share/man/man1/holdfast.1.gz",
        "usr/share/man/man1/holdfast-inspect.1.gz",
        "usr/share/bash-completion/completions/holdfast",
        "usr/share/zsh/vendor-completions/_holdfast",
        "usr/share/fish/vendor_completions.d/holdfast.fish",
        "usr/share/doc/holdfast/copyright",
    ] {
        assert!(machine.path(file).exists(), "{file} is missing");
    }
    // It is neither started nor enabled, since nobody has named an issuer yet.
    assert!(!machine.path("etc/systemd/system/multi-user.target.wants/holdfast.service").exists());

    // The installed binary takes the installed configuration, once it names an issuer.
    let check = |more: &str| {
        let text = machine.read(config) + more;
        let file = directory.path().join("checked.toml");
        std::fs::write(&file, text.replace("/var/lib/holdfast", &machine.path("data").display().to_string()))
            .unwrap();
        let mut command = Command::new(machine.path("usr/bin/holdfast"));
        command.args(["check", "--offline", "--config"]).arg(&file).output().unwrap()
    };
    let unfinished = check("");
    assert_eq!(unfinished.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unfinished.stderr).contains("issuer"), "{unfinished:?}");
    let issuer = "[[issuer]]\nurl = \"https://t.eu.auth0.com/\"\naudience = [\"https://api.example.com\"]\n";
    let finished = check(issuer);
    assert!(finished.status.success(), "{finished:?}");

    // What an administrator wrote outlives an upgrade and a removal.
    let own = machine.read(config) + issuer;
    std::fs::write(machine.path(config), &own).unwrap();
    std::fs::set_permissions(machine.path(config), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir_all(machine.path("var/lib/holdfast/db")).unwrap();
    machine.dpkg(&["--install", &second]);
    assert!(machine.read("var/lib/dpkg/status").contains("Version: 0.1.0-2"));
    assert_eq!(machine.read(config), own);
    assert_eq!(std::fs::metadata(machine.path(config)).unwrap().permissions().mode() & 0o777, 0o600);
    machine.dpkg(&["--remove", "holdfast"]);
    assert!(!machine.path("usr/bin/holdfast").exists());
    assert_eq!(machine.read(config), own);
    assert!(machine.path("var/lib/holdfast/db").exists());

    // A purge removes the configuration and the records.
    machine.dpkg(&["--purge", "holdfast"]);
    assert!(!machine.path(config).exists() && !machine.path("var/lib/holdfast").exists());
}
