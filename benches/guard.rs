//! The cost of the guard: of breaker, budget and singleflight for each call, and of an open breaker and an
//! outage for users with known answers.
//!
//! What is compared is measured in turns in the same run, in many short rounds. For a time the best round
//! counts, since what disturbs a measurement only ever makes it slower; for hits the median of the rounds'
//! ratios; for the outage all rounds together, since what it costs does not fall into each of them.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

mod scene;

use std::hint::black_box;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use holdfast::clock::Clock;
use holdfast::guard::{
    BudgetSettings, CallOutcome, ForcedState, Guard, GuardSettings, Priority, Singleflight,
    SingleflightSettings, SubjectKey,
};
use holdfast::service::Service;
use holdfast_devtenant::User;
use scene::{Client, Scene, request};
use tokio::runtime::{Builder, Runtime};

/// Many and short, so that on a busy machine some are left alone.
const ROUNDS: usize = 60;
const ROUND: Duration = Duration::from_millis(100);
/// For what takes less than a microsecond.
const SHORT_ROUNDS: usize = 1_000;
const CALLS: u32 = 1_000;
const CONNECTIONS: usize = 4;
const USERS: usize = 200;

fn main() {
    calls();
    hits();
    outage();
}

/// What is added to one call to the issuer.
fn calls() {
    let budget = BudgetSettings { rate: 1e6, burst: 1_000_000, ..BudgetSettings::default() };
    let guard = Guard::new(GuardSettings { budget, ..GuardSettings::default() }, Clock::system());
    let about = |number: u32| {
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        digest
    };
    let guarded = best(|number| {
        let admission = guard.admit(Priority::Foreground, Some(SubjectKey::from_digest(about(number))));
        black_box(admission.unwrap().finish(CallOutcome::Answered));
    });
    println!("breaker, budget, hold-back           {:>7.3} µs a call", guarded.as_secs_f64() * 1e6);

    let flights: Singleflight<[u8; 32], u32> = Singleflight::new(SingleflightSettings::default());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut times = [Duration::MAX; 2];
    for _ in 0..SHORT_ROUNDS {
        let flights = flights.clone();
        // In a task, as a request is; each call gives way once, as one that waits for an answer does.
        let round = runtime.spawn(async move {
            let mut took = [Duration::ZERO; 2];
            for (turn, took) in took.iter_mut().enumerate() {
                let started = Instant::now();
                for number in 0..CALLS {
                    let call = async move {
                        tokio::task::yield_now().await;
                        number
                    };
                    let answer = if turn == 0 {
                        call.await
                    } else {
                        flights.run(about(number), || call).await.unwrap().0
                    };
                    assert_eq!(black_box(answer), number);
                }
                *took = started.elapsed();
            }
            took.map(|took| took / CALLS)
        });
        let took = runtime.block_on(round).unwrap();
        times = [times[0].min(took[0]), times[1].min(took[1])];
    }
    let shared = times[1].saturating_sub(times[0]);
    let [bare, whole] = times.map(|time| time.as_secs_f64() * 1e6);
    println!(
        "singleflight                         {:>7.3} µs a call ({whole:.3} with it, {bare:.3} without)",
        whole - bare
    );
    println!(
        "together                             {:>7.3} µs a call",
        (guarded + shared).as_secs_f64() * 1e6
    );
}

/// Answers from memory, with the breakers closed and open.
fn hits() {
    let scene = Scene::new();
    let runtime = server();
    let (service, address) = runtime.block_on(scene.holdfast());
    let question = vec![request(&scene.token())];
    Client::connect(address).warm_up(&question[0]);
    let breakers = |open: bool| {
        for endpoint in service.instance().issuers.iter().flat_map(|issuer| issuer.endpoints()) {
            if open {
                endpoint.force(ForcedState::Open, Duration::from_secs(3600));
            } else {
                endpoint.reset();
            }
        }
    };
    let [closed, open, ratio] = in_turns(
        || {
            breakers(false);
            answered(address, &question)
        },
        || {
            breakers(true);
            answered(address, &question)
        },
    );
    println!("hits a second, breakers closed       {closed:>7.0}");
    println!("hits a second, breakers open         {open:>7.0}, {ratio:.3} of it");
}

