//! Checks whether a token is revoked, by the settings of one configuration.

use std::sync::Arc;

use super::denial::{Kind, RevocationKey};
use super::set::{Checked, RevocationSet, TokenFacts};
use super::settings::RevocationSettings;
use crate::clock::Timestamp;
use crate::tiers::digest::TokenDigester;
use crate::token::json::Object;
use crate::token::refusal::Refusal;

/// Checks tokens against the deny records.
pub struct RevocationCheck {
    set: Arc<RevocationSet>,
    /// The records under the old instance secret, while the secret is rotated.
    former: Option<Arc<RevocationSet>>,
    settings: RevocationSettings,
    digester: Arc<TokenDigester>,
}

/// A token that passed all checks except revocation.
#[derive(Clone, Copy)]
pub struct GoodToken<'t> {
    /// The issuer that vouches for it.
    pub issuer: &'t str,
    /// Its subject.
    pub subject: &'t str,
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
    /// Checks against `set`, and against `former` by the digests under the old instance secret.
    #[must_use]
    pub const fn new(
        set: Arc<RevocationSet>,
        former: Option<Arc<RevocationSet>>,
        settings: RevocationSettings,
        digester: Arc<TokenDigester>,
    ) -> Self {
        Self { set, former, settings, digester }
    }

    /// Checks a token. Cache an answer for it together with the returned mark.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check(&self, token: GoodToken<'_>) -> Result<Checked, Refusal> {
        let session = self.settings.session(token.claims);
        let facts = |digester: &TokenDigester| {
            let GoodToken { issuer, subject, token, kid, issued_at, .. } = token;
            let subject = RevocationKey::subject(&digester.subject(issuer, subject));
            let session = session.map(|session| RevocationKey::session(digester, issuer, session));
            TokenFacts { issuer, subject, session, token, kid, issued_at }
        };
        let current = facts(&self.digester);
        // The mark is taken before the records are read: a revocation in between makes the answer outdated.
        let checked = self.set.mark(&current.subject, current.session.as_ref());
        let kind = self.set.denies(&current, &self.digester);
        let formerly = || self.former().and_then(|(set, digester)| set.denies(&facts(digester), digester));
        match kind.or_else(formerly) {
            Some(kind) => Err(Refusal::Revoked { kind: kind.name() }),
            None => Ok(checked),
        }
    }

    fn former(&self) -> Option<(&RevocationSet, &TokenDigester)> {
        self.former.as_deref().zip(self.digester.former())
    }

    /// Checks whether this exact token is revoked. Nothing else about the token needs to be known.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check_token(&self, token: &str) -> Result<(), Refusal> {
        let denied = self.set.denies_token(token, &self.digester)
            || self.former().is_some_and(|(set, digester)| set.denies_token(token, digester));
        match denied {
            true => Err(Refusal::Revoked { kind: Kind::Token.name() }),
            false => Ok(()),
        }
    }
}
