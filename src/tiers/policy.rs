//! What may be done with a record of some age: serve it, ask first, serve it stale, or refuse. Pure.
//!
//! The policy decides twice, before and after the call to the issuer, and both decisions are values.
//! [`Policy::before_asking`] takes the record and the clock and returns a [`Plan`]. [`Plan::within`] adapts
//! the plan to a route's `max_tier`. [`Plan::after_asking`] takes the plan and the issuer's answer and
//! returns what is [`Served`]. [`Policy::unseen_until`] says how long that may be served without a second
//! look. Nothing is decided in between, so the order of I/O, the number of stores and the waiting of requests
//! cannot change a decision.
//!
//! Four rules take precedence over the table. The property tests check them with arbitrary tables and clocks:
//!
//! 1. No tier ever turns a definitive no into a yes.
//! 2. A verdict on a foreign token is never served past the ceiling.
//! 3. No tier extends a token's own life: after `exp` + leeway the token is refused, whatever records exist.
//!    `expired_grace` is the only exception, and opt-in, for a token that expired while the breaker was
//!    already open. A verdict on a foreign token ends exactly at `exp`: an introspection answer must not be
//!    used past it (RFC 7662 §4).
//! 4. A record from the future (the clock was wrong when it was written, or is now) has no known age. It is
//!    never served without asking. If the issuer cannot tell, it is served as the **oldest permitted tier**,
//!    on two conditions: that tier's role is outage, and the record is not further in the future than that
//!    tier reaches into the past. So a clock set back by an hour or a year costs one call to the issuer
//!    instead of locking all users out while the issuer is down. The answer is never labelled younger than it
//!    may be. As soon as the issuer says yes, the record is written again with the present time.

use std::time::Duration;

use super::table::{Role, TierIndex, TierTable};
use crate::clock::Timestamp;

/// How far ahead of the clock a record may be and still count as new: the clocks of instances that share a
/// store differ a little, and NTP can step a clock.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// How long an answer is served without a second look if that look might change it, because it is past the
/// fresh tiers or the issuer could not tell. Short, so that a recovery or a revalidation is noticed. Long
/// enough that an outage does not cost a signature check for each request.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The content of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// The issuer accepted exactly this token, which only the issuer can judge.
    ForeignVerdict,
    /// Who a subject is: the email and what else `/userinfo` says. The token itself was verified here.
    Profile,
    /// The keys of an issuer.
    Keys,
}

/// What is known before the issuer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The kind of the record.
    pub kind: RecordKind,
    /// When the issuer or a signature last confirmed it.
    pub verified_at: Timestamp,
    /// The `exp` of the judged token, if it is known; without leeway.
    pub not_after: Option<Timestamp>,
}

/// The limits that take precedence over the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The oldest tier whose verdict on a foreign token may be served.
    pub verdict_ceiling: TierIndex,
    /// How far clocks may differ: a token is good until `exp` plus this (RFC 7519 §4.1.4).
    pub leeway: Duration,
    /// How long after `exp` + leeway a token is good if it expired while the breaker was already open. Zero
    /// switches this off.
    pub expired_grace: Duration,
}

/// The table in force and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    table: TierTable,
    limits: Limits,
}

/// What to do with a record before the issuer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Answer from it.
    Serve(TierIndex),
    /// Answer from it, and ask in the background.
    ServeAndRevalidate(TierIndex),
    /// Ask, and wait for the answer.
    Ask {
        /// The tier that it may be served as if the issuer cannot tell; `None`: not at all.
        stale: Option<TierIndex>,
    },
    /// Refuse without asking: the token's own life is over.
    Refuse,
}

/// What the issuer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IssuerAnswer {
    /// It confirms.
    Yes,
    /// A definitive no.
    No,
    /// 429, 5xx, timeout, refused connection, breaker open, garbage.
    CannotTell,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The issuer's answer of just now.
    Fresh,
    /// The record, as one of this tier.
    Stale(TierIndex),
    /// No.
    Refuse,
    /// Neither yes nor no can be known.
    CannotTell,
}

/// Where a token stands in its own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLife {
    /// Before `exp` + leeway, or with an `exp` that cannot be read.
    Good,
    /// After that, but within `expired_grace`, and the breaker was already open: good only while the issuer
    /// cannot tell.
    Grace,
    /// After that.
    Over,
}

/// The ceiling is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("verdict_ceiling names no tier of the table: use the name of one of its tiers")]
pub struct CeilingOutsideTable;

impl Policy {
    /// A policy of this table and these limits.
    ///
    /// # Errors
    /// When the ceiling is not a tier of the table.
    pub fn new(table: TierTable, limits: Limits) -> Result<Self, CeilingOutsideTable> {
        if table.row(limits.verdict_ceiling).is_none() {
            return Err(CeilingOutsideTable);
        }
        Ok(Self { table, limits })
    }

