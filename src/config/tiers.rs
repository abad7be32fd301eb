//! `[[tier]]`: the age classes of records.

use std::time::Duration;

use super::section::Section;
use super::value::{self, DAY};
use crate::tiers::table::{Role, Tier, TierTable};

/// `name`, `age` and `role` of each, youngest first; the defaults if no row is set.
pub(super) fn read(root: &mut Section<'_>) -> TierTable {
    let Some(rows) = root.rows("tier") else { return TierTable::default() };
    let year = 366 * DAY;
    let mut tiers = Vec::with_capacity(rows.len());
    for mut row in rows {
        let name = row.optional("name", value::text);
        let age = row.optional("age", value::duration(Duration::from_secs(1), 10 * year));
        let role = row.optional("role", |text| {
            let role = Role::ALL.into_iter().find(|role| role.name() == text);
            role.ok_or_else(|| format!("one of {}", Role::ALL.map(Role::name).join(", ")))
        });
        for (key, missing) in [("name", name.is_none()), ("age", age.is_none()), ("role", role.is_none())] {
            if missing {
                row.report(key, "nothing", "a name, an age and a role for each tier");
            }
        }
        row.finish();
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
