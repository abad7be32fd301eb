//! A program for Node that a test starts, and that obeys lines of JSON.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::yaml::{in_repository, packages_of};

/// The directory whose `node_modules` has `package` of `tests/TEST`. `None` if it is not installed, which fails
/// the test in CI.
pub fn packages(test: &str, package: &str) -> Option<PathBuf> {
    let packages = packages_of(test);
    is_there(&packages.join("node_modules").join(package)).then_some(packages)
}

/// Whether this is installed. If it is not, the test says that it tests nothing, and fails in CI.
pub fn is_there(part: &Path) -> bool {
    let is_there = part.exists();
    if !is_there {
        let part = part.display();
        assert!(std::env::var_os("CI").is_none(), "CI must have {part}; see scripts/setup.sh");
        eprintln!("not tested: {part} is missing; scripts/setup.sh test installs it");
    }
    is_there
}

/// A running program; it is killed when dropped.
pub struct Node {
    _child: Child,
    patience: Duration,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Starts `script` of the repository, with these arguments. An answer has to come within `patience`.
    pub fn start(script: &str, arguments: &[impl AsRef<OsStr>], patience: Duration) -> Self {
        let mut child = Command::new("node")
            .arg(in_repository(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, patience, commands, answers }
    }

    /// Its next line.
    pub async fn answer(&mut self) -> Value {
        let line = tokio::time::timeout(self.patience, self.answers.next_line()).await;
        let Ok(Ok(Some(line))) = line else { panic!("the program for Node does not answer: {line:?}") };
        serde_json::from_str(&line).unwrap()
    }

    /// Its answer to a command.
    pub async fn command(&mut self, command: &Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.answer().await
    }
}