    /// The table in force.
    #[must_use]
    pub const fn table(&self) -> &TierTable {
        &self.table
    }

    /// What to do with a record before the issuer is asked. `breaker_open_since` is when the breaker of the
    /// endpoint left the closed state, if it has not returned to it.
    ///
    /// Without a record the plan is [`Plan::NOTHING_KNOWN`], if [`Policy::token_life`] is good.
    #[must_use]
    pub fn before_asking(
        &self,
        known: &Known,
        now: Timestamp,
        breaker_open_since: Option<Timestamp>,
    ) -> Plan {
        let life = match known.kind {
            RecordKind::ForeignVerdict if now >= Self::verdict_ends(known) => TokenLife::Over,
            RecordKind::ForeignVerdict => TokenLife::Good,
            RecordKind::Profile | RecordKind::Keys => {
                self.token_life(known.not_after, now, breaker_open_since)
            }
        };
        let role_in_grace = match life {
            TokenLife::Over => return Plan::Refuse,
            TokenLife::Grace => Some(Role::Outage),
            TokenLife::Good => None,
        };
        if is_from_the_future(known.verified_at, now) {
            return Plan::Ask { stale: self.stale_from_the_future(known, now) };
        }
        let permitted = self
            .table
            .tier_of(now.since(known.verified_at))
            .filter(|tier| *tier <= self.oldest_for(known.kind));
        let Some((tier, row)) = permitted.and_then(|tier| Some((tier, self.table.row(tier)?))) else {
            return Plan::NOTHING_KNOWN;
        };
        match role_in_grace.unwrap_or(row.role) {
            Role::Fresh => Plan::Serve(tier),
            Role::Revalidate => Plan::ServeAndRevalidate(tier),
            Role::Outage => Plan::Ask { stale: Some(tier) },
        }
    }

    /// When a verdict on a foreign token must not be used any more (RFC 7662 §4): at its `exp`, without
    /// leeway and grace. [`Timestamp::MAX`] for other records, and if the issuer named no `exp`.
    #[must_use]
    pub fn verdict_ends(known: &Known) -> Timestamp {
        known.not_after.filter(|_| known.kind == RecordKind::ForeignVerdict).unwrap_or(Timestamp::MAX)
    }

    /// Where a token of this `exp`, which was verified here, stands in its own life.
    #[must_use]
    pub fn token_life(
        &self,
        not_after: Option<Timestamp>,
        now: Timestamp,
        breaker_open_since: Option<Timestamp>,
    ) -> TokenLife {
        let Some(not_after) = not_after else { return TokenLife::Good };
        let end = not_after.after(self.limits.leeway);
        let expired_in_outage = breaker_open_since.is_some_and(|open_since| open_since <= not_after);
        if now < end {
            TokenLife::Good
        } else if expired_in_outage && now < end.after(self.limits.expired_grace) {
            TokenLife::Grace
        } else {
            TokenLife::Over
        }
    }

    /// Until when an answer from a record of `tier` may be served without a second look. In a fresh tier a
    /// second look would have the same result, so until the tier ends. Otherwise [`LOOK_AGAIN`] from now,
    /// whatever the position of the tier in the table. If the issuer could not tell, it is longer by the time
    /// `no_use_asking`.
    ///
    /// A token's own life may end sooner. That is not considered here.
    #[must_use]
    pub fn unseen_until(
        &self,
        tier: TierIndex,
        verified_at: Timestamp,
        now: Timestamp,
        no_use_asking: Option<Duration>,
    ) -> Timestamp {
        let Some(row) = self.table.row(tier) else { return now };
        let tier_ends = verified_at.after(row.age);
        match no_use_asking {
            None if row.role == Role::Fresh => tier_ends,
            None => tier_ends.min(now.after(LOOK_AGAIN)),
            Some(pause) => tier_ends.min(now.after(LOOK_AGAIN.max(pause))),
        }
    }

    /// When a record becomes useless, so that stores may drop it: it is past the oldest tier that its kind
    /// may reach, or its token is past `exp` + leeway + grace.
    #[must_use]
    pub fn useless_from(&self, known: &Known) -> Timestamp {
        const NEXT: Duration = Duration::from_millis(1);
        let too_old = self.served_until(known).after(NEXT);
        let token_over =
            known.not_after.map(|end| end.after(self.limits.leeway).after(self.limits.expired_grace));
        token_over.map_or(too_old, |over| over.min(too_old)).min(Self::verdict_ends(known))
    }

