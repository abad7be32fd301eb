//! A Redis that sends wrong data, hangs, dies, or is read by others.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::scene::{
    ALICE, Scene, admin, assert_alice, connected, errors, lookups, purge, readyz, shared_hits, write_secret,
};
use crate::support::redis::{RedisServer, certificate};
use crate::support::service::Running;
use crate::support::{Holdfast, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tampered_with_is_a_miss_and_counted_and_never_a_yes() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let mut tokens = BTreeMap::new();
    for what in
        ["ciphertext", "expiry", "version", "truncated", "one of two", "the other", "a list", "too long"]
    {
        let token = scene.opaque();
        let before = scene.redis.records("verdicts").await;
        assert_alice(&a.ask(&token).await);
        scene.redis.has("verdicts", before.len() + 1).await;
        let mut names = scene.redis.records("verdicts").await;
        names.retain(|name| !before.contains(name));
        tokens.insert(what, (token, names.remove(0)));
    }
    let untouched = scene.opaque();
    assert_alice(&a.ask(&untouched).await);
    scene.redis.has("verdicts", tokens.len() + 1).await;
    let name = |what: &str| tokens[what].1.clone();
    for (what, byte) in [("ciphertext", 40), ("expiry", 0), ("version", 8)] {
        let mut value = scene.redis.value(&name(what)).await;
        value[byte] ^= 1;
        scene.redis.set(&name(what), &value).await;
    }
    let value = scene.redis.value(&name("truncated")).await;
    scene.redis.set(&name("truncated"), &value[..value.len() - 1]).await;
    let one = scene.redis.value(&name("one of two")).await;
    let other = scene.redis.value(&name("the other")).await;
    scene.redis.set(&name("one of two"), &other).await;
    scene.redis.set(&name("the other"), &one).await;
    let mut client = scene.redis.client().await;
    redis::cmd("DEL").arg(name("a list")).exec_async(&mut client).await.unwrap();
    redis::cmd("RPUSH").arg(name("a list")).arg("x").exec_async(&mut client).await.unwrap();
    scene.redis.set(&name("too long"), &vec![1; 300 * 1024]).await;

    let b = scene.instance().await;
    scene.silence();
    for (what, (token, _)) in &tokens {
        assert_eq!(b.ask(token).await.status, 503, "{what}");
    }
    assert_alice(&b.ask(&untouched).await);
    assert_eq!(lookups(&b, "unreadable").await, 6);
    assert_eq!((lookups(&b, "error").await, errors(&b, "no_record").await), (2, 2));
    assert_eq!(shared_hits(&b).await, 1);

    // The issuer's next yes heals them.
    scene.tenant.clear_faults();
    let c = scene.instance().await;
    for (what, (token, _)) in &tokens {
        assert_alice(&c.ask(token).await);
        until(&format!("{what} is healed"), async || {
            let d = scene.instance().await;
            assert_alice(&d.ask(token).await);
            (shared_hits(&d).await == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_costs_no_answer_and_what_was_learned_meanwhile_is_shared_when_it_is_back() {
    let Some(mut scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let (before, during) = (scene.opaque(), scene.opaque());
    assert_alice(&a.ask(&before).await);
    // Written, so that it does not wait to be written to the next Redis.
    scene.redis.has("verdicts", 1).await;
    scene.redis.kill().await;
    until("degraded", async || readyz(&a).await.contains("the shared store fails").then_some(())).await;
    for token in [&before, &during] {
        assert_alice(&a.ask(token).await);
    }
    assert_eq!(scene.tenant.calls().userinfo, 2);
    let status = admin(&a, "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned())
        .await
        .body;
    assert!(status.contains("\"shared_degraded\": true"), "{status}");

    scene.redis.restart().await;
    until("recovered", async || (readyz(&a).await == "ready\n").then_some(())).await;
    assert_eq!(errors(&a, "degraded").await, 1, "one transition, however many attempts");
    scene.redis.has("verdicts", 1).await;
    let b = scene.instance().await;
    assert_alice(&b.ask(&during).await);
    assert_eq!(scene.tenant.calls().userinfo, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_costs_no_answer() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance_with("redis_timeout = \"1ms\"\n", &scene.clock).await;
    scene.redis.signal("STOP").await;
    for _ in 0..10 {
        assert_alice(&a.ask(&scene.opaque()).await);
    }
    until("degraded", async || readyz(&a).await.contains("the shared store fails").then_some(())).await;
    assert!(errors(&a, "timeout").await > 0);
    assert_alice(&a.ask(&scene.opaque()).await);
    scene.redis.signal("CONT").await;
    scene.redis.has("verdicts", 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_never_there_costs_no_answer() {
    let Some(mut scene) = Scene::new().await else { return };
    scene.redis.kill().await;
    let a = Running::start(&scene.config(""), scene.clock.clone()).await;
    assert_alice(&a.ask(&scene.opaque()).await);
    until("degraded", async || readyz(&a).await.contains("the shared store fails").then_some(())).await;
    scene.redis.restart().await;
    scene.redis.has("verdicts", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_reads_redis_or_listens_to_it_learns_a_token_a_person_or_the_issuer() {
    let Some(scene) = Scene::new().await else { return };
    let mut listener = UnixStream::connect(scene.redis.socket()).await.unwrap();
    listener.write_all(b"MONITOR\r\n").await.unwrap();
    let mut ok = [0; 5];
    listener.read_exact(&mut ok).await.unwrap();
    assert_eq!(&ok, b"+OK\r\n");

    let a = scene.instance().await;
    let opaque = scene.opaque();
    let no_email = scene.tenant.mint().build().unwrap();
    for token in [&opaque, &no_email] {
        assert_alice(&a.ask(token).await);
    }
    scene.redis.has("verdicts", 1).await;
    scene.redis.has("profiles", 1).await;
    scene.redis.has("keys", 1).await;
    let names = scene.redis.names().await;
    assert!(names.iter().all(|name| name.starts_with("holdfast:v1:")), "{names:?}");
    let mut seen = names.join("\n").into_bytes();
    for name in &names {
        seen.extend(scene.redis.value(name).await);
    }
    assert_eq!(purge(&a, "{\"subject\": \"auth0|alice\"}").await.status, 200);
    let mut heard = Vec::new();
    until("the message was heard", async || {
        let mut buffer = [0; 65_536];
        let length = listener.read(&mut buffer).await.unwrap();
        heard.extend_from_slice(&buffer[..length]);
        String::from_utf8_lossy(&heard).contains("\"PUBLISH\"").then_some(())
    })
    .await;
    seen.extend(heard);
    let address = scene.tenant.address().to_string();
    for secret in
        [opaque.as_str(), &no_email, no_email.rsplit('.').next().unwrap(), ALICE, "alice", "auth0", &address]
    {
        assert!(
            !seen.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{secret} is to be seen in Redis"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_demanded_sent_and_never_shown() {
    const PASSWORD: &str = "hunter2hunter2";
    let Some(redis) =
        RedisServer::start_with(&["--requirepass", PASSWORD], &format!("?pass={PASSWORD}")).await
    else {
        return;
    };
    let scene = Scene::on(redis).await;
    let by_url = scene.instance().await;
    assert_alice(&by_url.ask(&scene.opaque()).await);
    scene.redis.has("verdicts", 1).await;

    let file = write_secret(&scene.files.path().join("password"), PASSWORD.as_bytes());
    let with_file = scene
        .config(&format!("redis_password_file = \"{}\"\n", file.display()))
        .replace(&format!("?pass={PASSWORD}"), "");
    let by_file = Running::start(&with_file, scene.clock.clone()).await;
    connected(&by_file).await;
    let settings = format!("{:?}", by_file.service.instance().settings.store);
    assert!(!settings.contains(PASSWORD), "{settings}");

    let wrong = Running::start(&scene.config("").replace(PASSWORD, "wrong"), scene.clock.clone()).await;
    until("degraded", async || readyz(&wrong).await.contains("the shared store fails").then_some(())).await;
    assert_alice(&wrong.ask(&scene.opaque()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_strangers_make_nobody_forget() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance().await;
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    let name = scene.redis.records("verdicts").await.remove(0);
    let channel = format!("{}:forget", name.rsplitn(3, ':').nth(2).unwrap());
    let mut client = scene.redis.client().await;
    for message in [&b""[..], b"everybody", &scene.redis.value(&name).await, &[0; 100]] {
        let heard: u64 =
            redis::cmd("PUBLISH").arg(&channel).arg(message).query_async(&mut client).await.unwrap();
        assert_eq!(heard, 1, "the test must know the channel");
    }
    until("they were heard", async || (errors(&a, "message").await == 4).then_some(())).await;
    assert_alice(&a.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_is_reached_by_tls_and_only_if_its_certificate_is_good() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    certificate(&at("cert.pem"), &at("key.pem"));
    // Redis takes no port 0 for "any": one that was free a moment ago has to do.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let options = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &at("cert.pem"),
        "--tls-key-file",
        &at("key.pem"),
        "--tls-auth-clients",
        "no",
    ];
    let Some(redis) = RedisServer::start_with(&options, "").await else { return };
    let scene = Scene::on(redis).await;
    let config = scene.config("").replace(&scene.redis.url(), &format!("rediss://127.0.0.1:{port}"));
    let config = format!("[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{config}");
    let trusting =
        Holdfast::start_with(files.path(), &config, 1, &[("SSL_CERT_FILE", &at("cert.pem"))]).await;
    scene.redis.has("keys", 1).await;
    trusting.told("records are shared through Redis").await;
    let strict = Holdfast::start_with(files.path(), &config, 1, &[]).await;
    strict.told("the shared store is degraded").await;
    assert!(!strict.log().contains("records are shared"), "{}", strict.log());
}
