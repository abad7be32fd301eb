//! One endpoint of one issuer, behind its guard: the only way to make a call.

mod fleet;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Request;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use thiserror::Error;
use tracing::{info, warn};

use super::client::{CallError, Client, Reply};
use super::outage::{Outage, StateHistory};
use super::rejection::{self, Rejection};
use crate::clock::{Clock, Timestamp};
use crate::guard::breaker::{State, Transition};
use crate::guard::{
    Admission, Allowance, CallOutcome, ForcedState, Guard, GuardSettings, GuardStatus, Priority,
    SingleflightError, SubjectKey, SuppressReason, Suppressed, retry_after,
};
use crate::telemetry::metrics::Metrics;

/// How long a breaker that nobody probes still counts as open after its opening is over: longer than it takes
/// until `fresh` probes it without a request, and until that probe is answered.
const OPEN_LINGERS: Duration = Duration::from_secs(15);

/// The issuer's decision is not available now. The request is answered from older tiers, else with 503.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotTell {
    /// The call was not made.
    #[error("{0}")]
    Suppressed(#[from] Suppressed),
    /// The call failed.
    #[error("{0}")]
    Failed(#[from] CallError),
    /// The issuer answered 429.
    #[error("the issuer answered 429, too many requests; ask again in {} s", .retry_after.as_secs())]
    RateLimited {
        /// When to ask again.
        retry_after: Duration,
    },
    /// An answer with a status that says nothing about the token.
    #[error("the issuer answered with status {status}")]
    Status {
        /// Which.
        status: u16,
        /// When to ask again, if the answer says so.
        retry_after: Option<Duration>,
    },
    /// The issuer refuses holdfast's own credentials as a client, whatever the token.
    #[error(
        "the issuer refuses holdfast's own client credentials (status {status}); check client_id and \
         client_secret_file of the issuer's introspection, and whether that client may introspect"
    )]
    ClientRefused {
        /// Which: 400, 401 or 403.
        status: u16,
    },
    /// An answer that cannot be used.
    #[error("the issuer's answer cannot be used: {0}")]
    Garbage(&'static str),
    /// The shared call ended without an answer.
    #[error("{0}")]
    Shared(#[from] SingleflightError),
    /// The pool for first-sight work is full.
    #[error("too many tokens wait for their first check; ask again shortly")]
    Busy,
    /// The issuer's keys are not known yet.
    #[error("the issuer's keys are not known yet: {0}")]
    NoKeys(String),
}

impl CannotTell {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Suppressed(suppressed) => suppressed.reason.as_str(),
            Self::Failed(error) => error.reason(),
            Self::RateLimited { .. } => "rate_limited",
            Self::Status { .. } => "upstream_status",
            Self::ClientRefused { .. } => "client_refused",
            Self::Garbage(_) => "garbage",
            Self::Shared(error) => error.reason(),
            Self::Busy => "busy",
            Self::NoKeys(_) => "no_keys",
        }
    }

    /// When it is worth asking again; at least a second, at most five minutes.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let wait = match self {
            Self::Suppressed(suppressed) => suppressed.retry_after,
            Self::RateLimited { retry_after } | Self::Status { retry_after: Some(retry_after), .. } => {
                *retry_after
            }
            Self::Busy | Self::Shared(_) => Duration::from_secs(1),
            Self::Failed(_)
            | Self::Status { .. }
            | Self::ClientRefused { .. }
            | Self::Garbage(_)
            | Self::NoKeys(_) => Duration::from_secs(5),
        };
        retry_after::bounded(wait)
    }
}

const NOT_THE_ISSUERS: &str = "a refusal (401 or 403) that is not the issuer's own; most likely a firewall, \
                               a content network or a gateway in front of the issuer sent it";

const A_PAGE: &str = "a web page (HTML or XML) where JSON should be: is the issuer's URL right, and is there \
                      a firewall, a login page or a proxy in front of the issuer?";

/// An answer about the token or the document.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'b> {
    /// 200, with this body.
    Good(&'b [u8]),
    /// The issuer's own 401 or 403.
    Rejected {
        /// Which.
        status: u16,
        /// What it says about the token.
        rejection: Rejection,
    },
}

