//! Identity + tier + what the route requires → [`Decision`]. Pure: no I/O, no clock.
//!
//! There is one way to an allow: a [`Pass`], which can be made only of an [`Identity`], which only the verifier and the
//! issuer's word can give.

mod headers;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;
use thiserror::Error;

use self::headers::{PackedHeaders, Packing};
use crate::clock::Timestamp;
use crate::config::{HeaderRule, WhenAbsent};
use crate::credential::CredentialError;
use crate::identity::Identity;
use crate::issuer::CannotTell;
use crate::tiers::table::{TierIndex, TierTable};
use crate::token::email::for_header;
use crate::token::json::Object;
use crate::token::refusal::Refusal;

const TIER: HeaderName = HeaderName::from_static("x-auth-tier");
const SOURCE: HeaderName = HeaderName::from_static("x-auth-source");
const EMAIL_ENCODING: HeaderName = HeaderName::from_static("x-user-email-encoding");

/// What a request is answered, with all that the answer needs.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Let it pass, with these headers.
    Allow(Arc<Pass>),
    /// No usable credential.
    NoCredential(CredentialError),
    /// The token is refused.
    Refused(Arc<Refusal>),
    /// The identity is known, and may not pass here.
    Forbidden(Unmet),
    /// It cannot be told now.
    Undecided {
        /// The metric label.
        reason: &'static str,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The proxy's own configuration is wrong: it asks for a requirement that does not exist.
    Misconfigured(BadRequirement),
}

/// Why a known identity may not pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unmet {
    /// A required header has no value.
    #[error("the identity has no value for the required header {0}")]
    Header(HeaderName),
    /// A route requirement is not met.
    #[error("the route requires another {0}")]
    Requirement(&'static str),
    /// The answer is older than `max_tier` allows.
    #[error("the identity was confirmed too long ago for this route")]
    TooOld,
}

/// A requirement that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRequirement {
    /// No such name.
    #[error("the auth URL's query has an unknown requirement; known are {}", Requirement::NAMES.join(", "))]
    Unknown,
    /// No such value.
    #[error("the auth URL's query has a value that the requirement {0} does not have")]
    Value(&'static str),
}

/// An allow, ready to be sent: the header values lie prepared, and what route requirements ask about beside them.
#[derive(Debug)]
pub struct Pass {
    headers: PackedHeaders,
    facts: Facts,
    verified_at: Timestamp,
    serve_until: Timestamp,
    tier: TierIndex,
    stale: bool,
}

/// What route requirements may ask about.
#[derive(Debug, Default)]
struct Facts {
    audience_checked: bool,
    email_verified: bool,
    email_domain: Option<Box<str>>,
    scopes: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
    orgs: Box<[Box<str>]>,
}

/// How an identity is to be served.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// As a record of this tier.
    pub tier: TierIndex,
    /// Whether the issuer could not be asked.
    pub stale: bool,
    /// Until when the pass may be given out unseen.
    pub until: Timestamp,
}

impl Pass {
    /// Prepares an allow for `identity`.
    ///
    /// # Errors
    /// [`Unmet::Header`], if a required header has no value.
    pub fn new(
        identity: &Identity,
        rules: &Arc<[HeaderRule]>,
        table: &TierTable,
        serving: Serving,
    ) -> Result<Self, Unmet> {
        let (mut headers, mut email_encoded) = (Packing::new(), false);
        for rule in rules.iter() {
            let (text, encoded) = match (header_text(identity, rule), &rule.absent) {
                (Some(text), _) => for_header(&text),
                (None, WhenAbsent::Default(text)) => (text.clone(), false),
                (None, WhenAbsent::Refuse) => return Err(Unmet::Header(rule.name.clone())),
            };
            headers.push(&text).map_err(|_| Unmet::Header(rule.name.clone()))?;
            email_encoded |= encoded && rule.claim.is_member("email");
        }
        let tier = table.row(serving.tier).map_or("unknown", |row| row.name.as_str());
        headers.push(tier).map_err(|_| Unmet::Header(TIER))?;
        Ok(Self {
            headers: headers.finish(rules, identity.source, email_encoded),
            facts: Facts::of(identity),
            verified_at: identity.verified_at,
            serve_until: serving.until,
            tier: serving.tier,
            stale: serving.stale,
        })
    }

