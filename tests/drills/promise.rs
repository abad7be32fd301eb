//! The promise, played for eight hours: the same users, the same storm and the same outage, once with
//! holdfast, once with a verifier that asks Auth0 about each request.

use std::iter;
use std::time::{Duration, Instant};

use holdfast_devtenant::{Endpoint, Fault, RateLimit, Tenant};
use tokio::net::TcpStream;

use crate::drill::{HOUR, Stage};
use crate::picture::{Curve, Panel, Picture, Tone};
use crate::support::{Reply, exchange};

/// Seconds: how far the clock moves between two waves of users, and how often each of them asks.
const STEP: u64 = 30;
const PERIOD: u64 = 600;
const END: u64 = 8 * HOUR;

/// Other programs of the tenant leave this much of its limit.
const STORM: std::ops::Range<u64> = HOUR..5 * HOUR / 2;
const LEFT: RateLimit = RateLimit::new(5, 0.1);
/// The free plan.
const PLAN: RateLimit = RateLimit::new(300, 5.0);
/// Auth0 answers 503.
const OUTAGE: std::ops::Range<u64> = 7 * HOUR / 2..15 * HOUR / 2;

#[derive(Clone, Copy, PartialEq)]
enum Verifier {
    Holdfast,
    /// Asks `/userinfo` about each request and keeps nothing.
    Plain,
}

/// What happened in one [`PERIOD`].
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    asked: u64,
    /// Those of users who came before the outage.
    known: u64,
    served: u64,
    calls: u64,
}

#[tokio::test]
#[ignore = "more than forty thousand calls and requests: for `make drills`"]
async fn users_are_served_through_a_storm_and_an_outage() {
    let holdfast = eight_hours("eight hours with holdfast", Verifier::Holdfast).await;
    let plain = eight_hours("eight hours, each request asks Auth0", Verifier::Plain).await;
    for (period, tally) in (0..).zip(&holdfast) {
        // In the outage, who was there before it is served; else everybody is. After it, new users are
        // let in at the breaker's next probe.
        let is_normal = !(OUTAGE.start..OUTAGE.end + PERIOD).contains(&(period * PERIOD));
        assert!(!is_normal || tally.served == tally.asked, "{tally:?} after {period} times ten minutes");
        assert!(tally.served >= tally.known, "{tally:?} after {period} times ten minutes");
    }
    let sum = |tallies: &[Tally], value: fn(&Tally) -> u64| tallies.iter().map(value).sum::<u64>();
    assert!(sum(&plain, |tally| tally.served) < sum(&plain, |tally| tally.asked) / 2);
    assert_eq!(sum(&plain, |tally| tally.calls), sum(&plain, |tally| tally.asked));
    assert!(sum(&holdfast, |tally| tally.calls) < sum(&plain, |tally| tally.calls) / 10);
    let curves = |value: fn(&Tally) -> f64| {
        [("holdfast", Tone::Holdfast, &holdfast), ("asks Auth0 about each request", Tone::Without, &plain)]
            .map(|(name, tone, tallies)| {
                let points = iter::zip(0.., tallies)
                    .map(|(period, tally)| ((f64::from(period) + 0.5) / 6.0, value(tally)));
                Curve { name, tone, points: points.collect() }
            })
            .into()
    };
    let hours = |range: std::ops::Range<u64>, name| {
        (range.start as f64 / HOUR as f64, range.end as f64 / HOUR as f64, name)
    };
    Picture {
        description: "Requests served and calls to Auth0 over eight hours, with holdfast and with a verifier \
                      that asks Auth0 about each request",
        unit: "hours",
        bands: vec![hours(STORM, "rate-limit storm"), hours(OUTAGE, "Auth0 is down")],
        panels: vec![
            Panel {
                title: "Requests that are served, in %",
                curves: curves(|tally| 100.0 * tally.served as f64 / tally.asked as f64),
            },
            Panel {
                title: "Calls to Auth0 a minute",
                curves: curves(|tally| tally.calls as f64 * 60.0 / PERIOD as f64),
            },
        ],
    }
    .write("promise");
}

/// 200 users, and one more every ten minutes; each asks every ten minutes.
async fn eight_hours(drill: &'static str, verifier: Verifier) -> Vec<Tally> {
    let mut stage = Stage::set(drill).await;
    stage.tenant.set_userinfo_limit(Some(PLAN));
    let newcomers = usize::try_from(END / PERIOD).unwrap();
    let users = [users(&stage, "user", 200), users(&stage, "new", newcomers)].concat();
    let waves = usize::try_from(PERIOD / STEP).unwrap();
    let mut tallies = vec![Tally::default(); newcomers];
    for time in (0..END).step_by(usize::try_from(STEP).unwrap()) {
        match time {
            _ if time == STORM.start => stage.tenant.set_userinfo_limit(Some(LEFT)),
            _ if time == STORM.end => stage.tenant.set_userinfo_limit(Some(PLAN)),
            _ if time == OUTAGE.start => stage.tenant.set_fault(Endpoint::Userinfo, Fault::Status(503)),
            _ if time == OUTAGE.end => stage.tenant.clear_faults(),
            _ => {}
        }
        let period = usize::try_from(time / PERIOD).unwrap();
        let wave = usize::try_from(time / STEP).unwrap() % waves;
        let before = stage.calls();
        let tally = &mut tallies[period];
        for (number, user) in users[..200 + period].iter().enumerate().skip(wave).step_by(waves) {
            let status = match verifier {
                Verifier::Holdfast => stage.ask(user).await.status,
                Verifier::Plain => {
                    let answered = plain(&stage.tenant, user).await;
                    stage.told(vec![answered]).0[0].status
                }
            };
            tally.asked += 1;
            tally.known += u64::from(number + 1 < 200 + usize::try_from(OUTAGE.start / PERIOD).unwrap());
            tally.served += u64::from(status == 200);
        }
        tally.calls += stage.calls() - before;
        stage.advance(STEP);
    }
    stage.row();
    tallies
}

/// Half of them have opaque tokens, half have signed ones without an email.
fn users(stage: &Stage, name: &str, count: usize) -> Vec<String> {
    let signed = stage.users(name, count);
    let each = signed.into_iter().enumerate().map(|(number, token)| match number % 2 {
        0 => token,
        _ => stage.tenant.mint().opaque().expires_in(24 * 3_600).build().unwrap(),
    });
    each.collect()
}

/// The answer of the plain verifier to one request, and how long it took: what Auth0 says, or 503.
async fn plain(tenant: &Tenant, token: &str) -> (Reply, Duration) {
    let began = Instant::now();
    let stream = TcpStream::connect(tenant.address()).await.unwrap();
    let request = format!(
        "GET /userinfo HTTP/1.1\r\nHost: tenant\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let mut reply = exchange(stream, request.as_bytes()).await;
    if ![200, 401].contains(&reply.status) {
        reply.status = 503;
    }
    (reply, began.elapsed())
}
