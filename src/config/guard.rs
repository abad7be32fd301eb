//! `[breaker]` and `[budget]`: when and how often an issuer is asked.

use std::time::Duration;

use super::section::Section;
use super::value::{self, DAY, HOUR, SECOND};
use crate::guard::{GuardSettings, Plan};

/// Reads both sections. The defaults are those of [`GuardSettings`].
pub(super) fn read(root: &mut Section<'_>) -> GuardSettings {
    let mut guard = GuardSettings::default();
    let count = |least| value::number(least, 1_000_000_u32);
    let mut section = root.section("breaker");
    let breaker = &mut guard.breaker;
    breaker.window = section.value("window", breaker.window, value::duration(SECOND, HOUR));
    breaker.minimum_calls = section.value("minimum_calls", breaker.minimum_calls, count(1));
    breaker.failure_rate = section.value("failure_rate", breaker.failure_rate, value::fraction);
    breaker.slow_call =
        section.value("slow_call", breaker.slow_call, value::duration(SECOND / 100, 60 * SECOND));
    breaker.slow_rate = section.value("slow_rate", breaker.slow_rate, value::fraction);
    breaker.open_for = section.value("open_for", breaker.open_for, value::duration(SECOND / 100, HOUR));
    breaker.open_for_max =
        section.value("open_for_max", breaker.open_for_max, value::duration(SECOND / 100, DAY));
    breaker.probes = section.value("probes", breaker.probes, count(1));
    let subject_backoff = &mut guard.subject_backoff;
    subject_backoff.window = breaker.window;
    subject_backoff.user_limit = section.value("user_limit", subject_backoff.user_limit, count(0));
    subject_backoff.subjects =
        section.value("limited_users", subject_backoff.subjects, value::number(1, 1_000_000));
    subject_backoff.hold_for =
        section.value("hold_for", subject_backoff.hold_for, value::duration(SECOND, 300 * SECOND));
    if breaker.open_for_max < breaker.open_for {
        let default = humantime::format_duration(breaker.open_for_max).to_string();
        section.report("open_for_max", default, "at least as long as open_for");
    }
    let mut section = root.section("budget");
    let budget = &mut guard.budget;
    let plan = section.value("plan", Plan::UNKNOWN, plan);
    (budget.plan, budget.rate, budget.burst) = (plan.name, plan.rate, plan.burst);
    budget.rate = section.value("rate", budget.rate, value::rate);
    budget.rate_max = section.optional("rate_max", value::rate);
    if budget.rate_max.is_some_and(|most| most < budget.rate) {
        section.report("rate_max", budget.rate.to_string(), "at least rate");
    }
    budget.burst = section.value("burst", budget.burst, count(1));
    budget.wait = section.value("wait", budget.wait, value::duration(Duration::ZERO, 60 * SECOND));
    budget.background_share = section.value("background_share", budget.background_share, value::fraction);
    budget.first_seen_share = section.value("first_seen_share", budget.first_seen_share, value::fraction);
    guard
}

fn plan(name: &str) -> Result<Plan, String> {
    Plan::named(name).ok_or_else(|| format!("one of {}", Plan::ALL.map(|plan| plan.name).join(", ")))
}
