//! The examples that need a cluster are not run here. Their manifests are held against the published schemas of their kinds,
//! and what the proxies make of them is replayed: the requests that ingress-nginx and a gateway with the filter
//! `ExternalAuth` send to holdfast.
//!
//! The schemas come from npm; `make setup` installs them beside `HOLDFAST_TEST_NODE_MODULES`, or `tests/manifests/` has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast::clock::Clock;
use support::Reply;
use support::service::{Running, issuer, tenant, value};

const MANIFESTS: [&str; 5] = [
    "traefik/kubernetes.yaml",
    "ingress-nginx/configmap.yaml",
    "ingress-nginx/ingress.yaml",
    "gateway-api/externalauth.yaml",
    "gateway-api/traefik.yaml",
];

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn validate(files: impl IntoIterator<Item = PathBuf>) -> Output {
    let modules = match std::env::var("HOLDFAST_TEST_NODE_MODULES") {
        Ok(jose) => Path::new(&jose).parent().unwrap().join("manifests"),
        Err(_) => in_repository("tests/manifests"),
    };
    assert!(modules.join("node_modules").exists(), "no schemas in {}; run `make setup`", modules.display());
    let mut node = Command::new("node");
    node.arg(in_repository("tests/manifests/validate.mjs")).arg(modules).args(files).output().unwrap()
}

#[test]
fn every_manifest_is_valid_by_the_published_schema_of_its_kind() {
    let output = validate(MANIFESTS.map(|name| in_repository("examples").join(name)));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let resources = String::from_utf8_lossy(&output.stdout).lines().count();
    let separators = |name: &&str| {
        let text = std::fs::read_to_string(in_repository("examples").join(name)).unwrap();
        1 + text.lines().filter(|line| *line == "---").count()
    };
    assert_eq!(resources, MANIFESTS.iter().map(separators).sum::<usize>());
}

#[test]
fn a_misspelt_or_mistyped_field_is_not_valid() {
    let directory = tempfile::tempdir().unwrap();
    for (name, from, to) in [
        ("traefik/kubernetes.yaml", "authResponseHeaders:", "authResponseHeader:"),
        ("traefik/kubernetes.yaml", "maxResponseBodySize: 4096", "maxResponseBodySize: big"),
        ("ingress-nginx/ingress.yaml", "pathType: Prefix", "pathtype: Prefix"),
        ("gateway-api/externalauth.yaml", "allowedResponseHeaders:", "allowedResponseHeader:"),
        ("gateway-api/externalauth.yaml", "protocol: HTTP", "protocol: HTTPS"),
        ("gateway-api/traefik.yaml", "type: ExtensionRef", "type: ExternalAuth"),
    ] {
        let text = std::fs::read_to_string(in_repository("examples").join(name)).unwrap();
        assert!(text.contains(from), "{name} does not say {from}");
        let file = directory.path().join("manifest.yaml");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let output = validate([file]);
        assert!(!output.status.success(), "{to}: {output:?}");
    }
}

/// A proxy that is told fewer names passes the others on as the client sent them.
#[test]
fn every_example_names_every_header_of_the_identity() {
    let examples = ["traefik/dynamic.yml", "traefik/docker-compose.yml", "traefik/kubernetes.yaml"];
    let examples = examples.into_iter().chain([
        "nginx/snippets/headers.conf",
        "caddy/Caddyfile",
        "envoy/envoy.yaml",
        "haproxy/holdfast.lua",
        "ingress-nginx/ingress.yaml",
        "gateway-api/externalauth.yaml",
    ]);
    for example in examples {
        let text = std::fs::read_to_string(in_repository("examples").join(example)).unwrap().to_lowercase();
        for name in [
            "x-user-email",
            "x-user-email-encoding",
            "x-user-id",
            "x-auth-tier",
            "x-auth-age",
            "x-auth-source",
        ] {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
            assert!(text.split(is_end).any(|word| word == name), "{example} does not name {name}");
        }
    }
}

