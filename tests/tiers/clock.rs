//! Clocks that were wrong and are corrected: no user is locked out or served an old answer until that future
//! comes.

use std::time::Duration;

use holdfast::clock::Timestamp;
use holdfast_devtenant::{Endpoint, Fault};

use crate::{DAY, HOUR, START, Scene, tier};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_looked_expired_is_good_as_soon_as_the_clock_is_right() {
    for ahead in [HOUR, 365 * DAY] {
        let scene = Scene::start("[policy]\nnegative_ttl = \"1h\"\n").await;
        let token = scene.tenant.mint().expires_in(600).build().unwrap();
        scene.clock.set_wall(Timestamp::from_secs(START + ahead));
        assert_eq!(scene.ask(&token, "").await.status, 401);
        assert_eq!(scene.ask(&token, "").await.status, 401, "remembered");
        scene.clock.set_wall(Timestamp::from_secs(START + 1));
        assert_eq!(tier(&scene.ask(&token, "").await), "primary", "{ahead} s ahead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_is_remembered_for_its_time_whatever_the_clock_shows() {
    for jump in [HOUR, 365 * DAY] {
        for (before, after) in [(START + jump, START), (START, START + jump), (START, START - jump)] {
            let scene = Scene::start("").await;
            let token = scene.tenant.mint().opaque().build().unwrap();
            scene.clock.set_wall(Timestamp::from_secs(before));
            scene.tenant.set_fault(Endpoint::Userinfo, Fault::Forbidden);
            assert_eq!(scene.ask(&token, "").await.status, 403);
            scene.tenant.clear_faults();
            scene.clock.set_wall(Timestamp::from_secs(after));
            scene.clock.advance(Duration::from_secs(59));
            assert_eq!(scene.ask(&token, "").await.status, 403, "{before} to {after}: forgotten too soon");
            scene.clock.advance(Duration::from_secs(1));
            assert_eq!(tier(&scene.ask(&token, "").await), "primary", "{before} to {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_by_a_wrong_clock_is_looked_at_again_when_it_is_right() {
    let scene = Scene::start("[policy]\nverdict_ceiling = \"ultimate-fallback\"\n").await;
    let long = i64::try_from(500 * DAY).unwrap();
    let mint = || scene.tenant.mint().expires_in(long);
    for (what, token) in
        [("a profile", mint().build().unwrap()), ("a verdict", mint().opaque().build().unwrap())]
    {
        // The tenant's clock is always right.
        scene.clock.set_wall(Timestamp::from_secs(START));
        assert_eq!(tier(&scene.ask(&token, "").await), "primary", "{what}");
        scene.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
        scene.clock.set_wall(Timestamp::from_secs(START + 300 * DAY));
        assert_eq!(tier(&scene.ask(&token, "").await), "ultimate-fallback", "{what}");
        scene.tenant.clear_faults();
        scene.clock.set_wall(Timestamp::from_secs(START + 12));
        let reply = scene.ask(&token, "").await;
        assert_eq!(tier(&reply), "primary", "{what}: old although the clock is right and the issuer well");
        assert_eq!(reply.header("x-auth-age"), ["12"], "{what}");
        assert_eq!(scene.ask(&token, "?max_tier=secondary").await.status, 200, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_stale_by_a_clock_that_was_ahead_does_not_stay_so() {
    // Both times are in one tier, so that only the time at which the answer was made shows that it is not of
    // now.
    let scene = Scene::start("").await;
    let token = scene.tenant.mint().opaque().build().unwrap();
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    scene.clock.set_wall(Timestamp::from_secs(START + 40 * HOUR));
    assert_eq!(tier(&scene.ask(&token, "").await), "emergency");
    scene.tenant.clear_faults();
    scene.clock.set_wall(Timestamp::from_secs(START + 13 * HOUR));
    assert_eq!(tier(&scene.ask(&token, "").await), "primary");
}
