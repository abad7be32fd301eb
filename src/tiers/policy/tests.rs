//! Boundaries by table, rules by property.

use proptest::prelude::*;

use super::super::table::Tier;
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const KINDS: [RecordKind; 3] = [RecordKind::ForeignVerdict, RecordKind::Profile, RecordKind::Keys];
const ANSWERS: [IssuerAnswer; 3] = [IssuerAnswer::Yes, IssuerAnswer::No, IssuerAnswer::CannotTell];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn known(kind: RecordKind, verified_at: Timestamp) -> Known {
    Known { kind, verified_at, not_after: None }
}

/// What is answered while the issuer cannot tell, in words: tier, and whether the issuer was asked first.
fn in_an_outage(policy: &Policy, known: &Known, now: Timestamp) -> String {
    let name = |tier| policy.table().row(tier).unwrap().name.as_str();
    let plan = policy.before_asking(known, now, Some(Timestamp::EPOCH));
    match (plan, plan.after_asking(IssuerAnswer::CannotTell)) {
        (Plan::Serve(tier), _) => format!("serve {}", name(tier)),
        (Plan::ServeAndRevalidate(tier), _) => format!("serve {}, revalidate", name(tier)),
        (_, Served::Stale(tier)) => format!("ask, then {}", name(tier)),
        (_, Served::CannotTell) => "ask, then cannot tell".to_owned(),
        (_, served) => format!("{served:?}"),
    }
}

#[test]
fn one_identity_goes_through_all_seven_tiers_one_second_before_and_after_each_boundary() {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    let policy = Policy::default();
    let nothing = "ask, then cannot tell";
    // (boundary, profile before, profile after, foreign verdict before, foreign verdict after)
    let boundaries = [
        (
            4 * HOUR,
            "serve primary",
            "serve secondary, revalidate",
            "serve primary",
            "serve secondary, revalidate",
        ),
        (
            12 * HOUR,
            "serve secondary, revalidate",
            "ask, then emergency",
            "serve secondary, revalidate",
            "ask, then emergency",
        ),
        (48 * HOUR, "ask, then emergency", "ask, then ultra-backup", "ask, then emergency", nothing),
        (14 * DAY, "ask, then ultra-backup", "ask, then disaster-recovery", nothing, nothing),
        (60 * DAY, "ask, then disaster-recovery", "ask, then last-resort", nothing, nothing),
        (180 * DAY, "ask, then last-resort", "ask, then ultimate-fallback", nothing, nothing),
        (365 * DAY, "ask, then ultimate-fallback", nothing, nothing, nothing),
    ];
    for (boundary, profile_before, profile_after, verdict_before, verdict_after) in boundaries {
        let cases = [
            (RecordKind::Profile, boundary - 1, profile_before),
            (RecordKind::Profile, boundary, profile_before),
            (RecordKind::Profile, boundary + 1, profile_after),
            (RecordKind::Keys, boundary - 1, profile_before),
            (RecordKind::Keys, boundary + 1, profile_after),
            (RecordKind::ForeignVerdict, boundary - 1, verdict_before),
            (RecordKind::ForeignVerdict, boundary, verdict_before),
            (RecordKind::ForeignVerdict, boundary + 1, verdict_after),
        ];
        for (kind, age, expected) in cases {
            let record = known(kind, NOW);
            assert_eq!(in_an_outage(&policy, &record, NOW.after(secs(age))), expected, "{kind:?} at {age} s");
        }
    }
}

#[test]
fn a_raised_ceiling_lets_foreign_verdicts_reach_the_last_tier() {
    let table = TierTable::default();
    let limits = Limits { verdict_ceiling: table.oldest(), ..Policy::default().limits };
    let policy = Policy::new(table, limits).unwrap();
    let record = known(RecordKind::ForeignVerdict, NOW);
    let year = 365 * 24 * 3600;
    assert_eq!(in_an_outage(&policy, &record, NOW.after(secs(year))), "ask, then ultimate-fallback");
    assert_eq!(in_an_outage(&policy, &record, NOW.after(secs(year + 1))), "ask, then cannot tell");
}

#[test]
fn a_ceiling_outside_the_table_is_refused() {
    let row = Tier { name: "only".to_owned(), age: secs(1), role: Role::Fresh };
    let table = TierTable::new(vec![row]).unwrap();
    assert_eq!(Policy::new(table, Policy::default().limits), Err(CeilingOutsideTable));
}

