//! Published advisories about other auth servers and proxies, tried on holdfast. Each test has the name of
//! its advisory; those that need a real proxy run with one.
//!
//! The vulnerabilities are of few kinds: a header of the client decides, a path has two readings, an error
//! allows, an absent identity header leaves the client's own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast::clock::Clock;
use holdfast::config::{Settings, Source};
use holdfast_devtenant::Tenant;
use proptest::prelude::*;
use serde_json::json;
use support::Reply;
use support::service::{Running, issuer, request, tenant, value};

const EMAIL: &str = "alice@example.com";

/// `/public` is public, all else needs an identity.
const RULES: &str = "[[rule]]\npath_prefix = \"/public\"\npublic = true\n[[rule]]\nrequire = {}\n";
const BY_RULES: &str =
    "requirements_from = \"rules\"\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n";

async fn served(auth: &str, more: &str) -> (Tenant, Running, String) {
    let tenant = tenant().await;
    let config = format!("{}{more}", issuer(&tenant, "userinfo = false"));
    let holdfast = Running::start_with_auth(auth, &config, Clock::system()).await;
    let token = tenant.mint().subject("auth0|alice").email_direct(EMAIL).build().unwrap();
    (tenant, holdfast, token)
}

/// The same with another way to describe the original request.
fn told_by(how: &str) -> String {
    BY_RULES.replace("x-forwarded", how)
}

fn forwarded(uri: &str) -> String {
    format!("X-Forwarded-Method: GET\r\nX-Forwarded-Host: app.example\r\nX-Forwarded-Uri: {uri}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn status(holdfast: &Running, lines: &str) -> u16 {
    holdfast.raw(&request("/auth", lines)).await.status
}

/// Asserts that the route which needs an identity is not to be had without one, and is with one, whatever
/// else is sent.
async fn assert_no_way_around(holdfast: &Running, token: &str, lines: &str) {
    assert_eq!(status(holdfast, lines).await, 401, "{lines}");
    let reply = holdfast.raw(&request("/auth", &format!("{lines}{}", bearer(token)))).await;
    assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some(EMAIL)), "{lines}: {reply:?}");
}

/// oauth2-proxy: the client's `X-Forwarded-Uri` chose the rule that skips authentication.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_40575_a_forwarded_uri_of_anybody_opens_nothing() {
    let (_tenant, holdfast, token) = served("", "").await;
    assert!(
        holdfast.service.instance().settings.routes.trusted_peers.is_empty(),
        "somebody is trusted by default"
    );
    for uri in ["/public", "/", "/ping", "/robots.txt", "/oauth2/static/x"] {
        assert_no_way_around(&holdfast, &token, &forwarded(uri)).await;
        assert_no_way_around(
            &holdfast,
            &token,
            &format!("X-Original-URI: {uri}\r\nX-Original-Method: GET\r\n"),
        )
        .await;
    }
    // oauth2-proxy#3506: its default still trusts everybody. Here that cannot even be configured.
    let everybody =
        "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[auth]\ntrusted_peers = [\"0.0.0.0/0\"]\n";
    assert!(Settings::read(&Source::text("test.toml", everybody)).is_err());
    let stranger = &BY_RULES.replace("127.0.0.1", "10.9.8.7");
    let (_tenant, holdfast, token) = served(stranger, RULES).await;
    assert_eq!(status(&holdfast, &forwarded("/public")).await, 403);
    assert_eq!(status(&holdfast, &(forwarded("/public") + &bearer(&token))).await, 403);
}

