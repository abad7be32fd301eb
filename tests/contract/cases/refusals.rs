//! Refused requests, and the answers to their clients.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;

pub async fn a_bad_token_is_a_401_with_a_challenge(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let mint = || stack.tenant.mint().email_direct("alice@example.com");
    let invalid = "error=\"invalid_token\"";
    for (headers, reason) in [
        (String::new(), "Bearer"),
        ("Authorization: Basic YTpi\r\n".to_owned(), "Bearer"),
        ("Cookie: token=x\r\n".to_owned(), "Bearer"),
        (bearer("nonsense"), "Bearer"),
        (bearer(&mint().expires_in(-3_600).build().unwrap()), invalid),
        (bearer(&mint().audience("https://other.example.com").build().unwrap()), invalid),
        (bearer(&mint().issuer("https://other.example.com/").build().unwrap()), invalid),
        (bearer(&mint().signed_by_stranger().build().unwrap()), invalid),
        (bearer(&mint().unsigned().build().unwrap()), invalid),
    ] {
        let reply = stack.assert_refused(&[401], &request("GET", "/page", &headers)).await;
        let challenge = reply.header("www-authenticate");
        assert_eq!(challenge.len(), 1, "{headers:?}: {reply:?}");
        assert!(
            challenge[0].starts_with("Bearer") && challenge[0].contains(reason),
            "{headers:?}: {reply:?}"
        );
        for name in ["x-user-email", "x-auth-tier"] {
            assert!(reply.header(name).is_empty(), "{headers:?}: {reply:?}");
        }
    }
}

pub async fn two_credentials_never_pass(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let alice = bearer(&stack.alice());
    let bob =
        bearer(&stack.tenant.mint().subject("auth0|bob").email_direct("bob@example.com").build().unwrap());
    for headers in [alice.repeat(2), format!("{alice}{bob}"), format!("Authorization: Basic YTpi\r\n{alice}")]
    {
        stack.assert_refused(&[400, 401], &request("GET", "/page", &headers)).await;
    }
}

pub async fn a_good_token_that_may_not_is_a_403(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = stack.tenant.mint().subject("auth0|noemail").build().unwrap();
    stack.assert_refused(&[403], &request("GET", "/page", &bearer(&token))).await;
}

pub async fn when_nobody_can_tell_the_client_is_told_to_come_back(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    stack.tenant.go_down().await;
    let token = stack.tenant.mint().subject("auth0|bob").build().unwrap();
    let reply = stack.assert_refused(&[503], &request("GET", "/page", &bearer(&token))).await;
    let retry_after = reply.header("retry-after");
    assert_eq!(retry_after.len(), 1, "{reply:?}");
    let seconds: u64 = retry_after[0].parse().unwrap();
    assert!((1..=300).contains(&seconds), "{reply:?}");
    if !proxy.differs.passes_retry_after {
        assert_eq!(Some(retry_after[0]), proxy.differs.gone.1, "the documented one: {reply:?}");
    }
    // A "cannot tell" is no outage for everybody: a token with an email needs no call.
    assert_eq!(stack.client.get(&stack.alice()).await.status, 200);
}

pub async fn without_holdfast_nobody_passes(proxy: Proxy) {
    let mut stack = Stack::start(proxy).await;
    let token = stack.alice();
    assert_eq!(stack.client.get(&token).await.status, 200);
    stack.holdfast.kill().await;
    for gone in ["hangs up", "refuses"] {
        for path in ["/page", "/admin/page"] {
            for token in [token.as_str(), "nonsense"] {
                let (status, retry_after) = proxy.differs.gone;
                let reply = stack.assert_refused(&[status], &request("GET", path, &bearer(token))).await;
                assert_eq!(reply.header("retry-after").first().copied(), retry_after, "{gone}: {reply:?}");
            }
        }
        stack.relay.refuse();
    }
    // What is open stays so.
    assert_eq!(stack.client.request("GET", "/public/page", "").await.status, 200);
}

pub async fn an_auth_server_that_never_answers_lets_nobody_pass(proxy: Proxy) {
    // Never accepted: the system takes the connection, and nobody reads.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stack = Stack::start_with_auth(proxy, silent.local_addr().unwrap()).await;
    stack.assert_refused(&[proxy.differs.silent], &request("GET", "/page", &bearer(&stack.alice()))).await;
}
