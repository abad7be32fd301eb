//! An identity, and how it is served.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::issuer::CannotTell;
use crate::revocation::Checked;
use crate::store::invalidation::Epoch;
use crate::tiers::digest::TokenDigest;
use crate::tiers::policy::Serving;
use crate::tiers::record::IdentitySource;
use crate::tiers::table::TierIndex;
use crate::token::binding::Binding;
use crate::token::email::Email;
use crate::token::json::Object;

/// A verified identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The issuer that vouches for it.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: String,
    /// The email, if one is known.
    pub email: Option<Email>,
    /// Whether the issuer says that the email is verified.
    pub email_verified: Option<bool>,
    /// Whether the email is missing because `email_domains` allows no address that the issuer names.
    pub email_not_allowed: bool,
    /// The source of the email.
    pub source: IdentitySource,
    /// Whether `aud` was checked. It cannot be checked for a foreign token.
    pub audience_checked: bool,
    /// Whether the token's header says that it is an access token: `typ` is `at+jwt`.
    pub at_jwt: bool,
    /// What the token is bound to.
    pub binding: Binding,
    /// The claims, for other headers and for route requirements.
    pub claims: Object,
    /// Whether they are the token's own. What `/userinfo` says of a foreign token is about its subject.
    pub own_claims: bool,
    /// The `name` that `/userinfo` has, if the claims have none.
    pub name: Option<String>,
    /// When the issuer vouched for its oldest part.
    pub verified_at: Timestamp,
}

/// An identity, and how it is served.
pub struct Resolved {
    /// The identity.
    pub identity: Identity,
    /// The tier, and how long the answer is valid.
    pub serving: Serving,
    /// The store that the record came from; `None` if the record was made for this request.
    pub store: Option<&'static str>,
    /// When it was checked for revocation.
    pub checked: Checked,
    /// Why the issuer could not tell the email, if the email is unknown for that reason.
    pub email_unknown: Option<CannotTell>,
}

/// A token that is being checked.
#[derive(Clone, Copy)]
pub struct Attempt<'t> {
    /// The token.
    pub token: &'t str,
    /// Its digest.
    pub digest: TokenDigest,
    /// When the check began.
    pub since: Epoch,
    /// The oldest tier that may answer. The issuer is asked instead of serving an older one.
    pub oldest: Option<TierIndex>,
}
