//! Tokens that two independent JOSE implementations signed, and encrypted to us, pass the whole service, and
//! none does with a flipped bit; and DPoP proofs that they made. `tests/jose.rs` has their tokens for every other `alg` and `enc`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use serde_json::Value;
use support::service::{Running, held_clock, issuer, request, tenant, value};

const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

fn in_tests_jose(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jose").join(name)
}

/// A path from the environment or, if that says nothing, one in `tests/jose`.
fn set_up(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or(in_tests_jose(default), PathBuf::from)
}

/// A token with one bit flipped in the middle of each part; in the last, also in its last byte.
fn flipped(token: &str) -> Vec<String> {
    let parts: Vec<Vec<u8>> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    let last = (parts.len() - 1, parts[parts.len() - 1].len() - 1);
    let places = parts.iter().enumerate().map(|(number, part)| (number, part.len() / 2)).chain([last]);
    places
        .map(|(number, byte)| {
            let mut parts = parts.clone();
            parts[number][byte] ^= 1;
            parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect::<Vec<_>>().join(".")
        })
        .collect()
}

/// Makes tokens of this tenant, whose keys are then those of the generator.
fn make(tenant: &Tenant, generator: &mut Command, more: &[&str]) -> Value {
    let output =
        generator.args([tenant.issuer(), tenant.audience(), tenant.time().to_string()]).args(more).output();
    let output = match output {
        Ok(output) if output.status.success() => output.stdout,
        failure => panic!("cannot make tokens; was `make setup` run? {generator:?}: {failure:?}"),
    };
    let made: Value = serde_json::from_slice(&output).unwrap();
    let body = made["jwks"].to_string();
    tenant.set_fault(Endpoint::Jwks, Fault::Custom { status: 200, headers: Vec::new(), body });
    made
}

async fn accept_all_of(generator: &mut Command) {
    let tenant = tenant().await;
    let made = make(&tenant, generator, &[]);
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), made["key"].to_string()).unwrap();
    std::fs::set_permissions(key.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!("algorithms = {ALGORITHMS:?}\ndecryption_keys = [{:?}]\n", key.path());
    let holdfast = Running::start(&issuer(&tenant, &more), Clock::system()).await;

    let mut seen = Vec::new();
    for token in made["tokens"].as_array().unwrap() {
        let alg = token["alg"].as_str().unwrap();
        for form in ["signed", "nested"] {
            let token = token[form].as_str().unwrap();
            let reply = holdfast.ask(token).await;
            let who = (reply.status, value(&reply, "x-user-email"), value(&reply, "x-user-id"));
            let subject = format!("auth0|{alg}");
            assert_eq!(who, (200, Some("alice@example.com"), Some(&*subject)), "{alg}, {form}: {reply:?}");
            for forged in flipped(token) {
                assert_eq!(holdfast.ask(&forged).await.status, 401, "{alg}, {form}: {forged}");
            }
        }
        seen.push(alg.to_owned());
    }
    assert_eq!(seen, ALGORITHMS);
    assert_eq!(tenant.calls().userinfo, 0);
}

/// Each bound token passes with its proof, once, and with no flipped bit in it.
async fn accept_all_proofs_of(generator: &mut Command) {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    tenant.set_time(Some(clock.now().as_secs()));
    let made = make(&tenant, generator, &["PUT", "https://api.example.com/orders/7"]);
    let auth = "trusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"";
    let issuer = issuer(&tenant, "algorithms = [\"ES256\"]\n");
    let holdfast = Running::start_with_auth(auth, &issuer, clock).await;
    let ask = async |token: &str, proof: &str| {
        let lines = format!(
            "Authorization: DPoP {token}\r\nDPoP: {proof}\r\nX-Forwarded-Method: PUT\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /orders/7?x=1\r\n"
        );
        holdfast.raw(&request("/auth", &lines)).await
    };
    let mut seen = Vec::new();
    for made in made["tokens"].as_array().unwrap() {
        let [alg, token, proof] = ["alg", "token", "proof"].map(|name| made[name].as_str().unwrap());
        for forged in flipped(proof) {
            assert_eq!(ask(token, &forged).await.status, 401, "{alg}: {forged}");
        }
        let reply = ask(token, proof).await;
        let who = (reply.status, value(&reply, "x-user-id"));
        assert_eq!(who, (200, Some(&*format!("auth0|{alg}"))), "{alg}: {reply:?}");
        assert_eq!(ask(token, proof).await.status, 401, "{alg}: twice");
        seen.push(alg.to_owned());
    }
    assert_eq!(seen, ALGORITHMS);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_proof_that_npm_jose_made_is_accepted_once_and_no_flipped_bit_is() {
    let modules = set_up("HOLDFAST_TEST_NODE_MODULES", "");
    let mut node = Command::new("node");
    accept_all_proofs_of(
        node.arg(in_tests_jose("make_proofs.mjs")).env("HOLDFAST_TEST_NODE_MODULES", modules),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_proof_that_jwcrypto_made_is_accepted_once_and_no_flipped_bit_is() {
    let python = set_up("HOLDFAST_TEST_PYTHON", ".venv/bin/python3");
    accept_all_proofs_of(Command::new(python).arg(in_tests_jose("make_proofs.py"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_npm_jose_signed_and_sealed_is_accepted_and_no_flipped_bit_is() {
    let modules = set_up("HOLDFAST_TEST_NODE_MODULES", "");
    let mut node = Command::new("node");
    accept_all_of(node.arg(in_tests_jose("make_signed.mjs")).env("HOLDFAST_TEST_NODE_MODULES", modules))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_jwcrypto_signed_and_sealed_is_accepted_and_no_flipped_bit_is() {
    let python = set_up("HOLDFAST_TEST_PYTHON", ".venv/bin/python3");
    accept_all_of(Command::new(python).arg(in_tests_jose("make_signed.py"))).await;
}
