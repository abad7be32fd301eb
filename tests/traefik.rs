//! Traefik configured by labels of Docker and by resources of Kubernetes: both are equal to the file that the
//! contract tests with all cases, the real Traefik accepts them, and a mistake in them is detected.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "traefik/compose.rs"]
mod compose;
#[path = "traefik/dynamic.rs"]
mod dynamic;
#[path = "traefik/scene.rs"]
mod scene;

use dynamic::Dynamic;
use holdfast_devtenant::Tenant;
use scene::Traefik;
use serde_json::Value;
use support::yaml::{documents, example, example_with, text};
use support::{Holdfast, IDENTITY, service};

const COMPOSE: &str = "traefik/docker-compose.yml";
const RESOURCES: &str = "traefik/kubernetes.yaml";

/// holdfast as the container of the compose file starts it, with an address in place of all there are.
async fn container(tenant: &Tenant, directory: &std::path::Path) -> Holdfast {
    let [issuer, audience] = [tenant.issuer(), tenant.audience().to_owned()];
    let words = compose::holdfast(&example(COMPOSE), &[("ISSUER", &issuer), ("AUDIENCE", &audience)]);
    let data = directory.display().to_string();
    let mut words = words.iter().map(String::as_str);
    assert_eq!(words.next(), Some("holdfast"));
    let words: Vec<_> = words
        .map(|word| match word {
            "0.0.0.0:4180" => "127.0.0.1:0",
            "/var/lib/holdfast" => &data,
            word => word,
        })
        .collect();
    Holdfast::run(directory, &words, 1, &[("HOLDFAST_ADMIN__LISTEN", "127.0.0.1:0")]).await.ready().await
}

/// The words that start the Traefik of the compose file, but with its labels in a file.
fn by_labels() -> Vec<String> {
    let mut words = compose::traefik(&example(COMPOSE));
    words.retain(|word| !word.starts_with("--providers.docker"));
    words.extend(["--providers.file.filename=dynamic.yml".to_owned()]);
    words
}

/// The words that start the Traefik of the cluster, whose entry point says what traefik.yml says.
fn by_resources() -> Vec<String> {
    let mut words = by_labels();
    words.retain(|word| !word.starts_with("--entryPoints"));
    let entry = &documents(&example("traefik/traefik.yml"))[0]["entryPoints"]["web"]["http"];
    words.extend(flat("--entryPoints.web.http", entry));
    words.extend(["--entryPoints.web.address=127.0.0.1:8080".to_owned()]);
    words
}

fn flat(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            members.iter().flat_map(|(name, value)| flat(&format!("{path}.{name}"), value)).collect()
        }
        Value::String(text) => vec![format!("{path}={text}")],
        other => vec![format!("{path}={other}")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_resources_protect_a_service() {
    let tenant = service::tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let holdfast = container(&tenant, directory.path()).await;
    let auth = holdfast.auth_tcp().to_string();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let plain = bearer(&tenant.mint().email_direct("alice@example.com").build().unwrap());
    let admin = bearer(&tenant.mint().email_direct("alice@example.com").scope("admin").build().unwrap());
    let forged: String = IDENTITY
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.replace('-', "_"), name.replace('-', ".")])
        .map(|name| format!("{name}: evil\r\n"))
        .collect();
    for (words, dynamic) in [
        (by_labels(), Dynamic::of_labels(&example(COMPOSE))),
        (by_resources(), Dynamic::of_resources(&example(RESOURCES))),
    ] {
        let traefik = Traefik::start(&words, &dynamic, &auth).await.unwrap();
        for (path, credential, status, email) in [
            ("/page", "", 401, None),
            ("/page", plain.as_str(), 200, Some("alice@example.com")),
            ("/admin", "", 401, None),
            ("/admin", &plain, 403, None),
            ("/ADMIN/x", &plain, 403, None),
            ("/public/../admin", &plain, 403, None),
            ("/admin/x", &admin, 200, Some("alice@example.com")),
            ("/public/x", "", 200, None),
            ("/public/x", &plain, 200, None),
            ("/x;y", &admin, 404, None),
            ("/x%2fadmin", &admin, 400, None),
            ("/x%0a", &admin, 404, None),
            ("/page", "Upgrade: websocket, h2c\r\n", 418, None),
            ("/public/x", "Upgrade: h2c\r\n", 418, None),
        ] {
            let before = traefik.backend.requests();
            let reply = traefik.get(path, &format!("{forged}{credential}")).await;
            assert_eq!(reply.status, status, "{path}: {reply:?}");
            assert_eq!(traefik.backend.requests() - before, u64::from(status == 200), "{path}");
            let told = reply.body.lines().find_map(|line| line.strip_prefix("X-User-Email: "));
            assert_eq!(told, email, "{path}: {reply:?}");
            assert!(!reply.body.contains("evil"), "{path}: {reply:?}");
        }
    }
}