/// oauth2-proxy: a health checker's `User-Agent` was a 200 on any path.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_34457_a_user_agent_is_no_health_check() {
    let (_tenant, by_query, token) = served("", "").await;
    let (_tenant, by_rules, by_rules_token) = served(BY_RULES, RULES).await;
    for agent in ["kube-probe/1.29", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/2.45", "curl/8"] {
        let agent = format!("User-Agent: {agent}\r\n");
        assert_no_way_around(&by_query, &token, &agent).await;
        assert_no_way_around(&by_rules, &by_rules_token, &(agent.clone() + &forwarded("/healthz"))).await;
        for path in ["/auth/healthz", "/auth/ping", "/auth/ready", "/auth?healthz"] {
            let reply = by_query.raw(&request(path, &agent)).await;
            assert_eq!(reply.status, 401, "{path} {agent}");
        }
        for path in ["/healthz", "/ping", "/ready", "/"] {
            assert_eq!(by_query.raw(&request(path, &agent)).await.status, 404, "{path} {agent}");
        }
    }
}

/// oauth2-proxy: the text after `#` was matched, and not sent to the backend.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_41059_a_fragment_makes_no_path_public() {
    let (_tenant, holdfast, token) = served(BY_RULES, RULES).await;
    for uri in [
        "/foo/secret#/public",
        "/public#/../secret",
        "/secret%23/public",
        "/public%23",
        "/#/public",
        "#/public",
    ] {
        assert_eq!(status(&holdfast, &forwarded(uri)).await, 403, "{uri}");
        assert_eq!(status(&holdfast, &(forwarded(uri) + &bearer(&token))).await, 403, "{uri}, with a token");
    }
    let (_tenant, holdfast, token) = served(&told_by("request"), RULES).await;
    for (target, with, without) in [
        ("/auth/secret#/public", 200, 401),
        ("/auth/secret%23/public", 403, 403),
        ("/auth/public/../secret", 403, 403),
        ("/auth#/public", 403, 403),
        ("/auth", 403, 403),
        ("/auth/public", 200, 200),
        ("/auth/public?x#y", 200, 200),
    ] {
        assert_eq!(holdfast.raw(&request(target, "")).await.status, without, "{target}");
        assert_eq!(
            holdfast.raw(&request(target, &bearer(&token))).await.status,
            with,
            "{target}, with a token"
        );
    }
}

/// oauth2-proxy: `attacker@evil.com@company.com` was of the domain company.com.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_40574_an_email_domain_is_what_stands_behind_the_only_at() {
    let (tenant, holdfast, _token) = served("", "").await;
    for (email, status) in [
        ("alice@company.com", 200),
        ("alice@COMPANY.com", 200),
        ("attacker@evil.com@company.com", 403),
        ("\"attacker@evil.com\"@company.com", 403),
        ("\"attacker@evil.com,\"@company.com", 403),
        ("attacker@evil.com,@company.com", 403),
        ("attacker@evil.com;@company.com", 403),
        ("attacker@evil.com (@company.com)", 403),
        ("attacker@evil.com\u{0}@company.com", 403),
        ("attacker@evil.com\n@company.com", 403),
        ("attacker@evil.com\u{ff20}company.com", 403),
        ("@company.com", 403),
        ("alice@company.com.", 403),
        ("alice@.company.com", 403),
        ("alice@company.com.evil.com", 403),
        ("alice@sub.company.com", 403),
        ("alice@evilcompany.com", 403),
        ("alice@c\u{43e}mpany.com", 403),
        ("alice@c\u{2060}ompany.com", 403),
        ("alice@company\u{3002}com", 403),
        ("alice@xn--company-.com", 403),
        ("alice%40company.com", 403),
        ("company.com", 403),
        ("", 403),
    ] {
        let token = tenant.mint().email_direct(email).build().unwrap();
        for query in ["email_domain=company.com", "email_domain=Company.com"] {
            let reply = holdfast.ask_at(&format!("/auth?{query}"), &token).await;
            assert_eq!(reply.status, status, "{email:?}: {reply:?}");
        }
    }
}

