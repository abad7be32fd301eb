//! The examples that need a cluster are not run here. Their manifests are checked against the published
//! schemas of their kinds, and the requests that ingress-nginx and a gateway with the filter `ExternalAuth`
//! send to holdfast are replayed.
//!
//! A schema knows neither the annotations and settings of ingress-nginx nor the right header names, so these
//! are checked separately, and the replayed requests are read from the manifests. Traefik's are in
//! `tests/traefik.rs`.
//!
//! The schemas come from npm; `make setup` installs them beside `HOLDFAST_TEST_NODE_MODULES`, or
//! `tests/manifests/` has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "manifests/external_auth.rs"]
mod external_auth;
#[path = "manifests/ingress_nginx.rs"]
mod ingress_nginx;
#[path = "contract/marks.rs"]
mod marks;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast::config::{Settings, Source};
use ingress_nginx::Subrequest;
use serde_json::Value;
use support::service::{Running, issuer, tenant, value};
use support::yaml::{documents, example, example_with, in_repository, modules, text};
use support::{IDENTITY, Reply};

/// Whether these are the names of all headers of an identity. A proxy with fewer names passes the others on
/// as the client sent them.
fn check_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<(), String> {
    let mut names: Vec<_> = names.into_iter().map(str::to_lowercase).collect();
    names.sort();
    let mut all = IDENTITY;
    all.sort_unstable();
    if names == all { Ok(()) } else { Err(format!("{names:?}")) }
}

const DEPLOYMENT: &str = "../deploy/kubernetes/holdfast.yaml";

const MANIFESTS: [&str; 8] = [
    DEPLOYMENT,
    "../deploy/kubernetes/network-policy.yaml",
    "../deploy/kubernetes/disruption-budget.yaml",
    "traefik/kubernetes.yaml",
    "ingress-nginx/configmap.yaml",
    "ingress-nginx/ingress.yaml",
    "gateway-api/externalauth.yaml",
    "gateway-api/traefik.yaml",
];

fn validate(files: impl IntoIterator<Item = PathBuf>) -> Output {
    let mut node = Command::new("node");
    node.arg(in_repository("tests/manifests/validate.mjs")).arg(modules()).args(files).output().unwrap()
}

#[test]
fn every_manifest_is_valid_by_the_published_schema_of_its_kind() {
    let output = validate(MANIFESTS.map(|name| in_repository("examples").join(name)));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let resources = String::from_utf8_lossy(&output.stdout).lines().count();
    let separators = |name: &&str| 1 + example(name).lines().filter(|line| *line == "---").count();
    assert_eq!(resources, MANIFESTS.iter().map(separators).sum::<usize>());
}

