//! How far holdfast is from the lower bound: each figure is the ratio of its own time to that of the bare
//! operation, measured alternately in the same run. Ratios are easier to compare between machines than times.
//!
//! The best of several rounds counts, for either side: what disturbs a measurement only ever makes it slower.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made has no result")]

mod scene;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::{Clock, Ticks};
use holdfast::issuer::jwks::{KeyLookup, KeySet};
use holdfast::token::algorithm::SignatureAlgorithm;
use holdfast::token::binding::Thumbprint;
use holdfast::token::claims::{Expected, VerifiedClaims};
use holdfast::token::compact::{Compact, UnverifiedJws, decode};
use holdfast::token::dpop;
use holdfast::token::dpop::url::HttpUrl;
use holdfast::token::jwe::DecryptionKeys;
use holdfast::token::jws;
use josekit::jwk::Jwk;
use josekit::jwk::alg::ec::EcCurve;
use josekit::jws::{ES256, JwsSigner as _};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey};
use openssl::encrypt::Decrypter;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use scene::{Client, Scene, request};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// Many and short, so that on a busy machine each side has some that nothing disturbed.
const ROUNDS: usize = 100;
const ROUND: Duration = Duration::from_millis(5);

fn main() {
    let scene = Scene::new();
    println!("{:<62} {:>12} {:>12} {:>7}  target", "", "holdfast", "floor", "ratio");
    memory(&scene);
    signatures(&scene);
    proofs();
    encryption(&scene);
}

/// Digest and lookup of a token with a prepared answer.
fn memory(scene: &Scene) {
    let runtime = server_runtime();
    let (service, address) = runtime.block_on(scene.holdfast());
    let token = scene.token();
    Client::connect(address).warm_up(&request(&token));
    let instance = service.instance();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let cache = quick_cache::sync::Cache::new(100_000);
    cache.insert(bytes_of(&hmac::sign(&key, token.as_bytes())), Arc::new(()));

    let [ours, bare] = best([
        &mut || assert!(instance.answers.get(&instance.digester.token(token.as_bytes())).is_some()),
        &mut || assert!(cache.get(&bytes_of(&hmac::sign(&key, token.as_bytes()))).is_some()),
    ]);
    row("memory: digest and look-up / HMAC and quick_cache", ours, bare, "");
}

/// A whole RS256 token: split, parsed, verified, claims checked.
fn signatures(scene: &Scene) {
    let token = scene.token();
    let ours = Ours::new(scene);
    let bare = BareSignature::new(scene, &token);
    let [whole, checked, parsed, library] = best([
        &mut || ours.verify(&token),
        &mut || bare.check(),
        &mut || bare.check_with_parsed_key(),
        &mut || bare.check_with_jsonwebtoken(),
    ]);
    row("RS256 token / signature check of aws-lc-rs, key from n and e", whole, checked, "1.25");
    row("RS256 token / the same with a key that was parsed before", whole, parsed, "1.25");
    row("RS256 token / jsonwebtoken::crypto::verify", whole, library, "");
}

/// A DPoP proof with ES256, which each request with a bound token has: split, parsed, verified, claims
/// checked.
fn proofs() {
    let url = HttpUrl::parse("https://api.example.com/orders").unwrap();
    let key = Jwk::generate_ec_key(EcCurve::P256).unwrap();
    let public: serde_json::Value = serde_json::Value::Object(key.to_public_key().unwrap().into());
    let (token, now) = ("a.token.of-some-length".repeat(40), Clock::system().now());
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": public });
    let claims = json!({
        "jti": "2f7ac9d0-1c1e-4a4f-9b8a-6a9c3b7f1e55", "htm": "GET", "htu": url.as_str(), "iat": now.as_secs(),
        "ath": Thumbprint::of(token.as_bytes()).to_string(),
    });
    let input = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = ES256.signer_from_jwk(&key).unwrap().sign(input.as_bytes()).unwrap();
    let proof = format!("{input}.{}", URL_SAFE_NO_PAD.encode(&signature));
    let coordinate = |name: &str| decode(public[name].as_str().unwrap()).unwrap();
    let (x, y) = (coordinate("x"), coordinate("y"));
    let point = [&[4], &x[..], &y].concat();
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, public["x"], public["y"]);
    let expected = dpop::Expected {
        method: "GET",
        url: &url,
        token: &token,
        key: Thumbprint::of(members.as_bytes()),
        now,
        age: Duration::from_secs(3600),
        leeway: Duration::ZERO,
    };
    let [whole, bare] = best([&mut || assert!(dpop::check(&proof, &expected).is_ok()), &mut || {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
        key.verify(input.as_bytes(), &signature).unwrap();
    }]);
    row("DPoP proof with ES256 / signature check of aws-lc-rs", whole, bare, "1.25");
}

