//! The facts of an identity that routes may require, and their check.

use std::borrow::Borrow;

use serde_json::Value;

use super::packed::{Flag, Mark, Packed, Packing};
use super::unmet::{Rejection, Unmet};
use crate::identity::Identity;
use crate::route::requirement::{BadRequirement, Requirement};
use crate::tiers::table::TierTable;
use crate::token::email::is_of_domain;
use crate::token::lenient;

/// Packs the facts that may be required, apart from the email. Claim names as Auth0 uses them: `scope` (RFC
/// 8693 §4.2), `permissions` (RBAC), `org_id`, `org_name`, and roles under any namespace, since Auth0 has no
/// claim of its own for them.
pub(super) fn pack(identity: &Identity, packing: &mut Packing) {
    let claims = &identity.claims;
    let text = |name| claims.get(name).and_then(Value::as_str);
    for scope in claims.get("scope").into_iter().flat_map(lenient::words) {
        packing.fact(scope, Mark::Scope);
    }
    for permission in claims.get("permissions").into_iter().flat_map(lenient::texts) {
        packing.fact(permission, Mark::Permission);
    }
    let roles = claims.iter().filter(|(name, _)| *name == "roles" || name.ends_with("/roles"));
    for role in roles.flat_map(|(_, list)| lenient::texts(list)) {
        packing.fact(role, Mark::Role);
    }
    for org in ["org_id", "org_name"].into_iter().filter_map(text) {
        packing.fact(org, Mark::Org);
    }
    packing.fact(&identity.issuer, Mark::Issuer);
}

/// Whether everything in `asked` holds: for each name, any of its values.
pub(super) fn meet<V: Borrow<str>>(
    packed: &Packed,
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
    table: &TierTable,
) -> Result<(), Rejection> {
    let (mut names, mut met) = (0_u16, 0_u16);
    for one in asked {
        let (requirement, value) = one.map_err(Rejection::Bad)?;
        let value = value.borrow();
        requirement.check(value, table).map_err(Rejection::Bad)?;
        let bit = 1 << requirement as u16;
        names |= bit;
        if meets(packed, requirement, value, table) {
            met |= bit;
        }
    }
    match Requirement::all().find(|requirement| (names & !met) & (1 << *requirement as u16) != 0) {
        None => Ok(()),
        Some(Requirement::MaxTier) => Err(Rejection::Unmet(Unmet::TooOld)),
        Some(requirement) => Err(Rejection::Unmet(Unmet::Requirement(requirement.name()))),
    }
}

fn meets(packed: &Packed, requirement: Requirement, value: &str, table: &TierTable) -> bool {
    let has = |mark| packed.marked(mark).any(|text| text == value.as_bytes());
    let email =
        |is: fn(&[u8], &[u8]) -> bool| packed.marked(Mark::Email).any(|email| is(email, value.as_bytes()));
    match requirement {
        Requirement::Scope => has(Mark::Scope),
        Requirement::Permission => has(Mark::Permission),
        Requirement::Role => has(Mark::Role),
        Requirement::Org => has(Mark::Org),
        Requirement::Email => email(<[u8]>::eq_ignore_ascii_case),
        Requirement::EmailDomain => email(is_of_domain),
        Requirement::Verified => packed.head().is(Flag::EmailVerified),
        Requirement::Audience => packed.head().is(Flag::AudienceChecked),
        Requirement::Issuer => has(Mark::Issuer),
        // The instance checks this before, because the answer does not know it.
        Requirement::Revocation => true,
        Requirement::MaxTier => table.find(value).is_some_and(|oldest| packed.head().tier <= oldest),
    }
}