/// With the lines that the marks `[with sender]` are for, taken in as their reader does.
#[test]
fn the_manifests_for_bound_tokens_are_valid_too() {
    let directory = tempfile::tempdir().unwrap();
    let with_sender = |name: &str| marks::with(&["sender"], &example(name));
    for (name, lines) in [
        ("traefik/kubernetes.yaml", vec!["- DPoP", "- X-Forwarded-Tls-Client-Cert"]),
        ("ingress-nginx/ingress.yaml", vec!["auth-tls-verify-client: optional_no_ca"]),
        ("gateway-api/externalauth.yaml", vec!["allowedHeaders: [DPoP, X-Forwarded-Proto]"]),
    ] {
        let manifest = with_sender(name);
        for line in lines {
            assert!(manifest.lines().any(|own| !own.contains('#') && own.contains(line)), "{name}: {line}");
        }
        let file = directory.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        let output = validate([file]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    ingress_nginx::ingresses(&with_sender("ingress-nginx/ingress.yaml")).unwrap();
    external_auth::path(&with_sender("gateway-api/externalauth.yaml"), ":4180").unwrap();
}

#[test]
fn a_misspelt_or_mistyped_field_is_not_valid() {
    let directory = tempfile::tempdir().unwrap();
    for (name, from, to) in [
        (DEPLOYMENT, "readinessProbe:", "readynessProbe:"),
        ("traefik/kubernetes.yaml", "authResponseHeaders:", "authResponseHeader:"),
        ("traefik/kubernetes.yaml", "maxResponseBodySize: 4096", "maxResponseBodySize: big"),
        ("ingress-nginx/ingress.yaml", "pathType: Prefix", "pathtype: Prefix"),
        ("gateway-api/externalauth.yaml", "allowedResponseHeaders:", "allowedResponseHeader:"),
        ("gateway-api/externalauth.yaml", "protocol: HTTP", "protocol: HTTPS"),
        ("gateway-api/traefik.yaml", "type: ExtensionRef", "type: ExternalAuth"),
    ] {
        let file = directory.path().join("manifest.yaml");
        std::fs::write(&file, example_with(name, from, to)).unwrap();
        let output = validate([file]);
        assert!(!output.status.success(), "{to}: {output:?}");
    }
}

/// What stands beside the Deployment is about its pods and the names of its ports, and kustomize applies all of it.
#[test]
fn the_policies_are_about_the_pods_of_the_deployment_and_kustomize_knows_every_file() {
    let one = |name: &str, number: usize| {
        documents(&example(&format!("../deploy/kubernetes/{name}"))).remove(number)
    };
    let (policy, budget) = (one("network-policy.yaml", 0), one("disruption-budget.yaml", 0));
    let deployment = one("holdfast.yaml", 1);
    let labels = deployment.pointer("/spec/template/metadata/labels").unwrap();
    for selected in [
        policy.pointer("/spec/podSelector/matchLabels"),
        budget.pointer("/spec/selector/matchLabels"),
        deployment.pointer("/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels"),
    ] {
        assert_eq!(selected, Some(labels));
    }
    let directory = std::fs::read_dir(in_repository("deploy/kubernetes")).unwrap();
    let mut files: Vec<String> =
        directory.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|file| file != "kustomization.yaml");
    files.sort();
    let kustomization = one("kustomization.yaml", 0);
    let mut applied: Vec<&str> =
        kustomization["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    applied.sort_unstable();
    assert_eq!(applied, files);
    let named = |list: &Value, pointer: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| text(item, pointer).to_owned()).collect()
    };
    let container = deployment.pointer("/spec/template/spec/containers/0").unwrap();
    assert_eq!(named(&policy["spec"]["ingress"], "/ports/0/port"), named(&container["ports"], "/name"));
    let security = &container["securityContext"];
    assert!(security["runAsNonRoot"] == true && security["runAsUser"].is_u64(), "{security}");
}

/// Its configuration is good, and the pod is given the time that holdfast takes to leave.
#[test]
fn the_deployment_leaves_holdfast_its_time_and_its_configuration_is_good() {
    let text = example(DEPLOYMENT);
    let config = text.split("holdfast.toml: |\n").nth(1).unwrap().split("---").next().unwrap();
    let config: String = config.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
    let settings =
        Settings::read(&Source::text("holdfast.toml", &config)).unwrap_or_else(|error| panic!("{error}"));
    let grace = text.split("terminationGracePeriodSeconds: ").nth(1).unwrap().lines().next().unwrap();
    let takes = settings.auth.lame_duck + settings.auth.drain_timeout;
    assert!(Duration::from_secs(grace.parse().unwrap()) > takes, "{takes:?}");
    assert!(!settings.auth.lame_duck.is_zero());
}

/// What the contract proves of these, in one place; the others are read in their own ways.
#[test]
fn every_file_for_a_proxy_names_every_header_of_the_identity() {
    for name in ["nginx/snippets/headers.conf", "caddy/Caddyfile", "envoy/envoy.yaml", "haproxy/holdfast.lua"]
    {
        let text = example(name).to_lowercase();
        for header in IDENTITY {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
            assert!(text.split(is_end).any(|word| word == header), "{name} does not name {header}");
        }
    }
}

/// The number of times that each file of a directory names something, in any case and with any separator.
fn named(directory: &Path, name: &str) -> BTreeMap<String, usize> {
    let mut grep = Command::new("grep");
    grep.args(["-rioE", "--exclude=README.md", name, "."]).current_dir(directory);
    let listed = String::from_utf8(grep.output().unwrap().stdout).unwrap();
    let mut found = BTreeMap::new();
    for (file, _) in listed.lines().filter_map(|line| line.split_once(':')) {
        *found.entry(file.to_owned()).or_default() += 1;
    }
    found
}

