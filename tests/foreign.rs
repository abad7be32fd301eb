//! Tokens that are not plain JWS: those encrypted to us are decrypted here; those that only the issuer can
//! judge are sent to it, once, and its answer is kept during an outage.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant, User};
use support::service::{Running, assert_undecided, decryption_keys, held_clock, issuer, tenant, value};
use support::{Holdfast, Reply, until};

const EMAIL: &str = "alice@example.com";
const HOUR: Duration = Duration::from_secs(3600);

fn assert_alice(reply: &Reply, source: &str, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    assert_eq!(value(reply, "x-user-email"), Some(EMAIL), "{what}");
    assert_eq!(value(reply, "x-user-id"), Some("auth0|alice"), "{what}");
    assert_eq!(value(reply, "x-auth-source"), Some(source), "{what}");
}

/// Every shape of a token that only the tenant can judge, again at each call.
fn foreign_tokens(tenant: &Tenant) -> [(&'static str, String); 2] {
    [
        ("the tenant's own dir token", tenant.mint().tenant_dir_jwe().build().unwrap()),
        ("an opaque token", tenant.mint().opaque().build().unwrap()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jws_sealed_for_us_is_verified_without_asking() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let holdfast = Running::start(&issuer(&tenant, &keys), Clock::system()).await;
    let good = || tenant.mint().email_direct(EMAIL);
    for (what, token) in [
        ("nested, as Auth0 makes it", good().nested_jwe()),
        ("without cty", good().nested_jwe().without_cty()),
        ("without kid", good().nested_jwe().jwe_kid(None)),
        ("with RSA-OAEP and CBC", good().nested_jwe_with("RSA-OAEP", "A128CBC-HS256")),
        ("deflated", good().nested_jwe().jwe_header("zip", "DEF")),
        ("under the shared key", good().nested_jwe_with("dir", "A256GCM")),
        ("with iss in the header", good().nested_jwe().jwe_header("iss", tenant.issuer())),
    ] {
        assert_alice(&holdfast.ask(&token.build().unwrap()).await, "claims", what);
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_claims_count_only_under_a_shared_key_and_by_configuration() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let strict = Running::start(&issuer(&tenant, &keys), Clock::system()).await;
    let trusting = Running::start(&issuer(&tenant, &(keys + "bare_claims = true\n")), Clock::system()).await;
    let shared = tenant.mint().email_direct(EMAIL).bare_jwe().nested_jwe_with("dir", "A256GCM");
    let public = tenant.mint().email_direct(EMAIL).bare_jwe().build().unwrap();
    let expired = shared.clone().expires_in(-31).build().unwrap();
    let shared = shared.build().unwrap();

    assert_alice(&trusting.ask(&shared).await, "claims", "the shared key vouches");
    assert_eq!(trusting.ask(&public).await.status, 401, "anybody has the public key");
    assert_eq!(trusting.ask(&expired).await.status, 401, "the claims are still checked");
    assert_eq!(strict.ask(&shared).await.status, 401);
    assert_eq!(strict.ask(&public).await.status, 401);
    assert_eq!((trusting.answered("bare_claims").await, strict.answered("bare_claims").await), (1, 2));
    assert_eq!(tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_token_is_judged_by_its_issuer_once() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    // Encrypted to a key that we do not hold: foreign as well.
    let sealed = tenant.mint().nested_jwe().build().unwrap();
    let mut tokens = foreign_tokens(&tenant).to_vec();
    tokens.push(("a JWE for which we hold no key", sealed));
    for (calls, (what, token)) in (1..).zip(tokens) {
        for _ in 0..3 {
            assert_alice(&holdfast.ask(&token).await, "userinfo", what);
        }
        assert_eq!(tenant.calls().userinfo, calls, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_demand_a_checked_audience() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let route = "/auth?audience=checked";
    for (what, token) in foreign_tokens(&tenant) {
        for _ in 0..2 {
            let reply = holdfast.ask_at(route, &token).await;
            assert_eq!(reply.status, 403, "{what}: {reply:?}");
            assert!(value(&reply, "www-authenticate").unwrap().contains("insufficient_scope"), "{what}");
            assert_eq!(value(&reply, "x-user-email"), None, "{what}");
        }
        assert_alice(&holdfast.ask(&token).await, "userinfo", what);
    }
    let signed = tenant.mint().email_direct(EMAIL).build().unwrap();
    assert_alice(&holdfast.ask_at(route, &signed).await, "claims", "a JWS");
    let without_email = tenant.mint().build().unwrap();
    assert_alice(&holdfast.ask_at(route, &without_email).await, "userinfo", "a JWS whose email is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_tokens_can_be_refused() {
    let tenant = tenant().await;
    let config = issuer(&tenant, "foreign_tokens = \"refuse\"\n");
    let holdfast = Running::start(&config, Clock::system()).await;
    for (what, token) in foreign_tokens(&tenant) {
        let reply = holdfast.ask(&token).await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        assert!(value(&reply, "www-authenticate").unwrap().contains("invalid_token"), "{what}");
    }
    assert_eq!(holdfast.answered("foreign_refused").await, 2);
    assert_eq!(tenant.calls().userinfo, 0);
    let without_email = tenant.mint().build().unwrap();
    assert_alice(&holdfast.ask(&without_email).await, "userinfo", "an email may still be asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_of_the_issuer_is_remembered_for_a_while() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    for (what, token) in [
        ("a stranger's dir token", tenant.mint().tenant_dir_jwe().signed_by_stranger().build().unwrap()),
        ("a stranger's opaque token", tenant.mint().opaque().signed_by_stranger().build().unwrap()),
    ] {
        tenant.reset_calls();
        for _ in 0..3 {
            let reply = holdfast.ask(&token).await;
            assert_eq!(reply.status, 401, "{what}: {reply:?}");
            assert!(value(&reply, "www-authenticate").unwrap().contains("invalid_token"), "{what}");
        }
        assert_eq!(tenant.calls().userinfo, 1, "{what}: the no was not remembered");
        clock.advance(Duration::from_secs(61));
        assert_eq!(holdfast.ask(&token).await.status, 401, "{what}");
        assert_eq!(tenant.calls().userinfo, 2, "{what}: the no was remembered for too long");
    }

    let token = tenant.mint().opaque().build().unwrap();
    tenant.set_fault(Endpoint::Userinfo, Fault::Forbidden);
    let reply = holdfast.ask(&token).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    assert!(value(&reply, "www-authenticate").unwrap().contains("insufficient_scope"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_issuer_is_neither_yes_nor_no() {
    let tenant = tenant().await;
    let limited =
        |retry_after: &str| Fault::RateLimited { retry_after: Some(retry_after.to_owned()), reset: None };
    for (what, fault) in [
        ("500", Fault::Status(500)),
        ("502", Fault::Status(502)),
        ("503", Fault::Status(503)),
        ("404", Fault::Status(404)),
        ("204", Fault::Status(204)),
        ("429 of the tenant", limited("7")),
        ("429 of the user", Fault::UserRateLimited),
        ("no sub", Fault::NoSubject),
        ("a reset", Fault::Reset),
    ] {
        let clock = held_clock(&tenant);
        let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
        for (shape, token) in foreign_tokens(&tenant) {
            tenant.set_fault(Endpoint::Userinfo, fault.clone());
            let what = format!("{what}, {shape}");
            let reply = holdfast.ask(&token).await;
            assert_undecided(&reply, &what);
            assert_eq!(
                value(&reply, "www-authenticate"),
                None,
                "{what}: a client would throw its token away"
            );

            tenant.clear_faults();
            clock.advance(Duration::from_secs(60));
            assert_alice(&holdfast.ask(&token).await, "userinfo", &what);
        }
    }
    let holdfast = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    tenant.set_fault(Endpoint::Userinfo, limited("7"));
    let reply = holdfast.ask(&tenant.mint().opaque().build().unwrap()).await;
    assert_eq!(value(&reply, "retry-after"), Some("7"), "the client is told what the issuer said");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_ways_fail_log_and_metrics_say_which_and_why_and_the_client_is_not_told() {
    let tenant = tenant().await;
    for (what, fault, status, reason, word) in [
        ("401", None, 401, "issuer_rejects", "401 from /userinfo"),
        ("403", Some(Fault::Forbidden), 403, "issuer_forbids", "403 from /userinfo"),
        ("500", Some(Fault::Status(500)), 503, "upstream_status", "status 500"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned();
        let holdfast =
            Holdfast::start(directory.path(), &(config + &issuer(&tenant, "")), 1).await.ready().await;
        tenant.clear_faults();
        if let Some(fault) = fault {
            tenant.set_fault(Endpoint::Userinfo, fault);
        }
        let stranger = || tenant.mint().signed_by_stranger();
        let replies = [
            holdfast.ask(&stranger().tenant_dir_jwe().build().unwrap()).await,
            holdfast.ask(&stranger().opaque().build().unwrap()).await,
        ];
        for local in ["jwe_no_key", "opaque"] {
            let line = format!("local=\"{local}\"");
            let counted = async |issuer: &str| {
                let labels = format!("issuer=\"{issuer}\",{line}");
                holdfast.counted("holdfast_foreign_tokens_total", &labels).await
            };
            assert_eq!((counted(reason).await, counted("accepted").await), (1, 0), "{what}, {local}");
        }
        let line = holdfast.told("judged neither here nor by its issuer").await;
        assert!(line.contains("no decryption key fits") && line.contains(word), "{what}: {line}");
        assert!(line.contains("WARN") && !line.contains("opaque"), "{what}: {line}");
        for reply in replies {
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            assert!(!format!("{reply:?}").contains("decryption"), "{what}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_somebody_else_does_not_count() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    tenant.set_fault(Endpoint::Userinfo, Fault::WrongSubject);
    // The token's signature says who it is about; only its email is asked for.
    let reply = holdfast.ask(&tenant.mint().build().unwrap()).await;
    assert_undecided(&reply, "another subject");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_selects_the_issuer_and_never_a_url() {
    let (first, second, stranger) = (tenant().await, tenant().await, tenant().await);
    second.add_user(User::new("auth0|alice").email("alice@second.example"));
    let config = issuer(&first, "") + &issuer(&second, "");
    let holdfast = Running::start(&config, Clock::system()).await;

    let reply = holdfast.ask(&second.mint().tenant_dir_jwe().build().unwrap()).await;
    assert_eq!(
        (reply.status, value(&reply, "x-user-email")),
        (200, Some("alice@second.example")),
        "{reply:?}"
    );
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (0, 1));

    assert_alice(
        &holdfast.ask(&first.mint().tenant_dir_jwe().build().unwrap()).await,
        "userinfo",
        "the first",
    );
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (1, 1));

    // A token without an issuer goes to the first.
    assert_alice(&holdfast.ask(&first.mint().opaque().build().unwrap()).await, "userinfo", "opaque");
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (2, 1));

    assert_eq!(holdfast.ask(&stranger.mint().tenant_dir_jwe().build().unwrap()).await.status, 401);
    assert_eq!(holdfast.answered("issuer_unknown").await, 1);
    assert_eq!(stranger.calls().total, 0);
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_with_one_new_token_make_one_call() {
    let tenant = tenant().await;
    let holdfast = std::sync::Arc::new(Running::start(&issuer(&tenant, ""), Clock::system()).await);
    tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_millis(300)));
    let token = tenant.mint().opaque().build().unwrap();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (holdfast, token) = (holdfast.clone(), token.clone());
            tokio::spawn(async move { holdfast.ask(&token).await })
        })
        .collect();
    for task in asking {
        assert_alice(&task.await.unwrap(), "userinfo", "one of fifty");
    }
    assert_eq!(tenant.calls().userinfo, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_ages_through_the_tiers_while_the_issuer_is_away() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let token = tenant.mint().opaque().build().unwrap();
    let unseen = tenant.mint().opaque().build().unwrap();
    assert_alice(&holdfast.ask(&token).await, "userinfo", "the issuer is there");
    let judged = clock.now();
    tenant.go_down().await;

    for (hours, tier, stale) in [
        (0, "primary", 0),
        (3, "primary", 0),
        (5, "secondary", 0),
        (11, "secondary", 0),
        (13, "emergency", 1),
        (47, "emergency", 2),
    ] {
        clock.advance(judged.after(HOUR * hours).since(clock.now()));
        let reply = holdfast.ask(&token).await;
        assert_alice(&reply, "userinfo", &format!("after {hours} h"));
        assert_eq!(value(&reply, "x-auth-tier"), Some(tier), "after {hours} h");
        let age: u64 = value(&reply, "x-auth-age").unwrap().parse().unwrap();
        assert_eq!(age, u64::from(hours) * 3600, "after {hours} h");
        assert_eq!(holdfast.counted("holdfast_stale_answers_total", "").await, stale, "after {hours} h");
    }
    assert_undecided(&holdfast.ask(&unseen).await, "a token that was never judged");
    assert_undecided(
        &holdfast.ask_at("/auth?max_tier=secondary", &token).await,
        "a route that wants it fresher",
    );

    clock.advance(HOUR * 2);
    assert_undecided(&holdfast.ask(&token).await, "after 49 h");

    tenant.come_back().await.unwrap();
    clock.advance(Duration::from_secs(600));
    let reply = holdfast.ask(&token).await;
    assert_alice(&reply, "userinfo", "the issuer is back");
    assert_eq!(value(&reply, "x-auth-tier"), Some("primary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ageing_verdict_is_renewed_behind_the_answer() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let token = tenant.mint().opaque().build().unwrap();
    assert_alice(&holdfast.ask(&token).await, "userinfo", "new");

    clock.advance(HOUR * 7);
    let reply = holdfast.ask(&token).await;
    assert_alice(&reply, "userinfo", "after 7 h");
    assert_eq!(value(&reply, "x-auth-tier"), Some("secondary"));
    until("the verdict is primary again", async || {
        clock.advance(Duration::from_secs(11));
        let reply = holdfast.ask(&token).await;
        (value(&reply, "x-auth-tier") == Some("primary")).then_some(())
    })
    .await;

    tenant.revoke_token(&token);
    clock.advance(HOUR * 13);
    let reply = holdfast.ask(&token).await;
    assert_eq!(reply.status, 401, "past the fresh tiers its issuer is asked first: {reply:?}");
    tenant.go_down().await;
    clock.advance(Duration::from_secs(61));
    assert_undecided(&holdfast.ask(&token).await, "a no ends the older yes for good");
}
