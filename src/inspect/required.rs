//! What a route requires of the token itself, beside what the token has.

use std::collections::BTreeMap;

use super::rows::{Check, check, claim as claim_of, shown, when};
use crate::clock::Timestamp;
use crate::decision::Pass;
use crate::identity::Identity;
use crate::route::Required;
use crate::route::requirement::{Requirement, claim};
use crate::tiers::table::TierTable;
use crate::token::{claims, pointer};

/// A row for each required claim, and for each other requirement about the token itself.
pub(super) fn rows(
    required: &Required<'_>,
    pass: &Pass,
    (identity, typ): (&Identity, Option<&str>),
    table: &TierTable,
    now: Timestamp,
) -> Vec<Check> {
    use Requirement::{Acr, Actor, Claim, MaxAge, Typ};
    let mut rows = Vec::new();
    for requirement in [Claim, Typ, Actor, Acr, MaxAge] {
        let values = required.values_of(requirement.name());
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for value in &values {
            // Each pointer is a requirement of its own.
            let place = claim(value).filter(|_| requirement == Claim).map_or("", |(pointer, _)| pointer);
            groups.entry(place).or_default().push(value);
        }
        for (place, values) in groups {
            let all = &identity.claims;
            let found = match requirement {
                _ if !identity.own_claims => "unknown: only the issuer can judge this token".to_owned(),
                Claim => pointer::at(all, place).map_or_else(|| "absent".to_owned(), shown),
                Acr => claims::acr(all)
                    .map_or_else(|| "absent, or not one text".to_owned(), |acr| shown(&acr.into())),
                MaxAge => match claims::auth_time(all) {
                    Some(time) => when(Some(&time.as_secs().into()), now),
                    None => "no auth_time, or not one number of seconds that is not after iat".to_owned(),
                },
                Typ => typ.unwrap_or("none").to_owned(),
                _ => claim_of(all, "act"),
            };
            let mut row = check(requirement.name(), values.join(" or "), found);
            let asked = values.into_iter().map(|value| Ok((requirement, value)));
            row.ok = Some(pass.meets(asked, table, now).is_ok());
            rows.push(row);
        }
    }
    rows
}