#[test]
fn a_token_is_refused_from_exp_plus_leeway_on_and_a_foreign_one_from_exp_on_whatever_is_known_of_it() {
    let policy = Policy::default();
    let exp = NOW.after(secs(100));
    for kind in KINDS {
        let record = Known { not_after: Some(exp), ..known(kind, NOW) };
        let end = exp.after(if kind == RecordKind::ForeignVerdict { secs(0) } else { secs(30) });
        let last = end.before(Duration::from_millis(1));
        assert_eq!(policy.before_asking(&record, last, None), Plan::Serve(TierIndex::YOUNGEST));
        for breaker in [None, Some(NOW)] {
            assert_eq!(policy.before_asking(&record, end, breaker), Plan::Refuse);
        }
    }
}

#[test]
fn grace_is_only_for_a_token_that_expired_while_the_breaker_was_open_and_the_issuer_is_still_asked() {
    let mut policy = Policy::default();
    policy.limits.expired_grace = secs(600);
    let exp = NOW.after(secs(100));
    let record = Known { not_after: Some(exp), ..known(RecordKind::Profile, NOW) };
    let at = |after_exp, breaker| policy.before_asking(&record, exp.after(secs(after_exp)), breaker);
    let in_grace = Plan::Ask { stale: Some(TierIndex::YOUNGEST) };
    assert_eq!(at(29, None), Plan::Serve(TierIndex::YOUNGEST));
    assert_eq!(at(30, None), Plan::Refuse);
    assert_eq!(at(30, Some(exp.after(secs(1)))), Plan::Refuse);
    assert_eq!(at(30, Some(exp)), in_grace);
    assert_eq!(at(629, Some(NOW)), in_grace);
    assert_eq!(at(630, Some(NOW)), Plan::Refuse);
    assert_eq!(in_grace.after_asking(IssuerAnswer::No), Served::Refuse);
}

#[test]
fn a_clock_set_back_by_an_hour_or_a_year_asks_first_and_falls_back_to_the_oldest_permitted_tier() {
    let policy = Policy::default();
    let (minutes, hour, year) = (secs(300), secs(3600), secs(364 * 24 * 3600));
    let back = |kind, by| in_an_outage(&policy, &known(kind, NOW), NOW.before(by));
    assert_eq!(back(RecordKind::Profile, minutes), "serve primary");
    assert_eq!(back(RecordKind::Profile, minutes + Duration::from_millis(1)), "ask, then ultimate-fallback");
    assert_eq!(back(RecordKind::Profile, year), "ask, then ultimate-fallback");
    assert_eq!(back(RecordKind::Profile, secs(366 * 24 * 3600)), "ask, then cannot tell");
    assert_eq!(back(RecordKind::ForeignVerdict, hour), "ask, then emergency");
    assert_eq!(back(RecordKind::ForeignVerdict, year), "ask, then cannot tell");
}

#[test]
fn without_a_tier_for_outages_a_record_from_the_future_is_not_served_stale() {
    let row = Tier { name: "only".to_owned(), age: secs(3600), role: Role::Fresh };
    let limits = Limits { verdict_ceiling: TierIndex::YOUNGEST, ..Policy::default().limits };
    let policy = Policy::new(TierTable::new(vec![row]).unwrap(), limits).unwrap();
    let record = known(RecordKind::Profile, NOW);
    assert_eq!(policy.before_asking(&record, NOW.before(secs(301)), None), Plan::NOTHING_KNOWN);
}

