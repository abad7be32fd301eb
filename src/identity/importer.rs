//! Imports profiles from the issuer's own export of users, as if `/userinfo` had returned them.
//!
//! The rules for an answer of `/userinfo` apply to each user: `email_claims`, `email_domains` and
//! `require_verified_email` work in the same way. A profile without an email that counts would not be stored,
//! so such a user is refused, with the reason.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::from_claims;
use crate::clock::Timestamp;
use crate::issuer::settings::IssuerSettings;
use crate::issuer::userinfo::subject_of;
use crate::store::importing::{ImportError, Imported};
use crate::store::stores::Stores;
use crate::tiers::digest::{SubjectKey, TokenDigester};
use crate::tiers::record::ProfileRecord;
use crate::token::email::{self, EmailRules};
use crate::token::json::Object;

/// Stores the users of one export.
pub struct Importer {
    /// The issuer of the users.
    pub issuer: IssuerSettings,
    /// `policy.require_verified_email`.
    pub require_verified_email: bool,
    /// Makes the keys of subjects.
    pub digester: Arc<TokenDigester>,
    /// Where profiles are kept.
    pub stores: Arc<Stores>,
    /// When the export was made. The profiles count as verified at this time.
    pub exported_at: Timestamp,
}

/// The result of importing some users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How many were stored.
    pub kept: u64,
    /// How many were known already, from this export or from a newer answer of the issuer.
    pub known: u64,
    /// The users that were refused.
    pub refused: Vec<RefusedUser>,
}

/// A user that was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedUser {
    /// The index of the user in the input, from 0.
    pub index: usize,
    /// Why the user was refused.
    pub why: String,
}

/// Why a user is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Unfit {
    #[error("no user_id or sub of 1 to 255 bytes")]
    Subject,
    #[error("no email, or not a valid address")]
    Email,
    #[error("the email is not marked as verified, and policy.require_verified_email is on")]
    Unverified,
    #[error("the email is of a domain that is not in the issuer's email_domains")]
    Domain,
}

impl Importer {
    /// Stores these users. Each has the claims that `/userinfo` would return (`sub`, `email`,
    /// `email_verified`, `name`). When this returns, the profiles are synced to the disk.
    ///
    /// # Errors
    /// When a store cannot write them. Some of them may have been stored.
    pub async fn keep(&self, users: &[Object]) -> Result<Outcome, ImportError> {
        let (mut profiles, mut refused) = (Vec::with_capacity(users.len()), Vec::new());
        for (index, claims) in users.iter().enumerate() {
            match self.profile(claims) {
                Ok(profile) => profiles.push(profile),
                Err(why) => refused.push(RefusedUser { index, why: why.to_string() }),
            }
        }
        let Imported { kept, known } = self.stores.import(profiles).await?;
        Ok(Outcome { kept, known, refused })
    }

    fn profile(&self, claims: &Object) -> Result<(SubjectKey, ProfileRecord), Unfit> {
        let subject = subject_of(claims).ok_or(Unfit::Subject)?;
        let rules = self.issuer.email_rules(self.require_verified_email);
        let found = email::find(claims, rules).ok_or_else(|| why_none(claims, rules))?;
        let record = from_claims::record(claims, Some(found), &self.issuer, self.exported_at);
        Ok((self.digester.subject(&self.issuer.url, subject), record))
    }
}

/// Why no email in these claims counts.
fn why_none(claims: &Object, rules: EmailRules<'_>) -> Unfit {
    let any = EmailRules { require_verified: false, domains: &[], ..rules };
    match (email::find(claims, any), email::find(claims, EmailRules { domains: &[], ..rules })) {
        (None, _) => Unfit::Email,
        (Some(_), None) => Unfit::Unverified,
        (Some(_), Some(_)) => Unfit::Domain,
    }
}
