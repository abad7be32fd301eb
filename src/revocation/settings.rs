//! The settings of revocation.

use std::time::Duration;

use crate::token::pointer::ClaimPath;

/// `[backchannel_logout]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutSettings {
    /// `audience`: the client ids whose logout tokens are accepted.
    pub audience: Vec<String>,
}

/// `[revocation]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationSettings {
    /// `keep`: how long a deny record is kept. It must be at least the longest lifetime of a token. Default
    /// 30 days.
    pub keep: Duration,
    /// `session_claims`: the claims that may name the session of a token. The first one that is present
    /// counts. Default: `sid`, then `session_id` under any namespace.
    pub session_claims: Vec<ClaimPath>,
}

impl RevocationSettings {
    /// The default of `keep`.
    pub const KEEP: Duration = Duration::from_secs(30 * 86_400);

    /// The default of `session_claims`. Auth0 does not allow `sid` in an access token, so an Action writes a
    /// claim under a namespace.
    #[must_use]
    pub fn default_session_claims() -> Vec<ClaimPath> {
        ["sid", "*/session_id"].iter().filter_map(|path| path.parse().ok()).collect()
    }

    /// The session that these claims name, if any.
    #[must_use]
    pub fn session<'c>(&'c self, claims: &'c crate::token::json::Object) -> Option<&'c str> {
        let named = self.session_claims.iter().flat_map(|path| path.values(claims));
        named.filter_map(|value| value.as_str()).find(|session| !session.is_empty())
    }
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self { keep: Self::KEEP, session_claims: Self::default_session_claims() }
    }
}
