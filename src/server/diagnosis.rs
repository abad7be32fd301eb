//! Diagnosis: what is wrong and who can act, one sentence for each finding, the worst first. Pure.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::guard::{GuardStatus, Reason};
use crate::issuer::outage::Outage;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// This process.
    Holdfast,
    /// The identity provider, or the network between it and holdfast.
    Issuer,
    /// The limit that the identity provider sets for our tenant.
    TenantLimit,
    /// The operator who forced a breaker.
    Operator,
    /// The shared store.
    Redis,
    /// The disk store.
    Disk,
}

impl Party {
    /// The word in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::Issuer => "issuer",
            Self::TenantLimit => "tenant_limit",
            Self::Operator => "operator",
            Self::Redis => "redis",
            Self::Disk => "disk",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Who has to act.
    pub party: Party,
    /// The kind of finding, from a fixed set of words.
    pub kind: &'static str,
    /// Since when, as far as that is known.
    pub since: Option<Timestamp>,
    /// What is wrong and what follows from it, for a person who was just paged.
    pub sentence: String,
}

/// The facts that the findings follow from.
#[derive(Clone, Debug, Default)]
pub struct Facts<'f> {
    /// Whether the service is stopping.
    pub leaving: bool,
    /// Issuers without keys.
    pub without_keys: Vec<&'f str>,
    /// The endpoints of all issuers.
    pub endpoints: Vec<EndpointFacts<'f>>,
    /// Whether the shared store is degraded.
    pub shared_degraded: bool,
    /// Whether the disk store is degraded.
    pub disk_degraded: bool,
    /// Whether revocations of other instances may be missing.
    pub revocations_behind: bool,
}

/// An endpoint of an issuer.
#[derive(Clone, Debug)]
pub struct EndpointFacts<'f> {
    /// The issuer's URL.
    pub issuer: &'f str,
    /// The endpoint: a name of [`EndpointKind`](crate::issuer::discovery::EndpointKind).
    pub name: &'static str,
    /// The outage, if its breaker is not closed.
    pub outage: Option<Outage>,
    /// The guard.
    pub status: GuardStatus,
}

/// All findings, the worst first: what stops answers, then calls, then what only makes the next fault worse.
#[must_use]
pub fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |party, kind, since, sentence: String| found.push(Finding { party, kind, since, sentence });
    if facts.leaving {
        add(
            Party::Holdfast,
            "stopping",
            None,
            "holdfast is stopping: it answers until its connections end.".to_owned(),
        );
    }
    for issuer in &facts.without_keys {
        let sentence =
            format!("No keys of {issuer} are known: signed tokens get 503 until they are fetched.");
        add(Party::Issuer, "no_keys", None, sentence);
    }
    for endpoint in &facts.endpoints {
        if let Some(outage) = endpoint.outage {
            let (party, sentence) = about(endpoint, outage.reason);
            add(party, "breaker", Some(outage.since), sentence);
        }
    }
    for EndpointFacts { issuer, name, status, .. } in &facts.endpoints {
        if !status.first_seen_pause.is_zero() {
            let sentence = format!(
                "{issuer} fails at {name} for tokens never seen before: calls about these pause, and they \
                 get 503."
            );
            add(Party::Issuer, "first_seen", None, sentence);
        }
        if let Some((0, _)) = status.budget.learned {
            let sentence =
                format!("{issuer} says that no calls to {name} are left for our tenant: calls wait.");
            add(Party::TenantLimit, "tenant_limit", None, sentence);
        }
        if status.waiting > 0 {
            let sentence = format!(
                "Our own budget is the limit: {} calls to {name} of {issuer} wait, at {} calls a second.",
                status.waiting, status.budget.rate
            );
            add(Party::Holdfast, "budget", None, sentence);
        }
    }
    if facts.shared_degraded {
        let sentence = "Redis is unreachable or refuses writes: this instance shares no records, nor calls.";
        add(Party::Redis, "shared_store", None, sentence.to_owned());
    }
    if facts.revocations_behind {
        let sentence = "Revocations of other instances may be missing: routes that require \
                        revocation=current get 503.";
        add(Party::Redis, "revocations", None, sentence.to_owned());
    }
    if facts.disk_degraded {
        let sentence = "The disk store fails: records are kept in memory only, and lost at a restart.";
        add(Party::Disk, "disk_store", None, sentence.to_owned());
    }
    found
}

/// Who has to act about an endpoint whose breaker is not closed, and what to say.
fn about(endpoint: &EndpointFacts<'_>, reason: Reason) -> (Party, String) {
    let EndpointFacts { issuer, name, status, .. } = endpoint;
    let served = match *name {
        "userinfo" => "known users are answered from records, new opaque tokens get 503",
        "introspection" => "known opaque tokens are answered from records, new ones get 503",
        _ => "tokens are verified with the known keys",
    };
    if status.forced_for.is_some() {
        let state = status.state.as_str();
        return (
            Party::Operator,
            format!("An operator holds the breaker of {name} of {issuer} {state}: {served}."),
        );
    }
    let (party, what) = match reason {
        Reason::RateLimited => (Party::TenantLimit, "limits our tenant (429)"),
        Reason::SlowCalls | Reason::ProbeSlow => (Party::Issuer, "is too slow"),
        Reason::Advised => (Party::Issuer, "is probed, because it fails for another instance,"),
        Reason::Forced | Reason::Reset => (Party::Operator, "is not called, as an operator decided"),
        Reason::Failures | Reason::ProbeFailed | Reason::WaitOver | Reason::Recovered => {
            (Party::Issuer, "does not answer")
        }
    };
    (party, format!("{issuer} {what} at {name}: {served}."))
}

