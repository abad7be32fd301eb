//! What a 401 or 403 at `/userinfo` means: the issuer's own refusal, the refusal of a server before it, or
//! only that this token has no email there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::time::Duration;

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant, User};
use support::service::{Running, assert_undecided, held_clock, issuer, tenant, value};

const HOUR: Duration = Duration::from_secs(3600);
const NOBODY_WAITS: &str = "[budget]\nwait = \"0s\"\n";

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::Custom { status, headers, body: body.to_owned() }
}

/// Refusals of firewalls, content networks and gateways.
fn of_others() -> Vec<Fault> {
    let mut all = Vec::new();
    for status in [401, 403] {
        all.extend([
            answer(status, &[("content-type", "text/plain")], "error code: 1020"),
            answer(status, &[("content-type", "application/json")], r#"{"message":"Forbidden"}"#),
            answer(
                status,
                &[("content-type", "application/xml")],
                "<Error><Code>AccessDenied</Code></Error>",
            ),
            answer(status, &[], ""),
            answer(status, &[], "<html><title>Blocked</title></html>"),
            answer(status, &[("www-authenticate", "Basic realm=\"edge\"")], "Unauthorized"),
        ]);
    }
    all
}

const EXPIRED: &str =
    r#"Bearer realm="Users", error="invalid_token", error_description="The token has expired""#;

/// What Auth0 answers to a token that it does not know, that has expired, or whose user is blocked.
fn of_auth0() -> [Fault; 3] {
    let blocked = r#"{"error":"unauthorized","error_description":"user is blocked"}"#;
    [
        answer(401, &[("content-type", "text/plain"), ("www-authenticate", EXPIRED)], "Unauthorized"),
        answer(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], "Unauthorized"),
        answer(401, &[("content-type", "application/json")], blocked),
    ]
}

/// holdfast on a clock that is held, and tokens that live for long: one that only the issuer can judge, one
/// without an email.
async fn scene() -> (Tenant, Running, Clock, [String; 2]) {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(&(issuer(&tenant, "") + NOBODY_WAITS), clock.clone()).await;
    let mint = || tenant.mint().expires_in(30 * 86_400);
    let tokens = [mint().opaque().build().unwrap(), mint().build().unwrap()];
    (tenant, running, clock, tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewalls_refusal_locks_nobody_out_and_destroys_nothing() {
    for fault in of_others() {
        let (tenant, running, clock, tokens) = scene().await;
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200);
        }
        clock.advance(13 * HOUR);
        tenant.set_fault(Endpoint::Userinfo, fault.clone());
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200, "{fault:?}");
        }
        let stranger = tenant.mint().opaque().build().unwrap();
        assert_undecided(&running.ask(&stranger).await, &format!("{fault:?}"));
        assert_eq!(running.answered("garbage").await, 1, "{fault:?}");
        // And the outage that follows finds what is remembered.
        clock.advance(HOUR);
        tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200, "{fault:?}, then an outage");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_own_no_is_one_and_no_outage_takes_it_back() {
    for fault in of_auth0() {
        let (tenant, running, clock, tokens) = scene().await;
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200);
        }
        clock.advance(13 * HOUR);
        tenant.set_fault(Endpoint::Userinfo, fault.clone());
        for token in &tokens {
            let reply = running.ask(token).await;
            assert_eq!(reply.status, 401, "{fault:?}");
            assert!(value(&reply, "www-authenticate").unwrap().contains("invalid_token"), "{fault:?}");
        }
        clock.advance(HOUR);
        tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        for token in &tokens {
            assert_ne!(running.ask(token).await.status, 200, "{fault:?}, then an outage");
        }
    }
}