impl<'b> Answer<'b> {
    /// The body of a public document, which needs no token.
    ///
    /// # Errors
    /// If the document was refused.
    pub fn of_a_document(self) -> Result<&'b [u8], &'static str> {
        match self {
            Self::Good(body) => Ok(body),
            Self::Rejected { .. } => Err("the issuer refuses a public document (401 or 403)"),
        }
    }
}

/// An endpoint with its guard and its labels.
#[derive(Clone)]
pub struct Endpoint {
    issuer: Arc<str>,
    name: &'static str,
    client: Client,
    guard: Guard,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Locked while a transition is reported, see [`Endpoint::report`].
    history: Arc<Mutex<StateHistory>>,
}

impl Endpoint {
    /// An endpoint that nobody called yet.
    #[must_use]
    pub fn new(
        issuer: Arc<str>,
        name: &'static str,
        client: Client,
        settings: GuardSettings,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let guard = Guard::new(settings, clock.clone());
        Self { issuer, name, client, guard, clock, metrics, history: Arc::default() }
    }

    /// Adds the series of an endpoint that may be called to the metrics.
    pub fn register(&self) {
        let (states, reasons) =
            (State::ALL.map(State::as_str), SuppressReason::ALL.map(SuppressReason::as_str));
        self.metrics.has_guard(&self.issuer, self.name, &states, &reasons);
        self.show_state(self.guard.status().state);
    }

    /// Its metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The guard's state.
    #[must_use]
    pub fn status(&self) -> GuardStatus {
        self.guard.status()
    }

