//! A fleet is one client of Auth0: what several instances on one Redis ask, all together.

use std::time::{Duration, Instant};

use holdfast::clock::Clock;
use holdfast_devtenant::{Endpoint, Fault, RateLimit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drill::Tally;
use crate::scene::Scene;
use crate::support::service::{Running, issuer, request};
use crate::support::{Reply, exchange};

const INSTANCES: usize = 8;

/// How tokens come.
#[derive(Clone, Copy)]
enum Come {
    /// Twenty-five at the same moment. Without Redis that is 200 calls at the same moment; with more, a busy
    /// machine does not answer all of them before holdfast gives them up.
    InWaves,
    /// Each when the one before it is answered. So the times are those of the instances and not of the
    /// machine, which has few cores.
    InTurn,
}

impl Come {
    fn tokens(self) -> usize {
        match self {
            Self::InWaves => 200,
            Self::InTurn => 50,
        }
    }

    /// How many come at the same moment.
    fn together(self) -> usize {
        match self {
            Self::InWaves => 25,
            Self::InTurn => 1,
        }
    }
}

/// New tokens, each sent to all eight instances at the same moment. Returns the calls for each token.
async fn new_tokens_everywhere(
    scene: &Scene,
    fleet: &[Running],
    (drill, come, issuer_takes): (&'static str, Come, u64),
) -> f64 {
    scene.tenant.reset_calls();
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_millis(issuer_takes)));
    let (mut tally, mut waits) = (Tally::of(drill), Vec::new());
    let mut end = async |asking: &mut JoinSet<(Reply, Duration)>| {
        while let Some(answered) = asking.join_next().await {
            let (reply, took) = answered.unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            tally.count(reply.status, took);
            waits.push(took);
        }
    };
    let mut asking = JoinSet::new();
    for number in 1..=come.tokens() {
        let token = scene.opaque();
        for running in fleet {
            let (auth, question) =
                (running.auth, request("/auth", &format!("Authorization: Bearer {token}\r\n")));
            asking.spawn(async move {
                let began = Instant::now();
                let reply = exchange(TcpStream::connect(auth).await.unwrap(), &question).await;
                (reply, began.elapsed())
            });
        }
        if number.is_multiple_of(come.together()) {
            end(&mut asking).await;
        }
    }
    waits.sort();
    let calls = scene.tenant.calls().userinfo;
    tally.row(calls);
    let each = calls as f64 / come.tokens() as f64;
    let most = waits[waits.len() * 99 / 100].as_secs_f64() * 1000.0;
    println!("  {each:.2} calls for each token; 99 of 100 answers within {most:.0} ms");
    each
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_new_tokens_at_eight_instances_cost_one_call_each() {
    let Some(scene) = Scene::new().await else { return };
    scene.tenant.set_userinfo_limit(Some(RateLimit::new(1_000_000, 1_000_000.0)));
    let budget = "[budget]\nrate = 10000.0\nburst = 10000\n";
    let fleet = async |config: String| {
        let mut fleet = Vec::new();
        for _ in 0..INSTANCES {
            fleet.push(Running::start(&config, Clock::system()).await);
        }
        fleet
    };
    let together = fleet(scene.config("").replace("[budget]\nburst = 1000\n", budget)).await;
    for running in &together {
        crate::scene::connected(running).await;
    }
    for drill in [
        ("8 instances, 200 new tokens", Come::InWaves, 0),
        ("8 instances, 200 new tokens: issuer in 20 ms", Come::InWaves, 20),
        ("8 instances, 200 tokens: issuer in 100 ms", Come::InWaves, 100),
        ("8 instances, 50 tokens in turn", Come::InTurn, 0),
        ("8 instances, 50 in turn: issuer in 20 ms", Come::InTurn, 20),
        ("8 instances, 50 in turn: issuer in 100 ms", Come::InTurn, 100),
    ] {
        let calls = new_tokens_everywhere(&scene, &together, drill).await;
        assert!((calls - 1.0).abs() < f64::EPSILON, "{calls} calls for each token");
    }
    drop(together);
    let apart = fleet(format!("{budget}{}", issuer(&scene.tenant, ""))).await;
    for drill in [
        ("without Redis, 200 tokens: issuer in 20 ms", Come::InWaves, 20),
        ("without Redis, 50 in turn: issuer in 20 ms", Come::InTurn, 20),
    ] {
        new_tokens_everywhere(&scene, &apart, drill).await;
    }
}
