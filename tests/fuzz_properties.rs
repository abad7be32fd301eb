//! Whatever the bytes, the verifier neither panics nor accepts a token that the issuer did not sign. Good
//! tokens are the seeds: a token that differs from one in a single place is the most likely to be accepted by
//! mistake.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "../fuzz/judge.rs"]
mod judge;
#[path = "../fuzz/proof.rs"]
mod proof;
#[path = "../benches/scene/mod.rs"]
mod scene;

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::credential::Credential;
use holdfast::instance::Instance;
use holdfast::verifier::{Failure, Verified};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use scene::{Client, Scene, request};
use tokio::runtime::{Builder, Runtime};

/// A running service whose verifier is asked, with good tokens of its issuer.
struct Seeds {
    jws: String,
    jwe: String,
    instance: Arc<Instance>,
    runtime: Runtime,
    _scene: Scene,
}

static SEEDS: LazyLock<Seeds> = LazyLock::new(|| {
    let scene = Scene::new();
    let jws = scene.token();
    let jwe = scene.tenant.mint().email_direct("alice@example.com").nested_jwe().build().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (service, address) = runtime.block_on(scene.holdfast());
    // Now it has the issuer's keys.
    Client::connect(address).warm_up(&request(&jws));
    Seeds { jws, jwe, instance: service.instance(), runtime, _scene: scene }
});

/// Whether the verifier vouches for `token` by itself. What only the issuer can judge is not accepted here.
/// Panics on the pool of the verifier are caught there and would come out as "busy".
fn accepts(token: &str) -> bool {
    match SEEDS.runtime.block_on(SEEDS.instance.verifier.verify(token)) {
        Ok(Verified::Local { .. }) => true,
        Ok(Verified::Foreign { .. }) | Err(Failure::No(_)) => false,
        Err(Failure::CannotTell(error)) => {
            panic!("a check on the pool panicked, or keys are missing: {error}")
        }
    }
}

#[test]
fn the_seeds_themselves_are_accepted() {
    assert!(accepts(&SEEDS.jws));
    assert!(accepts(&SEEDS.jwe));
}

