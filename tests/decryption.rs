//! Which issuer an encrypted token belongs to, if several issuers have decryption keys; and how a key is
//! rotated while tokens for the old one are still in use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::Tenant;
use josekit::jwe::{Dir, JweEncrypter, JweHeader, RSA_OAEP_256, serialize_compact};
use josekit::jwk::KeyPair as _;
use josekit::jwk::alg::rsa::RsaKeyPair;
use support::service::{Running, issuer, tenant, value};
use support::{Holdfast, until};
use tempfile::TempDir;

const EMAIL: &str = "alice@example.com";

/// A key of a tenant's API, with its private half in a file of mode 600.
struct Key {
    pair: RsaKeyPair,
    file: PathBuf,
}

impl Key {
    fn new(directory: &Path, name: &str) -> Self {
        let pair = RsaKeyPair::generate(2048).unwrap();
        let file = directory.join(name);
        write_private(&file, pair.to_pem_private_key());
        Self { pair, file }
    }

    /// The token sealed to the key, with nothing in the header that would say whose it is.
    fn seal(&self, token: &str, kid: Option<&str>) -> String {
        seal(&RSA_OAEP_256.encrypter_from_der(self.pair.to_der_public_key()).unwrap(), token, kid)
    }
}

fn seal(encrypter: &dyn JweEncrypter, content: &str, kid: Option<&str>) -> String {
    let mut header = JweHeader::new();
    header.set_content_encryption("A256GCM");
    if let Some(kid) = kid {
        header.set_key_id(kid);
    }
    serialize_compact(content.as_bytes(), &header, encrypter).unwrap()
}