#[test]
fn one_command_adds_a_header_to_every_list_of_every_example() {
    let copy = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("cp").args(["-r", "examples", "README.md"]).arg(copy.path()));
    run(Command::new("scripts/add-header.sh").arg("X-Auth-Trial").arg(copy.path()));
    let (added, last) = (named(copy.path(), "x.auth.trial"), named(copy.path(), "x.auth.source"));
    assert_eq!(added, last);
    assert!(added.len() >= 12, "{added:?}");
    for (file, line) in [
        ("nginx/snippets/headers.conf", "proxy_set_header X-Auth-Trial $holdfast_trial;\n"),
        ("nginx/snippets/answer.conf", "auth_request_set $holdfast_trial $upstream_http_x_auth_trial;\n"),
        ("caddy/Caddyfile", " X-Auth-Age X-Auth-Source X-Auth-Trial\n"),
        ("haproxy/holdfast.lua", "\"x-auth-source\", \"x-auth-trial\",\n"),
        ("envoy/envoy.yaml", "- { exact: x-auth-trial }\n"),
        ("traefik/dynamic.yml", "          X-Auth-Trial: \"\"\n"),
        ("../README.md", "          - X-Auth-Trial\n"),
    ] {
        let text = fs::read_to_string(copy.path().join("examples").join(file)).unwrap();
        assert!(text.contains(line), "{file} has no line with {line}");
    }
}

fn assert_empty(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    // ingress-nginx keeps its connection only if there is no body.
    assert!(reply.body.is_empty() && value(reply, "content-length") == Some("0"), "{what}: {reply:?}");
}

