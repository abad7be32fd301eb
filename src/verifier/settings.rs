//! Settings that apply to every issuer.

use std::time::Duration;

/// `[policy]`.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `leeway`: tolerated clock skew for `exp`, `nbf`, `iat`. Default 30 s, at most 120 s.
    pub leeway: Duration,
    /// `negative_ttl`: how long a refusal is remembered. Default 60 s.
    pub negative_ttl: Duration,
    /// `expired_grace`: how long a token is still accepted after its expiry, if it expired while the breaker
    /// was open. Default 0, which switches this off.
    pub expired_grace: Duration,
    /// `verdict_ceiling`: the oldest tier whose verdict on a foreign token may be served. Default
    /// `emergency`.
    pub verdict_ceiling: String,
    /// `require_verified_email`: an email counts only with `email_verified: true`. Default false.
    pub require_verified_email: bool,
}
