//! Configured tables, and routes that want fresher answers than the table gives.

use std::time::Duration;

use holdfast_devtenant::{Endpoint, Fault};

use crate::support::service::assert_undecided;
use crate::support::until;
use crate::{HOUR, Scene, tier};

fn row(name: &str, age: &str, role: &str) -> String {
    format!("[[tier]]\nname = \"{name}\"\nage = \"{age}\"\nrole = \"{role}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_youngest_row_is_obeyed_too() {
    let policy = "[policy]\nverdict_ceiling = \"emergency\"\n";
    let outage = Scene::start(&(policy.to_owned() + &row("emergency", "48h", "outage"))).await;
    let revalidate = Scene::start(&(policy.to_owned() + &row("emergency", "40s", "revalidate"))).await;
    for scene in [&outage, &revalidate] {
        let token = scene.tenant.mint().opaque().build().unwrap();
        scene.tenant.reset_calls();
        for _ in 0..3 {
            assert_eq!(tier(&scene.ask(&token, "").await), "emergency");
        }
        assert_eq!(scene.tenant.calls().userinfo, 1, "what was said just now is not asked again at once");
        scene.tenant.revoke_token(&token);
        scene.clock.advance(Duration::from_secs(11));
        if std::ptr::eq(scene, &outage) {
            assert_eq!(scene.ask(&token, "").await.status, 401, "it is asked first");
        } else {
            assert_eq!(tier(&scene.ask(&token, "").await), "emergency", "it is asked behind the answer");
            until("the no", async || (scene.ask(&token, "").await.status == 401).then_some(())).await;
        }
        assert_eq!(scene.tenant.calls().userinfo, 2);
    }
    // Without the issuer it still answers.
    let token = outage.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&outage.ask(&token, "").await), "emergency");
    outage.tenant.go_down().await;
    outage.clock.advance(Duration::from_secs(47 * HOUR));
    assert_eq!(tier(&outage.ask(&token, "").await), "emergency");
}

/// Two fresh tiers, so that there is no revalidation in the background.
fn two_fresh() -> String {
    "[policy]\nverdict_ceiling = \"last\"\n".to_owned()
        + &row("young", "1h", "fresh")
        + &row("older", "4h", "fresh")
        + &row("last", "48h", "outage")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_wants_a_younger_answer_has_the_issuer_asked_at_once() {
    let scene = Scene::start(&two_fresh()).await;
    let mint = || scene.tenant.mint().expires_in(100_000);
    for (what, token) in
        [("a profile", mint().build().unwrap()), ("a verdict", mint().opaque().build().unwrap())]
    {
        for ready in [false, true] {
            let what = format!("{what}, an answer lies ready: {ready}");
            scene.ask(&token, "?max_tier=young").await;
            scene.clock.advance(Duration::from_secs(2 * HOUR));
            scene.tenant.reset_calls();
            if ready {
                assert_eq!(tier(&scene.ask(&token, "").await), "older", "{what}");
                assert_eq!(tier(&scene.ask(&token, "?max_tier=last").await), "older", "{what}");
                assert_eq!(
                    tier(&scene.ask(&token, "?max_tier=young&max_tier=older").await),
                    "older",
                    "{what}"
                );
                assert_eq!(scene.tenant.calls().userinfo, 0, "{what}");
            }
            assert_eq!(tier(&scene.ask(&token, "?max_tier=young").await), "young", "{what}");
            assert_eq!(tier(&scene.ask(&token, "?max_tier=young").await), "young", "{what}");
            assert_eq!(scene.tenant.calls().userinfo, 1, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_wants_a_younger_answer_does_not_have_a_sick_issuer_asked_each_time() {
    let scene = Scene::start(&two_fresh()).await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "young");
    scene.clock.advance(Duration::from_secs(2 * HOUR));
    scene.tenant.reset_calls();
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    for _ in 0..5 {
        assert_undecided(&scene.ask(&token, "?max_tier=young").await, "the record is of an older tier");
        assert_eq!(tier(&scene.ask(&token, "").await), "older", "other routes take it");
    }
    assert_eq!(scene.tenant.calls().userinfo, 1);
    scene.tenant.clear_faults();
    scene.clock.advance(Duration::from_secs(11));
    assert_eq!(tier(&scene.ask(&token, "?max_tier=young").await), "young");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_to_a_route_that_wanted_a_younger_answer_is_a_no_for_all() {
    let scene = Scene::start(&two_fresh()).await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "young");
    scene.clock.advance(Duration::from_secs(2 * HOUR));
    assert_eq!(tier(&scene.ask(&token, "").await), "older");
    scene.tenant.revoke_token(&token);
    assert_eq!(scene.ask(&token, "?max_tier=young").await.status, 401);
    assert_eq!(scene.ask(&token, "").await.status, 401);
}