/// Known users: in the first tier with the issuer there, and in the third with the issuer gone. There they
/// are resolved anew from their records now and then, as holdfast's clock moves on with the rounds.
fn outage() {
    let runtime = server();
    let (normal, outage) = (Known::new(&runtime), Known::new(&runtime));
    runtime.block_on(outage.scene.tenant.go_down());
    outage.clock.advance(Duration::from_secs(13 * 3600));
    let (mut up, mut down) = (0.0, 0.0);
    for round in 0..4 * ROUNDS {
        // Who goes first changes from round to round.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                up += answered(normal.address, &normal.questions);
            } else {
                down += answered(outage.address, &outage.questions);
                outage.clock.advance(ROUND);
            }
        }
    }
    let rounds = (4 * ROUNDS) as f64;
    println!("known users a second, normal         {:>7.0}", up / rounds);
    println!("known users a second, total outage   {:>7.0}, {:.3} of it", down / rounds, down / up);
}

/// A holdfast with a clock held by hand, and users whose emails it had to ask for.
struct Known {
    scene: Scene,
    clock: Clock,
    _service: Service,
    address: SocketAddr,
    questions: Vec<Vec<u8>>,
}

impl Known {
    fn new(runtime: &Runtime) -> Self {
        let scene = Scene::new();
        let clock = Clock::held_at(holdfast::clock::Timestamp::from_secs(scene.tenant.time()));
        let service = runtime.block_on(Service::start(scene.source(), clock.clone())).unwrap();
        let address: SocketAddr = service.auth_addresses()[0].parse().unwrap();
        let life = 400 * 24 * 3600;
        let mut client = Client::connect(address);
        let mut questions = Vec::new();
        for number in 0..USERS {
            let subject = format!("auth0|user-{number}");
            scene.tenant.add_user(User::new(&subject).email(format!("user-{number}@example.com")));
            let token = scene.tenant.mint().subject(&subject).expires_in(life).build().unwrap();
            questions.push(request(&token));
            // So that the budget allows it.
            clock.advance(Duration::from_secs(1));
            client.warm_up(&questions[number]);
        }
        Self { scene, clock, _service: service, address, questions }
    }
}

/// How many questions are answered with 200 in a second, over several connections at once. No other answer is
/// allowed.
fn answered(address: SocketAddr, questions: &[Vec<u8>]) -> f64 {
    let started = Instant::now();
    let counts: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                scope.spawn(move || {
                    let (mut client, mut count) = (Client::connect(address), 0);
                    for question in questions.iter().cycle().skip(first * questions.len() / CONNECTIONS) {
                        assert_eq!(client.ask(question), 200);
                        count += 1;
                        if started.elapsed() >= ROUND {
                            break;
                        }
                    }
                    count
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    f64::from(counts) / started.elapsed().as_secs_f64()
}

/// The medians of two rates, and of the second's ratio to the first beside it. Who goes first changes from
/// round to round.
fn in_turns(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> [f64; 3] {
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        let (first, second) = if round % 2 == 0 {
            let first = one();
            (first, other())
        } else {
            let second = other();
            (one(), second)
        };
        for (values, value) in rounds.iter_mut().zip([first, second, second / first]) {
            values.push(value);
        }
    }
    rounds.map(|mut values| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// The best time of one of many calls.
fn best(mut call: impl FnMut(u32)) -> Duration {
    let round = |_| {
        let started = Instant::now();
        (0..CALLS).for_each(&mut call);
        started.elapsed() / CALLS
    };
    (0..SHORT_ROUNDS).map(round).min().unwrap()
}

fn server() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
