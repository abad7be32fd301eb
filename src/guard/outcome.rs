//! What a call came to, and whom that says something about: the endpoint, or only who was asked about.
//!
//! Were every failure the endpoint's, one user whose profile is too long would stop everybody's calls by
//! asking ten times, and so would a stranger with ten tokens that the issuer stumbles over. So it matters who
//! was asked about: nobody, a user who is known, or a token that anybody may have sent.

use std::time::Duration;

use super::breaker::{Outcome, State};
use super::state::Parts;
use super::subject_backoff::{AFTER_ODD, Limited, SubjectKey};
use crate::clock::Ticks;

/// What a call to the issuer came to, and by that whom it says something about.
///
/// Of a call about nobody, such as one for the keys, everything but an answer is the endpoint's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It answered, and accepts the token if there was one: 200.
    Answered,
    /// It answered, and does not accept the token: 401 or 403. For an endpoint that is as good as a 200.
    Rejected,
    /// No connection, TLS error, or no answer in time. No token makes that, so it counts whoever was asked
    /// about.
    Unreachable,
    /// A status that says that the endpoint is unwell, 502 and 503 among them. It counts, but for an unknown
    /// token, which may be what a server behind a gateway stumbles over.
    Failed {
        /// How long it asks us to wait: [`retry_after::hold`](super::retry_after::hold).
        hold: Option<Duration>,
    },
    /// 500, an answer that makes no sense or is too long, a connection that broke: the endpoint is unwell, or
    /// this one user or token is odd. It counts once for each subject, and not at all for an unknown token.
    Odd,
    /// Another 4xx: this one request is not to its liking. It counts neither way.
    Declined,
    /// A 429: whether it concerns the tenant or the subject of this call follows from `limit`, and if that
    /// is not told, from how many different subjects are limited.
    RateLimited {
        /// How long it asks us to wait: [`retry_after::hold`](super::retry_after::hold).
        hold: Option<Duration>,
        /// `X-RateLimit-Limit`, read by [`retry_after::calls`](super::retry_after::calls).
        limit: Option<u32>,
    },
}

impl CallOutcome {
    /// What a call about nobody says of the endpoint.
    pub(super) fn about_nobody(self) -> Outcome {
        match self {
            Self::Answered | Self::Rejected => Outcome::Success,
            Self::Failed { hold } => Outcome::Failure { until: hold },
            Self::Unreachable | Self::Odd | Self::Declined => Outcome::Failure { until: None },
            Self::RateLimited { hold, .. } => Outcome::RateLimited { until: hold },
        }
    }

    /// What a call about a known user says of the endpoint; `None` if nothing.
    pub(super) fn about_known(
        self,
        parts: &mut Parts,
        subject: SubjectKey,
        user_limit: u32,
        now: Ticks,
    ) -> Option<Outcome> {
        let failure = Outcome::Failure { until: None };
        match self {
            Self::Answered | Self::Rejected => {
                parts.subject_backoff.answered(subject);
                Some(Outcome::Success)
            }
            Self::Unreachable => Some(failure),
            Self::Failed { hold } => Some(Outcome::Failure { until: hold }),
            // Half-open, it is not noted: who is the probe in an outage has not become odd by that.
            Self::Odd
                if parts.breaker.state(now) != State::Closed
                    && !parts.subject_backoff.is_odd(subject, now) =>
            {
                Some(failure)
            }
            Self::Odd => parts.subject_backoff.odd(subject, now).then_some(failure),
            Self::Declined => {
                parts.subject_backoff.odd(subject, now);
                None
            }
            Self::RateLimited { hold, limit } => {
                let limited = match limit {
                    Some(limit) if limit > user_limit => Limited::Tenant,
                    // It says whose limit it is: however many are at theirs, the tenant is not.
                    Some(_) => {
                        parts.subject_backoff.hold(subject, hold, now);
                        Limited::Subject
                    }
                    None => parts.subject_backoff.limited(subject, hold, now),
                };
                (limited == Limited::Tenant).then_some(Outcome::RateLimited { until: hold })
            }
        }
    }

    /// What a call about an unknown token says of the endpoint; `None` if nothing. One user can send any
    /// number of new tokens, and would pass for many users; so it says little while the breaker is closed,
    /// but may be a good probe.
    pub(super) fn about_unknown(
        self,
        parts: &mut Parts,
        token: SubjectKey,
        user_limit: u32,
        now: Ticks,
        jitter: f64,
    ) -> Option<Outcome> {
        match self {
            Self::Answered | Self::Rejected => {
                parts.first_seen.answered(self == Self::Answered, now);
                let is_probe = parts.breaker.state(now) == State::HalfOpen;
                return is_probe.then_some(Outcome::Success);
            }
            Self::Unreachable => {
                parts.first_seen.failed(None, now, jitter);
                return Some(Outcome::Failure { until: None });
            }
            Self::RateLimited { hold, limit: Some(limit) } if limit > user_limit => {
                return Some(Outcome::RateLimited { until: hold });
            }
            Self::RateLimited { hold, limit } => {
                parts.subject_backoff.hold(token, hold, now);
                // Auth0 says whose limit it is. Who does not is not Auth0, and limits everybody for all we
                // know.
                if limit.is_none() {
                    parts.first_seen.limited(hold, now);
                }
                return None;
            }
            Self::Failed { hold } => parts.first_seen.failed(hold, now, jitter),
            Self::Odd => parts.first_seen.failed(None, now, jitter),
            // It costs a call, as a no does, and says as little.
            Self::Declined => parts.first_seen.declined(now),
        }
        parts.subject_backoff.hold(token, Some(AFTER_ODD), now);
        None
    }
}
