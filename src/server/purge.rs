//! `POST /purge` on the admin listener: forget a token, a subject, or everybody.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::operator::{self, OperatorError};
use super::plain::{Reply, text};
use crate::instance::Instance;
use crate::store::purge::{Purge, Subject};

const UNKNOWN: OperatorError =
    OperatorError::Unknown(r#"{"subject": "…", "issuer": "…"}, {"token": "…"}, {"all": true}"#);

/// How long the count of records before a purge may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// A request to forget: exactly one of `subject`, `token`, `all`.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// `sub` of the subject to forget.
    pub subject: Option<String>,
    /// The issuer of the subject. By default, the subject of that name at every configured issuer.
    pub issuer: Option<String>,
    /// The token to forget.
    pub token: Option<String>,
    /// Whether to forget everybody.
    #[serde(default)]
    pub all: bool,
}

/// Executes the request, and answers after it is done.
pub(super) async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
) -> Result<Reply, OperatorError> {
    let asked: PurgeRequest = operator::read(request, UNKNOWN).await?;
    let wanted = asked.meaning(&instance)?;
    let what = match &wanted {
        Purge::Token(_) => "a token",
        Purge::Subject(..) => "a subject",
        Purge::Everybody => "everybody",
    };
    // As a task, so that a purge does not end half-way if its caller disconnects.
    let purging = tokio::spawn(async move {
        // A disk that hangs must not delay the purge of memory.
        let records = tokio::time::timeout(COUNT_TIMEOUT, instance.stores.known_of(&wanted)).await.ok();
        (records, instance.stores.purge(wanted).await)
    });
    Ok(match purging.await {
        Ok((records, Ok(()))) => {
            let counted = counted(records);
            info!("purged: {what}; {counted}");
            text(StatusCode::OK, format!("forgotten: {what}; {counted}\n"))
        }
        Ok((_, Err(error))) => {
            warn!("purged from memory, but not everywhere yet: {what}: {error}");
            text(StatusCode::ACCEPTED, format!("forgotten in memory: {what}; {error}\n"))
        }
        Err(error) => {
            warn!("a purge ended half-way: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "not purged: repeat it\n")
        }
    })
}

/// The number of records, as a phrase.
fn counted(records: Option<u64>) -> String {
    match records {
        None => "the number of records is unknown: the disk is slow".to_owned(),
        Some(0) => "0 records were known here: is it spelled right?".to_owned(),
        Some(1) => "1 record".to_owned(),
        Some(records) => format!("{records} records"),
    }
}

impl PurgeRequest {
    fn meaning(self, instance: &Instance) -> Result<Purge, OperatorError> {
        match self {
            Self { subject: Some(subject), issuer, token: None, all: false } => {
                let issuers = operator::issuers(issuer, instance)?;
                let keys = issuers.iter().map(|issuer| instance.digester.subject(issuer, &subject)).collect();
                Ok(Purge::Subject(Subject { subject, issuers }, keys))
            }
            Self { subject: None, issuer: None, token: Some(token), all: false } => {
                Ok(Purge::Token(instance.digester.token(token.as_bytes())))
            }
            Self { subject: None, issuer: None, token: None, all: true } => Ok(Purge::Everybody),
            _ => Err(UNKNOWN),
        }
    }
}