    /// The headers of the answer, but for the age.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        self.headers.iter()
    }

    /// How old the knowledge is, in whole seconds.
    #[must_use]
    pub fn age_secs(&self, now: Timestamp) -> u64 {
        now.since(self.verified_at).as_secs()
    }

    /// Whether it may be given out at `now` without a second look.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        now < self.serve_until && self.verified_at <= now.after(crate::tiers::policy::FUTURE_TOLERANCE)
    }

    /// The tier it is of.
    #[must_use]
    pub fn tier(&self) -> TierIndex {
        self.tier
    }

    /// Whether the issuer could not be asked.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let lists = [&self.facts.scopes, &self.facts.permissions, &self.facts.roles, &self.facts.orgs];
        let facts: usize = lists.iter().flat_map(|list| list.iter()).map(|text| 16 + text.len()).sum();
        (size_of::<Self>() + self.headers.weight() + facts) as u64
    }

    /// Whether the route's requirements are met. Nothing is allocated unless a value is percent-encoded.
    ///
    /// # Errors
    /// [`Rejection`], for the first requirement that is not met or not understood.
    pub fn meets(&self, query: &str, table: &TierTable) -> Result<(), Rejection> {
        let (mut asked, mut met) = (0_u16, 0_u16);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let requirement = Requirement::named(name).ok_or(Rejection::Bad(BadRequirement::Unknown))?;
            let value = decode(value).ok_or(Rejection::Bad(BadRequirement::Value(requirement.name())))?;
            let bit = 1 << requirement as u16;
            asked |= bit;
            if self.meets_one(requirement, &value, table)? {
                met |= bit;
            }
        }
        match Requirement::ALL
            .into_iter()
            .find(|requirement| (asked & !met) & (1 << *requirement as u16) != 0)
        {
            None => Ok(()),
            Some(Requirement::MaxTier) => Err(Rejection::Unmet(Unmet::TooOld)),
            Some(requirement) => Err(Rejection::Unmet(Unmet::Requirement(requirement.name()))),
        }
    }

    fn meets_one(&self, requirement: Requirement, value: &str, table: &TierTable) -> Result<bool, Rejection> {
        let bad = Rejection::Bad(BadRequirement::Value(requirement.name()));
        let among = |list: &[Box<str>]| list.iter().any(|item| &**item == value);
        if value.is_empty() {
            return Err(bad);
        }
        Ok(match requirement {
            Requirement::Scope => among(&self.facts.scopes),
            Requirement::Permission => among(&self.facts.permissions),
            Requirement::Role => among(&self.facts.roles),
            Requirement::Org => among(&self.facts.orgs),
            Requirement::EmailDomain => {
                self.facts.email_domain.as_deref().is_some_and(|domain| domain.eq_ignore_ascii_case(value))
            }
            Requirement::Verified if value == "true" => self.facts.email_verified,
            Requirement::Audience if value == "checked" => self.facts.audience_checked,
            Requirement::Verified | Requirement::Audience => return Err(bad),
            Requirement::MaxTier => self.tier <= table.find(value).ok_or(bad)?,
        })
    }
}

/// Why a pass is not given out on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A requirement is not met.
    Unmet(Unmet),
    /// A requirement is not understood.
    Bad(BadRequirement),
}

/// What the auth URL's query may require. Repeated: any of the values; different ones: all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requirement {
    Scope,
    Permission,
    Role,
    Org,
    EmailDomain,
    Verified,
    Audience,
    MaxTier,
}

impl Requirement {
    const ALL: [Self; 8] = [
        Self::Scope,
        Self::Permission,
        Self::Role,
        Self::Org,
        Self::EmailDomain,
        Self::Verified,
        Self::Audience,
        Self::MaxTier,
    ];
    const NAMES: [&'static str; 8] =
        ["scope", "permission", "role", "org", "email_domain", "verified", "audience", "max_tier"];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|requirement| requirement.name() == name)
    }
}

/// Percent-decoding and `+` for a space, as in a form (URL Standard §5.1).
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let spaced = value.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

