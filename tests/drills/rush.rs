//! Many new users, and a tenant that enforces the limit of its plan: nobody makes it say 429, and nobody is
//! sent away while the plan has room.

use std::time::Duration;

use holdfast_devtenant::{Options, RateLimit, Tenant};

use crate::crowd::{Crowd, Visitor};
use crate::drill::{Stage, Tally};
use crate::picture::{Curve, Panel, Picture, Tone};
use crate::support::{Holdfast, until};

/// What Auth0's plans allow the tenant: "Essentials" and "Professional", and the free one.
const ESSENTIALS: RateLimit = RateLimit::new(25, 25.0);
const FREE: RateLimit = RateLimit::new(300, 5.0);

const SECOND: Duration = Duration::from_secs(1);

/// What kind of tokens users come with.
#[derive(Clone, Copy, PartialEq)]
enum Tokens {
    Opaque,
    SignedWithoutEmail,
}

impl Tokens {
    fn of(self, stage: &Stage, count: usize) -> Vec<String> {
        match self {
            Self::Opaque => (0..count).map(|_| stage.tenant.mint().opaque().build().unwrap()).collect(),
            Self::SignedWithoutEmail => stage.users("new", count),
        }
    }
}

/// New users come evenly within a time to a tenant with this limit, and all are let in.
async fn rush(
    drill: &'static str,
    (tokens, count): (Tokens, usize),
    within: Duration,
    limit: RateLimit,
    budget: &str,
) -> Crowd {
    let mut stage = Stage::set_waiting(drill, &format!("[budget]\n{budget}\n")).await;
    stage.tenant.set_userinfo_limit(Some(limit));
    let tokens = tokens.of(&stage, count);
    let crowd = Crowd::new().comes(tokens, Duration::ZERO, within).come_in(&mut stage).await;
    assert_eq!((stage.calls(), stage.answered(429)), (count as u64, 0), "one call for each user, and no 429");
    stage.row();
    crowd
}

/// 20 a second, which is what this plan lets in.
#[tokio::test]
async fn a_rush_that_the_plan_has_room_for_sends_nobody_away() {
    for (drill, tokens) in [
        ("2,000 new users in 100 s: opaque", Tokens::Opaque),
        ("2,000 new users in 100 s: JWS without email", Tokens::SignedWithoutEmail),
    ] {
        let crowd = rush(drill, (tokens, 2_000), 100 * SECOND, ESSENTIALS, "plan = \"essentials\"").await;
        assert_eq!(crowd.sent_away(), 0);
    }
}

/// 33 a second, where this plan lets 20 in.
#[tokio::test]
async fn a_rush_beyond_the_plan_is_let_in_as_fast_as_the_plan_allows() {
    for (drill, tokens) in [
        ("2,000 new users in 60 s: opaque", Tokens::Opaque),
        ("2,000 new users in 60 s: JWS without email", Tokens::SignedWithoutEmail),
    ] {
        let crowd = rush(drill, (tokens, 2_000), 60 * SECOND, ESSENTIALS, "plan = \"essentials\"").await;
        let whole = crowd.in_by(1.0);
        assert!(whole <= 110 * SECOND, "all were let in after {whole:?}, where the plan allows it in 100 s");
        // They are let in in the order in which they came: the last comes after 60 s, and waits for 40.
        let longest = crowd.visitors.iter().map(Visitor::way_in).max().unwrap();
        assert!(longest <= 50 * SECOND, "somebody was let in after {longest:?}");
        let often = crowd.most_often_sent_away();
        assert!(often <= 2, "somebody was sent away {often} times");
    }
}

/// A wait is longer than a call that nobody waits for is given.
#[tokio::test]
async fn a_call_waits_for_as_long_as_is_configured() {
    let budget = "[budget]\nrate = 0.05\nburst = 1\nwait = \"30s\"\n";
    let mut stage = Stage::set_waiting("a wait of 20 s", budget).await;
    let users = stage.users("new", 2);
    assert_eq!(stage.ask(&users[0]).await.status, 200);
    let waits = stage.asking(&users[1..]);
    until("the second waits", async || (stage.userinfo().waiting == 1).then_some(())).await;
    // The machine's time passes, by which calls are given up.
    tokio::time::pause();
    tokio::time::advance(12 * SECOND).await;
    tokio::time::resume();
    stage.advance(20);
    let replies = stage.told(waits.join_all().await);
    assert_eq!(replies.statuses(), [200]);
    stage.row();
}

