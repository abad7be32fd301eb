//! The families of records. Each has its own place in every store.

/// The four kinds of data that a store keeps apart: column families on disk, key prefixes in the shared
/// store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// [`VerdictRecord`](super::record::VerdictRecord)s, by token digest.
    Verdicts,
    /// [`ProfileRecord`](super::record::ProfileRecord)s, by subject key.
    Profiles,
    /// [`KeysRecord`](super::record::KeysRecord)s, by issuer.
    Keys,
    /// Deny records, by what they deny.
    Revocations,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Verdicts, Self::Profiles, Self::Keys, Self::Revocations];

    /// The name of the column family.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdicts => "verdicts",
            Self::Profiles => "profiles",
            Self::Keys => "keys",
            Self::Revocations => "revocations",
        }
    }
}