/// Asks as ingress-nginx does, by its template, about what a manifest protects: a GET for every method,
/// HTTP/1.0 unless auth-keepalive is set, and all that the client sent. The example's `/admin` is for the
/// scope `admin`.
async fn replay(asked: &[Subrequest]) -> Result<(), String> {
    let tenant = tenant().await;
    let running = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let mint = || tenant.mint().email_direct("alice@example.com");
    let bearer =
        |token: String| format!("Authorization: Bearer {token}\r\nUser-Agent: curl\r\nCookie: a=b\r\n");
    let plain = bearer(mint().build().unwrap());
    let admin = bearer(mint().scope("admin").build().unwrap());
    // A client's own identity is none, and a kubelet's user agent neither.
    let forged = "X-User-Email: evil@example.com\r\nUser-Agent: kube-probe/1.29\r\n";
    for Subrequest { path, target } in asked {
        let plainly = if path == "/admin" { 403 } else { 200 };
        for (version, method) in
            ["HTTP/1.0", "HTTP/1.1"].iter().flat_map(|v| ["GET", "POST", "OPTIONS", "HEAD"].map(|m| (*v, m)))
        {
            for (client, status) in [(forged, 401), (&plain, plainly), (&admin, 200)] {
                let ask = format!(
                    "GET {target} {version}\r\nHost: holdfast.holdfast.svc.cluster.local\r\n\
                     X-Original-URL: https://app.example.com{path}?scope=none&x=1\r\nX-Original-Method: {method}\r\n\
                     X-Sent-From: nginx-ingress-controller\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n\
                     X-Auth-Request-Redirect: {path}?scope=none&x=1\r\nX-Request-ID: 0123456789abcdef\r\n\
                     Connection: close\r\n{client}\r\n"
                );
                let reply = running.raw(ask.as_bytes()).await;
                if reply.status != status {
                    return Err(format!("{path} asks {target}: {} in place of {status}", reply.status));
                }
                assert_empty(&reply, status, version);
                let given = reply.headers.iter().map(|(name, _)| name.as_str());
                match status {
                    200 => check_names(given.filter(|name| name.starts_with("x-"))).unwrap(),
                    401 => assert!(value(&reply, "www-authenticate").unwrap().starts_with("Bearer")),
                    _ => {}
                }
                let email = value(&reply, "x-user-email");
                assert_eq!(email, (status == 200).then_some("alice@example.com"), "{target}");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_questions_of_ingress_nginx_are_answered() {
    let asked = ingress_nginx::ingresses(&example("ingress-nginx/ingress.yaml")).unwrap();
    assert_eq!(asked.iter().map(|asked| asked.path.as_str()).collect::<Vec<_>>(), ["/", "/admin"]);
    replay(&asked).await.unwrap();
    replay(&[ingress_nginx::config_map(&example("ingress-nginx/configmap.yaml")).unwrap()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_the_manifests_of_ingress_nginx_is_noticed() {
    let ingress = |from, to| ingress_nginx::ingresses(&example_with("ingress-nginx/ingress.yaml", from, to));
    for (from, to, complaint) in [
        ("kubernetes.io/auth-url", "kubernetes.io/auth-urll", "no annotation"),
        ("auth-response-headers", "auth-respnse-headers", "no annotation"),
        ("nginx.ingress.kubernetes.io/", "nginx.ingress.kubernetes.com/", "no annotation"),
        ("auth-url: http", "auth-snippet: http", "no annotation"),
        ("X-User-Email,X-User-Email-Encoding,", "X-User-Email,", "response headers"),
        ("X-Auth-Tier", "X-Auth-Teir", "response headers"),
        ("svc.cluster.local:4180", "svc.cluster.local", "holdfast is not asked"),
    ] {
        let found = ingress(from, to);
        assert!(found.as_ref().is_err_and(|problem| problem.contains(complaint)), "{to}: {found:?}");
    }
    // What is a good URL of another holdfast, or asks for something else.
    for (from, to) in [
        (":4180/auth?scope", ":4180/auht?scope"),
        ("auth?scope=admin", "auth?scop=admin"),
        ("auth?scope=admin", "auth"),
        ("auth?scope=admin", "auth?scope=adm"),
    ] {
        let found = replay(&ingress(from, to).unwrap()).await;
        assert!(found.is_err(), "{to}");
    }
    for (from, to) in [
        ("enable-underscores-in-headers", "enable-underscore-in-headers"),
        ("ignore-invalid-headers: \"true\"", "ignore-invalid-headers: \"false\""),
        ("allow-snippet-annotations: \"false\"", "allow-snippet-annotations: false"),
        ("# global-auth-url", "# global-auth-ur"),
        ("X-User-Id,", ""),
    ] {
        let found = ingress_nginx::config_map(&example_with("ingress-nginx/configmap.yaml", from, to));
        assert!(found.is_err(), "{to}: {found:?}");
    }
}

#[test]
fn a_slip_in_the_manifest_of_external_auth_is_noticed() {
    let listen = "0.0.0.0:4180";
    for (from, to) in [
        ("remove: [X-User-Email, ", "remove: ["),
        ("                - X-Auth-Age\n", ""),
        ("port: 4180", "port: 4181"),
        ("kind: Service, name: holdfast", "kind: Service, name: holdfst"),
        ("kind: HTTPRoute, namespace: app", "kind: HTTPRoute, namespace: other"),
    ] {
        let found = external_auth::path(&example_with("gateway-api/externalauth.yaml", from, to), listen);
        assert!(found.is_err(), "{to}");
    }
}

/// What a gateway with the filter `ExternalAuth` sends, as GEP-1494 has it: the client's method, host, path
/// and query behind `http.path`, with Authorization. holdfast's side is the one of the example.
#[tokio::test(flavor = "multi_thread")]
async fn the_questions_of_a_gateway_with_external_auth_are_answered() {
    let tenant = tenant().await;
    let config = example("gateway-api/holdfast.toml");
    let (auth, rest) = config.split_once("[admin]").unwrap();
    assert!(auth.contains("10.0.0.0/8") && auth.contains("0.0.0.0:4180") && rest.contains("[[issuer]]"));
    let prefix = external_auth::path(&example("gateway-api/externalauth.yaml"), "0.0.0.0:4180").unwrap();
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
            "{method} {prefix}{target} HTTP/1.1\r\nhost: app.example.com\r\ncontent-length: 0\r\nconnection: close\r\n{credential}\r\n"
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
