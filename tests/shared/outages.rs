//! A Redis that loses its data, stops, or is cut off, while instances keep running.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::scene::{Scene, assert_alice, connected, errors, lookups, purge, readyz, shared_hits};
use crate::support::service::Running;
use crate::support::until;

/// How many lookups there were, whatever they found.
async fn all_lookups(running: &Running) -> u64 {
    running.counted("holdfast_store_lookups_total{", "store=\"shared\"").await
}

async fn degraded(running: &Running) {
    until("degraded", async || readyz(running).await.contains("the shared store fails").then_some(())).await;
}

async fn recovered(running: &Running) {
    until("recovered", async || (readyz(running).await == "ready\n").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_costs_one_call_for_each_record_and_no_answer() {
    let Some(scene) = Scene::new().await else { return };
    let (a, b, c) = (scene.instance().await, scene.instance().await, scene.instance().await);
    let opaque = scene.opaque();
    assert_alice(&a.ask(&opaque).await);
    scene.redis.has("verdicts", 1).await;
    redis::cmd("FLUSHALL").exec_async(&mut scene.redis.client().await).await.unwrap();
    assert_alice(&a.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 1, "a has it in memory");
    assert_alice(&b.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 2, "b has it from nobody");
    scene.redis.has("verdicts", 1).await;
    assert_alice(&c.ask(&opaque).await);
    assert_eq!(scene.tenant.calls().userinfo, 2, "c has it from b");
    for running in [&a, &b, &c] {
        assert_eq!(readyz(running).await, "ready\n");
        assert_eq!(running.counted("holdfast_store_errors_total{", "store=\"shared\"").await, 0);
    }
}

/// However long it stands still: three requests wait for it, and none after them.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_is_waited_for_by_three_requests_and_is_used_again_when_it_goes_on() {
    let Some(scene) = Scene::new().await else { return };
    let a = scene.instance_with("redis_timeout = \"50ms\"\n", &scene.clock).await;
    let known = scene.opaque();
    assert_alice(&a.ask(&known).await);
    scene.redis.has("verdicts", 1).await;
    let (timeouts, found) = (errors(&a, "timeout").await, lookups(&a, "error").await);

    scene.redis.signal("STOP").await;
    scene.clock.advance(Duration::from_secs(30));
    let before = all_lookups(&a).await;
    for _ in 0..10 {
        assert_alice(&a.ask(&known).await);
    }
    assert_eq!(all_lookups(&a).await, before, "who is in memory does not wait");
    let news: Vec<String> = (0..10).map(|_| scene.opaque()).collect();
    for token in &news {
        assert_alice(&a.ask(token).await);
    }
    let waited = errors(&a, "timeout").await - timeouts;
    assert!((1..=3).contains(&waited), "{waited} requests waited");
    assert_eq!(lookups(&a, "error").await - found, waited);
    degraded(&a).await;

    scene.redis.signal("CONT").await;
    recovered(&a).await;
    scene.redis.has("verdicts", 11).await;
    let b = scene.instance().await;
    for token in news.iter().chain([&known]) {
        assert_alice(&b.ask(token).await);
    }
    assert_eq!(shared_hits(&b).await, 11, "what was learned meanwhile is shared");
    assert_eq!(scene.tenant.calls().userinfo, 11);
}

/// The way of one instance to Redis. When it is cut, bytes vanish and connections stay open.
struct Way {
    url: String,
    cut: watch::Sender<bool>,
}

impl Way {
    async fn to(scene: &Scene) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let cut = watch::Sender::new(false);
        let (socket, all) = (scene.redis.socket(), Arc::new(cut.clone()));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, cut) = (socket.clone(), all.subscribe());
                tokio::spawn(async move {
                    let server = UnixStream::connect(socket).await.unwrap();
                    relay(client, server, cut).await;
                });
            }
        });
        Self { url, cut }
    }
}

/// Ends when one end closes, or when the cut is over: what was lost cannot be made good.
async fn relay(client: TcpStream, server: UnixStream, cut: watch::Receiver<bool>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut watched = cut.clone();
    let was_cut = async {
        let _ = watched.wait_for(|cut| *cut).await;
        let _ = watched.wait_for(|cut| !*cut).await;
    };
    tokio::select! {
        () = was_cut => {}
        () = copy(from_client, to_server, cut.clone()) => {}
        () = copy(from_server, to_client, cut) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !*cut.borrow() && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_cut_off_from_redis_goes_on_alone_and_brings_nothing_back() {
    let Some(scene) = Scene::new().await else { return };
    let way = Way::to(&scene).await;
    let config = scene.config("redis_timeout = \"50ms\"\n").replace(&scene.redis.url(), &way.url);
    let a = Running::start(&config, scene.clock.clone()).await;
    connected(&a).await;
    let b = scene.instance().await;
    let (known, purged) = (scene.opaque(), scene.opaque());
    assert_alice(&a.ask(&known).await);
    scene.redis.has("verdicts", 1).await;

    way.cut.send_replace(true);
    let during = scene.opaque();
    for token in [&known, &during, &purged] {
        assert_alice(&a.ask(token).await);
    }
    degraded(&a).await;
    assert_eq!(readyz(&b).await, "ready\n", "b is not cut off");
    // b purges what a has in memory and is yet to write, and a does not hear of it.
    let reply = purge(&b, &format!("{{\"token\": \"{purged}\"}}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    scene.clock.advance(Duration::from_secs(300));
    let calls = scene.tenant.calls().userinfo;
    for token in [&known, &purged, &during] {
        assert_alice(&a.ask(token).await);
    }
    assert_eq!(scene.tenant.calls().userinfo, calls, "from memory");

    way.cut.send_replace(false);
    recovered(&a).await;
    // What it learned meanwhile is shared; what was purged meanwhile it does not bring back.
    assert_eq!(scene.redis.records("verdicts").await.len(), 2);
    assert_alice(&b.ask(&during).await);
    assert_eq!(scene.tenant.calls().userinfo, calls);
    assert_alice(&b.ask(&purged).await);
    assert_eq!(scene.tenant.calls().userinfo, calls + 1);
}
