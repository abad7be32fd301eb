//! The result of a call, and whether it is about the endpoint or only about the subject of the call.
//!
//! If every failure counted against the endpoint, one user whose profile is too long would stop everybody's
//! calls with ten requests, and so would a stranger with ten tokens that make the issuer fail. So it matters
//! whom the call is about: nobody, a known user, or a token that anybody may have sent.

use std::time::Duration;

use super::breaker::{Outcome, State};
use super::state::Parts;
use super::subject_backoff::{AFTER_BAD_ANSWER, Limited, SubjectKey};
use crate::clock::Ticks;

/// The result of a call to the issuer.
///
/// If a call is about nobody, such as a fetch of the keys, everything but an answer is a failure of the
/// endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It answered, and accepts the token if there was one: 200.
    Answered,
    /// It answered, and does not accept the token: 401 or 403. For the endpoint this is a success.
    Rejected,
    /// No connection, a TLS error, no answer in time, or a refusal of our own credentials as a client. No
    /// token can cause that, so it always counts.
    Unreachable,
    /// A status that says that the endpoint fails, such as 502 or 503. It counts, except for an unknown
    /// token, which may make a server behind a gateway fail.
    Failed {
        /// The wait that it asks for: [`retry_after::hold`](super::retry_after::hold).
        hold: Option<Duration>,
    },
    /// 500, an answer that makes no sense or is too long, or a connection that broke. Either the endpoint
    /// fails, or this user or token makes it fail. It counts once for each subject, and not at all for an
    /// unknown token.
    BadAnswer,
    /// Another 4xx: the issuer does not accept this request. It counts neither as a success nor as a failure.
    Declined,
    /// A 429: `limit` says whether it is about the tenant or the subject of this call; without it, the number
    /// of different subjects that are limited.
    RateLimited {
        /// How long it asks us to wait: [`retry_after::hold`](super::retry_after::hold).
        hold: Option<Duration>,
        /// `X-RateLimit-Limit`, read by [`retry_after::calls`](super::retry_after::calls).
        limit: Option<u32>,
    },
}

impl CallOutcome {
    /// What a call about nobody says about the endpoint.
    pub(super) fn about_nobody(self) -> Outcome {
        match self {
            Self::Answered | Self::Rejected => Outcome::Success,
            Self::Failed { hold } => Outcome::Failure { until: hold },
            Self::Unreachable | Self::BadAnswer | Self::Declined => Outcome::Failure { until: None },
            Self::RateLimited { hold, .. } => Outcome::RateLimited { until: hold },
        }
    }

    /// What a call about a known user says about the endpoint; `None` if nothing.
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
            // Not recorded while half-open: a user who happens to be the probe in an outage did not cause the
            // failure.
            Self::BadAnswer
                if parts.breaker.state(now) != State::Closed
                    && !parts.subject_backoff.had_bad_answer(subject, now) =>
            {
                Some(failure)
            }
            Self::BadAnswer => parts.subject_backoff.bad_answer(subject, now).then_some(failure),
            Self::Declined => {
                parts.subject_backoff.bad_answer(subject, now);
                None
            }
            Self::RateLimited { hold, limit } => {
                let limited = match limit {
                    Some(limit) if limit > user_limit => Limited::Tenant,
                    // The limit is the user's own: however many users reach theirs, the tenant's is not
                    // reached.
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

    /// What a call about an unknown token says about the endpoint; `None` if nothing. One user can send any
    /// number of new tokens and would look like many users. So it says little while the breaker is closed,
    /// but it can be a good probe.
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
                // Auth0 says whose limit it is. A server that does not say may limit everybody.
                if limit.is_none() {
                    parts.first_seen.limited(hold, now);
                }
                return None;
            }
            Self::Failed { hold } => parts.first_seen.failed(hold, now, jitter),
            Self::BadAnswer => parts.first_seen.failed(None, now, jitter),
            // It costs a call, as a rejection does, and says as little about the endpoint.
            Self::Declined => parts.first_seen.declined(now),
        }
        parts.subject_backoff.hold(token, Some(AFTER_BAD_ANSWER), now);
        None
    }
}
