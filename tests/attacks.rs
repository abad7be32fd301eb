//! Every known attack on a token, one row each, through the whole service: the answer, the reason in the
//! metrics, and that the issuer was not asked.
//!
//! Each row differs from an accepted token in one thing only. Attacks on the decryption of a JWE itself are
//! in `jose.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, Tenant, TokenBuilder};
use serde_json::{Value, json};
use support::service::{Running, decryption_keys, issuer, request, tenant, value};
use tokio::net::TcpStream;

const EMAIL: &str = "alice@example.com";
const INVALID: &str =
    r#"Bearer realm="holdfast", error="invalid_token", error_description="The access token is invalid""#;
const EXPIRED: &str =
    r#"Bearer realm="holdfast", error="invalid_token", error_description="The access token expired""#;
const MALFORMED: &str =
    r#"Bearer realm="holdfast", error="invalid_request", error_description="The access token is malformed""#;

/// A forged token, and the reason that it must be refused for.
struct Row {
    name: &'static str,
    token: String,
    reason: &'static str,
}

/// What an attacker has: a tenant of the victim's, a tenant of their own, and all that is public.
struct Scene {
    victim: Tenant,
    attacker: Tenant,
    holdfast: Running,
    _files: tempfile::TempDir,
}

impl Scene {
    /// The victim's and one more tenant are configured; the attacker's own is not.
    async fn set() -> (Self, Tenant) {
        let (victim, neighbour, attacker) = (tenant().await, tenant().await, tenant().await);
        let (files, keys) = decryption_keys(&victim);
        let config = issuer(&victim, &keys) + &issuer(&neighbour, "");
        let holdfast = Running::start(&config, Clock::system()).await;
        (Self { victim, attacker, holdfast, _files: files }, neighbour)
    }

    fn good(&self) -> TokenBuilder {
        self.victim.mint().email_direct(EMAIL)
    }

    /// Sends each row twice; both times it is refused for its reason, without a call to the issuer.
    async fn refuses(&self, rows: Vec<Row>) {
        let genuine = self.holdfast.ask(&self.good().build().unwrap()).await;
        assert_eq!((genuine.status, value(&genuine, "x-user-email")), (200, Some(EMAIL)), "{genuine:?}");

        for Row { name, token, reason } in rows {
            let challenge = match reason {
                "expired" => EXPIRED,
                "token_grammar" => MALFORMED,
                _ => INVALID,
            };
            let before = self.holdfast.answered(reason).await;
            for sight in ["first", "second"] {
                let reply = self.holdfast.ask(&token).await;
                assert_eq!(reply.status, 401, "{name}, {sight} sight: {reply:?}");
                assert_eq!(value(&reply, "www-authenticate"), Some(challenge), "{name}, {sight} sight");
                assert_eq!(value(&reply, "x-user-email"), None, "{name}, {sight} sight");
                assert_eq!(value(&reply, "x-user-id"), None, "{name}, {sight} sight");
                assert_eq!(reply.body, "", "{name}");
            }
            let counted = self.holdfast.answered(reason).await - before;
            assert_eq!(counted, 2, "{name}: not metered as {reason}");
        }
        assert_eq!(self.victim.calls().userinfo, 0, "what can be refused here was asked about");
        assert_eq!(self.attacker.calls().total, 0, "a token made holdfast call somebody");
    }
}

fn row(name: &'static str, token: impl Into<String>, reason: &'static str) -> Row {
    Row { name, token: token.into(), reason }
}

