//! A token that is bound to its sender is worth nothing without the sender's key: not at first sight, not from
//! memory, not in an outage. RFC 9449 (DPoP), RFC 8705 (mTLS).

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "shared/scene.rs"]
mod fleet;
mod support;

use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread::available_parallelism;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certificates::Authority;
use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::{Endpoint, Fault, Tenant, TokenBuilder};
use josekit::jwk::Jwk;
use josekit::jws::{ES256, HS256, JwsSigner, RS256};
use openssl::x509::X509;
use serde_json::{Value, json};
use support::Reply;
use support::dpop::{Proof, Prover, sha256};
use support::service::{Running, decryption_keys, held_clock, issuer, request, tenant, value};

const AUTH: &str = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
const URL: &str = "https://api.example.com/orders";
const EMAIL: &str = "alice@example.com";

/// A tenant whose time stands still, a holdfast in front of it, and a sender.
struct Scene {
    tenant: Tenant,
    clock: Clock,
    holdfast: Running,
    prover: Prover,
}

impl Scene {
    async fn new(more: &str) -> Self {
        Self::with(AUTH, more, "").await
    }

    /// `more` are lines of the issuer, `rest` is what else is configured.
    async fn with(auth: &str, more: &str, rest: &str) -> Self {
        Self::of(tenant().await, auth, more, rest).await
    }

    async fn of(tenant: Tenant, auth: &str, more: &str, rest: &str) -> Self {
        let clock = held_clock(&tenant);
        tenant.set_time(Some(clock.now().as_secs()));
        let config = format!("{}{rest}", issuer(&tenant, more));
        let holdfast = Running::start_with_auth(auth, &config, clock.clone()).await;
        Self { tenant, clock, holdfast, prover: Prover::new() }
    }

    /// A token with an email that is bound to the sender's key.
    fn bound(&self) -> TokenBuilder {
        self.tenant.mint().email_direct(EMAIL).claim("cnf", self.prover.cnf())
    }

    /// A good proof for a request with this token.
    fn proof(&self, token: &str) -> Proof<'_> {
        self.prover.proof(token, "GET", URL, self.clock.now().as_secs())
    }

    async fn ask(&self, lines: &str) -> Reply {
        ask(&self.holdfast, lines).await
    }

    async fn ask_with(&self, token: &str, proof: &str) -> Reply {
        self.ask(&dpop(token, proof)).await
    }

    /// Moves both clocks.
    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.tenant.set_time(Some(self.clock.now().as_secs()));
    }
}

/// Sends a GET of [`URL`] with these further lines.
async fn ask(holdfast: &Running, lines: &str) -> Reply {
    let original = "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders?page=2\r\n";
    holdfast.raw(&request("/auth", &format!("{original}{lines}"))).await
}

