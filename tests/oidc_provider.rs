//! A real OpenID provider as the issuer: the npm package `oidc-provider`, certified by the OpenID Foundation.
//! It binds tokens to resources (RFC 8707) and refuses at `/userinfo` every token that is bound to one.
//!
//! `make setup` installs it. Without it these tests say that they test nothing; in CI they fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

#[path = "nginx/stack.rs"]
#[allow(dead_code, reason = "tests/nginx.rs uses all of it")]
mod stack;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stack::{Changes, Stack};
use support::dpop::Prover;
use support::node::{Node, packages};
use support::service::{request, value};
use support::{Holdfast, PATIENCE, Reply, exchange};
use tempfile::TempDir;
use tokio::net::TcpStream;

const API: &str = "https://api.example.com";

/// Every kind of character that must be encoded in a form.
const CLIENT_SECRET: &str = "s3cret: with+all %kinds&of=\"characters\n";

/// Without an email there is a 200, too.
const EMAIL_IS_OPTIONAL: &str = "[headers]\n\"X-User-Email\" = { claim = \"email\", default = \"-\" }\n";

/// A running provider; it is killed when dropped.
struct Provider {
    node: Node,
    issuer: String,
}

impl Provider {
    /// `None` if the package is not installed, which fails the test in CI.
    async fn start() -> Option<Self> {
        let packages = packages("oidc_provider", "oidc-provider")?;
        let mut node = Node::start("tests/oidc_provider/provider.mjs", &[packages], PATIENCE);
        let issuer = text(&node.answer().await, "issuer");
        Some(Self { node, issuer })
    }

    async fn command(&mut self, command: Value) -> Value {
        self.node.command(&command).await
    }

    async fn token(&mut self, command: Value) -> String {
        text(&self.command(command).await, "token")
    }

    /// A JWT of a machine for the API, by the client-credentials grant.
    async fn machine(&mut self) -> String {
        self.token(json!({ "do": "machine" })).await
    }

    /// A JWT of this user for the API, with this signature.
    async fn user(&mut self, id: &str, alg: &str) -> String {
        self.token(json!({ "do": "user", "id": id, "resource": true, "alg": alg })).await
    }

    /// A token that is opaque, for `/userinfo` alone, of this client.
    async fn opaque(&mut self, id: &str, client: &str) -> String {
        self.token(json!({ "do": "user", "id": id, "client": client })).await
    }

    /// A token that is opaque, and for the API.
    async fn opaque_for_the_api(&mut self, id: &str) -> String {
        self.token(json!({ "do": "user", "id": id, "resource": true, "format": "opaque" })).await
    }

    /// The keys that open what it encrypts for holdfast, and the secret of holdfast as a client, in private files
    /// of this directory; with the lines of `[[issuer]]` that name the keys, and the table that names the secret.
    async fn secrets(&mut self, directory: &Path) -> (String, String) {
        let jwks = self.command(json!({ "do": "jwks" })).await.to_string();
        let path = |name: &str, text: &str| {
            let file = directory.join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            file.display().to_string()
        };
        let (keys, secret) = (path("keys.json", &jwks), path("client", CLIENT_SECRET));
        (
            format!("decryption_keys = [\"{keys}\"]\n"),
            format!(
                "[issuer.introspection]\nclient_id = \"holdfast:1\"\nclient_secret_file = \"{secret}\"\n"
            ),
        )
    }

    /// How often introspection was called since this was asked the last time.
    async fn introspections(&mut self) -> u64 {
        self.command(json!({ "do": "calls" })).await["introspections"].as_u64().unwrap()
    }

    /// How often `/userinfo` was called since this was asked the last time.
    async fn userinfo_calls(&mut self) -> u64 {
        self.command(json!({ "do": "calls" })).await["calls"].as_u64().unwrap()
    }

    /// The holdfast binary before this provider; `more` is the rest of the configuration.
    async fn holdfast(&self, more: &str) -> (TempDir, Holdfast) {
        self.holdfast_with("", more).await
    }

