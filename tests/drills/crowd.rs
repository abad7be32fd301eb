//! Users who come at their own times, wait, and come back when they are told to: on the held clock, so that
//! ten minutes take seconds, and a slow machine sees the same as a fast one.
//!
//! Between two steps of the clock the drill waits until nothing is under way but calls that wait for their
//! turn. So each answer belongs to one step, and each call reaches the tenant at the time at which it left.
//!
//! For a runtime of one thread: there, a task that the clock has woken has run when the drill has yielded.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::drill::Stage;
use crate::support::{PATIENCE, Reply};

/// How far the clock moves in one step. The time of an answer is known to this.
pub const STEP: Duration = Duration::from_millis(200);

/// A user on the way in.
#[derive(Debug)]
pub struct Visitor {
    token: String,
    /// When they first asked.
    pub came: Duration,
    /// When they got a 200.
    pub let_in: Option<Duration>,
    /// The `Retry-After` of each 503, in seconds.
    pub told: Vec<u64>,
}

impl Visitor {
    /// How long it took from the first request to the 200.
    pub fn way_in(&self) -> Duration {
        self.let_in.unwrap() - self.came
    }
}

/// How things stood at the end of a step.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub time: Duration,
    pub let_in: usize,
    /// How many 503 there were so far.
    pub sent_away: usize,
    pub calls: u64,
}

/// Users on their way in, and what has become of them.
pub struct Crowd {
    pub visitors: Vec<Visitor>,
    pub moments: Vec<Moment>,
    /// Who asks when, by number.
    due: BTreeMap<Duration, Vec<usize>>,
    under_way: JoinSet<(Who, Duration, Reply)>,
    now: Duration,
    /// Users who are known; one of them asks in each step.
    known: Vec<String>,
    /// How many garbage tokens are sent in each step, and how many were.
    garbage: (u64, u64),
    /// Calls a second, and at once, of all instances together.
    budget: Option<(f64, u32)>,
    /// How many calls there were before.
    calls_before: Option<u64>,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// A visitor, by number.
    Visitor(usize),
    Known,
    Garbage,
}

impl Crowd {
    pub fn new() -> Self {
        Self {
            visitors: Vec::new(),
            moments: Vec::new(),
            due: BTreeMap::new(),
            under_way: JoinSet::new(),
            now: Duration::ZERO,
            known: Vec::new(),
            garbage: (0, 0),
            budget: None,
            calls_before: None,
        }
    }

    /// All instances together have this budget. Otherwise it is the one that is configured.
    pub fn of_a_fleet(rate: f64, burst: u32) -> Self {
        Self { budget: Some((rate, burst)), ..Self::new() }
    }

    /// So many garbage tokens are sent a second, each once.
    pub fn in_a_flood_of(mut self, a_second: u64) -> Self {
        self.garbage.0 = a_second / (1_000 / u64::try_from(STEP.as_millis()).unwrap());
        self
    }

    /// One of these users asks in each step, and is served from what is fresh.
    pub fn beside(mut self, known: Vec<String>) -> Self {
        self.known = known;
        self
    }

    /// These users come evenly between two times.
    pub fn comes(mut self, tokens: Vec<String>, from: Duration, to: Duration) -> Self {
        let gap = (to - from) / u32::try_from(tokens.len()).unwrap();
        for (token, place) in tokens.into_iter().zip(0..) {
            let came = from + gap * place;
            self.due.entry(came).or_default().push(self.visitors.len());
            self.visitors.push(Visitor { token, came, let_in: None, told: Vec::new() });
        }
        self
    }

    /// Lets time pass until everybody is in.
    pub async fn come_in(self, stage: &mut Stage) -> Self {
        let crowd = self.come_until(Duration::from_secs(3_600), stage).await;
        assert_eq!(crowd.let_in(), crowd.visitors.len(), "in after an hour, and all");
        crowd
    }

    /// Lets time pass until everybody is in, or it is this time. After each step no more calls were made than
    /// the budget has.
    pub async fn come_until(mut self, end: Duration, stage: &mut Stage) -> Self {
        let configured = stage.service.instance().settings.guard.budget.clone();
        let (rate, burst) = *self.budget.get_or_insert((configured.rate, configured.burst));
        let calls_before = *self.calls_before.get_or_insert_with(|| stage.calls());
        while self.now <= end && self.visitors.iter().any(|visitor| visitor.let_in.is_none()) {
            self.ask_what_is_due(stage);
            self.settle(stage).await;
            let calls = stage.calls() - calls_before;
            let most = f64::from(burst) + rate * self.now.as_secs_f64();
            assert!(calls as f64 <= most, "{calls} calls in {:?}, where the budget has {most}", self.now);
            let sent_away = self.visitors.iter().map(|visitor| visitor.told.len()).sum();
            let (time, let_in, waiting) = (self.now, self.let_in(), stage.waiting());
            self.moments.push(Moment { time, let_in, sent_away, calls });
            self.now += STEP;
            stage.advance_by(STEP);
            for _ in 0..=waiting {
                tokio::task::yield_now().await;
            }
        }
        self
    }