/// oauth2-proxy, Traefik and Caddy: `X_Forwarded_User` is another header for the proxy and the same one for
/// the backend. What Traefik makes of it is in `tests/traefik.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_64484_cve_2026_33433_cve_2026_54763_cve_2026_88011_aliases_of_identity_headers_do_nothing()
{
    let (_tenant, holdfast, token) = served("", "").await;
    let names = [
        "X-User-Email",
        "x-user-email",
        "X_User_Email",
        "X.User.Email",
        "X-User_Email",
        "X-Forwarded-User",
        "Remote-User",
    ];
    for name in names {
        let line = format!("{name}: bob@example.com\r\n");
        assert_no_way_around(&holdfast, &token, &line).await;
        assert_no_way_around(&holdfast, &token, &format!("{line}Connection: {name}\r\n")).await;
    }
    let (_tenant, holdfast, _token) = served(BY_RULES, RULES).await;
    for name in names {
        let reply = holdfast
            .raw(&request("/auth", &format!("{}{name}: bob@example.com\r\n", forwarded("/public"))))
            .await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("anonymous")), "{name}");
    }
}

/// Traefik: identity in a trailer. holdfast reads no body, so no trailer either.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_88004_trailers_are_not_read() {
    let (_tenant, holdfast, token) = served(BY_RULES, RULES).await;
    let trailers = forwarded("/public") + &bearer(&token);
    let ask = format!(
        "POST /auth HTTP/1.1\r\nHost: auth\r\n{}Transfer-Encoding: chunked\r\nTrailer: Authorization, X-Forwarded-Uri\r\n\r\n\
         2\r\nhi\r\n0\r\n{trailers}\r\n",
        forwarded("/secret")
    );
    let reply = holdfast.raw(ask.as_bytes()).await;
    assert_eq!((reply.status, value(&reply, "connection")), (401, Some("close")), "{reply:?}");
    assert_eq!(reply.body, "");
}

/// oauth2-proxy: the expression that skips authentication was matched against the query, too.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_7rh7_c77v_6434_a_query_makes_no_path_public() {
    let (_tenant, holdfast, token) = served(BY_RULES, RULES).await;
    for uri in [
        "/admin?x=/public",
        "/admin?/public",
        "/?/../public",
        "/admin??/public",
        "/admin?x=%2fpublic#/public",
    ] {
        assert_no_way_around(&holdfast, &token, &forwarded(uri)).await;
    }
}

/// Traefik: `X_Forwarded_Proto` reached the auth server, `X-Forwarded-Prefix` and `-Port` of a client were
/// believed; oathkeeper: `X-Forwarded-Proto` was, although no peer was trusted.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_39858_cve_2026_35051_cve_2026_54764_ghsa_vhr5_ggp3_qq85_no_other_header_decides() {
    let (_tenant, by_query, token) = served("", "").await;
    let (_tenant, by_rules, by_rules_token) = served(BY_RULES, RULES).await;
    for line in [
        "X_Forwarded_Uri: /public",
        "X.Forwarded.Uri: /public",
        "X-Forwarded_Uri: /public",
        "X_Forwarded_Proto: https",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Proto: wss",
        "X-Forwarded-Proto: file",
        "X-Forwarded-Port: 0",
        "X-Forwarded-Port: 443/public",
        "X-Forwarded-Prefix: /public",
        "X-Forwarded-Prefix: /public/..",
        "X-Forwarded-Path: /public",
        "X-Original-URI: /public",
        "X-Original-URL: https://app.example/public",
        "X-Rewrite-URL: /public",
        "X-Auth-Request-Redirect: /public",
        "X-Envoy-Original-Path: /public",
        "X-HTTP-Method-Override: OPTIONS",
        "Forwarded: for=127.0.0.1;host=app.example;proto=https",
    ] {
        let line = format!("{line}\r\n");
        assert_no_way_around(&by_query, &token, &line).await;
        assert_no_way_around(&by_rules, &by_rules_token, &(line.clone() + &forwarded("/secret"))).await;
        assert_no_way_around(&by_rules, &by_rules_token, &(forwarded("/secret") + &line)).await;
    }
}