/// A JWS in a JWE of RSA-OAEP-256 and A256GCM.
fn encryption(scene: &Scene) {
    let token = scene.tenant.mint().email_direct("alice@example.com").nested_jwe().build().unwrap();
    let ours = Ours::new(scene);
    let bare = BareDecryption::new(scene, &token);
    let inner = String::from_utf8(bare.open_with_openssl()).unwrap();
    assert_eq!(bare.open_with_aws_lc(), inner.as_bytes());
    let signature = BareSignature::new(scene, &inner);
    let [whole, openssl, aws_lc] = best([
        &mut || ours.open_and_verify(&token),
        &mut || {
            black_box(bare.open_with_openssl());
            signature.check();
        },
        &mut || {
            black_box(bare.open_with_aws_lc());
            signature.check();
        },
    ]);
    row("nested JWE / bare OpenSSL decryption and bare signature check", whole, openssl, "1.25");
    row("nested JWE / the same with the decryption of aws-lc-rs", whole, aws_lc, "");
}

/// What the verifier does with a token, without waiting for threads.
struct Ours {
    keys: KeySet,
    decryption: DecryptionKeys,
    issuer: Arc<str>,
    audience: [String; 1],
    clock: Clock,
}

impl Ours {
    fn new(scene: &Scene) -> Self {
        Self {
            keys: KeySet::read(&scene.jwks(), false).unwrap(),
            decryption: DecryptionKeys::from_pem(&scene.tenant.jwe_private_key_pem()).unwrap(),
            issuer: scene.tenant.issuer().into(),
            audience: [scene.tenant.audience()],
            clock: Clock::system(),
        }
    }

    fn verify(&self, token: &str) {
        let Ok(Compact::Jws(jws)) = Compact::parse(token) else { panic!("not a JWS") };
        assert_eq!(jws::named_issuer(&jws).unwrap().as_deref(), Some(&*self.issuer));
        let algorithm =
            jws::allowed_algorithm(&jws, jws::TokenUse::Access, &[SignatureAlgorithm::RS256]).unwrap();
        let KeyLookup::Found(keys) = self.keys.find(jws.header.kid.as_deref(), algorithm, Ticks::ZERO) else {
            panic!("no key")
        };
        let keys = keys.iter().map(|key| &**key);
        let vouched = jws::verify_by_any(jws.signing_input, jws.signature, keys, algorithm).unwrap();
        let expected = Expected {
            issuer: &self.issuer,
            aliases: &[],
            audience: &self.audience,
            leeway: Duration::from_secs(30),
            grace: None,
        };
        black_box(VerifiedClaims::check(vouched, expected, self.clock.now()).unwrap());
    }

    fn open_and_verify(&self, token: &str) {
        let Ok(Compact::Jwe(jwe)) = Compact::parse(token) else { panic!("not a JWE") };
        let opened = self.decryption.open(&jwe).unwrap();
        self.verify(std::str::from_utf8(&opened.payload).unwrap());
    }
}

/// A signature and nothing else.
struct BareSignature {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    parsed: aws_lc_rs::signature::ParsedPublicKey,
    library: DecodingKey,
    input: String,
    text: String,
    signature: Vec<u8>,
}

