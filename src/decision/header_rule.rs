//! Which identity headers a 200 carries.

use hyper::header::HeaderName;

use crate::token::pointer::ClaimPath;

/// One row of `[headers]`: a response header and the claim it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// The header.
    pub name: HeaderName,
    /// The claim; `email` and `sub` mean the resolved email and subject.
    pub claim: ClaimPath,
    /// `join`: the items of a list are sent, with this ASCII character between them. Without it a list counts
    /// as absent.
    pub join: Option<char>,
    /// What to do when there is no such claim.
    pub absent: WhenAbsent,
}

/// A 200 carries every configured header, non-empty: some proxies let the client's own through when ours is
/// absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenAbsent {
    /// `required = true`: no 200 without it.
    Refuse,
    /// `default = "…"`: this is sent instead.
    Default(String),
}

impl HeaderRule {
    /// The most bytes for the lines of all rows and of `X-Auth-Tier` in an answer. nginx has 4 KiB for the
    /// whole head; the rest is for the status line and the lines that do not depend on the identity.
    pub const MAX_BYTES: usize = 3584;

    /// The length of a header line: name, colon, blank, value, and the line's end.
    #[must_use]
    pub fn line_bytes(name: &HeaderName, value: &str) -> usize {
        name.as_str().len() + value.len() + 4
    }
}
