//! The user that the guide makes in Redis may do all that holdfast does there, and nothing else.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;

use crate::scene::{Scene, assert_alice, connected, order, purge, readyz, shared_hits};
use crate::support::service::Running;
use crate::support::until;

const GUIDE: &str = include_str!("../../docs/how-to/redis.md");
const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// The words of the guide's line.
fn rules() -> Vec<&'static str> {
    let line = GUIDE.lines().find(|line| line.trim().starts_with("ACL SETUSER")).unwrap();
    line.split_whitespace().collect()
}

fn allowed() -> BTreeSet<String> {
    rules().iter().filter_map(|rule| rule.strip_prefix('+')).map(str::to_owned).collect()
}

async fn client(scene: &Scene) -> MultiplexedConnection {
    scene.redis.client().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_guide_may_do_all_that_is_done_and_nothing_else() {
    let Some(scene) = Scene::new().await else { return };
    let rules = rules();
    redis::cmd(rules[0]).arg(&rules[1..]).exec_async(&mut client(&scene).await).await.unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client(&scene).await).await.unwrap();
    let url = format!("{}?user=holdfast&pass=PASSWORD", scene.redis.url());
    let start = async || {
        let config = scene.config("").replace(&scene.redis.url(), &url);
        let running = Running::start(&config, scene.clock.clone()).await;
        connected(&running).await;
        running
    };
    let (a, b) = (start().await, start().await);
    let (opaque, no_email) = (scene.opaque(), scene.tenant.mint().build().unwrap());
    for token in [&opaque, &no_email] {
        assert_alice(&a.ask(token).await);
    }
    for family in ["verdicts", "profiles", "keys"] {
        scene.redis.has(family, 1).await;
    }
    for token in [&opaque, &no_email] {
        assert_alice(&b.ask(token).await);
    }
    assert_eq!(shared_hits(&b).await, 2);

    // Each purge reaches Redis, and b by a message.
    let token = format!("{{\"token\": \"{opaque}\"}}");
    for order in [token.as_str(), "{\"subject\": \"auth0|alice\"}", "{\"all\": true}"] {
        let before = scene.tenant.calls().userinfo;
        let purged = purge(&a, order).await;
        assert_eq!(purged.status, 200, "{order}: {purged:?}");
        scene.redis.has("verdicts", 0).await;
        scene.redis.moment_passes().await;
        until("b asks the issuer again", async || {
            assert_alice(&b.ask(&opaque).await);
            (scene.tenant.calls().userinfo > before).then_some(())
        })
        .await;
        scene.redis.has("verdicts", 1).await;
    }
    let revoked = order(&a, "/revoke", "{\"subject\": \"auth0|alice\"}").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    until("b refuses", async || (b.ask(&opaque).await.status == 401).then_some(())).await;
    assert_eq!(readyz(&a).await, "ready\n");

    let denied: Vec<redis::Value> =
        redis::cmd("ACL").arg("LOG").query_async(&mut client(&scene).await).await.unwrap();
    assert!(denied.is_empty(), "{denied:?}");
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut client(&scene).await).await.unwrap();
    for command in allowed() {
        assert!(stats.contains(&format!("cmdstat_{command}:")), "{command} is never used:\n{stats}");
    }
}

#[test]
fn the_reference_lists_the_commands_of_the_guide() {
    // However its lines are broken.
    let page = REFERENCE.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = page.split("The user needs").nth(1).unwrap().split(" on ").next().unwrap();
    let listed = sentence.split('`').skip(1).step_by(2).map(str::to_lowercase);
    assert_eq!(listed.collect::<BTreeSet<_>>(), allowed());
}