/// Traefik and Fabio: `Connection: X-Forwarded-Host` made the proxy strip what it had set.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_62c8_mh53_4cqv_cve_2025_48865_a_stripped_header_closes() {
    let (_tenant, by_rules, token) = served(BY_RULES, RULES).await;
    for stripped in ["X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Uri"] {
        let all = forwarded("/public");
        let lines: String = all.split_inclusive("\r\n").filter(|line| !line.starts_with(stripped)).collect();
        for more in [String::new(), bearer(&token)] {
            assert_eq!(status(&by_rules, &format!("{lines}{more}")).await, 403, "{stripped}");
        }
    }
    let (_tenant, by_header, token) = served("requirements_from = \"header\"", "").await;
    assert_eq!(
        status(&by_header, &("Connection: X-Holdfast-Require\r\n".to_owned() + &bearer(&token))).await,
        500
    );
}

/// Caddy: a header that the auth server did not send, or sent empty, left the client's own.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_7r4p_vjf4_gxv4_ghsa_f59h_q822_g45g_every_200_has_every_identity_header_and_none_is_empty() {
    let headers = "[headers]\n\"X-Plan\" = { claim = \"plan\", default = \"none\" }\n\"X-Team\" = \"team\"\n";
    let auth = format!("{BY_RULES}preflight = \"allow\"\n");
    let (tenant, holdfast, _token) = served(&auth, &format!("{RULES}{headers}")).await;
    let mint = || tenant.mint().subject("auth0|alice");
    let good = mint().email_direct(EMAIL).claim("team", "a").build().unwrap();
    let full = |reply: &Reply| {
        [
            "x-user-email",
            "x-user-id",
            "x-plan",
            "x-team",
            "x-user-email-encoding",
            "x-auth-tier",
            "x-auth-source",
            "x-auth-age",
        ]
        .into_iter()
        .all(|name| value(reply, name).is_some_and(|text| !text.is_empty()))
    };
    let preflight = "X-Forwarded-Method: OPTIONS\r\nX-Forwarded-Host: app.example\r\nX-Forwarded-Uri: /\r\n\
                     Origin: https://spa.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for (what, lines) in [
        ("first sight", forwarded("/") + &bearer(&good)),
        ("from memory", forwarded("/") + &bearer(&good)),
        ("public, with a token", forwarded("/public") + &bearer(&good)),
        ("public", forwarded("/public")),
        ("public, with a token that lacks a header", {
            forwarded("/public") + &bearer(&mint().email_direct(EMAIL).build().unwrap())
        }),
        ("preflight", preflight.to_owned()),
    ] {
        let reply = holdfast.raw(&request("/auth", &lines)).await;
        assert!(reply.status == 200 && full(&reply), "{what}: {reply:?}");
    }
    for (what, token) in [
        ("no team", mint().email_direct(EMAIL).build()),
        ("an empty team", mint().email_direct(EMAIL).claim("team", "").build()),
        ("a list of teams", mint().email_direct(EMAIL).claim("team", json!(["a"])).build()),
        ("no email", mint().claim("team", "a").build()),
        ("an empty email", mint().email_direct("").claim("team", "a").build()),
    ] {
        let reply = holdfast.raw(&request("/auth", &(forwarded("/") + &bearer(&token.unwrap())))).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (403, None), "{what}: {reply:?}");
    }
}

