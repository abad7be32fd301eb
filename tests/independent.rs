//! Tokens that two independent JOSE implementations signed, and encrypted to us, pass the whole service, and
//! none does with a flipped bit. `tests/jose.rs` has their tokens for every other `alg` and `enc`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault};
use serde_json::Value;
use support::service::{Running, issuer, tenant, value};

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

async fn accept_all_of(generator: &mut Command) {
    let tenant = tenant().await;
    let output = generator.args([tenant.issuer(), tenant.audience(), tenant.time().to_string()]).output();
    let output = match output {
        Ok(output) if output.status.success() => output.stdout,
        failure => panic!("cannot make tokens; was `make setup` run? {generator:?}: {failure:?}"),
    };
    let made: Value = serde_json::from_slice(&output).unwrap();
    let body = made["jwks"].to_string();
    tenant.set_fault(Endpoint::Jwks, Fault::Custom { status: 200, headers: Vec::new(), body });
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