/// The value of a header row. Numbers and booleans are shown as JSON does; lists and objects are no values.
fn header_text(identity: &Identity, rule: &HeaderRule) -> Option<String> {
    if rule.claim.is_member("email") {
        return identity.email.as_ref().map(|email| email.as_str().to_owned());
    }
    if rule.claim.is_member("sub") {
        return Some(identity.subject.clone());
    }
    match rule.claim.value(&identity.claims)? {
        Value::String(text) if !text.is_empty() && text.len() <= 1024 => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

impl Facts {
    /// Claim names as Auth0 uses them: `scope` (RFC 8693 §4.2), `permissions` (RBAC), `org_id`, `org_name`, and roles
    /// under any namespace, since Auth0 has no claim of its own for them.
    fn of(identity: &Identity) -> Self {
        let claims = &identity.claims;
        let roles = claims.iter().filter(|(name, _)| *name == "roles" || name.ends_with("/roles"));
        let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
        Self {
            audience_checked: identity.audience_checked,
            email_verified: identity.email.is_some() && identity.email_verified == Some(true),
            email_domain: identity.email.as_ref().map(|email| email.domain().into()),
            scopes: scope.split_ascii_whitespace().map(Into::into).collect(),
            permissions: texts(claims.get("permissions")).collect(),
            roles: roles.flat_map(|(_, value)| texts(Some(value))).collect(),
            orgs: orgs(claims),
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

impl From<&CannotTell> for Decision {
    fn from(error: &CannotTell) -> Self {
        Self::Undecided { reason: error.reason(), retry_after: error.retry_after() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::tiers::record::IdentitySource;
    use crate::token::email::Email;
    use crate::token::json;

    fn identity(claims: &str) -> Identity {
        Identity {
            issuer: "https://t/".into(),
            subject: "auth0|a".to_owned(),
            email: Email::parse("a@x.org"),
            email_verified: Some(true),
            source: IdentitySource::Claims,
            audience_checked: true,
            claims: json::object(claims.as_bytes()).unwrap(),
            verified_at: Timestamp::from_secs(1_000),
        }
    }

    fn rules(headers: &str) -> Arc<[HeaderRule]> {
        let text = format!("[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[headers]\n{headers}");
        Settings::read(&crate::config::Source::text("test.toml", &text)).unwrap().headers
    }

    fn pass(identity: &Identity, headers: &str) -> Result<Pass, Unmet> {
        let serving = Serving { tier: TierIndex::YOUNGEST, stale: false, until: Timestamp::from_secs(2_000) };
        Pass::new(identity, &rules(headers), &TierTable::default(), serving)
    }

    fn header(pass: &Pass, name: &str) -> Option<String> {
        let mut values = pass.headers().filter(|(header, _)| header == name);
        let value = values.next().and_then(|(_, value)| Some(value.to_str().ok()?.to_owned()));
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn a_pass_carries_every_configured_header_once_and_not_empty() {
        let who = identity(r#"{"user":{"level":7},"empty":"","list":[1]}"#);
        let rows = "X-Level = \"/user/level\"\nX-Plan = { claim = \"plan\", default = \"none\" }\n\
             X-Empty = { claim = \"empty\", default = \"-\" }";
        let pass = pass(&who, rows).unwrap();
        for (name, value) in [
            ("x-user-email", "a@x.org"),
            ("x-user-id", "auth0|a"),
            ("x-level", "7"),
            ("x-plan", "none"),
            ("x-empty", "-"),
            ("x-auth-tier", "primary"),
            ("x-auth-source", "claims"),
        ] {
            assert_eq!(header(&pass, name).as_deref(), Some(value));
        }
        assert_eq!(header(&pass, "x-user-email-encoding"), None);
        assert_eq!(pass.age_secs(Timestamp::from_secs(1_512)), 512);
    }

    #[test]
    fn there_is_no_pass_without_a_required_header() {
        let mut who = identity("{}");
        assert!(matches!(pass(&who, "X-Plan = \"plan\""), Err(Unmet::Header(name)) if name == "x-plan"));
        who.email = None;
        assert!(matches!(pass(&who, ""), Err(Unmet::Header(name)) if name == "x-user-email"));
    }

    #[test]
    fn hostile_text_is_encoded_and_says_so() {
        let mut who = identity(r#"{"n":"a\r\nX-Admin: 1"}"#);
        who.email = Email::parse("jürgen@x.org");
        let pass = pass(&who, "X-N = \"n\"").unwrap();
        assert_eq!(header(&pass, "x-n").as_deref(), Some("a%0D%0AX-Admin:%201"));
        assert_eq!(header(&pass, "x-user-email").as_deref(), Some("j%C3%BCrgen@x.org"));
        assert_eq!(header(&pass, "x-user-email-encoding").as_deref(), Some("percent"));
    }

    #[test]
    fn requirements_are_any_of_one_name_and_all_of_different_names() {
        let who = identity(
            r#"{"scope":"read write","permissions":["p:1"],"https://ns/roles":["admin"],"org_id":"org_1"}"#,
        );
        let pass = pass(&who, "").unwrap();
        let table = TierTable::default();
        let unmet = |what| Err(Rejection::Unmet(Unmet::Requirement(what)));
        let bad = |what| Err(Rejection::Bad(BadRequirement::Value(what)));
        for (query, expected) in [
            ("", Ok(())),
            ("scope=read", Ok(())),
            ("scope=admin&scope=write", Ok(())),
            ("scope=admin", unmet("scope")),
            ("scope=rea", unmet("scope")),
            ("scope=read+write", unmet("scope")),
            ("scope=re%61d&permission=p%3A1&role=admin&org=org_1&email_domain=X.org&verified=true", Ok(())),
            ("scope=read&role=other", unmet("role")),
            ("audience=checked&max_tier=primary", Ok(())),
            ("audience=1", bad("audience")),
            ("verified=false", bad("verified")),
            ("max_tier=none", bad("max_tier")),
            ("scope=", bad("scope")),
            ("scope", bad("scope")),
            ("scope=%ff", bad("scope")),
            ("Scope=read", Err(Rejection::Bad(BadRequirement::Unknown))),
            ("x=1", Err(Rejection::Bad(BadRequirement::Unknown))),
        ] {
            assert_eq!(pass.meets(query, &table), expected, "{query}");
        }
    }

    #[test]
    fn an_unchecked_audience_and_an_old_answer_fail_their_requirements() {
        let mut who = identity("{}");
        who.audience_checked = false;
        let table = TierTable::default();
        let tier = table.find("emergency").unwrap();
        let serving = Serving { tier, stale: true, until: Timestamp::from_secs(2_000) };
        let pass = Pass::new(&who, &rules(""), &table, serving).unwrap();
        assert_eq!(
            pass.meets("audience=checked", &table),
            Err(Rejection::Unmet(Unmet::Requirement("audience")))
        );
        assert_eq!(pass.meets("max_tier=secondary", &table), Err(Rejection::Unmet(Unmet::TooOld)));
        assert_eq!(pass.meets("max_tier=emergency", &table), Ok(()));
    }
}
