//! What an operator posts to the admin listener: a short JSON object.
//!
//! It has to say that it is JSON: a web page in an operator's browser can make it post a form to a loopback address, but
//! not JSON.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::credential::MAX_TOKEN_BYTES;

/// A token, and what stands around it.
const MAX_BODY_BYTES: usize = 2 * MAX_TOKEN_BYTES;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an order is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum OrderRefused {
    /// It does not say that it is JSON.
    #[error("send JSON, with Content-Type: application/json")]
    MediaType,
    /// There is none, or too much.
    #[error("the body did not come, or is longer than 32 KiB")]
    Body,
    /// It is not one of these. What it is instead is not repeated: it may hold a token.
    #[error("the body is none of {0}")]
    Unknown(&'static str),
}

impl OrderRefused {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body | Self::Unknown(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads an order; `unknown` is the error for a body that is something else.
pub(super) async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    unknown: OrderRefused,
) -> Result<T, OrderRefused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(OrderRefused::MediaType);
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).map_err(|_| unknown),
        Ok(Err(_)) | Err(_) => Err(OrderRefused::Body),
    }
}
