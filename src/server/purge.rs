//! `POST /purge` on the admin listener: forget a token, a subject, or everybody.
//!
//! The body is JSON and has to say so: a web page in an operator's browser can make it post a form to a loopback
//! address, but not JSON.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{info, warn};

use super::admin::text;
use crate::credential::MAX_TOKEN_BYTES;
use crate::instance::Instance;
use crate::tiers::purge::{Purge, Subject};

/// A token, and what stands around it.
const MAX_BODY_BYTES: usize = 2 * MAX_TOKEN_BYTES;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked for: exactly one of `subject`, `token`, `all`.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// `sub` of the subject to forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Whose subject; without it, the subject of that name at any configured issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The token to forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether to forget everybody.
    #[serde(default)]
    pub all: bool,
}

/// Why a purge is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum PurgeRefused {
    #[error("send JSON, with Content-Type: application/json")]
    MediaType,
    #[error("the body did not come, or is longer than 32 KiB")]
    Body,
    #[error(r#"the body is none of {{"subject": "…", "issuer": "…"}}, {{"token": "…"}}, {{"all": true}}"#)]
    Unknown,
}

impl PurgeRefused {
    const fn status(self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body | Self::Unknown => StatusCode::BAD_REQUEST,
        }
    }
}

/// Does what the request asks for, and answers when it is done.
pub(super) async fn answer(instance: Arc<Instance>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let wanted = match read(request).await.and_then(|body| body.meaning(&instance)) {
        Ok(wanted) => wanted,
        Err(refused) => return text(refused.status(), format!("{refused}\n")),
    };
    let what = match &wanted {
        Purge::Token(_) => "a token",
        Purge::Subject(..) => "a subject",
        Purge::Everybody => "everybody",
    };
    match instance.stores.purge(wanted).await {
        Ok(()) => {
            info!("purged: {what}");
            text(StatusCode::OK, format!("forgotten: {what}\n"))
        }
        Err(error) => {
            warn!("purged from memory, but not everywhere yet: {what}: {error}");
            text(StatusCode::ACCEPTED, format!("forgotten in memory: {what}; {error}\n"))
        }
    }
}

async fn read(request: Request<Incoming>) -> Result<PurgeRequest, PurgeRefused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(PurgeRefused::MediaType);
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).map_err(|_| PurgeRefused::Unknown),
        Ok(Err(_)) | Err(_) => Err(PurgeRefused::Body),
    }
}

impl PurgeRequest {
    fn meaning(self, instance: &Instance) -> Result<Purge, PurgeRefused> {
        match self {
            Self { subject: Some(subject), issuer, token: None, all: false } => {
                let issuers = match issuer {
                    Some(issuer) => vec![issuer],
                    None => instance.issuers.iter().map(|issuer| issuer.name().to_string()).collect(),
                };
                let keys = issuers.iter().map(|issuer| instance.digester.subject(issuer, &subject)).collect();
                Ok(Purge::Subject(Subject { subject, issuers }, keys))
            }
            Self { subject: None, issuer: None, token: Some(token), all: false } => {
                Ok(Purge::Token(instance.digester.token(token.as_bytes())))
            }
            Self { subject: None, issuer: None, token: None, all: true } => Ok(Purge::Everybody),
            _ => Err(PurgeRefused::Unknown),
        }
    }
}