fn write_private(file: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn keys_line(files: &[&Path]) -> String {
    format!("decryption_keys = {files:?}\n")
}

fn signed(tenant: &Tenant) -> String {
    tenant.mint().email_direct(EMAIL).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_issuers_has_its_own_keys_and_a_token_need_not_say_whose_it_is() {
    let (first, second, files) = (tenant().await, tenant().await, TempDir::new().unwrap());
    let (one, two) = (Key::new(files.path(), "one.pem"), Key::new(files.path(), "two.pem"));
    let config = issuer(&first, &keys_line(&[&one.file])) + &issuer(&second, &keys_line(&[&two.file]));
    let holdfast = Running::start(&config, Clock::system()).await;
    for (tenant, key) in [(&first, &one), (&second, &two)] {
        for kid in [None, Some("k")] {
            let reply = holdfast.ask(&key.seal(&signed(tenant), kid)).await;
            assert_eq!(
                (reply.status, value(&reply, "x-user-email")),
                (200, Some(EMAIL)),
                "{kid:?}: {reply:?}"
            );
        }
    }
    // The holder of a key can vouch only for its own issuer.
    for (tenant, key) in [(&first, &two), (&second, &one)] {
        assert_eq!(holdfast.ask(&key.seal(&signed(tenant), None)).await.status, 401);
    }
    assert_eq!(holdfast.answered("issuer_unknown").await, 2);
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_may_be_that_of_two_issuers() {
    let (first, second, files) = (tenant().await, tenant().await, TempDir::new().unwrap());
    let key = Key::new(files.path(), "key.pem");
    let config = issuer(&first, &keys_line(&[&key.file])) + &issuer(&second, &keys_line(&[&key.file]));
    let holdfast = Running::start(&config, Clock::system()).await;
    for tenant in [&first, &second] {
        assert_eq!(holdfast.ask(&key.seal(&signed(tenant), None)).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_claims_are_of_the_issuer_that_holds_the_key_and_makes_such_tokens() {
    let (first, second, files) = (tenant().await, tenant().await, TempDir::new().unwrap());
    let key = |byte: u8| Dir.encrypter_from_bytes([byte; 32]).unwrap();
    let file = |byte: u8| {
        let (file, k) = (files.path().join(byte.to_string()), base64_url(&[byte; 32]));
        write_private(&file, format!(r#"{{"kty":"oct","k":"{k}"}}"#));
        file
    };
    let config = issuer(&first, &(keys_line(&[&file(1), &file(3)]) + "bare_claims = true\n"))
        + &issuer(&second, &keys_line(&[&file(2), &file(3)]));
    let holdfast = Running::start(&config, Clock::system()).await;
    let claims = |tenant: &Tenant| {
        let token = signed(tenant);
        String::from_utf8(holdfast::token::compact::decode(token.split('.').nth(1).unwrap()).unwrap())
            .unwrap()
    };
    for (what, tenant, byte, reason) in [
        ("the first, under its key", &first, 1, ""),
        ("the first, under the key of both", &first, 3, ""),
        ("the second, which makes no such tokens", &second, 2, "bare_claims"),
        ("the second, under the key of both", &second, 3, "bare_claims"),
        ("the second, under the first's key", &second, 1, "issuer_unknown"),
        ("the first, under the second's key", &first, 2, "bare_claims"),
    ] {
        let before = holdfast.answered(reason).await;
        let reply = holdfast.ask(&seal(&key(byte), &claims(tenant), None)).await;
        assert_eq!(reply.status, if reason.is_empty() { 200 } else { 401 }, "{what}: {reply:?}");
        if !reason.is_empty() {
            assert_eq!(holdfast.answered(reason).await - before, 1, "{what}");
        }
    }
    assert_eq!((first.calls().userinfo, second.calls().userinfo), (0, 0));
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_are_ever_tried_are_refused_at_the_start_whosever_they_are() {
    let (first, second, files) = (tenant().await, tenant().await, TempDir::new().unwrap());
    let keys: Vec<_> = (0..5).map(|number| Key::new(files.path(), &format!("{number}.pem")).file).collect();
    let config = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned()
        + &issuer(&first, &keys_line(&[&keys[0], &keys[1], &keys[2]]))
        + &issuer(&second, &keys_line(&[&keys[3], &keys[4]]));
    let Err(error) = Service::start(Source::text("test.toml", &config), Clock::system()).await else {
        panic!("it started")
    };
    let said = error.to_string();
    assert!(said.contains("4.pem") && said.contains("one too many"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decryption_key_is_rolled_over_by_a_reload() {
    let (tenant, directory) = (tenant().await, TempDir::new().unwrap());
    let (old, new) = (Key::new(directory.path(), "old.pem"), Key::new(directory.path(), "new.pem"));
    let config = |files: &[&Path]| {
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned()
            + &issuer(&tenant, &keys_line(files))
    };
    let token = |key: &Key, subject: &str| {
        key.seal(&tenant.mint().subject(subject).email_direct(EMAIL).build().unwrap(), None)
    };
    let holdfast = Holdfast::start(directory.path(), &config(&[&old.file]), 1).await.ready().await;
    let file = directory.path().join("holdfast.toml");
    let reload = async |files: &[&Path], reloads: u64| {
        std::fs::write(&file, config(files)).unwrap();
        holdfast.signal("HUP").await;
        until("the reload", async || {
            let done = holdfast.counted("holdfast_config_reloads_total", "result=\"ok\"").await;
            (done == reloads).then_some(())
        })
        .await;
    };
    assert_eq!(holdfast.ask(&token(&old, "auth0|1")).await.status, 200);
    let early = token(&new, "auth0|2");
    assert_eq!(holdfast.ask(&early).await.status, 401, "its key is not there yet");

    reload(&[&old.file, &new.file], 1).await;
    assert_eq!(holdfast.ask(&early).await.status, 200, "{}", holdfast.log());
    for key in [&old, &new] {
        assert_eq!(holdfast.ask(&token(key, "auth0|3")).await.status, 200, "{}", holdfast.log());
    }

    reload(&[&new.file], 2).await;
    assert_eq!(holdfast.ask(&token(&new, "auth0|4")).await.status, 200);
    assert_eq!(holdfast.ask(&token(&old, "auth0|4")).await.status, 401, "its key is not there any more");

    // A file that others can read is refused, and what was there goes on.
    std::fs::set_permissions(&old.file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&file, config(&[&old.file])).unwrap();
    holdfast.signal("HUP").await;
    holdfast.told("old.pem").await;
    assert_eq!(holdfast.ask(&token(&new, "auth0|5")).await.status, 200);
    assert_eq!(tenant.calls().userinfo, 0);
}