fn dpop(token: &str, proof: &str) -> String {
    format!("Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
}

fn assert_alice(reply: &Reply, what: &str) {
    assert_eq!((reply.status, value(reply, "x-user-email")), (200, Some(EMAIL)), "{what}: {reply:?}");
}

fn assert_unproven(reply: &Reply, reason: &str, what: &str) {
    assert_eq!(reply.status, 401, "{what}: {reply:?}");
    let challenge = value(reply, "www-authenticate").unwrap_or_default();
    assert!(challenge.contains(&format!("({reason})")), "{what}: {challenge} instead of {reason}");
    assert_eq!(value(reply, "x-user-email"), None, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_passes_with_a_proof_for_each_request_and_never_without() {
    let scene = Scene::new("").await;
    let token = scene.bound().build().unwrap();
    for round in ["at first sight", "from memory", "from memory again"] {
        assert_unproven(
            &scene.ask(&format!("Authorization: DPoP {token}\r\n")).await,
            "proof_missing",
            round,
        );
        let bearer = format!("Authorization: Bearer {token}\r\n");
        assert_unproven(&scene.ask(&bearer).await, "bound_as_bearer", round);
        let proof = scene.proof(&token).sign();
        // A good proof does not make a bearer token of it.
        let reply = scene.ask(&format!("{bearer}DPoP: {proof}\r\n")).await;
        assert_unproven(&reply, "bound_as_bearer", round);
        assert_alice(&scene.ask_with(&token, &proof).await, round);
        assert_unproven(&scene.ask_with(&token, &proof).await, "proof_replayed", round);
    }
    assert_eq!((scene.holdfast.answered("judged").await, scene.holdfast.answered("memory").await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_tells_the_client_what_it_can_do() {
    let scene = Scene::new("").await;
    let token = scene.bound().build().unwrap();
    let algorithms = r#"algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA""#;
    for (lines, error) in [
        (format!("Authorization: DPoP {token}\r\n"), "invalid_dpop_proof"),
        (format!("Authorization: Bearer {token}\r\n"), "invalid_token"),
        (dpop(&token, &Prover::new().proof(&token, "GET", URL, 0).sign()), "invalid_token"),
        (dpop(&token, "x"), "invalid_dpop_proof"),
    ] {
        let reply = scene.ask(&lines).await;
        let challenge = value(&reply, "www-authenticate").unwrap().to_owned();
        assert!(challenge.starts_with("DPoP "), "{challenge}");
        assert!(challenge.contains(algorithms), "{challenge}");
        assert!(challenge.contains(&format!("error=\"{error}\"")), "{challenge}");
        assert_eq!(reply.status, 401);
    }
}

/// Another RSA or EC key, as a signer and as a JWK.
fn rsa() -> (Jwk, Value) {
    let key = Jwk::generate_rsa_key(2048).unwrap();
    let public = Value::Object(key.to_public_key().unwrap().into());
    (key, public)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_of_a_proof_is_made_at_first_sight_and_from_memory() {
    let scene = Scene::new("").await;
    let token = scene.bound().build().unwrap();
    let other_token = scene.bound().build().unwrap();
    let now = scene.clock.now().as_secs();
    let good = || scene.proof(&token);
    let hmac = HS256.signer_from_bytes([7; 64]).unwrap();
    let (rsa, rsa_public) = rsa();
    let rsa = RS256.signer_from_jwk(&rsa).unwrap();
    let stranger = Prover::new();
    let stranger_key: Box<dyn JwsSigner> = Box::new(
        ES256
            .signer_from_jwk(&Jwk::from_map(stranger.private().as_object().unwrap().clone()).unwrap())
            .unwrap(),
    );
    let mut with_alg = scene.prover.public();
    with_alg["alg"] = "ES384".into();
    let unsigned = |proof: Proof<'_>| {
        let signed = proof.sign();
        let (input, _) = signed.rsplit_once('.').unwrap();
        format!("{input}.")
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("no JWT", "x".to_owned(), "proof_malformed"),
        ("a JWE", "a.b.c.d.e".to_owned(), "proof_malformed"),
        ("the token itself", token.clone(), "proof_malformed"),
        ("too long", good().claim("x", "x".repeat(9_000)).sign(), "proof_malformed"),
        ("typ JWT", good().header("typ", "JWT").sign(), "proof_malformed"),
        ("typ at+jwt", good().header("typ", "at+jwt").sign(), "proof_malformed"),
        ("no typ", good().without_header("typ").sign(), "proof_malformed"),
        ("crit", good().header("crit", json!(["b64"])).sign(), "proof_malformed"),
        ("alg none", unsigned(good().header("alg", "none")), "proof_malformed"),
        ("alg none, signed", good().header("alg", "none").sign(), "proof_algorithm"),
        ("alg HS256", good().header("alg", "HS256").sign_with(&hmac), "proof_algorithm"),
        ("alg es256", good().header("alg", "es256").sign(), "proof_algorithm"),
        ("alg of another key type", good().header("alg", "RS256").sign(), "proof_key"),
        ("alg of another curve", good().header("alg", "ES384").sign(), "proof_key"),
        ("the key's own alg differs", good().header("jwk", with_alg).sign(), "proof_key"),
        ("no jwk", good().without_header("jwk").sign(), "proof_key"),
        ("jwk null", good().header("jwk", Value::Null).sign(), "proof_key"),
        ("a private jwk", good().header("jwk", scene.prover.private()).sign(), "proof_key"),
        ("a symmetric jwk", good().header("jwk", json!({"kty": "oct", "k": "AAAA"})).sign(), "proof_key"),
        (
            "a short RSA key",
            good()
                .header("jwk", json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}))
                .header("alg", "RS256")
                .sign_with(&rsa),
            "proof_key",
        ),
        ("another signer", good().sign_with(&*stranger_key), "proof_signature"),
        ("the key of somebody else", stranger.proof(&token, "GET", URL, now).sign(), "proof_other_key"),
        (
            "an RSA key of somebody else",
            good().header("alg", "RS256").header("jwk", rsa_public).sign_with(&rsa),
            "proof_other_key",
        ),
        ("no jti", good().without_claim("jti").sign(), "proof_malformed"),
        ("an empty jti", good().claim("jti", "").sign(), "proof_malformed"),
        ("a jti that is a number", good().claim("jti", 7).sign(), "proof_malformed"),
        ("a long jti", good().claim("jti", "j".repeat(513)).sign(), "proof_malformed"),
        ("no htm", good().without_claim("htm").sign(), "proof_malformed"),
        ("another method", good().claim("htm", "POST").sign(), "proof_method"),
        ("the method in small letters", good().claim("htm", "get").sign(), "proof_method"),
        ("no htu", good().without_claim("htu").sign(), "proof_malformed"),
        ("another path", good().claim("htu", "https://api.example.com/order").sign(), "proof_url"),
        ("another host", good().claim("htu", "https://evil.example/orders").sign(), "proof_url"),
        ("another port", good().claim("htu", "https://api.example.com:8443/orders").sign(), "proof_url"),
        ("another scheme", good().claim("htu", "http://api.example.com/orders").sign(), "proof_url"),
        ("a trailing dot", good().claim("htu", "https://api.example.com./orders").sign(), "proof_url"),
        ("a trailing slash", good().claim("htu", "https://api.example.com/orders/").sign(), "proof_url"),
        ("an encoded slash", good().claim("htu", "https://api.example.com%2Forders").sign(), "proof_url"),
        ("user information", good().claim("htu", "https://a@api.example.com/orders").sign(), "proof_url"),
        ("a relative URL", good().claim("htu", "/orders").sign(), "proof_url"),
        ("no iat", good().without_claim("iat").sign(), "proof_malformed"),
        ("iat a text", good().claim("iat", now.to_string()).sign(), "proof_malformed"),
        ("iat negative", good().claim("iat", -1).sign(), "proof_malformed"),
        ("too old", good().claim("iat", now - 61).sign(), "proof_time"),
        ("from the future", good().claim("iat", now + 31).sign(), "proof_time"),
        ("no ath", good().without_claim("ath").sign(), "proof_malformed"),
        ("for another token", scene.proof(&other_token).sign(), "proof_token"),
        ("ath in hexadecimal", good().claim("ath", "ab".repeat(32)).sign(), "proof_token"),
    ];
    for round in ["at first sight", "from memory"] {
        for (what, proof, reason) in &cases {
            assert_unproven(&scene.ask_with(&token, proof).await, reason, &format!("{what}, {round}"));
        }
        let one = good().sign();
        let two = good().sign();
        for (what, lines, reason) in [
            ("two headers", format!("{}DPoP: {two}\r\n", dpop(&token, &one)), "proof_repeated"),
            ("the same twice", format!("{}DPoP: {one}\r\n", dpop(&token, &one)), "proof_repeated"),
            ("two in one line", dpop(&token, &format!("{one}, {two}")), "proof_malformed"),
            ("an empty header", dpop(&token, ""), "proof_malformed"),
            ("bytes that are no text", dpop(&token, "\u{e9}"), "proof_malformed"),
        ] {
            assert_unproven(&scene.ask(&lines).await, reason, &format!("{what}, {round}"));
        }
        // None of that used up a proof, or made a no of the token.
        assert_alice(&scene.ask_with(&token, &one).await, round);
    }
    for (what, proof) in [
        ("typ with its tree", good().header("typ", "application/dpop+jwt")),
        ("typ in capitals", good().header("typ", "DPOP+JWT")),
        ("a query", good().claim("htu", format!("{URL}?other=1#f"))),
        ("another case", good().claim("htu", "HTTPS://API.Example.COM/orders")),
        ("the default port", good().claim("htu", "https://api.example.com:443/orders")),
        ("percent-encoding", good().claim("htu", "https://api.example.com/%6frders")),
        ("dot segments", good().claim("htu", "https://api.example.com/./x/../orders")),
        ("as old as may be", good().claim("iat", now - 60)),
        ("as new as may be", good().claim("iat", now + 30)),
        ("a fraction of a second", good().claim("iat", now as f64 + 0.5)),
        ("further claims", good().claim("nonce", "n").claim("x", json!({}))),
        ("a kid and use", good().header("kid", "k")),
    ] {
        assert_alice(&scene.ask_with(&token, &proof.sign()).await, what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_good_once_for_as_long_as_it_is_good() {
    let scene = Scene::new("").await;
    let token = scene.bound().build().unwrap();
    let now = scene.clock.now().as_secs();
    let early = scene.proof(&token).claim("iat", now + 30).sign();
    let proof = scene.proof(&token).sign();
    assert_alice(&scene.ask_with(&token, &early).await, "30 s early");
    assert_alice(&scene.ask_with(&token, &proof).await, "once");
    for waited in [60, 30] {
        scene.pass(Duration::from_secs(waited));
        assert_unproven(&scene.ask_with(&token, &early).await, "proof_replayed", "the early one");
    }
    assert_unproven(&scene.ask_with(&token, &proof).await, "proof_time", "after its time");
    // The same id with another key is another proof.
    let other = Prover::new();
    let second = scene.tenant.mint().email_direct(EMAIL).claim("cnf", other.cnf()).build().unwrap();
    let now = scene.clock.now().as_secs();
    for (prover, token) in [(&scene.prover, &token), (&other, &second)] {
        let proof = prover.proof(token, "GET", URL, now).claim("jti", "same").sign();
        assert_alice(&scene.ask_with(token, &proof).await, "the same id");
    }
    // A reload forgets no proof.
    let proof = scene.proof(&token).sign();
    assert_alice(&scene.ask_with(&token, &proof).await, "before the reload");
    scene.holdfast.service.reload().unwrap();
    assert_unproven(&scene.ask_with(&token, &proof).await, "proof_replayed", "after the reload");
    assert_alice(&scene.ask_with(&token, &scene.proof(&token).sign()).await, "a new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_bound_to_a_key_takes_no_proof() {
    let scene = Scene::new("").await;
    let signed = scene.tenant.mint().email_direct(EMAIL).build().unwrap();
    let opaque = scene.tenant.mint().opaque().build().unwrap();
    for token in [&signed, &opaque] {
        for round in ["first", "again"] {
            let proof = scene.proof(token).sign();
            let (bearer, scheme) =
                (format!("Authorization: Bearer {token}\r\n"), format!("Authorization: DPoP {token}\r\n"));
            for lines in [
                scheme,
                dpop(token, &proof),
                format!("{bearer}DPoP: {proof}\r\n"),
                format!("{bearer}DPoP: \r\n"),
            ] {
                assert_unproven(&scene.ask(&lines).await, "not_bound", round);
            }
            assert_alice(&scene.ask(&bearer).await, round);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_cannot_be_checked_is_a_no() {
    let scene = Scene::new("").await;
    let jkt = scene.prover.cnf()["jkt"].clone();
    for (cnf, reason) in [
        (json!({ "jwk": scene.prover.public() }), "binding_unknown"),
        (json!({ "jkt": jkt, "x5u": "https://a" }), "binding_unknown"),
        (json!({ "kid": "k" }), "binding_unknown"),
        (json!({}), "claim_unfit"),
        (json!({ "jkt": 7 }), "claim_unfit"),
        (Value::Null, "claim_unfit"),
    ] {
        let token = scene.tenant.mint().email_direct(EMAIL).claim("cnf", cnf.clone()).build().unwrap();
        let before = scene.holdfast.answered(reason).await;
        for lines in [format!("Authorization: Bearer {token}\r\n"), dpop(&token, &scene.proof(&token).sign())]
        {
            let reply = scene.ask(&lines).await;
            assert_eq!(reply.status, 401, "{cnf}: {reply:?}");
            assert!(value(&reply, "www-authenticate").unwrap().contains("invalid_token"), "{cnf}");
        }
        assert_eq!(scene.holdfast.answered(reason).await - before, 2, "{cnf}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_bindings_are_ignored_gives_bearer_tokens() {
    let scene = Scene::new("sender_constrained = \"ignore\"\n").await;
    let unknown = scene.tenant.mint().email_direct(EMAIL).claim("cnf", json!({ "x": 1 })).build().unwrap();
    for token in
        [scene.bound().build().unwrap(), unknown, scene.tenant.mint().email_direct(EMAIL).build().unwrap()]
    {
        for round in ["first", "again"] {
            for lines in [
                format!("Authorization: Bearer {token}\r\n"),
                format!("Authorization: DPoP {token}\r\n"),
                format!("Authorization: Bearer {token}\r\nDPoP: x\r\nDPoP: y\r\n"),
                dpop(&token, "x"),
            ] {
                assert_alice(&scene.ask(&lines).await, round);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_begins_to_verify_forgets_answers_without_a_proof() {
    let (tenant, prover) = (tenant().await, Prover::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    let configure = |more: &str| {
        let listen = "listen = [\"127.0.0.1:0\"]\n";
        let text =
            format!("[auth]\n{listen}{AUTH}\n[admin]\nlisten = \"127.0.0.1:0\"\n{}", issuer(&tenant, more));
        std::fs::write(file.path(), text).unwrap();
    };
    configure("sender_constrained = \"ignore\"\n");
    let source = Source { file: Some(file.path().to_owned()), ..Source::default() };
    let service = Service::start(source, Clock::system()).await.unwrap();
    let (auth, admin) =
        (service.auth_addresses()[0].parse().unwrap(), service.admin_address().parse().unwrap());
    let holdfast = Running { service, auth, admin };
    let token = tenant.mint().email_direct(EMAIL).claim("cnf", prover.cnf()).build().unwrap();
    assert_alice(&holdfast.ask(&token).await, "ignored");
    assert_alice(&holdfast.ask(&token).await, "ignored, from memory");
    configure("");
    holdfast.service.reload().unwrap();
    assert_unproven(&holdfast.ask(&token).await, "bound_as_bearer", "verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_token_is_bound_by_the_claims_inside() {
    let tenant = tenant().await;
    let (_files, keys) = decryption_keys(&tenant);
    let scene = Scene::of(tenant, AUTH, &format!("{keys}bare_claims = true\n"), "").await;
    for token in [
        scene.bound().nested_jwe().build().unwrap(),
        scene.bound().bare_jwe().nested_jwe_with("dir", "A256GCM").build().unwrap(),
    ] {
        for round in ["first", "again"] {
            let bearer = format!("Authorization: Bearer {token}\r\n");
            assert_unproven(&scene.ask(&bearer).await, "bound_as_bearer", round);
            assert_alice(&scene.ask_with(&token, &scene.proof(&token).sign()).await, round);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_issuer_says_of_a_foreign_token_binds_it_too() {
    let scene = Scene::new("").await;
    let (bound, unknown) =
        (scene.tenant.mint().opaque().build().unwrap(), scene.tenant.mint().opaque().build().unwrap());
    let says = |cnf: Value| {
        let body = json!({ "sub": "auth0|alice", "email": EMAIL, "cnf": cnf }).to_string();
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        scene.tenant.set_fault(Endpoint::Userinfo, Fault::Custom { status: 200, headers, body });
    };
    says(scene.prover.cnf());
    for round in ["first", "again"] {
        let bearer = format!("Authorization: Bearer {bound}\r\n");
        assert_unproven(&scene.ask(&bearer).await, "bound_as_bearer", round);
        assert_alice(&scene.ask_with(&bound, &scene.proof(&bound).sign()).await, round);
    }
    says(json!({ "other": 1 }));
    for lines in
        [format!("Authorization: Bearer {unknown}\r\n"), dpop(&unknown, &scene.proof(&unknown).sign())]
    {
        assert_unproven(&scene.ask(&lines).await, "binding_unknown", "first and again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_compared_with_what_a_trusted_peer_tells_and_with_nothing_else() {
    let untrusted = Scene::with("", "", "").await;
    let token = untrusted.bound().build().unwrap();
    for round in ["first", "again"] {
        let reply = untrusted.ask_with(&token, &untrusted.proof(&token).sign()).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (403, None), "{round}: {reply:?}");
    }
    assert_eq!(untrusted.holdfast.answered("untrusted_peer").await, 2);

    for (forwarded, lines, good) in [
        (
            "x-forwarded",
            "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders\r\n",
            true,
        ),
        (
            "x-forwarded",
            "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: wss\r\nX-Forwarded-Host: api.example.com:443\r\nX-Forwarded-Uri: /orders\r\n",
            true,
        ),
        (
            "x-forwarded",
            "X-Forwarded-Method: GET\r\nX-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders\r\n",
            false,
        ),
        (
            "x-forwarded",
            "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders\r\n",
            false,
        ),
        (
            "x-forwarded",
            "X-Original-Method: GET\r\nX-Original-Proto: https\r\nX-Original-Port: 443\r\nX-Original-Host: api.example.com\r\nX-Original-URI: /orders\r\n",
            false,
        ),
        (
            "x-original",
            "X-Original-Method: GET\r\nX-Original-Proto: https\r\nX-Original-Port: 443\r\nX-Original-Host: api.example.com\r\nX-Original-URI: /orders?x\r\n",
            true,
        ),
        (
            "x-original",
            "X-Original-Method: GET\r\nX-Original-Proto: https\r\nX-Original-Host: api.example.com:443\r\nX-Original-URI: /orders?x\r\n",
            true,
        ),
        (
            "x-original",
            "X-Original-Method: GET\r\nX-Original-Proto: https\r\nX-Original-Host: api.example.com\r\nX-Original-URI: /orders?x\r\n",
            true,
        ),
        (
            "x-original",
            "X-Original-Method: GET\r\nX-Original-Proto: https\r\nX-Original-Port: 443\r\nX-Original-Port: 443\r\nX-Original-Host: api.example.com\r\nX-Original-URI: /orders?x\r\n",
            false,
        ),
        (
            "x-original",
            "X-Original-Method: GET\r\nX-Original-Host: api.example.com\r\nX-Original-URI: /orders?x\r\n",
            false,
        ),
        (
            "x-original-url",
            "X-Original-Method: GET\r\nX-Original-URL: https://api.example.com/orders?x\r\n",
            true,
        ),
        ("x-original-url", "X-Original-Method: GET\r\nX-Original-URL: /orders?x\r\n", false),
    ] {
        let auth = format!("trusted_peers = [\"127.0.0.1\"]\nforwarded = \"{forwarded}\"");
        let scene = Scene::with(&auth, "", "").await;
        let token = scene.bound().build().unwrap();
        let lines = format!("{lines}{}", dpop(&token, &scene.proof(&token).sign()));
        let reply = scene.holdfast.raw(&request("/auth", &lines)).await;
        assert_eq!(reply.status, if good { 200 } else { 403 }, "{forwarded}: {lines}: {reply:?}");
    }
    let scene = Scene::with("trusted_peers = [\"127.0.0.1\"]\nforwarded = \"request\"", "", "").await;
    let token = scene.bound().build().unwrap();
    for (target, status) in [("/auth/orders", 200), ("/auth", 403), ("/auth/order", 401)] {
        let lines = format!("X-Forwarded-Proto: https\r\n{}", dpop(&token, &scene.proof(&token).sign()));
        let text =
            format!("GET {target} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{lines}\r\n");
        let reply = scene.holdfast.raw(text.as_bytes()).await;
        assert_eq!(reply.status, status, "{target}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_no_outage_is_a_bound_token_answered_without_its_proof() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("[store]\npath = {:?}\n", directory.path());
    let scene = Scene::with(AUTH, "", &store).await;
    // Without an email, so that a profile answers.
    let token =
        scene.tenant.mint().claim("cnf", scene.prover.cnf()).expires_in(400 * 86_400).build().unwrap();
    assert_alice(&scene.ask_with(&token, &scene.proof(&token).sign()).await, "primary");
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    let hour = Duration::from_secs(3600);
    for (tier, age) in [
        ("primary", hour),
        ("secondary", 5 * hour),
        ("emergency", 20 * hour),
        ("ultra-backup", 100 * hour),
        ("disaster-recovery", 700 * hour),
        ("last-resort", 3000 * hour),
        ("ultimate-fallback", 3000 * hour),
    ] {
        scene.pass(age);
        for round in ["first", "again"] {
            let what = format!("{tier}, {round}");
            assert_unproven(
                &scene.ask(&format!("Authorization: Bearer {token}\r\n")).await,
                "bound_as_bearer",
                &what,
            );
            assert_unproven(
                &scene.ask(&format!("Authorization: DPoP {token}\r\n")).await,
                "proof_missing",
                &what,
            );
            let reply = scene.ask_with(&token, &scene.proof(&token).sign()).await;
            assert_alice(&reply, &what);
            assert_eq!(value(&reply, "x-auth-tier"), Some(tier), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_one_instance_took_no_other_one_takes_while_they_share_a_redis() {
    let Some(mut scene) = fleet::Scene::new().await else { return };
    scene.tenant.set_time(Some(scene.clock.now().as_secs()));
    let start = async || {
        let running = Running::start_with_auth(AUTH, &scene.config(""), scene.clock.clone()).await;
        fleet::connected(&running).await;
        running
    };
    let (a, b) = (start().await, start().await);
    let prover = Prover::new();
    let token = scene.tenant.mint().email_direct(EMAIL).claim("cnf", prover.cnf()).build().unwrap();
    let now = scene.clock.now().as_secs();
    let proof = || prover.proof(&token, "GET", URL, now).sign();
    for (first, second) in [(&a, &b), (&b, &a)] {
        let lines = dpop(&token, &proof());
        assert_alice(&ask(first, &lines).await, "one instance");
        assert_unproven(&ask(second, &lines).await, "proof_replayed", "the other one");
        assert_unproven(&ask(first, &lines).await, "proof_replayed", "the same one");
        assert_alice(&ask(second, &dpop(&token, &proof())).await, "another proof");
    }
    // Without Redis each instance remembers what came to itself, and the token is still good with a proof only.
    scene.redis.kill().await;
    let lines = dpop(&token, &proof());
    for holdfast in [&a, &b] {
        assert_alice(&ask(holdfast, &lines).await, "without Redis");
        assert_unproven(&ask(holdfast, &lines).await, "proof_replayed", "without Redis");
        let bare = format!("Authorization: DPoP {token}\r\n");
        assert_unproven(&ask(holdfast, &bare).await, "proof_missing", "without Redis");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_too_many_new_tokens_wait_proven_senders_are_answered_from_memory() {
    let scene = Scene::new("").await;
    let token = scene.bound().build().unwrap();
    assert_alice(&scene.ask_with(&token, &scene.proof(&token).sign()).await, "first");
    // Jobs that end when their gate opens: one for each thread, then as many as may wait.
    let instance = scene.holdfast.service.instance();
    let (mut gates, mut waiting) = (Vec::new(), Vec::new());
    let (begun, is_begun) = mpsc::channel();
    let mut context = Context::from_waker(Waker::noop());
    let mut queue = || {
        let (open, gate) = mpsc::channel::<()>();
        let begun = begun.clone();
        let mut job = Box::pin(instance.pool().run(move || {
            begun.send(()).unwrap();
            let _ = gate.recv();
        }));
        gates.push(open);
        let is_queued = job.as_mut().poll(&mut context).is_pending();
        waiting.push(job);
        is_queued
    };
    let threads = available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
    assert!((0..threads).all(|_| queue()));
    for _ in 0..threads {
        is_begun.recv().unwrap();
    }
    while queue() {}
    let new = scene.bound().build().unwrap();
    let (new, proof) = (dpop(&new, &scene.proof(&new).sign()), scene.proof(&token).sign());
    let replies = [scene.ask(&new).await, scene.ask_with(&token, &proof).await];
    drop(gates);
    assert_eq!(replies[0].status, 503, "{:?}", replies[0]);
    assert_alice(&replies[1], "from memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_path_shows_the_identity_of_a_proven_sender_only() {
    let auth = format!("requirements_from = \"rules\"\n{AUTH}");
    let rules = "[[rule]]\npath = \"/orders\"\npublic = true\n[[rule]]\nrequire = {}\n";
    let scene = Scene::with(&auth, "", rules).await;
    let token = scene.bound().build().unwrap();
    for round in ["first", "again"] {
        let reply = scene.ask(&format!("Authorization: Bearer {token}\r\n")).await;
        assert_eq!((reply.status, value(&reply, "x-user-email")), (200, Some("anonymous")), "{round}");
        assert_alice(&scene.ask_with(&token, &scene.proof(&token).sign()).await, round);
    }
}

/// A certificate in PEM, and `cnf` of a token that is bound to it.
fn certificate(name: &str) -> (Vec<u8>, Value) {
    let directory = tempfile::tempdir().unwrap();
    let identity = Authority::new("the client's own").client(directory.path(), name);
    let der = X509::from_pem(&std::fs::read(identity.certificate).unwrap()).unwrap().to_der().unwrap();
    let cnf = json!({ "x5t#S256": sha256(&der) });
    (der, cnf)
}

/// The certificate in each form that a proxy gives it.
fn forms(der: &[u8]) -> [(&'static str, String); 6] {
    let base64 = STANDARD.encode(der);
    let pem = String::from_utf8(X509::from_der(der).unwrap().to_pem().unwrap()).unwrap();
    // As nginx and Envoy escape it.
    let escaped: String = pem
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let hash: String = openssl::sha::sha256(der).iter().map(|byte| format!("{byte:02x}")).collect();
    [
        ("nginx", escaped.clone()),
        ("HAProxy and Caddy", base64.clone()),
        ("Traefik", format!("{base64},{base64}")),
        ("Envoy", format!("Hash={hash};Cert=\"{escaped}\";Subject=\"CN=a,O=b\"")),
        ("Envoy by default", format!("By=http://a;Hash={hash};URI=;DNS=a")),
        ("RFC 9440", format!(":{base64}:")),
    ]
}

const WITH_CERTIFICATE: &str = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n\
                                client_certificate_header = \"X-Client-Cert\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_bound_to_a_certificate_passes_with_that_one_and_no_other() {
    let scene = Scene::with(WITH_CERTIFICATE, "", "").await;
    let ((der, cnf), (other, _)) = (certificate("client"), certificate("client"));
    let token = scene.tenant.mint().email_direct(EMAIL).claim("cnf", cnf).build().unwrap();
    for round in ["first", "again"] {
        for scheme in ["Bearer", "DPoP"] {
            let line = format!("Authorization: {scheme} {token}\r\n");
            assert_unproven(&scene.ask(&line).await, "certificate_missing", round);
            for (what, value) in forms(&other) {
                let reply = scene.ask(&format!("{line}X-Client-Cert: {value}\r\n")).await;
                assert_unproven(&reply, "certificate_mismatch", what);
                assert!(support::service::value(&reply, "www-authenticate").unwrap().starts_with("Bearer "));
            }
            let [(_, good), ..] = forms(&der);
            for (lines, reason) in [
                (String::from("X-Client-Cert: \r\n"), "certificate_missing"),
                (
                    format!("X-Forwarded-Client-Cert: {good}\r\nClient-Cert: {good}\r\n"),
                    "certificate_missing",
                ),
                (format!("X_Client_Cert: {good}\r\n"), "certificate_missing"),
                ("X-Client-Cert: (null)\r\n".to_owned(), "certificate_unclear"),
                ("X-Client-Cert: \u{e9}\r\n".to_owned(), "certificate_unclear"),
                (format!("X-Client-Cert: {good}\r\nX-Client-Cert: {good}\r\n"), "certificate_unclear"),
                (format!("X-Client-Cert: {good}\r\nX-Client-Cert: \r\n"), "certificate_unclear"),
                (format!("X-Client-Cert: {good}\r\nDPoP: {}\r\n", scene.proof(&token).sign()), "not_bound"),
            ] {
                assert_unproven(&scene.ask(&format!("{line}{lines}")).await, reason, &lines);
            }
            for (what, value) in forms(&der) {
                assert_alice(&scene.ask(&format!("{line}X-Client-Cert: {value}\r\n")).await, what);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_bound_to_both_needs_both() {
    let scene = Scene::with(WITH_CERTIFICATE, "", "").await;
    let (der, mut cnf) = certificate("client");
    cnf["jkt"] = scene.prover.cnf()["jkt"].clone();
    let token = scene.tenant.mint().email_direct(EMAIL).claim("cnf", cnf).build().unwrap();
    let shown = format!("X-Client-Cert: {}\r\n", STANDARD.encode(der));
    for round in ["first", "again"] {
        let proof = || dpop(&token, &scene.proof(&token).sign());
        assert_unproven(&scene.ask(&proof()).await, "certificate_missing", round);
        let line = format!("Authorization: DPoP {token}\r\n{shown}");
        assert_unproven(&scene.ask(&line).await, "proof_missing", round);
        assert_alice(&scene.ask(&format!("{}{shown}", proof())).await, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_believed_from_trusted_peers_in_the_configured_header_only() {
    let (der, cnf) = certificate("client");
    let shown = format!("X-Client-Cert: {}\r\n", STANDARD.encode(der));
    for (auth, status) in [
        (WITH_CERTIFICATE.to_owned(), 200),
        (WITH_CERTIFICATE.replace("127.0.0.1", "127.0.0.2"), 403),
        (WITH_CERTIFICATE.replace("X-Client-Cert", "Client-Cert"), 401),
        (AUTH.to_owned(), 401),
        (String::new(), 401),
    ] {
        let scene = Scene::with(&auth, "", "").await;
        let token = scene.tenant.mint().email_direct(EMAIL).claim("cnf", cnf.clone()).build().unwrap();
        for round in ["first", "again"] {
            let reply = scene.ask(&format!("Authorization: Bearer {token}\r\n{shown}")).await;
            assert_eq!(reply.status, status, "{auth}, {round}: {reply:?}");
        }
    }
}

#[test]
fn the_hash_of_the_rfcs_token_is_that_of_the_rfc() {
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    assert_eq!(sha256(token.as_bytes()), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
}
