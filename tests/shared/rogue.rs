//! A Redis that sends what no Redis of ours would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{Scene, assert_alice, connected, errors, lookups, readyz};
use crate::support::service::Running;
use crate::support::until;

/// What it announces.
const LENGTH: usize = 400_000_000;

/// More than the buffers of a loopback connection hold.
const LIMIT: usize = 32 * 1024 * 1024;

/// Speaks as much RESP3 as holdfast needs, and floods where the test says.
struct Rogue {
    url: String,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    floods: AtomicBool,
    /// How many times it flooded, and the most bytes that one connection took.
    floodings: AtomicUsize,
    most: AtomicUsize,
}

impl Rogue {
    /// `command` is the one that it answers with a flood, which begins with `announcement`.
    async fn start(command: &'static str, announcement: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let told = Arc::new(Told::default());
        let all = told.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, all.clone(), command, announcement));
            }
        });
        Self { url, told }
    }
}

async fn talk(stream: TcpStream, told: Arc<Told>, command: &str, announcement: &str) -> Option<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let asked = read_command(&mut from).await?;
        let reply = match asked[0].to_uppercase().as_str() {
            "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            "SUBSCRIBE" => format!(">3\r\n$9\r\nsubscribe\r\n${}\r\n{}\r\n:1\r\n", asked[1].len(), asked[1]),
            "GETRANGE" => "$0\r\n\r\n".to_owned(),
            "TIME" => "*2\r\n$10\r\n1800000000\r\n$1\r\n0\r\n".to_owned(),
            "EVAL" => ":1\r\n".to_owned(),
            "XRANGE" => "*0\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if asked[0].eq_ignore_ascii_case(command) && told.floods.load(Ordering::SeqCst) {
            to.write_all(announcement.as_bytes()).await.ok()?;
            told.floodings.fetch_add(1, Ordering::SeqCst);
            let piece = [b'x'; 64 * 1024];
            let mut sent = 0;
            while sent < LENGTH {
                sent += to.write(&piece).await.ok()?;
                told.most.fetch_max(sent, Ordering::SeqCst);
            }
        }
        to.write_all(reply.as_bytes()).await.ok()?;
    }
}

async fn read_command(from: &mut BufReader<impl tokio::io::AsyncRead + Unpin>) -> Option<Vec<String>> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    let mut words = Vec::new();
    for _ in 0..line.strip_prefix('*')?.trim().parse().ok()? {
        line.clear();
        from.read_line(&mut line).await.ok()?;
        let mut word = vec![0; line.strip_prefix('$')?.trim().parse::<usize>().ok()? + 2];
        from.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words)
}

async fn flooded(command: &'static str, announcement: &'static str) -> Option<(Scene, Running, Rogue)> {
    let scene = Scene::new().await?;
    let rogue = Rogue::start(command, announcement).await;
    let config = scene.config("").replace(&scene.redis.url(), &rogue.url);
    let a = Running::start(&config, scene.clock.clone()).await;
    connected(&a).await;
    rogue.told.floods.store(true, Ordering::SeqCst);
    Some((scene, a, rogue))
}

/// Nothing of it was collected, users notice nothing, and it is well again when Redis is.
async fn assert_bounded(scene: &Scene, a: &Running, rogue: &Rogue) {
    until("it floods", async || (rogue.told.floodings.load(Ordering::SeqCst) > 0).then_some(())).await;
    until("degraded", async || readyz(a).await.contains("the shared store fails").then_some(())).await;
    assert_alice(&a.ask(&scene.opaque()).await);
    rogue.told.floods.store(false, Ordering::SeqCst);
    until("well again", async || (readyz(a).await == "ready\n").then_some(())).await;
    let before = lookups(a, "miss").await;
    assert_alice(&a.ask(&scene.opaque()).await);
    assert!(lookups(a, "miss").await > before, "it is asked again");
    let most = rogue.told.most.load(Ordering::SeqCst);
    assert!(most < LIMIT, "{most} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_longer_than_any_record_is_not_read() {
    let Some((scene, a, rogue)) = flooded("GETRANGE", "$400000000\r\n").await else { return };
    assert_alice(&a.ask(&scene.opaque()).await);
    assert_eq!(errors(&a, "reply").await, 1);
    assert_bounded(&scene, &a, &rogue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_longer_than_any_of_ours_is_not_read() {
    // It comes with the answer to whatever is asked next.
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$400000000\r\n";
    let Some((scene, a, rogue)) = flooded("EVAL", message).await else { return };
    // What is learned is written, behind the request.
    assert_alice(&a.ask(&scene.opaque()).await);
    assert_bounded(&scene, &a, &rogue).await;
}