impl BareSignature {
    fn new(scene: &Scene, token: &str) -> Self {
        let jws = UnverifiedJws::parse(token).unwrap();
        let set: JwkSet = serde_json::from_slice(&scene.jwks()).unwrap();
        let jwk = set.find(jws.header.kid.as_deref().unwrap()).unwrap();
        let members = serde_json::to_value(jwk).unwrap();
        let number = |name: &str| decode(members[name].as_str().unwrap()).unwrap();
        let (modulus, exponent) = (number("n"), number("e"));
        let components = RsaPublicKeyComponents { n: &modulus, e: &exponent };
        Self {
            parsed: components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap(),
            library: DecodingKey::from_jwk(jwk).unwrap(),
            input: jws.signing_input.to_owned(),
            text: jws.signature.to_owned(),
            signature: decode(jws.signature).unwrap(),
            modulus,
            exponent,
        }
    }

    fn check(&self) {
        let key = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, self.input.as_bytes(), &self.signature).unwrap();
    }

    fn check_with_parsed_key(&self) {
        self.parsed.verify_sig(self.input.as_bytes(), &self.signature).unwrap();
    }

    fn check_with_jsonwebtoken(&self) {
        let good =
            jsonwebtoken::crypto::verify(&self.text, self.input.as_bytes(), &self.library, Algorithm::RS256);
        assert!(good.unwrap());
    }
}

/// A decryption and nothing else: the parts of the token are decoded beforehand.
struct BareDecryption {
    openssl: PKey<openssl::pkey::Private>,
    aws_lc: OaepPrivateDecryptingKey,
    header: Vec<u8>,
    parts: [Vec<u8>; 4],
}

impl BareDecryption {
    fn new(scene: &Scene, token: &str) -> Self {
        let openssl = PKey::private_key_from_pem(scene.tenant.jwe_private_key_pem().as_bytes()).unwrap();
        let pkcs8 = openssl.private_key_to_pkcs8().unwrap();
        let aws_lc =
            OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(&pkcs8).unwrap()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let part = |number: usize| decode(parts[number]).unwrap();
        Self { openssl, aws_lc, header: parts[0].into(), parts: [part(1), part(2), part(3), part(4)] }
    }

    fn open_with_openssl(&self) -> Vec<u8> {
        let mut decrypter = Decrypter::new(&self.openssl).unwrap();
        decrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
        decrypter.set_rsa_oaep_md(MessageDigest::sha256()).unwrap();
        decrypter.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
        let mut key = [0; 256];
        let length = decrypter.decrypt(&self.parts[0], &mut key).unwrap();
        self.content(&key[..length])
    }

    fn open_with_aws_lc(&self) -> Vec<u8> {
        let mut key = [0; 256];
        let key = self.aws_lc.decrypt(&OAEP_SHA256_MGF1SHA256, &self.parts[0], &mut key, None).unwrap();
        self.content(key)
    }

    fn content(&self, key: &[u8]) -> Vec<u8> {
        let [_, iv, text, tag] = &self.parts;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
        let mut content = vec![0; text.len()];
        key.open_separate_gather(nonce, Aad::from(&self.header), text, tag, &mut content).unwrap();
        content
    }
}

/// The time of one call of each, in seconds: the best of several rounds in turns.
fn best<const N: usize>(mut operations: [&mut dyn FnMut(); N]) -> [f64; N] {
    let counts = operations.each_mut().map(|operation| {
        let (started, mut count) = (Instant::now(), 0_u32);
        while started.elapsed() < ROUND {
            operation();
            count += 1;
        }
        count
    });
    let mut times = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for ((operation, time), count) in operations.iter_mut().zip(&mut times).zip(counts) {
            let started = Instant::now();
            (0..count).for_each(|_| operation());
            *time = time.min(started.elapsed().as_secs_f64() / f64::from(count));
        }
    }
    times
}

fn row(what: &str, ours: f64, floor: f64, target: &str) {
    println!("{what:<62} {:>9.2} µs {:>9.2} µs {:>7.3}  {target}", ours * 1e6, floor * 1e6, ours / floor);
}

fn bytes_of(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().unwrap()
}

fn server_runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
