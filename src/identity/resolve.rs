//! Resolves claims, or the issuer's answer, to an identity.

use std::sync::Arc;

use super::identities::Identities;
use super::lookup::{Answered, Bounds};
use super::profile::Profile;
use super::resolved::{Attempt, Identity, Resolved};
use super::verdict::Verdict;
use crate::clock::Timestamp;
use crate::issuer::userinfo::Reach;
use crate::issuer::{CannotTell, Issuer};
use crate::revocation::{Checked, GoodToken};
use crate::tiers::record::{IdentitySource, VerdictRecord};
use crate::token::binding::Binding;
use crate::token::claims::VerifiedClaims;
use crate::token::email::Email;
use crate::token::refusal::Refusal;
use crate::verifier::{Failure, Verified};

impl Identities {
    /// Resolves `verified`.
    ///
    /// # Errors
    /// [`Failure`]: the issuer refuses the token, or it cannot tell and no tier may answer.
    pub async fn resolve(
        self: &Arc<Self>,
        verified: Verified,
        attempt: Attempt<'_>,
    ) -> Result<Resolved, Failure> {
        match verified {
            Verified::Local { issuer, claims, kid, at_jwt, binding } => {
                self.local((issuer, claims, kid), (at_jwt, binding), attempt).await
            }
            Verified::Foreign { issuer, why } => self.foreign(issuer, why.to_string(), attempt).await,
        }
    }

    async fn local(
        self: &Arc<Self>,
        (issuer, claims, kid): (Arc<Issuer>, VerifiedClaims, Option<String>),
        (at_jwt, binding): (bool, Binding),
        attempt: Attempt<'_>,
    ) -> Result<Resolved, Failure> {
        let now = self.clock.now();
        let key = self.digester.subject(issuer.name(), claims.subject());
        let checked = self.revocations.check(GoodToken {
            issuer: issuer.name(),
            subject: claims.subject(),
            claims: claims.all(),
            token: attempt.token,
            kid: kid.as_deref(),
            issued_at: claims.issued_at(),
        })?;
        let expires_at = claims.expires_at();
        // In grace the answer is for this request only and is not cached, so that the token is refused as
        // soon as the breaker closes.
        let end = if claims.in_grace() { now } else { claims.not_after() };
        let bounds = Bounds { end, oldest: attempt.oldest };
        let mut identity = Identity {
            issuer: issuer.name().clone(),
            subject: claims.subject().to_owned(),
            email: None,
            email_verified: None,
            email_not_allowed: false,
            source: IdentitySource::Claims,
            audience_checked: true,
            at_jwt,
            binding,
            claims: claims.into_all(),
            own_claims: true,
            name: None,
            verified_at: now,
        };
        let (mut serving, mut store) = (self.serve_claims(now, end), None);
        let mut email_unknown = None;
        if let Some(found) = self.find_email(&issuer, &identity.claims) {
            self.metrics.email_from(&found.path);
            (identity.email, identity.email_verified) = (Some(found.email), found.verified);
        } else if self.names_others(&issuer, &identity.claims) {
            // The issuer signed this email. `/userinfo` would return the same one.
            self.metrics.email_from("not_allowed");
            identity.email_not_allowed = true;
        } else if let reach @ (Reach::Listed | Reach::Possible) = issuer.reach(&identity.claims) {
            let profile = Profile {
                reach,
                key,
                issuer,
                subject: identity.subject.clone(),
                token: attempt.token.to_owned(),
                digest: attempt.digest,
                expires_at,
            };
            match self.answer(profile, bounds).await {
                Ok(answered) => {
                    let record = answered.record;
                    identity.email = record.email.as_deref().and_then(Email::parse);
                    identity.email_verified = record.email_verified;
                    identity.name.clone_from(&record.name);
                    identity.source = IdentitySource::Userinfo;
                    identity.verified_at = record.verified_at;
                    (serving, store) = (answered.serving, answered.store);
                    self.metrics.email_from(match store {
                        Some(_) => "profile",
                        None => asked_source(record.email.is_some()),
                    });
                }
                Err(Failure::CannotTell(error)) => email_unknown = Some(error),
                Err(no) => return Err(no),
            }
        } else {
            self.metrics.email_from("none");
        }
        Ok(Resolved { identity, serving, store, checked, email_unknown })
    }

    /// Resolves a token that only the issuer can verify.
    async fn foreign(
        self: &Arc<Self>,
        issuer: Arc<Issuer>,
        why: String,
        attempt: Attempt<'_>,
    ) -> Result<Resolved, Failure> {
        let (token, digest) = (attempt.token.to_owned(), attempt.digest);
        self.revocations.check_token(attempt.token)?;
        // A token that is known to be revoked costs no call.
        if let Some(record) = self.stores.verdict_of(&digest, &(Timestamp::EPOCH..=self.clock.now()))
            && let Some(identity) = self.identity_of(&issuer, &record)
        {
            self.check_foreign(&identity, &record, attempt.token)?;
        }
        let verdict = Verdict { issuer: issuer.clone(), token, digest, since: attempt.since, why };
        let bounds = Bounds { end: Timestamp::MAX, oldest: attempt.oldest };
        let Answered { record, serving, store } = self.answer(verdict, bounds).await?;
        let identity = self.identity_of(&issuer, &record).ok_or(CannotTell::Garbage("unreadable claims"))?;
        if store.is_none() {
            self.metrics.email_from(asked_source(identity.email.is_some()));
        }
        let checked = self.check_foreign(&identity, &record, attempt.token)?;
        Ok(Resolved { identity, serving, store, checked, email_unknown: None })
    }

    /// Checks a foreign token for revocation. Its `iat` is not readable, so it counts as issued when its
    /// issuer first vouched for it.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    fn check_foreign(
        &self,
        identity: &Identity,
        record: &VerdictRecord,
        token: &str,
    ) -> Result<Checked, Refusal> {
        self.revocations.check(GoodToken {
            issuer: &identity.issuer,
            subject: &identity.subject,
            claims: &identity.claims,
            token,
            kid: None,
            issued_at: record.first_verified_at,
        })
    }
}

/// The metric label for the source of an email after a call to the issuer.
fn asked_source(has_email: bool) -> &'static str {
    if has_email { "userinfo" } else { "none" }
}
