//! The instance secret is rotated: what lies under the old one is found, forgotten and revoked, also between an
//! instance that rotates and one that has the old secret alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/scene.rs"]
mod scene;
mod support;

use std::path::Path;
use std::process::Command;

use holdfast_devtenant::Tenant;
use scene::{ALICE, HOUR, Scene, assert_alice, order, purge, shared_hits, write_secret};
use support::service::{Running, held_clock, issuer, tenant};
use support::until;

const PAGE: &str = include_str!("../docs/how-to/rotate.md");

async fn scene() -> Option<Scene> {
    let scene = Scene::new().await?;
    scene.tenant.set_time(Some(scene.clock.now().as_secs()));
    scene.secret("new", 9);
    Some(scene)
}

/// The lines of an instance that rotates from the secret of the scene to another one.
fn rotating(scene: &Scene) -> String {
    let at = |name| scene.files.path().join(name).display().to_string();
    format!("secret_file = \"{}\"\nsecret_file_old = \"{}\"\n", at("new"), at("secret"))
}

fn new_alone(scene: &Scene) -> String {
    rotating(scene).lines().next().unwrap().to_owned() + "\n"
}

async fn rotated(scene: &Scene) -> Running {
    let running = scene.instance_with(&rotating(scene), &scene.clock).await;
    let instance = running.service.instance();
    tokio::time::timeout(support::PATIENCE, instance.stores.former_shared().unwrap().connected())
        .await
        .unwrap();
    running
}

