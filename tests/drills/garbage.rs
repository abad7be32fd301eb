//! A flood of garbage that looks like opaque tokens, beside new users who are honest: with opaque tokens,
//! which only Auth0 can tell from the garbage, and with signed ones.

use std::time::Duration;

use holdfast::guard::first_seen::Trust;

use crate::crowd::{Crowd, STEP};
use crate::drill::Stage;

/// How long a call waits for its turn by default.
const WAIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn honest_new_users_get_in_through_a_flood_of_500_a_second() {
    flood("garbage: 500/s for 20 s, beside new users", 500, 20).await;
}

#[tokio::test]
#[ignore = "300,000 requests: for `make drills`"]
async fn honest_new_users_get_in_through_a_flood_of_5000_a_second() {
    flood("garbage: 5,000/s for 60 s, beside new users", 5_000, 60).await;
}

/// Ten users of each kind come a minute. One of those who are known asks in each step.
async fn flood(drill: &'static str, a_second: u64, seconds: u32) {
    let mut stage = Stage::set_waiting(drill, "").await;
    let known = stage.known_users("known", 20).await;
    stage.advance(60);
    stage.forget_calls();
    let end = Duration::from_secs(1) * seconds;
    let count = usize::try_from(seconds / 6).unwrap();
    let opaque = (0..count).map(|_| stage.tenant.mint().opaque().build().unwrap()).collect();
    let signed = stage.users("new", count);
    let crowd = Crowd::new()
        .beside(known)
        .in_a_flood_of(a_second)
        .comes(opaque, Duration::from_secs(1), end)
        .comes(signed, Duration::from_secs(1), end)
        .come_until(end + 10 * WAIT, &mut stage)
        .await;
    let (opaque, signed) = crowd.visitors.split_at(count);
    let mut ways: Vec<Duration> = opaque.iter().map(|visitor| visitor.way_in()).collect();
    ways.sort_unstable();
    let p95 = ways[(95 * ways.len()).div_ceil(100) - 1];
    assert!(p95 <= 2 * WAIT, "{ways:?}");
    for visitor in signed {
        assert!(visitor.told.is_empty() && visitor.way_in() <= WAIT + STEP, "{visitor:?}");
    }
    assert_eq!(stage.userinfo().trust, Trust::NONE);
    assert!(!stage.userinfo_is_open());
    stage.row();
    println!("  honest new users with opaque tokens were in after {:?} at the 95th percentile", p95);
}
