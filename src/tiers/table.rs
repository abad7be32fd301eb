//! The table of tiers: age classes of a record, youngest first.
//!
//! A tier is an age, not a place. A record has one time, `verified_at`, and the clock decides in which row of
//! this table it is. So seven tiers cost one record per store, and no two of them can disagree.
//!
//! Only [`TierTable::new`] makes a [`TierTable`], and it checks it. So no code needs to check again that ages
//! rise and names are unique.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The greatest number of rows: each row is a value of a metric label, and labels must stay bounded.
pub const MAX_TIERS: usize = 32;

/// The greatest length of a tier's name, in bytes: it is sent in `X-Auth-Tier` with every answer.
pub const MAX_NAME_LENGTH: usize = 32;

/// What may be done with a record of a tier, in the order from fresh to stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Answer from the record.
    Fresh,
    /// Answer from the record, and ask the issuer in the background.
    Revalidate,
    /// Ask the issuer first; answer from the record only if the issuer cannot tell.
    Outage,
}

impl Role {
    /// All roles, from fresh to stale.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Revalidate, Self::Outage];

    /// The name, in the configuration and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Revalidate => "revalidate",
            Self::Outage => "outage",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The name, in answers and metrics: `[a-z0-9-]+`.
    pub name: String,
    /// The greatest age that a record of this tier may have, inclusive.
    pub age: Duration,
    /// What may be done with a record of this tier.
    pub role: Role,
}

/// The position of a tier in its table: 0 is the youngest. A smaller index is always a younger tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TierIndex(u8);

impl TierIndex {
    /// The youngest tier, which every table has.
    pub const YOUNGEST: Self = Self(0);

    /// The index as a number, for arrays of counters.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The index as a byte, for [`TierIndex::from_byte`].
    pub(crate) const fn to_byte(self) -> u8 {
        self.0
    }

    /// The index of a byte made by [`TierIndex::to_byte`].
    pub(crate) const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

/// A checked table of tiers: at least one row, strictly rising ages, unique names, and roles that never
/// become fresher with age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierTable {
    rows: Vec<Tier>,
}

impl TierTable {
    /// Checks the rows, youngest first, and makes a table of them.
    ///
    /// # Errors
    /// The first fault, and its row.
    pub fn new(rows: Vec<Tier>) -> Result<Self, TierTableError> {
        if rows.is_empty() {
            return Err(TierTableError::Empty);
        }
        if rows.len() > MAX_TIERS {
            return Err(TierTableError::TooMany { rows: rows.len() });
        }
        let mut rows_by_name = HashMap::new();
        let mut younger: Option<&Tier> = None;
        for (row, tier) in (1..).zip(&rows) {
            check_name(row, &tier.name)?;
            if let Some(first) = rows_by_name.insert(tier.name.as_str(), row) {
                return Err(TierTableError::DuplicateName { row, name: tier.name.clone(), first });
            }
            if tier.age <= younger.map_or(Duration::ZERO, |younger| younger.age) {
                return Err(TierTableError::AgeDoesNotRise { row, name: tier.name.clone() });
            }
            if let Some(younger) = younger.filter(|younger| tier.role < younger.role) {
                return Err(TierTableError::RoleGetsFresher {
                    row,
                    name: tier.name.clone(),
                    role: tier.role,
                    younger: younger.role,
                });
            }
            younger = Some(tier);
        }
        Ok(Self { rows })
    }

    /// The tier of a record of this age: the youngest tier whose age it does not exceed; `None` if it is
    /// older than all tiers.
    #[must_use]
    pub fn tier_of(&self, age: Duration) -> Option<TierIndex> {
        self.position(|tier| age <= tier.age)
    }

    /// The tier of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TierIndex> {
        self.position(|tier| tier.name == name)
    }

    /// The row at `index`; `None` for an index of a longer table, such as the table before a reload.
    #[must_use]
    pub fn row(&self, index: TierIndex) -> Option<&Tier> {
        self.rows.get(index.as_usize())
    }

    /// The oldest tier.
    #[must_use]
    pub fn oldest(&self) -> TierIndex {
        index(self.rows.len() - 1)
    }

    /// All rows with their positions, youngest first.
    pub fn iter(&self) -> impl Iterator<Item = (TierIndex, &Tier)> {
        self.rows.iter().enumerate().map(|(row, tier)| (index(row), tier))
    }

    fn position(&self, matches: impl FnMut(&Tier) -> bool) -> Option<TierIndex> {
        self.rows.iter().position(matches).map(index)
    }
}

impl Default for TierTable {
    /// The seven tiers of the default: primary, secondary, emergency, ultra-backup, disaster-recovery,
    /// last-resort, ultimate-fallback.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        let rows = [
            ("primary", 4 * HOUR, Role::Fresh),
            ("secondary", 12 * HOUR, Role::Revalidate),
            ("emergency", 48 * HOUR, Role::Outage),
            ("ultra-backup", 14 * DAY, Role::Outage),
            ("disaster-recovery", 60 * DAY, Role::Outage),
            ("last-resort", 180 * DAY, Role::Outage),
            ("ultimate-fallback", 365 * DAY, Role::Outage),
        ];
        let tier = |(name, age, role): (&str, u64, Role)| Tier {
            name: name.to_owned(),
            age: Duration::from_secs(age),
            role,
        };
        Self { rows: rows.into_iter().map(tier).collect() }
    }
}