/// authentik (and authentik#18063): a cookie that could not be read was a 200 without headers.
#[test]
fn cve_2026_25748_what_cannot_be_read_lets_nobody_in() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_tenant, holdfast, token) = runtime.block_on(served("", "[credential]\ncookie = \"session\"\n"));
    let ask = |lines: &[u8]| {
        let head = b"GET /auth HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n";
        runtime.block_on(holdfast.raw(&[&head[..], lines, b"\r\n"].concat()))
    };
    assert_eq!(ask(format!("Cookie: session={token}\r\n").as_bytes()).status, 200);
    for cookie in [
        "session",
        "session=",
        "session=;",
        "session==",
        "=session",
        "session=\"",
        "session=%",
        "session=null",
        "session=a; session=b",
        "session=a.b.c",
        "session=e30.e30.",
        "session=eyJhbGciOiJub25lIn0.e30.",
        "authentik_proxy=x",
        ";;;;",
        ",",
        "session =x",
    ] {
        assert_eq!(ask(format!("Cookie: {cookie}\r\n").as_bytes()).status, 401, "{cookie}");
    }
    let text = proptest::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| {
        bytes.into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect::<Vec<u8>>()
    });
    let name = proptest::sample::select(vec![
        &b"Cookie: session="[..],
        b"Cookie: ",
        b"Authorization: Bearer ",
        b"Authorization: ",
        b"Cookie: session=a; session=",
    ]);
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(lines in proptest::collection::vec((name, text), 1..3))| {
        let lines: Vec<u8> = lines.iter().flat_map(|(name, text)| [name, &**text, b"\r\n"].concat()).collect();
        let reply = ask(&lines);
        prop_assert!(matches!(reply.status, 400 | 401), "{} to {:?}", reply.status, String::from_utf8_lossy(&lines));
        prop_assert_eq!(value(&reply, "x-user-email"), None);
    });
}

/// authentik: a client could choose its address by `X-Forwarded-For`.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2023_36456_a_peer_is_who_connected() {
    let auth = "requirements_from = \"rules\"\npreflight = \"allow\"\ntrusted_peers = [\"10.9.8.7\", \"unix\"]\nforwarded = \"x-forwarded\"\n";
    let (_tenant, holdfast, token) = served(auth, RULES).await;
    for line in [
        "X-Forwarded-For: 10.9.8.7",
        "X-Real-IP: 10.9.8.7",
        "X-Real-Ip: unix",
        "Forwarded: for=10.9.8.7",
        "True-Client-IP: 10.9.8.7",
        "CF-Connecting-IP: 10.9.8.7",
        "X-Envoy-External-Address: 10.9.8.7",
    ] {
        let lines = format!("{}{line}\r\n", forwarded("/public"));
        assert_eq!(status(&holdfast, &lines).await, 403, "{line}");
        assert_eq!(status(&holdfast, &(lines + &bearer(&token))).await, 403, "{line}");
    }
}

/// authelia: a URL that could not be parsed was allowed.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_32637_a_url_that_cannot_be_read_is_no_public_one() {
    let auth = told_by("x-original-url");
    let rules = "[[rule]]\npath_prefix = \"/\"\npublic = true\n[[rule]]\ndeny = true\n";
    let (_tenant, holdfast, token) = served(&auth, rules).await;
    let ask = async |url: &[u8], more: &str| {
        let head = b"GET /auth HTTP/1.1\r\nHost: auth\r\nConnection: close\r\nX-Original-Method: GET\r\nX-Original-URL: ";
        holdfast.raw(&[&head[..], url, b"\r\n", more.as_bytes(), b"\r\n"].concat()).await.status
    };
    for good in [
        "https://not-one-factor.example.com/",
        "wss://not-one-factor.example.com:8443/x?y=https://evil/",
        "http://[::1]:80/x",
    ] {
        assert_eq!(ask(good.as_bytes(), "").await, 200, "{good}");
    }
    for bad in [
        &b"https://\0not-one-factor.example.com/"[..],
        b"https://not-one-factor.example.com\0/",
        b"https://not-one-factor.example.com/\x7f",
        b"https://not-one-factor.example.com/\xff",
        b"https://not-one-factor.example.com/%",
        b"https://not-one-factor.example.com/%00",
        b"https://not-one-factor.example.com/%zz",
        b"https://not-one-factor.example.com",
        b"https://not-one-factor.example.com?/",
        b"https://not-one-factor.example.com#/",
        b"https://not-one-factor.example.com\\/",
        b"https://not-one-factor.example.com:/",
        b"https://not-one-factor.example.com:port/",
        b"https://not-one-factor.example.com:999999/",
        b"https://user@not-one-factor.example.com/",
        b"https://not-one-factor.example.com@evil/",
        b"https://evil\\@not-one-factor.example.com/",
        b"https:/not-one-factor.example.com/",
        b"https:not-one-factor.example.com/",
        b"//not-one-factor.example.com/",
        b"not-one-factor.example.com/",
        b"ftp://not-one-factor.example.com/",
        b"HTTPS://not-one-factor.example.com/",
        b"https://[::1/x",
        b"https://::1/x",
        b"https://[::1%25eth0]/x",
        b"https:///x",
        b"://",
        b"https://not-one-factor.example.com/ https://not-one-factor.example.com/",
        b"https://not-one-factor.example.com/, https://not-one-factor.example.com/",
    ] {
        for more in ["", &bearer(&token)] {
            let status = ask(bad, more).await;
            assert!(matches!(status, 400 | 403), "{status} to {}", String::from_utf8_lossy(bad));
        }
    }
}

