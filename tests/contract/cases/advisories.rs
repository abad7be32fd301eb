//! What went wrong in other auth servers and proxies, by the number of the advisory. Those that are about
//! forged identity headers are in `identity`, those about paths in `paths`.

use super::identity::assert_alice;
use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;

/// oauth2-proxy took the path for its skip rules from the client's header; Traefik, oathkeeper and others
/// believed in prefixes, ports and protocols: CVE-2026-40575, CVE-2026-35051, CVE-2026-54764, CVE-2026-39858,
/// GHSA-vhr5-ggp3-qq85, CVE-2023-36456.
pub async fn cve_2026_40575_forwarded_headers_open_nothing(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let plain = bearer(&stack.alice());
    for forged in [
        "X-Forwarded-Uri: /public/x\r\nX-Forwarded-Method: OPTIONS\r\n",
        "X-Original-URI: /public/x\r\nX-Original-URL: http://example.com/public/x\r\nX-Original-Method: OPTIONS\r\n",
        "X_Forwarded_Uri: /public/x\r\nX.Forwarded.Uri: /public/x\r\n",
        "X-Forwarded-Prefix: /public\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: https\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Real-Ip: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
        "X-Forwarded-Host: localhost\r\nX-Auth-Request-Redirect: /public/x\r\n",
        "X-Rewrite-Url: /public/x\r\nX-Envoy-Original-Path: /public/x\r\nX-HTTP-Method-Override: OPTIONS\r\n",
        "Access-Control-Request-Method: GET\r\nOrigin: https://example.com\r\n",
    ] {
        stack.assert_refused(&[401], &request("GET", "/page", forged)).await;
        stack.assert_refused(&[401], &request("OPTIONS", "/admin/x", forged)).await;
        stack.assert_refused(&[403], &request("GET", "/admin/x", &format!("{forged}{plain}"))).await;
        assert_alice(&stack.client.request("GET", "/page", &format!("{forged}{plain}")).await, forged);
    }
}

pub async fn cve_2026_34457_a_health_checks_user_agent_opens_nothing(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    for agent in ["kube-probe/1.29", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Envoy/HC"] {
        for path in
            ["/page", "/healthz", "/ping", "/ready", "/readyz", "/metrics", "/robots.txt", "/favicon.ico"]
        {
            let health = format!("User-Agent: {agent}\r\nX-Envoy-Healthchecked-Cluster: x\r\n");
            stack.assert_refused(&[401], &request("GET", path, &health)).await;
        }
    }
}

/// authentik answered 200 without an identity when a credential could not be read: CVE-2026-25748.
pub async fn cve_2026_25748_broken_credentials_open_nothing(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let good = stack.alice();
    for headers in [
        "Authorization:\r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer ,\r\n".to_owned(),
        "Authorization: Bearer %00\r\n".to_owned(),
        "Authorization: Bearer \u{fc}\u{2603}\r\n".to_owned(),
        "Authorization: Bearer ..\r\n".to_owned(),
        "Authorization: Bearer ....\r\n".to_owned(),
        format!("Authorization: Bearer {good},{good}\r\n"),
        format!("Authorization: Bearer {good} {good}\r\n"),
        format!("Authorization: Bearer {good}.\r\n"),
        format!("Authorization: Bearer {}\r\n", "a".repeat(17_000)),
        format!("Authorization: {good}\r\n"),
        format!("Proxy-Authorization: Bearer {good}\r\n"),
        format!("X-Authorization: Bearer {good}\r\nAuthorization_: Bearer {good}\r\n"),
        "Cookie: session=%%%; =; ;;;\r\nCookie: \u{fc}\r\n".to_owned(),
        format!("Cookie: authorization=Bearer {good}; access_token={good}\r\n"),
    ] {
        stack.assert_refused(&[400, 401, 431], &request("GET", "/page", &headers)).await;
    }
}

/// Traefik let a client name headers in `Connection` that it then took away before it asked.
pub async fn ghsa_62c8_mh53_4cqv_a_connection_header_takes_nothing_away(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let plain = bearer(&stack.alice());
    for named in
        ["X-Forwarded-Host, X-Forwarded-Uri, X-Forwarded-Method", "Authorization", "X-User-Email, X-User-Id"]
    {
        let connection = format!("Connection: {named}\r\n");
        // Without the token it is a 401; with it, it is alice or nobody.
        let reply = stack.client.request("GET", "/page", &format!("{connection}{plain}")).await;
        if reply.status == 200 {
            assert_alice(&reply, named);
        } else {
            assert!(matches!(reply.status, 400 | 401), "{named}: {reply:?}");
        }
        stack
            .assert_refused(&[400, 401, 403], &request("GET", "/admin/x", &format!("{connection}{plain}")))
            .await;
    }
}
