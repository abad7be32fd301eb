//! Tokens that are bound to their sender, as `examples/` says below the marks `[with sender]`.

use holdfast_devtenant::TokenBuilder;
use serde_json::json;

use super::identity::assert_alice;
use crate::certificates::{Authority, Identity};
use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;
use crate::support::Reply;
use crate::support::dpop::{Proof, Prover, sha256};

/// What the clients of these tests ask for.
const URL: &str = "http://example.com/page";

struct Scene {
    stack: Stack,
    prover: Prover,
}

impl Scene {
    async fn start(proxy: Proxy) -> Self {
        Self { stack: Stack::start_for(proxy, &["sender"]).await, prover: Prover::new() }
    }

    fn mint(&self) -> TokenBuilder {
        self.stack.tenant.mint().email_direct("alice@example.com")
    }

    fn bound(&self) -> String {
        self.mint().claim("cnf", self.prover.cnf()).build().unwrap()
    }

    fn proof(&self, token: &str) -> Proof<'_> {
        self.prover.proof(token, "GET", URL, self.stack.tenant.time())
    }

    async fn get(&self, lines: &str) -> Reply {
        self.stack.client.request("GET", "/page?a=1", lines).await
    }
}

fn dpop(token: &str, proof: &str) -> String {
    format!("Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
}

pub async fn a_bound_token_passes_with_a_proof_for_this_very_request(proxy: Proxy) {
    let scene = Scene::start(proxy).await;
    let token = scene.bound();
    assert_alice(&scene.get(&bearer(&scene.stack.alice())).await, "a token that is not bound");
    for round in ["first", "again"] {
        assert_alice(&scene.get(&dpop(&token, &scene.proof(&token).sign())).await, round);
    }
    for (what, htu) in [
        ("a query", format!("{URL}?other=2#f")),
        ("another case", "HTTP://EXAMPLE.com/page".to_owned()),
        ("the default port", "http://example.com:80/page".to_owned()),
        ("percent-encoding", "http://example.com/p%61ge".to_owned()),
    ] {
        assert_alice(&scene.get(&dpop(&token, &scene.proof(&token).claim("htu", htu).sign())).await, what);
    }
    let post = scene.proof(&token).claim("htm", "POST").sign();
    let reply = scene
        .stack
        .client
        .request("POST", "/page", &format!("{}Content-Length: 0\r\n", dpop(&token, &post)))
        .await;
    assert_alice(&reply, "POST");
}

pub async fn no_other_proof_passes_and_none_twice(proxy: Proxy) {
    let scene = Scene::start(proxy).await;
    let (token, other) = (scene.bound(), scene.bound());
    let (good, now) = (|| scene.proof(&token), scene.stack.tenant.time());
    let used = good().sign();
    assert_alice(&scene.get(&dpop(&token, &used)).await, "the first time");
    let unsigned = good().header("alg", "none").sign();
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let hmac = josekit::jws::HS256.signer_from_bytes([7; 64]).unwrap();
    let stranger = Prover::new();
    let cases = [
        ("as a bearer token", bearer(&token)),
        ("as a bearer token with a proof", format!("{}DPoP: {}\r\n", bearer(&token), good().sign())),
        ("without a proof", format!("Authorization: DPoP {token}\r\n")),
        ("used twice", dpop(&token, &used)),
        ("two in one line", dpop(&token, &format!("{}, {}", good().sign(), good().sign()))),
        ("another method", dpop(&token, &good().claim("htm", "POST").sign())),
        ("another path", dpop(&token, &good().claim("htu", "http://example.com/other").sign())),
        ("another host", dpop(&token, &good().claim("htu", "http://evil.example/page").sign())),
        ("another scheme", dpop(&token, &good().claim("htu", "https://example.com/page").sign())),
        ("another port", dpop(&token, &good().claim("htu", "http://example.com:8080/page").sign())),
        ("a trailing dot", dpop(&token, &good().claim("htu", "http://example.com./page").sign())),
        ("another token's proof", dpop(&token, &scene.proof(&other).sign())),
        ("another key", dpop(&token, &stranger.proof(&token, "GET", URL, now).sign())),
        ("a private key", dpop(&token, &good().header("jwk", scene.prover.private()).sign())),
        ("alg none", dpop(&token, &unsigned)),
        ("alg HS256", dpop(&token, &good().header("alg", "HS256").sign_with(&hmac))),
        ("old", dpop(&token, &good().claim("iat", now - 600).sign())),
        ("from the future", dpop(&token, &good().claim("iat", now + 600).sign())),
    ];
    for (what, lines) in cases {
        let reply = scene.stack.assert_refused(&[401], &request("GET", "/page", &lines)).await;
        let challenges = reply.header("www-authenticate");
        assert!(challenges.iter().any(|challenge| challenge.starts_with("DPoP ")), "{what}: {reply:?}");
    }
    // A proxy that tells only the first of two lines has made one of them.
    if proxy.differs.tells_each_origin {
        let two = format!("{}DPoP: {}\r\n", dpop(&token, &good().sign()), good().sign());
        scene.stack.assert_refused(&[401], &request("GET", "/page", &two)).await;
    }
}

/// The client signs for one request, makes another, and writes the first into every header that a proxy might
/// pass on.
pub async fn no_header_of_a_client_changes_which_request_a_proof_is_for(proxy: Proxy) {
    let scene = Scene::start(proxy).await;
    let token = scene.bound();
    for forged in [
        "X-Forwarded-Uri: /other\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n",
        "X-Original-URI: /other\r\nX-Original-Method: POST\r\nX-Original-Host: evil.example\r\nX-Original-Proto: https\r\nX-Original-Port: 443\r\n",
        "X-Original-URL: https://evil.example/other\r\nX_Forwarded_Proto: https\r\nX.Forwarded.Host: evil.example\r\n",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\nForwarded: proto=https;host=evil.example\r\n",
    ] {
        for (claim, value) in [
            ("htm", "POST"),
            ("htu", "http://example.com/other"),
            ("htu", "https://example.com/page"),
            ("htu", "http://evil.example/page"),
            ("htu", "https://evil.example/other"),
        ] {
            let lines = format!("{forged}{}", dpop(&token, &scene.proof(&token).claim(claim, value).sign()));
            scene.stack.assert_refused(&[401, 403], &request("GET", "/page", &lines)).await;
        }
        let lines = format!("{forged}{}", dpop(&token, &scene.proof(&token).sign()));
        assert_alice(&scene.get(&lines).await, forged);
    }
}

/// A token that is bound to this certificate.
fn bound_to(scene: &Scene, identity: &Identity) -> String {
    let pem = std::fs::read(&identity.certificate).unwrap();
    let der = openssl::x509::X509::from_pem(&pem).unwrap().to_der().unwrap();
    scene.mint().claim("cnf", json!({ "x5t#S256": sha256(&der) })).build().unwrap()
}

/// The headers in which proxies tell a certificate, in the forms that they use.
fn as_headers(identity: &Identity) -> Vec<String> {
    let pem = std::fs::read_to_string(&identity.certificate).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let escaped = pem
        .replace('\n', "%0A")
        .replace(' ', "%20")
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let names = [
        "X-Client-Cert",
        "X-Forwarded-Tls-Client-Cert",
        "X-Forwarded-Client-Cert",
        "Client-Cert",
        "X_Client_Cert",
    ];
    let values = [base64.clone(), escaped, format!(":{base64}:"), format!("Hash={}", hash_of(&base64))];
    names.iter().flat_map(|name| values.iter().map(move |value| format!("{name}: {value}\r\n"))).collect()
}

fn hash_of(base64: &str) -> String {
    let der = openssl::base64::decode_block(base64).unwrap();
    openssl::sha::sha256(&der).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn a_certificate_that_a_client_only_writes_is_none(proxy: Proxy) {
    let scene = Scene::start(proxy).await;
    let files = tempfile::tempdir().unwrap();
    let identity = Authority::new("clients").client(files.path(), "client");
    let token = bound_to(&scene, &identity);
    scene.stack.assert_refused(&[401], &request("GET", "/page", &bearer(&token))).await;
    for line in as_headers(&identity) {
        for twice in [line.clone(), format!("{line}{line}")] {
            let lines = format!("{twice}{}", bearer(&token));
            scene.stack.assert_refused(&[400, 401], &request("GET", "/page", &lines)).await;
        }
    }
}

/// Over TLS, with a certificate of the client or without.
pub async fn a_certificate_counts_that_the_client_has_shown_in_its_handshake(proxy: Proxy) {
    let (stack, authority) = Stack::start_with_tls(proxy, &["sender"]).await;
    let scene = Scene { stack, prover: Prover::new() };
    let files = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| authority.client(files.path(), name));
    let (token, others_token) = (bound_to(&scene, &own), bound_to(&scene, &other));
    let ask = async |shown: Option<&Identity>, lines: &[&str]| {
        scene.stack.client.https("/page", shown, lines).await
    };
    for scheme in ["Bearer", "DPoP"] {
        let line = format!("Authorization: {scheme} {token}");
        assert_alice(&ask(Some(&own), &[&line]).await, scheme);
        for (what, shown) in [("no certificate", None), ("another one", Some(&other))] {
            let (asks, reply) = scene.stack.asks(ask(shown, &[&line])).await;
            assert_eq!((asks, reply.status), (0, 401), "{what}: {reply:?}");
        }
    }
    // A client shows its own certificate, or none, and writes that of somebody else.
    let line = format!("Authorization: Bearer {others_token}");
    for forged in as_headers(&other) {
        for shown in [None, Some(&own)] {
            let (asks, reply) = scene.stack.asks(ask(shown, &[&line, forged.trim_end()])).await;
            assert_eq!(asks, 0, "{forged}: {reply:?}");
            assert!(matches!(reply.status, 400 | 401), "{forged}: {reply:?}");
        }
        assert_alice(&ask(Some(&other), &[&line, forged.trim_end()]).await, &forged);
    }
    // A proof for https, with which the same request without TLS is another one.
    let token = scene.bound();
    for (url, status) in [("https://example.com/page", 200), (URL, 401)] {
        let proof = scene.proof(&token).claim("htu", url).sign();
        let lines = [format!("Authorization: DPoP {token}"), format!("DPoP: {proof}")];
        let reply = ask(None, &[&lines[0], &lines[1]]).await;
        assert_eq!(reply.status, status, "{url}: {reply:?}");
    }
}