/// It may be the issuer's and it may be a gateway's. The request gets its no; the record stays for the
/// outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_that_does_not_say_why_is_believed_for_the_request_and_destroys_nothing() {
    for (fault, status) in [
        (answer(401, &[("www-authenticate", "Bearer realm=\"gateway\"")], ""), 401),
        (answer(403, &[("content-type", "application/json")], r#"{"error":"access_denied"}"#), 403),
    ] {
        let (tenant, running, clock, tokens) = scene().await;
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200);
        }
        clock.advance(13 * HOUR);
        tenant.set_fault(Endpoint::Userinfo, fault.clone());
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, status, "{fault:?}");
        }
        clock.advance(HOUR);
        tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        for token in &tokens {
            assert_eq!(running.ask(token).await.status, 200, "{fault:?}, then an outage");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_token_costs_no_call_and_lacks_only_an_email() {
    let tenant = tenant().await;
    let machine = || {
        let mint = tenant.mint().subject("client@clients").audience(tenant.audience());
        mint.scope("read write").claim("gty", "client-credentials")
    };
    let token = machine().build().unwrap();
    let required = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    assert_eq!(required.ask(&token).await.status, 403);
    assert_eq!(required.answered("missing_claim").await, 1);
    let headers = "[headers]\n\"X-User-Email\" = { claim = \"email\", default = \"-\" }\n";
    let optional = Running::start(&(issuer(&tenant, "") + headers), Clock::system()).await;
    for token in [token, machine().remove_claim("scope").build().unwrap()] {
        let reply = optional.ask(&token).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("-")), "{reply:?}");
        assert_eq!(value(&reply, "x-user-id"), Some("client@clients"));
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

/// As of a provider that guards `/userinfo` by audience (RFC 8707), and a client that asked for `openid`.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_userinfo_is_not_for_is_good_and_has_no_email_there() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let bound = tenant.mint().subject("auth0|bob").audience(tenant.audience());
    let token = bound.scope("openid read").build().unwrap();
    let headers = "[headers]\n\"X-User-Email\" = { claim = \"email\", default = \"-\" }\n";
    let running = Running::start(&(issuer(&tenant, "") + headers), Clock::system()).await;
    for _ in 0..3 {
        let reply = running.ask(&token).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("-")), "{reply:?}");
    }
    assert_eq!(tenant.calls().userinfo, 1, "that it has none is remembered");
    let required = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    for _ in 0..3 {
        assert_eq!(required.ask(&token).await.status, 403);
    }
    assert_eq!((required.answered("missing_claim").await, tenant.calls().userinfo), (3, 2));
    // It is about the token: another one of the same user finds the email.
    let listed = tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = running.ask(&listed).await;
    assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("bob@example.com")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_rejected_is_not_forgiven_because_another_one_is_good() {
    let (tenant, running, clock, [_, token]) = scene().await;
    let sibling = tenant.mint().expires_in(30 * 86_400).claim("n", 2).build().unwrap();
    tenant.set_fault(Endpoint::Userinfo, of_auth0()[0].clone());
    assert_eq!(running.ask(&token).await.status, 401);
    tenant.clear_faults();
    assert_eq!(running.ask(&sibling).await.status, 200);
    for _ in 0..3 {
        clock.advance(HOUR / 30);
        assert_eq!(running.ask(&token).await.status, 401);
        assert_eq!(running.ask(&sibling).await.status, 200);
    }
}

/// The subject's profile came by another token, which the issuer has not refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_certain_no_deletes_the_profile_for_all_tokens_of_the_subject() {
    let insufficient = "Bearer error=\"insufficient_scope\"";
    for fault in [of_auth0()[0].clone(), answer(403, &[("www-authenticate", insufficient)], "")] {
        let (tenant, running, clock, [_, token]) = scene().await;
        let sibling = tenant.mint().expires_in(30 * 86_400).claim("n", 2).build().unwrap();
        for token in [&token, &sibling] {
            assert_eq!(running.ask(token).await.status, 200);
        }
        clock.advance(13 * HOUR);
        tenant.set_fault(Endpoint::Userinfo, fault.clone());
        assert!([401, 403].contains(&running.ask(&token).await.status), "{fault:?}");
        clock.advance(HOUR);
        tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        assert_undecided(&running.ask(&sibling).await, &format!("{fault:?}, then an outage"));
    }
}
