//! Who it is, and as what it is served.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::issuer::CannotTell;
use crate::revocation::Checked;
use crate::store::invalidation::Epoch;
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::Serving;
use crate::tiers::record::IdentitySource;
use crate::tiers::table::TierIndex;
use crate::token::email::Email;
use crate::token::json::Object;

/// A verified identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who vouches for it.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: String,
    /// The email, if one is known.
    pub email: Option<Email>,
    /// Whether the issuer says that the email is verified.
    pub email_verified: Option<bool>,
    /// Whether there is none because the issuer names only addresses that it may not name (`email_domains`).
    pub email_not_allowed: bool,
    /// Where the email came from.
    pub source: IdentitySource,
    /// Whether `aud` was checked; it cannot be for a foreign token.
    pub audience_checked: bool,
    /// The claims, for other headers and for route requirements.
    pub claims: Object,
    /// When the oldest part of it was vouched for.
    pub verified_at: Timestamp,
}

/// An identity, and as what it is served.
pub struct Resolved {
    /// The identity.
    pub identity: Identity,
    /// The tier, and for how long.
    pub serving: Serving,
    /// The store that the tier's record came from; `None` if it was made just now.
    pub store: Option<&'static str>,
    /// When it was checked against what is revoked.
    pub checked: Checked,
    /// Why the issuer could not tell, if no email is known for that reason.
    pub email_unknown: Option<CannotTell>,
}

/// A token under judgement.
#[derive(Clone, Copy)]
pub struct Attempt<'t> {
    /// The token.
    pub token: &'t str,
    /// Its digest.
    pub digest: TokenDigest,
    /// When the judgement began.
    pub since: Epoch,
    /// The oldest tier that is of use: rather than to serve an older one, the issuer is asked.
    pub oldest: Option<TierIndex>,
}
