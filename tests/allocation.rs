//! An answer from memory allocates nothing between the moment when hyper has read a head and the moment when
//! it writes one. The allocations are counted.
//!
//! `allocation_counter` brings the counting allocator, so that `unsafe` stays forbidden in all of this
//! repository. It counts for the thread that measures; servers run on a runtime of that one thread, clients
//! on another.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "../benches/scene/mod.rs"]
mod scene;

use std::hint::black_box;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;

use allocation_counter::measure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::config::{Settings, Source};
use holdfast::credential::Credential;
use holdfast::route::forwarded::Subrequest;
use holdfast::route::peer::Peer;
use holdfast::route::{Demand, Required};
use holdfast::verifier::Failure;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use scene::{Client, Scene, bare_server, request};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// How many requests are counted.
const REQUESTS: u64 = 1_000;

#[test]
fn a_hit_allocates_no_more_than_a_bare_hyper_server_does() {
    let scene = Scene::new();
    let request = request(&scene.token());
    let holdfast = allocations(&request, async || {
        let (service, address) = scene.holdfast().await;
        (address, Some(service))
    });
    let bare = allocations(&request, async || (bare_server().await, None::<()>));
    println!("allocations in {REQUESTS} requests: holdfast {holdfast}, bare hyper {bare}");
    assert!(holdfast <= bare, "holdfast {holdfast}, bare hyper {bare}, in {REQUESTS} requests");
}

#[test]
fn from_the_credential_to_the_answer_nothing_is_allocated() {
    const REQUIRED: Required<'_> = Required::Query(
        "email_domain=example.com&max_tier=primary&claim=/azp:other&claim=/azp:app&acr=gold&max_age=3600&actor=none",
    );
    let scene = Scene::new();
    let login = scene.tenant.time();
    let token =
        scene.tenant.mint().email_direct("alice@example.com").claim("azp", "app").claim("acr", "gold");
    let token = token.claim("auth_time", login).build().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (service, address) = runtime.block_on(scene.holdfast());
    let asked = "GET /auth?claim=/azp:app&claim=/azp:other ";
    let warm_up = String::from_utf8(request(&token)).unwrap().replacen("GET /auth ", asked, 1);
    Client::connect(address).warm_up(warm_up.as_bytes());
    let instance = service.instance();
    let line = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    drop(line.clone()); // the first clone of a value allocates

    // What `server::auth::answer` does, in its order, with a map as hyper hands it on from request to
    // request.
    let answer = |mut headers: HeaderMap| {
        headers.clear();
        headers.insert(AUTHORIZATION, line.clone());
        let started = instance.clock.ticks();
        let now = instance.clock.now();
        let credential = Credential::extract(&headers, &instance.settings.credential).unwrap();
        let digest = instance.digester.token(credential.token().as_bytes());
        let pass = instance.answers.get(&digest).filter(|pass| pass.holds_at(now)).unwrap();
        instance.metrics.found_in_memory();
        instance.metrics.allowed_from_memory();
        instance.tier_hits.memory(pass.tier()).inc();
        assert!(pass.covers_claims(&REQUIRED));
        pass.meets_required(&REQUIRED, instance.identities.policy().table(), now).unwrap();
        let answer = instance.responder.allow(headers, &pass, now, false);
        instance.metrics.request_duration.observe(instance.clock.ticks().since(started).as_secs_f64());
        answer
    };
    let mut headers = answer(HeaderMap::new()).into_parts().0.headers;
    let counted = measure(|| {
        for _ in 0..REQUESTS {
            headers = black_box(answer(std::mem::take(&mut headers))).into_parts().0.headers;
        }
    });
    assert_eq!(counted.count_total, 0, "in {REQUESTS} answers");
    // The counter does count.
    assert_eq!(measure(|| drop(black_box(Box::new(7)))).count_total, 1);
}

/// Query, header, rules, each with what a proxy sends then, and a path that needs no decoding.
#[test]
fn what_a_request_needs_is_told_without_allocating() {
    for auth in ["", "requirements_from = \"header\"", "requirements_from = \"rules\"\npreflight = \"allow\""]
    {
        let rules = if auth.contains("rules") {
            "[[rule]]\nhost = \"*.example.com\"\npath_prefix = \"/public\"\nmethods = \"GET\"\npublic = true\n\
             [[rule]]\nrequire = { scope = \"read\" }\n"
        } else {
            ""
        };
        let text = format!(
            "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[auth]\ntrusted_peers = [\"unix\"]\nforwarded = \"x-forwarded\"\n{auth}\n{rules}"
        );
        let settings = Settings::read(&Source::text("holdfast.toml", &text)).unwrap().routes;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-holdfast-require", "scope=read"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", "app.example.com:443"),
            ("x-forwarded-uri", "/things/1?q=%2f"),
        ] {
            let value = HeaderValue::from_static(value);
            headers.insert(name, value);
        }
        let (method, uri) = (Method::GET, Uri::from_static("/auth?scope=read"));
        let asked = Subrequest { method: &method, uri: &uri, headers: &headers };
        let counted = measure(|| {
            for _ in 0..REQUESTS {
                let demand = Demand::of(asked, uri.query(), Peer::Unix, &settings);
                assert!(matches!(black_box(demand), Demand::Identity(_)));
            }
        });
        assert_eq!(counted.count_total, 0, "{auth}");
    }
}

