//! Rules of the proxy by path, and whether a path can be written so that another rule decides than the
//! backend would think. In every example `/public/` is open, `/admin` asks for the scope `admin`, and all
//! else for a good token.

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
    // Paths in every language are accepted, although ambiguous ones are refused.
    for path in [
        "/page",
        "/caf%C3%A9",
        "/a%20b/c+d,e",
        "/%E0%A4%95%ED%95%9C",
        "/%F0%9F%98%80/x.y/.z",
        "/a?b=%00&c=\\;//",
    ] {
        assert_alice(&stack.client.request("GET", path, &plain).await, path);
    }
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

/// Ways to write a path, `A` standing for the one that is meant: CVE-2026-41059, GHSA-7rh7-c77v-6434,
/// CVE-2021-32637.
const FORMS: [&str; 75] = [
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
    // Overlong UTF-8: more bytes than the character needs.
    "/public/..%c0%afA",
    "/public/%C0%AE%c0%ae/A",
    "/public/..%c1%9cA",
    "/public/..%e0%80%afA",
    "/public/%e0%80%ae%E0%80%AE/A",
    "/public/..%f0%80%80%afA",
    "/public/..%f8%80%80%80%afA",
    "/public/..%fc%80%80%80%80%afA",
    "/x/..%c0%afA",
    "/%c0%afA",
    // Control characters, which some cut away, and some cut at.
    "/public/..%0a/A",
    "/public/..%0d%0a/A",
    "/public/.%09./A",
    "/public/..%1f/A",
    "/public/..%7f/A",
    "/x/..%0a/A",
    "/%0aA",
    "/%09A",
    "/A%0a/public/x",
    // Encodings of another kind, and broken ones.
    "/public/%u002e%u002e/A",
    "/public/..%u002fA",
    "/public/..%u2215A",
    "/public/%uff0e%uff0e/A",
    "/public/..%/A",
    "/public/.%./A",
    "/x/..%/A",
    "/%u0041/../A",
    // As they are; each character of these is one byte.
    "/public/..\u{c0}\u{af}A",
    "/public/..\u{7f}/A",
    "/public/..\u{1}/A",
    "/public/..\t/A",
];

/// Request targets that are no plain path (RFC 9112 §3.2), `A` standing for the page that is meant. Readers
/// disagree on where an authority ends: RFC 3986 §3.2 says at `/`, `?` or `#`, some say only at `/`, others
/// also at `\`.
const TARGETS: [&str; 34] = [
    "http://example.com/public/../A",
    "http://example.com/A#http://example.com/public/x",
    "http://x?@example.com/public/A",
    "http://x?@example.com/public/y",
    "http://x#@example.com/public/y",
    "http://x\\@example.com/public/y",
    "http://x\\A?@example.com/public/y",
    "http://x\\A#@example.com/public/y",
    "http://x?y#@example.com/public/y",
    "http://example.com?/public/y",
    "http://example.com#/public/y",
    "http://example.com\\A/public/y",
    "http://example.com\\..\\A",
    "http://example.com/A",
    "http://user@example.com/A",
    "http://user:password@example.com/A",
    "http://user@example.com?@example.com/public/y",
    "http://a@b@example.com/A",
    "http://example.com/A@example.com/public/y",
    "http://example.com/public/@x/../A",
    "http://example.com",
    "http:///A",
    "http:///public/../A",
    "http://?/public/y",
    "http://[::1]/A",
    "http://[::1]?@[::1]/public/y",
    "http://[::1?]/public/y",
    "HTTP://x?@example.com/public/y",
    "hTtP://example.com/A",
    "https://x?@example.com/public/y",
    "ftp://x?@example.com/public/y",
    "http:/A",
    "*",
    "public/../A",
];

/// Ways to write what is open and what asks for more, in letters of another case.
pub const CASES: [&str; 12] = [
    "/ADMIN/x",
    "/Admin",
    "/aDmIn/x",
    "/%41dmin/x",
    "/%41%44%4D%49%4e/x",
    "/x/../ADMIN/x",
    "/PUBLIC/page",
    "/Public/page",
    "/public/../PUBLIC/page",
    "/%50ublic/page",
    "/publi%43/page",
    "/PUBLIC/../page",
];

pub async fn no_way_to_write_a_path_changes_what_it_requires(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    assert_each_is_read_alike(&stack, forms().chain(CASES.map(str::to_owned))).await;
}

/// [`FORMS`], for a page of everybody's and for one that asks for more.
pub fn forms() -> impl Iterator<Item = String> {
    let more = ["/%61dmin/x", "/a%64min/x", "/%2561dmin/x", "/admin/..%2fpublic/x", "/admin/%2e%2e/public/x"];
    let more = more.map(str::to_owned).into_iter();
    let forms = FORMS.iter().chain(&TARGETS);
    let forms = forms.flat_map(|form| ["page", "admin/x"].map(|a| form.replace('A', a)));
    forms.collect::<Vec<_>>().into_iter().chain(more)
}

