//! Every shape of token is what it claims to be, judged with the keys that the tenant gives out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_devtenant::{Tenant, TenantError};
use josekit::jwe::{
    self, Dir, ECDH_ES, ECDH_ES_A128KW, ECDH_ES_A256KW, JweDecrypter, RSA_OAEP, RSA_OAEP_256,
};
use josekit::jwk::{Jwk, JwkSet};
use josekit::jws::{self, ES256, ES384, EdDSA, HS256, JwsVerifier, PS256, PS384, PS512, RS256, RS384, RS512};
use serde_json::{Value, json};
use support::{get, tenant};

const ASYMMETRIC: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

async fn jwks(tenant: &Tenant) -> JwkSet {
    JwkSet::from_bytes(get(tenant.address(), "/.well-known/jwks.json").await.body).unwrap()
}

fn header(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
}

fn verifier(algorithm: &str, jwk: &Jwk) -> Box<dyn JwsVerifier> {
    match algorithm {
        "RS256" => Box::new(RS256.verifier_from_jwk(jwk).unwrap()),
        "RS384" => Box::new(RS384.verifier_from_jwk(jwk).unwrap()),
        "RS512" => Box::new(RS512.verifier_from_jwk(jwk).unwrap()),
        "PS256" => Box::new(PS256.verifier_from_jwk(jwk).unwrap()),
        "PS384" => Box::new(PS384.verifier_from_jwk(jwk).unwrap()),
        "PS512" => Box::new(PS512.verifier_from_jwk(jwk).unwrap()),
        "ES256" => Box::new(ES256.verifier_from_jwk(jwk).unwrap()),
        "ES384" => Box::new(ES384.verifier_from_jwk(jwk).unwrap()),
        "EdDSA" => Box::new(EdDSA.verifier_from_jwk(jwk).unwrap()),
        other => panic!("{other}"),
    }
}

/// The claims of a JWS, if the one listed key with its `kid` signed it.
fn verify(token: &str, keys: &JwkSet) -> Option<Value> {
    let head = header(token);
    let kid = head["kid"].as_str().unwrap();
    let [key] = keys.get(kid)[..] else { panic!("not one key {kid}") };
    let algorithm = head["alg"].as_str().unwrap();
    assert_eq!(key.algorithm(), Some(algorithm));
    assert_eq!(key.key_use(), Some("sig"));
    let (payload, _) = jws::deserialize_compact(token, &*verifier(algorithm, key)).ok()?;
    Some(serde_json::from_slice(&payload).unwrap())
}

#[tokio::test]
async fn the_jwks_verifies_a_token_of_every_algorithm_and_no_strangers() {
    let tenant = tenant().await;
    let keys = jwks(&tenant).await;
    for algorithm in ASYMMETRIC {
        let token = tenant.mint().algorithm(algorithm).build().unwrap();
        assert_eq!(verify(&token, &keys).unwrap()["sub"], "auth0|alice", "{algorithm}");
        let forged = tenant.mint().algorithm(algorithm).signed_by_stranger().build().unwrap();
        assert_eq!(header(&forged)["kid"], header(&token)["kid"]);
        assert!(verify(&forged, &keys).is_none(), "{algorithm}");
    }
    assert_eq!(header(&tenant.mint().build().unwrap()), json!({"alg":"RS256","typ":"JWT","kid":"dev-rs-1"}));
}

#[tokio::test]
async fn the_jwks_holds_no_private_part() {
    let tenant = tenant().await;
    for key in jwks(&tenant).await.keys() {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.parameter(private).is_none(), "{private}");
        }
    }
}

#[tokio::test]
async fn an_hs256_token_is_signed_with_the_given_secret() {
    let tenant = tenant().await;
    let secret = [7; 32];
    let token = tenant.mint().algorithm("HS256").hs_secret(secret).build().unwrap();
    let verifier = HS256.verifier_from_bytes(secret).unwrap();
    assert!(jws::deserialize_compact(&token, &verifier).is_ok());
    assert_eq!(header(&token), json!({"alg":"HS256","typ":"JWT"}));
    assert!(matches!(tenant.mint().algorithm("HS256").build(), Err(TenantError::MissingSecret)));
}

