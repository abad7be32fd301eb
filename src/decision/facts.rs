//! What routes may ask about an identity, and whether it is so.

use std::borrow::Borrow;

use serde_json::Value;

use super::requirement::{BadRequirement, Requirement};
use super::{Rejection, Unmet};
use crate::identity::Identity;
use crate::tiers::table::{TierIndex, TierTable};
use crate::token::json::Object;

/// What route requirements may ask about, prepared once for each pass.
#[derive(Debug, Default)]
pub(super) struct Facts {
    audience_checked: bool,
    email_verified: bool,
    email: Option<Box<str>>,
    email_domain: Option<Box<str>>,
    scopes: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
    orgs: Box<[Box<str>]>,
}

impl Facts {
    /// Claim names as Auth0 uses them: `scope` (RFC 8693 §4.2), `permissions` (RBAC), `org_id`, `org_name`, and roles
    /// under any namespace, since Auth0 has no claim of its own for them.
    pub fn of(identity: &Identity) -> Self {
        let claims = &identity.claims;
        let roles = claims.iter().filter(|(name, _)| *name == "roles" || name.ends_with("/roles"));
        let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
        Self {
            audience_checked: identity.audience_checked,
            email_verified: identity.email.is_some() && identity.email_verified == Some(true),
            email: identity.email.as_ref().map(|email| email.as_str().into()),
            email_domain: identity.email.as_ref().map(|email| email.domain().into()),
            scopes: scope.split_ascii_whitespace().map(Into::into).collect(),
            permissions: texts(claims.get("permissions")).collect(),
            roles: roles.flat_map(|(_, value)| texts(Some(value))).collect(),
            orgs: orgs(claims),
        }
    }

    /// About how many bytes they take beside themselves.
    pub fn weight(&self) -> usize {
        let lists = [&self.scopes, &self.permissions, &self.roles, &self.orgs];
        let lists: usize = lists.iter().flat_map(|list| list.iter()).map(|text| 16 + text.len()).sum();
        lists + [&self.email, &self.email_domain].into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }

    /// Whether all that is `asked` is so: of each name, any of its values.
    pub fn meet<V: Borrow<str>>(
        &self,
        asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>>,
        tier: TierIndex,
        table: &TierTable,
    ) -> Result<(), Rejection> {
        let (mut names, mut met) = (0_u16, 0_u16);
        for one in asked {
            let (requirement, value) = one.map_err(Rejection::Bad)?;
            let value = value.borrow();
            requirement.check(value, table).map_err(Rejection::Bad)?;
            let bit = 1 << requirement as u16;
            names |= bit;
            if self.meets(requirement, value, tier, table) {
                met |= bit;
            }
        }
        match Requirement::all().find(|requirement| (names & !met) & (1 << *requirement as u16) != 0) {
            None => Ok(()),
            Some(Requirement::MaxTier) => Err(Rejection::Unmet(Unmet::TooOld)),
            Some(requirement) => Err(Rejection::Unmet(Unmet::Requirement(requirement.name()))),
        }
    }

    fn meets(&self, requirement: Requirement, value: &str, tier: TierIndex, table: &TierTable) -> bool {
        let among = |list: &[Box<str>]| list.iter().any(|item| &**item == value);
        let is =
            |text: &Option<Box<str>>| text.as_deref().is_some_and(|text| text.eq_ignore_ascii_case(value));
        match requirement {
            Requirement::Scope => among(&self.scopes),
            Requirement::Permission => among(&self.permissions),
            Requirement::Role => among(&self.roles),
            Requirement::Org => among(&self.orgs),
            Requirement::Email => is(&self.email),
            Requirement::EmailDomain => is(&self.email_domain),
            Requirement::Verified => self.email_verified,
            Requirement::Audience => self.audience_checked,
            Requirement::MaxTier => table.find(value).is_some_and(|oldest| tier <= oldest),
        }
    }
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = Box<str>> + '_ {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(Into::into)
}

fn orgs(claims: &Object) -> Box<[Box<str>]> {
    ["org_id", "org_name"].into_iter().filter_map(|name| claims.get(name)?.as_str()).map(Into::into).collect()
}
