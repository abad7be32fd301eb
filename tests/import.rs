//! `holdfast import`, with the real binary: after it, users whose tokens name no email cost the issuer no
//! call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use holdfast_devtenant::Tenant;
use serde_json::{Value, json};
use support::redis::RedisServer;
use support::service::{issuer, tenant, value};
use support::{Holdfast, PATIENCE, Reply, exchange, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// What orders bring.
const TOKEN: &str = "an-operator-s-token";

/// A tenant, and a directory with a configuration and a data directory.
struct Scene {
    tenant: Tenant,
    files: TempDir,
}

impl Scene {
    async fn new(more: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let store = format!("path = {:?}\n{more}", files.path().join("data"));
        Self::with_store(files, &store).await
    }

    /// The same with these lines of `[store]`, and what follows them.
    async fn with_store(files: TempDir, store: &str) -> Self {
        let scene = Self { tenant: tenant().await, files };
        let token = scene.write("token", TOKEN);
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        scene.write("holdfast.toml", scene.config(&format!("token_file = {token:?}"), store));
        scene
    }

    fn config(&self, admin: &str, store: &str) -> String {
        let head = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"";
        format!("{head}\n{admin}\n[store]\n{store}\n{}", issuer(&self.tenant, ""))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    async fn serve(&self) -> Holdfast {
        Holdfast::run(self.files.path(), &["serve", "--config", "holdfast.toml"], 1, &[]).await.ready().await
    }

    fn command(&self, file: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.current_dir(self.files.path()).args(["import", "--config", "holdfast.toml", "--profiles"]);
        command.arg(file).args(more).kill_on_drop(true);
        command
    }

    /// Imports a file: the exit code, and all that was said.
    async fn import(&self, file: &Path, more: &[&str]) -> (Option<i32>, String) {
        let output =
            tokio::time::timeout(PATIENCE, self.command(file, more).output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said.into_owned())
    }

    /// The same into a running holdfast.
    async fn import_into(&self, holdfast: &Holdfast, file: &Path, more: &[&str]) -> (Option<i32>, String) {
        let admin = holdfast.admin.to_string();
        self.import(file, &[&["--admin", &admin], more].concat()).await
    }

    /// Asks with a token that names no email.
    async fn ask(&self, holdfast: &Holdfast, subject: &str) -> Reply {
        holdfast.ask(&self.tenant.mint().subject(subject).build().unwrap()).await
    }

    /// Asserts that these users get a 200 with these emails, and that the tenant is not asked about them.
    async fn assert_known(&self, holdfast: &Holdfast, users: &[(&str, &str)]) {
        let calls = self.tenant.calls().userinfo;
        for (subject, email) in users {
            let reply = self.ask(holdfast, subject).await;
            assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some(*email)), "{reply:?}");
        }
        assert_eq!(self.tenant.calls().userinfo, calls, "the tenant was asked");
    }
}

fn user(id: &str, email: &str) -> Value {
    json!({ "user_id": id, "email": email, "email_verified": true, "name": "Some One" })
}

fn lines(users: impl IntoIterator<Item = Value>) -> String {
    users.into_iter().map(|user| format!("{user}\n")).collect()
}

/// A time that a flag takes, so many hours ago.
fn hours_ago(hours: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(3600 * hours)).to_string()
}

