//! Eight instances, and a tenant that enforces one limit for all of them: together they stay within the
//! budget of one, with a Redis that is well, dies, hangs or comes back, and nobody makes the tenant say 429.
//!
//! After each step of the clock, `Crowd` checks that all instances together have made no more calls than the
//! budget has.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use holdfast_devtenant::RateLimit;
use tempfile::TempDir;

use crate::crowd::Crowd;
use crate::drill::Stage;
use crate::support::redis::RedisServer;
use crate::support::until;

const INSTANCES: usize = 8;
const SECOND: Duration = Duration::from_secs(1);

/// What Auth0 allows a tenant of the plan "Essentials".
const ESSENTIALS: RateLimit = RateLimit::new(25, 25.0);

struct Scene {
    redis: RedisServer,
    stage: Stage,
    _files: TempDir,
}

impl Scene {
    /// Eight instances that know each other.
    async fn new(drill: &'static str) -> Option<Self> {
        let redis = RedisServer::start().await?;
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, [7; 32]).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "[store]\nredis = {:?}\nsecret_file = {secret:?}\n[budget]\nplan = \"essentials\"\n",
            redis.url()
        );
        let stage = Stage::set_waiting(drill, &config).await.in_a_fleet_of(INSTANCES, &config).await;
        stage.tenant.set_userinfo_limit(Some(ESSENTIALS));
        let scene = Self { redis, stage, _files: files };
        scene.has_rates("all are known to all", |rates| rates.iter().all(|rate| is_even(*rate))).await;
        Some(scene)
    }

    async fn has_rates(&self, what: &str, are_they: impl Fn(&[f64]) -> bool) {
        until(what, async || {
            let rates: Vec<_> = self.stage.guards().iter().map(|guard| guard.budget.rate).collect();
            are_they(&rates).then_some(())
        })
        .await;
    }

    fn users(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.stage.tenant.mint().opaque().build().unwrap()).collect()
    }

    /// All are in, each for one call, and the tenant never said 429.
    fn ends(self, crowd: &Crowd, longest: Duration) {
        assert_eq!((self.stage.calls(), self.stage.answered(429)), (crowd.visitors.len() as u64, 0));
        let all = crowd.in_by(1.0);
        assert!(all <= longest, "all were let in after {all:?}");
        println!("all in after {all:?}, {} answers 503", crowd.sent_away());
        self.stage.row();
    }
}

/// Of 20 calls a second. A share that is a twentieth smaller is not changed for that.
fn is_even(rate: f64) -> bool {
    (18.9..20.1).contains(&(rate * INSTANCES as f64))
}

/// 30 a second, where the plan lets 20 in.
async fn a_crowd_of(count: usize, drill: &'static str) {
    let Some(mut scene) = Scene::new(drill).await else { return };
    let come = Duration::from_secs(count as u64 / 30);
    let crowd = Crowd::new().comes(scene.users(count), Duration::ZERO, come);
    let crowd = crowd.come_in(&mut scene.stage).await;
    scene.ends(&crowd, come * 5 / 2);
}

#[tokio::test]
async fn eight_instances_let_a_crowd_in_as_one_would() {
    a_crowd_of(600, "8 instances, 600 new users in 20 s").await;
}

#[tokio::test]
#[ignore = "as above for longer: for `make drills`"]
async fn eight_instances_let_a_large_crowd_in_as_one_would() {
    a_crowd_of(3_000, "8 instances, 3,000 new users in 100 s").await;
}

#[tokio::test]
async fn when_redis_dies_or_hangs_in_the_middle_each_instance_stays_within_its_share() {
    for hangs in [false, true] {
        let drill = if hangs { "the same, Redis hangs for 10 s" } else { "the same, Redis dies for 10 s" };
        let Some(mut scene) = Scene::new(drill).await else { return };
        let crowd = Crowd::new().comes(scene.users(600), Duration::ZERO, 20 * SECOND);
        let crowd = crowd.come_until(5 * SECOND, &mut scene.stage).await;
        match hangs {
            true => scene.redis.signal("STOP").await,
            false => scene.redis.kill().await,
        }
        let crowd = crowd.come_until(15 * SECOND, &mut scene.stage).await;
        scene.has_rates("each has its even share", |rates| rates.iter().all(|rate| is_even(*rate))).await;
        match hangs {
            true => scene.redis.signal("CONT").await,
            false => scene.redis.restart().await,
        }
        let crowd = crowd.come_in(&mut scene.stage).await;
        scene.ends(&crowd, 60 * SECOND);
    }
}

/// Without Redis, the operator divides the budget.
#[tokio::test]
async fn without_redis_a_budget_that_is_divided_by_hand_is_kept() {
    let budget = "[budget]\nrate = 2.5\nburst = 2\n";
    let drill = "the same without Redis, budget divided by hand";
    let mut stage = Stage::set_waiting(drill, budget).await.in_a_fleet_of(INSTANCES, budget).await;
    stage.tenant.set_userinfo_limit(Some(ESSENTIALS));
    let users = (0..600).map(|_| stage.tenant.mint().opaque().build().unwrap()).collect();
    let crowd = Crowd::of_a_fleet(20.0, 16).comes(users, Duration::ZERO, 20 * SECOND);
    let crowd = crowd.come_in(&mut stage).await;
    assert_eq!((stage.calls(), stage.answered(429)), (600, 0));
    println!("all in after {:?}, {} answers 503", crowd.in_by(1.0), crowd.sent_away());
    stage.row();
}
