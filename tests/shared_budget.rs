//! Instances on one Redis share one budget: together they call the issuer no more often than one instance
//! may, whichever of them is busy; and while Redis is killed, hangs or fails over, each stays within its even
//! share. An opened breaker is advice to the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "shared/scene.rs"]
mod scene;
mod support;

use std::time::{Duration, Instant};

use holdfast::guard::{ForcedState, GuardStatus, Reason, State};
use holdfast::issuer::endpoint::Endpoint;
use holdfast_devtenant::{Endpoint as Faulty, Fault};
use scene::Scene;
use support::service::Running;
use support::until;

/// What all instances may spend together. Calls do not wait: on a held clock they would wait for ever.
const BURST: usize = 24;
const BUDGET: &str = "[breaker]\nminimum_calls = 3\n[budget]\nrate = 10\nburst = 24\nwait = \"0s\"\n";

async fn instance(scene: &Scene) -> Running {
    let config = scene.config("").replace("[budget]\nburst = 1000\n", BUDGET);
    let running = Running::start(&config, scene.clock.clone()).await;
    scene::connected(&running).await;
    running
}

async fn fleet(scene: &Scene, instances: usize) -> Vec<Running> {
    let mut fleet = Vec::new();
    for _ in 0..instances {
        fleet.push(instance(scene).await);
    }
    know_each_other(&fleet, instances).await;
    fleet
}

async fn know_each_other(fleet: &[Running], instances: usize) {
    for running in fleet {
        until("it knows the others", async || {
            let known = running.counted("holdfast_fleet_instances", "").await;
            (known == instances as u64).then_some(())
        })
        .await;
    }
}

fn userinfo(running: &Running) -> Endpoint {
    let instance = running.service.instance();
    let issuer = instance.issuers.iter().next().unwrap().clone();
    issuer.endpoints().into_iter().find(|endpoint| endpoint.name() == "userinfo").unwrap().clone()
}

fn status(running: &Running) -> GuardStatus {
    userinfo(running).status()
}

/// Waits until an instance has this rate.
async fn has_rate(running: &Running, is_it: impl Fn(f64) -> bool) {
    until(&format!("another rate than {}", status(running).budget.rate), async || {
        is_it(status(running).budget.rate).then_some(())
    })
    .await;
}

fn is_even(instances: usize) -> impl Fn(f64) -> bool {
    move |rate| (rate * instances as f64 - 10.0).abs() < 0.01
}

/// How many of so many new tokens an instance lets in; the others get a 503.
async fn let_in(scene: &Scene, running: &Running, count: usize) -> usize {
    let mut let_in = 0;
    for _ in 0..count {
        match running.ask(&scene.opaque()).await.status {
            200 => let_in += 1,
            status => assert_eq!(status, 503),
        }
    }
    let_in
}

fn pass(scene: &Scene, time: Duration) {
    scene.clock.advance(time);
    scene.tenant.set_time(Some(scene.clock.now().as_secs()));
}

#[tokio::test(flavor = "multi_thread")]
async fn four_instances_spend_one_burst() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 4).await;
    let mut all = 0;
    for running in &fleet {
        let one = let_in(&scene, running, 10).await;
        assert!(one >= 1, "an instance always can make a call");
        all += one;
    }
    assert!((8..=BURST).contains(&all), "{all}");
    assert_eq!(scene.tenant.calls().userinfo, all as u64);
}

