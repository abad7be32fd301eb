//! Rules of the proxy by path, and whether a path can be written so that another rule decides than the backend would
//! think. In every example `/public/` is open, `/admin` asks for the scope `admin`, and all else for a good token.

use super::identity::{assert_alice, identity};
use crate::client::{bearer, request};
use crate::proxy::Proxy;
use crate::stack::Stack;

pub async fn a_route_may_ask_for_more(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let plain = bearer(&stack.alice());
    let admin = stack.tenant.mint().email_direct("alice@example.com").scope("read admin").build().unwrap();
    for path in ["/admin", "/admin/", "/admin/users"] {
        stack.assert_refused(&[401], &request("GET", path, "")).await;
        let reply = stack.assert_refused(&[403], &request("GET", path, &plain)).await;
        assert!(reply.header("retry-after").is_empty(), "{reply:?}");
        assert_alice(&stack.client.request("GET", path, &bearer(&admin)).await, path);
    }
    assert_alice(&stack.client.request("GET", "/page", &plain).await, "another path");
    let open = stack.client.request("GET", "/public/page", &plain).await;
    assert!(open.status == 200 && identity(&open.body).is_empty(), "{open:?}");
}

pub async fn all_of_the_requirements_count_and_any_of_their_values(proxy: Proxy) {
    let requirements = "scope=write&scope=admin&role=editor&permission=p:1&org=org_1&email_domain=example.com&email=alice@example.com\
                        &verified=true&audience=checked&max_tier=primary";
    let stack = Stack::start_requiring(proxy, requirements).await;
    let good = || {
        let token = stack.tenant.mint().email_direct("alice@example.com").claim("email_verified", true);
        token
            .scope("read admin")
            .claim("roles", vec!["editor"])
            .claim("permissions", vec!["p:1"])
            .claim("org_id", "org_1")
    };
    let reply = stack.client.request("GET", "/admin/x", &bearer(&good().build().unwrap())).await;
    assert_alice(&reply, "all of them");
    for (less, what) in [
        (good().scope("read"), "scope"),
        (good().claim("roles", vec!["reader"]), "role"),
        (good().remove_claim("permissions"), "permission"),
        (good().claim("org_id", "org_2"), "org"),
        (good().email_direct("alice@example.com.evil.com"), "email_domain"),
        (good().email_direct("bob@example.com"), "email"),
        (good().claim("email_verified", false), "verified"),
    ] {
        let token = bearer(&less.build().unwrap());
        let reply = stack.assert_refused(&[403], &request("GET", "/admin/x", &token)).await;
        assert!(reply.header("x-user-email").is_empty(), "{what}: {reply:?}");
        assert_eq!(stack.client.request("GET", "/page", &token).await.status, 200, "{what}");
    }
}

/// holdfast says 500; some proxies make a 503 of it.
pub async fn a_requirement_that_does_not_exist_lets_nobody_pass(proxy: Proxy) {
    let stack = Stack::start_requiring(proxy, "skope=admin").await;
    let admin = stack.tenant.mint().email_direct("alice@example.com").scope("admin").build().unwrap();
    stack.assert_refused(&[500, 503], &request("GET", "/admin/x", &bearer(&admin))).await;
    assert_alice(&stack.client.get(&admin).await, "another route");
}

/// Ways to write a path, `A` standing for the one that is meant: CVE-2026-41059, GHSA-7rh7-c77v-6434, CVE-2021-32637.
const FORMS: [&str; 44] = [
    "/public/../A",
    "/public/./../A",
    "/public//../A",
    "/public/../../A",
    "/public/x/../../A",
    "/public/%2e%2e/A",
    "/public/%2E%2E/A",
    "/public/.%2e/A",
    "/public/%252e%252e/A",
    "/public/%25252e%25252e/A",
    "/public/..%2fA",
    "/public/..%2FA",
    "/public/%2e%2e%2fA",
    "/public%2f..%2fA",
    "/public/..%252fA",
    "/public/..%5cA",
    "/public/..\\A",
    "/public\\..\\A",
    "/public/..;/A",
    "/public/..;x=y/A",
    "/public/%2e%2e;/A",
    "/public/..%3b/A",
    "/public;/../A",
    "/public/..%00/A",
    "/public/..#/A",
    "/public/%23/../A",
    "/public/..?/A",
    "/public/%3f/../A",
    "//A",
    "///A",
    "/./A",
    "/.//A",
    "/x/../A",
    "/x/%2e%2e/A",
    "/x/..%2fA",
    "/x/..;/A",
    "/;/A",
    "/;x=y/A",
    "/%2fA",
    "/%5cA",
    "/A#/public/x",
    "/A%23/public/x",
    "/A?/public/x",
    "/A;/public/x",
];