#[tokio::test]
async fn claims_are_auth0s_unless_a_test_says_otherwise() {
    let tenant = tenant().await;
    let keys = jwks(&tenant).await;
    tenant.set_time(Some(1_000_000));
    let claims = verify(&tenant.mint().build().unwrap(), &keys).unwrap();
    assert_eq!(claims["iss"], tenant.issuer());
    assert_eq!(claims["aud"], json!(["https://api.example.com", format!("{}userinfo", tenant.issuer())]));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(1_000_000), &json!(1_086_400)));
    assert_eq!(claims["scope"], "openid profile email");
    assert!(claims.get("nbf").is_none() && claims.get("email").is_none());

    let token = tenant
        .mint()
        .subject("auth0|eve")
        .audiences(["one", "two"])
        .issuer("https://elsewhere.example/")
        .expires_in(-5)
        .not_before_in(60)
        .issued_ago(10)
        .scope("read:all")
        .claim("permissions", json!(["p"]))
        .remove_claim("jti")
        .typ("at+jwt")
        .header("crit", json!(["exp"]))
        .build()
        .unwrap();
    let claims = verify(&token, &keys);
    assert!(claims.is_none(), "josekit refuses the unknown crit");
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "https://elsewhere.example/", "sub": "auth0|eve", "aud": ["one", "two"], "iat": 999_990,
            "exp": 999_995, "nbf": 1_000_060, "scope": "read:all", "azp": "dev-client", "permissions": ["p"],
        })
    );
    assert_eq!(header(&token)["typ"], "at+jwt");
    assert!(header(&tenant.mint().kid(None).build().unwrap()).get("kid").is_none());
    assert_eq!(header(&tenant.mint().kid(Some("other")).build().unwrap())["kid"], "other");
}

#[tokio::test]
async fn the_email_is_where_each_form_puts_it() {
    let tenant = tenant().await;
    let keys = jwks(&tenant).await;
    let claims =
        |builder: holdfast_devtenant::TokenBuilder| verify(&builder.build().unwrap(), &keys).unwrap();
    let direct = claims(tenant.mint().email_direct("a@example.com"));
    assert_eq!((&direct["email"], &direct["email_verified"]), (&json!("a@example.com"), &json!(true)));
    let nested = claims(tenant.mint().email_nested("a@example.com"));
    assert_eq!(nested["user"], json!({"email": "a@example.com", "email_verified": true}));
    let name = "https://api.example.com/email";
    assert_eq!(claims(tenant.mint().email_namespaced(name, "a@example.com"))[name], "a@example.com");
}

#[tokio::test]
async fn two_tokens_are_never_the_same() {
    let tenant = tenant().await;
    assert_ne!(tenant.mint().build().unwrap(), tenant.mint().build().unwrap());
    assert_ne!(tenant.mint().opaque().build().unwrap(), tenant.mint().opaque().build().unwrap());
}