fn calls(scene: &Scene) -> u64 {
    scene.tenant.calls().userinfo
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_under_the_old_secret_is_served_written_anew_and_shared_under_the_new_one() {
    let Some(scene) = scene().await else { return };
    let old = scene.instance().await;
    let tokens = [scene.opaque(), scene.tenant.mint().build().unwrap()];
    for token in &tokens {
        assert_alice(&old.ask(token).await);
    }
    scene.redis.has("verdicts", 1).await;
    scene.redis.has("profiles", 1).await;

    let new = rotated(&scene).await;
    for token in &tokens {
        assert_alice(&new.ask(token).await);
    }
    assert_eq!((shared_hits(&new).await, calls(&scene)), (2, 2));
    scene.redis.has("verdicts", 2).await;
    scene.redis.has("profiles", 2).await;
    scene.redis.has("keys", 2).await;

    // What it learns, it writes under the new secret alone.
    let later = scene.opaque();
    assert_alice(&new.ask(&later).await);
    scene.redis.has("verdicts", 3).await;
    let alone = scene.instance_with(&new_alone(&scene), &scene.clock).await;
    for token in tokens.iter().chain([&later]) {
        assert_alice(&alone.ask(token).await);
    }
    assert_eq!((shared_hits(&alone).await, calls(&scene)), (3, 3), "nothing lies under the old one alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_forgets_all_forget_whichever_of_them_rotates() {
    let Some(scene) = scene().await else { return };
    let old = scene.instance().await;
    let (one, two) = (rotated(&scene).await, rotated(&scene).await);
    let all = [("old", &old), ("one", &one), ("two", &two)];
    for ((by, purging), (at, asked)) in [all[0], all[1]].into_iter().flat_map(|by| all.map(|at| (by, at))) {
        for order in ["token", "subject", "all"] {
            let token = scene.opaque();
            for (_, running) in all {
                assert_alice(&running.ask(&token).await);
            }
            // Who still knows it lets it in: nobody asks the issuer about what is this young.
            scene.tenant.revoke_token(&token);
            let body = match order {
                "token" => format!("{{\"token\": \"{token}\"}}"),
                "subject" => "{\"subject\": \"auth0|alice\"}".to_owned(),
                _ => "{\"all\": true}".to_owned(),
            };
            assert_eq!(purge(purging, &body).await.status, 200);
            until(&format!("{at} forgets by the purge of {order} at {by}"), async || {
                (asked.ask(&token).await.status == 401).then_some(())
            })
            .await;
        }
    }
}

/// The issuer refuses a token at the one that has the old secret alone. The other one must not answer from
/// memory, nor from the record that it wrote under the new secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_under_the_old_secret_is_a_no_under_the_new_one_before_the_next_answer() {
    let Some(scene) = scene().await else { return };
    let late = held_clock(&scene.tenant);
    let old = scene.instance_with("", &late).await;
    let (one, two) = (rotated(&scene).await, rotated(&scene).await);
    let token = scene.opaque();
    for running in [&old, &one, &two] {
        assert_alice(&running.ask(&token).await);
    }
    scene.redis.has("verdicts", 2).await;
    scene.tenant.revoke_token(&token);
    late.advance(7 * HOUR);
    until("the old one learns the no", async || (old.ask(&token).await.status == 401).then_some(())).await;
    for running in [&one, &two] {
        until("so do the others", async || (running.ask(&token).await.status == 401).then_some(())).await;
    }
    scene.redis.has("verdicts", 0).await;

    // Nobody answers a message with a message for ever: an order that is done is done.
    let published = async || -> u64 {
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut scene.redis.client().await)
            .await
            .unwrap();
        let line =
            stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls=")).unwrap().to_owned();
        line.split(',').next().unwrap().parse().unwrap()
    };
    for running in [&one, &two] {
        running.service.instance().flush().await;
    }
    let before = published().await;
    for _ in 0..20 {
        for running in [&one, &two] {
            assert_eq!(running.ask(&token).await.status, 401);
            running.service.instance().flush().await;
        }
    }
    assert_eq!(published().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_holds_on_both_sides_and_is_carried_over_to_the_new_secret() {
    let Some(scene) = scene().await else { return };
    let old = scene.instance().await;
    let new = rotated(&scene).await;
    let signed = |subject: &str| scene.tenant.mint().subject(subject).email_direct(ALICE).build().unwrap();
    let tokens = ["a|1", "a|2", "a|3", "a|4 of 5"].map(signed);
    for running in [&old, &new] {
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200);
        }
    }
    let [by_old, by_new, single, spaced] = &tokens;
    for (by, body) in [
        (&old, "{\"subject\": \"a|1\"}".to_owned()),
        (&new, "{\"subject\": \"a|2\"}".to_owned()),
        (&old, format!("{{\"token\": \"{single}\"}}")),
        (&old, "{\"subject\": \"a|4 of 5\"}".to_owned()),
    ] {
        assert_eq!(order(by, "/revoke", &body).await.status, 200);
    }
    for running in [&old, &new] {
        for token in &tokens {
            until("refused", async || (running.ask(token).await.status == 401).then_some(())).await;
        }
    }
    // Taken back by the one that rotates.
    assert_eq!(order(&new, "/unrevoke", "{\"subject\": \"a|1\"}").await.status, 200);
    for running in [&old, &new] {
        until("let in", async || (running.ask(by_old).await.status == 200).then_some(())).await;
    }
    assert_eq!(order(&old, "/revoke", "{\"subject\": \"a|1\"}").await.status, 200);
    until("refused", async || (new.ask(by_old).await.status == 401).then_some(())).await;

    // Without the old secret: all but that of the single token, as the page says.
    until("it is written under the new secret", async || {
        let alone = scene.instance_with(&new_alone(&scene), &scene.clock).await;
        for token in [by_old, by_new, spaced] {
            (alone.ask(token).await.status == 401).then_some(())?;
        }
        assert_eq!(alone.ask(single).await.status, 200);
        Some(())
    })
    .await;
    let later = rotated(&scene).await;
    assert_eq!(later.ask(single).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_under_the_new_secret_is_a_no_under_the_old_one() {
    let Some(scene) = scene().await else { return };
    let late = held_clock(&scene.tenant);
    let old = scene.instance().await;
    let new = scene.instance_with(&rotating(&scene), &late).await;
    let token = scene.opaque();
    for running in [&old, &new] {
        assert_alice(&running.ask(&token).await);
    }
    scene.redis.has("verdicts", 2).await;
    scene.tenant.revoke_token(&token);
    late.advance(7 * HOUR);
    until("the new one learns the no", async || (new.ask(&token).await.status == 401).then_some(())).await;
    until("so does the old one", async || (old.ask(&token).await.status == 401).then_some(())).await;
    scene.redis.has("verdicts", 0).await;
}

/// The page's steps, at an instance with a disk and no Redis.
#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_page_rotate_the_secret_of_a_data_directory_and_nobody_notices() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    tenant.set_time(Some(clock.now().as_secs()));
    let files = tempfile::tempdir().unwrap();
    let data = files.path().join("data");
    let config =
        |store: &str| format!("[store]\npath = \"{}\"\n{store}\n{}", data.display(), issuer(&tenant, ""));
    let start = async |store: &str| Running::start_after(&config(store), &clock).await;
    let token = tenant.mint().opaque().build().unwrap();
    let signed = |subject: &str| tenant.mint().subject(subject).email_direct(ALICE).build().unwrap();
    let (bob, single) = (signed("auth0|bob"), signed("auth0|carol"));
    let running = start("").await;
    until("keys", async || (running.ask(&bob).await.status == 200).then_some(())).await;
    assert_alice(&running.ask(&token).await);
    assert_eq!(order(&running, "/revoke", "{\"subject\": \"auth0|bob\"}").await.status, 200);
    assert_eq!(order(&running, "/revoke", &format!("{{\"token\": \"{single}\"}}")).await.status, 200);
    drop(running);

    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("   ```{language}\n");
        let blocks = PAGE.split(&fence).skip(1);
        blocks.map(|block| block.split("   ```").next().unwrap().replace("\n   ", "\n")).collect()
    };
    let [make, check] = blocks("sh").try_into().unwrap();
    shell(&data, &make);
    let [named] = blocks("toml").try_into().unwrap();
    let named = named.replace("   [store]\n", "").replace("/etc/holdfast", data.to_str().unwrap());
    std::fs::write(files.path().join("holdfast.toml"), config(&named)).unwrap();
    let check = check.replace("holdfast check", "$HOLDFAST check --offline --config holdfast.toml");
    shell(files.path(), &check);

    let running = start(&named).await;
    assert_alice(&running.ask(&token).await);
    assert_eq!(tenant.calls().userinfo, 1, "it was found under the old secret");
    for token in [&bob, &single] {
        until("refused", async || (running.ask(token).await.status == 401).then_some(())).await;
    }
    let listed = support::exchange(
        tokio::net::TcpStream::connect(running.admin).await.unwrap(),
        &support::service::request("/revocations", ""),
    )
    .await;
    for kind in ["subject", "token"] {
        assert_eq!(listed.body.matches(&format!("\"kind\": \"{kind}\"")).count(), 1, "{}", listed.body);
    }
    drop(running);

    // The last step.
    let new_alone = named.lines().find(|line| line.starts_with("secret_file =")).unwrap().to_owned() + "\n";
    std::fs::remove_file(data.join("secret.old")).unwrap();
    let running = start(&new_alone).await;
    assert_alice(&running.ask(&token).await);
    assert_eq!(tenant.calls().userinfo, 1, "it was written with the new secret");
    assert_eq!(running.ask(&bob).await.status, 401);
}

fn shell(directory: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast")).current_dir(directory);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{script}\n{done:?}");
}

#[tokio::test]
async fn an_old_secret_that_is_the_new_one_is_told_by_check_and_at_the_start() {
    let files = tempfile::tempdir().unwrap();
    let tenant: Tenant = tenant().await;
    let at = |name: &str| files.path().join(name);
    write_secret(&at("secret"), &[7; 32]);
    write_secret(&at("old"), &[7; 32]);
    let config = format!(
        "[store]\npath = \"{}\"\nsecret_file = \"{}\"\nsecret_file_old = \"{}\"\n{}",
        at("data").display(),
        at("secret").display(),
        at("old").display(),
        issuer(&tenant, "")
    );
    std::fs::write(at("holdfast.toml"), config).unwrap();
    for command in [&["check", "--offline"][..], &["serve"]] {
        let mut holdfast = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        holdfast.args(command).args(["--config", "holdfast.toml"]).current_dir(files.path());
        let done =
            holdfast.env("HOLDFAST_AUTH__LISTEN", "127.0.0.1:0").env("HOLDFAST_ADMIN__LISTEN", "127.0.0.1:0");
        let done = done.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(!done.status.success() && said.contains("secret_file_old: it is the same secret"), "{said}");
    }
}
