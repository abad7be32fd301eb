//! holdfast is killed and started while the issuer is gone: the real binary, with its data directory.

use std::time::Instant;

use holdfast_devtenant::{Options, Tenant, User};
use tokio::net::TcpStream;

use crate::drill::Tally;
use crate::support::{Holdfast, Reply, exchange, until};

/// Records are fresh for a second, so that what is served in the outage is served stale.
const TIERS: &str = "[policy]\nverdict_ceiling = \"later\"\n\
    [[tier]]\nname = \"now\"\nage = \"1s\"\nrole = \"fresh\"\n\
    [[tier]]\nname = \"later\"\nage = \"30d\"\nrole = \"outage\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_holdfast_that_is_killed_in_an_outage_starts_again_and_answers_as_before() {
    let mut tally = Tally::of("killed and started during the outage");
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"{}\"\n\
         [budget]\nrate = 100\nburst = 100\n{TIERS}[[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\n",
        directory.path().join("data").display(),
        tenant.issuer(),
        tenant.audience()
    );
    let mut holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let without_email: Vec<String> = (0..20)
        .map(|number| {
            let subject = format!("auth0|user-{number}");
            tenant.add_user(User::new(&subject).email(format!("user-{number}@example.com")));
            tenant.mint().subject(&subject).build().unwrap()
        })
        .collect();
    let opaque: Vec<String> = (0..10).map(|_| tenant.mint().opaque().build().unwrap()).collect();
    let remembered = [without_email, opaque].concat();
    for token in &remembered {
        assert_eq!(ask(&mut tally, &holdfast, token).await.status, 200);
    }
    // Nobody has sent these before: only the keys are known.
    let with_email: Vec<String> =
        (0..10).map(|_| tenant.mint().email_direct("alice@example.com").build().unwrap()).collect();
    let unknown = tenant.mint().subject("auth0|bob").build().unwrap();

    tenant.go_down().await;
    until("everything is on disk", async || (records(&holdfast).await >= 31).then_some(())).await;
    until("what is remembered is stale", async || {
        (ask(&mut tally, &holdfast, &remembered[0]).await.header("x-auth-tier") == ["later"]).then_some(())
    })
    .await;
    holdfast.kill().await;
    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    for token in &remembered {
        let reply = ask(&mut tally, &holdfast, token).await;
        assert_eq!((reply.status, reply.header("x-auth-tier")), (200, vec!["later"]), "{}", holdfast.log());
    }
    for token in &with_email {
        let reply = ask(&mut tally, &holdfast, token).await;
        assert_eq!(
            (reply.status, reply.header("x-auth-source")),
            (200, vec!["claims"]),
            "{}",
            holdfast.log()
        );
    }
    assert_eq!(ask(&mut tally, &holdfast, &unknown).await.status, 503);
    assert_eq!(tenant.calls().userinfo, 30, "each of the remembered was asked about once, before the outage");
    tally.row(30);
}

async fn ask(tally: &mut Tally, holdfast: &Holdfast, token: &str) -> Reply {
    let request = format!(
        "GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let started = Instant::now();
    let reply = exchange(TcpStream::connect(holdfast.auth_tcp()).await.unwrap(), request.as_bytes()).await;
    tally.count(reply.status, started.elapsed());
    reply
}

/// How many records are on disk, those of keys among them.
async fn records(holdfast: &Holdfast) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let stream = TcpStream::connect(holdfast.admin).await.unwrap();
    let metrics = exchange(stream, request.as_bytes()).await.body;
    let line = metrics.lines().find(|line| line.starts_with("holdfast_records{store=\"disk\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}