/// Traefik passed on what a backend takes for an identity header, in another spelling. `aliasHeadersStrategy`
/// takes that away; without it, the last step, it is still so.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_54763_cve_2026_88011_aliases_of_identity_headers_reach_no_backend() {
    let tenant = service::tenant().await;
    let directory = tempfile::tempdir().unwrap();
    let holdfast = container(&tenant, directory.path()).await;
    let auth = holdfast.auth_tcp().to_string();
    let token = tenant.mint().email_direct("alice@example.com").build().unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let aliases = |name: &str| {
        let (lower, upper) = (name.to_lowercase(), name.to_uppercase());
        let spelled = [name, &lower, &upper].map(str::to_owned).into_iter();
        let other = ["_", ".", "~", "-_"].into_iter().flat_map(move |mark| {
            [lower.replace('-', mark), upper.replace('-', mark), lower.replacen('-', mark, 1)]
        });
        spelled.chain(other).collect::<Vec<_>>()
    };
    let file = Dynamic::of_file(&example("traefik/dynamic.yml"));
    for (words, dynamic) in [
        (by_labels(), Dynamic::of_labels(&example(COMPOSE))),
        (by_resources(), Dynamic::of_resources(&example(RESOURCES))),
        (by_resources(), file),
    ] {
        let traefik = Traefik::start(&words, &dynamic, &auth).await.unwrap();
        for alias in IDENTITY.into_iter().flat_map(aliases) {
            for (path, credential) in [("/page", bearer.as_str()), ("/public/x", "")] {
                let reply = traefik.get(path, &format!("{alias}: evil\r\n{credential}")).await;
                assert!(matches!(reply.status, 200 | 400), "{alias}: {reply:?}");
                assert!(!reply.body.contains("evil"), "{alias}: {reply:?}");
            }
        }
    }
    let words: Vec<_> =
        by_labels().into_iter().filter(|word| !word.contains("aliasHeadersStrategy")).collect();
    let traefik = Traefik::start(&words, &Dynamic::of_labels(&example(COMPOSE)), &auth).await.unwrap();
    let reply = traefik.get("/page", &format!("X_User_Email: evil\r\n{bearer}")).await;
    assert!(reply.body.contains("evil"), "{reply:?}");
}

