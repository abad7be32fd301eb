//! Odd values that issuers really send: an unreadable value, different types, keys that come twice or come
//! and go. Users with a good token and identity are accepted, and others are not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast::guard::Priority;
use holdfast_devtenant::{Endpoint, Fault, Tenant, User};
use serde_json::{Value, json};
use support::exchange;
use support::service::{Running, held_clock, issuer, tenant, value};
use tokio::net::TcpStream;

/// Unused claims, each with an unreadable value.
const ODD: [&str; 7] = [
    r#""nickname":"Ada \ud83d""#,
    r#""nickname":"\ude00 Ada""#,
    r#""points":1e999"#,
    r#""group":"a","group":"b""#,
    r#""app_metadata":{"a":1,"a":2}"#,
    r#""user_metadata":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]"#,
    r#""user":{"name":"\ud83d","email":"a@x.example"}"#,
];

fn answer(body: impl Into<String>) -> Fault {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Fault::Custom { status: 200, headers, body: body.into() }
}

/// The claims of a good token of this subject, with `more` members.
fn claims(tenant: &Tenant, subject: &str, more: &str) -> String {
    let (iss, aud, now) = (tenant.issuer(), tenant.audience(), tenant.time());
    let exp = now + 3_600;
    format!(r#"{{"iss":"{iss}","aud":"{aud}","sub":"{subject}","iat":{now},"exp":{exp},{more}}}"#)
}

fn signed(tenant: &Tenant, payload: &str) -> String {
    tenant.mint().payload(payload).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_nobody_asks_for_locks_no_user_out() {
    let tenant = tenant().await;
    let budget = "[budget]\nrate = 10000\nburst = 10000\nbackground_share = 1\nfirst_seen_share = 1\n";
    let holdfast = Running::start(&(issuer(&tenant, "") + budget), Clock::system()).await;
    for (number, odd) in ODD.into_iter().enumerate() {
        let subject = format!("auth0|{number}");
        let more = format!(r#""email":"a@x.example",{odd}"#);
        let reply = holdfast.ask(&signed(&tenant, &claims(&tenant, &subject, &more))).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("a@x.example")), "{odd}");
        // The same from /userinfo, about a token that has no email, and about one that only the issuer can
        // judge.
        tenant.add_user(User::new(&*subject));
        tenant.set_fault(Endpoint::Userinfo, answer(format!(r#"{{"sub":"{subject}",{more}}}"#)));
        for token in [tenant.mint(), tenant.mint().opaque()] {
            let reply = holdfast.ask(&token.subject(&*subject).build().unwrap()).await;
            assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("a@x.example")), "{odd}");
        }
        tenant.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_member_in_the_issuers_documents_does_no_harm_where_nobody_asks_for_it() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let keys = holdfast.service.instance().issuers.iter().next().unwrap().clone();
    let (iss, jwks) = (tenant.issuer(), jwks(&tenant).await.to_string());
    let discovery = |more: &str| {
        answer(format!(r#"{{"issuer":"{iss}","jwks_uri":"{iss}.well-known/jwks.json",{more}}}"#))
    };
    for odd in ODD {
        tenant.set_fault(Endpoint::Discovery, discovery(odd));
        tenant.set_fault(Endpoint::Jwks, answer(jwks.replacen('{', &format!("{{{odd},"), 1)));
        assert_eq!(keys.refresh(Priority::Foreground).await, Ok(()), "{odd}");
    }
    for decides in [format!(r#""issuer":"{iss}""#), format!(r#""jwks_uri":"{iss}other""#)] {
        tenant.set_fault(Endpoint::Discovery, discovery(&decides));
        assert!(keys.refresh(Priority::Foreground).await.is_err(), "{decides} twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_used_is_told_once_in_the_log_and_by_check() {
    let tenant = tenant().await;
    let mut set = jwks(&tenant).await;
    set["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "k": "AAAA", "kid": "no-business-here"}));
    tenant.set_fault(Endpoint::Jwks, answer(set.to_string()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    let listen = "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let config = listen.to_owned() + &issuer(&tenant, "");
    let holdfast = support::Holdfast::start(directory.path(), &config, 1).await.ready().await;
    // An unknown key has the set fetched once more.
    let unknown = tenant.mint().kid(Some("unheard-of")).build().unwrap();
    assert_eq!(holdfast.ask(&unknown).await.status, 401);
    assert!(tenant.calls().jwks >= 2);
    assert_eq!(holdfast.ask(&token(&tenant, 1)).await.status, 200);
    holdfast.told("no-business-here").await;
    let told = holdfast.log().matches("no-business-here").count();
    assert_eq!(told, 1, "{}", holdfast.log());
    std::fs::write(&file, config).unwrap();
    let check = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let check = { check }.arg("check").arg("--config").arg(&file).output().await.unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("a key is not used: \"no-business-here\": its type or curve"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decides_or_is_asked_for_has_to_be_told() {
    let tenant = tenant().await;
    let rows = "[headers]\n\"X-Name\" = \"name\"\n\"X-Plan\" = { claim = \"plan\", default = \"-\" }\n";
    let holdfast = Running::start(&(issuer(&tenant, "userinfo = false\n") + rows), Clock::system()).await;
    let good = claims(&tenant, "auth0|a", r#""email":"a@x.example","name":"Ada""#);
    let replaced = |name: &str, odd: &str| {
        let mut members: serde_json::Map<String, Value> = serde_json::from_str(&good).unwrap();
        members.remove(name);
        let text = Value::Object(members).to_string();
        format!("{},\"{name}\":{odd}}}", text.strip_suffix('}').unwrap())
    };
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "events"] {
        for odd in [r#""\ud83d""#, "1e999", r#"{"a":1,"a":2}"#] {
            let reply = holdfast.ask(&signed(&tenant, &replaced(name, odd))).await;
            // An audience may not be an object either.
            assert_eq!(reply.status, 401, "{name} = {odd}");
        }
        let twice = format!("{},\"{name}\":\"x\",\"{name}\":\"x\"}}", good.strip_suffix('}').unwrap());
        assert_eq!(holdfast.ask(&signed(&tenant, &twice)).await.status, 401, "{name} twice");
    }
    for name in ["exp", "nbf", "iat"] {
        let text = format!("\"{}\"", tenant.time() + if name == "exp" { 60 } else { 0 });
        let reply = holdfast.ask(&signed(&tenant, &replaced(name, &text))).await;
        assert_eq!(reply.status, 401, "{name} as a text");
    }
    for (name, odd, status) in [
        ("email", r#""a\ud83d@x.example""#, 403),
        ("name", r#""Ada \ud83d""#, 403),
        ("plan", r#""\ud83d""#, 200),
        ("email_verified", "1e999", 200),
    ] {
        let reply = holdfast.ask(&signed(&tenant, &replaced(name, odd))).await;
        assert_eq!(reply.status, status, "{name} = {odd}");
        assert_eq!(value(&reply, "x-plan"), (status == 200).then_some("-"));
    }
    let odd = replaced("permissions", r#"["read","\ud83d",1e999]"#);
    for (permission, status) in [("read", 200), ("write", 403)] {
        let path = format!("/auth?permission={permission}");
        assert_eq!(holdfast.ask_at(&path, &signed(&tenant, &odd)).await.status, status, "{permission}");
    }
    let reply = holdfast
        .ask_at("/auth?verified=true", &signed(&tenant, &replaced("email_verified", "\"true\"")))
        .await;
    assert_eq!(reply.status, 200);
}

/// What the tenant's JWKS lists now.
async fn jwks(tenant: &Tenant) -> Value {
    let stream = TcpStream::connect(tenant.address()).await.unwrap();
    let request = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    serde_json::from_str(&exchange(stream, request).await.body).unwrap()
}

fn token(tenant: &Tenant, number: usize) -> String {
    let subject = format!("auth0|{number}");
    tenant.mint().subject(subject).email_direct("a@x.example").expires_in(86_400).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_flap_between_two_sets_refuse_no_good_token_and_a_removed_one_ends() {
    let tenant = tenant().await;
    let of_old: Vec<_> = (0..40).map(|number| token(&tenant, number)).collect();
    let old = answer(jwks(&tenant).await.to_string());
    tenant.rotate_keys();
    tenant.revoke_old_keys();
    let new = answer(jwks(&tenant).await.to_string());
    tenant.set_fault(Endpoint::Jwks, old.clone());
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, "jwks_refresh = \"600s\"\n"), clock.clone()).await;
    let keys = holdfast.service.instance().issuers.iter().next().unwrap().clone();
    let fetch = async |answer: &Fault| {
        tenant.set_fault(Endpoint::Jwks, answer.clone());
        keys.refresh(Priority::Foreground).await.unwrap();
    };
    for (round, of_old) in of_old.iter().take(20).enumerate() {
        fetch(if round % 2 == 0 { &new } else { &old }).await;
        for token in [of_old, &token(&tenant, 100 + round)] {
            assert_eq!(holdfast.ask(token).await.status, 200, "round {round}");
        }
        clock.advance(Duration::from_secs(599));
    }
    // Removed for good: it is held for one refresh, whether anything is fetched meanwhile or not.
    fetch(&old).await;
    fetch(&new).await;
    assert!(!keys.held_key_ids().is_empty());
    clock.advance(Duration::from_secs(599));
    assert_eq!(holdfast.ask(&of_old[30]).await.status, 200);
    fetch(&new).await;
    assert_eq!(holdfast.ask(&of_old[31]).await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(holdfast.ask(&of_old[32]).await.status, 401);
    assert!(keys.held_key_ids().is_empty());
    assert_eq!(holdfast.ask(&token(&tenant, 200)).await.status, 200);
    // A reload ends it at once.
    fetch(&old).await;
    fetch(&new).await;
    assert_eq!(holdfast.ask(&of_old[33]).await.status, 200);
    holdfast.service.reload().unwrap();
    assert_eq!(holdfast.ask(&of_old[34]).await.status, 401);
    assert_eq!(holdfast.ask(&token(&tenant, 201)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_listed_twice_or_share_a_kid_are_all_good_and_a_skipped_one_is_named() {
    let tenant = tenant().await;
    let real = jwks(&tenant).await["keys"].as_array().unwrap().clone();
    let rs = real.iter().find(|key| key["alg"] == "RS256").unwrap().clone();
    let other = {
        let other = support::service::tenant().await;
        jwks(&other).await["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["alg"] == "RS256")
            .unwrap()
            .clone()
    };
    assert_eq!(rs["kid"], other["kid"], "two tenants name their keys alike");
    let enc = json!({"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": rs["n"], "e": rs["e"]});
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let keys = holdfast.service.instance().issuers.iter().next().unwrap().clone();
    let sets = [vec![&rs, &rs], vec![&other, &rs], vec![&rs, &other, &rs, &enc]];
    for (number, set) in sets.into_iter().enumerate() {
        tenant.set_fault(Endpoint::Jwks, answer(json!({ "keys": set }).to_string()));
        keys.refresh(Priority::Foreground).await.unwrap();
        assert_eq!(holdfast.ask(&token(&tenant, number)).await.status, 200, "set {number}");
        let forged = tenant.mint().subject(format!("auth0|{number}")).signed_by_stranger().build().unwrap();
        assert_eq!(holdfast.ask(&forged).await.status, 401);
    }
    let without_kid = tenant.mint().kid(None).email_direct("a@x.example").build().unwrap();
    assert_eq!(holdfast.ask(&without_kid).await.status, 401, "two would fit");
    let skipped = keys.skipped_keys();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].to_string(), "\"for-encryption\": its `use` is not `sig`");
    let stream = TcpStream::connect(holdfast.admin).await.unwrap();
    let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let status: Value = serde_json::from_str(&exchange(stream, request).await.body).unwrap();
    assert_eq!(status["issuers"][0]["skipped_keys"][0]["kid"], "for-encryption");
}