    /// The latest time at which a record may be served, if its token lives that long.
    #[must_use]
    pub fn served_until(&self, known: &Known) -> Timestamp {
        known.verified_at.after(self.reach_of(known.kind))
    }

    /// Rule 4.
    fn stale_from_the_future(&self, known: &Known, now: Timestamp) -> Option<TierIndex> {
        let oldest = self.oldest_for(known.kind);
        let for_outages = self.table.row(oldest).is_some_and(|row| row.role == Role::Outage);
        (for_outages && known.verified_at.since(now) <= self.reach_of(known.kind)).then_some(oldest)
    }

    /// The oldest tier that a record of this kind may be served from.
    fn oldest_for(&self, kind: RecordKind) -> TierIndex {
        match kind {
            RecordKind::ForeignVerdict => self.limits.verdict_ceiling,
            RecordKind::Profile | RecordKind::Keys => self.table.oldest(),
        }
    }

    /// The greatest age that a record of this kind may be served at.
    fn reach_of(&self, kind: RecordKind) -> Duration {
        self.table.row(self.oldest_for(kind)).map_or(Duration::ZERO, |row| row.age)
    }
}

impl Default for Policy {
    /// The seven tiers, foreign verdicts up to `emergency`, 30 seconds of leeway, no grace.
    fn default() -> Self {
        let table = TierTable::default();
        let verdict_ceiling = table.find("emergency").unwrap_or(TierIndex::YOUNGEST);
        let limits =
            Limits { verdict_ceiling, leeway: Duration::from_secs(30), expired_grace: Duration::ZERO };
        Self { table, limits }
    }
}

impl Plan {
    /// The plan when no store has a record that may be served.
    pub const NOTHING_KNOWN: Self = Self::Ask { stale: None };

    /// The tier that is served without waiting for the issuer, if that is the plan.
    #[must_use]
    pub const fn serves_now(self) -> Option<TierIndex> {
        match self {
            Self::Serve(tier) | Self::ServeAndRevalidate(tier) => Some(tier),
            Self::Ask { .. } | Self::Refuse => None,
        }
    }

    /// The plan for a route that takes nothing older than the tier `oldest`. If an older record would be
    /// served at once, the issuer is asked first: if it says yes, the answer is young enough. If it cannot
    /// tell, the record is served under its true tier, and the route refuses it.
    #[must_use]
    pub fn within(self, oldest: Option<TierIndex>) -> Self {
        match (self.serves_now(), oldest) {
            (Some(tier), Some(oldest)) if tier > oldest => Self::Ask { stale: Some(tier) },
            _ => self,
        }
    }

    /// Whether a record with this plan is preferred to a record of the same key from another store: the
    /// younger tier is. With equal tiers neither is preferred, and the record of the store that was asked
    /// first is used.
    #[must_use]
    pub const fn is_better_than(self, other: Self) -> bool {
        match (self.servable(), other.servable()) {
            (Some(tier), Some(other)) => tier.as_usize() < other.as_usize(),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// The tier that the record may be served as before or after asking, unless the issuer says no.
    const fn servable(self) -> Option<TierIndex> {
        match self {
            Self::Serve(tier) | Self::ServeAndRevalidate(tier) => Some(tier),
            Self::Ask { stale } => stale,
            Self::Refuse => None,
        }
    }

    /// What is served after the issuer was asked. For [`Plan::ServeAndRevalidate`] this is what the *next*
    /// request gets: a no that arrives in the background is a no from then on.
    #[must_use]
    pub const fn after_asking(self, answer: IssuerAnswer) -> Served {
        match (self, answer) {
            (Self::Refuse, _) | (_, IssuerAnswer::No) => Served::Refuse,
            (_, IssuerAnswer::Yes) => Served::Fresh,
            (Self::Serve(tier) | Self::ServeAndRevalidate(tier), IssuerAnswer::CannotTell) => {
                Served::Stale(tier)
            }
            (Self::Ask { stale: Some(tier) }, IssuerAnswer::CannotTell) => Served::Stale(tier),
            (Self::Ask { stale: None }, IssuerAnswer::CannotTell) => Served::CannotTell,
        }
    }
}

/// Whether a record is further ahead of the clock than [`FUTURE_TOLERANCE`].
#[must_use]
pub fn is_from_the_future(verified_at: Timestamp, now: Timestamp) -> bool {
    verified_at > now.after(FUTURE_TOLERANCE)
}

/// How an identity is served.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// As a record of this tier.
    pub tier: TierIndex,
    /// If the issuer could not be asked: until when the record can be served.
    pub stale: Option<Timestamp>,
    /// When that was found. If the clock shows an earlier time later, it was wrong then or is wrong now.
    pub from: Timestamp,
    /// Until when the pass may be served without a second look.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests;
