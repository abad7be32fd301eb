//! What a route requires of the token itself (`claim`, `acr`, `max_age`, `typ`, `actor`) holds wherever it is
//! written, for each request, also for an answer in memory; and no token meets it that only its issuer can
//! judge.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Tenant, TokenBuilder, User};
use serde_json::json;
use support::Reply;
use support::dpop::Prover;
use support::service::{Running, decryption_keys, held_clock, issuer, request, tenant, value};

/// An agent's token for an application, after a login of a certain kind.
fn mint(tenant: &Tenant) -> TokenBuilder {
    let login = tenant.time() - 60;
    tenant
        .mint()
        .email_direct("alice@example.com")
        .claim("azp", "my-client")
        .claim("acr", "gold")
        .claim("auth_time", login)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Requirements as in a query, with the status of a token that [`mint`] makes, of `typ` `at+jwt`.
const REQUIREMENTS: [(&str, u16); 16] = [
    ("claim=/azp:my-client", 200),
    ("claim=/azp:other", 403),
    ("claim=/azp:other&claim=/azp:my-client", 200),
    ("claim=/azp:my-client&claim=/acr:silver", 403),
    ("claim=/aud/0:https:~1~1api.example.com", 403),
    ("claim=/aud:https://api.example.com", 200),
    ("claim=/absent:x", 403),
    ("acr=gold", 200),
    ("acr=silver&acr=gold", 200),
    ("acr=silver", 401),
    ("max_age=60", 200),
    ("max_age=59", 401),
    ("max_age=59&max_age=60", 200),
    ("typ=at+jwt", 200),
    ("actor=none", 200),
    ("claim=/azp:my-client&acr=gold&max_age=300&typ=at+jwt&actor=none&scope=openid", 200),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_holds_in_a_query_in_a_header_and_in_rules() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let (clock, issuer) = (held_clock(&tenant), issuer(&tenant, &keys));
    let query = Running::start(&issuer, clock.clone()).await;
    let header = Running::start_with_auth("requirements_from = \"header\"", &issuer, clock.clone()).await;
    let mut rules = String::new();
    for (number, (text, _)) in REQUIREMENTS.iter().enumerate() {
        let mut names: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => names.push((name, vec![value])),
            }
        }
        let names: Vec<_> = names.iter().map(|(name, values)| format!("{name} = {values:?}")).collect();
        rules += &format!("[[rule]]\npath = \"/{number}\"\nrequire = {{ {} }}\n", names.join(", "));
    }
    let by_rules =
        "requirements_from = \"rules\"\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
    let rules = format!("{issuer}{rules}[[rule]]\nrequire = {{}}\n");
    let rules = Running::start_with_auth(by_rules, &rules, clock).await;
    for (shape, token) in [("JWS", mint(&tenant)), ("JWE", mint(&tenant).nested_jwe())] {
        let token = token.typ("at+jwt").build().unwrap();
        for round in ["first", "again"] {
            for (number, (text, status)) in REQUIREMENTS.iter().enumerate() {
                let what = format!("{round}: {shape}: {text}");
                let reply = query.ask_at(&format!("/auth?{text}"), &token).await;
                assert_eq!(reply.status, *status, "{what}: {reply:?}");
                assert_eq!(value(&reply, "x-user-email").is_some(), *status == 200, "{what}: {reply:?}");
                let lines = format!("X-Holdfast-Require: {text}\r\n{}", bearer(&token));
                assert_eq!(header.raw(&request("/auth", &lines)).await.status, *status, "header: {what}");
                let lines = format!(
                    "X-Forwarded-Method: GET\r\nX-Forwarded-Host: a.example\r\nX-Forwarded-Uri: /{number}\r\n{}",
                    bearer(&token)
                );
                assert_eq!(rules.raw(&request("/auth", &lines)).await.status, *status, "rules: {what}");
            }
        }
    }
    for (what, token, requirement, status) in [
        ("no typ", mint(&tenant), "typ=at+jwt", 403),
        ("another typ", mint(&tenant).typ("JWT"), "typ=at+jwt", 403),
        ("a media type", mint(&tenant).typ("application/AT+JWT"), "typ=at%2Bjwt", 200),
        ("an agent", mint(&tenant).claim("act", json!({ "sub": "agent" })), "actor=none", 403),
        ("a typ of the outside", mint(&tenant).nested_jwe().jwe_header("typ", "at+jwt"), "typ=at+jwt", 403),
        (
            "a later login than its token",
            mint(&tenant).claim("auth_time", tenant.time() + 1),
            "max_age=60",
            401,
        ),
        ("a login in words", mint(&tenant).claim("auth_time", tenant.time().to_string()), "max_age=60", 401),
        ("no login", mint(&tenant).remove_claim("auth_time"), "max_age=60", 401),
        (
            "an Action's claims",
            mint(&tenant).remove_claim("acr").claim("https://ns/acr", "gold"),
            "acr=gold",
            200,
        ),
    ] {
        let token = token.build().unwrap();
        for _ in 0..2 {
            let reply = query.ask_at(&format!("/auth?{requirement}"), &token).await;
            assert_eq!(reply.status, status, "{what}: {reply:?}");
        }
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_a_login_is_judged_at_each_request_and_the_challenge_says_what_to_ask_for() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let token = mint(&tenant).build().unwrap();
    let path = "/auth?max_age=300&acr=gold&acr=platinum";
    assert_eq!(holdfast.ask_at(path, &token).await.status, 200);
    clock.advance(Duration::from_secs(240));
    assert_eq!(holdfast.ask_at(path, &token).await.status, 200);
    clock.advance(Duration::from_secs(1));
    let reply = holdfast.ask_at(path, &token).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    assert_eq!(
        value(&reply, "www-authenticate"),
        Some(
            "Bearer realm=\"holdfast\", error=\"insufficient_user_authentication\", \
             error_description=\"Another login is required here\", acr_values=\"gold platinum\", max_age=\"300\""
        )
    );
    assert_eq!(holdfast.ask(&token).await.status, 200, "the token itself is good");
    assert_eq!(holdfast.answered("max_age").await, 1);
    assert_eq!(
        holdfast.counted("holdfast_requests_total{", "reason=\"judged\"").await,
        1,
        "the rest was in memory"
    );
    let reply = holdfast.ask_at("/auth?acr=platinum", &token).await;
    let challenge = value(&reply, "www-authenticate").unwrap();
    assert!(reply.status == 401 && challenge.ends_with(", acr_values=\"platinum\""), "{reply:?}");
    // Both are not met: the answer to a missing scope comes first, since no login would help.
    let reply = holdfast.ask_at("/auth?max_age=1&scope=none", &token).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    // A younger token with the same login is no younger login.
    tenant.set_time(Some(clock.now().as_secs()));
    let refreshed = mint(&tenant).claim("auth_time", tenant.time() - 301).build().unwrap();
    assert_eq!(holdfast.ask_at(path, &refreshed).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_judged_once_more_for_another_claim_and_then_answered_from_memory() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let token = mint(&tenant).claim("plan", "free").build().unwrap();
    let judged = async || holdfast.counted("holdfast_tokens_total{", "accepted").await;
    for (path, status, count) in [
        ("/auth", 200, 1),
        ("/auth?scope=openid&acr=gold&actor=none", 200, 1),
        ("/auth?claim=/azp:my-client", 200, 2),
        ("/auth?claim=/azp:my-client", 200, 2),
        ("/auth?claim=/azp:other", 403, 3),
        ("/auth?claim=/plan:gold&claim=/plan:free", 200, 4),
        ("/auth?claim=/azp:my-client&claim=/plan:free", 200, 4),
        ("/auth?claim=/azp:other", 403, 4),
        ("/auth", 200, 4),
        ("/auth?claim=/azp", 500, 4),
    ] {
        assert_eq!(holdfast.ask_at(path, &token).await.status, status, "{path}");
        assert_eq!(judged().await, count, "{path}");
    }
    // Another token with the same claims has an answer of its own.
    let other = mint(&tenant).claim("plan", "gold").build().unwrap();
    assert_eq!(holdfast.ask_at("/auth?claim=/plan:free", &other).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_its_issuer_can_judge_meets_none_of_them() {
    let tenant = tenant().await;
    let login = tenant.time();
    let user = User::new("auth0|alice").email("alice@example.com");
    let user =
        user.claim("azp", "my-client").claim("acr", "gold").claim("iat", login).claim("auth_time", login);
    tenant.add_user(user);
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    for token in [tenant.mint().opaque(), tenant.mint().tenant_dir_jwe()] {
        let token = token.build().unwrap();
        assert_eq!(holdfast.ask(&token).await.status, 200);
        let calls = tenant.calls().userinfo;
        for (query, name) in [
            ("claim=/azp:my-client", "claim"),
            ("claim=/email:alice@example.com", "claim"),
            ("acr=gold", "acr"),
            ("max_age=31536000", "max_age"),
            ("typ=at+jwt", "typ"),
            ("actor=none", "actor"),
        ] {
            let before = holdfast.answered(name).await;
            let reply: Reply = holdfast.ask_at(&format!("/auth?{query}"), &token).await;
            assert_eq!(reply.status, 403, "{query}: {reply:?}");
            let challenge = value(&reply, "www-authenticate").unwrap();
            assert!(challenge.contains("insufficient_scope"), "no login would help: {reply:?}");
            assert_eq!(holdfast.answered(name).await, before + 1, "{query}");
        }
        assert_eq!(tenant.calls().userinfo, calls, "nothing more could be learnt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_from_userinfo_adds_no_claim_to_the_token() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|bob").email("bob@example.com").name("Bob"));
    let rows = "[headers]\n\"X-Name\" = \"name\"\n";
    let holdfast = Running::start(&(issuer(&tenant, "") + rows), Clock::system()).await;
    let token = tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = holdfast.ask(&token).await;
    assert_eq!((reply.status, value(&reply, "x-name")), (200, Some("Bob")), "{reply:?}");
    for (query, status) in
        [("claim=/name:Bob", 403), ("claim=/email:bob@example.com", 403), ("claim=/sub:auth0|bob", 200)]
    {
        assert_eq!(holdfast.ask_at(&format!("/auth?{query}"), &token).await.status, status, "{query}");
    }
}

/// A login that asks for no more than before would send the browser back with the same token.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_not_sent_to_the_login_page_for_another_login() {
    let tenant = tenant().await;
    let login = "[login]\nurl = \"https://login.example.com/\"\nanswer = \"redirect\"\n";
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n";
    let holdfast = Running::start_with_auth(auth, &(issuer(&tenant, "") + login), Clock::system()).await;
    let browser = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\
                   X-Forwarded-Method: GET\r\nX-Forwarded-Host: app.example\r\nX-Forwarded-Uri: /\r\n";
    let reply = holdfast.raw(&request("/auth?max_age=1", browser)).await;
    assert_eq!(reply.status, 302, "without a token: {reply:?}");
    let token = mint(&tenant).build().unwrap();
    let reply = holdfast.raw(&request("/auth?max_age=1", &(browser.to_owned() + &bearer(&token)))).await;
    assert_eq!(reply.status, 401, "{reply:?}");
}

/// The profile is old and the issuer is down: what the token says is known all the same.
#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_a_route_that_requires_another_claim_is_answered_from_the_record() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let clock = held_clock(&tenant);
    let holdfast = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let token = tenant.mint().subject("auth0|bob").claim("azp", "my-client").build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
    tenant.go_down().await;
    clock.advance(Duration::from_secs(13 * 3_600));
    for round in 0..2 {
        for (query, status) in [("", 200), ("?claim=/azp:my-client", 200), ("?claim=/azp:other", 403)] {
            let reply = holdfast.ask_at(&format!("/auth{query}"), &token).await;
            assert_eq!(reply.status, status, "{round} {query}: {reply:?}");
            let tier = (status == 200).then_some("emergency");
            assert_eq!(value(&reply, "x-auth-tier"), tier, "{round} {query}: {reply:?}");
        }
    }
}

/// A proof is good once, so it must not be spent twice on the way to one answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_that_is_judged_once_more_needs_one_proof_only() {
    let tenant = tenant().await;
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n";
    let holdfast = Running::start_with_auth(auth, &issuer(&tenant, ""), Clock::system()).await;
    let prover = Prover::new();
    let token = mint(&tenant).claim("cnf", prover.cnf()).build().unwrap();
    let ask = async |query: &str, proof: &str| {
        let lines = format!(
            "Authorization: DPoP {token}\r\nDPoP: {proof}\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: a.example\r\nX-Forwarded-Uri: /x\r\n"
        );
        holdfast.raw(&request(&format!("/auth{query}"), &lines)).await.status
    };
    for (query, status) in [("", 200), ("?claim=/azp:my-client", 200), ("?claim=/azp:other", 403)] {
        let proof = prover.proof(&token, "GET", "https://a.example/x", tenant.time()).sign();
        assert_eq!(ask(query, &proof).await, status, "{query}");
        assert_eq!(ask(query, &proof).await, 401, "{query}: the proof was used");
    }
}
