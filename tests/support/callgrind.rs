//! A server under callgrind, which counts instructions and allocations answer by answer.
//!
//! The client sends the next request only when every thread of the server waits: so each request finds the
//! server in the same state, however slow or busy the machine is. The median of the rounds counts, since what
//! a server does once a second falls into few of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Holdfast, PATIENCE};

/// Rounds that count, after one that does not: buffers grow in it.
const ROUNDS: usize = 5;
/// Requests in each.
const REQUESTS: usize = 100;
/// How often [`Counter::count`] asks.
pub const ASKED: usize = (ROUNDS + 1) * REQUESTS;

/// The places in the kernel where a thread waits for an event, a time, or another thread. One that is about to
/// run is in none of them; one that waits for its turn under valgrind reads from a pipe.
const WAITING: [&str; 4] = ["futex", "epoll", "ep_poll", "nanosleep"];

/// A server under callgrind.
pub struct Counter {
    pub server: Holdfast,
    directory: TempDir,
}

/// What one answer takes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Counted {
    pub instructions: u64,
    pub allocations: f64,
}

impl Counter {
    /// `holdfast serve` with this configuration, ready.
    pub fn holdfast(runtime: &Runtime, config: &str) -> Self {
        let command = [env!("CARGO_BIN_EXE_holdfast"), "serve", "--config", "holdfast.toml"];
        let counter = Self::start(runtime, &command.map(PathBuf::from), Some(config));
        Self { server: runtime.block_on(counter.server.ready()), ..counter }.counting()
    }

    /// This program, which says as holdfast does where it listens.
    pub fn program(runtime: &Runtime, command: &[PathBuf]) -> Self {
        Self::start(runtime, command, None).counting()
    }

    fn start(runtime: &Runtime, program: &[PathBuf], config: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(config) = config {
            std::fs::write(directory.path().join("holdfast.toml"), config).unwrap();
        }
        let mut command = tokio::process::Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--instr-atstart=no", "-q"])
            .arg(format!("--callgrind-out-file={}", directory.path().join("counts").display()))
            .arg(prefix(directory.path()))
            .args(program)
            .env("TOKIO_WORKER_THREADS", "1");
        let server = runtime.block_on(Holdfast::launch(command, directory.path(), 1, &[]));
        Self { server, directory }
    }

    fn counting(self) -> Self {
        self.tell(&["instrumentation", "on"]);
        self
    }

    /// The median of the rounds, for one request. `ask` sends one and waits for its answer; it is given the
    /// number of the request, below [`ASKED`].
    pub fn count(&self, mut ask: impl FnMut(usize)) -> Counted {
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            for number in round * REQUESTS..(round + 1) * REQUESTS {
                self.wait_until_idle();
                ask(number);
            }
            self.wait_until_idle();
            self.tell(&["dump"]);
            rounds.push(self.dumped());
        }
        let rounds = &mut rounds[1..];
        println!("{rounds:?}");
        rounds.sort_unstable();
        let (instructions, allocations) = rounds[ROUNDS / 2];
        let requests = u32::try_from(REQUESTS).unwrap();
        Counted {
            instructions: instructions / u64::from(requests),
            allocations: f64::from(allocations) / f64::from(requests),
        }
    }

    fn wait_until_idle(&self) {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.server.pid()));
        let started = Instant::now();
        loop {
            let places: Vec<String> = std::fs::read_dir(&tasks)
                .unwrap()
                .map(|task| std::fs::read_to_string(task.unwrap().path().join("wchan")).unwrap_or_default())
                .collect();
            if places.iter().all(|place| WAITING.iter().any(|waiting| place.contains(waiting))) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the server never waits: {places:?}");
        }
    }

    /// Instructions and allocations since the last dump. callgrind numbers the files.
    fn dumped(&self) -> (u64, u32) {
        for file in std::fs::read_dir(self.directory.path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("counts.") {
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::remove_file(&path).unwrap();
                let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
                return (total.trim().parse().unwrap(), allocations(&text));
            }
        }
        panic!("callgrind wrote no counts")
    }

    fn tell(&self, command: &[&str]) {
        let output = Command::new("vgdb")
            .arg(prefix(self.directory.path()))
            .arg(format!("--pid={}", self.server.pid()))
            .args(command)
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

/// The directory that valgrind and vgdb meet in.
fn prefix(directory: &Path) -> String {
    format!("--vgdb-prefix={}", directory.join("vgdb").display())
}

/// How often the allocator was called, as a dump has it: `cfn=(7) malloc`, later `cfn=(7)`, names what is
/// called, and `calls=3 …` how often.
fn allocations(dump: &str) -> u32 {
    let (mut names, mut allocates, mut sum) = (HashMap::new(), false, 0);
    for line in dump.lines() {
        if let Some((kind, name)) = line.split_once("fn=") {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            let name = names.get(number).copied().unwrap_or_default();
            let name = name.trim_start_matches("mi_").trim_end_matches("'2");
            let is_one = ["malloc", "calloc", "realloc", "posix_memalign", "malloc_aligned", "zalloc"];
            allocates = kind == "c" && is_one.contains(&name);
        } else if let Some(calls) = line.strip_prefix("calls=").filter(|_| allocates) {
            sum += calls.split(' ').next().unwrap().parse::<u32>().unwrap();
        }
    }
    sum
}
