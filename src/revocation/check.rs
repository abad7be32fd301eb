//! Checks whether a token is revoked, by the settings of one configuration.

use std::sync::Arc;

use super::denial::{Kind, RevocationKey};
use super::set::{Checked, RevocationSet, TokenFacts};
use super::settings::RevocationSettings;
use crate::clock::Timestamp;
use crate::tiers::digest::{SubjectKey, TokenDigester};
use crate::token::json::Object;
use crate::token::refusal::Refusal;

/// Checks tokens against the deny records.
pub struct RevocationCheck {
    set: Arc<RevocationSet>,
    settings: RevocationSettings,
    digester: Arc<TokenDigester>,
}

/// A token that passed all checks except revocation.
#[derive(Clone, Copy)]
pub struct GoodToken<'t> {
    /// The issuer that vouches for it.
    pub issuer: &'t str,
    /// The key of its subject.
    pub subject: SubjectKey,
    /// Its claims, or those of `/userinfo`.
    pub claims: &'t Object,
    /// The token itself.
    pub token: &'t str,
    /// The key that signed it, if it was verified here and has a `kid`.
    pub kid: Option<&'t str>,
    /// `iat`, or the Unix epoch if there is none. For a foreign token: when its issuer first vouched for it.
    pub issued_at: Timestamp,
}

impl RevocationCheck {
    /// Checks against `set`.
    #[must_use]
    pub const fn new(
        set: Arc<RevocationSet>,
        settings: RevocationSettings,
        digester: Arc<TokenDigester>,
    ) -> Self {
        Self { set, settings, digester }
    }

    /// Checks a token. Cache an answer for it together with the returned mark.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check(&self, token: GoodToken<'_>) -> Result<Checked, Refusal> {
        let GoodToken { issuer, claims, token: text, kid, issued_at, .. } = token;
        let subject = RevocationKey::subject(&token.subject);
        let session = self.settings.session(claims);
        let session = session.map(|session| RevocationKey::session(&self.digester, issuer, session));
        // The mark is taken before the records are read: a revocation in between makes the answer outdated.
        let checked = self.set.mark(&subject, session.as_ref());
        let facts = TokenFacts { issuer, subject, session, token: text, kid, issued_at };
        match self.set.denies(&facts, &self.digester) {
            Some(kind) => Err(Refusal::Revoked { kind: kind.name() }),
            None => Ok(checked),
        }
    }

    /// Checks whether this exact token is revoked. Nothing else about the token needs to be known.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check_token(&self, token: &str) -> Result<(), Refusal> {
        match self.set.denies_token(token, &self.digester) {
            true => Err(Refusal::Revoked { kind: Kind::Token.name() }),
            false => Ok(()),
        }
    }
}