/// Why rows do not make a table. Rows are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierTableError {
    /// There is no row.
    #[error("the table of tiers is empty: give at least one [[tier]], or none at all for the seven defaults")]
    Empty,
    /// There are more than [`MAX_TIERS`] rows.
    #[error("the table of tiers has {rows} rows: at most {MAX_TIERS} are supported")]
    TooMany {
        /// How many there are.
        rows: usize,
    },
    /// A name is empty, too long, or has a character outside `[a-z0-9-]`.
    #[error(
        "tier {row}: the name {name:?} is not usable: write 1 to {MAX_NAME_LENGTH} of the \
         characters a-z, 0-9 and '-'"
    )]
    BadName {
        /// The row, from 1.
        row: usize,
        /// Its name.
        name: String,
    },
    /// Two rows have one name.
    #[error("tier {row}: the name {name:?} is taken by tier {first}: give each tier a name of its own")]
    DuplicateName {
        /// The second row of the name, from 1.
        row: usize,
        /// The name.
        name: String,
        /// The first row of the name.
        first: usize,
    },
    /// An age is not greater than the age before it, or the first age is zero.
    #[error(
        "tier {row} ({name}): its age is not above that of the tier before it: order the tiers by rising age"
    )]
    AgeDoesNotRise {
        /// The row, from 1.
        row: usize,
        /// Its name.
        name: String,
    },
    /// A row has a fresher role than a younger row.
    #[error(
        "tier {row} ({name}): its role {role} is fresher than {younger}, that of a younger tier: \
         older records cannot be trusted more"
    )]
    RoleGetsFresher {
        /// The row, from 1.
        row: usize,
        /// Its name.
        name: String,
        /// Its role.
        role: Role,
        /// The role of the row before it.
        younger: Role,
    },
}

impl TierTableError {
    /// The faulty row, from 1; `None` if the table as a whole is faulty.
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::Empty | Self::TooMany { .. } => None,
            Self::BadName { row, .. }
            | Self::DuplicateName { row, .. }
            | Self::AgeDoesNotRise { row, .. }
            | Self::RoleGetsFresher { row, .. } => Some(*row),
        }
    }
}

fn check_name(row: usize, name: &str) -> Result<(), TierTableError> {
    let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(usable) {
        return Err(TierTableError::BadName { row, name: name.to_owned() });
    }
    Ok(())
}

/// Rows are at most [`MAX_TIERS`], so the number is kept.
fn index(row: usize) -> TierIndex {
    TierIndex(u8::try_from(row).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &str, age: u64, role: Role) -> Tier {
        Tier { name: name.to_owned(), age: Duration::from_secs(age), role }
    }

    #[test]
    fn the_default_table_passes_its_own_check() {
        let default = TierTable::default();
        assert_eq!(TierTable::new(default.rows.clone()), Ok(default));
    }

    #[test]
    fn a_bad_table_is_refused_and_the_error_names_the_row() {
        use Role::{Fresh, Outage, Revalidate};
        let cases: [(Vec<Tier>, &str); 8] = [
            (vec![], "empty"),
            (vec![tier("a", 0, Fresh)], "tier 1 (a): its age"),
            (vec![tier("a", 2, Fresh), tier("b", 2, Outage)], "tier 2 (b): its age"),
            (vec![tier("a", 2, Fresh), tier("b", 1, Outage)], "tier 2 (b): its age"),
            (
                vec![tier("a", 1, Fresh), tier("b", 2, Outage), tier("a", 3, Outage)],
                "tier 3: the name \"a\" is taken by tier 1",
            ),
            (vec![tier("a", 1, Fresh), tier("B", 2, Outage)], "tier 2: the name \"B\" is not usable"),
            (vec![tier("", 1, Fresh)], "tier 1: the name \"\" is not usable"),
            (
                vec![tier("a", 1, Outage), tier("b", 2, Revalidate)],
                "tier 2 (b): its role revalidate is fresher than outage",
            ),
        ];
        for (rows, sentence) in cases {
            let error = TierTable::new(rows).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error:?} does not say {sentence:?}");
        }
        let long = (1..=33).map(|age| tier(&format!("t{age}"), age, Fresh)).collect();
        assert_eq!(TierTable::new(long), Err(TierTableError::TooMany { rows: 33 }));
        let long_name = "n".repeat(MAX_NAME_LENGTH + 1);
        assert!(matches!(
            TierTable::new(vec![tier(&long_name, 1, Fresh)]),
            Err(TierTableError::BadName { row: 1, .. })
        ));
    }

    #[test]
    fn an_age_belongs_to_the_youngest_tier_that_reaches_it() {
        let table =
            TierTable::new(vec![tier("young", 10, Role::Fresh), tier("old", 20, Role::Outage)]).unwrap();
        let of = |secs| {
            table.tier_of(Duration::from_secs(secs)).and_then(|at| table.row(at)).map(|row| row.name.as_str())
        };
        assert_eq!(
            [0, 10, 11, 20, 21].map(of),
            [Some("young"), Some("young"), Some("old"), Some("old"), None]
        );
        assert_eq!(table.tier_of(Duration::from_millis(10_001)), table.find("old"));
        assert_eq!(table.find("old"), Some(table.oldest()));
        assert_eq!(table.find("nowhere"), None);
        assert_eq!(
            TierTable::default().row(TierTable::default().oldest()).unwrap().name,
            "ultimate-fallback"
        );
        assert_eq!(table.row(TierTable::default().oldest()), None);
    }
}
