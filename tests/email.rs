//! Which email a backend gets, for every shape of claims that Auth0 and the Action make: through the whole
//! service, in a signed token, in an encrypted one, and in the answer of `/userinfo`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast::clock::Clock;
use holdfast_devtenant::{Tenant, User};
use serde_json::{Map, Value, json};
use support::Reply;
use support::service::{Running, decryption_keys, issuer, tenant, value};

const NAMESPACE: &str = "https://claims.example.com";

/// Claims, and what comes of them: the email as in the header, whether it is said to be verified, and whether
/// there is a conflict.
struct Row {
    name: &'static str,
    claims: Value,
    email: Option<&'static str>,
    verified: &'static str,
    conflict: bool,
}

fn row(name: &'static str, claims: Value, email: impl Into<Option<&'static str>>) -> Row {
    Row { name, claims, email: email.into(), verified: "-", conflict: false }
}

impl Row {
    fn verified(self, verified: &'static str) -> Self {
        Self { verified, ..self }
    }

    fn conflict(self) -> Self {
        Self { conflict: true, ..self }
    }
}

/// Direct, nested, nested under a namespace, namespaced: the order of looking.
const PLACES: [&str; 4] = ["direct", "nested", "nested under a namespace", "namespaced"];

fn at(place: &str, email: &Value, verified: Option<bool>) -> Map<String, Value> {
    let mut both = Map::from_iter([("email".to_owned(), email.clone())]);
    both.extend(verified.map(|verified| ("email_verified".to_owned(), verified.into())));
    match place {
        "direct" => both,
        "nested" => Map::from_iter([("user".to_owned(), both.into())]),
        "nested under a namespace" => Map::from_iter([(format!("{NAMESPACE}/user"), both.into())]),
        "namespaced" => {
            both.into_iter().map(|(name, value)| (format!("{NAMESPACE}/{name}"), value)).collect()
        }
        other => panic!("{other}"),
    }
}

fn together(parts: impl IntoIterator<Item = Map<String, Value>>) -> Value {
    Value::Object(parts.into_iter().flatten().collect())
}

fn hostile() -> Vec<(&'static str, Value)> {
    vec![
        ("a new line", json!("a@x.example\r\nX-User-Id: admin")),
        ("a NUL", json!("a\0@x.example")),
        ("5 KB", json!(format!("{}@x.example", "a".repeat(5_000)))),
        ("5 KB of domain", json!(format!("a@{}example", "x.".repeat(2_500)))),
        ("an array", json!(["a@x.example"])),
        ("an object", json!({"email": "a@x.example"})),
        ("a number", json!(7)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("nothing", json!("")),
        ("two addresses", json!("a@x.example,b@x.example")),
        ("two at signs", json!("a@evil.example@x.example")),
        ("a name beside it", json!("A <a@x.example>")),
        ("a blank", json!("a @x.example")),
        ("what cannot be seen", json!("a\u{200b}@x.example")),
        ("another writing direction", json!("a\u{202e}@x.example")),
        ("what looks like an at sign", json!("a\u{ff20}x.example")),
    ]
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("nothing", json!({}), None),
        row("Unicode", json!({"email": "zoë@exämple.com"}), "zo%C3%AB@ex%C3%A4mple.com"),
        // A Cyrillic а does not come out as a Latin one.
        row("a homoglyph", json!({"email": "\u{430}lice@example.com"}), "%D0%B0lice@example.com"),
        row("two namespaces that agree", json!({"https://a.example/email": "a@x.example", "https://b.example/email": "A@X.example"}), "a@x.example"),
        row("two namespaces that do not", json!({"https://a.example/email": "a@x.example", "https://b.example/email": "b@x.example"}), "a@x.example").conflict(),
        row("an email of the claim beside an unusable one", json!({"email": "not usable", "email_verified": true, "user": {"email": "n@x.example", "email_verified": false}}), "n@x.example").verified("false"),
        row("verified, as a text", json!({"email": "a@x.example", "email_verified": "true"}), "a@x.example").verified("true"),
        row("not verified, as a text", json!({"email": "a@x.example", "email_verified": "false"}), "a@x.example").verified("false"),
        row("verified, as a number", json!({"email": "a@x.example", "email_verified": 1}), "a@x.example"),
        row("verified of another place", json!({"user": {"email": "a@x.example"}, "email_verified": true}), "a@x.example"),
        row("four different ones", together(PLACES.iter().zip(["a@x.example", "b@x.example", "c@x.example", "d@x.example"]).map(|(place, email)| at(place, &email.into(), None))), "a@x.example").conflict(),
    ];
    let (one, other) = (json!("one@x.example"), json!("other@x.example"));
    for (number, place) in PLACES.into_iter().enumerate() {
        for (verified, told) in [(None, "-"), (Some(true), "true"), (Some(false), "false")] {
            rows.push(row(place, Value::Object(at(place, &one, verified)), "one@x.example").verified(told));
        }
        for later in &PLACES[number + 1..] {
            let both = |email: &Value| together([at(place, &one, Some(false)), at(later, email, Some(true))]);
            rows.push(row(later, both(&one), "one@x.example").verified("false"));
            rows.push(row(later, both(&json!("ONE@x.example")), "one@x.example").verified("false"));
            rows.push(row(later, both(&other), "one@x.example").verified("false").conflict());
            rows.push(row(later, both(&json!(7)), "one@x.example").verified("false"));
        }
        for (name, value) in hostile() {
            rows.push(row(name, Value::Object(at(place, &value, Some(true))), None));
            // It is passed over, and is no conflict.
            let usable = PLACES[(number + 1) % 4];
            rows.push(row(
                name,
                together([at(place, &value, None), at(usable, &one, None)]),
                "one@x.example",
            ));
        }
    }
    rows
}

