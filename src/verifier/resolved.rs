//! A signed token of a known issuer, before its key is known.

use std::sync::Arc;

use super::issuers::Issuers;
use crate::issuer::Issuer;
use crate::token::algorithm::SignatureAlgorithm;
use crate::token::compact::UnverifiedJws;
use crate::token::jws::{self, TokenUse};
use crate::token::refusal::Refusal;

/// A JWS with the issuer that it names and an algorithm that this issuer allows. Nothing else of an untrusted
/// token may be used before its key is known.
pub(super) struct ResolvedJws {
    pub(super) issuer: Arc<Issuer>,
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) kid: Option<String>,
    /// Whether its `typ` is `at+jwt`.
    pub(super) at_jwt: bool,
    pub(super) token: String,
}

impl ResolvedJws {
    /// Resolves `jws` to one of `issuers`. `token` is the complete token.
    pub(super) fn new(
        jws: &UnverifiedJws<'_>,
        token: &str,
        used_as: TokenUse,
        issuers: &Issuers,
    ) -> Result<Self, Refusal> {
        let issuer = issuers.named(jws::named_issuer(jws)?.as_deref())?;
        let algorithm = jws::allowed_algorithm(jws, used_as, &issuer.settings().algorithms)?;
        let (kid, token) = (jws.header.kid.clone(), token.to_owned());
        let at_jwt = jws::is_at_jwt(&jws.header);
        Ok(Self { issuer: issuer.clone(), algorithm, kid, at_jwt, token })
    }
}