/// pomerium: a token made for another audience or purpose was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_47616_a_token_for_another_purpose_is_none() {
    let (tenant, holdfast, token) = served("", "").await;
    assert_eq!(holdfast.ask(&token).await.status, 200);
    let mint = || tenant.mint().email_direct(EMAIL);
    for (what, token) in [
        ("another audience", mint().audience("https://other.example.com").build()),
        ("no audience", mint().remove_claim("aud").build()),
        ("another issuer's name", mint().issuer("https://other.example.com/").build()),
        ("an ID token", mint().claim("nonce", "n").build()),
        ("a logout token", mint().claim("events", json!({})).build()),
        ("another type", mint().typ("logout+jwt").build()),
        ("a token for DPoP's proof", mint().typ("dpop+jwt").build()),
        ("signed by a stranger", mint().signed_by_stranger().build()),
        ("unsigned", mint().unsigned().build()),
    ] {
        assert_eq!(holdfast.ask(&token.unwrap()).await.status, 401, "{what}");
    }
}

/// caddy-security: URLs were built from `X-Forwarded-Host` and `-Proto`, and sent to.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_21494_cve_2024_21498_cve_2024_21499_nothing_that_is_forwarded_comes_back() {
    let marker = "evil-7f3a.example";
    let (_tenant, by_query, token) = served("", "").await;
    let (_tenant, by_rules, _token) = served(BY_RULES, RULES).await;
    let lines: String = [
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-For",
        "X-Original-URL",
        "X-Forwarded-Server",
        "Origin",
    ]
    .map(|name| format!("{name}: {marker}\r\n"))
    .concat();
    let told = format!("X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /{marker}\r\n{lines}");
    for holdfast in [&by_query, &by_rules] {
        for more in [String::new(), bearer(&token), bearer("x")] {
            let reply = holdfast.raw(&request("/auth", &format!("{told}{more}"))).await;
            assert!(!format!("{reply:?}").contains(marker), "{reply:?}");
            assert!(reply.header("location").is_empty() && !(300..400).contains(&reply.status), "{reply:?}");
        }
    }
}