pub async fn no_way_to_write_a_path_changes_what_it_requires(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let plain = bearer(&stack.alice());
    let more = ["/%61dmin/x", "/a%64min/x", "/%2561dmin/x", "/admin/..%2fpublic/x", "/admin/%2e%2e/public/x"];
    let more = more.map(str::to_owned).into_iter();
    let absolute = ["http://example.com/public/../A", "http://example.com/A#http://example.com/public/x"];
    let forms =
        FORMS.iter().chain(&absolute).flat_map(|form| ["page", "admin/x"].map(|a| form.replace('A', a)));
    for form in forms.chain(more) {
        for (token, who) in [("", "nobody"), (plain.as_str(), "a user without the scope")] {
            let (asks, reply) = stack.asks(stack.client.request("GET", &form, token)).await;
            if asks == 0 {
                assert_ne!(reply.status, 200, "{form}: {reply:?}");
                continue;
            }
            // What reached the backend is what its reader has to do with.
            let page = stack.backend.last_request().unwrap();
            let target = page.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
            for reading in readings(&target) {
                assert!(
                    !reading.starts_with("/admin"),
                    "{who}: {form} reached the backend as {target}: {reading}"
                );
                if token.is_empty() {
                    let open = reading.starts_with("/public/");
                    assert!(open, "{who}: {form} reached the backend as {target}: {reading}");
                }
            }
        }
    }
}

/// All that some backend may take this target for: decoded up to three times, with and without `;…`, with `\` for `/`,
/// with slashes merged before dot segments are resolved, or after, or not at all.
fn readings(target: &str) -> Vec<String> {
    let path = target.split(['?', '#']).next().unwrap();
    let path = path.strip_prefix("http://").map_or(path, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let mut decoded = vec![path.to_owned()];
    for _ in 0..3 {
        decoded.push(decode(decoded.last().unwrap()));
    }
    let mut readings = decoded.clone();
    for path in decoded {
        let path = path.replace('\\', "/").to_lowercase();
        let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
        for path in [path.clone(), bare.join("/")] {
            readings.push(merge(&resolve(&path)));
            readings.push(resolve(&merge(&path)));
        }
    }
    readings
}

fn decode(path: &str) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded += &rest[..at];
        let byte = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (text, length) = byte.map_or(('%', 1), |byte| (char::from(byte), 3));
        decoded.push(text);
        rest = &rest[at + length..];
    }
    decoded + rest
}

fn merge(path: &str) -> String {
    let mut merged = path.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    merged
}

/// RFC 3986 §5.2.4.
fn resolve(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn a_target_is_read_in_every_way() {
    let reads = |target: &str, path: &str| readings(target).iter().any(|reading| reading == path);
    assert!(reads("/public/..;/admin/x", "/admin/x") && reads("/public/%252e%252e/admin/x", "/admin/x"));
    assert!(
        reads("/public\\..\\admin", "/admin")
            && reads("/admin//../x", "/admin/x")
            && reads("//ADMIN", "/admin")
    );
    assert!(readings("/public/x?/../admin").iter().all(|reading| reading == "/public/x"));
}

/// Some proxies hang the client's query on the auth URL. A client must neither meet a requirement that way, nor bring
/// one that nobody asked for, nor make a request fail.
pub async fn a_clients_query_is_no_requirement(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let plain = bearer(&stack.alice());
    for query in
        ["?scope=admin", "?scope=read&scope=admin", "?x=1", "?", "?max_tier=nonsense", "?a=%00&b=%26scope"]
    {
        let reply = stack.client.request("GET", &format!("/page{query}"), &plain).await;
        assert_alice(&reply, query);
        assert!(reply.body.starts_with(&format!("GET /page{}", query.trim_end_matches('?'))), "{reply:?}");
        stack.assert_refused(&[403], &request("GET", &format!("/admin/x{query}"), &plain)).await;
        stack.assert_refused(&[401], &request("GET", &format!("/page{query}"), "")).await;
    }
    for line in stack.relay.sent().lines().filter(|line| line.contains(" /auth")) {
        let asked = ["/auth", "/auth?", "/auth?scope=admin"];
        assert!(asked.iter().any(|target| line.ends_with(&format!(" {target} HTTP/1.1"))), "{line}");
    }
}
