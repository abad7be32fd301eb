//! `[[tier]]`: the age classes of records.

use super::section::Section;
use super::value::{self, DAY, SECOND};
use crate::tiers::table::{Role, Tier, TierTable};

/// `name`, `age` and `role` of each, youngest first; the defaults if no row is set.
pub(super) fn read(root: &mut Section<'_>) -> TierTable {
    let Some(rows) = root.rows("tier") else { return TierTable::default() };
    let allowed = "a name, an age and a role for each tier";
    let mut tiers = Vec::with_capacity(rows.len());
    for mut row in rows {
        let name = row.required("name", value::text, allowed);
        let age = row.required("age", value::duration(SECOND, 10 * 366 * DAY), allowed);
        let role = |text: &str| {
            let role = Role::ALL.into_iter().find(|role| role.name() == text);
            role.ok_or_else(|| format!("one of {}", Role::ALL.map(Role::name).join(", ")))
        };
        let role = row.required("role", role, allowed);
        if let (Some(name), Some(age), Some(role)) = (name, age, role) {
            tiers.push(Tier { name, age, role });
        }
    }
    // Unreadable rows would only be reported again as missing.
    if root.has_problem("tier") {
        return TierTable::default();
    }
    TierTable::new(tiers).unwrap_or_else(|error| {
        let key = error.row().map_or("tier".to_owned(), |row| format!("tier[{}]", row - 1));
        root.unfit(&key, error.to_string());
        TierTable::default()
    })
}