    /// When the breaker left the closed state and why, if it has not returned to it. A breaker that has
    /// waited for a probe for 15 seconds counts as closed: a lack of requests is not an outage.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        let outage = self.history().outage()?;
        let GuardStatus { state, since, .. } = self.guard.status();
        let idle = state == State::HalfOpen && since.is_some_and(|since| since > OPEN_LINGERS);
        (state != State::Closed && !idle).then_some(outage)
    }

    /// The recent changes of the breaker's state, oldest first; at most 64.
    #[must_use]
    pub fn changes(&self) -> Vec<(Timestamp, State)> {
        self.history().changes()
    }

    fn history(&self) -> MutexGuard<'_, StateHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the breaker would allow a probe now.
    #[must_use]
    pub fn waits_for_a_probe(&self) -> bool {
        let status = self.guard.status();
        status.state == State::HalfOpen && status.refuses_for.is_zero()
    }

    /// Updates the metrics of the guard, whose state also changes with time alone.
    pub fn show(&self) {
        let _in_order = self.history();
        let GuardStatus { state, budget, waiting, refuses_for, .. } = self.guard.status();
        self.show_state(state);
        self.metrics.budget_is(&self.issuer, self.name, budget.rate, waiting);
        let (labels, left) = ((&*self.issuer, self.name), budget.learned.map(|(calls, _)| calls));
        self.metrics.condition.guard_is(labels, refuses_for, budget.available, left);
    }

    fn show_state(&self, state: State) {
        self.metrics.breaker_is(&self.issuer, self.name, state.as_str(), &State::ALL.map(State::as_str));
    }

    /// Forces the breaker into a state for a time, at an operator's request; see [`Guard::force`].
    pub fn force(&self, forced: ForcedState, lasting: Duration) {
        self.report(Some(self.guard.force(forced, lasting)));
    }

    /// Closes the breaker and forgets all results, at an operator's request.
    pub fn reset(&self) {
        self.report(Some(self.guard.reset()));
    }

    /// Makes one call, if the guard admits it, and reads its answer. `read` gets a 200, and a 401 or 403 that
    /// is the issuer's own. An error of `read`, and every other status, does not count as an answer. See
    /// [`CallOutcome`] for what that says about the endpoint.
    ///
    /// # Errors
    /// [`CannotTell`], with nothing learnt about the token.
    pub async fn call<T>(
        &self,
        call: Request,
        priority: Priority,
        subject: Option<SubjectKey>,
        read: impl FnOnce(Answer<'_>) -> Result<T, &'static str>,
    ) -> Result<T, CannotTell> {
        let (admission, reply) = self.send(&call, priority, subject).await?;
        let (outcome, result) = self.judge(reply, read);
        self.report(admission.finish(outcome));
        result
    }

    /// As [`Self::call`], with our own credentials as a client. A refusal of these counts as a failure of the
    /// endpoint, because no token can cause it. `read` gets the body of a 200, and also returns whether the
    /// issuer accepts the token.
    ///
    /// # Errors
    /// [`CannotTell`], with nothing learnt about the token.
    pub async fn call_as_client<T>(
        &self,
        call: Request,
        priority: Priority,
        subject: Option<SubjectKey>,
        read: impl FnOnce(&[u8]) -> Result<(CallOutcome, T), &'static str>,
    ) -> Result<T, CannotTell> {
        let (admission, reply) = self.send(&call, priority, subject).await?;
        let refused =
            reply.as_ref().ok().filter(|reply| rejection::refuses_client(reply)).map(|reply| reply.status);
        let (outcome, result) = match refused {
            Some(status) => (CallOutcome::Unreachable, Err(CannotTell::ClientRefused { status })),
            None => match self.judge(reply, |answer| read(answer.of_a_document()?)) {
                (_, Ok((outcome, value))) => (outcome, Ok(value)),
                (outcome, Err(error)) => (outcome, Err(error)),
            },
        };
        self.report(admission.finish(outcome));
        result
    }

    /// Makes one call without a token, only to find out whether the endpoint works. Any answer of the
    /// endpoint itself counts as success.
    pub async fn probe(&self, call: Request) {
        let Ok((admission, reply)) = self.send(&call, Priority::Background, None).await else { return };
        let outcome = match self.judge(reply, |_| Ok(())).0 {
            CallOutcome::Declined => CallOutcome::Answered,
            outcome => outcome,
        };
        self.report(admission.finish(outcome));
    }

    /// Makes one call, if the guard admits it. The caller must finish the admission.
    async fn send(
        &self,
        call: &Request,
        priority: Priority,
        subject: Option<SubjectKey>,
    ) -> Result<(Admission, Result<Reply, CallError>), Suppressed> {
        let (admission, waited) =
            self.guard.admit_in_turn(priority, subject).await.inspect_err(|suppressed| {
                self.metrics.suppressed(suppressed.reason.as_str());
            })?;
        self.metrics.budget_wait.observe(waited.as_secs_f64());
        self.report(admission.transition());
        let started = self.clock.ticks();
        let reply = self.client.send(call).await;
        let status = match &reply {
            Ok(reply) => reply.status.to_string(),
            Err(error) => error.reason().to_owned(),
        };
        self.metrics.called(&self.issuer, self.name, &status, self.clock.ticks().since(started));
        if let Ok(reply) = &reply
            && let Some(allowance) = self.allowance(&reply.headers)
        {
            admission.observe(allowance);
        }
        Ok((admission, reply))
    }

    /// The result of the call, for the guard and for the caller.
    fn judge<T>(
        &self,
        reply: Result<Reply, CallError>,
        read: impl FnOnce(Answer<'_>) -> Result<T, &'static str>,
    ) -> (CallOutcome, Result<T, CannotTell>) {
        match reply {
            Err(error) => (outcome_of(error), Err(CannotTell::Failed(error))),
            Ok(Reply { status: status @ (200 | 401 | 403), headers, body }) => {
                let answer = match status {
                    200 => Some(Answer::Good(&body)),
                    _ => Rejection::read(status, &headers, &body)
                        .map(|rejection| Answer::Rejected { status, rejection }),
                };
                let answer = answer.ok_or(NOT_THE_ISSUERS).and_then(read);
                let answer =
                    answer.map_err(|what| if status == 200 && is_a_page(&body) { A_PAGE } else { what });
                match answer {
                    Ok(value) if status == 200 => (CallOutcome::Answered, Ok(value)),
                    Ok(value) => (CallOutcome::Rejected, Ok(value)),
                    Err(what) => (CallOutcome::BadAnswer, Err(CannotTell::Garbage(what))),
                }
            }
            Ok(Reply { status, headers, .. }) => {
                let hold = retry_after::hold(
                    text(&headers, RETRY_AFTER.as_str()),
                    text(&headers, "x-ratelimit-reset").filter(|_| status == 429),
                    self.clock.now(),
                );
                match status {
                    429 => {
                        let limit = text(&headers, "x-ratelimit-limit").and_then(retry_after::calls);
                        let retry_after = hold.unwrap_or(Duration::from_secs(5));
                        (
                            CallOutcome::RateLimited { hold, limit },
                            Err(CannotTell::RateLimited { retry_after }),
                        )
                    }
                    _ => (
                        outcome_of_status(status, hold),
                        Err(CannotTell::Status { status, retry_after: hold }),
                    ),
                }
            }
        }
    }

    fn allowance(&self, headers: &HeaderMap) -> Option<Allowance> {
        Some(Allowance {
            limit: text(headers, "x-ratelimit-limit").and_then(retry_after::calls),
            remaining: text(headers, "x-ratelimit-remaining").and_then(retry_after::calls)?,
            reset_in: text(headers, "x-ratelimit-reset")
                .and_then(|reset| retry_after::from_reset(reset, self.clock.now()))?,
        })
    }

    /// One log line and the metrics for a change of the breaker's state.
    ///
    /// Two transitions may arrive here in another order than they happened. So the reported state is the
    /// breaker's current one, read under a lock: the last report has the latest state.
    fn report(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let Transition { from, to, reason, open_for } = transition;
        self.metrics.breaker_moved(&self.issuer, self.name, from.as_str(), to.as_str());
        {
            let mut history = self.history();
            let state = self.guard.status().state;
            self.show_state(state);
            history.record(&transition, state, self.clock.now());
        }
        let (issuer, endpoint, reason) = (&*self.issuer, self.name, reason.as_str());
        match to {
            State::Open => {
                // In seconds, rounded. The jitter makes all further digits random.
                let open_for = open_for.map_or(0.0, |wait| (wait.as_secs_f64() * 1e3).round() / 1e3);
                warn!(issuer, endpoint, reason, open_for, "breaker opened: no calls until a probe is due");
            }
            State::HalfOpen => {
                info!(issuer, endpoint, reason, "breaker half-open: one call is made as a probe")
            }
            State::Closed => info!(issuer, endpoint, reason, "breaker closed: calls are made again"),
        }
    }
}

/// Whether a body begins as HTML and XML do.
fn is_a_page(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"<")
}

