//! What an operator may have forgotten: one token, one subject, everybody.
//!
//! Purging is no revocation: whoever is asked again may well say yes again. It is for a record that is wrong, or that
//! has to go.

use std::fmt;

use super::disk::DiskError;
use super::shared::SharedError;
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

/// What could not be purged now. It is forgotten before the store answers again, and is forgotten in memory.
#[derive(Debug, thiserror::Error)]
pub struct Unfinished {
    /// What is wrong with the disk store.
    pub disk: Option<DiskError>,
    /// What is wrong with the shared store.
    pub shared: Option<SharedError>,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = "is not well and forgets before it answers again";
        let disk = self.disk.as_ref().map(|error| format!("the disk store {then}: {error}"));
        let shared = self.shared.as_ref().map(|error| format!("the shared store {then}: {error}"));
        f.write_str(&disk.into_iter().chain(shared).collect::<Vec<_>>().join("; "))
    }
}