fn config(tenant: &Tenant, more: &str) -> String {
    issuer(tenant, more)
        + "[headers]\n\"X-Verified\" = { claim = \"email_verified\", default = \"-\" }\n\"X-Name\" = { claim = \"name\", default = \"-\" }\n"
}

async fn check(holdfast: &Running, row: &Row, what: &str, token: &str) {
    let what = format!("{what}: {}: {}", row.name, row.claims);
    let before = holdfast.counted("holdfast_email_conflicts_total", "").await;
    let reply = holdfast.ask(token).await;
    let found = (value(&reply, "x-user-email"), value(&reply, "x-verified"));
    match row.email {
        Some(email) => assert_eq!((reply.status, found), (200, (Some(email), Some(row.verified))), "{what}"),
        None => assert_eq!((reply.status, found), (403, (None, None)), "{what}"),
    }
    let conflicts = holdfast.counted("holdfast_email_conflicts_total", "").await - before;
    assert_eq!(conflicts, u64::from(row.conflict), "{what}: conflicts");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_in_order_wins_in_every_kind_of_token_and_a_conflict_is_counted() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let holdfast = Running::start(&config(&tenant, &(keys + "userinfo = false\n")), Clock::system()).await;
    for row in rows() {
        let claims = row.claims.as_object().unwrap();
        let token =
            claims.iter().fold(tenant.mint(), |token, (name, value)| token.claim(name, value.clone()));
        check(&holdfast, &row, "signed", &token.build().unwrap()).await;
        check(&holdfast, &row, "encrypted", &token.nested_jwe().build().unwrap()).await;
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_context_is_searched_in_the_same_order() {
    // A tenant lets itself be asked 300 times a minute, and says so.
    for rows in rows().chunks(100) {
        let tenant = tenant().await;
        let budget = "[budget]\nrate = 10000\nburst = 10000\nbackground_share = 1\nfirst_seen_share = 1\n";
        let holdfast = Running::start(&(config(&tenant, "") + budget), Clock::system()).await;
        for (number, row) in rows.iter().enumerate() {
            for what in ["opaque", "signed without an email"] {
                let sub = format!("auth0|{number}-{what}");
                let claims = row.claims.as_object().unwrap().clone();
                tenant.add_user(User { claims, ..User::new(&*sub) });
                let token = tenant.mint().subject(&*sub);
                let token = if what == "opaque" { token.opaque() } else { token };
                check(&holdfast, row, what, &token.build().unwrap()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_context_comes_after_all_claims() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|alice").email("context@x.example").email_verified(true).name("Alice"));
    let holdfast = Running::start(&config(&tenant, ""), Clock::system()).await;
    let told = |reply: &Reply| {
        ["x-user-email", "x-verified", "x-name", "x-auth-source"]
            .map(|name| value(reply, name).unwrap_or("absent").to_owned())
    };
    for place in PLACES {
        let claims = at(place, &"claim@x.example".into(), Some(false));
        let token = claims.into_iter().fold(tenant.mint(), |token, (name, value)| token.claim(name, value));
        let reply = holdfast.ask(&token.build().unwrap()).await;
        assert_eq!(told(&reply), ["claim@x.example", "false", "-", "claims"], "{place}");
    }
    assert_eq!(tenant.calls().userinfo, 0);
    for (what, token) in [("signed", tenant.mint()), ("opaque", tenant.mint().opaque())] {
        let reply = holdfast.ask(&token.build().unwrap()).await;
        assert_eq!(told(&reply), ["context@x.example", "true", "Alice", "userinfo"], "{what}");
    }
    let token = tenant.mint().claim("name", "OfTheToken").claim("email_verified", false).build().unwrap();
    let reply = holdfast.ask(&token).await;
    assert_eq!(told(&reply), ["context@x.example", "true", "OfTheToken", "userinfo"]);
}
