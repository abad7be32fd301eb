//! Bad answers of the issuer that one token, one user, or a server before the issuer causes do not affect
//! others; and calls to the issuer without requests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use holdfast::guard::breaker::State;
use holdfast::guard::{GuardStatus, Priority, SingleflightError};
use holdfast::issuer::{CannotTell, Issuer, KeyLookup};
use holdfast::token::algorithm::SignatureAlgorithm;
use holdfast_devtenant::{Endpoint, Fault, RateLimit, Tenant, User};
use support::service::{Running, assert_undecided, counted, held_clock, issuer, request, tenant, value};
use support::{exchange, until};
use tokio::net::TcpStream;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn the_issuer(running: &Running) -> Arc<Issuer> {
    running.service.instance().issuers.iter().next().unwrap().clone()
}

fn guard_of(running: &Running, name: &str) -> GuardStatus {
    let issuer = the_issuer(running);
    issuer.endpoints().find(|endpoint| endpoint.name() == name).unwrap().status()
}

/// On a clock that is held a turn that is waited for does not come.
const NOBODY_WAITS: &str = "[budget]\nwait = \"0s\"\n";

/// A user with a token that names no email.
fn user(tenant: &Tenant, name: &str) -> String {
    let subject = format!("auth0|{name}");
    tenant.add_user(User::new(&subject).email(format!("{name}@example.com")));
    tenant.mint().subject(subject).expires_in(30 * 86_400).build().unwrap()
}

async fn order(running: &Running, body: &str) {
    let request = format!(
        "POST /breaker HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(
        exchange(TcpStream::connect(running.admin).await.unwrap(), request.as_bytes()).await.status,
        200
    );
}