fn outcome_of(error: CallError) -> CallOutcome {
    match error {
        CallError::Connect(_) | CallError::Timeout => CallOutcome::Unreachable,
        CallError::TooLarge | CallError::NotHttp | CallError::Broken | CallError::Encoded => {
            CallOutcome::BadAnswer
        }
        CallError::Unsendable => CallOutcome::Declined,
    }
}

/// No token causes a 408 or 425. A gateway's 502 to 504, and the statuses that content networks add, are
/// about the server as a whole. A 500 may be about one request.
fn outcome_of_status(status: u16, hold: Option<Duration>) -> CallOutcome {
    match status {
        408 | 425 | 501.. => CallOutcome::Failed { hold },
        400..=499 => CallOutcome::Declined,
        _ => CallOutcome::BadAnswer,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_says_of_the_endpoint() {
        let hold = Some(Duration::from_secs(7));
        for status in [408, 425, 502, 503, 504, 520, 530] {
            assert_eq!(outcome_of_status(status, hold), CallOutcome::Failed { hold }, "{status}");
        }
        for status in [400, 404, 413, 414, 418, 431, 451, 494] {
            assert_eq!(outcome_of_status(status, hold), CallOutcome::Declined, "{status}");
        }
        for status in [204, 302, 500] {
            assert_eq!(outcome_of_status(status, hold), CallOutcome::BadAnswer, "{status}");
        }
    }
}
