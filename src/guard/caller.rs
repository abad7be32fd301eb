//! Who wants to make a call.

use super::budget::Priority;
use super::subject_backoff::SubjectKey;

/// How urgent the call is, and whom it is about, if anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub priority: Priority,
    pub subject: Option<SubjectKey>,
}
