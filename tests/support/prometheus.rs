//! A real Prometheus that scrapes holdfast, and the tool that judges what is scraped.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::drill::path_to_servers;
use crate::support::{PATIENCE, exchange, until};

/// A running Prometheus; it is killed when dropped.
pub struct Prometheus {
    address: String,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes the metrics at `target` five times a second.
    pub async fn start(target: &str) -> Self {
        Self::start_with(target, &[]).await
    }

    /// The same with files of rules: each a name that ends in `.yaml`, and a text. They are evaluated as often.
    pub async fn start_with(target: &str, rules: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in rules {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [\"*.yaml\"]\n\
             scrape_configs: [{{job_name: holdfast, static_configs: [{{targets: [\"{target}\"]}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .env("PATH", path_to_servers())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run prometheus; was `make setup` run? {error}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = async {
            let mut log = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("\"Listening on\"") {
                    let address = line.split("address=").nth(1).unwrap();
                    return address.split(' ').next().unwrap().to_owned();
                }
                log = log + &line + "\n";
            }
            panic!("prometheus has ended:\n{log}");
        };
        let address = tokio::time::timeout(PATIENCE, listening).await.unwrap();
        // Unread output would fill the pipe and stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child, _directory: directory }
    }

    /// Asks until the query has one result and that is `value`.
    pub async fn until(&self, query: &str, value: f64) {
        until(&format!("{query} is {value}"), async || {
            (self.query(query).await.as_slice() == [value]).then_some(())
        })
        .await;
    }

    async fn query(&self, query: &str) -> Vec<f64> {
        let results = self.ask(query).await.unwrap_or_default();
        results.iter().map(|result| result["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// The series of a query with their values; `None` while it is not ready.
    pub async fn ask(&self, query: &str) -> Option<Vec<Value>> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={query}")).await?;
        Some(data["result"].as_array().unwrap().clone())
    }

    /// What the alerts say that are there now.
    pub async fn summaries(&self) -> Vec<String> {
        let data = self.get("/api/v1/alerts").await.unwrap();
        let alerts = data["alerts"].as_array().unwrap().iter();
        alerts.map(|alert| alert["annotations"]["summary"].as_str().unwrap().to_owned()).collect()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        // HTTP/1.0 has no chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let reply = exchange(stream, request.as_bytes()).await;
        // Before it is ready it says 503.
        if reply.status == 503 {
            return None;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut answer: Value = serde_json::from_str(&reply.body).unwrap();
        Some(answer["data"].take())
    }
}

/// What `promtool check metrics` says to the text of `/metrics`; it must say nothing.
pub async fn check_metrics(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .env("PATH", path_to_servers())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run promtool; was `make setup` run? {error}"));
    let mut to = promtool.stdin.take().unwrap();
    to.write_all(text.as_bytes()).await.unwrap();
    drop(to);
    let said = promtool.wait_with_output().await.unwrap();
    let said = (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned());
    assert_eq!(said, (true, String::new()), "promtool complains:\n{text}");
}
