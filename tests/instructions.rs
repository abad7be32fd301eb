//! No kind of answer takes more instructions than `benches/instructions.toml` says, with 3 % of tolerance.
//!
//! Seconds depend on what else a machine does, instructions do not. callgrind counts those of the real binary
//! ([`support::callgrind`]). In 14 runs, four of them beside twice as many busy processes as cores, a count differed by
//! at most 1.1 % from the others.
//!
//! The floor is the bare hyper server of the benches. It tells what a change of hyper, tokio or the allocator
//! does from what holdfast does, and whether this is an optimised build at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "../benches/scene/mod.rs"]
mod scene;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use holdfast_devtenant::{RateLimit, TokenBuilder, User};
use scene::{Client, Scene, bare_server, request};
use serde::Deserialize;
use support::Holdfast;
use support::callgrind::{ASKED, Counter};
use support::yaml::in_repository;
use tokio::runtime::{Builder, Runtime};

/// The counted growth that fails, as a factor.
const TOLERANCE: f64 = 1.03;
/// Without optimisation of our own crate alone, the floor takes half as many again.
const NOT_OPTIMISED: f64 = 1.25;
/// Set to `write` by `make instructions`.
const VARIABLE: &str = "HOLDFAST_INSTRUCTIONS";
const FILE: &str = "benches/instructions.toml";

/// What `benches/instructions.toml` holds.
#[derive(Debug, Deserialize)]
struct Recorded {
    environment: BTreeMap<String, String>,
    instructions: BTreeMap<String, u64>,
}

#[test]
fn no_answer_takes_more_instructions_than_recorded() {
    let write = std::env::var_os(VARIABLE).is_some_and(|value| value == "write");
    let Some(environment) = environment() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "valgrind is missing: scripts/setup.sh test");
        return skipped("valgrind is not installed; scripts/setup.sh test installs it");
    };
    let recorded: Recorded = toml::from_str(&std::fs::read_to_string(in_repository(FILE)).unwrap()).unwrap();
    if !write && environment != recorded.environment {
        return skipped(&format!("{FILE} is for {:?}, and this is {environment:?}", recorded.environment));
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let floor = floor(&runtime);
    let before = |name: &str| recorded.instructions.get(name).copied().unwrap_or(0);
    if !write && ratio(floor, before("floor")) > NOT_OPTIMISED {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "not an optimised build: the floor takes {floor}"
        );
        return skipped(&format!("not an optimised build: the floor takes {floor} instructions"));
    }
    let mut counted = vec![("floor", floor)];
    counted.extend(from_memory(&runtime));
    counted.extend(from_disk(&runtime));
    let mut table = String::new();
    for (name, count) in &counted {
        let percent = (ratio(*count, before(name)) - 1.0) * 100.0;
        writeln!(table, "{name:<12} {count:>9}, recorded {:>9}: {percent:+.2} %", before(name)).unwrap();
    }
    println!("instructions for an answer:\n{table}");
    if write {
        return std::fs::write(in_repository(FILE), text(&environment, &counted)).unwrap();
    }
    let grown = counted.iter().any(|(name, count)| ratio(*count, before(name)) > TOLERANCE);
    assert!(
        !grown,
        "an answer takes more instructions than {FILE} says:\n{table}If the floor has grown, too, the cause is \
         hyper, tokio or the allocator. If it is worth it, `make instructions` writes the file again: commit it \
         with the change, and say why."
    );
}

/// Not a test: what the other one starts under callgrind.
#[test]
#[ignore = "a server that the other test starts"]
fn floor_server() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = runtime.block_on(runtime.spawn(bare_server())).unwrap();
    eprintln!("auth listener on {address} ");
    eprintln!("admin listener on {address} ");
    runtime.block_on(std::future::pending())
}

fn floor(runtime: &Runtime) -> u64 {
    let arguments = ["--ignored", "--exact", "floor_server", "--nocapture"].map(PathBuf::from);
    let command = [&[std::env::current_exe().unwrap()], &arguments[..]].concat();
    count(&Counter::program(runtime, &command), &[request("a-token")], 200)
}

