//! Arbitrary bytes as a credential: its grammar, its outer form, its header, its claims. Nothing may panic, and nothing
//! outside the grammar may come through.
//!
//! What needs a key is not here; `tests/fuzz_properties.rs` has that.

#![no_main]

use holdfast::credential::{Credential, MAX_TOKEN_BYTES};
use holdfast::token::algorithm::SignatureAlgorithm;
use holdfast::token::compact::Compact;
use holdfast::token::{json, jws};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Claims reach the JSON reader in base64; without it, the fuzzer finds its way through sooner.
    let _ = json::object(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // The inside of a JWE is parsed without having been a credential.
    let _ = Compact::parse(text);
    let Ok(credential) = Credential::parse(text) else { return };
    let token = credential.token();
    assert!(!token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.is_ascii());
    if let Ok(Compact::Jws(jws)) = Compact::parse(token) {
        let _ = jws::allowed_algorithm(&jws, &SignatureAlgorithm::ALL);
        if let Ok(claims) = jws::read_claims(&jws) {
            let _ = claims.issuer();
        }
    }
});