/// What the summary says of `what`.
fn said(summary: &str, what: &str) -> u64 {
    let line = summary.lines().find(|line| line.starts_with(what));
    line.and_then(|line| line.rsplit(": ").next()?.parse().ok())
        .unwrap_or_else(|| panic!("{what}: {summary}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn users_imported_into_a_stopped_directory_cost_no_call_and_bad_ones_are_named() {
    let scene = Scene::new("[policy]\nrequire_verified_email = true").await;
    let mut users = vec![user("auth0|one", "one@x.org"), json!({ "user_id": "auth0|none", "name": "N" })];
    users.push(json!({ "user_id": "auth0|un", "email": "un@x.org", "email_verified": false }));
    users.push(json!({ "email": "who@x.org", "email_verified": true }));
    users.push(json!({ "sub": "auth0|two", "email": "two@x.org", "email_verified": true }));
    let file = scene.write("users.json", lines(users) + "{\"user_id\": \n");
    let (code, summary) = scene.import(&file, &[]).await;
    assert_eq!(code, Some(3), "{summary}");
    assert_eq!((said(&summary, "users read"), said(&summary, "kept"), said(&summary, "skipped")), (6, 2, 4));
    for line in
        ["line 2: no email", "line 3: the email is not marked as verified", "line 4: no user_id", "line 6: "]
    {
        assert!(summary.contains(line), "{line}: {summary}");
    }
    let holdfast = scene.serve().await;
    scene.assert_known(&holdfast, &[("auth0|one", "one@x.org"), ("auth0|two", "two@x.org")]).await;
    assert_eq!(scene.ask(&holdfast, "auth0|alice").await.status, 200);
    assert_eq!(scene.tenant.calls().userinfo, 1, "others are asked about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_array_gzip_and_csv_are_imported_as_well() {
    let scene = Scene::new("").await;
    let array = json!([user("auth0|array", "array@x.org"), user("auth0|b", "b@x.org")]);
    let array = scene.write("array.json", format!("{array:#}"));
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(lines([user("auth0|zip", "zip@x.org")]).as_bytes()).unwrap();
    let zip = scene.write("users.json.gz", zip.finish().unwrap());
    let csv = scene.write(
        "users.csv",
        "\"email\",\"user_id\",\"name\",\"email_verified\"\n\"csv@x.org\",\"auth0|csv\",\"One, \"\"Some\"\"\",\"true\"\n",
    );
    for file in [&array, &zip, &csv] {
        let (code, summary) = scene.import(file, &[]).await;
        assert_eq!((code, said(&summary, "skipped")), (Some(0), 0), "{summary}");
    }
    let holdfast = scene.serve().await;
    let all = [
        ("auth0|array", "array@x.org"),
        ("auth0|b", "b@x.org"),
        ("auth0|zip", "zip@x.org"),
        ("auth0|csv", "csv@x.org"),
    ];
    scene.assert_known(&holdfast, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_changes_nothing_and_an_older_export_replaces_nothing() {
    let scene = Scene::new("").await;
    let file =
        scene.write("users.json", lines([user("auth0|one", "one@x.org"), user("auth0|one", "twice@x.org")]));
    let (code, first) = scene.import(&file, &[]).await;
    assert_eq!((code, said(&first, "kept"), said(&first, "known already")), (Some(0), 1, 1), "{first}");
    let (code, second) = scene.import(&file, &[]).await;
    assert_eq!((code, said(&second, "kept"), said(&second, "known already")), (Some(0), 0, 2), "{second}");
    let older = scene
        .write("older.json", lines([user("auth0|one", "older@x.org"), user("auth0|alice", "older@x.org")]));

    // The issuer's own word on alice, from now, and the import's on the other.
    let mut holdfast = scene.serve().await;
    assert_eq!(value(&scene.ask(&holdfast, "auth0|alice").await, "x-user-email"), Some("alice@example.com"));
    let (code, summary) = scene.import_into(&holdfast, &older, &["--exported-at", &hours_ago(2)]).await;
    assert_eq!((code, said(&summary, "kept"), said(&summary, "known already")), (Some(0), 0, 2), "{summary}");
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0));
    let (code, summary) = scene.import(&older, &["--exported-at", &hours_ago(2)]).await;
    assert_eq!((code, said(&summary, "kept"), said(&summary, "known already")), (Some(0), 0, 2), "{summary}");
    let holdfast = scene.serve().await;
    scene.assert_known(&holdfast, &[("auth0|one", "one@x.org"), ("auth0|alice", "alice@example.com")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_holdfast_takes_an_import_and_a_younger_one_also_for_whom_it_knows() {
    let scene = Scene::new("").await;
    let mut holdfast = scene.serve().await;
    let old =
        scene.write("old.json", lines([user("auth0|one", "old@x.org"), json!({ "user_id": "auth0|none" })]));
    let new =
        scene.write("new.json", lines([user("auth0|one", "new@x.org"), user("auth0|two", "two@x.org")]));
    let (code, summary) = scene.import_into(&holdfast, &old, &["--exported-at", &hours_ago(3)]).await;
    assert_eq!((code, said(&summary, "kept"), said(&summary, "skipped")), (Some(3), 1, 1), "{summary}");
    scene.assert_known(&holdfast, &[("auth0|one", "old@x.org")]).await;
    let exported_at = hours_ago(1);
    let (code, summary) = scene.import_into(&holdfast, &new, &["--exported-at", &exported_at]).await;
    assert_eq!((code, said(&summary, "kept"), said(&summary, "known already")), (Some(0), 2, 0), "{summary}");
    scene.import_into(&holdfast, &new, &["--exported-at", &exported_at]).await;
    // A token that was answered before keeps its answer; this is another one.
    scene.assert_known(&holdfast, &[("auth0|one", "new@x.org"), ("auth0|two", "two@x.org")]).await;
    for (result, count) in [("kept", 3), ("known", 2), ("refused", 1)] {
        let counted =
            holdfast.counted("holdfast_imported_profiles_total{", &format!("result=\"{result}\"")).await;
        assert_eq!(counted, count, "{result}");
    }
    // Synced before it was acknowledged.
    holdfast.kill().await;
    let holdfast = scene.serve().await;
    scene.assert_known(&holdfast, &[("auth0|one", "new@x.org"), ("auth0|two", "two@x.org")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_holdfast_refuses_an_import_for_an_issuer_that_it_does_not_have_or_of_another_shape() {
    let scene = Scene::new("").await;
    let holdfast = scene.serve().await;
    let one = json!([user("auth0|one", "one@x.org")]);
    for body in [
        json!({ "issuer": "https://other.example/", "exported_at": 0, "users": one }),
        json!({ "issuer": scene.tenant.issuer(), "users": one }),
        json!({ "issuer": scene.tenant.issuer(), "exported_at": 0, "users": ["a"] }),
    ] {
        let body = body.to_string();
        let request = format!(
            "POST /import HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {TOKEN}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), request.as_bytes()).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_leaves_a_directory_that_opens_and_a_second_run_completes_it() {
    const ALL: usize = 8000;
    let scene = Scene::new("").await;
    let users: Vec<Value> = (0..ALL).map(|n| user(&format!("auth0|{n}"), &format!("{n}@x.org"))).collect();
    let at = hours_ago(1);
    let pipe = scene.at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let mut child = scene.command(&pipe, &["--exported-at", &at]).stdout(Stdio::null()).spawn().unwrap();
    let text = lines(users.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
        // All but 200 users. What is written is read, but for what a pipe (64 KiB) and the buffer of a reader
        // (256 KiB) take. So the first batches are kept, and the last is not.
        let end = text.lines().take(ALL - 200).map(|line| line.len() + 1).sum();
        pipe.write_all(text.get(..end).unwrap().as_bytes()).unwrap();
        pipe
    });
    let pipe = tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
    child.kill().await.unwrap();
    drop(pipe);

    let file = scene.write("users.json", lines(users));
    let (code, summary) = scene.import(&file, &["--exported-at", &at]).await;
    assert_eq!(code, Some(0), "{summary}");
    let (kept, known) = (said(&summary, "kept"), said(&summary, "known already"));
    assert!(known >= 2000 && kept >= 200, "{summary}");
    assert_eq!(kept + known, ALL as u64);
    let holdfast = scene.serve().await;
    scene.assert_known(&holdfast, &[("auth0|0", "0@x.org"), ("auth0|7999", "7999@x.org")]).await;
    assert_eq!(holdfast.counted("holdfast_store_errors_total{", "").await, 0, "{}", holdfast.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_breaks_off_ends_with_1_and_what_was_read_is_kept() {
    let scene = Scene::new("").await;
    let text = json!([user("auth0|one", "one@x.org"), user("auth0|two", "two@x.org")]).to_string();
    let cut = scene.write("cut.json", text.trim_end_matches(']'));
    let (code, summary) = scene.import(&cut, &[]).await;
    assert_eq!((code, said(&summary, "kept")), (Some(1), 1), "{summary}");
    assert!(summary.contains("the array does not end"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_misused_does_nothing() {
    let scene = Scene::new("").await;
    let file = scene.write("users.json", lines([user("auth0|one", "one@x.org")]));
    for (file, flags, why) in [
        (&file, ["--issuer", "https://other.example/"], "configured are"),
        (&file, ["--exported-at", "2999-01-01T00:00:00Z"], "in the future"),
        (&file, ["--exported-at", "2001-01-01T00:00:00Z"], "older than the oldest tier"),
        (&file, ["--exported-at", "yesterday"], "a time looks like"),
        (&scene.at("none"), ["--admin", "127.0.0.1:1"], "cannot read"),
    ] {
        let (code, said) = scene.import(file, &flags).await;
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    }
    assert!(!scene.at("data").exists());
    // It runs, and the admin listener is not where it is looked for.
    let _holdfast = scene.serve().await;
    let (code, said) = scene.import(&file, &["--admin", "127.0.0.1:1"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another holdfast is running on"), "{said}");
}

/// A client that reaches the listener over loopback may make holdfast forget, but may not say who is who.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_for_orders_a_running_holdfast_takes_no_import() {
    let scene = Scene::new("").await;
    scene.write("holdfast.toml", scene.config("", &format!("path = {:?}", scene.at("data"))));
    let holdfast = scene.serve().await;
    let file = scene.write("users.json", lines([user("auth0|alice", "evil@x.org")]));
    let (code, summary) = scene.import_into(&holdfast, &file, &[]).await;
    assert_eq!((code, said(&summary, "kept")), (Some(1), 0), "{summary}");
    assert!(summary.contains("needs admin.token_file"), "{summary}");
    assert_eq!(value(&scene.ask(&holdfast, "auth0|alice").await, "x-user-email"), Some("alice@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_an_import_at_one_instance_counts_at_the_others_and_says_when_redis_is_away() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let files = tempfile::tempdir().unwrap();
    let secret = files.path().join("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let store = format!("redis = {:?}\nredis_timeout = \"10s\"\nsecret_file = {secret:?}", redis.url());
    let scene = Scene::with_store(files, &store).await;
    let (one, other) = (scene.serve().await, scene.serve().await);
    for holdfast in [&one, &other] {
        until("it is connected", async || (holdfast.admin("/readyz").await.body == "ready\n").then_some(()))
            .await;
    }
    let file =
        scene.write("users.json", lines([user("auth0|one", "one@x.org"), user("auth0|two", "two@x.org")]));
    let (code, summary) = scene.import_into(&one, &file, &[]).await;
    assert_eq!((code, said(&summary, "kept")), (Some(0), 2), "{summary}");
    scene.assert_known(&other, &[("auth0|one", "one@x.org")]).await;
    scene.assert_known(&one, &[("auth0|two", "two@x.org")]).await;
    redis.kill().await;
    until("Redis is missed", async || (one.admin("/readyz").await.body != "ready\n").then_some(())).await;
    let (code, summary) = scene.import_into(&one, &file, &["--exported-at", &hours_ago(0)]).await;
    assert_eq!((code, said(&summary, "kept")), (Some(1), 0), "{summary}");
    assert!(summary.contains("Redis is unreachable or full"), "{summary}");
}
