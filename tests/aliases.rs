//! An issuer with several names, such as the custom domains of a tenant, is one issuer: one set of keys, one
//! guard, one user whichever name a token has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast::clock::Clock;
use holdfast_devtenant::User;
use serde_json::{Value, json};
use support::service::{Running, decryption_keys, held_clock, issuer, request, tenant, value};
use support::{Reply, exchange};
use tokio::net::TcpStream;

const ALIAS: &str = "https://login.example.com/";
const OTHER: &str = "https://sign-in.example.org/";

fn aliases() -> String {
    format!("aliases = [\"{ALIAS}\", \"{OTHER}\"]\n")
}

async fn admin(holdfast: &Running, path: &str, body: Option<Value>) -> Reply {
    let ask = match body {
        None => request(path, ""),
        Some(body) => {
            let body = body.to_string();
            format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        }
    };
    exchange(TcpStream::connect(holdfast.admin).await.unwrap(), &ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_name_its_issuer_by_any_of_the_names_and_by_no_other() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let rows = "bare_claims = true\n[headers]\n\"X-Issuer\" = \"iss\"\n";
    let config = issuer(&tenant, &(aliases() + &keys + rows));
    let holdfast = Running::start(&config, Clock::system()).await;
    let main = tenant.issuer();
    let mint = || tenant.mint().email_direct("alice@example.com");
    for name in [main.as_str(), ALIAS, OTHER] {
        for (what, token) in [
            ("JWS", mint()),
            ("JWE", mint().nested_jwe()),
            ("JWE with iss in the header", mint().nested_jwe().jwe_header("iss", name)),
            ("JWE with another name in the header", mint().nested_jwe().jwe_header("iss", OTHER)),
            ("bare claims", mint().bare_jwe().nested_jwe_with("dir", "A256GCM")),
        ] {
            let reply = holdfast.ask_at("/auth", &token.issuer(name).build().unwrap()).await;
            assert_eq!(
                (reply.status, value(&reply, "x-issuer")),
                (200, Some(&*main)),
                "{name} {what}: {reply:?}"
            );
        }
        let token = mint().issuer(name).build().unwrap();
        let query = format!("/auth?issuer={main}");
        assert_eq!(
            holdfast.ask_at(&query, &token).await.status,
            200,
            "the name that is required is the main one"
        );
        assert_eq!(holdfast.ask_at(&format!("/auth?issuer={ALIAS}"), &token).await.status, 403, "{name}");
    }
    for name in [
        "https://login.example.com",
        "https://LOGIN.example.com/",
        "https://login.example.com/x",
        "https://login.example.com:443/",
        "http://login.example.com/",
        "https://evil.example.com/",
    ] {
        for token in [mint(), mint().nested_jwe()] {
            let reply = holdfast.ask(&token.issuer(name).build().unwrap()).await;
            assert_eq!(reply.status, 401, "{name}: {reply:?}");
        }
    }
    for forged in [mint().issuer(ALIAS).signed_by_stranger(), mint().issuer(ALIAS).unsigned()] {
        assert_eq!(holdfast.ask(&forged.build().unwrap()).await.status, 401);
    }
    let without = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    assert_eq!(without.ask(&mint().issuer(ALIAS).build().unwrap()).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_names_share_keys_calls_records_and_revocations_under_the_main_name() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let config = format!("[backchannel_logout]\naudience = [\"client\"]\n{}", issuer(&tenant, &aliases()));
    let holdfast = Running::start(&config, clock).await;
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    tenant.reset_calls();
    let (main, bob) = (tenant.issuer(), || tenant.mint().subject("auth0|bob"));
    for (number, name) in [main.as_str(), ALIAS, OTHER].into_iter().enumerate() {
        let token = bob().issuer(name).claim("n", number).build().unwrap();
        assert_eq!(value(&holdfast.ask(&token).await, "x-user-email"), Some("bob@example.com"), "{name}");
    }
    let calls = tenant.calls();
    assert_eq!((calls.userinfo, calls.jwks), (1, 0), "one user, one set of keys");
    // A token of the tenant's own encryption, which it has to be asked about.
    let sealed = tenant.mint().subject("auth0|bob").tenant_dir_jwe().issuer(ALIAS).build().unwrap();
    assert_eq!(holdfast.ask(&sealed).await.status, 200);
    for page in ["/metrics", "/status"] {
        let page = admin(&holdfast, page, None).await.body;
        assert!(page.contains(&main) && !page.contains("login.example.com"), "{page}");
    }
    // An order may name the issuer by an alias, and holds for all names.
    let order = json!({ "subject": "auth0|bob", "issuer": OTHER });
    let reply = admin(&holdfast, "/revoke", Some(order)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for (number, name) in [main.as_str(), ALIAS, OTHER].into_iter().enumerate() {
        let token = bob().issuer(name).claim("n", number).build().unwrap();
        assert_eq!(holdfast.ask(&token).await.status, 401, "{name}");
    }
    let order = json!({ "subject": "auth0|bob", "issuer": "https://evil.example.com/" });
    assert_ne!(admin(&holdfast, "/revoke", Some(order)).await.status, 200);
    // A logout at one domain ends the tokens of all.
    let carol = || tenant.mint().subject("auth0|carol").email_direct("carol@example.com");
    let token = carol().build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
    let events = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let logout = carol().issuer(ALIAS).audience("client").claim("jti", "j").claim("events", events);
    let body = format!("logout_token={}", logout.remove_claim("email").build().unwrap());
    let ask = format!(
        "POST /backchannel-logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(holdfast.raw(ask.as_bytes()).await.status, 200);
    assert_eq!(holdfast.ask(&token).await.status, 401);
}

/// The metrics and the guard of an issuer go by its main name. A reload that swaps the names must not mix
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_may_make_the_alias_of_one_issuer_another_issuer() {
    let (one, two) = (tenant().await, tenant().await);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("holdfast.toml");
    let listen = "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let alias = format!("aliases = [\"{}\"]\n", two.issuer());
    std::fs::write(&file, format!("{listen}{}", issuer(&one, &alias))).unwrap();
    let source = holdfast::config::Source { file: Some(file.clone()), ..Default::default() };
    let service = holdfast::service::Service::start(source, Clock::system()).await.unwrap();
    let of_two = two.mint().email_direct("a@example.com").build().unwrap();
    let address: std::net::SocketAddr = service.auth_addresses()[0].parse().unwrap();
    let ask = async |token: &str| {
        let lines = format!("Authorization: Bearer {token}\r\n");
        exchange(TcpStream::connect(address).await.unwrap(), &request("/auth", &lines)).await.status
    };
    assert_eq!(ask(&of_two).await, 401, "keys of the first do not verify tokens of the second");
    std::fs::write(&file, format!("{listen}{}{}", issuer(&one, ""), issuer(&two, ""))).unwrap();
    service.reload().unwrap();
    let names: Vec<_> = service.instance().issuers.iter().map(|issuer| issuer.name().to_string()).collect();
    assert_eq!(names, [one.issuer(), two.issuer()]);
    let later = two.mint().email_direct("b@example.com").build().unwrap();
    support::until("the second issuer's keys are known", async || (ask(&later).await == 200).then_some(()))
        .await;
}
