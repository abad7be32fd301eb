//! `make bench`: holdfast beside the [`floor`], a bare hyper server, in turns in one run.
//!
//! Both are processes with one answering thread on the first core; the load is on the second, if there is one.
//! One thing at a time differs from the base row: 64 connections over TCP with one token of 900 bytes. Each
//! answer comes from memory. The median of the rounds counts, and the spread is shown with it.
//!
//! Writes `benches/answers.json` and the part of `benches/RESULTS.md` between its marks. `QUICK=1` measures in
//! about a minute, and writes neither.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement that cannot be made has no result, and its figures are not exact"
)]

#[path = "../../tests/tls/certificates.rs"]
mod certificates;
mod floor;
mod load;
mod report;
#[path = "../scene/mod.rs"]
mod scene;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use certificates::Authority;
use holdfast_devtenant::{Options, Tenant};
use load::{Load, Pace, Way};
use report::{Instructions, Measured, Memory, Pair, Results, Scaling};
use scene::{Client, request};
use support::Holdfast;
use support::callgrind::{Counted, Counter};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The open loop's shares of what holdfast can do.
const SHARES: [f64; 2] = [0.5, 0.8];
/// Where Zipf's law is drawn from: as many requests, which come round again.
const DRAWN: usize = 1 << 20;

/// How long, how often and how much.
struct Plan {
    rounds: usize,
    closed: Duration,
    open: Duration,
    most_tokens: usize,
    new_tokens: usize,
}

/// What differs from the base row.
#[derive(Clone)]
struct Scenario {
    name: String,
    way: usize,
    connections: usize,
    bytes: usize,
    tokens: usize,
    forged: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, directory] = &arguments[..]
        && word == "floor"
    {
        return floor::serve(Path::new(directory));
    }
    let quick = std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let plan = if quick {
        Plan { rounds: 2, closed: millis(250), open: millis(300), most_tokens: 100_000, new_tokens: 500 }
    } else {
        Plan {
            rounds: 5,
            closed: millis(1000),
            open: millis(1500),
            most_tokens: 1_000_000,
            new_tokens: 5_000,
        }
    };
    let started = Instant::now();
    let bench = Bench::new(plan);
    let mut results = Results { cores: bench.cores, ..Results::default() };
    let told = |what: &str| eprintln!("{:4.0} s: {what}", started.elapsed().as_secs_f64());
    results.first_sight = bench.first_sight();
    told("new tokens");
    results.scaling = bench.scaling();
    told("two cores");
    results.instructions = bench.instructions();
    told("instructions");
    let servers = [Kind::Floor, Kind::Holdfast].map(|kind| bench.start(kind, "0", 1));
    for scenario in bench.scenarios() {
        results.measured.push(bench.measure(&scenario, &servers, &mut results.memory));
        told(&scenario.name);
    }
    results.seconds = started.elapsed().as_secs();
    results.show(!quick);
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[derive(Clone, Copy)]
enum Kind {
    Floor,
    Holdfast,
    /// holdfast with an issuer that signs with RS256, whose tokens may be encrypted.
    Signed,
}

struct Bench {
    plan: Plan,
    runtime: Runtime,
    tenant: Tenant,
    directory: TempDir,
    client: Arc<ClientConfig>,
    cores: usize,
}

/// A server and the ways to it: TCP, unix, TLS.
struct Server {
    process: Holdfast,
    ways: [Way; 3],
}

const SECRET: &[u8; 32] = b"a secret of thirty-two bytes....";