fn built(name: &'static str, token: TokenBuilder, reason: &'static str) -> Row {
    row(name, token.build().unwrap_or_else(|error| panic!("{name}: {error}")), reason)
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The tenant's published key for an algorithm.
async fn public_jwk(tenant: &Tenant, alg: &str) -> Value {
    let stream = TcpStream::connect(tenant.address()).await.unwrap();
    let reply = support::exchange(stream, &request("/.well-known/jwks.json", "")).await;
    let jwks: Value = serde_json::from_str(&reply.body).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    keys.iter().find(|key| key["alg"] == alg).unwrap().clone()
}

fn rsa_of(jwk: &Value) -> openssl::rsa::Rsa<openssl::pkey::Public> {
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        openssl::bn::BigNum::from_slice(&bytes).unwrap()
    };
    openssl::rsa::Rsa::from_public_components(number("n"), number("e")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_cannot_choose_how_it_is_verified() {
    let (scene, _) = Scene::set().await;
    let good = || scene.good();
    let jwk = public_jwk(&scene.victim, "RS256").await;
    let rsa = rsa_of(&jwk);
    let kid = jwk["kid"].as_str().unwrap();
    let mut rows = Vec::new();

    for alg in ["none", "None", "NONE", "nOnE", "none ", "", "null"] {
        let unsigned = good().unsigned().header("alg", alg).build().unwrap();
        assert!(unsigned.ends_with('.'));
        rows.push(row("alg none without a signature", &*unsigned, "malformed"));
        rows.push(row("alg none with some signature", unsigned.clone() + "AAAA", "algorithm_not_allowed"));
    }
    rows.push(built("no alg at all", good().header("alg", Value::Null), "malformed"));
    rows.push(built("alg of another type", good().header("alg", json!(["RS256"])), "malformed"));
    rows.push(built("alg in another case", good().header("alg", "rs256"), "algorithm_not_allowed"));

    let pem = rsa.public_key_to_pem().unwrap();
    for secret in [
        pem.clone(),
        pem.trim_ascii_end().to_vec(),
        rsa.public_key_to_pem_pkcs1().unwrap(),
        rsa.public_key_to_der().unwrap(),
        rsa.n().to_vec(),
        jwk.to_string().into_bytes(),
    ] {
        for kid in [Some(kid), None] {
            let confused = good().algorithm("HS256").hs_secret(&secret).kid(kid);
            rows.push(built("HS256 keyed with the public key", confused.clone(), "algorithm_not_allowed"));
            rows.push(built(
                "the same under the name RS256",
                confused.header("alg", "RS256"),
                "signature_invalid",
            ));
        }
    }
    for alg in ["RS384", "RS512", "PS256", "ES256", "EdDSA"] {
        rows.push(built("a real signature of another alg", good().algorithm(alg), "algorithm_not_allowed"));
    }

    for kid in ["../../../../dev/null", "/dev/null", "' OR '1'='1", "x' UNION SELECT 'AAAA", "|id", "", "\0"]
    {
        rows.push(built("kid as a path or a query", good().kid(Some(kid)), "key_unknown"));
    }
    rows.push(built("kid of another type", good().header("kid", 1), "malformed"));
    rows.push(built("kid of 1 KiB", good().kid(Some(&"k".repeat(1024))), "malformed"));
    rows.push(built("kid of a key for another alg", good().kid(Some("dev-es-1")), "key_unfit"));

    let elsewhere = format!("{}.well-known/jwks.json", scene.attacker.issuer());
    let stolen = || scene.attacker.mint().email_direct(EMAIL).issuer(scene.victim.issuer());
    rows.push(built("signed by a stranger", good().signed_by_stranger(), "signature_invalid"));
    rows.push(built("signed by another tenant", stolen(), "signature_invalid"));
    rows.push(built("jku", stolen().header("jku", &*elsewhere), "signature_invalid"));
    rows.push(built("x5u", stolen().header("x5u", &*elsewhere), "signature_invalid"));
    let their_key = public_jwk(&scene.attacker, "RS256").await;
    scene.attacker.reset_calls();
    rows.push(built("jwk", stolen().header("jwk", their_key), "signature_invalid"));
    rows.push(built("x5c", stolen().header("x5c", json!(["MIIB"])), "signature_invalid"));
    rows.push(built("jku without kid", stolen().kid(None).header("jku", &*elsewhere), "signature_invalid"));

    rows.push(built("crit", good().header("crit", json!(["exp"])).header("exp", 1), "crit_unsupported"));
    rows.push(built("crit, empty", good().header("crit", json!([])), "crit_unsupported"));
    let unencoded = || good().header("b64", false);
    rows.push(built("b64: false, critical", unencoded().header("crit", json!(["b64"])), "crit_unsupported"));
    rows.push(built("b64: false", unencoded(), "malformed"));
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "id_token"] {
        rows.push(built("a JWT of another kind", good().typ(typ), "not_an_access_token"));
    }
    scene.refuses(rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_one_spelling() {
    let (scene, _) = Scene::set().await;
    let token = scene.good().build().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("{token}") };
    let join = |header: &str, payload: &str, signature: &str| format!("{header}.{payload}.{signature}");
    let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();

    // A signature of 256 bytes leaves four bits of its last character unused; they are zero in the one
    // spelling.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(signature.len() - 1);
    let last = alphabet.find(last).unwrap();
    assert_eq!(last % 16, 0);
    let stray = format!("{start}{}", &alphabet[last + 1..last + 2]);

    let mut rows = vec![
        row("no signature", join(header, payload, ""), "malformed"),
        row("no payload", join(header, "", signature), "malformed"),
        row("no header", join("", payload, signature), "malformed"),
        row("two parts", format!("{header}.{payload}"), "malformed"),
        row("only dots", "..", "malformed"),
        row("four parts", format!("{token}."), "malformed"),
        row("a dot before", format!(".{token}"), "malformed"),
        row("five parts, two empty", format!("{token}.."), "malformed"),
        row("five parts", format!("{token}.AAAA.AAAA"), "jwe_alg_not_allowed"),
        row("six parts", format!("{token}.A.A.A"), "malformed"),
        row("signature cut by a byte", join(header, payload, &signature[..340]), "signature_invalid"),
        row("signature cut to a byte", join(header, payload, "AA"), "signature_invalid"),
        row("signature cut amid a group", join(header, payload, &signature[..341]), "malformed"),
        row("payload cut", join(header, &payload[..payload.len() / 4 * 4 - 8], signature), "malformed"),
        row("header cut", join(&header[..header.len() / 4 * 4 - 8], payload, signature), "malformed"),
        row("padding at the end", format!("{token}="), "malformed"),
        row("more padding at the end", format!("{token}=="), "malformed"),
        row("padding inside", join(&format!("{header}="), payload, signature), "token_grammar"),
        row("a blank inside", join(&format!("{header} "), payload, signature), "token_grammar"),
        row("a tab inside", join(header, payload, &format!("AA\t{start}")), "token_grammar"),
        row("the other alphabet", join(header, payload, &format!("+{}", &signature[1..])), "malformed"),
        row("stray bits", join(header, payload, &stray), "malformed"),
        row(
            "JSON, flattened",
            json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            "token_grammar",
        ),
        row(
            "JSON, general",
            json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
                .to_string(),
            "token_grammar",
        ),
        row(
            "alg twice",
            join(&b64(with_member(&text(header), r#""alg":"none""#)), payload, signature),
            "duplicate_name",
        ),
        row(
            "the header spelt otherwise",
            join(&b64(text(header).replacen('{', "{ ", 1)), payload, signature),
            "signature_invalid",
        ),
        row(
            "more values in the header than are read",
            join(
                &b64(with_member(&text(header), &format!("\"many\":[{}]", vec!["1"; 64].join(",")))),
                payload,
                signature,
            ),
            "malformed",
        ),
        row("the header is a list", join(&b64("[]"), payload, signature), "malformed"),
        row("the header is not UTF-8", join(&b64(b"{\"alg\":\"\xff\"}"), payload, signature), "malformed"),
        row("nothing but a header", join(&b64("{}"), payload, signature), "malformed"),
    ];
    let claims = text(payload);
    for (name, payload, reason) in [
        ("sub twice", with_member(&claims, r#""sub":"auth0|admin""#), "duplicate_name"),
        ("iss twice", with_member(&claims, r#""iss":"https://evil.example/""#), "duplicate_name"),
        ("sub twice by an escape", with_member(&claims, r#""\u0073ub":"auth0|admin""#), "duplicate_name"),
        (
            "twice further in",
            with_member(&claims, r#""user":{"email":"a@b.example","email":"c@d.example"}"#),
            "duplicate_name",
        ),
        ("text after the claims", format!("{claims}{{}}"), "malformed"),
        ("claims in a list", format!("[{claims}]"), "malformed"),
        ("a NUL after the claims", format!("{claims}\0"), "malformed"),
        (
            "more values than are read",
            with_member(&claims, &format!("\"many\":[{}]", vec!["1"; 4_100].join(","))),
            "malformed",
        ),
        (
            "claims nested 130 deep",
            with_member(&claims, &format!("\"deep\":{}1{}", "[".repeat(130), "]".repeat(130))),
            "malformed",
        ),
        (
            "claims nested 5000 deep",
            with_member(&claims, &format!("\"deep\":{}1{}", "[".repeat(4000), "]".repeat(4000))),
            "malformed",
        ),
    ] {
        // Signed by the issuer as they are: what refuses them is not the signature.
        rows.push(built(name, scene.good().payload(payload), reason));
    }
    scene.refuses(rows).await;
}

/// The object with one more member at its beginning.
fn with_member(object: &str, member: &str) -> String {
    object.replacen('{', &format!("{{{member},"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_claims_of_a_genuine_signature_are_still_checked() {
    let (scene, neighbour) = Scene::set().await;
    let good = || scene.good();
    let raw = |exp: &str| {
        let (iss, aud) = (scene.victim.issuer(), scene.victim.audience());
        good().payload(format!(
            r#"{{"iss":"{iss}","aud":"{aud}","sub":"auth0|alice","exp":{exp},"email":"{EMAIL}"}}"#
        ))
    };
    let audience = scene.victim.audience();
    let unslashed = scene.victim.issuer().trim_end_matches('/').to_owned();
    let in_an_hour = (scene.victim.time() + 3600).to_string();
    for exp in [in_an_hour.clone(), format!("{in_an_hour}.5"), format!("{in_an_hour}.0e0")] {
        let fine = scene.holdfast.ask(&raw(&exp).build().unwrap()).await;
        assert_eq!(fine.status, 200, "{exp}: the rows below differ from a token that is refused anyway");
    }

    let rows = vec![
        built("expired", good().expires_in(-31), "expired"),
        built("expired in 1970", raw("0"), "expired"),
        built("no exp", good().remove_claim("exp"), "claim_unfit"),
        built("exp null", raw("null"), "claim_unfit"),
        built("exp a string", raw(&format!("\"{in_an_hour}\"")), "claim_unfit"),
        built("exp negative", raw("-1"), "claim_unfit"),
        built("exp a fraction, past", raw(&format!("{}.5", scene.victim.time() - 31)), "expired"),
        built("exp a negative fraction", raw("-0.5"), "claim_unfit"),
        built("exp true", raw("true"), "claim_unfit"),
        built("exp in a list", raw(&format!("[{in_an_hour}]")), "claim_unfit"),
        built("exp too far", raw("1e300"), "claim_unfit"),
        built("exp beyond u64", raw("18446744073709551616"), "claim_unfit"),
        built("exp infinite", raw("1e400"), "claim_unfit"),
        built("exp NaN", raw("NaN"), "malformed"),
        built("nbf in the future", good().not_before_in(90), "not_yet_valid"),
        built("iat in the future", good().issued_ago(-90), "not_yet_valid"),
        built("another audience", good().audience("https://other.example"), "audience_mismatch"),
        built(
            "other audiences",
            good().audiences(["https://a.example", "https://b.example"]),
            "audience_mismatch",
        ),
        built("the audience with a slash", good().audience(audience.clone() + "/"), "audience_mismatch"),
        built("the audience in capitals", good().audience(audience.to_uppercase()), "audience_mismatch"),
        built("the audience amid blanks", good().audience(format!("x {audience} y")), "audience_mismatch"),
        built("no audience", good().remove_claim("aud"), "claim_unfit"),
        built("an empty list of audiences", good().claim("aud", json!([])), "audience_mismatch"),
        built("an audience beside a number", good().claim("aud", json!([audience, 1])), "claim_unfit"),
        built("an audience in an object", good().claim("aud", json!({"0": audience})), "claim_unfit"),
        built("iss without its slash", good().issuer(&*unslashed), "issuer_unknown"),
        built("iss with two slashes", good().issuer(scene.victim.issuer() + "/"), "issuer_unknown"),
        built("iss of nobody", good().issuer("https://evil.example/"), "issuer_unknown"),
        built("iss of an unconfigured tenant", scene.attacker.mint().email_direct(EMAIL), "issuer_unknown"),
        built("no iss", good().remove_claim("iss"), "issuer_unknown"),
        built("iss in a list", good().claim("iss", json!([scene.victim.issuer()])), "issuer_unknown"),
        built("iss of the neighbour, same kid", good().issuer(neighbour.issuer()), "signature_invalid"),
        built(
            "the neighbour as the victim, same kid",
            neighbour.mint().email_direct(EMAIL).issuer(scene.victim.issuer()),
            "signature_invalid",
        ),
        built("an ID token", good().claim("nonce", "n"), "not_an_access_token"),
        built("an ID token with at_hash", good().claim("at_hash", "h"), "not_an_access_token"),
        built("a logout token", good().claim("events", json!({})), "not_an_access_token"),
        built("no sub", good().remove_claim("sub"), "claim_unfit"),
        built("sub empty", good().subject(""), "claim_unfit"),
        built("sub a number", good().claim("sub", 1), "claim_unfit"),
    ];
    let kid = |token: &str| {
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].clone()
    };
    let (ours, theirs) = (good().build().unwrap(), neighbour.mint().build().unwrap());
    assert_eq!(kid(&ours), kid(&theirs), "else the two rows about the neighbour prove nothing");
    scene.refuses(rows).await;
    assert_eq!(neighbour.calls().userinfo, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_to_our_public_key_proves_nothing() {
    let (scene, neighbour) = Scene::set().await;
    let good = || scene.good();
    let sealed = scene.holdfast.ask(&good().nested_jwe().build().unwrap()).await;
    assert_eq!((sealed.status, value(&sealed, "x-user-email")), (200, Some(EMAIL)), "{sealed:?}");

    let unopenable = |header: Value| {
        let key = b64([7; 256]);
        format!("{}.{key}.{}.{}.{}", b64(header.to_string()), b64([7; 12]), b64([7; 64]), b64([7; 16]))
    };
    // With the shared key, since ten seals to the RSA key do not fit into 16 KiB.
    let tenfold = (0..10).fold("{}".to_owned(), |inner, _| {
        good().payload(inner).bare_jwe().nested_jwe_with("dir", "A256GCM").build().unwrap()
    });
    assert!(tenfold.len() < 16 * 1024, "{}", tenfold.len());
    let twofold = good().payload(good().nested_jwe().build().unwrap()).bare_jwe();
    let bomb = good().payload(vec![b' '; 8 << 20]).bare_jwe().jwe_header("zip", "DEF").build().unwrap();
    assert!(bomb.len() < 16 * 1024, "{}", bomb.len());
    // Anybody can make these small tokens, and what is in them stays below any bound on inflated content.
    let lists = format!(r#"{{"iss":"{}","x":[{}]}}"#, scene.victim.issuer(), vec!["[1]"; 47_000].join(","));
    let lists = good().payload(lists).signed_by_stranger().nested_jwe().jwe_header("zip", "DEF");
    let intact = good().nested_jwe().build().unwrap();
    // Sixteen bytes leave four bits of the last character unused.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = intact.split_at(intact.len() - 1);
    let last = alphabet.find(last).unwrap();
    assert_eq!(last % 16, 0);
    let stray = format!("{start}{}", &alphabet[last + 1..last + 2]);
    let (rest, _) = intact.rsplit_once('.').unwrap();

    scene
        .refuses(vec![
            built("bare claims", good().bare_jwe(), "bare_claims"),
            built("bare claims after a blank", good().payload(b" \n{}").bare_jwe(), "bare_claims"),
            built("bare claims under the shared key", good().bare_jwe().nested_jwe_with("dir", "A256GCM"), "bare_claims"),
            built("nothing at all", good().payload(b"x").bare_jwe(), "malformed"),
            built("not UTF-8", good().payload(b"\xff\xfe").bare_jwe(), "malformed"),
            built("a stranger's JWS", good().signed_by_stranger().nested_jwe(), "signature_invalid"),
            built("a stranger's JWS under the shared key", good().signed_by_stranger().nested_jwe_with("dir", "A256GCM"), "signature_invalid"),
            row("alg none inside", good().payload(good().unsigned().build().unwrap() + "AAAA").bare_jwe().build().unwrap(), "algorithm_not_allowed"),
            built("expired inside", good().expires_in(-31).nested_jwe(), "expired"),
            built("another audience inside", good().audience("https://other.example").nested_jwe(), "audience_mismatch"),
            built("a neighbour's JWS under the victim's key", neighbour.mint().email_direct(EMAIL).nested_jwe().jwe_header("iss", scene.victim.issuer()), "issuer_unknown"),
            built("a JWE in a JWE", twofold, "nested_too_deep"),
            row("ten JWEs in each other", tenfold, "nested_too_deep"),
            row("a zip bomb", bomb, "jwe_too_large"),
            built("a small bomb of small values", lists, "jwe_too_large"),
            row("stray bits", stray, "malformed"),
            row("padding", format!("{intact}=="), "malformed"),
            row("another zip", unopenable(json!({"alg": "RSA-OAEP-256", "enc": "A256GCM", "zip": "GZ"})), "jwe_zip_not_allowed"),
            built("crit", good().nested_jwe().jwe_header("crit", json!(["exp"])), "crit_unsupported"),
            row("RSA1_5", unopenable(json!({"alg": "RSA1_5", "enc": "A256GCM"})), "jwe_alg_not_allowed"),
            row(
                "PBES2 with a giant count",
                unopenable(json!({"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": "AAAA", "p2c": 2_147_483_647})),
                "jwe_alg_not_allowed",
            ),
            row("no enc", unopenable(json!({"alg": "RSA-OAEP-256"})), "jwe_enc_not_allowed"),
            row("another enc", unopenable(json!({"alg": "RSA-OAEP-256", "enc": "A192GCM"})), "jwe_enc_not_allowed"),
            row("noise", unopenable(json!({"alg": "RSA-OAEP-256", "enc": "A256GCM"})), "jwe_decryption_failed"),
            row("another tag", format!("{rest}.{}", b64([7; 16])), "jwe_decryption_failed"),
            row("a tag of one byte", format!("{rest}.{}", b64([7])), "jwe_decryption_failed"),
            row("no tag", format!("{rest}."), "malformed"),
            row("iss of nobody", unopenable(json!({"alg": "dir", "enc": "A256GCM", "iss": scene.attacker.issuer()})), "issuer_unknown"),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_key_serves_only_its_own_use() {
    let victim = tenant().await;
    let good = victim.mint().email_direct(EMAIL).build().unwrap();
    let genuine = public_jwk(&victim, "RS256").await;
    let other = public_jwk(&victim, "ES256").await;
    for (name, member, changed, reason) in [
        ("a key for encryption", "use", json!("enc"), "key_unknown"),
        ("a key for another alg", "alg", json!("RS512"), "key_unfit"),
        ("a key for key encryption", "alg", json!("RSA-OAEP-256"), "key_unknown"),
        ("a key for other operations", "key_ops", json!(["encrypt", "wrapKey"]), "key_unknown"),
        ("a key for this one, too", "key_ops", json!(["sign", "verify"]), ""),
        ("a key of another name", "kid", json!("other"), "key_unknown"),
        ("a key of another name that differs in case", "kid", json!("DEV-RS-1"), "key_unknown"),
        ("the key as it is", "use", json!("sig"), ""),
    ] {
        let mut key = genuine.clone();
        key[member] = changed;
        let body = json!({ "keys": [key, other] }).to_string();
        victim.set_fault(Endpoint::Jwks, Fault::Custom { status: 200, headers: Vec::new(), body });
        let holdfast = Running::start(&issuer(&victim, ""), Clock::system()).await;
        let reply = holdfast.ask(&good).await;
        if reason.is_empty() {
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
        } else {
            assert_eq!((reply.status, value(&reply, "www-authenticate")), (401, Some(INVALID)), "{name}");
            assert_eq!(holdfast.answered(reason).await, 1, "{name}");
        }
    }
    assert_eq!(victim.calls().userinfo, 0);
}
