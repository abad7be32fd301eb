//! The machine's clock jumps, forward and back, by an hour and by a year.

use holdfast::clock::Timestamp;
use holdfast_devtenant::User;

use crate::drill::{DAY, HOUR, START, Stage};

const YEAR: u64 = 365 * DAY;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_locks_nobody_out_and_makes_nothing_old_look_new() {
    let mut stage = Stage::set("clock jumps").await;
    // Tokens that are good at every time that the clock may show, so that only what is remembered is put to
    // the test.
    let (past, life) = (i64::try_from(2 * YEAR).unwrap(), i64::try_from(2 * YEAR).unwrap());
    let mint = |subject: &str| stage.tenant.mint().algorithm("ES256").subject(subject).expires_in(life);
    let signed: Vec<String> = (0..5)
        .map(|number| {
            let subject = format!("auth0|user-{number}");
            stage.tenant.add_user(User::new(&subject).email(format!("user-{number}@example.com")));
            mint(&subject).issued_ago(past).build().unwrap()
        })
        .collect();
    let opaque: Vec<String> = (0..5).map(|_| mint("auth0|alice").opaque().build().unwrap()).collect();

    // The clock that is wrong is holdfast's; the time that passes meanwhile is the same for all.
    let jump_to = |stage: &Stage, wall: u64| {
        stage.advance(301);
        stage.tenant.set_time(Some(START));
        stage.clock.set_wall(Timestamp::from_secs(wall));
    };
    let everybody = [signed.clone(), opaque.clone()].concat();
    for wall in [START, START + HOUR, START - HOUR, START + YEAR, START - YEAR, START] {
        jump_to(&stage, wall);
        stage.forget_calls();
        assert_eq!(stage.ask_all(&everybody).await.of_tier("primary"), 10, "at {wall}");
        assert!(stage.calls() <= 10, "at {wall}: {} calls", stage.calls());
    }

    // What is old, and what is from the future, is not called fresh; and an outage adds nothing to what may
    // be served.
    stage.tenant.go_down().await;
    for (wall, of_signed, of_opaque) in [
        (START + HOUR, Some("primary"), Some("primary")),
        (START - HOUR, Some("ultimate-fallback"), Some("emergency")),
        (START + HOUR, Some("primary"), Some("primary")),
        (START + YEAR - DAY, Some("ultimate-fallback"), None),
        (START + YEAR + DAY, None, None),
        (START - YEAR + DAY, Some("ultimate-fallback"), None),
        (START - YEAR - DAY, None, None),
        (START + HOUR, Some("primary"), Some("primary")),
    ] {
        jump_to(&stage, wall);
        for (tokens, tier) in [(&signed, of_signed), (&opaque, of_opaque)] {
            let replies = stage.ask_all(tokens).await;
            match tier {
                Some(tier) => assert_eq!(replies.of_tier(tier), 5, "at {wall}: {replies:?}"),
                None => assert_eq!(replies.count(503), 5, "at {wall}: {replies:?}"),
            }
        }
    }
    stage.tenant.come_back().await.unwrap();
    jump_to(&stage, START + 2 * HOUR);
    assert_eq!(stage.ask_all(&everybody).await.of_tier("primary"), 10);
    stage.row();
}
