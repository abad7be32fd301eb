//! What the Auth0 Action of `deploy/auth0` sets is what holdfast finds: its own file runs, its claims are
//! signed (and sealed), and the email comes out at the other end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use holdfast::clock::Clock;
use holdfast_devtenant::{Tenant, TokenBuilder, User};
use serde_json::{Map, Value, json};
use support::Reply;
use support::service::{Running, decryption_keys, issuer, tenant, value};

const API: &str = "https://api.example.com";
const NAMESPACE: &str = "https://claims.example.com";

/// What one login gets from the Action.
struct Login {
    format: String,
    access_token: Map<String, Value>,
    userinfo: Map<String, Value>,
}

/// Runs `emit.js`, for the API and the namespace unless `args` say otherwise.
fn login(args: &[&str]) -> Login {
    let emit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/auth0/emit.js");
    let output = Command::new("node").arg(emit).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("these tests need Node.js 18 or newer as `node`: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut emitted: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut members = |name: &str| match emitted[name].take() {
        Value::Object(members) => members,
        other => panic!("{name} is {other}"),
    };
    let (access_token, userinfo) = (members("access_token_claims"), members("userinfo"));
    Login { format: emitted["access_token_format"].as_str().unwrap().to_owned(), access_token, userinfo }
}

fn with_claims(token: TokenBuilder, claims: &Map<String, Value>) -> TokenBuilder {
    claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()))
}

/// A user of whom `/userinfo` says nothing but who it is.
fn add_user_without_email(tenant: &Tenant, sub: &str) {
    tenant.add_user(User::new(sub));
}

