//! `POST /import` on the admin listener: stores profiles of users from an export of their issuer.
//!
//! Every other operator request can only make holdfast forget or refuse. An import states who users are.
//! Without a token, any local program could give its own token the identity of another user. So an import
//! needs `admin.token_file`, or a client certificate.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::listener::Client;
use super::operator::{self, OperatorError};
use super::plain::{Reply, respond, text};
use crate::clock::Timestamp;
use crate::identity::importer::Importer;
use crate::instance::Instance;
use crate::token::json::Object;

const UNKNOWN: OperatorError = OperatorError::Unknown(
    r#"{"issuer": "…", "exported_at": milliseconds since 1970, "users": [{"sub": "…", "email": "…"}]}"#,
);

/// The longest request, in bytes. `holdfast import` sends less than an eighth of this before JSON escapes it.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Some users of an export.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The issuer of the users.
    pub issuer: String,
    /// When the export was made, in milliseconds since the Unix epoch. The future counts as now.
    pub exported_at: u64,
    /// The claims of each user, as `/userinfo` would give them.
    pub users: Vec<Object>,
}

/// Stores the users. Answers with the [`Outcome`](crate::identity::importer::Outcome) after they are synced
/// to the disk.
pub(super) async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
    client: Client,
) -> Result<Reply, OperatorError> {
    if instance.admin_token.is_none() && !client.is_certified {
        return Err(OperatorError::Untokened);
    }
    let asked: ImportRequest = operator::read_up_to(MAX_BODY_BYTES, request, UNKNOWN).await?;
    Ok(match importer(&asked, &instance)?.keep(&asked.users).await {
        Ok(outcome) => {
            let refused = outcome.refused.len() as u64;
            for (result, count) in [("kept", outcome.kept), ("known", outcome.known), ("refused", refused)] {
                instance.metrics.imported(result, count);
            }
            info!(kept = outcome.kept, known = outcome.known, refused, "profiles were imported");
            match serde_json::to_vec(&outcome) {
                Ok(body) => respond(StatusCode::OK, "application/json", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        Err(error) => {
            warn!("profiles were not imported, or only some of them: {error}");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
        }
    })
}

fn importer(asked: &ImportRequest, instance: &Instance) -> Result<Importer, OperatorError> {
    operator::issuers(Some(asked.issuer.clone()), instance)?;
    let issuer = instance.issuers.named(Some(&asked.issuer)).map_err(|_| UNKNOWN)?;
    Ok(Importer {
        issuer: issuer.settings().clone(),
        require_verified_email: instance.settings.policy.require_verified_email,
        digester: instance.digester.clone(),
        stores: instance.stores.clone(),
        exported_at: Timestamp::from_millis(asked.exported_at).min(instance.clock.now()),
    })
}
