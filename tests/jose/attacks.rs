//! The JWE rows of the attack table. Where a token could be refused for the wrong reason, a good token that
//! is made in the same way is decrypted.

use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use josekit::jwe::alg::aeskw::AeskwJweAlgorithm;
use josekit::jwe::alg::direct::DirectJweAlgorithm;
use josekit::jwe::alg::ecdh_es::EcdhEsJweAlgorithm;
use josekit::jwe::alg::rsaes::RsaesJweAlgorithm;
use josekit::jwe::{JweCompression, JweContext, JweEncrypter, JweHeader, serialize_compact};
use josekit::jwk::alg::ec::{EcCurve, EcKeyPair};
use josekit::jwk::alg::rsa::RsaKeyPair;
use josekit::jwk::{Jwk, KeyPair as _};
use openssl::derive::Deriver;
use openssl::pkey::PKey;
use proptest::prelude::*;

use super::*;

const SECRET: [u8; 32] = [7; 32];

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(2048).unwrap());

/// A key whose private number is odd, for [`an_epk_off_the_curve_is_refused`].
static EC: LazyLock<EcKeyPair> = LazyLock::new(|| {
    loop {
        let pair = EcKeyPair::generate(EcCurve::P256).unwrap();
        let private = PKey::private_key_from_der(&pair.to_der_private_key()).unwrap().ec_key().unwrap();
        if private.private_key().is_bit_set(0) {
            return pair;
        }
    }
});

/// One key of each kind, each without `kid`.
static KEYS: LazyLock<DecryptionKeys> = LazyLock::new(|| {
    let key = |jwk: Jwk| serde_json::to_value(jwk.as_ref()).unwrap();
    let secret = |bytes: usize| json!({"kty": "oct", "k": b64(vec![7; bytes])});
    keys(&json!({"keys": [
        key(RSA.to_jwk_private_key()),
        key(EC.to_jwk_private_key()),
        secret(16),
        secret(32),
        secret(64),
    ]}))
});

fn secret_keys(bytes: usize) -> DecryptionKeys {
    keys(&json!({"kty": "oct", "kid": "ours", "k": b64(vec![7; bytes])}))
}

fn header(fields: Value) -> JweHeader {
    let Value::Object(fields) = fields else { panic!("{fields}") };
    JweHeader::from_map(fields).unwrap()
}

fn seal(fields: Value, encrypter: &dyn JweEncrypter) -> String {
    serialize_compact(b"payload", &header(fields), encrypter).unwrap()
}

fn dir(secret: [u8; 32]) -> impl JweEncrypter {
    DirectJweAlgorithm::Dir.encrypter_from_bytes(secret).unwrap()
}

fn to_rsa(alg: RsaesJweAlgorithm) -> impl JweEncrypter {
    alg.encrypter_from_der(RSA.to_der_public_key()).unwrap()
}

fn to_ec(alg: EcdhEsJweAlgorithm) -> impl JweEncrypter {
    alg.encrypter_from_der(EC.to_der_public_key()).unwrap()
}

fn wrapped() -> impl JweEncrypter {
    AeskwJweAlgorithm::A256kw.encrypter_from_bytes(SECRET).unwrap()
}

/// The token with its part `number` replaced by `bytes`.
fn with_part(token: &str, number: usize, bytes: &[u8]) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[number] = b64(bytes);
    parts.join(".")
}

fn part(token: &str, number: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()
}

