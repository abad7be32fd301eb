//! `POST /breaker` on the admin listener: an operator forces breakers open or closed for a time, or resets
//! them.
//!
//! A forced state always has an end, so that a state that was forced in an incident does not outlive it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::operator::{self, OperatorError};
use super::plain::text;
use crate::guard::ForcedState;
use crate::guard::breaker::LONGEST_FORCED;
use crate::instance::Instance;
use crate::issuer::endpoint::Endpoint;

/// How long a forced state lasts by default.
pub const FORCED_FOR: Duration = Duration::from_secs(10 * 60);

/// The shortest time for which a state can be forced.
const SHORTEST_FORCED: Duration = Duration::from_secs(1);

const UNKNOWN: OperatorError = OperatorError::Unknown(
    "{\"action\": \"force-open\" or \"force-closed\", \"for\": \"10m\"}, {\"action\": \"reset\"}; \
     each may name an \"issuer\" and an \"endpoint\"",
);

/// An action, and the breakers that it applies to.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerRequest {
    /// The action.
    pub action: Action,
    /// The issuer, as it is configured; without it, every issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `discovery`, `jwks` or `userinfo`; without it, all three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How long a forced state lasts, as `90s` or `2h`: from one second to [`LONGEST_FORCED`]. Default:
    /// [`FORCED_FOR`].
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
}

/// What an operator can do with a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes no calls for a time, and then a probe.
    ForceOpen,
    /// Makes calls for a time, whatever their results are.
    ForceClosed,
    /// Closes the breaker, forgets all results, and ends a forced state.
    Reset,
}

/// Why the request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum BreakerRefused {
    #[error("{0}")]
    Request(#[from] OperatorError),
    #[error(r#""for" is a duration from 1s to 24h, such as 90s, 10m, 2h"#)]
    Duration,
    #[error(r#"a reset has no end: leave out "for""#)]
    ResetForATime,
    #[error("there is no such breaker; the breakers are {0}")]
    NoSuchBreaker(String),
}

impl BreakerRefused {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Request(refused) => refused.status(),
            Self::Duration | Self::ResetForATime => StatusCode::BAD_REQUEST,
            Self::NoSuchBreaker(_) => StatusCode::NOT_FOUND,
        }
    }
}

/// Executes the request, and answers with the breakers that it changed.
pub(super) async fn answer(instance: &Instance, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let asked = operator::read::<BreakerRequest>(request, UNKNOWN).await;
    match asked.map_err(BreakerRefused::from).and_then(|asked| asked.follow(instance)) {
        Ok(done) => text(StatusCode::OK, done),
        Err(refused) => text(refused.status(), format!("{refused}\n")),
    }
}

impl BreakerRequest {
    fn follow(&self, instance: &Instance) -> Result<String, BreakerRefused> {
        let lasting = self.lasting()?;
        let all: Vec<(&str, &Endpoint)> = instance
            .issuers
            .iter()
            .flat_map(|issuer| issuer.endpoints().map(|endpoint| (&**issuer.name(), endpoint)))
            .collect();
        let named = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| asked == name);
        let meant = |(issuer, endpoint): &&(&str, &Endpoint)| {
            named(&self.issuer, issuer) && named(&self.endpoint, endpoint.name())
        };
        let names = |(issuer, endpoint): &(&str, &Endpoint)| format!("{} of {issuer}", endpoint.name());
        let chosen: Vec<_> = all.iter().filter(meant).collect();
        if chosen.is_empty() {
            let all: Vec<String> = all.iter().map(names).collect();
            return Err(BreakerRefused::NoSuchBreaker(all.join(", ")));
        }
        for (_, endpoint) in &chosen {
            match self.action {
                Action::ForceOpen => endpoint.force(ForcedState::Open, lasting),
                Action::ForceClosed => endpoint.force(ForcedState::Closed, lasting),
                Action::Reset => endpoint.reset(),
            }
        }
        let lasting = humantime::format_duration(lasting);
        let done = match self.action {
            Action::ForceOpen => format!("forced open for {lasting}"),
            Action::ForceClosed => format!("forced closed for {lasting}"),
            Action::Reset => "reset".to_owned(),
        };
        Ok(chosen.into_iter().map(|breaker| format!("{done}: {}\n", names(breaker))).collect())
    }

    fn lasting(&self) -> Result<Duration, BreakerRefused> {
        match (&self.lasting, self.action) {
            (None, _) => Ok(FORCED_FOR),
            (Some(_), Action::Reset) => Err(BreakerRefused::ResetForATime),
            (Some(text), _) => humantime::parse_duration(text)
                .ok()
                .filter(|lasting| (SHORTEST_FORCED..=LONGEST_FORCED).contains(lasting))
                .ok_or(BreakerRefused::Duration),
        }
    }
}