    /// Users ask in the middle of the garbage.
    fn ask_what_is_due(&mut self, stage: &Stage) {
        let (a_step, sent) = self.garbage;
        let garbage: Vec<_> = (sent..sent + a_step).map(|number| format!("garbage-{number}")).collect();
        self.garbage.1 += a_step;
        let (before, after) = garbage.split_at(garbage.len() / 2);
        before.iter().for_each(|token| self.ask(Who::Garbage, token, stage));
        let later = self.due.split_off(&(self.now + Duration::from_nanos(1)));
        for number in std::mem::replace(&mut self.due, later).into_values().flatten() {
            self.ask(Who::Visitor(number), &self.visitors[number].token.clone(), stage);
        }
        if let Some(token) = self.known.pop() {
            self.ask(Who::Known, &token, stage);
            self.known.insert(0, token);
        }
        after.iter().for_each(|token| self.ask(Who::Garbage, token, stage));
    }

    fn ask(&mut self, who: Who, token: &str, stage: &Stage) {
        let (request, asked) = (stage.request(token), self.now);
        self.under_way.spawn(async move { (who, asked, request.await.0) });
    }

    /// Waits until all that are under way wait for their turn, and takes the answers of the others.
    async fn settle(&mut self, stage: &mut Stage) {
        let settled = async {
            loop {
                while let Some(answered) = self.under_way.try_join_next() {
                    let (who, asked, reply) = answered.unwrap();
                    self.answered(stage, who, asked, reply);
                }
                // Instances of a fleet have heard of each other's shares.
                let shared: f64 = stage.guards().iter().map(|guard| guard.budget.rate).sum();
                if self.under_way.len() == stage.waiting()
                    && self.budget.is_none_or(|(rate, _)| shared <= 1.001 * rate)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.unwrap();
    }

    fn answered(&mut self, stage: &mut Stage, who: Who, asked: Duration, reply: Reply) {
        match (who, reply.status) {
            (Who::Garbage, 401 | 503) => {}
            (Who::Known, 200) => assert_eq!((reply.is_of_tier("primary"), asked), (true, self.now)),
            (Who::Visitor(number), 200) => self.visitors[number].let_in = Some(self.now),
            (Who::Visitor(number), 503) => {
                let seconds = reply.header("retry-after")[0].parse().unwrap();
                self.visitors[number].told.push(seconds);
                self.due.entry(self.now + Duration::from_secs(seconds)).or_default().push(number);
            }
            (who, status) => panic!("{status} for {who:?}"),
        }
        stage.told(vec![(reply, self.now - asked)]);
    }

    pub fn let_in(&self) -> usize {
        self.visitors.iter().filter(|visitor| visitor.let_in.is_some()).count()
    }

    /// How often the unluckiest was sent away.
    pub fn most_often_sent_away(&self) -> usize {
        self.visitors.iter().map(|visitor| visitor.told.len()).max().unwrap()
    }

    /// How many 503 there were.
    pub fn sent_away(&self) -> usize {
        self.visitors.iter().map(|visitor| visitor.told.len()).sum()
    }

    /// When this share of all was let in.
    pub fn in_by(&self, share: f64) -> Duration {
        let wanted = (share * self.visitors.len() as f64).ceil() as usize;
        self.moments.iter().find(|moment| moment.let_in >= wanted).unwrap().time
    }

    /// A value over time, in seconds: one for each second.
    pub fn curve(&self, value: impl Fn(&Moment) -> f64) -> Vec<(f64, f64)> {
        self.seconds().map(|moment| (moment.time.as_secs_f64(), value(moment))).collect()
    }

    /// By how much a count grew in each second.
    pub fn per_second(&self, count: impl Fn(&Moment) -> u64) -> Vec<(f64, f64)> {
        let counts: Vec<u64> = self.seconds().map(count).collect();
        let grown = counts.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        (0..).zip(grown).map(|(second, grown)| (f64::from(second) + 0.5, grown)).collect()
    }

    /// For those who came in each second: the longest time until one of them was let in.
    pub fn longest_way_in(&self) -> Vec<(f64, f64)> {
        let mut longest = BTreeMap::<u64, f64>::new();
        for visitor in &self.visitors {
            let way = visitor.way_in().as_secs_f64();
            let known = longest.entry(visitor.came.as_secs()).or_default();
            *known = known.max(way);
        }
        longest.into_iter().map(|(second, way)| (second as f64 + 0.5, way)).collect()
    }

    fn seconds(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter().filter(|moment| moment.time.subsec_nanos() == 0)
    }
}
