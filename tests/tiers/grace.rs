//! `expired_grace`: a signed token that expired while the breaker was open is good for this long, and only
//! while it is open.

use holdfast_devtenant::Tenant;
use tokio::net::TcpStream;

use crate::support::exchange;
use crate::support::service::Running;
use crate::{HOUR, START, Scene};

const POLICY: &str = "[policy]\nleeway = \"0s\"\nexpired_grace = \"1h\"\n";

/// When the tokens expire, in seconds after the start.
const EXP: u64 = 600;

/// A token with an email, and one whose email comes from `/userinfo`.
fn tokens(tenant: &Tenant) -> [String; 2] {
    let mint = || tenant.mint().expires_in(i64::try_from(EXP).unwrap());
    [mint().email_direct("alice@example.com").build().unwrap(), mint().build().unwrap()]
}

/// An operator's order to the breakers.
async fn breakers(holdfast: &Running, order: &str) {
    let head = "POST /breaker HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{order}", order.len());
    let reply = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), request.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

const OPEN: &str = r#"{"action": "force-open", "for": "24h"}"#;
const RESET: &str = r#"{"action": "reset"}"#;

impl Scene {
    async fn statuses(&self, tokens: &[String], after: u64) -> Vec<u16> {
        let mut statuses = Vec::new();
        for token in tokens {
            statuses.push(self.ask_at(token, after).await.status);
        }
        statuses
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_while_the_breaker_was_open_is_good_until_the_grace_ends_and_no_longer() {
    for (policy, in_grace) in [(POLICY, 200), ("[policy]\nleeway = \"0s\"\n", 401)] {
        let scene = Scene::start(policy).await;
        let tokens = tokens(&scene.tenant);
        assert_eq!(scene.statuses(&tokens, 0).await, [200, 200]);
        breakers(&scene.holdfast, OPEN).await;
        assert_eq!(scene.statuses(&tokens, EXP - 1).await, [200, 200]);
        for after in [EXP, EXP + 5, EXP + HOUR - 1] {
            assert_eq!(scene.statuses(&tokens, after).await, [in_grace; 2], "{after} s, {policy}");
        }
        assert_eq!(scene.statuses(&tokens, EXP + HOUR).await, [401, 401], "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_seen_before_it_expired_is_not_good_for_longer_once_the_breaker_is_closed() {
    let scene = Scene::start(POLICY).await;
    let tokens = tokens(&scene.tenant);
    assert_eq!(scene.statuses(&tokens[1..], 0).await, [200]);
    breakers(&scene.holdfast, OPEN).await;
    // It is seen for the first time with the breaker open, and long before it expires.
    assert_eq!(scene.statuses(&tokens, 1).await, [200, 200]);
    breakers(&scene.holdfast, RESET).await;
    assert_eq!(scene.statuses(&tokens, EXP - 1).await, [200, 200]);
    assert_eq!(scene.statuses(&tokens, EXP).await, [401, 401]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_ends_with_the_outage_and_nothing_that_was_answered_in_it_is_remembered() {
    let scene = Scene::start(POLICY).await;
    let tokens = tokens(&scene.tenant);
    assert_eq!(scene.statuses(&tokens, 0).await, [200, 200]);
    breakers(&scene.holdfast, OPEN).await;
    assert_eq!(scene.statuses(&tokens, EXP + 1).await, [200, 200]);
    breakers(&scene.holdfast, RESET).await;
    // The clock has not moved.
    assert_eq!(scene.statuses(&tokens, EXP + 1).await, [401, 401]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_before_the_breaker_opened_gets_no_grace() {
    let scene = Scene::start(POLICY).await;
    let tokens = tokens(&scene.tenant);
    assert_eq!(scene.statuses(&tokens, 0).await, [200, 200]);
    scene.clock.advance(holdfast::clock::Timestamp::from_secs(START + EXP + 1).since(scene.clock.now()));
    breakers(&scene.holdfast, OPEN).await;
    assert_eq!(scene.statuses(&tokens, EXP + 2).await, [401, 401]);
}