/// Every notice is delivered to every instance, so a fleet that answers each newcomer by a notice of its own would
/// drown its Redis when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_starts_at_once_tells_no_more_than_ten_times_a_second() {
    const INSTANCES: usize = 32;
    let Some(scene) = Scene::new().await else { return };
    let started = Instant::now();
    let starting: Vec<_> = (0..INSTANCES)
        .map(|_| {
            let (config, clock) = (scene.config(""), scene.clock.clone());
            tokio::spawn(async move { Running::start_without_keys(&config, clock).await })
        })
        .collect();
    let mut fleet = Vec::new();
    for running in starting {
        fleet.push(running.await.unwrap());
    }
    know_each_other(&fleet, INSTANCES).await;
    let each = scene.redis.carried_out("publish").await / INSTANCES as u64;
    let most = 1 + started.elapsed().as_millis() / 100;
    println!("{each} notices of each instance in {:?}", started.elapsed());
    assert!(u128::from(each) <= most, "{each} notices of each instance in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_instance_gets_the_rate_that_the_others_do_not_need() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 4).await;
    fleet.iter().for_each(|running| assert!(is_even(4)(status(running).budget.rate)));
    assert!(let_in(&scene, &fleet[0], 40).await >= 6);
    // It gets all but a sixteenth for each of the others.
    has_rate(&fleet[0], |rate| rate > 8.0).await;
    for running in &fleet[1..] {
        has_rate(running, |rate| rate < 0.7).await;
    }
    // Another one needs calls, too.
    let_in(&scene, &fleet[1], 40).await;
    for running in &fleet[..2] {
        has_rate(running, |rate| (4.0..=5.0).contains(&rate)).await;
    }
    // Nobody needs any for a while.
    pass(&scene, Duration::from_secs(60));
    for running in &fleet {
        has_rate(running, |rate| (2.3..2.7).contains(&rate)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_alone_has_all_of_it_and_one_that_leaves_gives_its_share_back() {
    let Some(scene) = Scene::new().await else { return };
    let one = instance(&scene).await;
    assert!(is_even(1)(status(&one).budget.rate));
    let other = instance(&scene).await;
    know_each_other(std::slice::from_ref(&one), 2).await;
    has_rate(&one, is_even(2)).await;
    other.service.drain().await;
    has_rate(&one, is_even(1)).await;
    assert_eq!(one.counted("holdfast_fleet_instances", "").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_redis_dies_or_hangs_each_has_its_even_share_at_once() {
    for hangs in [false, true] {
        let Some(mut scene) = Scene::new().await else { return };
        let fleet = fleet(&scene, 4).await;
        let_in(&scene, &fleet[0], 40).await;
        has_rate(&fleet[3], |rate| rate < 0.7).await;
        match hangs {
            true => scene.redis.signal("STOP").await,
            false => scene.redis.kill().await,
        }
        for running in &fleet {
            has_rate(running, is_even(4)).await;
        }
        // What each of them then spends, is within its share: nobody knows what the others do.
        pass(&scene, Duration::from_secs(60));
        scene.tenant.reset_calls();
        for running in &fleet {
            assert_eq!(let_in(&scene, running, 10).await, 6, "hangs: {hangs}");
        }
        assert_eq!(scene.tenant.calls().userinfo, 24);
        match hangs {
            true => scene.redis.signal("CONT").await,
            false => scene.redis.restart().await,
        }
        pass(&scene, Duration::from_secs(60));
        let_in(&scene, &fleet[0], 40).await;
        has_rate(&fleet[0], |rate| rate > 8.0).await;
        know_each_other(&fleet, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opened_breaker_makes_the_others_careful_and_stops_none_of_their_answers() {
    let Some(scene) = Scene::new().await else { return };
    let fleet = fleet(&scene, 3).await;
    // Only the first one calls the issuer while it fails.
    scene.tenant.set_fault(Faulty::Userinfo, Fault::Status(503));
    let mut opened = false;
    for number in 0..8 {
        // A user who is known by the signature, since new foreign tokens that fail only pause their kind.
        let token = scene.tenant.mint().subject(format!("auth0|{number}")).build().unwrap();
        assert_eq!(fleet[0].ask(&token).await.status, 503);
        opened |= status(&fleet[0]).state == State::Open;
    }
    assert!(opened, "{:?}", status(&fleet[0]));
    scene.tenant.clear_faults();
    for running in &fleet[1..] {
        until("it is careful", async || (status(running).reason == Some(Reason::Advised)).then_some(()))
            .await;
        // It asks the issuer, which is well again, one call at a time, and then as before.
        for _ in 0..3 {
            assert_eq!(running.ask(&scene.opaque()).await.status, 200);
        }
        assert_eq!(status(running).state, State::Closed);
    }
    // What an operator does to one instance is for that one.
    userinfo(&fleet[1]).force(ForcedState::Open, Duration::from_secs(600));
    pass(&scene, Duration::from_secs(60));
    let heard = scene.redis.carried_out("publish").await;
    until("they have told each other", async || {
        (scene.redis.carried_out("publish").await > heard + 6).then_some(())
    })
    .await;
    assert_eq!(status(&fleet[2]).state, State::Closed);
}