#[tokio::test]
async fn after_an_import_a_rush_costs_no_call() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"data\"\n\
         [[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\nalgorithms = [\"ES256\"]\n",
        tenant.issuer(),
        tenant.audience()
    );
    let subject = |number| format!("auth0|imported-{number}");
    let export: String = (0..2_000)
        .map(|number| format!("{{\"user_id\":\"{}\",\"email\":\"{number}@example.com\"}}\n", subject(number)))
        .collect();
    std::fs::write(directory.path().join("export.ndjson"), export).unwrap();
    std::fs::write(directory.path().join("holdfast.toml"), &config).unwrap();
    let imported = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["import", "--config", "holdfast.toml", "--profiles", "export.ndjson"])
        .current_dir(directory.path())
        .output()
        .await
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));

    let holdfast = Holdfast::start(directory.path(), &config, 1).await.ready().await;
    let mut tally = Tally::of("2,000 users after an import: JWS without email");
    for number in 0..2_000 {
        let token = tenant.mint().algorithm("ES256").subject(subject(number)).build().unwrap();
        let began = std::time::Instant::now();
        let reply = holdfast.ask(&token).await;
        tally.count(reply.status, began.elapsed());
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(tenant.calls().userinfo, 0);
    tally.row(0);
}

#[tokio::test]
#[ignore = "the same rush twice, for a picture: `make drills`"]
async fn waiting_for_ones_turn_spares_users_the_503() {
    let people = (Tokens::Opaque, 2_000);
    let plan = "plan = \"essentials\"";
    let waiting = rush("2,000 new users in 60 s", people, 60 * SECOND, ESSENTIALS, plan).await;
    let plan = "plan = \"essentials\"\nwait = \"0s\"";
    let refused = rush("the same, refused at once", people, 60 * SECOND, ESSENTIALS, plan).await;
    assert!(
        10 * waiting.sent_away() < refused.sent_away(),
        "{} and {} were sent away",
        waiting.sent_away(),
        refused.sent_away()
    );
    let curves = |points: fn(&Crowd) -> Vec<(f64, f64)>| -> Vec<Curve> {
        [("calls wait for their turn", Tone::Holdfast, &waiting), ("wait = \"0s\"", Tone::Without, &refused)]
            .map(|(name, tone, crowd)| Curve { name, tone, points: points(crowd) })
            .into()
    };
    let mut calls = curves(|crowd| crowd.per_second(|moment| moment.calls));
    let limit = vec![(0.0, 25.0), (waiting.in_by(1.0).as_secs_f64(), 25.0)];
    calls.push(Curve { name: "the tenant's limit in the long run", tone: Tone::Limit, points: limit });
    Picture {
        description: "2,000 new users within a minute, where the plan lets in 20 a second: answers 503, time \
                      until users are let in, and calls to Auth0",
        unit: "seconds",
        bands: vec![(0.0, 60.0, "2,000 new users come")],
        panels: vec![
            Panel {
                title: "Answers 503 so far",
                curves: curves(|crowd| crowd.curve(|moment| moment.sent_away as f64)),
            },
            Panel {
                title: "Longest time until in, in seconds, of those who come in a second",
                curves: curves(Crowd::longest_way_in),
            },
            Panel { title: "Calls to Auth0 a second", curves: calls },
        ],
    }
    .write("rush");
}

/// Nothing is known of anybody: no disk, no Redis, no memory.
#[tokio::test]
#[ignore = "ten minutes of the held clock: for `make drills`"]
async fn a_cold_start_lets_everybody_in_as_fast_as_the_free_plan_allows() {
    let mut rows = Vec::new();
    let mut crowds = Vec::new();
    for (name, tokens, budget) in [
        ("opaque, plan free", Tokens::Opaque, "plan = \"free\""),
        ("JWS without email, plan free", Tokens::SignedWithoutEmail, "plan = \"free\""),
        ("opaque, no plan set", Tokens::Opaque, ""),
    ] {
        let crowd = rush("cold start, 1,000 active users", (tokens, 1_000), 10 * SECOND, FREE, budget).await;
        let whole = crowd.in_by(1.0);
        assert!(whole <= 280 * SECOND, "{name}: all are in after {whole:?}");
        let [half, most, all] = [0.5, 0.95, 1.0].map(|share| crowd.in_by(share).as_secs());
        let away = crowd.visitors.iter().filter(|visitor| !visitor.told.is_empty()).count();
        let often = crowd.most_often_sent_away();
        assert!(often <= 2, "{name}: somebody was sent away {often} times");
        let mut told: Vec<u64> = crowd.visitors.iter().flat_map(|visitor| visitor.told.clone()).collect();
        told.sort_unstable();
        rows.push(format!(
            "| {name} | {half} s | {most} s | {all} s | {away}, at most {often} times each | \
             {} to {} s, median {} s |",
            told[0],
            told[told.len() - 1],
            told[told.len() / 2]
        ));
        crowds.push(crowd);
    }
    println!(
        "| cold start, 1,000 users within 10 s | 50 % in | 95 % in | all in | who got a 503 | `Retry-After` |"
    );
    println!("|---|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    let curve =
        |name, tone, crowd: &Crowd| Curve { name, tone, points: crowd.curve(|moment| moment.let_in as f64) };
    Picture {
        description: "1,000 active users after a cold start, free plan: users let in over time",
        unit: "seconds",
        bands: vec![],
        panels: vec![Panel {
            title: "Users let in after a cold start, free plan",
            curves: vec![
                curve("plan = \"free\"", Tone::Holdfast, &crowds[0]),
                curve("no plan set", Tone::Without, &crowds[2]),
            ],
        }],
    }
    .write("cold-start");
}