/// When each kind of finding was first seen, for findings without a known beginning.
#[derive(Debug, Default)]
pub struct FirstSeen(BTreeMap<&'static str, Timestamp>);

impl FirstSeen {
    /// Fills in a missing `since`, and forgets the kinds that are over.
    pub fn date(&mut self, findings: &mut [Finding], now: Timestamp) {
        self.0.retain(|kind, _| findings.iter().any(|finding| finding.kind == *kind));
        for finding in findings {
            let first = *self.0.entry(finding.kind).or_insert(now);
            finding.since.get_or_insert(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::guard::{ForcedState, Guard, GuardSettings};

    fn endpoint(outage: Option<Reason>) -> EndpointFacts<'static> {
        let clock = Clock::held_at(Timestamp::from_secs(1_000));
        let status = Guard::with_jitter(GuardSettings::default(), clock, Box::new(|| 0.5)).status();
        let outage = outage.map(|reason| Outage { since: Timestamp::from_secs(900), reason });
        EndpointFacts { issuer: "https://t.example/", name: "userinfo", outage, status }
    }

    fn parties(facts: &Facts<'_>) -> Vec<&'static str> {
        findings(facts).iter().map(|finding| finding.party.as_str()).collect()
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        assert_eq!(findings(&Facts { endpoints: vec![endpoint(None)], ..Facts::default() }), []);
    }

    #[test]
    fn a_reason_tells_the_issuers_fault_from_the_limit_of_our_tenant() {
        for (reason, party, words) in [
            (Reason::Failures, "issuer", "https://t.example/ does not answer at userinfo: "),
            (Reason::SlowCalls, "issuer", "https://t.example/ is too slow at userinfo: "),
            (Reason::RateLimited, "tenant_limit", "https://t.example/ limits our tenant (429) at userinfo: "),
        ] {
            let found = findings(&Facts { endpoints: vec![endpoint(Some(reason))], ..Facts::default() });
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].party.as_str(), found[0].since), (party, Some(Timestamp::from_secs(900))));
            assert!(found[0].sentence.starts_with(words), "{}", found[0].sentence);
        }
    }

    #[test]
    fn what_makes_calls_wait_is_said_of_whoever_sets_the_limit() {
        let mut busy = endpoint(None);
        busy.status.first_seen_pause = Duration::from_secs(3);
        busy.status.budget.learned = Some((0, Duration::from_secs(9)));
        busy.status.waiting = 7;
        let found = findings(&Facts { endpoints: vec![busy], ..Facts::default() });
        let kinds: Vec<_> = found.iter().map(|finding| (finding.party.as_str(), finding.kind)).collect();
        assert_eq!(
            kinds,
            [("issuer", "first_seen"), ("tenant_limit", "tenant_limit"), ("holdfast", "budget")]
        );
        assert!(found[2].sentence.contains("7 calls to userinfo"), "{}", found[2].sentence);
    }

    #[test]
    fn a_forced_breaker_is_an_operators() {
        let clock = Clock::held_at(Timestamp::from_secs(1_000));
        let guard = Guard::with_jitter(GuardSettings::default(), clock, Box::new(|| 0.5));
        guard.force(ForcedState::Open, Duration::from_secs(60));
        let forced = EndpointFacts { status: guard.status(), ..endpoint(Some(Reason::Failures)) };
        let found = findings(&Facts { endpoints: vec![forced], ..Facts::default() });
        assert_eq!(found[0].party, Party::Operator);
        assert!(found[0].sentence.contains("holds the breaker of userinfo"), "{}", found[0].sentence);
    }

    #[test]
    fn what_stops_answers_is_said_before_what_only_endangers_them() {
        let facts = Facts {
            leaving: true,
            without_keys: vec!["https://t.example/"],
            endpoints: vec![endpoint(Some(Reason::RateLimited))],
            shared_degraded: true,
            disk_degraded: true,
            revocations_behind: true,
        };
        assert_eq!(parties(&facts), ["holdfast", "issuer", "tenant_limit", "redis", "redis", "disk"]);
    }

    #[test]
    fn a_finding_without_a_time_is_dated_by_its_first_sight_until_it_is_over() {
        let mut seen = FirstSeen::default();
        let mut look = |disk_degraded, secs| {
            let mut found = findings(&Facts { disk_degraded, ..Facts::default() });
            seen.date(&mut found, Timestamp::from_secs(secs));
            found.first().and_then(|finding| finding.since).map(Timestamp::as_secs)
        };
        assert_eq!(
            [look(true, 5), look(true, 9), look(false, 11), look(true, 20)],
            [Some(5), Some(5), None, Some(20)]
        );
    }
}
