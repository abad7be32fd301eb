//! Every signature algorithm, by allow-list, and several issuers side by side.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use holdfast_devtenant::{Options, Tenant, TokenBuilder};
use support::Reply;
use support::service::{Running, issuer};

const ASYMMETRIC: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

async fn serve(issuers: &[String]) -> Running {
    Running::start(&issuers.concat(), Clock::system()).await
}

async fn ask(holdfast: &Running, token: &TokenBuilder) -> Reply {
    holdfast.ask(&token.build().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_algorithm_is_accepted_if_and_only_if_it_is_allowed() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    for allowed in ASYMMETRIC {
        let service = serve(&[issuer(&tenant, &format!("algorithms = [\"{allowed}\"]"))]).await;
        for used in ASYMMETRIC {
            let token = tenant.mint().email_direct("alice@example.com").algorithm(used);
            let expected = if used == allowed { 200 } else { 401 };
            assert_eq!(ask(&service, &token).await.status, expected, "{used} where {allowed} is allowed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_secret_is_used_only_where_it_is_configured() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let secret = b"a secret of at least thirty-two bytes!";
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let row = format!("algorithms = [\"HS256\"]\nsecret_file = \"{}\"", file.display());
    let service = serve(&[issuer(&tenant, &row)]).await;
    let token =
        |secret: &[u8]| tenant.mint().email_direct("alice@example.com").algorithm("HS256").hs_secret(secret);
    assert_eq!(ask(&service, &token(secret)).await.status, 200);
    assert_eq!(ask(&service, &token(b"another secret of thirty-two bytes....")).await.status, 401);
    assert_eq!(ask(&service, &tenant.mint().email_direct("alice@example.com")).await.status, 401);

    // Others may read it: refused, with a sentence that says what to do.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}",
        issuer(&tenant, &row)
    );
    let error =
        Service::start(Source::text("test.toml", &text), Clock::system()).await.err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_issuer_has_its_own_keys_audience_and_rules() {
    let (one, two) = tokio::join!(Tenant::start(Options::default()), Tenant::start(Options::default()));
    let (one, two) = (one.unwrap(), two.unwrap());
    let second = format!(
        "[[issuer]]\nurl = \"{}\"\naudience = [\"https://two\"]\nalgorithms = [\"ES256\"]\n",
        two.issuer()
    );
    let service = serve(&[issuer(&one, ""), second]).await;
    let of_two = || two.mint().email_direct("bob@example.com").audience("https://two").algorithm("ES256");
    assert_eq!(
        ask(&service, &one.mint().email_direct("alice@example.com")).await.header("x-user-email"),
        ["alice@example.com"]
    );
    assert_eq!(ask(&service, &of_two()).await.header("x-user-email"), ["bob@example.com"]);
    for (token, why) in [
        (of_two().audience("https://api.example.com"), "the audience of the other issuer"),
        (of_two().algorithm("RS256"), "the algorithm of the other issuer"),
        (of_two().issuer(one.issuer()), "signed by the other issuer's key, under the same kid"),
        (one.mint().email_direct("a@example.com").issuer(two.issuer()), "the same the other way round"),
    ] {
        assert_eq!(ask(&service, &token).await.status, 401, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_issuers_with_the_same_user_can_be_told_apart_by_header_requirement_and_domain() {
    let (one, two) = tokio::join!(Tenant::start(Options::default()), Tenant::start(Options::default()));
    let (one, two) = (one.unwrap(), two.unwrap());
    let headers = "[headers]\n\"X-Issuer\" = \"iss\"\n".to_owned();
    let limited = issuer(&two, "email_domains = [\"partner.example\"]\n");
    let service = serve(&[issuer(&one, ""), limited, headers]).await;
    let same = |tenant: &Tenant, email: &str| {
        let user =
            holdfast_devtenant::User::new("auth0|same").email(email).claim("iss", "https://evil.example/");
        tenant.add_user(user);
        [tenant.mint(), tenant.mint().opaque()].map(|token| token.subject("auth0|same"))
    };
    let path = |issuer: &str| format!("/auth?issuer={issuer}");
    let [signed, opaque] = same(&one, "same@corp.example").map(|token| token.build().unwrap());
    for token in [&signed, &opaque] {
        let reply = service.ask_at(&path(&one.issuer()), token).await;
        assert_eq!((reply.status, reply.header("x-issuer")), (200, vec![&*one.issuer()]), "{reply:?}");
        assert_eq!(service.ask_at(&path(&two.issuer()), token).await.status, 403);
        let both = path(&two.issuer()) + "&issuer=" + &one.issuer();
        assert_eq!(service.ask_at(&both, token).await.status, 200);
    }
    let of_two = two.mint().subject("auth0|same");
    for (email, status) in [("same@corp.example", 403), ("same@partner.example", 200)] {
        let token = of_two.clone().email_direct(email).build().unwrap();
        let reply = service.ask_at(&path(&two.issuer()), &token).await;
        assert_eq!(reply.status, status, "{email}");
    }
    assert_eq!(two.calls().userinfo, 0, "what it signed is its word on the email");
    assert_eq!(service.answered("email_not_allowed").await, 1);
    assert_eq!(service.ask_at("/auth?issuer=nobody", &signed).await.status, 500);
}
