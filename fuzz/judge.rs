//! What is fuzzed: arbitrary bytes as a credential, as a header, as claims under a good signature, as the
//! content of a JWE that opens, and as what a route requires. Nothing may panic, nothing outside the grammar
//! may come through, and what is verified must be what was signed.
//!
//! `fuzz_targets/token.rs` runs it under libFuzzer, `tests/fuzz_properties.rs` over a few hundred texts in
//! every test run.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Timestamp;
use holdfast::credential::{Credential, MAX_TOKEN_BYTES};
use holdfast::route::requirement::{Requirement, claim, in_query};
use holdfast::tiers::table::TierTable;
use holdfast::token::algorithm::SignatureAlgorithm;
use holdfast::token::claims::{AuthenticatedPayload, Expected, VerifiedClaims};
use holdfast::token::compact::{Compact, UnverifiedJws};
use holdfast::token::email::{self, EmailRules};
use holdfast::token::json::{self, Object};
use holdfast::token::jwe::{DecryptionKeys, SealedWith};
use holdfast::token::jws::{self, VerificationKey};
use holdfast::token::pointer::{self, ClaimPath};

/// The secret that signs and seals; only here is it known.
const SECRET: [u8; 32] = [7; 32];

/// What the claims are measured against, so that a fuzzer can find its way through: `iss`, `aud`, and the
/// time.
pub const ISSUER: &str = "https://t/";
pub const AUDIENCE: &str = "a";
const NOW: u64 = 1_800_000_000;

static KEYS: LazyLock<DecryptionKeys> = LazyLock::new(|| {
    let jwk = format!(r#"{{"kty":"oct","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(SECRET));
    DecryptionKeys::from_jwks_json(&jwk).unwrap_or_default()
});

/// What routes require is checked against this.
static TIERS: LazyLock<TierTable> = LazyLock::new(TierTable::default);

/// Looks at `bytes` in every way. The email that claims of these bytes give, if they pass all checks.
pub fn judge(bytes: &[u8]) -> Option<String> {
    as_credential(bytes);
    as_content(bytes);
    as_requirements(bytes);
    as_claims(bytes)
}

fn as_credential(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // The inside of a JWE is parsed without having been a credential.
    look_at(text);
    let Ok(credential) = Credential::parse(text) else { return };
    let token = credential.token();
    assert!(!token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.is_ascii());
    look_at(token);
}

fn look_at(token: &str) {
    match Compact::parse(token) {
        Ok(Compact::Jws(jws)) => {
            let _ = jws::allowed_algorithm(&jws, jws::TokenUse::Access, &SignatureAlgorithm::ALL);
            let _ = jws::named_issuer(&jws);
        }
        Ok(Compact::Jwe(jwe)) => {
            let _ = KEYS.open(&jwe);
        }
        Ok(Compact::Opaque) | Err(_) => {}
    }
}

/// Sealed under the secret, the bytes come out again as they are.
fn as_content(bytes: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
    let mut text = bytes.to_vec();
    let Ok(key) = UnboundKey::new(&AES_256_GCM, &SECRET) else { return };
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag =
        LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut text);
    let Ok(tag) = tag else { return };
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let token = [header, String::new(), part(&[0; 12]), part(&text), part(tag.as_ref())].join(".");
    // An empty part is no part.
    let Ok(Compact::Jwe(jwe)) = Compact::parse(&token) else { return assert!(bytes.is_empty()) };
    match KEYS.open(&jwe) {
        Ok(opened) => {
            assert_eq!((opened.payload.as_slice(), opened.sealed_with), (bytes, SealedWith::SharedKey));
            if let Ok(inner) = std::str::from_utf8(&opened.payload) {
                look_at(inner);
            }
        }
        Err(error) => panic!("{error}"),
    }
}

/// As what a route requires, and as claims that a route may require. Nothing is understood by halves.
fn as_requirements(bytes: &[u8]) {
    let claims = json::object(bytes).unwrap_or_default();
    for (name, value) in &claims {
        let place = format!("/{}", name.replace('~', "~0").replace('/', "~1").replace(':', "~2"));
        assert_eq!(pointer::at(&claims, &place), Some(value), "{place}");
        let required = format!("{place}:x");
        if required.len() <= 512 {
            assert_eq!(claim(&required), Some((place.as_str(), "x")));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (requirement, value) in in_query(text).flatten() {
        if requirement.check(&value, &TIERS).is_err() {
            continue;
        }
        match requirement {
            Requirement::Claim => {
                let (place, wanted) = claim(&value).unwrap_or_default();
                assert!(pointer::is_pointer(place) && !wanted.is_empty(), "{value}");
                assert_eq!(pointer::at(&Object::new(), place), None);
            }
            Requirement::Acr => assert!(!value.contains(['"', '\\', ' ']) && value.is_ascii(), "{value}"),
            Requirement::MaxAge => assert!(value.bytes().all(|byte| byte.is_ascii_digit()), "{value}"),
            _ => {}
        }
    }
}

/// Signed with the secret, the bytes are claims, if they are JSON.
fn as_claims(bytes: &[u8]) -> Option<String> {
    let signing_input =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(bytes));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), signing_input.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    let token = format!("{signing_input}.{signature}");
    let jws = UnverifiedJws::parse(&token).ok()?;
    let algorithm: SignatureAlgorithm = jws.header.alg.parse().ok()?;
    let key = VerificationKey::from_secret(&SECRET);

    let claims = json::object(bytes);
    let named = jws::named_issuer(&jws);
    let vouched: AuthenticatedPayload = match jws::verify(jws.signing_input, jws.signature, &key, algorithm) {
        Ok(vouched) => vouched,
        Err(refusal) => {
            assert_eq!(claims.err().map(|_| "claims"), Some("claims"), "{refusal}");
            return None;
        }
    };
    // Who is looked for before the signature is who is found after it.
    assert_eq!(named.ok()?.as_deref(), vouched.issuer());
    let forged = format!("{}A", &signature[..signature.len() - 1]);
    if forged != signature {
        assert!(jws::verify(jws.signing_input, &forged, &key, algorithm).is_err());
    }

    let (issuer, audience): (Arc<str>, _) = (ISSUER.into(), [AUDIENCE.to_owned()]);
    let expected = Expected {
        issuer: &issuer,
        aliases: &[],
        audience: &audience,
        leeway: Duration::from_secs(30),
        grace: None,
    };
    let claims = VerifiedClaims::check(vouched, expected, Timestamp::from_secs(NOW)).ok()?;
    assert!(claims.not_after() > Timestamp::from_secs(NOW) && !claims.subject().is_empty());
    let paths = ClaimPath::email_default();
    let found =
        email::find(claims.all(), EmailRules { paths: &paths, require_verified: false, domains: &[] })?;
    assert!(!found.email.as_str().contains(|c: char| c.is_control() || c.is_whitespace()));
    Some(found.email.as_str().to_owned())
}
