//! What is fuzzed of DPoP proofs: arbitrary bytes as a proof, as its header and as its claims under a good
//! signature, and as the URL that it is for. Nothing may panic, and a proof that is accepted must be one for
//! this request, this token and this key.
//!
//! `fuzz_targets/proof.rs` runs it under libFuzzer, `tests/fuzz_properties.rs` over a few hundred texts in
//! every test run.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Timestamp;
use holdfast::token::binding::Thumbprint;
use holdfast::token::dpop::url::HttpUrl;
use holdfast::token::dpop::{self, Expected};
use holdfast::token::json;

/// The request that a proof must be for.
pub const METHOD: &str = "GET";
pub const URL: &str = "https://a/x";
pub const NOW: u64 = 1_800_000_000;
const TOKEN: &str = "token";

/// The key of the sender; only here is it known.
static KEY: LazyLock<Option<Ed25519KeyPair>> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).ok());

/// base64url of the digest of the token.
pub fn ath() -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, TOKEN.as_bytes()))
}

/// Looks at `bytes` in every way. Whether claims of these bytes are a good proof.
pub fn judge(bytes: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(bytes) {
        as_url(text);
        assert!(!is_accepted(text), "nobody else has the key");
    }
    as_header(bytes);
    as_claims(bytes)
}

/// A normalized URL is its own normal form, and has nothing that another reader could take for something
/// else.
fn as_url(text: &str) {
    let Some(url) = HttpUrl::parse(text) else { return };
    let (text, again) = (url.as_str(), HttpUrl::parse(url.as_str()));
    assert_eq!(again.as_ref(), Some(&url));
    assert!(text.starts_with("https://") || text.starts_with("http://"));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['\\', '?', '#']), "{text}");
    assert!(!text.split('/').skip(3).any(|segment| matches!(segment, "." | "..")), "{text}");
}

/// Signed by the sender, under a header of these bytes.
fn as_header(bytes: &[u8]) {
    let claims = format!(r#"{{"jti":"j","htm":"{METHOD}","htu":"{URL}","iat":{NOW},"ath":"{}"}}"#, ath());
    if !signed(bytes, claims.as_bytes()).is_some_and(|proof| is_accepted(&proof)) {
        return;
    }
    let header = json::object(bytes).unwrap_or_default();
    let text = |name: &str| header.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    let typ = text("typ").to_ascii_lowercase();
    assert!(typ == "dpop+jwt" || typ == "application/dpop+jwt");
    assert_eq!(text("alg"), "EdDSA");
    let jwk = header.get("jwk").and_then(|jwk| jwk.as_object());
    assert!(jwk.is_some_and(|jwk| !jwk.contains_key("d") && !jwk.contains_key("k")));
}

/// Signed by the sender, with these bytes as claims.
fn as_claims(bytes: &[u8]) -> bool {
    let Some(header) = header() else { return false };
    let accepted = signed(header.as_bytes(), bytes).is_some_and(|proof| is_accepted(&proof));
    if accepted {
        let claims = json::object(bytes).unwrap_or_default();
        let text = |name: &str| claims.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        assert_eq!((text("htm"), text("ath")), (METHOD, ath().as_str()));
        assert_eq!(HttpUrl::parse(text("htu")), HttpUrl::parse(URL));
        assert!(!text("jti").is_empty());
    }
    accepted
}

/// The members of the public key, in the order of RFC 7638.
fn jwk() -> Option<String> {
    let x = URL_SAFE_NO_PAD.encode(KEY.as_ref()?.public_key());
    Some(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
}

/// A good header.
pub fn header() -> Option<String> {
    Some(format!(r#"{{"typ":"dpop+jwt","alg":"EdDSA","jwk":{}}}"#, jwk()?))
}

fn signed(header: &[u8], claims: &[u8]) -> Option<String> {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEY.as_ref()?.sign(input.as_bytes()));
    Some(format!("{input}.{signature}"))
}

fn is_accepted(proof: &str) -> bool {
    let Some((url, jwk)) = HttpUrl::parse(URL).zip(jwk()) else { return false };
    let expected = Expected {
        method: METHOD,
        url: &url,
        token: TOKEN,
        key: Thumbprint::of(jwk.as_bytes()),
        now: Timestamp::from_secs(NOW),
        age: Duration::from_secs(60),
        leeway: Duration::from_secs(30),
    };
    dpop::check(proof, &expected).is_ok()
}
