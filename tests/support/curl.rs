//! curl, a client that is not ours.

use std::process::Stdio;

use tokio::process::Command;

use super::PATIENCE;

/// Sends one request. Returns the exit code, and what `--write-out` makes of `format`.
pub async fn curl(url: &str, format: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("curl")
        .args(["--silent", "--output", "/dev/null", "--write-out", format])
        .args(["--max-time", &PATIENCE.as_secs().to_string(), "--noproxy", "*"])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("cannot run curl; was `make setup` run? {error}"));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}
