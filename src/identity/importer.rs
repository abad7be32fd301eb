//! Profiles that an operator imports: users of the issuer's own export, as if `/userinfo` had told of them.
//!
//! Each user goes through the rules of `/userinfo`'s answer: `email_claims`, `email_domains` and
//! `require_verified_email` count in the same way. A profile without an email that counts would not be kept,
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

/// Keeps the users of one export.
pub struct Importer {
    /// Whose users they are.
    pub issuer: IssuerSettings,
    /// `policy.require_verified_email`.
    pub require_verified_email: bool,
    /// Makes the keys of subjects.
    pub digester: Arc<TokenDigester>,
    /// Where profiles are kept.
    pub stores: Arc<Stores>,
    /// When the export was made: what it says was true then.
    pub exported_at: Timestamp,
}

/// What became of some users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How many are kept from now on.
    pub kept: u64,
    /// How many were known already, from this export or from a younger word of the issuer.
    pub known: u64,
    /// Those of no use.
    pub refused: Vec<RefusedUser>,
}

/// A user that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedUser {
    /// Its place among those that were given.
    pub index: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Why a user is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Unfit {
    #[error("no user_id or sub of 1 to 255 bytes")]
    Subject,
    #[error("no email, or none that is an address")]
    Email,
    #[error("the email is not said to be verified, which policy.require_verified_email demands")]
    Unverified,
    #[error("the email is of a domain that is not in the issuer's email_domains")]
    Domain,
}

impl Importer {
    /// Keeps these users: of each the claims that `/userinfo` would give (`sub`, `email`, `email_verified`,
    /// `name`). They are synced to the disk when this is done.
    ///
    /// # Errors
    /// When a store cannot keep them. Some of them may be kept then.
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

/// Why no email of these claims counts.
fn why_none(claims: &Object, rules: EmailRules<'_>) -> Unfit {
    let any = EmailRules { require_verified: false, domains: &[], ..rules };
    match (email::find(claims, any), email::find(claims, EmailRules { domains: &[], ..rules })) {
        (None, _) => Unfit::Email,
        (Some(_), None) => Unfit::Unverified,
        (Some(_), Some(_)) => Unfit::Domain,
    }
}
