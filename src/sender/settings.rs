//! Settings for DPoP proofs.

use std::time::Duration;

/// `[dpop]`.
#[derive(Clone, Debug)]
pub struct DpopSettings {
    /// `proof_age`: how long after its `iat` a proof is accepted. Default 60 s.
    pub proof_age: Duration,
}