    /// The same with further lines of `[auth]`.
    async fn holdfast_with(&self, auth: &str, more: &str) -> (TempDir, Holdfast) {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[auth]\nlisten = [\"127.0.0.1:0\"]\n{auth}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[issuer]]\nurl = \"{}\"\naudience = [\"{API}\"]\n\
             algorithms = [\"RS256\", \"PS256\", \"ES256\", \"EdDSA\"]\n{more}",
            self.issuer
        );
        let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        (directory, holdfast)
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
}

fn email(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status, value(reply, "x-user-email"))
}

async fn answered(holdfast: &Holdfast, reason: &str) -> u64 {
    holdfast.counted("holdfast_requests_total{", &format!("reason=\"{reason}\"")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_token_is_verified_without_a_call_and_lacks_only_an_email() {
    let Some(mut provider) = Provider::start().await else { return };
    let token = provider.machine().await;
    let (_required, holdfast) = provider.holdfast("").await;
    assert_eq!(holdfast.ask(&token).await.status, 403, "{}", holdfast.log());
    assert_eq!(answered(&holdfast, "missing_claim").await, 1);
    let (_optional, holdfast) = provider.holdfast(EMAIL_IS_OPTIONAL).await;
    let reply = holdfast.ask(&token).await;
    assert_eq!(email(&reply), (200, Some("-")), "{reply:?}");
    assert_eq!(value(&reply, "x-user-id"), Some("machine"));
    assert_eq!(provider.userinfo_calls().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_token_that_userinfo_refuses_is_good_and_has_no_email() {
    let Some(mut provider) = Provider::start().await else { return };
    let token = provider.user("alice", "RS256").await;
    let (_required, required) = provider.holdfast("").await;
    let (_optional, optional) = provider.holdfast(EMAIL_IS_OPTIONAL).await;
    for round in 0..3 {
        assert_eq!(required.ask(&token).await.status, 403, "round {round}: {}", required.log());
        let reply = optional.ask(&token).await;
        assert_eq!(email(&reply), (200, Some("-")), "round {round}: {reply:?}");
        assert_eq!(value(&reply, "x-user-id"), Some("alice"));
    }
    assert_eq!(answered(&required, "missing_claim").await, 3);
    assert_eq!(provider.userinfo_calls().await, 2, "each of the two remembers that the token has no email");
}

/// A token whose `aud` lists the endpoint is one that `/userinfo` judges: what it refuses is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_counts_for_a_token_whose_audience_lists_userinfo() {
    let Some(mut provider) = Provider::start().await else { return };
    let aud = json!([API, format!("{}/me", provider.issuer)]);
    let token = provider.token(json!({ "do": "user", "id": "alice", "resource": true, "aud": aud })).await;
    let (_directory, holdfast) = provider.holdfast(EMAIL_IS_OPTIONAL).await;
    assert_eq!(holdfast.ask(&token).await.status, 401, "{}", holdfast.log());
    assert_eq!(provider.userinfo_calls().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_is_judged_by_userinfo() {
    let Some(mut provider) = Provider::start().await else { return };
    let (_directory, holdfast) = provider.holdfast("").await;
    let token = provider.token(json!({ "do": "user", "id": "alice" })).await;
    for _ in 0..2 {
        let reply = holdfast.ask(&token).await;
        assert_eq!(email(&reply), (200, Some("alice@example.com")), "{reply:?}");
        assert_eq!(value(&reply, "x-user-id"), Some("alice"));
    }
    assert_eq!(provider.userinfo_calls().await, 1);
    // A token that is bound to the API is refused there, and only the issuer can judge it.
    let bound = json!({ "do": "user", "id": "alice", "resource": true, "format": "opaque" });
    let bound = provider.token(bound).await;
    assert_eq!(holdfast.ask(&bound).await.status, 401);
    let unknown = "x".repeat(bound.len());
    assert_eq!(holdfast.ask(&unknown).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_signature_that_the_provider_makes_is_verified() {
    let Some(mut provider) = Provider::start().await else { return };
    let (_directory, holdfast) = provider.holdfast(EMAIL_IS_OPTIONAL).await;
    for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
        let token = provider.user("alice", alg).await;
        let reply = holdfast.ask(&token).await;
        assert_eq!((reply.status, value(&reply, "x-user-id")), (200, Some("alice")), "{alg}: {reply:?}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{other}{}", &signature[1..]);
        assert_eq!(holdfast.ask(&forged).await.status, 401, "{alg}");
    }
}

/// A token that the provider has bound to the key of a DPoP proof (RFC 9449 §5).
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_provider_bound_to_a_key_passes_with_a_proof_of_that_key_alone() {
    let Some(mut provider) = Provider::start().await else { return };
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
    let (_directory, holdfast) = provider.holdfast_with(auth, EMAIL_IS_OPTIONAL).await;
    let (prover, stranger) = (Prover::new(), Prover::new());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at_the_provider = prover.proof("", "POST", &format!("{}/token", provider.issuer), now());
    let at_the_provider = at_the_provider.without_claim("ath").sign();
    let token = provider.token(json!({ "do": "machine", "dpop": at_the_provider })).await;
    let url = "https://api.example.com/orders";
    let ask = async |lines: &str| {
        let original = "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\n\
                        X-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders\r\n";
        let stream = TcpStream::connect(holdfast.auth_tcp()).await.unwrap();
        exchange(stream, &request("/auth", &format!("{original}{lines}"))).await
    };
    for round in ["first", "again"] {
        let line = format!("Authorization: DPoP {token}\r\n");
        for lines in [
            format!("Authorization: Bearer {token}\r\n"),
            line.clone(),
            format!("{line}DPoP: {at_the_provider}\r\n"),
            format!("{line}DPoP: {}\r\n", stranger.proof(&token, "GET", url, now()).sign()),
        ] {
            assert_eq!(ask(&lines).await.status, 401, "{round}: {lines}");
        }
        let good = format!("{line}DPoP: {}\r\n", prover.proof(&token, "GET", url, now()).sign());
        let reply = ask(&good).await;
        let who = (reply.status, value(&reply, "x-user-id"));
        assert_eq!(who, (200, Some("machine")), "{round}: {reply:?} {}", holdfast.log());
        assert_eq!(ask(&good).await.status, 401, "{round}: twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_back_with_other_keys_is_followed() {
    let Some(mut provider) = Provider::start().await else { return };
    let (_directory, holdfast) = provider.holdfast(EMAIL_IS_OPTIONAL).await;
    let old = provider.user("alice", "RS256").await;
    assert_eq!(holdfast.ask(&old).await.status, 200);
    provider.command(json!({ "do": "rotate" })).await;
    for alg in ["RS256", "ES256"] {
        let token = provider.user("bob", alg).await;
        let reply = holdfast.ask(&token).await;
        assert_eq!((reply.status, value(&reply, "x-user-id")), (200, Some("bob")), "{alg}: {reply:?}");
    }
}

/// OpenID Connect Back-Channel Logout 1.0, with the logout token that the provider makes (`typ: logout+jwt`).
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_that_the_provider_sends_ends_the_session_and_the_tokens_that_name_none() {
    let Some(mut provider) = Provider::start().await else { return };
    let more = format!("[backchannel_logout]\naudience = [\"web\"]\n{EMAIL_IS_OPTIONAL}");
    let (_directory, holdfast) = provider.holdfast(&more).await;
    let of_session = |sid| json!({ "do": "user", "id": "alice", "resource": true, "sid": sid });
    let jwt = provider.user("alice", "RS256").await;
    let opaque = provider.token(json!({ "do": "user", "id": "alice" })).await;
    let ended = provider.token(of_session("s1")).await;
    let other = provider.token(of_session("s2")).await;
    let bob = provider.user("bob", "RS256").await;
    for token in [&jwt, &opaque, &ended, &other, &bob] {
        assert_eq!(holdfast.ask(token).await.status, 200, "{}", holdfast.log());
    }
    let uri = format!("http://{}/backchannel-logout", holdfast.auth[0]);
    let logout = json!({ "do": "logout", "id": "alice", "sid": "s1", "uri": uri });
    assert_eq!(provider.command(logout).await, json!({}), "{}", holdfast.log());
    for (what, token, status) in [
        ("JWT", &jwt, 401),
        ("opaque", &opaque, 401),
        ("of the session", &ended, 401),
        ("of another session", &other, 200),
        ("of another user", &bob, 200),
    ] {
        assert_eq!(holdfast.ask(token).await.status, status, "{what}: {}", holdfast.log());
    }
    // A token of the same second counts as issued before the logout.
    support::until("a token that is issued later passes", async || {
        let later = provider.user("alice", "RS256").await;
        (holdfast.ask(&later).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(holdfast.ask(&jwt).await.status, 401, "the login since does not revive it");
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_tells_audience_scope_and_end_of_an_opaque_token_and_userinfo_its_email() {
    let Some(mut provider) = Provider::start().await else { return };
    let files = tempfile::tempdir().unwrap();
    let (_, introspection) = provider.secrets(files.path()).await;
    for method in ["client_secret_basic", "client_secret_post"] {
        provider.command(json!({ "do": "auth_method", "method": method })).await;
        let (_directory, holdfast) = provider.holdfast(&(introspection.clone() + EMAIL_IS_OPTIONAL)).await;
        provider.introspections().await;
        let (api, plain) =
            (provider.opaque_for_the_api("alice").await, provider.opaque("alice", "web").await);
        let ask = async |token: &str, path: &str| {
            let line = format!("Authorization: Bearer {token}\r\n");
            exchange(TcpStream::connect(holdfast.auth_tcp()).await.unwrap(), &request(path, &line)).await
        };
        // One is bound to the API, and `/userinfo` refuses it; the other is for `/userinfo`, and names no audience.
        for (token, found, checked) in [(&api, "-", 200), (&plain, "alice@example.com", 403)] {
            let reply = ask(token, "/auth?scope=openid").await;
            assert_eq!(email(&reply), (200, Some(found)), "{method}: {reply:?} {}", holdfast.log());
            assert_eq!(value(&reply, "x-user-id"), Some("alice"));
            assert_eq!(ask(token, "/auth?audience=checked").await.status, checked, "{method}");
        }
        assert_eq!(provider.introspections().await, 2, "{method}");
        // A new instance, which remembers nothing: the provider has ended the token meanwhile.
        provider.command(json!({ "do": "revoke", "token": api })).await;
        let (_other, other) = provider.holdfast(&(introspection.clone() + EMAIL_IS_OPTIONAL)).await;
        for token in [&api, &"x".repeat(api.len())] {
            assert_eq!(other.ask(token).await.status, 401, "{method}: {}", other.log());
        }
        assert_eq!(answered(&other, "issuer_rejects").await, 2, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn userinfo_that_is_signed_or_encrypted_counts_if_it_verifies_and_is_no_answer_if_not() {
    let Some(mut provider) = Provider::start().await else { return };
    let files = tempfile::tempdir().unwrap();
    let (keys, _) = provider.secrets(files.path()).await;
    let (_directory, holdfast) = provider.holdfast(&keys).await;
    for client in ["signed-RS256", "signed-PS256", "signed-ES256", "signed-EdDSA", "sealed"] {
        let token = provider.opaque("alice", client).await;
        let reply = holdfast.ask(&token).await;
        assert_eq!(email(&reply), (200, Some("alice@example.com")), "{client}: {reply:?} {}", holdfast.log());
        assert_eq!(value(&reply, "x-user-id"), Some("alice"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let iss = provider.issuer.clone();
    let good =
        json!({ "iss": iss, "aud": "any", "sub": "alice", "email": "alice@example.com", "exp": now + 60 });
    let with = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        payload
    };
    for (what, header, payload, status) in [
        ("good", json!({}), good.clone(), 200),
        ("another issuer", json!({}), with("iss", "https://evil.example.com".into()), 503),
        ("no issuer", json!({}), with("iss", Value::Null), 503),
        ("expired", json!({}), with("exp", (now - 60).into()), 503),
        ("no subject", json!({}), with("sub", Value::Null), 503),
        ("an ID token", json!({}), with("nonce", "n".into()), 503),
        ("an access token", json!({ "typ": "at+jwt" }), good.clone(), 503),
        ("no signature", json!({ "alg": "none" }), good.clone(), 503),
        ("another algorithm", json!({ "alg": "HS256" }), good.clone(), 503),
        ("not its algorithm", json!({ "alg": "PS256" }), good.clone(), 503),
        ("an unknown key", json!({ "kid": "unknown" }), good.clone(), 503),
    ] {
        provider.command(json!({ "do": "userinfo", "header": header, "payload": payload })).await;
        let (_directory, holdfast) = provider.holdfast("").await;
        let token = provider.opaque("alice", "signed-RS256").await;
        let reply = holdfast.ask(&token).await;
        assert_eq!(reply.status, status, "{what}: {reply:?} {}", holdfast.log());
        if status == 503 {
            assert_eq!(answered(&holdfast, "garbage").await, 1, "{what}");
            if what != "no subject" {
                holdfast.told("/userinfo gives no usable answer").await;
            }
        }
    }
    // What is encrypted to a key that is not here is no answer, either.
    provider.command(json!({ "do": "userinfo" })).await;
    let (_directory, without_keys) = provider.holdfast("").await;
    let token = provider.opaque("alice", "sealed").await;
    assert_eq!(without_keys.ask(&token).await.status, 503);
    without_keys.told("no key in decryption_keys opens it").await;
    // Keys that the provider has changed since are fetched for it.
    provider.command(json!({ "do": "rotate" })).await;
    let token = provider.opaque("alice", "signed-ES256").await;
    assert_eq!(email(&holdfast.ask(&token).await), (200, Some("alice@example.com")), "{}", holdfast.log());
}

/// The example for nginx, with the provider in place of Auth0.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_token_of_the_provider_passes_through_nginx_and_no_forged_one_does() {
    let Some(mut provider) = Provider::start().await else { return };
    let files = tempfile::tempdir().unwrap();
    let (keys, introspection) = provider.secrets(files.path()).await;
    let algorithms = "algorithms = [\"RS256\", \"PS256\", \"ES256\", \"EdDSA\"]\n";
    let stack = async |introspection: &str| {
        let holdfast = format!("{algorithms}{keys}{introspection}{EMAIL_IS_OPTIONAL}");
        let issuer = Some(provider.issuer.clone());
        Stack::start_with(Changes { holdfast, issuer, ..Changes::default() }).await
    };
    let (by_userinfo, by_introspection) = (stack("").await, stack(&introspection).await);
    let mut tokens = vec![("of a machine".to_owned(), provider.machine().await, "machine")];
    for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
        tokens.push((alg.to_owned(), provider.user("alice", alg).await, "alice"));
    }
    for (alg, enc) in [
        ("RSA-OAEP-256", "A256GCM"),
        ("ECDH-ES", "A256GCM"),
        ("ECDH-ES+A256KW", "A128CBC-HS256"),
        ("A256KW", "A256GCM"),
        ("dir", "A256GCM"),
    ] {
        let encrypt = json!({ "alg": alg, "enc": enc });
        let command = json!({ "do": "user", "id": "alice", "resource": true, "encrypt": encrypt });
        tokens.push((format!("{alg} {enc}"), provider.token(command).await, "alice"));
    }
    for (client, what) in
        [("web", "opaque"), ("signed-ES256", "signed userinfo"), ("sealed", "sealed userinfo")]
    {
        tokens.push((what.to_owned(), provider.opaque("alice", client).await, "alice"));
    }
    let mut asked = vec![(&by_userinfo, tokens.clone())];
    tokens.push(("opaque, for the API".to_owned(), provider.opaque_for_the_api("alice").await, "alice"));
    asked.push((&by_introspection, tokens));
    for (stack, tokens) in asked {
        for front in &stack.fronts {
            for (what, token, subject) in &tokens {
                let page = front.get(token).await;
                let line = format!("X-User-Id: {subject}");
                assert!(page.status == 200 && page.body.lines().any(|own| own == line), "{what}: {page:?}");
                let (start, end) = token.split_at(token.len() - 8);
                let forged = format!("{start}{}", end.chars().rev().collect::<String>());
                assert_eq!(front.get(&forged).await.status, 401, "{what}, forged");
            }
        }
    }
    provider.command(json!({ "do": "rotate" })).await;
    for alg in ["RS256", "EdDSA"] {
        let token = provider.user("bob", alg).await;
        assert_eq!(by_userinfo.fronts[0].get(&token).await.status, 200, "{alg}, under a new key");
    }
}
