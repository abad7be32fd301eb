//! Revoked means refused: at once, on every route to an answer, after a restart, and at every instance.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/scene.rs"]
mod scene;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Clock;
use holdfast::revocation::RevocationKey;
use holdfast::store::revocations::Source;
use holdfast::store::target::Target;
use holdfast_devtenant::Tenant;
use scene::{Scene, connected, readyz, write_secret};
use serde_json::{Value, json};
use support::service::{Running, decryption_keys, held_clock, issuer, tenant, value};
use support::{Reply, exchange, until};
use tokio::net::TcpStream;

const ALICE: &str = "auth0|alice";
const SESSION: &str = "https://holdfast.example/session_id";

/// Both clocks stand: tokens say when they were issued, by the tenant's.
fn hold(tenant: &Tenant) -> Clock {
    let clock = held_clock(tenant);
    tenant.set_time(Some(clock.now().as_secs()));
    clock
}

async fn scene() -> Option<Scene> {
    let scene = Scene::new().await?;
    scene.tenant.set_time(Some(scene.clock.now().as_secs()));
    Some(scene)
}

/// Sends an order to the admin listener.
async fn order(running: &Running, path: &str, body: &Value) -> Reply {
    order_with(running, path, body, "").await
}

async fn order_with(running: &Running, path: &str, body: &Value, lines: &str) -> Reply {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await
}