#[test]
#[allow(deprecated, reason = "it is the attack")]
fn algorithms_off_the_list_are_refused_even_if_a_key_would_open_them() {
    let honest = seal(json!({"enc": "A256GCM"}), &to_rsa(RsaesJweAlgorithm::RsaOaep));
    assert!(open(&KEYS, &honest).is_ok());
    let rsa1_5 = seal(json!({"enc": "A256GCM"}), &to_rsa(RsaesJweAlgorithm::Rsa1_5));
    assert_eq!(open(&KEYS, &rsa1_5).unwrap_err(), "jwe_alg_not_allowed");
    for alg in [
        "none",
        "None",
        "NONE",
        "",
        "RSA1_5",
        "rsa-oaep",
        "RSA-OAEP ",
        "RSA-OAEP-256\0",
        "A192KW",
        "A128GCMKW",
        "A256GCMKW",
        "ECDH-ES+A192KW",
        "PBES2-HS256+A128KW",
        "PBES2-HS512+A256KW",
        "HS256",
        "RS256",
        "DIR",
    ] {
        let fields = json!({"alg": alg, "enc": "A256GCM", "p2c": 1_u64 << 31, "p2s": b64([1; 16])});
        let token = with_part(&honest, 0, fields.to_string().as_bytes());
        assert_eq!(open(&KEYS, &token).unwrap_err(), "jwe_alg_not_allowed", "{alg:?}");
    }
}