#[test]
fn an_answer_is_given_out_unseen_as_long_as_its_row_is_fresh_and_else_for_a_moment() {
    let row = |name: &str, age, role| Tier { name: name.to_owned(), age: secs(age), role };
    let only = |role| {
        let limits = Limits { verdict_ceiling: TierIndex::YOUNGEST, ..Policy::default().limits };
        Policy::new(TierTable::new(vec![row("only", 3600, role)]).unwrap(), limits).unwrap()
    };
    let at = |policy: &Policy, now, no_use_asking: Option<u64>| {
        policy
            .unseen_until(TierIndex::YOUNGEST, NOW, NOW.after(secs(now)), no_use_asking.map(secs))
            .since(NOW)
    };
    for (role, just_asked, at_its_end) in
        [(Role::Fresh, 3600, 3600), (Role::Revalidate, 10, 3600), (Role::Outage, 10, 3600)]
    {
        let policy = only(role);
        assert_eq!(at(&policy, 0, None), secs(just_asked), "{role}");
        assert_eq!(at(&policy, 3595, None), secs(at_its_end), "{role}");
        // The issuer could not tell: look again soon, or as soon as asking is of use.
        assert_eq!(at(&policy, 0, Some(1)), secs(10), "{role}");
        assert_eq!(at(&policy, 0, Some(300)), secs(300), "{role}");
        assert_eq!(at(&policy, 3595, Some(300)), secs(3600), "{role}");
    }
    let of_a_longer_table = TierTable::default().oldest();
    assert_eq!(only(Role::Fresh).unseen_until(of_a_longer_table, NOW, NOW, None), NOW);
}

#[test]
fn what_is_too_old_for_a_route_is_asked_about_and_then_served_as_what_it_is() {
    let policy = Policy::default();
    let [primary, secondary, emergency] =
        ["primary", "secondary", "emergency"].map(|name| policy.table().find(name));
    let plan = |age, oldest| {
        policy.before_asking(&known(RecordKind::Profile, NOW), NOW.after(secs(age)), None).within(oldest)
    };
    assert_eq!(plan(1, primary), Plan::Serve(TierIndex::YOUNGEST));
    for oldest in [None, secondary, emergency] {
        assert_eq!(plan(5 * 3600, oldest), Plan::ServeAndRevalidate(secondary.unwrap()));
    }
    assert_eq!(plan(5 * 3600, primary), Plan::Ask { stale: secondary });
    assert_eq!(plan(13 * 3600, primary), Plan::Ask { stale: emergency });
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let step = prop_oneof![1..10_u64, 1..100_000_u64, 1..40_000_000_000_u64];
    let rows = prop::collection::vec((step, 0..Role::ALL.len()), 1..12);
    let grace = prop_oneof![Just(0), 0..10_000_000_u64];
    (rows, any::<prop::sample::Index>(), 0..120_000_u64, grace).prop_map(|(rows, ceiling, leeway, grace)| {
        let mut roles: Vec<_> = rows.iter().map(|row| Role::ALL[row.1]).collect();
        roles.sort_unstable();
        let mut age = 0;
        let tiers = rows.iter().zip(roles).enumerate().map(|(row, ((step, _), role))| {
            age += step;
            Tier { name: format!("tier-{row}"), age: Duration::from_millis(age), role }
        });
        let table = TierTable::new(tiers.collect()).unwrap();
        let indices: Vec<_> = table.iter().map(|(index, _)| index).collect();
        let limits = Limits {
            verdict_ceiling: *ceiling.get(&indices),
            leeway: Duration::from_millis(leeway),
            expired_grace: Duration::from_millis(grace),
        };
        Policy::new(table, limits).unwrap()
    })
}

/// Distances of every size, so that boundaries, outages, and jumps of an hour or many years are all hit.
fn any_distance() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, 0..1_000_000_u64, 0..100_000_000_u64, 0..200_000_000_000_u64]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (any_distance(), any::<bool>()).prop_map(|(distance, ahead)| {
        let distance = Duration::from_millis(distance);
        if ahead { NOW.after(distance) } else { NOW.before(distance) }
    })
}

/// A tier that a route wants at most, also of a longer table.
fn any_wish() -> impl Strategy<Value = Option<u8>> {
    prop::option::of(0..13_u8)
}

