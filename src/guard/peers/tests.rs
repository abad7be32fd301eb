use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::guard::{BudgetSettings, Guard, GuardSettings, Priority};

const ENDPOINT: EndpointId = 7;

fn at(millis: u64) -> Ticks {
    Ticks::from_elapsed(Duration::from_millis(millis))
}

fn news(instance: u64, demand: f64, is_open: bool) -> InstanceNews {
    InstanceNews { instance, endpoints: vec![EndpointNews { endpoint: ENDPOINT, demand, is_open }] }
}

fn of_three() -> Peers {
    let mut peers = Peers::none(1);
    peers.connected(at(0));
    assert!(peers.heard(news(2, 0.0, false), at(0)).is_new);
    assert!(!peers.heard(news(2, 0.0, false), at(0)).is_new);
    assert!(peers.heard(news(3, 1.0, false), at(0)).is_new);
    peers
}

#[test]
fn an_instance_alone_has_the_whole_budget_with_redis_and_without() {
    let mut peers = Peers::none(1);
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (1, 1.0));
    peers.connected(at(0));
    peers.heard(news(1, 1.0, true), at(0));
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (1, 1.0), "its own notices are not another's");
}

#[test]
fn without_redis_each_has_an_even_share_of_the_instances_last_seen() {
    let mut peers = of_three();
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (3, 1.0 / 12.0), "an idle instance");
    peers.disconnected();
    peers.forget_silent(at(3_600_000));
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (3, 1.0 / 3.0));
    // The others may come back later than this one.
    peers.connected(at(3_600_000));
    peers.forget_silent(at(3_609_000));
    assert_eq!(peers.count(), 3);
    peers.heard(news(2, 0.0, false), at(3_609_000));
    peers.forget_silent(at(3_611_000));
    assert_eq!(peers.count(), 2);
}

#[test]
fn a_silent_instance_is_gone_after_three_seconds() {
    let mut peers = of_three();
    peers.heard(news(2, 0.0, false), at(1_000));
    peers.forget_silent(at(3_000));
    assert_eq!(peers.count(), 3);
    peers.forget_silent(at(3_001));
    assert_eq!(peers.count(), 2);
    peers.forget_silent(at(4_001));
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (1, 1.0));
}

#[test]
fn instances_without_an_endpoint_have_no_share_of_its_budget() {
    let mut peers = of_three();
    peers.heard(InstanceNews { instance: 3, endpoints: Vec::new() }, at(0));
    assert_eq!((peers.count(), peers.share(ENDPOINT).part), (3, 0.5));
    assert_eq!(peers.share(ENDPOINT + 1), Share::WHOLE);
}

#[test]
fn an_opened_breaker_is_news_once() {
    let mut peers = of_three();
    let opened = |peers: &mut Peers, is_open| peers.heard(news(2, 0.0, is_open), at(0)).opened;
    assert_eq!(opened(&mut peers, true), [ENDPOINT]);
    assert_eq!(opened(&mut peers, true), [0_u64; 0]);
    assert_eq!(opened(&mut peers, false), [0_u64; 0]);
    assert_eq!(opened(&mut peers, true), [ENDPOINT]);
}

#[test]
fn the_memory_for_other_instances_is_bounded() {
    let mut peers = Peers::none(0);
    for instance in 1..5_000 {
        let row = EndpointNews { endpoint: instance, demand: 0.0, is_open: false };
        peers.heard(InstanceNews { instance, endpoints: vec![row; 5_000] }, at(0));
    }
    assert_eq!(peers.count(), 1 + MAX_INSTANCES);
    assert!(peers.peers.values().all(|peer| peer.endpoints.len() == MAX_ENDPOINTS));
}

/// What happens in a fleet.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many requests at one instance need a call.
    Requests(usize, u8),
    /// An instance tells the others.
    Tells(usize),
    /// So many milliseconds pass.
    Passes(u64),
    /// Redis goes or comes back.
    Redis(bool),
}

fn event(instances: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..instances, 1_u8..30).prop_map(|(instance, count)| Event::Requests(instance, count)),
        4 => (0..instances).prop_map(Event::Tells),
        3 => (1_u64..1_500).prop_map(Event::Passes),
        1 => any::<bool>().prop_map(Event::Redis),
    ]
}

/// Instances that hear each other, with one clock.
struct Fleet {
    members: Vec<(Guard, Peers)>,
    clock: Clock,
    is_connected: bool,
}

impl Fleet {
    fn new(instances: usize, budget: BudgetSettings) -> Self {
        let clock = Clock::held_at(Timestamp::from_secs(1_000_000));
        let settings = GuardSettings { budget, ..GuardSettings::default() };
        let member = |instance| {
            let guard = Guard::with_jitter(settings.clone(), clock.clone(), Box::new(|| 0.0));
            let mut peers = Peers::none(instance);
            peers.connected(clock.ticks());
            (guard, peers)
        };
        let members = (0..).map(member).take(instances).collect();
        let mut fleet = Self { members, clock, is_connected: true };
        (0..instances).for_each(|instance| fleet.tell(instance));
        fleet
    }

