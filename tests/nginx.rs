//! The guarantees for a client and a backend when nginx asks holdfast: the files of `examples/nginx/`, the
//! real nginx, the real holdfast, and a dev tenant in place of Auth0.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "nginx/stack.rs"]
mod stack;

use stack::{Changes, Front, Stack, bearer};
use support::Reply;
use support::relay::server_that_answers;

/// The identity headers that the backend received, in any spelling that some backend might take for
/// one.
fn identity(page: &Reply) -> Vec<String> {
    let names_one = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_lowercase().replace(['_', '.'], "-");
        name.starts_with("x-user-") || name.starts_with("x-auth-")
    };
    page.body.lines().filter(names_one).map(str::to_owned).collect()
}

/// How often the backend was asked while `asking` went on.
async fn asks_of_the_backend(stack: &Stack, asking: impl Future) -> u64 {
    let before = stack.backend.requests();
    asking.await;
    stack.backend.requests() - before
}

async fn assert_refused(stack: &Stack, front: &Front, token: &str, reason: &str) {
    let asks = asks_of_the_backend(stack, async {
        let reply = front.get(token).await;
        assert_eq!(reply.status, 401, "{}: {reply:?}", front.name);
        let challenge = reply.header("www-authenticate");
        assert!(challenge.len() == 1 && challenge[0].starts_with("Bearer"), "{}: {reply:?}", front.name);
        assert!(challenge[0].contains(reason), "{reason}: {reply:?}");
    });
    assert_eq!(asks.await, 0, "the backend was asked: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_passes_and_the_backend_sees_its_email_once() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        for token in [
            stack.tenant.mint().email_direct("alice@example.com").build().unwrap(),
            stack.tenant.mint().email_nested("alice@example.com").build().unwrap(),
            stack
                .tenant
                .mint()
                .email_namespaced("https://api.example.com/email", "alice@example.com")
                .build()
                .unwrap(),
        ] {
            let page = front.get(&token).await;
            assert_eq!(page.status, 200, "{}: {page:?}", front.name);
            assert!(page.body.starts_with("GET /page HTTP/1.1\n"), "{page:?}");
            let identity = identity(&page);
            for expected in [
                "X-User-Email: alice@example.com",
                "X-User-Id: auth0|alice",
                "X-User-Email-Encoding: none",
                "X-Auth-Tier: primary",
                "X-Auth-Source: claims",
            ] {
                assert_eq!(
                    identity.iter().filter(|line| *line == expected).count(),
                    1,
                    "{expected}: {page:?}"
                );
            }
            assert!(identity.iter().any(|line| line.starts_with("X-Auth-Age: ")), "{page:?}");
            assert_eq!(identity.len(), 6, "{page:?}");
        }
    }
    assert_eq!(stack.tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_email_passes_with_the_one_that_userinfo_knows() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        let token = stack.tenant.mint().subject("auth0|bob").build().unwrap();
        let page = front.get(&token).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(identity(&page).contains(&"X-User-Email: bob@example.com".to_owned()), "{page:?}");
        assert!(identity(&page).contains(&"X-Auth-Source: userinfo".to_owned()), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_is_not_ascii_arrives_percent_encoded_and_says_so() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        let token = stack.tenant.mint().email_direct("jürgen@example.com").build().unwrap();
        let page = front.get(&token).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(identity(&page).contains(&"X-User-Email: j%C3%BCrgen@example.com".to_owned()), "{page:?}");
        assert!(identity(&page).contains(&"X-User-Email-Encoding: percent".to_owned()), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_identity_headers_never_reach_the_backend() {
    const FORGED: [&str; 9] = [
        "X-User-Email: evil@example.com\r\n",
        "x-user-email: evil@example.com\r\nX-USER-EMAIL: evil@example.com\r\n",
        "X_User_Email: evil@example.com\r\nx_user_id: evil\r\nX-User_Email: evil@example.com\r\n",
        "X.User.Email: evil@example.com\r\n",
        "X-User-Id: evil\r\nX-User-Id: evil\r\nX-User-Email-Encoding: evil\r\n",
        "X-Auth-Tier: evil\r\nX-Auth-Age: evil\r\nX-Auth-Source: evil\r\n",
        "X-User-Role: evil\r\nX-Auth-Whatever: evil\r\n",
        "X-User-Email : evil@example.com\r\n",
        "Connection: X-User-Email\r\n",
    ];
    let stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        let honest = identity(&front.get(&token).await);
        assert_eq!(honest.len(), 6, "{honest:?}");
        for forged in FORGED {
            let page = front.request("GET", "/page", &format!("{forged}{}{forged}", bearer(&token))).await;
            if page.status == 200 {
                let names = |lines: &[String]| {
                    lines.iter().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
                };
                assert!(!page.body.contains("evil"), "{forged:?}: {page:?}");
                assert_eq!(names(&identity(&page)), names(&honest), "{forged:?}: {page:?}");
            } else {
                assert_eq!(page.status, 400, "{forged:?}: {page:?}");
            }
            let page = front.request("GET", "/public/page", forged).await;
            assert!(matches!(page.status, 200 | 400), "{forged:?}: {page:?}");
            assert!(!page.body.contains("evil") && identity(&page).is_empty(), "{forged:?}: {page:?}");
        }
        assert!(!front.relay.sent().contains("evil"), "holdfast was told: {}", front.relay.sent());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_trailer_never_reaches_the_backend() {
    let stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        let page = front
            .raw(format!(
                "POST /page HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{}Trailer: X-User-Email\r\n\
                 Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-User-Email: evil@example.com\r\n\r\n",
                bearer(&token)
            ))
            .await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.body.contains("body: 5 bytes") && !page.body.contains("evil"), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_a_401_with_a_challenge() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        let asks = asks_of_the_backend(&stack, async {
            for headers in ["", "Authorization: Basic YTpi\r\n", "Cookie: token=x\r\n"] {
                let reply = front.request("GET", "/page", headers).await;
                assert_eq!(reply.status, 401, "{headers:?}: {reply:?}");
                let challenge = reply.header("www-authenticate");
                assert!(challenge.len() == 1 && challenge[0].starts_with("Bearer"), "{headers:?}: {reply:?}");
            }
        });
        assert_eq!(asks.await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_expired_forged_or_meant_for_others_is_a_401_that_says_invalid_token() {
    let stack = Stack::start().await;
    let mint = || stack.tenant.mint().email_direct("alice@example.com");
    for front in &stack.fronts {
        let reason = "error=\"invalid_token\"";
        assert_refused(&stack, front, &mint().expires_in(-3_600).build().unwrap(), reason).await;
        assert_refused(&stack, front, &mint().audience("https://other.example.com").build().unwrap(), reason)
            .await;
        assert_refused(&stack, front, &mint().issuer("https://other.example.com/").build().unwrap(), reason)
            .await;
        let good = mint().build().unwrap();
        let (signed, _) = good.rsplit_once('.').unwrap();
        let (_, other) = stack
            .tenant
            .mint()
            .subject("auth0|bob")
            .build()
            .unwrap()
            .rsplit_once('.')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert_refused(&stack, front, &format!("{signed}.{other}"), reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_authorization_headers_never_pass() {
    let stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        let asks = asks_of_the_backend(&stack, async {
            let reply = front.request("GET", "/page", &bearer(&token).repeat(2)).await;
            assert!(matches!(reply.status, 400 | 401), "{reply:?}");
        });
        assert_eq!(asks.await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_of_somebody_without_an_email_anywhere_is_a_403() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        let asks = asks_of_the_backend(&stack, async {
            let token = stack.tenant.mint().subject("auth0|noemail").build().unwrap();
            let reply = front.get(&token).await;
            assert_eq!(reply.status, 403, "{reply:?}");
        });
        assert_eq!(asks.await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_can_tell_the_client_is_told_to_come_back() {
    let stack = Stack::start().await;
    stack.tenant.go_down().await;
    for front in &stack.fronts {
        let asks = asks_of_the_backend(&stack, async {
            let token = stack.tenant.mint().subject("auth0|bob").build().unwrap();
            let reply = front.get(&token).await;
            assert_eq!(reply.status, 503, "{reply:?}");
            let retry_after = reply.header("retry-after");
            let seconds: u64 = retry_after[0].parse().unwrap();
            assert!(retry_after.len() == 1 && seconds >= 1, "{reply:?}");
        });
        assert_eq!(asks.await, 0);
    }
    // And it is a "cannot tell", not an outage for everybody: a token with an email needs no call.
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(stack.fronts[0].get(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_holdfast_nobody_passes_and_the_client_is_told_to_come_back() {
    let mut stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(stack.fronts[0].get(&token).await.status, 200);
    stack.holdfast.kill().await;
    let asks = asks_of_the_backend(&stack, async {
        for front in &stack.fronts {
            for dead in ["hangs up", "refuses"] {
                for token in [token.as_str(), "nonsense"] {
                    let reply = front.get(token).await;
                    assert_eq!(reply.status, 503, "{} {dead}: {reply:?}", front.name);
                    assert_eq!(reply.header("retry-after"), ["5"], "{reply:?}");
                }
                front.relay.refuse();
            }
        }
    });
    assert_eq!(asks.await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_holdfast_should_never_give_is_a_500_and_lets_nobody_pass() {
    // By a wrong path: holdfast says 404.
    let nginx =
        vec![("holdfast_unix/auth;", "holdfast_unix/typo;"), ("holdfast_tcp/auth;", "holdfast_tcp/typo;")];
    let stack = Stack::start_with(Changes { nginx, ..Changes::default() }).await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        let asks = asks_of_the_backend(&stack, async {
            let reply = front.get(&token).await;
            assert_eq!(reply.status, 500, "{reply:?}");
            assert!(reply.header("retry-after").is_empty(), "{reply:?}");
        });
        assert_eq!(asks.await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_refuse_tokens_whose_audience_nobody_could_check() {
    let requirement =
        ("proxy_pass http://holdfast_tcp/auth;", "proxy_pass http://holdfast_tcp/auth?audience=checked;");
    let stack = Stack::start_with(Changes { nginx: vec![requirement], ..Changes::default() }).await;
    let [plain, strict] = &stack.fronts;
    let opaque = stack.tenant.mint().opaque().build().unwrap();
    assert_eq!(plain.get(&opaque).await.status, 200);
    assert_eq!(strict.get(&opaque).await.status, 403);
    let signed = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    assert_eq!(strict.get(&signed).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_backend_stays_what_it_is() {
    for (answer, status) in [
        ("HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 5\r\n\r\nmine\n", 500),
        (
            "HTTP/1.1 503 Later\r\nConnection: close\r\nRetry-After: 99\r\nContent-Length: 5\r\n\r\nmine\n",
            503,
        ),
        ("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 5\r\n\r\nmine\n", 401),
    ] {
        let backend = Some(server_that_answers(answer).await);
        let stack = Stack::start_with(Changes { backend, ..Changes::default() }).await;
        let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
        for front in &stack.fronts {
            let reply = front.get(&token).await;
            assert_eq!((reply.status, reply.body.as_str()), (status, "mine\n"), "{reply:?}");
            assert_eq!(
                reply.header("retry-after"),
                if status == 503 { vec!["99"] } else { vec![] },
                "{reply:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_reaches_the_backend_whole_and_holdfast_not_at_all() {
    const LENGTH: usize = 10_000_000;
    let stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let body = "b".repeat(LENGTH);
    for front in &stack.fronts {
        let head =
            format!("POST /upload HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{}", bearer(&token));
        for request in [
            format!("{head}Content-Length: {LENGTH}\r\n\r\n{body}"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{LENGTH:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let page = front.raw(request).await;
            assert_eq!(page.status, 200, "{page:?}");
            assert!(page.body.starts_with("POST /upload HTTP/1.1\n"), "{page:?}");
            assert!(page.body.ends_with(&format!("\nbody: {LENGTH} bytes\n")), "{page:?}");
        }
        let asks = asks_of_the_backend(&stack, async {
            let stranger = format!(
                "POST /upload HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n{body}"
            );
            assert_eq!(front.raw(stranger).await.status, 401);
        });
        assert_eq!(asks.await, 0);
        let sent = front.relay.sent();
        assert_eq!(sent.matches("GET /auth HTTP/1.1\r\n").count(), 3, "{sent}");
        assert!(sent.len() < 8_000 && !sent.contains("bbbb") && !sent.contains("Content-Length"), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_12_kilobytes_passes() {
    let stack = Stack::start().await;
    let long = stack.tenant.mint().email_direct("alice@example.com").claim("groups", "g".repeat(8_500));
    let token = long.build().unwrap();
    assert!((12_000..16_384).contains(&token.len()), "{}", token.len());
    for front in &stack.fronts {
        let page = front.get(&token).await;
        assert_eq!(page.status, 200, "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_asked_about_and_reaches_the_backend_as_it_is() {
    let stack = Stack::start().await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        for method in ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "PURGE"] {
            let page = front.request(method, "/page", &bearer(&token)).await;
            assert_eq!(page.status, 200, "{method}: {page:?}");
            let seen = stack.backend.last_request().unwrap();
            assert!(seen.starts_with(&format!("{method} /page HTTP/1.1\n")), "{seen}");
            assert!(seen.contains("\nX-User-Email: alice@example.com\n"), "{seen}");
            assert_eq!(page.body.is_empty(), method == "HEAD", "{method}: {page:?}");
            let asks = asks_of_the_backend(&stack, async {
                let reply = front.request(
                    method,
                    "/page",
                    "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n",
                );
                assert_eq!(reply.await.status, 401, "{method}");
            });
            assert_eq!(asks.await, 0, "{method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_reaches_holdfast_itself() {
    let stack = Stack::start().await;
    for front in &stack.fronts {
        for path in ["/_holdfast", "//_holdfast", "/x/../_holdfast", "/%5fholdfast"] {
            let reply = front.request("GET", path, "").await;
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        }
        assert_eq!(front.relay.connections(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_questions_share_a_connection() {
    let stack = Stack::start().await;
    let good = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let denied = stack.tenant.mint().subject("auth0|noemail").build().unwrap();
    for front in &stack.fronts {
        for number in 0..100 {
            let (token, status) =
                [(good.as_str(), 200), ("nonsense", 401), (denied.as_str(), 403)][number % 3];
            assert_eq!(front.get(token).await.status, status);
        }
        assert_eq!(front.relay.sent().matches("GET /auth HTTP/1.1\r\n").count(), 100);
        let connections = front.relay.connections();
        assert!(connections <= 2, "{}: {connections} connections", front.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_it_is_without_keepalive_works_too() {
    let nginx = vec![
        ("proxy_http_version 1.1;\n", "\n"),
        ("proxy_set_header Connection \"\";", ""),
        ("keepalive 32;", ""),
    ];
    let stack = Stack::start_with(Changes { nginx, ..Changes::default() }).await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    for front in &stack.fronts {
        for _ in 0..10 {
            let page = front.get(&token).await;
            assert_eq!(page.status, 200, "{page:?}");
            assert!(identity(&page).contains(&"X-User-Email: alice@example.com".to_owned()), "{page:?}");
            assert_eq!(front.get("nonsense").await.status, 401);
        }
        assert_eq!(
            front.relay.sent().matches("GET /auth HTTP/1.0\r\n").count(),
            20,
            "{}",
            front.relay.sent()
        );
        assert_eq!(front.relay.connections(), 20);
    }
}

/// nginx takes an answer whose head is longer than 4 KiB for an error, and would give a user with long claims
/// a 503 for good.
#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_too_long_for_an_answer_are_a_403_and_never_an_error_of_nginx() {
    let rows = "[headers]\nX-A = \"a\"\nX-B = \"b\"\nX-C = \"c\"\n";
    let stack = Stack::start_with(Changes { holdfast: rows.to_owned(), ..Changes::default() }).await;
    let token = |length: usize| {
        let minting = stack.tenant.mint().email_direct("alice@example.com");
        // What is not ASCII takes six bytes in a header.
        let last = "ü".repeat(length / 6) + &"c".repeat(length % 6);
        minting.claim("a", "a".repeat(1024)).claim("b", "b".repeat(1024)).claim("c", last).build().unwrap()
    };
    let (mut fits, mut too_long) = (1, 3000);
    while too_long - fits > 1 {
        let middle = (fits + too_long) / 2;
        let reply = stack.holdfast.ask(&token(middle)).await;
        match reply.status {
            200 => fits = middle,
            403 => too_long = middle,
            _ => panic!("{middle}: {reply:?}"),
        }
    }
    for front in &stack.fronts {
        for (length, status) in [(1, 200), (fits, 200), (too_long, 403), (3000, 403)] {
            let reply = front.get(&token(length)).await;
            assert_eq!(reply.status, status, "{} {length}: {reply:?}", front.name);
        }
    }
    stack.holdfast.told("bytes of the 3584 that there are; the longest is x-").await;
}

/// A browser sends a cookie once for each domain and path that it was set for; nginx passes all of them on.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_cookie_twice_passes_and_two_different_ones_do_not() {
    let stack = Stack::start_with(Changes {
        holdfast: "[credential]\ncookie = \"session\"\n".to_owned(),
        nginx: vec![("# proxy_set_header Cookie $http_cookie;", "proxy_set_header Cookie $http_cookie;")],
        ..Changes::default()
    })
    .await;
    let token = stack.tenant.mint().email_direct("alice@example.com").build().unwrap();
    let other = stack.tenant.mint().email_direct("bob@example.com").build().unwrap();
    for front in &stack.fronts {
        for (cookies, status) in [
            (format!("Cookie: a=b; session={token}; session={token}\r\n"), 200),
            (format!("Cookie: session={token}\r\nCookie: session={token}\r\n"), 200),
            (format!("Cookie: session=; session={token}\r\n"), 200),
            (format!("Cookie: session={token}; session={other}\r\n"), 401),
        ] {
            let reply = front.request("GET", "/page", &cookies).await;
            assert_eq!(reply.status, status, "{}: {cookies}: {reply:?}", front.name);
        }
    }
}