/// The value of the series of `breaker_state` with these labels.
async fn gauge(running: &Running, endpoint: &str, state: &str) -> u64 {
    let stream = TcpStream::connect(running.admin).await.unwrap();
    let page = exchange(stream, &request("/metrics", "")).await;
    counted(&page, &format!("holdfast_breaker_state{{endpoint=\"{endpoint}\""), &format!("state=\"{state}\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_whose_tokens_are_declined_or_make_the_issuer_fail_stops_nobody() {
    let tenant = tenant().await;
    for fault in
        [Fault::TooLong(8 * 1024), Fault::Status(400), Fault::Status(500), Fault::Garbage, Fault::Reset]
    {
        let clock = held_clock(&tenant);
        let running = Running::start(&(issuer(&tenant, "") + NOBODY_WAITS), clock.clone()).await;
        for round in 0..5 {
            tenant.set_fault(Endpoint::Userinfo, fault.clone());
            for number in 0..10 {
                let token = format!("{}{round}{number}", "x".repeat(9_000));
                assert_undecided(&running.ask(&token).await, &format!("{fault:?}"));
            }
            if !matches!(fault, Fault::TooLong(_)) {
                tenant.clear_faults();
            }
            clock.advance(SECOND * 2);
            let known = user(&tenant, &format!("{round}"));
            assert_eq!(running.ask(&known).await.status, 200, "{fault:?}, round {round}");
        }
        assert_eq!(guard_of(&running, "userinfo").state, State::Closed, "{fault:?}");
        assert_eq!(running.counted("holdfast_breaker_transitions_total{endpoint=\"userinfo\"", "").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_whose_profile_is_too_long_stops_nobody_else() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let large = User::new("auth0|large").email("large@example.com").claim("padding", "x".repeat(70_000));
    tenant.add_user(large);
    let large = tenant.mint().subject("auth0|large").build().unwrap();
    tenant.reset_calls();
    for minute in 0..30 {
        for _ in 0..5 {
            assert_undecided(&running.ask(&large).await, "too long");
        }
        if minute % 10 == 9 {
            assert_eq!(running.ask(&user(&tenant, &format!("{minute}"))).await.status, 200);
        }
        clock.advance(SECOND * 60);
    }
    assert_eq!(tenant.calls().userinfo, 30 + 3, "who fails again and again is asked about once a minute");
    assert_eq!(guard_of(&running, "userinfo").state, State::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_at_their_own_limit_stop_nobody_else() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    tenant.set_per_user_limit(Some(RateLimit::new(0, 5.0 / 60.0)));
    for number in 0..12 {
        let reply = running.ask(&user(&tenant, &format!("limited-{number}"))).await;
        assert_undecided(&reply, "their own limit");
        assert_eq!(value(&reply, "retry-after"), Some("12"));
    }
    tenant.set_per_user_limit(None);
    assert_eq!(running.ask(&user(&tenant, "innocent")).await.status, 200);
    assert_eq!(guard_of(&running, "userinfo").state, State::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_that_refuses_is_not_the_issuers_no() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    let tokens = [tenant.mint().opaque().build().unwrap(), user(&tenant, "known")];
    for token in &tokens {
        assert_eq!(running.ask(token).await.status, 200);
    }
    for status in [401, 403] {
        clock.advance(HOUR * 13);
        tenant.set_fault(
            Endpoint::Userinfo,
            Fault::Custom {
                status,
                headers: vec![("content-type".to_owned(), "text/html; charset=utf-8".to_owned())],
                body: "<!doctype html><title>Blocked</title>".to_owned(),
            },
        );
        for token in &tokens {
            let reply = running.ask(token).await;
            assert_eq!((reply.status, value(&reply, "x-auth-tier")), (200, Some("emergency")), "{reply:?}");
        }
        assert_undecided(&running.ask(&user(&tenant, "new")).await, "nobody knows this one");
        tenant.clear_faults();
        clock.advance(SECOND * 60);
        for token in &tokens {
            let reply = running.ask(token).await;
            assert_eq!((reply.status, value(&reply, "x-auth-tier")), (200, Some("primary")), "{reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_place_of_a_document_is_named_as_one() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    let forbidden = Fault::Custom { status: 403, headers: Vec::new(), body: "<h1>Forbidden</h1>".to_owned() };
    for (fault, expected) in
        [(Fault::Garbage, "a web page"), (forbidden, "a refusal (401 or 403) that is not")]
    {
        for endpoint in [Endpoint::Jwks, Endpoint::Discovery] {
            tenant.set_fault(endpoint, fault.clone());
            let error = the_issuer(&running).refresh(Priority::Foreground).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{endpoint:?}: {error}");
            tenant.clear_faults();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_and_the_breaker_wait_as_long_as_a_503_says() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    for (number, (said, expected)) in
        [("120", "120"), ("0", "1"), ("86400", "300")].into_iter().cycle().take(10).enumerate()
    {
        let headers = vec![("retry-after".to_owned(), said.to_owned())];
        tenant.set_fault(Endpoint::Userinfo, Fault::Custom { status: 503, headers, body: String::new() });
        let reply = running.ask(&user(&tenant, &format!("{number}"))).await;
        assert_undecided(&reply, said);
        assert_eq!(value(&reply, "retry-after"), Some(expected));
    }
    let guard = guard_of(&running, "userinfo");
    assert_eq!((guard.state, guard.refuses_for), (State::Open, SECOND * 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tenant_says_remains_is_all_that_is_spent() {
    let tenant = tenant().await;
    let running = Running::start(&(issuer(&tenant, "") + NOBODY_WAITS), held_clock(&tenant)).await;
    // More than any user's limit, so it is the tenant's; and less than the budget's burst of 20.
    tenant.set_userinfo_limit(Some(RateLimit::new(15, 0.0)));
    assert_eq!(running.ask(&user(&tenant, "first")).await.status, 200);
    let budget = guard_of(&running, "userinfo").budget;
    assert_eq!((budget.available, budget.learned.map(|(calls, _)| calls)), (14, Some(14)));
    let mut told = Vec::new();
    for number in 0..20 {
        told.push(running.ask(&user(&tenant, &format!("{number}"))).await.status);
    }
    assert_eq!(told.iter().filter(|status| **status == 200).count(), 14);
    assert_eq!(told.iter().filter(|status| **status == 503).count(), 6);
    let calls = tenant.calls();
    assert_eq!((calls.userinfo, calls.userinfo_by_status.get(&429)), (15, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_ends_with_the_outage_also_where_nobody_asks() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(
        &(issuer(&tenant, "") + "[policy]\nleeway = \"0s\"\nexpired_grace = \"1h\"\n"),
        clock.clone(),
    )
    .await;
    let mint = |life| tenant.mint().email_direct("alice@example.com").expires_in(life).build().unwrap();
    let (short, long) = (mint(20), mint(600));
    order(&running, r#"{"action": "force-open", "for": "60s"}"#).await;
    // Seen in the outage, which is over long before it expires.
    assert_eq!(running.ask(&long).await.status, 200);
    clock.advance(SECOND * 30);
    tenant.set_time(Some(clock.now().as_secs()));
    assert_eq!(running.ask(&short).await.status, 200, "it expired in the outage");
    clock.advance(SECOND * 35);
    tenant.set_time(Some(clock.now().as_secs()));
    assert_eq!(running.ask(&short).await.status, 200, "it is not known yet whether the outage is over");
    let later = mint(5);
    clock.advance(SECOND * 15);
    tenant.set_time(Some(clock.now().as_secs()));
    assert_eq!(guard_of(&running, "userinfo").state, State::HalfOpen, "nobody asked");
    assert_eq!(running.ask(&short).await.status, 401);
    assert_eq!(running.ask(&later).await.status, 401);
    clock.advance(SECOND * 600);
    assert_eq!(running.ask(&long).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_nobody_probes_is_probed_and_the_metrics_say_how_it_stands() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let running = Running::start(&issuer(&tenant, ""), clock.clone()).await;
    order(&running, r#"{"action": "force-open", "for": "5s"}"#).await;
    assert_eq!(
        (gauge(&running, "userinfo", "open").await, gauge(&running, "userinfo", "half_open").await),
        (1, 0)
    );
    clock.advance(SECOND * 5);
    assert_eq!(
        (gauge(&running, "userinfo", "open").await, gauge(&running, "userinfo", "half_open").await),
        (0, 1)
    );

    let issuer = the_issuer(&running);
    tenant.reset_calls();
    let mut waited = issuer.probe_idle([false; 4]).await;
    assert_eq!((waited, tenant.calls().total), ([true, true, true, false], 0), "a request may come yet");
    tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    waited = issuer.probe_idle(waited).await;
    let calls = tenant.calls();
    assert_eq!((calls.discovery, calls.jwks, calls.userinfo), (1, 1, 1));
    let guard = guard_of(&running, "userinfo");
    assert_eq!(guard.state, State::Open, "it is not well yet");
    tenant.clear_faults();
    clock.advance(guard.refuses_for);
    for _ in 0..4 {
        waited = issuer.probe_idle(waited).await;
    }
    // The dev tenant says 401 to a call without a token, as Auth0 does.
    assert_eq!(tenant.calls().userinfo_by_status.get(&401), Some(&3));
    for endpoint in ["discovery", "jwks", "userinfo"] {
        assert_eq!(gauge(&running, endpoint, "closed").await, 1, "{endpoint}");
    }
    let calls = tenant.calls();
    assert_eq!(issuer.probe_idle(waited).await, [false; 4]);
    assert_eq!(tenant.calls(), calls, "what is closed needs no probe");
}

/// Waits until the fetch of the start is over, and the one of the test, if they were not the same; forgets
/// their calls.
async fn settled(running: &Running, tenant: &Tenant) {
    until("the first fetches", async || {
        let fetched = running.counted("holdfast_upstream_requests_total{", "endpoint=\"jwks\"").await;
        let joined = running.counted("holdfast_singleflight_joined_total", "").await;
        (fetched + joined == 2).then_some(())
    })
    .await;
    tenant.reset_calls();
}

/// Looks for the key of a token that names one.
fn look(issuer: &Arc<Issuer>, kid: &str) -> tokio::task::JoinHandle<Result<bool, CannotTell>> {
    let (issuer, kid) = (issuer.clone(), kid.to_owned());
    tokio::spawn(async move {
        let found = issuer.keys_for(Some(&kid), SignatureAlgorithm::RS256).await?;
        Ok(matches!(found, KeyLookup::Found(_)))
    })
}

#[tokio::test]
async fn those_who_wait_for_unknown_keys_are_bounded() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    settled(&running, &tenant).await;
    let joined = async || running.counted("holdfast_singleflight_joined_total", "").await;
    let before = joined().await;
    tenant.set_fault(Endpoint::Jwks, Fault::Hang);
    let issuer = the_issuer(&running);
    let looks: Vec<_> = (0..1_100).map(|number| look(&issuer, &format!("unheard-of-{number}"))).collect();
    until("the one fetch", async || (tenant.calls().jwks == 1).then_some(())).await;
    tenant.go_down().await;
    let mut busy = 0;
    for look in looks {
        match look.await.unwrap() {
            Err(CannotTell::Shared(SingleflightError::Busy)) => busy += 1,
            Err(CannotTell::Failed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(busy, 100);
    assert_eq!(joined().await - before, 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_unknown_keys_are_looked_for_leaves_nothing_behind() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), held_clock(&tenant)).await;
    settled(&running, &tenant).await;
    tenant.set_fault(Endpoint::Jwks, Fault::Slow(Duration::from_millis(300)));
    let issuer = the_issuer(&running);
    let gone = look(&issuer, "unheard-of");
    until("the fetch", async || (tenant.calls().jwks == 1).then_some(())).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    for kid in ["unheard-of", "unheard-of-either"] {
        assert_eq!(look(&issuer, kid).await.unwrap(), Ok(false), "the fetch went on, and found no such key");
    }
    assert_eq!(tenant.calls().jwks, 1);
}