/// An untrusted text may need a tree of many times its size. It is scanned where requests are answered, and
/// never built, since it is not verified.
#[test]
fn what_a_stranger_wrote_is_not_built_where_requests_are_answered() {
    let scene = Scene::new();
    let good = scene.token();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (service, address) = runtime.block_on(scene.holdfast());
    Client::connect(address).warm_up(&request(&good));
    let instance = service.instance();
    let here = Builder::new_current_thread().enable_all().build().unwrap();

    let lists = |count: usize| vec!["[1]"; count].join(",");
    let hostile = |count: usize| {
        let claims = format!(r#"{{"iss":"{}","x":[{}]}}"#, scene.tenant.issuer(), lists(count));
        scene.tenant.mint().payload(claims).signed_by_stranger()
    };
    let zipped = |count| hostile(count).nested_jwe().jwe_header("zip", "DEF").build().unwrap();
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","x":[{}]}}"#, lists(1_500)));
    for (what, token, reason) in [
        ("claims", hostile(2_000).build().unwrap(), "signature_invalid"),
        ("too many claims", hostile(2_900).build().unwrap(), "malformed"),
        ("a header", good.replacen(good.split('.').next().unwrap(), &header, 1), "malformed"),
        ("claims in a JWE", zipped(2_000), "signature_invalid"),
        ("more claims in a JWE than fit into a token", zipped(47_000), "jwe_too_large"),
    ] {
        assert!(token.len() <= 16 * 1024, "{what}: {}", token.len());
        let mut found = None;
        let counted = measure(|| found = Some(here.block_on(instance.verifier.verify(&token)).map(drop)));
        let Some(Err(Failure::No(refusal))) = found else { panic!("{what}: {found:?}") };
        assert_eq!(refusal.reason(), reason, "{what}");
        println!("{what}: {counted:?}");
        assert!(counted.count_total < 200, "{what}: {counted:?}");
        assert!(counted.bytes_total < 100 * 1024, "{what}: {counted:?}");
    }
}

/// hyper's buffers and the state of a connection are 14 KB: clients that only connect must not make holdfast
/// take them.
#[test]
fn a_connection_that_sent_nothing_takes_little_memory() {
    const CONNECTIONS: u16 = 200;
    let scene = Scene::new();
    let request = request(&scene.token());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (_service, address) = runtime.block_on(scene.holdfast());
    let connect = |count: u16| {
        let (answered, is_answered) = oneshot::channel();
        let request = request.clone();
        thread::spawn(move || {
            let silent: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
            // Connections are accepted in order: when this one is answered, all are.
            let mut last = Client::connect(address);
            last.warm_up(&request);
            drop(answered.send((silent, last)));
        });
        runtime.block_on(is_answered).unwrap()
    };
    drop(connect(0));
    let mut connected = None;
    let counted = measure(|| connected = Some(connect(CONNECTIONS)));
    let each = counted.bytes_current / i64::from(CONNECTIONS);
    println!("bytes for a connection that sent nothing: {each}");
    assert!(each < 4_096, "{each} bytes for each of {CONNECTIONS} connections");
}

/// How many allocations the thread of a server makes for [`REQUESTS`] requests over one connection. What
/// `start` gives besides the address is kept until then.
fn allocations<K>(request: &[u8], start: impl AsyncFnOnce() -> (SocketAddr, K)) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (address, _kept) = runtime.block_on(start());
    let (warm, is_warm) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    let begin = Arc::new(Barrier::new(2));
    let client = thread::spawn({
        let (begin, request) = (begin.clone(), request.to_vec());
        move || {
            let mut client = Client::connect(address);
            client.warm_up(&request);
            // Buffers have grown to what they need.
            for _ in 0..100 {
                assert_eq!(client.ask(&request), 200);
            }
            warm.send(()).unwrap();
            begin.wait();
            for _ in 0..REQUESTS {
                assert_eq!(client.ask(&request), 200);
            }
            done.send(()).unwrap();
        }
    });
    runtime.block_on(is_warm).unwrap();
    begin.wait();
    let counted = measure(|| runtime.block_on(is_done).unwrap());
    client.join().unwrap();
    counted.count_total
}