impl Bench {
    fn new(plan: Plan) -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = Options { audience: "api".to_owned(), ..Options::default() };
        let tenant = runtime.block_on(Tenant::start(options)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("bench CA");
        let ca = authority.file(directory.path(), "ca.pem");
        let server = authority.server(directory.path(), "server");
        for (name, content) in [("secret", &SECRET[..]), ("jwe.pem", tenant.jwe_private_key_pem().as_bytes())]
        {
            // As private as the certificate's key.
            let file = directory.path().join(name);
            std::fs::copy(&server.key, &file).unwrap();
            std::fs::write(&file, content).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let client = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let bench = Self { plan, runtime, tenant, directory, client, cores };
        bench.pin("1");
        bench
    }

    /// Keeps this thread, and those that it starts from now on, on these cores.
    fn pin(&self, cores: &str) {
        if self.cores > 1 {
            let mut taskset = Command::new("taskset");
            taskset.args(["-cp", cores, &std::process::id().to_string()]).stdout(Stdio::null());
            assert!(taskset.status().unwrap().success());
        }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let base = Scenario {
            name: "base: 64 connections, TCP, 900 bytes, one token".to_owned(),
            way: 0,
            connections: 64,
            bytes: 900,
            tokens: 1,
            forged: false,
        };
        let other = |name: &str| Scenario { name: name.to_owned(), ..base.clone() };
        let most = self.plan.most_tokens;
        vec![
            base.clone(),
            Scenario { connections: 1, ..other("1 connection") },
            Scenario { connections: 256, ..other("256 connections") },
            Scenario { way: 1, ..other("unix socket") },
            Scenario { way: 2, ..other("TLS") },
            Scenario { bytes: 300, ..other("token of 300 bytes") },
            Scenario { bytes: 4000, ..other("token of 4,000 bytes") },
            Scenario { tokens: 10_000, ..other("10,000 tokens (Zipf)") },
            Scenario { tokens: most, ..other(&format!("{} tokens (Zipf)", report::grouped(most as f64))) },
            Scenario { forged: true, ..other("forged token, seen before: 401") },
        ]
    }

    fn config(&self, kind: Kind) -> String {
        let path = |name: &str| self.directory.path().join(name);
        let issuer = match kind {
            Kind::Signed => format!("decryption_keys = [{:?}]\n", path("jwe.pem")),
            _ => format!("algorithms = [\"HS256\"]\nsecret_file = {:?}\n", path("secret")),
        };
        format!(
            "[auth]\nlisten = [\"127.0.0.1:0\", \"unix:{}\", \"tls:127.0.0.1:0\"]\n\
             [auth.tls]\ncertificate = {:?}\nkey = {:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [store]\nmemory = \"1GiB\"\n[[issuer]]\nurl = \"{}\"\naudience = [\"api\"]\n{issuer}",
            path("holdfast.sock").display(),
            path("server.pem"),
            path("server.key"),
            self.tenant.issuer(),
        )
    }

    fn program(&self, kind: Kind) -> Vec<PathBuf> {
        match kind {
            Kind::Floor => {
                let _ = std::fs::remove_file(self.directory.path().join("floor.sock"));
                vec![std::env::current_exe().unwrap(), "floor".into(), self.directory.path().into()]
            }
            Kind::Holdfast | Kind::Signed => {
                std::fs::write(self.directory.path().join("holdfast.toml"), self.config(kind)).unwrap();
                [env!("CARGO_BIN_EXE_holdfast"), "serve", "--config", "holdfast.toml"]
                    .map(Into::into)
                    .to_vec()
            }
        }
    }

    fn start(&self, kind: Kind, cores: &str, threads: usize) -> Server {
        let program = self.program(kind);
        let mut command = if self.cores > 1 {
            let mut command = tokio::process::Command::new("taskset");
            command.args(["-c", cores]).args(program);
            command
        } else {
            let mut command = tokio::process::Command::new(&program[0]);
            command.args(&program[1..]);
            command
        };
        command.env("TOKIO_WORKER_THREADS", threads.to_string());
        let process = self.runtime.block_on(async {
            let process = Holdfast::launch(command, self.directory.path(), 3, &[]).await;
            if matches!(kind, Kind::Floor) { process } else { process.ready().await }
        });
        let tls = process.auth.iter().find_map(|address| address.strip_prefix("tls:")).unwrap();
        let tls = Way::Tls(tls.parse().unwrap(), self.client.clone());
        let ways = [Way::Tcp(process.auth_tcp()), Way::Unix(process.auth_unix()), tls];
        Server { process, ways }
    }

    /// Ends it, and waits until it has: the next one takes its socket, and the cores.
    fn stop(&self, mut server: Server) {
        self.runtime.block_on(server.process.kill());
    }

    /// Requests of as many users, each with a token of about this many bytes.
    fn requests(&self, scenario: &Scenario) -> Vec<Vec<u8>> {
        let (issuer, now) = (self.tenant.issuer(), self.tenant.time());
        let token = |number: usize, padding: usize| {
            let payload = format!(
                r#"{{"iss":"{issuer}","aud":"api","sub":"auth0|{number:08}","exp":{},"email":"alice@example.com","p":"{}"}}"#,
                now + 86_400,
                "p".repeat(padding)
            );
            self.tenant.mint().algorithm("HS256").hs_secret(SECRET).payload(payload).build().unwrap()
        };
        let padding = scenario.bytes.saturating_sub(token(0, 0).len()) * 3 / 4;
        (0..scenario.tokens)
            .map(|number| {
                let mut token = token(number, padding);
                if scenario.forged {
                    token.replace_range(token.len() - 4.., "AAAA");
                }
                request(&token)
            })
            .collect()
    }

    fn measure(&self, scenario: &Scenario, servers: &[Server; 2], memory: &mut Memory) -> Measured {
        let requests = self.requests(scenario);
        let order = zipf(requests.len());
        let load = |number: usize| Load {
            way: &servers[number].ways[scenario.way],
            connections: scenario.connections,
            requests: &requests,
            order: &order,
            status: if scenario.forged && number == 1 { 401 } else { 200 },
        };
        let before = servers[1].process.memory();
        let each: Vec<u32> = (0..u32::try_from(requests.len()).unwrap()).collect();
        Load { order: &each, ..load(1) }.run(Pace::Once);
        if requests.len() == self.plan.most_tokens {
            *memory =
                Memory { idle: before, filled: servers[1].process.memory(), identities: requests.len() };
        }
        let mut measured = Measured::new(&scenario.name);
        for number in [0, 1] {
            load(number).run(Pace::Closed(self.plan.closed / 4));
        }
        for _ in 0..self.plan.rounds {
            for (number, server) in servers.iter().enumerate() {
                let (busy, load) = (server.process.processor_time(), load(number));
                let outcome = load.run(Pace::Closed(self.plan.closed));
                let busy = server.process.processor_time().saturating_sub(busy);
                measured.rate.of(number).push(outcome.rate());
                let answers = u32::try_from(outcome.latencies.len()).unwrap();
                measured.cpu.of(number).push((busy / answers).as_secs_f64());
            }
        }
        let capacity = measured.rate.median(1);
        for _ in 0..self.plan.rounds {
            for (share, latencies) in SHARES.iter().zip(&mut measured.latencies) {
                for number in [0, 1] {
                    let outcome = load(number).run(Pace::Open(capacity * share, self.plan.open));
                    for (pair, thousandths) in latencies.iter_mut().zip([500, 990, 999]) {
                        pair.of(number).push(outcome.at(thousandths).as_secs_f64());
                    }
                }
            }
        }
        measured
    }

    /// The processor time of an answer to a token that was never seen, in seconds: RS256, and the same in a JWE
    /// (RSA-OAEP-256, A256GCM).
    fn first_sight(&self) -> [f64; 2] {
        let server = self.start(Kind::Signed, "0", 1);
        let costs = [false, true].map(|is_encrypted| {
            let requests: Vec<_> = (0..self.plan.new_tokens)
                .map(|number| {
                    let subject = format!("auth0|{number:08}-{is_encrypted}");
                    let token = self.tenant.mint().subject(subject).email_direct("alice@example.com");
                    request(&if is_encrypted { token.nested_jwe() } else { token }.build().unwrap())
                })
                .collect();
            let order: Vec<u32> = (0..u32::try_from(requests.len()).unwrap()).collect();
            let (way, busy) = (&server.ways[0], server.process.processor_time());
            let load = Load { way, connections: 16, requests: &requests, order: &order, status: 200 };
            let answers = load.run(Pace::Once).latencies.len();
            (server.process.processor_time().saturating_sub(busy)).as_secs_f64() / answers as f64
        });
        self.stop(server);
        costs
    }

    /// What two cores can do beside one: server and load together have one core, or two with twice as many
    /// threads, so that the load costs the same for each request.
    fn scaling(&self) -> Option<Scaling> {
        if self.cores == 1 {
            return None;
        }
        let scenario = &self.scenarios()[0];
        let (requests, order) = (self.requests(scenario), [0]);
        let mut scaling = Scaling { one: Pair::default(), two: Pair::default() };
        for _ in 0..self.plan.rounds {
            for (number, kind) in [Kind::Floor, Kind::Holdfast].into_iter().enumerate() {
                for (cores, threads, pair) in [("0", 1, &mut scaling.one), ("0,1", 2, &mut scaling.two)] {
                    self.pin(cores);
                    let server = self.start(kind, cores, threads);
                    let load = Load {
                        way: &server.ways[0],
                        connections: scenario.connections / threads,
                        requests: &requests,
                        order: &order,
                        status: 200,
                    };
                    load.run(Pace::Closed(self.plan.closed / 4));
                    let rate = std::thread::scope(|scope| {
                        let loads: Vec<_> = (0..threads)
                            .map(|_| scope.spawn(|| load.run(Pace::Closed(self.plan.closed))))
                            .collect();
                        loads.into_iter().map(|load| load.join().unwrap().rate()).sum()
                    });
                    pair.of(number).push(rate);
                    self.stop(server);
                }
            }
        }
        self.pin("1");
        Some(scaling)
    }

    /// Instructions and allocations for one answer; none without valgrind.
    fn instructions(&self) -> Option<Instructions> {
        Command::new("valgrind").arg("--version").output().ok()?;
        let counted = |counter: &Counter, forged: bool, status: u16| -> Counted {
            let scenario = Scenario { forged, ..self.scenarios().swap_remove(0) };
            let request = self.requests(&scenario).swap_remove(0);
            let mut client = Client::connect(counter.server.auth_tcp());
            counter.count(|_| assert_eq!(client.ask(&request), status))
        };
        let floor = Counter::program(&self.runtime, &self.program(Kind::Floor));
        let floor = counted(&floor, false, 200);
        let mut holdfast = Counter::holdfast(&self.runtime, &self.config(Kind::Holdfast));
        let (hit, denial) = (counted(&holdfast, false, 200), counted(&holdfast, true, 401));
        self.runtime.block_on(holdfast.server.kill());
        Some(Instructions { floor, hit, denial })
    }
}

/// Numbers below `count`, so that the first is asked for most: the second half as often, the third a third as
/// often. Always the same ones.
fn zipf(count: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..if count == 1 { 1 } else { DRAWN })
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            sums.partition_point(|sum| *sum <= at).min(count - 1) as u32
        })
        .collect()
}