fn any_known() -> impl Strategy<Value = Known> {
    (prop::sample::select(&KINDS[..]), any_time(), prop::option::of(any_time()))
        .prop_map(|(kind, verified_at, not_after)| Known { kind, verified_at, not_after })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_definitive_no_is_never_turned_into_a_yes(
        policy in any_policy(), known in any_known(), breaker in prop::option::of(any_time()),
        oldest in any_wish(),
    ) {
        let plan = policy.before_asking(&known, NOW, breaker).within(oldest.map(TierIndex::from_byte));
        prop_assert_eq!(plan.after_asking(IssuerAnswer::No), Served::Refuse);
    }

    #[test]
    fn a_wish_for_a_younger_answer_has_the_issuer_asked_and_admits_nothing_that_was_not_admitted_before(
        policy in any_policy(), known in any_known(), breaker in prop::option::of(any_time()),
        oldest in any_wish(),
    ) {
        let (plan, oldest) = (policy.before_asking(&known, NOW, breaker), oldest.map(TierIndex::from_byte));
        let within = plan.within(oldest);
        prop_assert_eq!(within.servable(), plan.servable());
        if let (Some(tier), Some(oldest)) = (within.serves_now(), oldest) {
            prop_assert!(tier <= oldest);
        }
        // It never prevents a call to the issuer, and never causes one for a token whose life is over.
        let asks = matches!(within, Plan::Ask { .. });
        prop_assert!(within == plan || asks);
        prop_assert_eq!(within == Plan::Refuse, plan == Plan::Refuse);
    }

    #[test]
    fn what_is_given_out_unseen_is_what_a_second_look_would_bring(
        policy in any_policy(), known in any_known(), part in 0.0..1.0,
    ) {
        let known = Known { not_after: None, ..known };
        if let Plan::Serve(tier) = policy.before_asking(&known, NOW, None) {
            let until = policy.unseen_until(tier, known.verified_at, NOW, None);
            let then = NOW.after(until.since(NOW).mul_f64(part));
            if then < until {
                let later = policy.before_asking(&known, then, None);
                prop_assert_eq!(later.servable().map(|later| later <= tier), Some(true));
                let serves = matches!(later, Plan::Serve(_));
                prop_assert!(serves);
            }
        }
    }

    #[test]
    fn what_is_given_out_unseen_is_never_older_than_its_tier_and_is_looked_at_again_soon_if_asking_may_help(
        policy in any_policy(), known in any_known(), pause in prop::option::of(0..400_u64),
    ) {
        if let Some(tier) = policy.before_asking(&known, NOW, None).servable() {
            let row = policy.table().row(tier).unwrap();
            let until = policy.unseen_until(tier, known.verified_at, NOW, pause.map(secs));
            prop_assert!(until <= known.verified_at.after(row.age));
            if pause.is_some() || row.role != Role::Fresh {
                prop_assert!(until <= NOW.after(LOOK_AGAIN.max(secs(pause.unwrap_or(0)))));
            }
        }
    }

    #[test]
    fn a_foreign_verdict_is_never_served_past_the_ceiling(
        policy in any_policy(), known in any_known(), breaker in prop::option::of(any_time()),
    ) {
        let known = Known { kind: RecordKind::ForeignVerdict, ..known };
        let plan = policy.before_asking(&known, NOW, breaker);
        let ceiling = policy.limits.verdict_ceiling;
        prop_assert!(plan.servable().is_none_or(|tier| tier <= ceiling));
        let reach = policy.table().row(ceiling).unwrap().age;
        if NOW.since(known.verified_at) > reach {
            prop_assert_eq!(plan.servable(), None);
        }
    }

    #[test]
    fn no_token_is_served_past_exp_and_leeway_unless_it_expired_while_the_breaker_was_open(
        policy in any_policy(), known in any_known(), exp in any_time(),
        breaker in prop::option::of(any_time()),
    ) {
        let known = Known { not_after: Some(exp), ..known };
        let Limits { leeway, expired_grace, .. } = match known.kind {
            RecordKind::ForeignVerdict => {
                Limits { leeway: Duration::ZERO, expired_grace: Duration::ZERO, ..policy.limits }
            }
            RecordKind::Profile | RecordKind::Keys => policy.limits,
        };
        let past = NOW >= exp.after(leeway);
        let excused = breaker.is_some_and(|since| since <= exp)
            && NOW < exp.after(leeway).after(expired_grace);
        let plan = policy.before_asking(&known, NOW, breaker);
        if past && !excused {
            for answer in ANSWERS {
                prop_assert_eq!(plan.after_asking(answer), Served::Refuse);
            }
        }
        if past {
            prop_assert_eq!(plan.serves_now(), None);
        } else {
            prop_assert_ne!(plan, Plan::Refuse);
        }
    }

    #[test]
    fn a_record_is_served_as_the_tier_of_its_age_and_by_that_tiers_role(
        policy in any_policy(), known in any_known(),
    ) {
        let known = Known { not_after: None, ..known };
        let age = NOW.since(known.verified_at);
        let plan = policy.before_asking(&known, NOW, None);
        if let (Some(tier), false) = (plan.servable(), is_from_the_future(known.verified_at, NOW)) {
            let row = policy.table().row(tier).unwrap();
            prop_assert!(age <= row.age);
            let mut admitting = policy.table().iter().filter(|(_, row)| age <= row.age);
            prop_assert!(admitting.all(|(other, _)| tier <= other));
            let role = match plan {
                Plan::Serve(_) => Role::Fresh,
                Plan::ServeAndRevalidate(_) => Role::Revalidate,
                Plan::Ask { .. } | Plan::Refuse => Role::Outage,
            };
            prop_assert_eq!(role, row.role);
        }
    }

    #[test]
    fn an_older_tier_is_never_preferred_to_a_younger_one(
        policy in any_policy(), a in any_known(), other in any_time(),
    ) {
        let [a, b] = [a, Known { verified_at: other, ..a }];
        let [plan_a, plan_b] = [a, b].map(|known| policy.before_asking(&known, NOW, None));
        prop_assert!(!(plan_a.is_better_than(plan_b) && plan_b.is_better_than(plan_a)));
        if plan_a.is_better_than(plan_b) {
            prop_assert!(plan_b.servable().is_none() || plan_a.servable() < plan_b.servable());
            // Unless the other one is too old, or from the future and so of unknown age, the younger record
            // wins.
            let from_the_future = [a, b].iter().any(|known| known.verified_at > NOW);
            let comparable = plan_b.servable().is_some() && !from_the_future;
            prop_assert!(!comparable || a.verified_at > b.verified_at);
        }
    }

    #[test]
    fn a_record_from_the_future_is_never_served_without_asking_and_only_as_the_oldest_permitted_tier(
        policy in any_policy(), known in any_known(), ahead in any_distance(),
        breaker in prop::option::of(any_time()),
    ) {
        let ahead = FUTURE_TOLERANCE + Duration::from_millis(ahead + 1);
        let known = Known { verified_at: NOW.after(ahead), ..known };
        let plan = policy.before_asking(&known, NOW, breaker);
        prop_assert_eq!(plan.serves_now(), None);
        if let Some(tier) = plan.servable() {
            let oldest = match known.kind {
                RecordKind::ForeignVerdict => policy.limits.verdict_ceiling,
                RecordKind::Profile | RecordKind::Keys => policy.table().oldest(),
            };
            let row = policy.table().row(tier).unwrap();
            prop_assert_eq!(tier, oldest);
            prop_assert_eq!(row.role, Role::Outage);
            prop_assert!(ahead <= row.age);
        }
    }

    #[test]
    fn a_clock_that_jumps_locks_nobody_out_for_good(
        policy in any_policy(), known in any_known(), jumped in any_time(),
    ) {
        let known = Known { not_after: None, ..known };
        // However the clock jumped, the issuer's yes is a yes ...
        let plan = policy.before_asking(&known, jumped, None);
        prop_assert!(plan.serves_now().is_some() || plan.after_asking(IssuerAnswer::Yes) == Served::Fresh);
        // ... and the record that it writes is of the youngest tier by the clock that wrote it.
        let renewed = Known { verified_at: jumped, ..known };
        prop_assert_eq!(policy.before_asking(&renewed, jumped, None).servable(), Some(TierIndex::YOUNGEST));
    }

    #[test]
    fn stores_may_drop_a_record_exactly_when_nothing_can_be_served_from_it_any_more(
        policy in any_policy(), known in any_known(), later in any_distance(),
    ) {
        // The breaker has always been open, so that grace is as long as possible.
        let breaker = Some(Timestamp::EPOCH);
        let useless = policy.useless_from(&known);
        let after = useless.after(Duration::from_millis(later));
        if after >= known.verified_at {
            prop_assert_eq!(policy.before_asking(&known, after, breaker).servable(), None);
        }
        let last = useless.before(Duration::from_millis(1));
        if last >= known.verified_at {
            prop_assert!(policy.before_asking(&known, last, breaker).servable().is_some());
        }
    }

    #[test]
    fn only_a_cannot_tell_falls_back_to_a_tier(policy in any_policy(), known in any_known()) {
        let plan = policy.before_asking(&known, NOW, None);
        for answer in ANSWERS {
            if let Served::Stale(tier) = plan.after_asking(answer) {
                prop_assert_eq!(answer, IssuerAnswer::CannotTell);
                prop_assert_eq!(Some(tier), plan.servable());
            }
        }
    }
}