fn decrypter(tenant: &Tenant, alg: &str, enc: &str) -> Box<dyn JweDecrypter> {
    let (rsa, ec) = (tenant.jwe_private_key_pem(), tenant.jwe_ec_private_key_pem());
    let oct = || Jwk::from_bytes(tenant.jwe_symmetric_jwk_for(alg, enc)).unwrap();
    match alg {
        "RSA-OAEP" => Box::new(RSA_OAEP.decrypter_from_pem(rsa).unwrap()),
        "RSA-OAEP-256" => Box::new(RSA_OAEP_256.decrypter_from_pem(rsa).unwrap()),
        "ECDH-ES" => Box::new(ECDH_ES.decrypter_from_pem(ec).unwrap()),
        "ECDH-ES+A128KW" => Box::new(ECDH_ES_A128KW.decrypter_from_pem(ec).unwrap()),
        "ECDH-ES+A256KW" => Box::new(ECDH_ES_A256KW.decrypter_from_pem(ec).unwrap()),
        "A128KW" => Box::new(jwe::A128KW.decrypter_from_jwk(&oct()).unwrap()),
        "A256KW" => Box::new(jwe::A256KW.decrypter_from_jwk(&oct()).unwrap()),
        "dir" => Box::new(Dir.decrypter_from_jwk(&oct()).unwrap()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_nested_jwe_of_every_kind_opens_with_the_apis_key_and_holds_a_signed_token() {
    let tenant = tenant().await;
    let keys = jwks(&tenant).await;
    let algs = "RSA-OAEP RSA-OAEP-256 ECDH-ES ECDH-ES+A128KW ECDH-ES+A256KW A128KW A256KW dir";
    for alg in algs.split(' ') {
        for enc in ["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"] {
            let token = tenant.mint().nested_jwe_with(alg, enc).build().unwrap();
            let head = header(&token);
            assert_eq!((&head["alg"], &head["enc"], &head["cty"]), (&json!(alg), &json!(enc), &json!("JWT")));
            let (inner, _) = jwe::deserialize_compact(&token, &*decrypter(&tenant, alg, enc)).unwrap();
            let claims = verify(std::str::from_utf8(&inner).unwrap(), &keys);
            assert_eq!(claims.unwrap()["sub"], "auth0|alice", "{alg} {enc}");
        }
    }
    assert_eq!(
        header(&tenant.mint().nested_jwe().without_cty().build().unwrap()),
        json!({"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"dev-jwe-1"})
    );
    assert!(header(&tenant.mint().nested_jwe().jwe_kid(None).build().unwrap()).get("kid").is_none());
    assert!(tenant.mint().nested_jwe_with("RSA1_5", "A256GCM").build().is_err());
    assert!(tenant.mint().nested_jwe_with("dir", "A192GCM").build().is_err());
}

#[tokio::test]
async fn keys_for_the_api_are_in_the_forms_that_were_promised() {
    let tenant = tenant().await;
    assert!(tenant.jwe_public_key_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
    for pem in [tenant.jwe_private_key_pem(), tenant.jwe_ec_private_key_pem()] {
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
    }
    let length = |jwk: String| Jwk::from_bytes(jwk).unwrap().key_value().unwrap().len();
    assert_eq!(length(tenant.jwe_symmetric_jwk()), 32);
    for (alg, enc, bytes) in [
        ("dir", "A128GCM", 16),
        ("dir", "A256CBC-HS512", 64),
        ("A128KW", "A256GCM", 16),
        ("A256KW", "A128GCM", 32),
    ] {
        assert_eq!(length(tenant.jwe_symmetric_jwk_for(alg, enc)), bytes, "{alg} {enc}");
    }
    assert_eq!(tenant.jwe_symmetric_jwk_for("dir", "no such"), "{}");
    assert_eq!(tenant.jwe_symmetric_jwk_for("A256GCM", "A256GCM"), "{}");
}

#[tokio::test]
async fn a_bare_jwe_holds_claims_and_no_signature() {
    let tenant = tenant().await;
    for (alg, enc, builder) in [
        ("RSA-OAEP-256", "A256GCM", tenant.mint().bare_jwe()),
        ("dir", "A128CBC-HS256", tenant.mint().nested_jwe_with("dir", "A128CBC-HS256").bare_jwe()),
        ("ECDH-ES", "A128GCM", tenant.mint().bare_jwe().nested_jwe_with("ECDH-ES", "A128GCM")),
    ] {
        let token = builder.build().unwrap();
        let (inner, _) = jwe::deserialize_compact(&token, &*decrypter(&tenant, alg, enc)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&inner).unwrap()["sub"], "auth0|alice");
        assert!(header(&token).get("cty").is_none());
    }
}

#[tokio::test]
async fn the_tenants_own_jwe_is_sealed_to_nobody_else() {
    let tenant = tenant().await;
    let token = tenant.mint().tenant_dir_jwe().build().unwrap();
    assert_eq!(header(&token), json!({"alg":"dir","enc":"A256GCM","iss":tenant.issuer()}));
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!((parts.len(), parts[1]), (5, ""));
    let api = decrypter(&tenant, "dir", "A256GCM");
    assert!(jwe::deserialize_compact(&token, &*api).is_err());
}

#[tokio::test]
async fn an_attackers_wishes_are_granted() {
    let tenant = tenant().await;
    let unsigned = tenant.mint().unsigned().build().unwrap();
    assert!(unsigned.ends_with('.'));
    assert_eq!(header(&unsigned)["alg"], "none");
    let twice = tenant.mint().payload(r#"{"sub":"a","sub":"b"}"#).build().unwrap();
    let payload = URL_SAFE_NO_PAD.decode(twice.split('.').nth(1).unwrap()).unwrap();
    assert_eq!(payload, br#"{"sub":"a","sub":"b"}"#);
    let bomb = tenant.mint().nested_jwe().jwe_header("zip", "DEF").claim("pad", "x".repeat(100_000));
    let bomb = bomb.bare_jwe().build().unwrap();
    assert!(bomb.len() < 3_000, "compressed to {}", bomb.len());
    assert_eq!(header(&bomb)["zip"], "DEF");
    assert!(matches!(tenant.mint().algorithm("RS1").build(), Err(TenantError::UnknownAlgorithm(_))));
}