/// A fuzzer that never comes to the end of the way would find nothing there.
#[test]
fn what_is_fuzzed_goes_all_the_way_to_the_email() {
    let claims = |more: &str| {
        let (iss, aud) = (judge::ISSUER, judge::AUDIENCE);
        format!(r#"{{"iss":"{iss}","aud":"{aud}","sub":"s","exp":1800000001{more}}}"#)
    };
    let judged = |more: &str| judge::judge(claims(more).as_bytes());
    assert_eq!(judged(r#","email":"a@x.org""#).as_deref(), Some("a@x.org"));
    assert_eq!(judged(r#","https://n/user":{"email":"a@x.org"}"#).as_deref(), Some("a@x.org"));
    assert_eq!(judged(r#","email":"a@x.org","nonce":"n""#), None);
    assert_eq!(judged(""), None);
    for token in [&SEEDS.jws, &SEEDS.jwe, ""] {
        assert_eq!(judge::judge(token.as_bytes()), None);
    }
}

/// The same of proofs.
#[test]
fn what_is_fuzzed_of_a_proof_goes_all_the_way_to_its_acceptance() {
    let ath = proof::ath();
    let claims = |htm: &str, htu: &str, iat: u64, ath: &str| {
        proof::judge(
            format!(r#"{{"jti":"j","htm":"{htm}","htu":"{htu}","iat":{iat},"ath":"{ath}"}}"#).as_bytes(),
        )
    };
    assert!(claims(proof::METHOD, proof::URL, proof::NOW, &ath));
    assert!(claims(proof::METHOD, "HTTPS://A:443/%78?q#f", proof::NOW - 60, &ath));
    assert!(!claims("POST", proof::URL, proof::NOW, &ath));
    assert!(!claims(proof::METHOD, "https://a/X", proof::NOW, &ath));
    assert!(!claims(proof::METHOD, proof::URL, proof::NOW - 61, &ath));
    assert!(!claims(proof::METHOD, proof::URL, proof::NOW + 31, &ath));
    assert!(!claims(proof::METHOD, proof::URL, proof::NOW, &ath[1..]));
    // Headers go their own way in there, and must be good to get far.
    let header = proof::header().unwrap();
    for odd in
        [header.clone(), header.replace("dpop+jwt", "JWT"), header.replace("\"x\"", "\"d\":\"AA\",\"x\"")]
    {
        assert!(!proof::judge(odd.as_bytes()), "a header is no claims");
    }
}

#[test]
fn every_character_of_a_good_jws_counts() {
    for place in 0..SEEDS.jws.len() {
        let mut bytes = SEEDS.jws.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert!(!accepts(std::str::from_utf8(&bytes).unwrap()), "changed at {place}");
    }
}

fn seed() -> impl Strategy<Value = String> {
    any::<bool>().prop_map(|encrypted| if encrypted { SEEDS.jwe.clone() } else { SEEDS.jws.clone() })
}

/// A header that says anything about how it wants to be checked.
fn header() -> impl Strategy<Value = String> {
    let alg = select(vec!["none", "HS256", "RS256", "PS256", "ES256", "EdDSA", "dir", "RSA-OAEP-256", ""]);
    let extra = select(vec![
        "",
        r#","typ":"JWT""#,
        r#","jku":"http://127.0.0.1/""#,
        r#","jwk":{"kty":"oct","k":"AAAA"}"#,
        r#","enc":"A256GCM""#,
        r#","crit":[]"#,
        r#","zip":"DEF""#,
        r#","alg":"none""#,
    ]);
    (alg, extra).prop_map(|(alg, extra)| format!(r#"{{"alg":"{alg}"{extra}}}"#))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_fuzzed_holds_for_arbitrary_bytes(bytes in vec(any::<u8>(), 0..400)) {
        judge::judge(&bytes);
    }

    #[test]
    fn what_is_fuzzed_holds_for_what_looks_like_claims(
        text in r#"\{("(iss|aud|sub|exp|nbf|email|user|a)":("https://t/"|"a"|"a@x\.org"|-?[0-9.e+]{1,12}|null|\[\[1\],"a"\]|\{"email":"a@x\.org"\})[,}]?){0,8}\}?"#,
    ) {
        judge::judge(text.as_bytes());
    }

    #[test]
    fn what_is_fuzzed_of_a_proof_holds_for_arbitrary_bytes(bytes in vec(any::<u8>(), 0..400)) {
        proof::judge(&bytes);
    }

    #[test]
    fn what_is_fuzzed_of_a_proof_holds_for_what_looks_like_one(
        text in r#"\{("(jti|htm|htu|iat|ath|typ|alg|jwk)":("j"|"GET"|"https://a/x"|"dpop\+jwt"|"EdDSA"|1800000000|null|\{"kty":"OKP"\})[,}]?){0,8}\}?"#,
        url in "(HTTP|https)://[a-z:%.@\\[\\]0-9]{1,12}(/(\\.|\\.\\.|%2[eEfF]|%7e|[a-z?#;\\\\]){0,3}){0,4}",
    ) {
        proof::judge(text.as_bytes());
        proof::judge(url.as_bytes());
    }

    #[test]
    fn what_is_fuzzed_holds_for_what_looks_like_requirements(
        text in r#"((claim|acr|max_age|typ|actor|scope)=(/(azp|a~[0-3]|https:~1~1n~1x|"|%22|\+)[:a-z0-9%~]{0,6}|at\+jwt|none|[0-9+-]{0,9}|[ -~]{0,6})&?){0,6}"#,
        names in r#"\{("[a-z~:/012]{0,6}":("x"|1|null|\["a"\]),?){0,5}\}"#,
    ) {
        judge::judge(text.as_bytes());
        judge::judge(names.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_never_accepted(bytes in vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = Credential::parse(&text);
        prop_assert!(!accepts(&text));
    }

    #[test]
    fn parts_of_base64_are_never_accepted(parts in vec(vec(any::<u8>(), 0..300), 1..6), header in header()) {
        let mut parts: Vec<String> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        parts[0] = URL_SAFE_NO_PAD.encode(header);
        prop_assert!(!accepts(&parts.join(".")));
    }

    #[test]
    fn a_good_token_with_other_bytes_somewhere_is_never_accepted(
        seed in seed(), place in any::<Index>(), removed in 0_usize..40, inserted in "[A-Za-z0-9_.=+/ -]{0,40}",
    ) {
        let start = place.index(seed.len());
        let end = seed.len().min(start + removed);
        let mutant = format!("{}{inserted}{}", &seed[..start], &seed[end..]);
        prop_assume!(mutant != seed);
        prop_assert!(!accepts(&mutant));
    }

    #[test]
    fn a_good_token_with_a_changed_bit_in_a_part_is_never_accepted(
        seed in seed(), part in any::<Index>(), place in any::<Index>(), bit in 0_u8..8,
    ) {
        let mut parts: Vec<String> = seed.split('.').map(str::to_owned).collect();
        let part = part.index(parts.len());
        let mut bytes = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        prop_assert!(!bytes.is_empty());
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        parts[part] = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert!(!accepts(&parts.join(".")));
    }

    #[test]
    fn a_good_token_under_another_header_is_never_accepted(seed in seed(), header in header()) {
        let (_, rest) = seed.split_once('.').unwrap();
        let token = [&URL_SAFE_NO_PAD.encode(header), rest].join(".");
        prop_assert!(!accepts(&token));
    }
}
