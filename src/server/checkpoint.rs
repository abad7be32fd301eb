//! `POST /checkpoint` on the admin listener: make a checkpoint of the disk store now, which `holdfast backup`
//! then copies.
//!
//! Where it lies is holdfast's own choice: nobody who reaches the listener can have it write anywhere else.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use tracing::{info, warn};

use super::order::{self, OrderRefused};
use super::plain::text;
use crate::instance::Instance;
use crate::store::disk::DiskError;

/// There is nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointRequest {}

/// Answers when the checkpoint is made.
pub(super) async fn answer(instance: &Instance, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let order: Result<CheckpointRequest, _> = order::read(request, OrderRefused::Unknown("{}")).await;
    if let Err(refused) = order {
        return text(refused.status(), format!("{refused}\n"));
    }
    match instance.stores.checkpoint().await {
        Ok(path) => {
            info!(path = %path.display(), "a checkpoint was asked for and made");
            text(StatusCode::OK, format!("checkpoint made: {}\n", path.display()))
        }
        Err(DiskError::NothingThere { .. }) => {
            text(StatusCode::NOT_FOUND, "no checkpoint: everything is kept in memory\n")
        }
        Err(error) => {
            warn!("no checkpoint was made: {error}");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("no checkpoint: {error}\n"))
        }
    }
}
