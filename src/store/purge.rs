//! What an operator may have forgotten: one token, one subject, everybody.
//!
//! Purging is no revocation: whoever is asked again may well say yes again. It is for a record that is wrong, or that
//! has to go.

use crate::tiers::digest::{SubjectKey, TokenDigest};
use crate::tiers::record::VerdictRecord;

/// What is to be forgotten.
#[derive(Clone, Debug)]
pub enum Purge {
    /// The answer and the verdict of one token. The profile of its subject stays.
    Token(TokenDigest),
    /// All verdicts, the profiles under these keys, and all answers: those are found by token only.
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
    pub fn is_meant_by(&self, record: &VerdictRecord) -> bool {
        record.subject == self.subject && self.issuers.contains(&record.issuer)
    }
}