#[test]
fn content_encryption_off_the_list_is_refused() {
    let honest = seal(json!({"enc": "A256GCM"}), &wrapped());
    assert!(open(&KEYS, &honest).is_ok());
    let a192 = seal(json!({"enc": "A192GCM"}), &wrapped());
    assert_eq!(open(&KEYS, &a192).unwrap_err(), "jwe_enc_not_allowed");
    for fields in [
        json!({"alg": "A256KW"}),
        json!({"alg": "A256KW", "enc": "none"}),
        json!({"alg": "A256KW", "enc": ""}),
        json!({"alg": "A256KW", "enc": "A192CBC-HS384"}),
        json!({"alg": "A256KW", "enc": "XC20P"}),
    ] {
        let token = with_part(&honest, 0, fields.to_string().as_bytes());
        assert_eq!(open(&KEYS, &token).unwrap_err(), "jwe_enc_not_allowed", "{fields}");
    }
    let token = with_part(&honest, 0, br#"{"alg":"A256KW","enc":["A256GCM"]}"#);
    assert_eq!(open(&KEYS, &token).unwrap_err(), "malformed");
}

#[test]
fn a_key_of_the_wrong_type_or_length_is_never_tried() {
    let rsa = keys(&serde_json::to_value(RSA.to_jwk_private_key().as_ref()).unwrap());
    let ec = keys(&serde_json::to_value(EC.to_jwk_private_key().as_ref()).unwrap());
    let to_rsa = seal(json!({"enc": "A256GCM"}), &to_rsa(RsaesJweAlgorithm::RsaOaep256));
    let to_ec = seal(json!({"enc": "A256GCM"}), &to_ec(EcdhEsJweAlgorithm::EcdhEs));
    let short = AeskwJweAlgorithm::A128kw.encrypter_from_bytes([7; 16]).unwrap();
    let short = seal(json!({"enc": "A256GCM"}), &short);
    let direct = seal(json!({"enc": "A256GCM"}), &dir(SECRET));
    for (token, right, wrong) in [
        (to_rsa, &rsa, [&ec, &secret_keys(32)]),
        (to_ec, &ec, [&rsa, &secret_keys(32)]),
        (short, &secret_keys(16), [&secret_keys(32), &secret_keys(64)]),
        (direct, &secret_keys(32), [&secret_keys(16), &secret_keys(64)]),
    ] {
        assert!(open(right, &token).is_ok());
        for keys in wrong {
            assert_eq!(open(keys, &token).unwrap_err(), "jwe_no_key", "{keys:?}");
        }
    }
}

#[test]
fn keys_and_addresses_in_the_header_are_ignored() {
    let theirs = [8; 32];
    let points = |secret: [u8; 32], kid: &str| {
        let jwk = json!({"kty": "oct", "kid": "ours", "k": b64(theirs)});
        let url = "https://attacker.example/jwks.json";
        let fields = json!({
            "enc": "A256GCM", "kid": kid, "jwk": jwk, "jku": url, "x5u": url, "x5c": ["MIIB"], "x5t": b64([1; 20]),
        });
        seal(fields, &dir(secret))
    };
    let ours = secret_keys(32);
    assert_eq!(open(&ours, &points(SECRET, "ours")).unwrap().payload, b"payload");
    assert_eq!(open(&ours, &points(theirs, "ours")).unwrap_err(), "jwe_decryption_failed");
    assert_eq!(open(&ours, &points(theirs, "../../etc/passwd")).unwrap_err(), "jwe_no_key");
    assert_eq!(open(&ours, &points(theirs, "' OR 1=1 --")).unwrap_err(), "jwe_no_key");
}

#[test]
fn parts_of_any_other_length_are_refused() {
    let ours = secret_keys(32);
    for (keys, token) in [
        (&*KEYS, seal(json!({"enc": "A256GCM"}), &to_rsa(RsaesJweAlgorithm::RsaOaep))),
        (&*KEYS, seal(json!({"enc": "A256GCM"}), &to_rsa(RsaesJweAlgorithm::RsaOaep256))),
        (&*KEYS, seal(json!({"enc": "A128CBC-HS256"}), &to_ec(EcdhEsJweAlgorithm::EcdhEs))),
        (&*KEYS, seal(json!({"enc": "A256GCM"}), &to_ec(EcdhEsJweAlgorithm::EcdhEsA128kw))),
        (&*KEYS, seal(json!({"enc": "A256CBC-HS512"}), &wrapped())),
        (&ours, seal(json!({"enc": "A128CBC-HS256", "kid": "ours"}), &dir(SECRET))),
        (&ours, seal(json!({"enc": "A256GCM", "kid": "ours"}), &dir(SECRET))),
    ] {
        assert!(open(keys, &token).is_ok(), "{token}");
        for number in 1..5 {
            let whole = part(&token, number);
            let mut cuts: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
            cuts.extend([[&whole[..], &[0]].concat(), [&whole[..], &[0; 16]].concat(), vec![0; 600]]);
            for cut in cuts {
                let reason = open(keys, &with_part(&token, number, &cut)).unwrap_err();
                let expected =
                    if cut.is_empty() && number > 1 { "malformed" } else { "jwe_decryption_failed" };
                assert_eq!(
                    reason,
                    expected,
                    "part {number} of {} instead of {} bytes",
                    cut.len(),
                    whole.len()
                );
            }
        }
    }
}

#[test]
fn another_outer_form_is_refused() {
    let token = seal(json!({"enc": "A256GCM"}), &wrapped());
    assert!(open(&KEYS, &token).is_ok());
    for form in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{token}"),
        format!("{token}="),
        format!("{token} "),
        format!("{token}\n"),
        token.replace('.', ".."),
        token.replacen('.', "=.", 1),
        token.replacen("eyJ", "eyJ\n", 1),
    ] {
        assert_eq!(open(&KEYS, &form).unwrap_err(), "malformed", "{form}");
    }
    let (four, _) = token.rsplit_once('.').unwrap();
    assert_eq!(open(&KEYS, four).unwrap_err(), "malformed");
    let critical = with_part(&token, 0, br#"{"alg":"A256KW","enc":"A256GCM","crit":["exp"],"exp":1}"#);
    assert_eq!(open(&KEYS, &critical).unwrap_err(), "crit_unsupported");
    let twice = with_part(&token, 0, br#"{"alg":"A256KW","enc":"A256GCM","alg":"dir"}"#);
    assert_eq!(open(&KEYS, &twice).unwrap_err(), "duplicate_name");
}

/// Takes content for already deflated, so that a test can put any stream into a token.
#[derive(Clone, Debug)]
struct AlreadyDeflated;

impl JweCompression for AlreadyDeflated {
    fn name(&self) -> &str {
        "DEF"
    }

    fn compress(&self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(message.to_vec())
    }

    fn decompress(&self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(message.to_vec())
    }

    fn box_clone(&self) -> Box<dyn JweCompression> {
        Box::new(self.clone())
    }
}

#[test]
fn a_zip_bomb_does_not_go_off() {
    const MIB: usize = 1024 * 1024;
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; MIB]).unwrap();
    encoder.flush().unwrap();
    let bomb = [encoder.get_ref().repeat(1024), vec![3, 0]].concat();
    let inflated = std::io::copy(&mut DeflateDecoder::new(&bomb[..]), &mut std::io::sink()).unwrap();
    assert_eq!(inflated, 1024 * MIB as u64);

    let mut context = JweContext::new();
    context.add_compression(Box::new(AlreadyDeflated));
    let zipped = header(json!({"enc": "A256GCM", "zip": "DEF"}));
    let token = context.serialize_compact(&bomb, &zipped, &dir(SECRET)).unwrap();
    assert_eq!(open(&KEYS, &token).unwrap_err(), "jwe_too_large");
    let peak = peak_memory();
    assert!(peak < 512 * MIB, "{peak} bytes were used");

    let broken = context.serialize_compact(b"not deflated", &zipped, &dir(SECRET)).unwrap();
    assert_eq!(open(&KEYS, &broken).unwrap_err(), "jwe_decryption_failed");
    for zip in ["def", "GZIP", ""] {
        let token =
            with_part(&token, 0, json!({"alg": "dir", "enc": "A256GCM", "zip": zip}).to_string().as_bytes());
        assert_eq!(open(&KEYS, &token).unwrap_err(), "jwe_zip_not_allowed", "{zip:?}");
    }
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let mut status = String::new();
    std::fs::File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A token under ECDH-ES and A256GCM, as RFC 7518 §4.6 makes it, but from any `epk` and any shared secret.
fn seal_ecdh(epk: &Value, shared_secret: &[u8]) -> String {
    seal_ecdh_with(json!({"alg": "ECDH-ES", "enc": "A256GCM", "epk": epk}), shared_secret)
}

fn seal_ecdh_with(fields: Value, shared_secret: &[u8]) -> String {
    let header = b64(fields.to_string());
    let length = |number: u32| number.to_be_bytes().to_vec();
    let derivation = [
        length(1),
        shared_secret.to_vec(),
        length(7),
        b"A256GCM".to_vec(),
        length(0),
        length(0),
        length(256),
    ];
    let key = digest::digest(&digest::SHA256, &derivation.concat());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let mut text = b"payload".to_vec();
    let nonce = Nonce::assume_unique_for_key([9; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut text).unwrap();
    format!("{header}..{}.{}.{}", b64([9; 12]), b64(text), b64(tag))
}

#[test]
fn an_epk_off_the_curve_is_refused() {
    let ours = PKey::public_key_from_der(&EC.to_der_public_key()).unwrap();
    let ephemeral = EcKeyPair::generate(EcCurve::P256).unwrap();
    let private = PKey::private_key_from_der(&ephemeral.to_der_private_key()).unwrap();
    let mut deriver = Deriver::new(&private).unwrap();
    deriver.set_peer(&ours).unwrap();
    let shared_secret = deriver.derive_to_vec().unwrap();
    let honest = serde_json::to_value(ephemeral.to_jwk_public_key().as_ref()).unwrap();
    assert_eq!(open(&KEYS, &seal_ecdh(&honest, &shared_secret)).unwrap().payload, b"payload");

    let ignored = json!({
        "alg": "ECDH-ES", "enc": "A256GCM", "epk": honest, "jwk": 5, "jku": [], "x5u": {}, "x5c": "?", "x5t": "?",
    });
    assert!(open(&KEYS, &seal_ecdh_with(ignored, &shared_secret)).is_ok(), "what is ignored may be anything");

    // The point (5, 0) has order 2 on its own curve: times our odd private number, it is itself. So who
    // leaves the check out agrees with the sender on the secret 5, and by more such points loses the private
    // key.
    let number = |number: u8| b64([vec![0; 31], vec![number]].concat());
    let small_order = json!({"kty": "EC", "crv": "P-256", "x": number(5), "y": number(0)});
    let five = URL_SAFE_NO_PAD.decode(number(5)).unwrap();
    assert_eq!(open(&KEYS, &seal_ecdh(&small_order, &five)).unwrap_err(), "jwe_decryption_failed");

    let other_curve = EcKeyPair::generate(EcCurve::P384).unwrap().to_jwk_public_key();
    let other_curve = serde_json::to_value(other_curve.as_ref()).unwrap();
    let mut mislabelled = other_curve.clone();
    mislabelled["crv"] = "P-256".into();
    let but = |name: &str, value: Value| {
        let mut epk = honest.clone();
        epk[name] = value;
        epk
    };
    for epk in [
        other_curve,
        mislabelled,
        but("crv", "P-384".into()),
        but("crv", Value::Null),
        but("kty", "OKP".into()),
        but("y", number(1).into()),
        but("y", honest["x"].clone()),
        but("x", "".into()),
        but("x", b64([255; 32]).into()),
        but("x", b64([1; 4000]).into()),
        but("x", 5.into()),
        json!({"kty": "EC", "crv": "P-256", "x": "", "y": ""}),
        json!({"kty": "EC", "crv": "P-256", "x": number(0), "y": number(0)}),
        json!({"kty": "OKP", "crv": "X25519", "x": b64([9; 32])}),
        json!({}),
        json!([]),
        json!("epk"),
        Value::Null,
    ] {
        let reason = open(&KEYS, &seal_ecdh(&epk, &shared_secret)).unwrap_err();
        assert_eq!(reason, "jwe_decryption_failed", "{epk}");
    }
    let without = with_part(&seal_ecdh(&honest, &shared_secret), 0, br#"{"alg":"ECDH-ES","enc":"A256GCM"}"#);
    assert_eq!(open(&KEYS, &without).unwrap_err(), "jwe_decryption_failed");
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let alg = prop::sample::select(vec![
        "RSA-OAEP",
        "RSA-OAEP-256",
        "RSA-OAEP-384",
        "RSA-OAEP-512",
        "ECDH-ES",
        "ECDH-ES+A128KW",
        "ECDH-ES+A256KW",
        "A128KW",
        "A256KW",
        "dir",
        "RSA1_5",
        "none",
    ]);
    let enc = prop::sample::select(vec!["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"]);
    let coordinate = prop::collection::vec(any::<u8>(), 0..70).prop_map(b64);
    let deflated = any::<bool>();
    (alg, enc, coordinate.clone(), coordinate, deflated).prop_map(|(alg, enc, x, y, deflated)| {
        let epk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        let mut fields = json!({"alg": alg, "enc": enc, "epk": epk, "apu": x, "apv": y});
        if deflated {
            fields["zip"] = "DEF".into();
        }
        fields.to_string().into_bytes()
    })
}

fn any_part() -> impl Strategy<Value = Vec<u8>> {
    let length =
        prop_oneof![0..80_usize, Just(12), Just(16), Just(24), Just(32), Just(40), Just(72), Just(256)];
    length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length))
}

proptest! {
    #[test]
    fn no_text_opens_or_panics(token in r"[a-zA-Z0-9_.\-={} ]{0,300}") {
        prop_assert!(open(&KEYS, &token).is_err());
    }

    #[test]
    fn no_bytes_in_the_form_of_a_jwe_open_or_panic(
        header in prop_oneof![9 => any_header(), 1 => any_part()],
        parts in prop::collection::vec(any_part(), 4),
    ) {
        let parts: Vec<String> = [vec![header], parts].concat().iter().map(b64).collect();
        prop_assert!(open(&KEYS, &parts.join(".")).is_err());
    }
}
