//! `POST /checkpoint` on the admin listener: make a checkpoint of the disk store now, which `holdfast backup`
//! then copies.
//!
//! holdfast itself chooses the directory, so that no client of the listener can make it write elsewhere.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use tracing::{info, warn};

use super::operator::{self, OperatorError};
use super::plain::{Reply, text};
use crate::instance::Instance;
use crate::store::disk::DiskError;

/// An empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointRequest {}

/// Makes the checkpoint, and answers after it is made.
pub(super) async fn answer(instance: &Instance, request: Request<Incoming>) -> Result<Reply, OperatorError> {
    let _: CheckpointRequest = operator::read(request, OperatorError::Unknown("{}")).await?;
    Ok(match instance.stores.checkpoint().await {
        Ok(path) => {
            info!(path = %path.display(), "a checkpoint was made at an operator's request");
            text(StatusCode::OK, format!("checkpoint made: {}\n", path.display()))
        }
        Err(DiskError::NothingThere { .. }) => {
            text(StatusCode::NOT_FOUND, "no checkpoint: everything is kept in memory\n")
        }
        Err(error) => {
            warn!("no checkpoint was made: {error}");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("no checkpoint: {error}\n"))
        }
    })
}