async fn revoke(running: &Running, body: Value) {
    let reply = order(running, "/revoke", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn list(running: &Running) -> Value {
    let request = b"GET /revocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let reply = exchange(TcpStream::connect(running.admin).await.unwrap(), request).await;
    serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{reply:?}"))
}

fn assert_revoked(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 401, "{what}: {reply:?}");
    let challenge = value(reply, "www-authenticate").unwrap();
    assert!(challenge.contains("invalid_token"), "{what}: {challenge}");
    assert_eq!(value(reply, "x-user-email"), None, "{what}");
}

async fn start(config: &str) -> (Tenant, Running, Clock) {
    let tenant = tenant().await;
    let clock = hold(&tenant);
    let running = Running::start(&issuer(&tenant, config), clock.clone()).await;
    (tenant, running, clock)
}

/// Moves both clocks: that of holdfast and that of the tenant, whose tokens say when they were issued.
fn pass(tenant: &Tenant, clock: &Clock, by: Duration) {
    clock.advance(by);
    tenant.set_time(Some(clock.now().as_secs()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_token_is_refused_from_when_its_subject_is_revoked_and_one_issued_later_passes() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let clock = hold(&tenant);
    let running = Running::start(&issuer(&tenant, &keys), clock.clone()).await;
    let mint = || {
        let mint = || tenant.mint().subject(ALICE);
        let local = [mint().email_direct("a@x.org"), mint(), mint().email_direct("a@x.org").nested_jwe()];
        let foreign = [mint().opaque(), mint().tenant_dir_jwe()];
        local.into_iter().chain(foreign).map(|token| token.build().unwrap()).collect::<Vec<_>>()
    };
    let before = mint();
    let bob = tenant.mint().subject("auth0|bob").email_direct("b@x.org").build().unwrap();
    for token in before.iter().chain([&bob]) {
        assert_eq!(running.ask(token).await.status, 200);
    }
    let calls = tenant.calls().userinfo;
    revoke(&running, json!({ "subject": ALICE })).await;
    for (number, token) in before.iter().enumerate() {
        for _ in 0..2 {
            assert_revoked(&running.ask(token).await, &number.to_string());
        }
    }
    assert_eq!(tenant.calls().userinfo, calls, "what is known to be revoked costs no call");
    assert_eq!(running.ask(&bob).await.status, 200);
    pass(&tenant, &clock, Duration::from_secs(1));
    for (number, token) in mint().iter().enumerate() {
        assert_eq!(running.ask(token).await.status, 200, "{number}");
    }
    for token in &before {
        assert_revoked(&running.ask(token).await, "still");
    }
    assert_eq!(running.counted("holdfast_revocations_total{", "kind=\"subject\"").await, 1);
    assert_eq!(running.counted("holdfast_revocations{", "kind=\"subject\"").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_a_token_a_key_and_everybody_can_be_revoked_and_it_can_be_taken_back() {
    let (tenant, running, _) = start("").await;
    let mint = |session: &str| {
        tenant.mint().subject(ALICE).email_direct("a@x.org").claim(SESSION, session).build().unwrap()
    };
    let [one, other] = [mint("s1"), mint("s2")];
    let opaque = tenant.mint().subject(ALICE).opaque().build().unwrap();
    let status = async || {
        let mut all = Vec::new();
        for token in [&one, &other, &opaque] {
            all.push(running.ask(token).await.status);
        }
        all
    };
    let kid = running.service.instance().issuers.iter().next().unwrap().key_ids()[0].clone();
    assert_eq!(status().await, [200, 200, 200]);
    for (what, refused) in [
        (json!({ "session": "s1" }), [401, 200, 200]),
        (json!({ "token": other }), [200, 401, 200]),
        (json!({ "token": opaque }), [200, 200, 401]),
        (json!({ "kid": kid }), [401, 401, 200]),
        (json!({ "all": true, "issuer": tenant.issuer() }), [401, 401, 401]),
        (json!({ "session": "another" }), [200, 200, 200]),
    ] {
        revoke(&running, what.clone()).await;
        assert_eq!(status().await, refused, "{what}");
        assert_eq!(status().await, refused, "{what}, asked again");
        let reply = order(&running, "/unrevoke", &what).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(status().await, [200, 200, 200], "{what}, taken back");
    }
}

/// The order of the group of P-256 (SEC 2, §2.4.2).
const P256_ORDER: [u64; 4] =
    [0xffff_ffff_0000_0000, 0xffff_ffff_ffff_ffff, 0xbce6_faad_a717_9e84, 0xf3b9_cac2_fc63_2551];

/// The same token with the other ECDSA signature that holds: (r, n − s) for (r, s). It needs no key.
fn signed_otherwise(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrowed = false;
    for (part, order) in signature[32..].chunks_exact_mut(8).zip(P256_ORDER).rev() {
        let s = u64::from_be_bytes((&*part).try_into().unwrap());
        let (less, one) = order.overflowing_sub(s);
        let (less, two) = less.overflowing_sub(borrowed.into());
        borrowed = one || two;
        part.copy_from_slice(&less.to_be_bytes());
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_with_the_other_signature_that_holds_too() {
    let (tenant, running, _) = start("algorithms = [\"ES256\"]\n").await;
    let token = tenant.mint().subject(ALICE).email_direct("a@x.org").algorithm("ES256").build().unwrap();
    let other = signed_otherwise(&token);
    assert_ne!(token, other);
    assert_eq!(running.ask(&other).await.status, 200, "it holds");
    revoke(&running, json!({ "token": token })).await;
    for (what, token) in [("as revoked", &token), ("signed otherwise", &other)] {
        assert_revoked(&running.ask(token).await, what);
    }
    let reply = order(&running, "/unrevoke", &json!({ "token": other })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(running.ask(&token).await.status, 200, "taken back");
}

/// A DELETE of `/revoke` with these header lines, and this body if there is one.
async fn delete(running: &Running, query: &str, lines: &str, body: &str) -> Reply {
    let request = format!(
        "DELETE /revoke{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_takes_a_revocation_back_by_its_body_or_its_query() {
    let (tenant, running, _) = start("").await;
    let token =
        tenant.mint().subject("auth0|a+b").email_direct("a@x.org").claim(SESSION, "s").build().unwrap();
    let json = "Content-Type: application/json\r\n";
    let of_issuer = format!("?subject=auth0%7Ca%2Bb&issuer={}", tenant.issuer());
    for (what, query, lines, body) in [
        (json!({ "subject": "auth0|a+b" }), "", json, r#"{"subject":"auth0|a+b"}"#),
        (json!({ "token": token }), "", json, &*json!({ "token": token }).to_string()),
        (json!({ "subject": "auth0|a+b" }), "?subject=auth0%7Ca%2Bb", "", ""),
        (json!({ "subject": "auth0|a+b" }), &*of_issuer, "", ""),
        (json!({ "session": "s" }), "?session=s", "", ""),
        (json!({ "all": true }), "?all=true", "", ""),
    ] {
        revoke(&running, what.clone()).await;
        assert_revoked(&running.ask(&token).await, &what.to_string());
        let reply = delete(&running, query, lines, body).await;
        assert_eq!(reply.status, 200, "{query} {body}: {reply:?}");
        assert!(reply.body.starts_with("lifted"), "{query} {body}: {reply:?}");
        assert_eq!(running.ask(&token).await.status, 200, "{query} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_names_nothing_two_things_or_a_token_in_its_url_is_refused() {
    let (_tenant, running, _) = start("").await;
    revoke(&running, json!({ "subject": ALICE })).await;
    for (query, lines, body, status) in [
        ("", "", "", 415),
        ("?", "", "", 400),
        ("?subject=auth0%7Calice&subject=auth0%7Calice", "", "", 400),
        ("?subject=auth0%7Calice&session=s", "", "", 400),
        ("?subject=auth0%7Calice&issued_before=2026-01-31T12:00:00Z", "", "", 400),
        ("?subject=auth0%7Calice", "Content-Type: application/json\r\n", r#"{"all":true}"#, 400),
        ("?subject=auth0%7Calice", "Origin: https://evil.example\r\n", "", 403),
        ("?token=a.b.c", "", "", 400),
        ("?all=1", "", "", 400),
        ("?user=a", "", "", 400),
    ] {
        let reply = delete(&running, query, lines, body).await;
        assert_eq!(reply.status, status, "{query} {lines}{body}: {reply:?}");
    }
    assert!(list(&running).await["revocations"][0]["issued_before"].is_string(), "it was taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_issued_before_a_given_time_is_refused_and_no_more() {
    let (tenant, running, clock) = start("").await;
    let old = tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    pass(&tenant, &clock, Duration::from_secs(600));
    let new = tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    let before = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + Duration::from_secs(clock.now().as_secs() - 300),
    );
    revoke(&running, json!({ "subject": ALICE, "issued_before": before.to_string() })).await;
    assert_eq!([running.ask(&old).await.status, running.ask(&new).await.status], [401, 200]);
    let without = tenant.mint().subject(ALICE).email_direct("a@x.org").remove_claim("iat").build().unwrap();
    assert_revoked(&running.ask(&without).await, "a token that does not say when it was issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_that_its_issuer_vouches_for_again_stays_revoked() {
    let (tenant, running, clock) = start("").await;
    let opaque = tenant.mint().subject(ALICE).expires_in(30 * 86_400).opaque().build().unwrap();
    assert_eq!(running.ask(&opaque).await.status, 200);
    // Asked about again: the record is younger than the token's first sight.
    pass(&tenant, &clock, Duration::from_secs(13 * 3600));
    assert_eq!(running.ask(&opaque).await.status, 200);
    let before = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + Duration::from_secs(clock.now().as_secs() - 3600),
    );
    revoke(&running, json!({ "subject": ALICE, "issued_before": before.to_string() })).await;
    assert_revoked(&running.ask(&opaque).await, "it was first seen before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_purge_leave_revocations_as_they_are() {
    let (_tenant, running, _) = start("").await;
    let token = _tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    assert_eq!(running.ask(&token).await.status, 200);
    revoke(&running, json!({ "subject": ALICE })).await;
    running.service.reload().unwrap();
    assert_revoked(&running.ask(&token).await, "after a reload");
    assert_eq!(order(&running, "/purge", &json!({ "all": true })).await.status, 200);
    assert_revoked(&running.ask(&token).await, "after a purge");
    let reply = order(&running, "/unrevoke", &json!({ "subject": ALICE })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(running.ask(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_the_same_directory_still_refuses_and_the_list_says_whom() {
    let tenant = tenant().await;
    let clock = hold(&tenant);
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[store]\npath = \"{}\"\n{}", directory.path().display(), issuer(&tenant, ""));
    let token = tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    let running = Running::start(&config, clock.clone()).await;
    assert_eq!(running.ask(&token).await.status, 200);
    revoke(&running, json!({ "subject": ALICE })).await;
    running.service.drain().await;
    let running = Running::start_after(&config, &clock).await;
    until("keys", async || (running.ask(&token).await.status != 503).then_some(())).await;
    assert_revoked(&running.ask(&token).await, "after a restart");
    let listed = list(&running).await;
    assert_eq!(listed["revocations"][0]["kind"], "subject");
    assert_eq!(listed["revocations"][0]["what"], format!("{ALICE} of {}", tenant.issuer()));
    assert_eq!(listed["behind"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_instances_refuse_what_one_was_told_and_one_that_starts_later_does_so_too() {
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    for running in [&a, &b] {
        assert_eq!(running.ask(&token).await.status, 200);
    }
    revoke(&a, json!({ "subject": ALICE })).await;
    assert_revoked(&a.ask(&token).await, "where it was said");
    until("the other instance refuses", async || (b.ask(&token).await.status == 401).then_some(())).await;
    let later = scene.instance().await;
    assert_revoked(&later.ask(&token).await, "the first answer of one that starts later");
    let reply = order(&b, "/unrevoke", &json!({ "subject": ALICE })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    until("the first lets it in again", async || (a.ask(&token).await.status == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_write_to_redis_again_what_it_has_lost_leave_out_what_others_have_written() {
    const RECORDS: usize = 600;
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let targets = (0..RECORDS).map(|number| {
        let subject = a.service.instance().digester.subject(&scene.tenant.issuer(), &number.to_string());
        Target { key: RevocationKey::subject(&subject), former: None, label: number.to_string() }
    });
    let (revocations, now) = (a.service.instance().revocations.clone(), scene.clock.now());
    revocations.revoke(targets.collect(), now, Duration::from_secs(86_400), Source::Admin).await.unwrap();
    let heard = async || (b.counted("holdfast_revocations{", "kind=\"subject\"").await == 600).then_some(());
    until("the other instance has heard of them", heard).await;
    redis::cmd("FLUSHALL").exec_async(&mut scene.redis.client().await).await.unwrap();
    let entries = until("all are there again", async || {
        let entries = entries(&scene).await?;
        let keys: HashSet<_> = entries.iter().map(|(_, fields)| fields.get("k").cloned()).collect();
        (keys.len() == RECORDS).then_some(entries)
    })
    .await;
    assert!(entries.len() < RECORDS * 3 / 2, "{}", entries.len());
    let labels: HashSet<_> =
        a.service.instance().revocations.list().await.into_iter().map(|row| row.1.label).collect();
    assert_eq!(labels.len(), RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_loses_right_after_it_took_it_is_written_to_it_again() {
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let token = |sub: &str| scene.tenant.mint().subject(sub).email_direct("a@x.org").build().unwrap();
    let (alice, bob) = (token(ALICE), token("auth0|bob"));
    assert_eq!(b.ask(&alice).await.status, 200);
    revoke(&b, json!({ "subject": "auth0|bob" })).await;
    until("it has read the log", async || (a.ask(&bob).await.status == 401).then_some(())).await;
    // A replica takes over that lacks the newest entry, before anybody has read that.
    let mut redis = scene.redis.client().await;
    let mut reading = async |rule: &str| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("default").arg(rule).exec_async(&mut redis).await.unwrap();
    };
    reading("-xrange").await;
    revoke(&a, json!({ "subject": ALICE })).await;
    let log = log_name(&scene).await.unwrap();
    let mut redis = scene.redis.client().await;
    let mut newest = redis::cmd("XREVRANGE");
    newest.arg(&log).arg("+").arg("-").arg("COUNT").arg(1);
    let newest: Vec<(String, BTreeMap<String, Vec<u8>>)> = newest.query_async(&mut redis).await.unwrap();
    redis::cmd("XDEL").arg(&log).arg(&newest[0].0).exec_async(&mut redis).await.unwrap();
    reading("+xrange").await;
    until("the other instance refuses", async || (b.ask(&alice).await.status == 401).then_some(())).await;
}

/// The entries of the log.
async fn entries(scene: &Scene) -> Option<Vec<(String, BTreeMap<String, Vec<u8>>)>> {
    let name = log_name(scene).await?;
    let mut redis = scene.redis.client().await;
    redis::cmd("XRANGE").arg(name).arg("-").arg("+").query_async(&mut redis).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_has_lost_is_written_to_it_again() {
    let Some(mut scene) = scene().await else { return };
    let a = scene.instance().await;
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    revoke(&a, json!({ "subject": ALICE })).await;
    redis::cmd("FLUSHALL").exec_async(&mut scene.redis.client().await).await.unwrap();
    log_has(&scene, 1).await;
    // The same after a restart of Redis, which keeps nothing, with another revocation meanwhile.
    scene.redis.kill().await;
    let reply = order(&a, "/revoke", &json!({ "subject": "auth0|bob" })).await;
    assert_eq!(reply.status, 503, "no store has it: {reply:?}");
    scene.redis.restart().await;
    connected(&a).await;
    log_has(&scene, 2).await;
    let b = scene.instance().await;
    assert_revoked(&b.ask(&token).await, "at an instance that has only Redis to tell it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_redis_misses_is_on_disk_and_gets_there_later_and_the_command_says_so() {
    let Some(mut scene) = scene().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = format!("path = \"{}\"\n", directory.path().display());
    let a = scene.instance_with(&store, &scene.clock).await;
    scene.redis.kill().await;
    until("degraded", async || readyz(&a).await.contains("the shared store fails").then_some(())).await;
    let admin = a.admin.to_string();
    let arguments = ["revoke", "--subject", ALICE, "--admin", &admin];
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast")).args(arguments).output();
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Redis is degraded and gets it when it recovers"), "{said}");
    scene.redis.restart().await;
    log_has(&scene, 1).await;
    let b = scene.instance().await;
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").issued_ago(60).build().unwrap();
    assert_revoked(&b.ask(&token).await, "at another instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_redis_refused_gets_there_when_it_takes_writes_again_though_it_lost_nothing() {
    let Some(scene) = scene().await else { return };
    let b = scene.instance().await;
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    assert_eq!(b.ask(&token).await.status, 200);
    revoke(&b, json!({ "subject": "auth0|bob" })).await;
    // It has read the log, which is not empty.
    let a = scene.instance().await;
    scene.redis.limit(1).await;
    let reply = order(&a, "/revoke", &json!({ "subject": ALICE })).await;
    assert_eq!(reply.status, 503, "no store has it: {reply:?}");
    scene.redis.limit(0).await;
    log_has(&scene, 2).await;
    until("the other instance refuses", async || (b.ask(&token).await.status == 401).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_log_that_nobody_can_read_hides_none_behind_it() {
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    assert_eq!(b.ask(&token).await.status, 200);
    revoke(&a, json!({ "subject": "auth0|bob" })).await;
    let mut redis = scene.redis.client().await;
    let name = log_name(&scene).await.unwrap();
    for (field, value) in [(&b"k"[..], &b"r"[..]), (b"\xff\xfe", b"\xff"), (b"", b"")] {
        let mut command = redis::cmd("XADD");
        command.arg(&name).arg("*").arg(field).arg(value).exec_async(&mut redis).await.unwrap();
    }
    revoke(&a, json!({ "subject": ALICE })).await;
    until("the other instance refuses", async || (b.ask(&token).await.status == 401).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_keeps_records_shortly_takes_none_from_the_log_that_others_keep_for_longer() {
    let Some(scene) = scene().await else { return };
    let a = scene.instance().await;
    let token = scene.tenant.mint().subject(ALICE).email_direct("a@x.org").build().unwrap();
    revoke(&a, json!({ "subject": ALICE })).await;
    // Ten days pass for Redis; and it removes entries by hundreds.
    let mut redis = scene.redis.client().await;
    let name = log_name(&scene).await.unwrap();
    let entry: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg(&name).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    let (place, fields) = &entry[0];
    let millis: u64 = place.split('-').next().unwrap().parse().unwrap();
    redis::cmd("DEL").arg(&name).exec_async(&mut redis).await.unwrap();
    let filling = [b"k".to_vec(), vec![0; 100]];
    let mut old = redis::pipe();
    for number in 0..300 {
        let fields = if number == 0 { fields.as_slice() } else { &filling };
        old.cmd("XADD").arg(&name).arg(format!("{}-{number}", millis - 10 * 86_400_000)).arg(fields).ignore();
    }
    drop(a);
    old.exec_async(&mut redis).await.unwrap();
    let brief = format!("{}\n[revocation]\nkeep = \"1d\"\n", scene.config(""));
    let brief = Running::start(&brief, scene.clock.clone()).await;
    connected(&brief).await;
    assert_revoked(&brief.ask(&token).await, "before");
    revoke(&brief, json!({ "subject": "auth0|bob" })).await;
    let later = scene.instance().await;
    assert_revoked(&later.ask(&token).await, "at an instance that starts later");
}

async fn log_name(scene: &Scene) -> Option<String> {
    scene.redis.names().await.into_iter().find(|name| name.ends_with(":revocation_log"))
}

/// Waits until the log in Redis has so many entries.
async fn log_has(scene: &Scene, entries: usize) {
    until("the log has its entries", async || {
        let name = log_name(scene).await?;
        let length: usize =
            redis::cmd("XLEN").arg(name).query_async(&mut scene.redis.client().await).await.ok()?;
        (length == entries).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_change_something_need_the_token_if_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = write_secret(&directory.path().join("token"), b"0123456789abcdef0123\n");
    let tenant = tenant().await;
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"{}\"\n{}",
        file.display(),
        issuer(&tenant, "")
    );
    let source = format!("[auth]\nlisten = [\"127.0.0.1:0\"]\n{config}");
    let source = holdfast::config::Source::text("test.toml", &source);
    let service = holdfast::service::Service::start(source, held_clock(&tenant)).await.unwrap();
    let (auth, admin) =
        (service.auth_addresses()[0].parse().unwrap(), service.admin_address().parse().unwrap());
    let running = Running { service, auth, admin };
    for (path, body) in [
        ("/revoke", json!({ "subject": ALICE })),
        ("/unrevoke", json!({ "subject": ALICE })),
        ("/purge", json!({ "subject": ALICE })),
        ("/breaker", json!({ "action": "reset" })),
    ] {
        for wrong in ["", "Authorization: Bearer 0123456789abcdef012\r\n"] {
            let reply = order_with(&running, path, &body, wrong).await;
            assert_eq!(reply.status, 401, "{path}: {reply:?}");
        }
        assert_eq!(delete(&running, "?subject=a", "", "").await.status, 401);
        let good = "Authorization: Bearer 0123456789abcdef0123\r\n";
        let reply = order_with(&running, path, &body, good).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    let request = b"GET /revocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let reply = exchange(TcpStream::connect(running.admin).await.unwrap(), request).await;
    assert_eq!(reply.status, 401, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_back_what_is_not_revoked_says_so_and_names_what_stays_in_force() {
    let (tenant, running, _) = start("").await;
    let token = tenant.mint().subject(ALICE).email_direct("a@x.org").claim(SESSION, "s").build().unwrap();
    let unrevoke = async |body: Value| order(&running, "/unrevoke", &body).await.body;
    let nothing = "nothing to lift: a subject that is not revoked; is it named as in `revoke --list`?";
    assert_eq!(unrevoke(json!({ "subject": ALICE })).await, format!("{nothing}\n"));
    for body in [json!({ "subject": ALICE }), json!({ "session": "s" }), json!({ "all": true })] {
        revoke(&running, body).await;
    }
    let stays = "other revocations stay in force, maybe of the same tokens";
    assert_eq!(
        unrevoke(json!({ "subject": ALICE })).await,
        format!("lifted: a subject; {stays}: 1 session, 1 everybody\n")
    );
    assert_revoked(&running.ask(&token).await, "by its session and as everybody");
    assert_eq!(
        unrevoke(json!({ "subject": ALICE })).await,
        format!("{nothing}; {stays}: 1 session, 1 everybody\n")
    );
    assert_eq!(unrevoke(json!({ "all": true })).await, format!("lifted: everybody; {stays}: 1 session\n"));
    assert_eq!(unrevoke(json!({ "session": "s" })).await, "lifted: a session\n");
    assert_eq!(running.ask(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_whom_also_without_a_disk_and_at_another_instance() {
    let (tenant, running, _) = start("").await;
    revoke(&running, json!({ "subject": ALICE })).await;
    assert_eq!(list(&running).await["revocations"][0]["what"], format!("{ALICE} of {}", tenant.issuer()));
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    revoke(&a, json!({ "subject": ALICE })).await;
    let row =
        until("the other instance has it", async || list(&b).await["revocations"].get(0).cloned()).await;
    assert_eq!(row["what"], format!("{ALICE} of {}", scene.tenant.issuer()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_names_nothing_or_two_things_is_refused() {
    let (_tenant, running, _) = start("").await;
    for body in [
        json!({}),
        json!({ "subject": "" }),
        json!({ "subject": "a".repeat(513) }),
        json!({ "subject": "a", "session": "b" }),
        json!({ "token": "a", "issuer": "https://t/" }),
        json!({ "all": false }),
        json!({ "subject": "a", "issued_before": "yesterday" }),
        json!({ "subject": "a", "issued_before": "2999-01-01T00:00:00Z" }),
        json!({ "subject": "a", "issuer": "https://unknown.example/" }),
        json!({ "user": "a" }),
    ] {
        let reply = order(&running, "/revoke", &body).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
    assert_eq!(list(&running).await["revocations"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_needs_current_revocations_gets_a_503_where_one_may_be_missed() {
    let Some(mut scene) = scene().await else { return };
    let running = scene.instance().await;
    let token = scene.tenant.mint().email_direct("a@x.org").build().unwrap();
    let current = async || running.ask_at("/auth?revocation=current", &token).await;
    assert_eq!(current().await.status, 200);
    scene.redis.kill().await;
    // The log is read once a second; its clock is held.
    scene.clock.advance(Duration::from_secs(5));
    let reply = until("a 503", async || Some(current().await).filter(|reply| reply.status == 503)).await;
    assert_eq!(value(&reply, "retry-after"), Some("5"));
    assert_eq!(running.ask(&token).await.status, 200, "where it is not asked for");
    assert!(readyz(&running).await.contains("behind"));
    assert_eq!(running.ask_at("/auth?revocation=old", &token).await.status, 500, "no such value");
    scene.redis.restart().await;
    until("a 200", async || (current().await.status == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_to_redis_revokes_nobody_and_takes_nothing_back() {
    let Some(scene) = scene().await else { return };
    let (a, b) = (scene.instance().await, scene.instance().await);
    let token = |sub: &str| scene.tenant.mint().subject(sub).email_direct("a@x.org").build().unwrap();
    let (alice, bob) = (token(ALICE), token("auth0|bob"));
    // Revoked, taken back, revoked again: three entries that open.
    revoke(&a, json!({ "subject": ALICE })).await;
    let reply = order(&a, "/unrevoke", &json!({ "subject": ALICE })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    revoke(&a, json!({ "subject": ALICE })).await;
    log_has(&scene, 4).await;
    let mut redis = scene.redis.client().await;
    let names = scene.redis.names().await;
    let log = names.iter().find(|name| name.ends_with(":revocation_log")).unwrap();
    type Entries = Vec<(String, Vec<(Vec<u8>, Vec<u8>)>)>;
    let entries: Entries =
        redis::cmd("XRANGE").arg(log).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    let field = |entry: usize, name: &[u8]| {
        entries[entry].1.iter().find(|(known, _)| known == name).unwrap().1.clone()
    };
    let append = async |key: &[u8], record: &[u8]| {
        let mut redis = scene.redis.client().await;
        let mut command = redis::cmd("XADD");
        command.arg(log).arg("*").arg("k").arg(key).arg("r").arg(record);
        command.exec_async(&mut redis).await.unwrap();
    };
    // What took it back, copied behind what revoked it again; a record under another key; garbage; nothing.
    append(&field(1, b"k"), &field(1, b"r")).await;
    let mut key_of_somebody_else = field(0, b"k");
    key_of_somebody_else[5] ^= 1;
    append(&key_of_somebody_else, &field(0, b"r")).await;
    append(&field(0, b"k"), b"garbage").await;
    append(b"", b"").await;
    // After these, one that counts: when it is followed, they have been read.
    revoke(&a, json!({ "session": "last" })).await;
    let last = scene.tenant.mint().claim(SESSION, "last").email_direct("a@x.org").build().unwrap();
    until("all was read", async || (b.ask(&last).await.status == 401).then_some(())).await;
    for running in [&a, &b] {
        assert_revoked(&running.ask(&alice).await, "an older entry takes nothing back");
        assert_eq!(running.ask(&bob).await.status, 200);
        assert_eq!(running.counted("holdfast_revocations{", "kind=\"subject\"").await, 1);
    }
    let unread = b.counted("holdfast_store_errors_total{", "kind=\"unreadable_revocation\"").await;
    assert_eq!(unread, 3);
    // One that starts later reads all of it from the beginning.
    let later = scene.instance().await;
    assert_revoked(&later.ask(&alice).await, "at an instance that starts later");
    assert_eq!(later.ask(&bob).await.status, 200);
}