    /// As [`crate::fleet`] does.
    fn tell(&mut self, instance: usize) {
        if !self.is_connected {
            return;
        }
        let now = self.clock.ticks();
        let (guard, peers) = &mut self.members[instance];
        let (demand, is_open) = guard.news();
        let told = news(peers.own_instance(), demand, is_open);
        peers.told(told.endpoints.clone());
        self.members.iter_mut().for_each(|(_, peers)| drop(peers.heard(told.clone(), now)));
        self.apply();
    }

    fn apply(&self) {
        self.members.iter().for_each(|(guard, peers)| guard.set_share(peers.share(ENDPOINT)));
    }

    fn redis(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
        let now = self.clock.ticks();
        for (_, peers) in &mut self.members {
            if is_connected { peers.connected(now) } else { peers.disconnected() }
        }
        self.apply();
    }

    /// How many of so many calls are admitted at once.
    fn admitted(&self, instance: usize, count: usize) -> usize {
        let guard = &self.members[instance].0;
        (0..count).filter(|_| guard.admit(Priority::Foreground, None).is_ok()).count()
    }
}

fn budget() -> BudgetSettings {
    BudgetSettings { rate: 20.0, burst: 24, ..BudgetSettings::default() }
}

proptest! {
    /// Over any stretch of time, in any order of notices, and also when Redis goes and comes back.
    #[test]
    fn a_fleet_makes_no_more_calls_than_one_instance_may(
        (instances, events) in (1_usize..9)
            .prop_flat_map(|count| (Just(count), prop::collection::vec(event(count), 1..200))),
    ) {
        let mut fleet = Fleet::new(instances, budget());
        let mut calls: Vec<(Duration, usize)> = Vec::new();
        for event in events {
            match event {
                Event::Requests(instance, count) => {
                    let admitted = fleet.admitted(instance, usize::from(count));
                    calls.push((fleet.clock.ticks().since(Ticks::ZERO), admitted));
                }
                Event::Tells(instance) => fleet.tell(instance),
                Event::Passes(millis) => fleet.clock.advance(Duration::from_millis(millis)),
                Event::Redis(is_connected) => fleet.redis(is_connected),
            }
        }
        for (first, (from, _)) in calls.iter().enumerate() {
            let mut sum = 0;
            for (to, admitted) in &calls[first..] {
                sum += admitted;
                let most = 24.0 + 20.0 * (*to - *from).as_secs_f64();
                prop_assert!(sum as f64 <= most + 1e-6, "{sum} calls in {:?}", *to - *from);
            }
        }
    }
}

#[test]
fn a_busy_instance_gets_what_idle_ones_do_not_need() {
    let mut fleet = Fleet::new(8, budget());
    let calls: usize = (0..300)
        .map(|tenth| {
            fleet.clock.advance(Duration::from_millis(100));
            if tenth % 10 == 0 {
                (0..8).for_each(|instance| fleet.tell(instance));
            }
            fleet.admitted(3, 5)
        })
        .sum();
    assert!((450..=600).contains(&calls), "{calls} calls in 30 s, of 20 a second for all");
    assert_eq!(fleet.admitted(0, 5), 1, "an idle one can make calls at once");
}

#[test]
fn calls_that_wait_leave_sooner_or_later_as_the_share_changes() {
    let clock = Clock::held_at(Timestamp::from_secs(1_000_000));
    let budget = BudgetSettings { rate: 10.0, burst: 1, ..BudgetSettings::default() };
    let settings = GuardSettings { budget, ..GuardSettings::default() };
    let guard = Guard::with_jitter(settings, clock.clone(), Box::new(|| 0.0));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        assert!(guard.admit(Priority::Foreground, None).is_ok());
        let ask = |count| -> Vec<_> {
            (0..count)
                .map(|_| {
                    let guard = guard.clone();
                    tokio::spawn(async move { guard.admit_in_turn(Priority::Foreground, None).await.is_ok() })
                })
                .collect()
        };
        let waiting = ask(10);
        tokio::task::yield_now().await;
        assert_eq!(guard.status().waiting, 10);
        // With a quarter of the rate, the last of them would wait for 4 s and not for 1 s; those who wait
        // longer than 2 s are told.
        guard.set_share(Share::even(4));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(guard.status().waiting, 5);
        guard.set_share(Share::WHOLE);
        for _ in 0..10 {
            clock.advance(Duration::from_millis(50));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        let mut admitted = 0;
        for waiting in waiting {
            admitted += usize::from(waiting.await.unwrap());
        }
        assert_eq!((admitted, guard.status().waiting), (5, 0));
    });
}