/// authelia's handler tests: every method is denied and allowed alike, another one is none, and the scheme of
/// `Authorization` may be of any case.
#[tokio::test(flavor = "multi_thread")]
async fn authelia_all_methods_deny_and_allow_and_invalid_methods_deny() {
    let registered =
        "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT COPY LOCK MKCOL MOVE PROPFIND PROPPATCH UNLOCK";
    for (how, uri, host) in [
        ("x-forwarded", "X-Forwarded-Uri: ", "X-Forwarded-Host"),
        ("x-original", "X-Original-URI: ", "X-Original-Host"),
    ] {
        let (_tenant, holdfast, token) = served(&told_by(how), RULES).await;
        let name = if how == "x-forwarded" { "X-Forwarded-Method" } else { "X-Original-Method" };
        for method in registered.split(' ') {
            let lines = |method: &str, path: &str| {
                format!("{name}: {method}\r\n{host}: app.example\r\n{uri}{path}\r\n")
            };
            assert_no_way_around(&holdfast, &token, &lines(method, "/subpath")).await;
            assert_eq!(status(&holdfast, &lines(method, "/public")).await, 200, "{how} {method}");
            for bad in
                [format!("{method}z"), method.to_lowercase(), format!("{method} "), format!("{method}\t/x")]
            {
                let expected = if bad.trim() == method { 200 } else { 403 };
                assert_eq!(status(&holdfast, &lines(&bad, "/public")).await, expected, "{how} {bad:?}");
            }
        }
        let lines = forwarded("/x")
            .replace("X-Forwarded-Method", name)
            .replace("X-Forwarded-Host", host)
            .replace("X-Forwarded-Uri: ", uri);
        for scheme in ["bearer", "BEARER", "bEaReR"] {
            let more = format!("Authorization: {scheme} {token}\r\n");
            assert_eq!(status(&holdfast, &format!("{lines}{more}")).await, 200, "{scheme}");
        }
        for line in [
            "Authorization:",
            "Authorization: Bearer",
            "Authorization: Basic YTpi",
            "Authorization: Digest x",
        ] {
            assert_eq!(status(&holdfast, &format!("{lines}{line}\r\n")).await, 401, "{line}");
        }
    }
}

/// authelia#2331, #3506, homarr#5647: 4 KiB of headers were too many. nginx turns a 431 into a 500.
#[tokio::test(flavor = "multi_thread")]
async fn authelia_3506_large_requests_are_taken_and_larger_ones_refused_in_good_order() {
    let (_tenant, holdfast, token) = served("", "").await;
    let of = |count: usize, length: usize| {
        let text = "v".repeat(length);
        (0..count).map(|number| format!("X-Large-{number}: {text}\r\n")).collect::<String>()
    };
    for (count, length) in [(1, 64 * 1024), (8, 8 * 1024), (240, 250)] {
        assert_no_way_around(&holdfast, &token, &of(count, length)).await;
    }
    assert_no_way_around(&holdfast, &token, &format!("Cookie: {}\r\n", "c=d; ".repeat(4000))).await;
    // Traefik passes on 200 KB.
    for (count, length) in [(1, 200_000), (50, 4_000), (400, 1)] {
        let reply = holdfast.raw(&request("/auth", &(of(count, length) + &bearer(&token)))).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (431, None), "{count} of {length}");
    }
    assert_eq!(holdfast.ask(&token).await.status, 200);
    let (_tenant, holdfast, token) = served("max_head = \"256KiB\"\n", "").await;
    assert_no_way_around(&holdfast, &token, &of(1, 200_000)).await;
}

/// caddy#5430, traefik#3039: a WebSocket handshake is a question like any other; HAProxy's Lua client waits
/// for the end of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn caddy_5430_a_handshake_is_answered_and_the_connection_closed() {
    let (_tenant, holdfast, token) = served("", "").await;
    for connection in ["Upgrade", "keep-alive, Upgrade", "upgrade, Authorization"] {
        for more in ["", &bearer(&token)] {
            let ask = format!(
                "GET /auth HTTP/1.1\r\nHost: auth\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
            );
            let without_upgrade = ask.replace("Upgrade: websocket\r\n", "");
            let only_upgrade = ask.replace(&format!("Connection: {connection}\r\n"), "");
            for ask in [without_upgrade, only_upgrade] {
                let reply = holdfast.raw(ask.as_bytes()).await;
                assert_eq!(value(&reply, "connection"), Some("close"), "{ask}: {reply:?}");
            }
            // Reads to the end, which only holdfast makes.
            let reply = holdfast.raw(ask.as_bytes()).await;
            assert_eq!(reply.status, if more.is_empty() { 401 } else { 200 }, "{reply:?}");
            assert_eq!(value(&reply, "connection"), Some("close"), "{reply:?}");
            assert!(reply.header("upgrade").is_empty() && reply.header("sec-websocket-accept").is_empty());
        }
    }
}