fn found(reply: &Reply) -> (u16, Option<&str>, Option<&str>) {
    (reply.status, value(reply, "x-user-email"), value(reply, "x-auth-source"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_email_of_the_action_comes_out_of_every_kind_of_token() {
    let tenant = tenant().await;
    add_user_without_email(&tenant, "auth0|1");
    let (_files, keys) = decryption_keys(&tenant);
    let holdfast = Running::start(&issuer(&tenant, &keys), Clock::system()).await;
    let base = ["--audience", API, "--namespace", NAMESPACE];
    let ada = "ada@example.com";
    for (what, more, email) in [
        ("the usual login", &[][..], Some(ada)),
        ("without the scope email, so without the direct form", &["--scope", "openid"], Some(ada)),
        ("by the password grant", &["--protocol", "oauth2-password"], Some(ada)),
        (
            "another address",
            &["--email", "zoe.o'hara+x@sub.example.org"],
            Some("zoe.o'hara+x@sub.example.org"),
        ),
        ("an address in Unicode", &["--email", "zoë@example.com"], Some("zo%C3%AB@example.com")),
        ("not verified, which the default allows", &["--verified", "false"], Some(ada)),
        (
            "not verified, where that is required",
            &["--verified", "false", "--require-verified", "true"],
            None,
        ),
        ("a user without an email", &["--email", ""], None),
    ] {
        for encrypted in [false, true] {
            let what = format!("{what}, encrypted: {encrypted}");
            let mut args = [&base[..], more].concat();
            args.extend(encrypted.then_some("--encrypted"));
            let login = login(&args);
            let token = with_claims(tenant.mint().subject("auth0|1"), &login.access_token);
            let token = match login.format.as_str() {
                "jwt" => token,
                "compact-nested-jwe" => token.nested_jwe(),
                other => panic!("{what}: {other}"),
            };
            assert_eq!(login.format == "compact-nested-jwe", encrypted, "{what}");
            let reply = holdfast.ask(&token.build().unwrap()).await;
            match email {
                Some(email) => {
                    assert_eq!(found(&reply), (200, Some(email), Some("claims")), "{what}: {reply:?}");
                    let encoding = if email.contains('%') { "percent" } else { "none" };
                    assert_eq!(value(&reply, "x-user-email-encoding"), Some(encoding), "{what}");
                    assert_eq!(
                        tenant.calls().userinfo,
                        0,
                        "{what}: the issuer was asked in spite of the Action"
                    );
                }
                None => {
                    assert_eq!(found(&reply), (403, None, None), "{what}: {reply:?}");
                    tenant.reset_calls();
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_alone_is_enough() {
    let tenant = tenant().await;
    add_user_without_email(&tenant, "auth0|1");
    let login = login(&["--audience", API, "--namespace", NAMESPACE]);
    for (path, form) in [
        ("email", "email"),
        ("/user/email", "user"),
        ("*/email", "https://claims.example.com/email"),
        ("https://claims.example.com/email", "https://claims.example.com/email"),
        ("/https:~1~1claims.example.com~1user/email", "https://claims.example.com/user"),
    ] {
        let config = issuer(&tenant, &format!("userinfo = false\nemail_claims = [\"{path}\"]\n"));
        let holdfast = Running::start(&config, Clock::system()).await;
        assert!(login.access_token.contains_key(form), "the Action does not set {form}");
        let all = with_claims(tenant.mint().subject("auth0|1"), &login.access_token);
        let reply = holdfast.ask(&all.clone().build().unwrap()).await;
        assert_eq!(found(&reply), (200, Some("ada@example.com"), Some("claims")), "{path}: {reply:?}");
        // And it is this form that was found, not another.
        let reply = holdfast.ask(&all.remove_claim(form).build().unwrap()).await;
        assert_eq!(found(&reply), (403, None, None), "{path} without {form}: {reply:?}");
    }
    assert_eq!(tenant.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_can_require_the_login_that_the_action_writes_down() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    let ago = |secs: u64| {
        let time = UNIX_EPOCH + Duration::from_secs(tenant.time() - secs);
        humantime::format_rfc3339_millis(time).to_string()
    };
    let token = |methods: Value| {
        let authentication = json!({ "methods": methods }).to_string();
        let login =
            login(&["--audience", API, "--namespace", NAMESPACE, "--authentication", &authentication]);
        with_claims(tenant.mint(), &login.access_token).build().unwrap()
    };
    let password = json!({ "name": "pwd", "timestamp": ago(7_200) });
    let factor = json!({ "name": "mfa", "timestamp": ago(60) });
    let (weak, strong) = (token(json!([password])), token(json!([password, factor])));
    let acr = "acr=http://schemas.openid.net/pape/policies/2007/06/multi-factor";
    for (required, of_weak, of_strong) in [
        (acr, 401, 200),
        ("claim=/https:~1~1claims.example.com~1amr:mfa", 403, 200),
        ("claim=/https:~1~1claims.example.com~1amr:pwd", 200, 200),
        ("max_age=3600", 401, 200),
        ("max_age=86400", 200, 200),
    ] {
        let path = format!("/auth?{required}");
        let statuses =
            (holdfast.ask_at(&path, &weak).await.status, holdfast.ask_at(&path, &strong).await.status);
        assert_eq!(statuses, (of_weak, of_strong), "{required}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_defaults_to_the_api() {
    let tenant = tenant().await;
    let config = issuer(&tenant, &format!("userinfo = false\nemail_claims = [\"{API}/email\"]\n"));
    let holdfast = Running::start(&config, Clock::system()).await;
    let login = login(&["--audience", API]);
    let token = with_claims(tenant.mint().subject("auth0|1"), &login.access_token).build().unwrap();
    assert_eq!(found(&holdfast.ask(&token).await), (200, Some("ada@example.com"), Some("claims")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_gets_what_the_action_put_into_userinfo() {
    let tenant = tenant().await;
    let holdfast = Running::start(&issuer(&tenant, ""), Clock::system()).await;
    for (number, more, email) in [
        (1, &[][..], Some("ada@example.com")),
        (2, &["--scope", "openid"], Some("ada@example.com")),
        (3, &["--email", ""], None),
    ] {
        let login = login(&[&["--namespace", NAMESPACE][..], more].concat());
        assert_eq!(login.format, "opaque", "{more:?}");
        let sub = format!("auth0|opaque-{number}");
        tenant.add_user(User { claims: login.userinfo, ..User::new(&*sub) });
        for token in [tenant.mint().subject(&*sub).opaque(), tenant.mint().subject(&*sub).tenant_dir_jwe()] {
            let reply = holdfast.ask(&token.build().unwrap()).await;
            let expected = match email {
                Some(email) => (200, Some(email), Some("userinfo")),
                None => (403, None, None),
            };
            assert_eq!(found(&reply), expected, "{more:?}: {reply:?}");
        }
    }
}