/// A hit, a forged token that was seen before, and an RS256 token that was not.
fn from_memory(runtime: &Runtime) -> [(&'static str, u64); 3] {
    let scene = Scene::new();
    let counter = Counter::holdfast(runtime, &scene.config());
    let good = scene.token();
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    let new = users(|subject| scene.tenant.mint().subject(subject).email_direct("alice@example.com"));
    [
        ("hit", count(&counter, &[request(&good)], 200)),
        ("denial", count(&counter, &[request(&forged)], 401)),
        ("first_sight", count(&counter, &new, 200)),
    ]
}

/// A foreign token whose verdict is on disk, and not in memory, since holdfast was started again. Then the
/// same token again: it is short, so its digest does not hide the rest of a hit.
fn from_disk(runtime: &Runtime) -> [(&'static str, u64); 2] {
    let scene = Scene::new();
    let (data, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = format!(
        "{}[store]\npath = {:?}\n[budget]\nrate = 100000\nburst = 100000\nbackground_share = 1\n\
         first_seen_share = 1\n",
        scene.config(),
        data.path()
    );
    scene.tenant.set_userinfo_limit(Some(RateLimit::new(100_000, 100_000.0)));
    let known = users(|subject| {
        scene.tenant.add_user(User::new(&*subject).email("alice@example.com"));
        scene.tenant.mint().subject(subject).opaque()
    });
    runtime.block_on(async {
        let mut first = Holdfast::start(directory.path(), &config, 1).await.ready().await;
        let mut client = Client::connect(first.auth_tcp());
        for request in &known {
            assert_eq!(client.ask(request), 200);
        }
        first.signal("TERM").await;
        assert_eq!(first.ended().await, Some(0));
    });
    let asked = scene.tenant.calls().userinfo;
    let counter = Counter::holdfast(runtime, &config);
    let disk = count(&counter, &known, 200);
    assert_eq!(scene.tenant.calls().userinfo, asked, "the disk did not have all verdicts");
    [("disk_hit", disk), ("short_hit", count(&counter, &known[..1], 200))]
}

/// As many requests as are counted, each of another user.
fn users(mint: impl Fn(String) -> TokenBuilder) -> Vec<Vec<u8>> {
    (0..ASKED).map(|number| request(&mint(format!("auth0|{number:08}")).build().unwrap())).collect()
}

/// The instructions of one answer to these requests, which come round again if they are few.
fn count(counter: &Counter, requests: &[Vec<u8>], status: u16) -> u64 {
    let mut client = Client::connect(counter.server.auth_tcp());
    let ask = |number: usize| assert_eq!(client.ask(&requests[number % requests.len()]), status);
    counter.count(ask).instructions
}

/// What the counts depend on beside the code; `None` without valgrind.
fn environment() -> Option<BTreeMap<String, String>> {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Of those that valgrind lets a program see.
    let features =
        ["sse4_2", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "aes", "pclmulqdq"];
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags: Vec<&str> =
        processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default().split(' ').collect();
    let features: Vec<&str> = features.into_iter().filter(|feature| flags.contains(feature)).collect();
    Some(BTreeMap::from([
        ("valgrind".to_owned(), said("valgrind", "--version")?),
        ("rustc".to_owned(), said("rustc", "--version")?),
        ("libc".to_owned(), said("getconf", "GNU_LIBC_VERSION")?),
        ("cpu".to_owned(), format!("{} {}", std::env::consts::ARCH, features.join(" "))),
    ]))
}

fn text(environment: &BTreeMap<String, String>, counted: &[(&str, u64)]) -> String {
    let mut text = "# Instructions for one answer, counted by callgrind. tests/instructions.rs fails if one grows by more \
                    than 3 %;\n# `make instructions` writes this file. It is for this environment, and elsewhere the test \
                    is skipped.\n\n[environment]\n"
        .to_owned();
    for (name, value) in environment {
        writeln!(text, "{name} = {value:?}").unwrap();
    }
    text += "\n[instructions]\n";
    for (name, count) in counted {
        writeln!(text, "{name} = {count}").unwrap();
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(count: u64, before: u64) -> f64 {
    count as f64 / before as f64
}

/// Says so where libtest does not capture it, so that it is seen although the test passes.
fn skipped(why: &str) {
    std::io::stderr()
        .write_all(format!("\n*** SKIPPED: instructions are not counted: {why} ***\n").as_bytes())
        .unwrap();
}
