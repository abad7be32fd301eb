//! The facts of an identity that routes may require, and their check.

use std::borrow::Borrow;

use serde_json::Value;

use super::claims_asked;
use super::packed::{Flag, Mark, Packed, Packing};
use super::unmet::{Rejection, Unmet};
use crate::clock::Timestamp;
use crate::identity::Identity;
use crate::route::requirement::{BadRequirement, MAX_CLAIMS, Requirement, claim, max_age};
use crate::tiers::table::TierTable;
use crate::token::email::is_of_domain;
use crate::token::{claims, lenient};

/// Packs the facts that may be required, apart from the email. Claim names as Auth0 uses them: `scope` (RFC
/// 8693 §4.2), `permissions` (RBAC), `org_id`, `org_name`, and roles under any namespace, since Auth0 has no
/// claim of its own for them.
pub(super) fn pack(identity: &Identity, packing: &mut Packing) {
    let all = &identity.claims;
    let text = |name| all.get(name).and_then(Value::as_str);
    for scope in all.get("scope").into_iter().flat_map(lenient::words) {
        packing.fact(scope, Mark::Scope);
    }
    for permission in all.get("permissions").into_iter().flat_map(lenient::texts) {
        packing.fact(permission, Mark::Permission);
    }
    let roles = all.iter().filter(|(name, _)| *name == "roles" || name.ends_with("/roles"));
    for role in roles.flat_map(|(_, list)| lenient::texts(list)) {
        packing.fact(role, Mark::Role);
    }
    for org in ["org_id", "org_name"].into_iter().filter_map(text) {
        packing.fact(org, Mark::Org);
    }
    if identity.own_claims {
        if let Some(acr) = claims::acr(all) {
            packing.fact(acr, Mark::Acr);
        }
        if let Some(time) = claims::auth_time(all) {
            packing.fact(&time.as_secs().to_string(), Mark::AuthTime);
        }
        if all.contains_key("act") {
            packing.fact("", Mark::Actor);
        }
    }
}

/// Whether everything in `asked` holds: for each name, any of its values. Each pointer of a `claim` counts as
/// a name of its own.
pub(super) fn meet<V: Borrow<str>>(
    packed: &Packed,
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>> + Clone,
    table: &TierTable,
    now: Timestamp,
) -> Result<(), Rejection> {
    let (mut names, mut met, mut claims) = (0_u32, 0_u32, 0);
    let mut all_claims = true;
    for one in asked.clone() {
        let (requirement, value) = one.map_err(Rejection::Bad)?;
        let value = value.borrow();
        requirement.check(value, table).map_err(Rejection::Bad)?;
        let bit = 1 << requirement as u32;
        names |= bit;
        if requirement == Requirement::Claim {
            claims += 1;
            if claims > MAX_CLAIMS {
                return Err(Rejection::Bad(BadRequirement::TooManyClaims));
            }
            all_claims &= meets_any_with_the_pointer_of(value, packed, asked.clone());
        } else if meets(packed, requirement, value, table, now) {
            met |= bit;
        }
    }
    if all_claims {
        met |= 1 << Requirement::Claim as u32;
    }
    match Requirement::all().find(|requirement| (names & !met) & (1 << *requirement as u32) != 0) {
        None => Ok(()),
        Some(Requirement::MaxTier) => Err(Rejection::Unmet(Unmet::TooOld)),
        Some(requirement) if is_of_the_token(requirement) && !packed.head().is(Flag::OwnClaims) => {
            Err(Rejection::Unmet(Unmet::Unknowable(requirement.name())))
        }
        Some(requirement) => Err(Rejection::Unmet(Unmet::Requirement(requirement.name()))),
    }
}

/// Whether it is about the token itself. The issuer's answer for a foreign token is about its subject.
fn is_of_the_token(requirement: Requirement) -> bool {
    use Requirement::{Acr, Actor, Claim, MaxAge, Typ};
    matches!(requirement, Claim | Acr | MaxAge | Typ | Actor)
}

fn meets_any_with_the_pointer_of<V: Borrow<str>>(
    text: &str,
    packed: &Packed,
    asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
) -> bool {
    fn pointer(text: &str) -> Option<&str> {
        claim(text).map(|(pointer, _)| pointer)
    }
    asked.flatten().any(|(requirement, other)| {
        requirement == Requirement::Claim
            && pointer(other.borrow()) == pointer(text)
            && claims_asked::is_met(other.borrow(), packed) == Some(true)
    })
}

fn meets(packed: &Packed, requirement: Requirement, value: &str, table: &TierTable, now: Timestamp) -> bool {
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
        Requirement::Issuer => claims_asked::is_met(value, packed) == Some(true),
        // The instance checks this before, because the answer does not know it.
        Requirement::Revocation => true,
        Requirement::Claim => false,
        Requirement::Acr => has(Mark::Acr),
        Requirement::MaxAge => {
            let time = packed.marked(Mark::AuthTime).next().and_then(|text| std::str::from_utf8(text).ok());
            let time = time.and_then(|secs| secs.parse().ok()).map(Timestamp::from_secs);
            time.zip(max_age(value)).is_some_and(|(time, longest)| now.since(time) <= longest)
        }
        Requirement::Typ => packed.head().is(Flag::AtJwt),
        Requirement::Actor => {
            packed.head().is(Flag::OwnClaims) && packed.marked(Mark::Actor).next().is_none()
        }
        Requirement::MaxTier => table.find(value).is_some_and(|oldest| packed.head().tier <= oldest),
    }
}
