//! What an operator can purge: one token, one subject, everybody.
//!
//! A purge is not a revocation: the issuer is asked again and may accept the token again. It is for a record
//! that is wrong or must be removed.

use crate::tiers::digest::{SubjectKey, TokenDigest};
use crate::tiers::record::VerdictRecord;

/// What is to be forgotten.
#[derive(Clone, Debug)]
pub enum Purge {
    /// The answer and the verdict of one token. The profile of its subject stays.
    Token(TokenDigest),
    /// The verdicts of a subject, the profiles under these keys, and all answers: those are found by token
    /// only.
    Subject(Subject, Vec<SubjectKey>),
    /// All answers, verdicts and profiles.
    Everybody,
}

/// A subject of one of several issuers.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `sub`.
    pub subject: String,
    /// Whose subject it is.
    pub issuers: Vec<String>,
}

impl Subject {
    /// Whether the verdict names this subject.
    #[must_use]
    pub fn matches(&self, record: &VerdictRecord) -> bool {
        record.subject == self.subject && self.issuers.contains(&record.issuer)
    }
}