/// Asserts that none of these paths leads to a protected page, however the backend reads it.
pub async fn assert_each_is_read_alike(stack: &Stack, forms: impl Iterator<Item = String>) {
    let plain = bearer(&stack.alice());
    for form in forms {
        for (token, who) in [("", "nobody"), (plain.as_str(), "a user without the scope")] {
            let request = String::from_utf8(request("GET", &form, token)).unwrap();
            let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(c).unwrap()).collect();
            let (asks, reply) = stack.asks(stack.client.raw(&bytes)).await;
            if asks == 0 {
                assert_ne!(reply.status, 200, "{form}: {reply:?}");
                continue;
            }
            // What reached the backend is what its reader has to do with.
            let page = stack.backend.last_request().unwrap();
            let target = page.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
            assert!(target.is_ascii(), "{who}: {form} reached the backend as {target}");
            assert!(target.starts_with('/'), "{who}: {form} reached the backend as {target}");
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

/// All that some backend may take this target for: decoded up to three times, strictly or with the encodings
/// of old, with and without `;…`, with and without control characters and what follows them, with `\` for
/// `/`, with slashes merged before dot segments are resolved, or after, or not at all.
fn readings(target: &str) -> Vec<String> {
    paths(target).iter().flat_map(|path| path_readings(path)).collect()
}

/// The paths that readers may take out of a request target, as they stand. Of a target with a scheme: where
/// the authority ends at `/`, at `?`, at `#`, at `\`, at some of them; and with userinfo that reaches up to
/// the first or the last `@`.
fn paths(target: &str) -> Vec<String> {
    let path = |text: &str| text.split(['?', '#']).next().unwrap().to_owned();
    let Some((scheme, rest)) = target.split_once("://").filter(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    }) else {
        return vec![path(target)];
    };
    assert!(!scheme.is_empty());
    let hosts = [rest, rest.split_once('@').map_or(rest, |(_, host)| host), rest.rsplit('@').next().unwrap()];
    let ends: [&[char]; 5] = [&['/'], &['/', '\\'], &['/', '?'], &['/', '?', '#'], &['/', '?', '#', '\\']];
    let paths = hosts.iter().flat_map(|host| {
        ends.iter().map(move |ends| {
            let rest = host.find(*ends).map_or("", |at| &host[at..]);
            if rest.starts_with(['/', '\\']) { path(rest) } else { "/".to_owned() }
        })
    });
    paths.collect()
}

/// All that some backend may take this path for.
fn path_readings(path: &str) -> Vec<String> {
    let mut decoded = vec![path.to_owned()];
    for _ in 0..3 {
        let last = decoded.last().unwrap();
        let (strict, lenient) = (decode(last), decode_leniently(last));
        decoded.extend([lenient, strict]);
    }
    let mut readings = decoded.clone();
    for path in decoded {
        let path = shorten(&path).replace('\\', "/").to_lowercase();
        let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
        let clean = path.replace(char::is_control, "");
        let cut = path.split(char::is_control).next().unwrap().to_owned();
        for path in [path.clone(), bare.join("/"), clean, cut] {
            readings.push(merge(&resolve(&path)));
            readings.push(resolve(&merge(&path)));
        }
    }
    readings
}

/// Percent-decoding; each byte as a character of its own.
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

/// The same, with `%uXXXX`, characters that look like an ASCII one as that, and without a `%` that means
/// nothing.
fn decode_leniently(path: &str) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find("%u") {
        decoded += &rest[..at];
        let unit = rest.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let unit = unit.map(|unit| match unit {
            0xff01..=0xff5e => unit - 0xfee0,
            0x2044 | 0x2215 => u32::from('/'),
            unit => unit,
        });
        decoded.extend(unit.and_then(char::from_u32));
        rest = &rest[at + if unit.is_some() { 6 } else { 2 }..];
    }
    decode(&(decoded + rest)).replace('%', "")
}

/// Overlong UTF-8 (and the lengths of five and six bytes that it once had) as the ASCII character that it
/// stands for.
fn shorten(path: &str) -> String {
    let chars: Vec<u32> = path.chars().map(u32::from).collect();
    let (mut short, mut at) = (String::new(), 0);
    while at < chars.len() {
        let length = match chars[at] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0xf8..=0xfb => 5,
            0xfc | 0xfd => 6,
            _ => 1,
        };
        let more = chars.get(at + 1..at + length).unwrap_or_default();
        let value = more.iter().fold(chars[at] & (0x7f >> length), |value, byte| value << 6 | byte & 0x3f);
        let is_short = length > 1 && more.len() == length - 1 && value < 0x80;
        short.extend(char::from_u32(if is_short { value } else { chars[at] }));
        at += if is_short { length } else { 1 };
    }
    short
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
    assert!(
        reads("/public/..%c0%afadmin/x", "/admin/x") && reads("/public/%e0%80%ae%e0%80%ae/admin", "/admin")
    );
    assert!(reads("/public/..%f8%80%80%80%afadmin", "/admin") && reads("/public/..%c1%9cadmin", "/admin"));
    assert!(reads("/public/.%09./admin", "/admin") && reads("/public/..%0a/admin", "/admin"));
    assert!(reads("/public/%u002e%uFF0E/admin", "/admin") && reads("/public/..%/admin", "/admin"));
    assert!(readings("/public/%C3%A9").iter().all(|reading| reading.starts_with("/public/")));
    assert!(readings("/public/x?/../admin").iter().all(|reading| reading == "/public/x"));
    for target in ["http://x?@example.com/public/y", "HTTP://x#@example.com/public/y"] {
        assert!(reads(target, "/") && reads(target, "/public/y"), "{target}");
    }
    assert!(reads("http://x\\admin?@example.com/public/y", "/admin"));
    assert!(
        reads("http://example.com/public/y", "/public/y") && reads("http://a@b@example.com/admin", "/admin")
    );
    assert!(reads("http://example.com/admin@example.com/public/y", "/public/y"));
}

/// Some proxies hang the client's query on the auth URL. A client must neither meet a requirement that way,
/// nor bring one that nobody asked for, nor make a request fail.
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
