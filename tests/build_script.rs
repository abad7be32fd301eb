//! `scripts/rocksdb.sh`, which tells cargo where the compiled RocksDB is. A library that is already in the cache stands
//! in for the compiler's work, which takes minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What cargo must see to say where the sources of a dependency are.
const CRATE: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "devtenant/Cargo.toml",
    "src/main.rs",
    "src/lib.rs",
    "devtenant/src/main.rs",
    "devtenant/src/lib.rs",
];

/// A copy of the repository as cargo sees it, and a cache with a library in it.
struct Clone {
    directory: tempfile::TempDir,
}

impl Clone {
    fn new() -> Self {
        let clone = Self { directory: tempfile::tempdir().unwrap() };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in CRATE.into_iter().chain(["scripts/rocksdb.sh"]) {
            let to = clone.path(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(repository.join(file), to).unwrap();
        }
        std::fs::create_dir_all(clone.library()).unwrap();
        std::fs::write(clone.library().join("librocksdb.a"), "").unwrap();
        clone
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("clone").join(file)
    }

    /// The crate's version is in Cargo.lock, so that another version gets a directory of its own.
    fn library(&self) -> PathBuf {
        let lock = std::fs::read_to_string(self.path("Cargo.lock")).unwrap();
        let version = lock.split("name = \"librocksdb-sys\"\nversion = \"").nth(1).unwrap();
        let version = version.split('"').next().unwrap();
        self.directory.path().join("cache/holdfast/rocksdb").join(format!("librocksdb-sys-{version}"))
    }

    fn run(&self, variables: &[(&str, &str)]) -> Output {
        let output = Command::new(self.path("scripts/rocksdb.sh"))
            .env("XDG_CACHE_HOME", self.directory.path().join("cache"))
            .env_remove("ROCKSDB_LIB_DIR")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn config(&self) -> Option<String> {
        std::fs::read_to_string(self.path(".cargo/config.toml")).ok()
    }
}

#[test]
fn cargo_is_told_where_the_library_is_and_told_again_when_it_moves() {
    let clone = Clone::new();
    clone.run(&[]);
    let config = clone.config().unwrap();
    let parsed: toml::Table = config.parse().unwrap();
    assert_eq!(parsed["env"]["ROCKSDB_LIB_DIR"].as_str().unwrap(), clone.library().to_str().unwrap());
    assert_eq!(parsed["env"]["ROCKSDB_STATIC"].as_str(), Some("1"));

    let first_line = config.lines().next().unwrap();
    std::fs::write(clone.path(".cargo/config.toml"), format!("{first_line}\n[env]\n")).unwrap();
    clone.run(&[]);
    assert_eq!(clone.config().unwrap(), config);
}

#[test]
fn a_cargo_configuration_of_somebodys_own_is_left_alone_and_the_lines_are_said() {
    let clone = Clone::new();
    std::fs::create_dir(clone.path(".cargo")).unwrap();
    let own = "[build]\njobs = 1\n";
    std::fs::write(clone.path(".cargo/config.toml"), own).unwrap();
    let said = String::from_utf8(clone.run(&[]).stderr).unwrap();
    assert_eq!(clone.config().unwrap(), own);
    assert!(said.contains(&format!("ROCKSDB_LIB_DIR = \"{}\"", clone.library().display())), "{said}");

    let complete = format!("{own}{}", said.split_once("Add to it:\n").unwrap().1);
    std::fs::write(clone.path(".cargo/config.toml"), &complete).unwrap();
    assert!(clone.run(&[]).stderr.is_empty());
    assert_eq!(clone.config().unwrap(), complete);
}

#[test]
fn a_library_that_the_environment_names_wins() {
    let clone = Clone::new();
    clone.run(&[("ROCKSDB_LIB_DIR", "/usr/lib")]);
    assert_eq!(clone.config(), None);
}