fn assert_empty(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    // ingress-nginx keeps its connection only if there is no body.
    assert!(reply.body.is_empty() && value(reply, "content-length") == Some("0"), "{what}: {reply:?}");
}

/// What ingress-nginx sends, by its template: a GET for every method, HTTP/1.0 unless auth-keepalive is set, and all that the
/// client sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_questions_of_ingress_nginx_are_answered() {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let ask = |target: &str, version: &str, method: &str, client: &str| {
        format!(
            "GET {target} {version}\r\nHost: holdfast.holdfast.svc.cluster.local\r\n\
             X-Original-URL: https://app.example.com/page?scope=none&x=1\r\nX-Original-Method: {method}\r\n\
             X-Sent-From: nginx-ingress-controller\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n\
             X-Auth-Request-Redirect: /page?scope=none&x=1\r\nX-Request-ID: 0123456789abcdef\r\n\
             Connection: close\r\n{client}\r\n"
        )
    };
    let bearer = format!("Authorization: Bearer {token}\r\nUser-Agent: curl\r\nCookie: a=b\r\n");
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        for method in ["GET", "POST", "OPTIONS", "HEAD"] {
            let reply = running.raw(ask("/auth", version, method, &bearer).as_bytes()).await;
            assert_empty(&reply, 200, version);
            assert_eq!(value(&reply, "x-user-email"), Some("alice@example.com"));
            // A client's own identity is none, and a kubelet's user agent neither.
            let forged = "X-User-Email: evil@example.com\r\nUser-Agent: kube-probe/1.29\r\n";
            let reply = running.raw(ask("/auth", version, method, forged).as_bytes()).await;
            assert_empty(&reply, 401, version);
            assert!(value(&reply, "www-authenticate").unwrap().starts_with("Bearer"));
            let reply = running.raw(ask("/auth?scope=admin", version, method, &bearer).as_bytes()).await;
            assert_empty(&reply, 403, version);
        }
    }
}

/// What a gateway with the filter `ExternalAuth` sends, as GEP-1494 has it: the client's method, host, path and query behind
/// `http.path`, with Authorization. holdfast's side is the one of the example.
#[tokio::test(flavor = "multi_thread")]
async fn the_questions_of_a_gateway_with_external_auth_are_answered() {
    let tenant = tenant().await;
    let example = std::fs::read_to_string(in_repository("examples/gateway-api/holdfast.toml")).unwrap();
    let (auth, rest) = example.split_once("[admin]").unwrap();
    assert!(auth.contains("10.0.0.0/8") && auth.contains("0.0.0.0:4180") && rest.contains("[[issuer]]"));
    let auth = auth
        .replace("[auth]\n", "")
        .replace("0.0.0.0:4180", "127.0.0.1:0")
        .replace("10.0.0.0/8", "127.0.0.1");
    let running = Running::start_with_auth(&auth, &issuer(&tenant, ""), Clock::system()).await;
    let plain = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let admin = tenant.mint().email_direct("alice@example.com").scope("admin").build().unwrap();
    let ask = |method: &str, target: &str, token: &str| {
        let credential =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        format!(
            "{method} /auth{target} HTTP/1.1\r\nhost: app.example.com\r\ncontent-length: 0\r\nconnection: close\r\n{credential}\r\n"
        )
    };
    for (target, token, status) in [
        ("/page", plain.as_str(), 200),
        ("/page?scope=admin&nonsense=1", &plain, 200),
        ("/", &plain, 200),
        ("/page", "", 401),
        ("/admin/x", &plain, 403),
        ("/admin?scope=none", &plain, 403),
        ("/admin/x", &admin, 200),
        ("/x/..%2fadmin", &plain, 403),
        ("/x/../admin", &plain, 403),
        ("//admin", &plain, 403),
    ] {
        for method in ["GET", "POST", "PURGE"] {
            let reply = running.raw(ask(method, target, token).as_bytes()).await;
            assert_empty(&reply, status, &format!("{method} {target}"));
            let email = value(&reply, "x-user-email");
            assert_eq!(email, (status == 200).then_some("alice@example.com"), "{target}");
        }
    }
}
