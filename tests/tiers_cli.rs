//! What an operator does with the stores (backup, restore, purge, listing), and what a bad disk does to them.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use holdfast_devtenant::{Options, Tenant, User};
use support::{Holdfast, Reply, exchange, until};
use tokio::net::TcpStream;
use tokio::process::Command;

fn config(tenant: &Tenant, data: &Path, store: &str) -> String {
    format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"{}\"\n{store}\
         [[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n",
        data.display(),
        tenant.issuer(),
        tenant.audience()
    )
}

async fn post(holdfast: &Holdfast, kind: &str, body: &str) -> Reply {
    let request = format!(
        "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    exchange(TcpStream::connect(holdfast.admin).await.unwrap(), request.as_bytes()).await
}

/// Runs `holdfast` to its end: exit code and output.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits for a checkpoint that is complete and younger than now.
async fn checkpoint(data: &Path) {
    let asked = SystemTime::now();
    until("a checkpoint", async || {
        let checkpoints = std::fs::read_dir(data.join("checkpoints")).ok()?.flatten();
        let times =
            checkpoints.filter_map(|entry| entry.path().join("FORMAT").metadata().ok()?.modified().ok());
        times.max().filter(|made| *made >= asked).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_while_running_answers_in_an_outage_from_another_directory_and_only_with_the_secret() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (data, copy) = (at("data"), at("backup"));
    let config_of = |data: &Path| config(&tenant, data, "checkpoint_interval = \"1s\"\n");
    let mut holdfast = Holdfast::start(directory.path(), &config_of(&data), 1).await.ready().await;
    let opaque = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&opaque).await.status, 200);
    checkpoint(&data).await;
    let (code, said) = run(&["backup", "--data", text(&data), "--to", text(&copy)]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("its newest checkpoint")
            && said.contains("The backup does not contain the instance secret"),
        "{said}"
    );
    assert!(said.contains(text(&data.join("secret"))), "{said}");

    let (code, said) = run(&["backup", "--data", text(&data), "--to", text(&copy)]).await;
    assert_eq!(code, Some(1), "an existing directory is left alone: {said}");
    let (code, said) = run(&["restore", "--data", text(&data), "--from", text(&copy)]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("another holdfast is running on"), "{said}");
    assert_eq!(run(&["backup", "--to", text(&at("other"))]).await.0, Some(2), "no data directory is named");

    holdfast.kill().await;
    tenant.go_down().await;
    for (name, with_secret) in [("with-secret", true), ("without-secret", false)] {
        let restored = at(name);
        let (code, said) = run(&["restore", "--data", text(&restored), "--from", text(&copy)]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains(
                "is missing: before holdfast starts, put the secret of the instance that made the backup"
            ),
            "{said}"
        );
        if with_secret {
            std::fs::copy(data.join("secret"), restored.join("secret")).unwrap();
        }
        let holdfast = Holdfast::start(directory.path(), &config_of(&restored), 1).await;
        if with_secret {
            let holdfast = holdfast.ready().await;
            let reply = holdfast.ask(&opaque).await;
            assert_eq!(reply.status, 200, "{}", holdfast.log());
            assert_eq!(reply.header("x-user-email"), ["alice@example.com"]);
        } else {
            assert_eq!(holdfast.ask(&opaque).await.status, 503);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_holdfast_is_backed_up_at_once_with_all_that_it_knows() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (data, copy, restored) = (at("data"), at("backup"), at("restored"));
    let mut holdfast = Holdfast::start(directory.path(), &config(&tenant, &data, ""), 1).await.ready().await;
    let opaque = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&opaque).await.status, 200);
    // No instance can be reached: then it says what to do.
    let nobody = ["backup", "--data", text(&data), "--to", text(&copy), "--admin", "127.0.0.1:1"];
    let (code, said) = run(&nobody).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--admin") && !copy.exists(), "{said}");
    let admin = holdfast.admin.to_string();
    let (code, said) = run(&["backup", "--data", text(&data), "--to", text(&copy), "--admin", &admin]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("its newest checkpoint, made"), "{said}");
    let (code, said) = run(&nobody).await;
    assert_eq!(code, Some(1), "the backup is there already: {said}");
    holdfast.kill().await;
    tenant.go_down().await;
    let (code, said) = run(&["restore", "--data", text(&restored), "--from", text(&copy)]).await;
    assert_eq!(code, Some(0), "{said}");
    std::fs::copy(data.join("secret"), restored.join("secret")).unwrap();
    let holdfast = Holdfast::start(directory.path(), &config(&tenant, &restored, ""), 1).await.ready().await;
    assert_eq!(holdfast.ask(&opaque).await.status, 200, "{}", holdfast.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_said_at_the_next_start() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, &data, "");
    for lost in [false, false, true] {
        if lost {
            std::fs::remove_file(data.join("secret")).unwrap();
        }
        let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        assert_eq!(holdfast.log().contains("their instance secret"), lost, "{}", holdfast.log());
        holdfast.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_store_is_replaced_by_its_checkpoint_and_holdfast_answers_in_an_outage() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(&tenant, &data, "checkpoint_interval = \"1s\"\n");
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let opaque = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&opaque).await.status, 200);
    checkpoint(&data).await;
    holdfast.kill().await;
    tenant.go_down().await;
    let mut manifests = 0;
    for entry in std::fs::read_dir(data.join("db")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("MANIFEST") {
            std::fs::write(entry.path(), vec![0x5a; 4096]).unwrap();
            manifests += 1;
        }
    }
    assert_ne!(manifests, 0);

    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    assert_eq!(holdfast.ask(&opaque).await.status, 200, "{}", holdfast.log());
    let log = holdfast.log();
    assert!(log.contains("the disk store was corrupt") && log.contains("took its place"), "{log}");
    let metrics = holdfast.admin("/metrics").await.body;
    assert!(metrics.contains(r#"holdfast_store_errors_total{kind="recovered",store="disk"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_makes_the_next_request_ask_the_issuer_again_and_leaves_bystanders_alone() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = config(&tenant, &directory.path().join("data"), "");
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let at = holdfast.admin.to_string();
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let alice = tenant.mint().opaque().build().unwrap();
    let alice_too = tenant.mint().opaque().claim("n", 2).build().unwrap();
    let bob = tenant.mint().subject("auth0|bob").opaque().build().unwrap();
    let asked = async |holdfast: &Holdfast, token: &str| {
        let before = tenant.calls().userinfo;
        let reply = holdfast.ask(token).await;
        assert_eq!(reply.status, 200, "{}", holdfast.log());
        tenant.calls().userinfo - before
    };
    for token in [&alice, &alice_too, &bob] {
        assert_eq!((asked(&holdfast, token).await, asked(&holdfast, token).await), (1, 0));
    }

    let file = directory.path().join("token");
    std::fs::write(&file, format!("{alice}\n")).unwrap();
    let (code, said) = run(&["purge", "--token-file", text(&file), "--admin", &at]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((asked(&holdfast, &alice).await, asked(&holdfast, &alice_too).await), (1, 0));

    let subject = "auth0|alice".to_owned();
    let name = tenant.issuer();
    for wrong in ["https://other/", name.trim_end_matches('/')] {
        let (code, said) = run(&["purge", "--subject", &subject, "--issuer", wrong, "--admin", &at]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("no issuer {wrong:?} is configured; is {name:?} meant?")), "{said}");
    }
    let (code, said) = run(&["purge", "--subject", "auth0|alise", "--admin", &at]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 records were known here: is it spelled right?"), "{said}");
    assert_eq!(asked(&holdfast, &alice).await, 0, "nobody was forgotten");
    let (code, said) = run(&["purge", "--subject", &subject, "--issuer", &name, "--admin", &at]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("forgotten: a subject; 2 records") && said.contains(&at), "{said}");
    assert_eq!((asked(&holdfast, &alice).await, asked(&holdfast, &alice_too).await), (1, 1));
    assert_eq!(asked(&holdfast, &bob).await, 0);

    // Also on the disk and in every checkpoint: after a restart alice is unknown.
    assert_eq!(run(&["purge", "--subject", &subject, "--admin", &at]).await.0, Some(0));
    holdfast.kill().await;
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    assert_eq!((asked(&holdfast, &bob).await, asked(&holdfast, &alice).await), (0, 1));

    let at = holdfast.admin.to_string();
    assert_eq!(run(&["purge", "--all", "--admin", &at]).await.0, Some(0));
    holdfast.kill().await;
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    assert_eq!((asked(&holdfast, &bob).await, asked(&holdfast, &alice).await), (1, 1));

    for (kind, body, status) in [
        ("text/plain", r#"{"all": true}"#, 415),
        ("application/json", r#"{"all": false}"#, 400),
        ("application/json", r#"{"all": true, "subject": "x"}"#, 400),
        ("application/json", r#"{"everything": true}"#, 400),
        ("application/json", &" ".repeat(40_000), 400),
    ] {
        assert_eq!(post(&holdfast, kind, body).await.status, status, "{kind} {}", body.len());
    }
    assert_eq!(asked(&holdfast, &bob).await, 0, "a purge that is refused purges nothing");
    assert_eq!(run(&["purge", "--admin", &at]).await.0, Some(2), "what to purge has to be said");
    let (code, said) = run(&["purge", "--all", "--admin", "127.0.0.1:1"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no holdfast answers on its admin listener 127.0.0.1:1"), "{said}");
    assert!(!holdfast.log().contains(&alice));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_tiers_is_shown_with_and_without_a_running_holdfast() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = config(&tenant, &directory.path().join("data"), "");
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let token = tenant.mint().opaque().build().unwrap();
    for _ in 0..3 {
        assert_eq!(holdfast.ask(&token).await.status, 200);
    }
    let file = directory.path().join("holdfast.toml");
    let shown = async |address: &str| {
        let (code, said) = run(&["tiers", "--config", text(&file), "--admin", address]).await;
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let row = |said: &str, name: &str| -> Vec<String> {
        let row = said.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let said = shown(&holdfast.admin.to_string()).await;
    assert_eq!(row(&said, "tier ")[5..], ["hits in disk", "hits in memory"], "{said}");
    assert_eq!(row(&said, "primary"), ["primary", "4h", "fresh", "yes", "yes", "0", "2"], "{said}");
    assert_eq!(row(&said, "ultra-backup")[3..5], ["no", "if the issuer cannot tell"], "{said}");
    assert!(said.contains("records in memory: ") && said.contains("records in disk: "), "{said}");
    assert!(!said.contains("has another one"), "{said}");
    // The settings of the running instance count, whatever the file says now.
    for change in [
        "[policy]\nverdict_ceiling = \"ultra-backup\"\n",
        "[[tier]]\nname = \"emergency\"\nage = \"1h\"\nrole = \"outage\"\n",
    ] {
        std::fs::write(&file, format!("{config}{change}")).unwrap();
        let changed = shown(&holdfast.admin.to_string()).await;
        assert_eq!(row(&changed, "primary")[..5], ["primary", "4h", "fresh", "yes", "yes"], "{changed}");
        assert_eq!(row(&changed, "ultra-backup")[3], "no", "{changed}");
        assert!(changed.contains("The configuration has another one"), "{changed}");
    }
    std::fs::write(&file, &config).unwrap();
    let said = shown("127.0.0.1:1").await;
    assert!(said.contains("no holdfast answers"), "{said}");
    let names = [
        "primary",
        "secondary",
        "emergency",
        "ultra-backup",
        "disaster-recovery",
        "last-resort",
        "ultimate-fallback",
    ];
    assert!(names.iter().all(|name| row(&said, name).len() == 5), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_secret_of_its_own_opens_a_backup_elsewhere_and_a_bad_one_is_refused_with_what_to_do() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (data, copy, restored, secret) = (at("data"), at("backup"), at("restored"), at("elsewhere"));
    let config_of = |data: &Path, secret: &Path| {
        let secret_file = format!("secret_file = \"{}\"\n", secret.display());
        config(&tenant, data, &format!("checkpoint_interval = \"1s\"\n{secret_file}"))
    };
    let write = |path: &Path, length: usize, mode: u32| {
        std::fs::write(path, vec![7; length]).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = at("refused.toml");
    std::fs::write(&file, config_of(&data, &secret)).unwrap();
    let refused = async |sentence: &str| {
        let (code, said) = run(&["serve", "--config", text(&file)]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(sentence) && said.contains(text(&secret)), "{said}");
    };
    refused("cannot use the instance secret").await;
    write(&secret, 32, 0o660);
    refused("run `chmod 600` on it").await;
    write(&secret, 31, 0o600);
    refused("does not hold exactly 32 bytes (read 31)").await;
    write(&secret, 33, 0o600);
    refused("does not hold exactly 32 bytes").await;

    write(&secret, 32, 0o600);
    let mut holdfast = Holdfast::start(directory.path(), &config_of(&data, &secret), 1).await.ready().await;
    let opaque = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&opaque).await.status, 200);
    assert!(!data.join("secret").exists(), "there is one secret, not two");
    checkpoint(&data).await;
    let (code, said) = run(&["backup", "--data", text(&data), "--to", text(&copy)]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["restore", "--data", text(&restored), "--from", text(&copy)]).await;
    assert_eq!(code, Some(0), "{said}");
    holdfast.kill().await;
    tenant.go_down().await;

    // Another instance with a copy of the file has the same digests and seals.
    let (same, other) = (at("same"), at("other"));
    write(&same, 32, 0o600);
    std::fs::write(&other, [8; 32]).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (secret, status) in [(&other, 503), (&same, 200)] {
        let mut holdfast = Holdfast::start(directory.path(), &config_of(&restored, secret), 1).await;
        if status == 200 {
            holdfast = holdfast.ready().await;
        }
        assert_eq!(holdfast.ask(&opaque).await.status, status, "{}", holdfast.log());
        holdfast.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_configuration_is_good_also_with_every_setting_of_the_store_that_it_shows() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = std::fs::read_to_string(root.join("examples/nginx/holdfast.toml")).unwrap();
    let example = example.replace("http://127.0.0.1:4190/", &tenant.issuer());
    let (before, store) = example.split_once("\n[store]\n").unwrap();
    let (store, after) = store.split_once("\n[").unwrap();
    let store: Vec<_> = store
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
        .collect();
    let secret = directory.path().join("secret");
    for (file, byte) in [(&secret, 7), (&directory.path().join("secret.old"), 8)] {
        std::fs::write(file, [byte; 32]).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let store = store.join("\n").replace("/etc/holdfast/secret", text(&secret));
    let everything = format!("{before}\n[store]\n{store}\n[{after}");
    assert_ne!(everything, example);
    // Redis has one address: its own, or that of its sentinels, or those of a cluster.
    let without = |names: &[&str]| {
        let lines = everything.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
        lines.collect::<Vec<_>>().join("\n")
    };
    let own = without(&["redis_sentinel", "redis_user", "redis_cluster"]);
    let by_sentinels = without(&["redis = ", "redis_cluster"]);
    let in_a_cluster = without(&["redis = ", "redis_sentinel", "redis_user"]);
    let file = directory.path().join("holdfast.toml");
    for text_of_it in [&example, &own, &by_sentinels, &in_a_cluster] {
        std::fs::write(&file, text_of_it).unwrap();
        let (code, said) = run(&["check", "--config", text(&file)]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("configuration: good") && said.contains("answers; keys: "), "{said}");
    }
    // All metrics of the store that the documentation lists.
    let docs = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
    let section = docs.split("\n## `[store]`").nth(1).unwrap().split("\n## ").next().unwrap();
    let keys: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key)
        .collect();
    assert!(keys.contains(&"path") && keys.len() > 3, "{keys:?}");
    for key in keys {
        assert!(everything.contains(&format!("\n{key} = ")), "the example does not show {key}");
    }
}