#[test]
fn labels_and_resources_say_what_the_file_says() {
    let file = Dynamic::of_file(&example("traefik/dynamic.yml")).said();
    assert_eq!(Dynamic::of_labels(&example(COMPOSE)).said(), file);
    assert_eq!(Dynamic::of_resources(&example(RESOURCES)).said(), file);

    let entry = &documents(&example("traefik/traefik.yml"))[0]["entryPoints"]["web"]["http"];
    let flags = &compose::entry_points(&compose::traefik(&example(COMPOSE)))["web"]["http"];
    assert_eq!(flat("", flags), flat("", entry));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_middleware_deals_with_every_header_that_holdfast_gives() {
    let tenant = service::tenant().await;
    let running =
        service::Running::start(&service::issuer(&tenant, ""), holdfast::clock::Clock::system()).await;
    let reply = running.ask(&tenant.mint().email_direct("alice@example.com").build().unwrap()).await;
    let mut given: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    given.retain(|name| name.starts_with("x-"));
    given.sort_unstable();
    let mut known = IDENTITY.map(str::to_lowercase);
    known.sort_unstable();
    assert_eq!(given, known);

    let check = |dynamic: Dynamic| dynamic.check_identity(&IDENTITY);
    check(Dynamic::of_file(&example("traefik/dynamic.yml"))).unwrap();
    check(Dynamic::of_labels(&example(COMPOSE))).unwrap();
    check(Dynamic::of_resources(&example(RESOURCES))).unwrap();
    for (from, to) in [
        ("      - X-Auth-Source\n    authRequestHeaders", "    authRequestHeaders"),
        ("      X-User-Id: \"\"\n", ""),
        ("      X-User-Id: \"\"\n", "      X-User-Id: nobody\n"),
        ("middlewares: [{ name: nobody }]", "middlewares: []"),
        ("middlewares: [{ name: nobody }]", "middlewares: [{ name: nobody, namespace: other }]"),
    ] {
        let found = check(Dynamic::of_resources(&example_with(RESOURCES, from, to)));
        assert!(found.is_err(), "{from} → {to}");
    }
    for (from, to) in [
        (
            "admin.forwardAuth.authResponseHeaders: \"X-User-Email,",
            "admin.forwardAuth.authResponseHeaders: \"",
        ),
        ("customRequestHeaders.X-Auth-Age", "customRequestHeaders.X-Auth-Aged"),
        ("routers.admin.middlewares: holdfast-admin", "routers.admin.middlewares: holdfast-admn"),
    ] {
        let found = check(Dynamic::of_labels(&example_with(COMPOSE, from, to)));
        assert!(found.is_err(), "{from} → {to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_a_label_or_a_resource_is_noticed_by_traefik() {
    let nowhere = "127.0.0.1:1";
    for (from, to, complaint) in [
        ("forwardAuth.authResponseHeaders", "forwardAuth.authResponseHeader", "field not found"),
        (
            "forwardAuth.maxResponseBodySize: \"4096\"",
            "forwardAuth.maxResponseBodySize: 4k",
            "invalid syntax",
        ),
        (
            "middlewares.nobody.headers.customRequestHeaders",
            "middlewares.nobody.header.customRequestHeaders",
            "field",
        ),
        ("routers.page.middlewares: holdfast\n", "routers.page.middlewares: holdfst\n", "does not exist"),
        ("PathPrefix(`/`)", "PathPrefx(`/`)", "unsupported function"),
        ("~/-]+)*$$`", "~/-]+*$$`", "error parsing regexp"),
        ("service: noop@internal", "service: nop@internal", "unknown internal service"),
    ] {
        let dynamic = Dynamic::of_labels(&example_with(COMPOSE, from, to));
        let found = Traefik::start(&by_labels(), &dynamic, nowhere).await.map(|_| ());
        assert!(found.as_ref().is_err_and(|log| log.contains(complaint)), "{to}: {found:?}");
    }
    for (from, to, complaint) in [
        (
            "Host(`app.example.com`) && PathRegexp(`(?i)^/admin`)",
            "Host(`app.example.com`) && PathRegexp(`(?i^/admin`)",
            "error parsing regexp",
        ),
        ("middlewares: [{ name: holdfast-admin }]", "middlewares: [{ name: admin }]", "does not exist"),
    ] {
        let dynamic = Dynamic::of_resources(&example_with(RESOURCES, from, to));
        let found = Traefik::start(&by_resources(), &dynamic, nowhere).await.map(|_| ());
        assert!(found.as_ref().is_err_and(|log| log.contains(complaint)), "{to}: {found:?}");
    }
    for (from, to) in [("allowEncodedHash", "allowEncodedHsh"), ("Strategy=delete", "Strategy=delet")] {
        let words: Vec<_> = by_labels().iter().map(|word| word.replace(from, to)).collect();
        let labels = Dynamic::of_labels(&example(COMPOSE));
        assert!(Traefik::start(&words, &labels, nowhere).await.is_err(), "{to}");
    }
}

/// The Gateway's route names a Middleware that there is, in its own namespace, since it cannot name another.
#[test]
fn the_gateways_extension_is_one_of_the_middlewares() {
    let route = &documents(&example("gateway-api/traefik.yaml"))[0];
    let extension = &route["spec"]["rules"][0]["filters"][0]["extensionRef"];
    let name = format!("{}-{}", text(route, "/metadata/namespace"), text(extension, "/name"));
    let middlewares = Dynamic::of_resources(&example(RESOURCES));
    assert!(middlewares.middlewares()[&name]["forwardAuth"].is_object(), "{name}");
}
