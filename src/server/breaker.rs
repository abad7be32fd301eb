//! `POST /breaker` on the admin listener: an operator forces breakers open or closed for a time, or resets
//! them.
//!
//! A forced state always has an end, so that a state that was forced in an incident does not outlive it.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use super::operator::{self, OperatorError};
use super::plain::{Reply, text};
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
    pub issuer: Option<String>,
    /// `discovery`, `jwks`, `userinfo` or `introspection`; without it, all of them.
    pub endpoint: Option<String>,
    /// How long a forced state lasts, as `90s` or `2h`: from one second to [`LONGEST_FORCED`]. Default:
    /// [`FORCED_FOR`].
    #[serde(rename = "for")]
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

/// Executes the request, and answers with the breakers that it changed.
pub(super) async fn answer(instance: &Instance, request: Request<Incoming>) -> Result<Reply, OperatorError> {
    let asked: BreakerRequest = operator::read(request, UNKNOWN).await?;
    Ok(text(StatusCode::OK, asked.follow(instance)?))
}

impl BreakerRequest {
    fn follow(&self, instance: &Instance) -> Result<String, OperatorError> {
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
            return Err(OperatorError::NoSuchBreaker(all.join(", ")));
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

    fn lasting(&self) -> Result<Duration, OperatorError> {
        match (&self.lasting, self.action) {
            (None, _) => Ok(FORCED_FOR),
            (Some(_), Action::Reset) => Err(OperatorError::ResetForATime),
            (Some(text), _) => humantime::parse_duration(text)
                .ok()
                .filter(|lasting| (SHORTEST_FORCED..=LONGEST_FORCED).contains(lasting))
                .ok_or(OperatorError::Duration),
        }
    }
}
