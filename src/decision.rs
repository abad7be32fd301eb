//! Identity + tier + what the route requires → [`Decision`]. Pure: no I/O, no clock.
//!
//! The only way to an allow is a [`Pass`]. It can be made only from an [`Identity`], which comes only from
//! the verifier or the issuer's answer.

mod anonymous;
mod binding;
mod claims_asked;
mod facts;
pub mod header_rule;
mod header_size;
mod header_text;
pub mod names;
mod packed;
mod unmet;

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, iter};

use hyper::header::{HeaderName, HeaderValue};

use self::header_rule::HeaderRule;
use self::header_size::HeaderSize;
use self::header_text::HeaderText;
use self::names::{EMAIL_ENCODING, SOURCE, TIER};
use self::packed::{Flag, Head, Mark, Packed, Packing};
use crate::clock::Timestamp;
use crate::credential::CredentialError;
use crate::identity::Identity;
use crate::issuer::CannotTell;
use crate::route::requirement::{BadRequirement, Requirement, in_query};
use crate::route::{Closed, Required};
use crate::sender::Unproven;
use crate::tiers::policy::Serving;
use crate::tiers::record::IdentitySource;
use crate::tiers::table::{TierIndex, TierTable};
use crate::token::binding::Binding;
use crate::token::refusal::Refusal;

pub use anonymous::Anonymous;
pub use claims_asked::ClaimsAsked;
pub use unmet::{Rejection, StepUp, Unmet};

/// `Retry-After` when the replay cache is full. Its proofs are dropped when they have expired.
const PROOFS_RETRY: Duration = Duration::from_secs(30);

/// The decision about a request, with everything that the answer needs.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Allow it, with these headers.
    Allow(Pass),
    /// No usable credential.
    NoCredential(CredentialError),
    /// The token is refused.
    Refused(Arc<Refusal>),
    /// The token is good, but it is not proven that the request comes from its sender.
    Unproven(Unproven),
    /// The identity is known, and may not pass here.
    Forbidden(Unmet),
    /// The decision is not available now ("cannot tell").
    Undecided {
        /// The metric label.
        reason: &'static str,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The route allows nobody, or is unknown.
    Closed(Closed),
    /// The proxy's own configuration is wrong: it asks for a requirement that does not exist.
    Misconfigured(BadRequirement),
}

impl From<Rejection> for Decision {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Unmet(unmet) => Self::Forbidden(unmet),
            Rejection::Bad(bad) => Self::Misconfigured(bad),
        }
    }
}

impl Decision {
    /// Whether a login may change it: there is no credential, or a refused one. A malformed credential is not
    /// included: its sender would send it again after a login.
    #[must_use]
    pub fn invites_login(&self) -> bool {
        match self {
            Self::NoCredential(error) => *error == CredentialError::Missing,
            Self::Refused(refusal) => !matches!(**refusal, Refusal::IssuerForbids { .. }),
            _ => false,
        }
    }
}

/// An allow, ready to be sent, with the prepared header values and the facts for route requirements. Clones
/// share them.
///
/// It does not contain the headers' names, which are in the configuration. So it is valid only
/// for the instance that made it.
#[derive(Clone)]
pub struct Pass(Packed);

impl Pass {
    /// Prepares an allow for `identity`. It holds whether each claim requirement in `asked` is met.
    ///
    /// # Errors
    /// [`Unmet::Header`], if a required header has no value, and [`Unmet::TooLarge`], if the headers are too
    /// long.
    pub fn new(
        identity: &Identity,
        rules: &[HeaderRule],
        (table, serving): (&TierTable, Serving),
        asked: &ClaimsAsked,
    ) -> Result<Self, Unmet> {
        let (mut packing, mut email_sent, mut email_encoded) = (Packing::new(), false, false);
        let tier = table.row(serving.tier).map_or("unknown", |row| row.name.as_str());
        let mut size = HeaderSize::less(&TIER, tier);
        for rule in rules {
            let value = HeaderText::new(identity, rule)?;
            size.take(&rule.name, &value.text);
            let mark = value.is_plain_email.then_some(Mark::Email);
            packing.header(&value.text, mark).map_err(|_| Unmet::Header(rule.name.clone()))?;
            email_sent |= value.is_plain_email;
            email_encoded |= value.is_encoded_email;
        }
        size.check()?;
        packing.header(tier, None).map_err(|_| Unmet::Header(TIER))?;
        if let Some(email) = identity.email.as_ref().filter(|_| !email_sent) {
            packing.fact(email.as_str(), Mark::Email);
        }
        facts::pack(identity, &mut packing);
        asked.pack(identity, &mut packing);
        let has_binding = binding::pack(identity.binding, &mut packing);
        let verified = identity.email.is_some() && identity.email_verified == Some(true);
        let head = Head::new(identity.verified_at, serving.from..serving.until, serving.tier)
            .with(Flag::Stale, serving.stale.is_some())
            .with(Flag::FromUserinfo, identity.source == IdentitySource::Userinfo)
            .with(Flag::EmailEncoded, email_encoded)
            .with(Flag::EmailVerified, verified)
            .with(Flag::AudienceChecked, identity.audience_checked)
            .with(Flag::HasBinding, has_binding)
            .with(Flag::AtJwt, identity.at_jwt)
            .with(Flag::OwnClaims, identity.own_claims);
        Ok(Self(packing.finish(head)))
    }

    /// The claim requirements that the next answer for the token must cover: those of the route, and those
    /// that the answer `before` covers.
    #[must_use]
    pub fn claims_asked(required: &Required<'_>, before: Option<&Self>) -> ClaimsAsked {
        ClaimsAsked::new(required, before.map(|pass| &pass.0))
    }

    /// Whether it covers the route's claim requirements: it holds whether each of them is met.
    #[must_use]
    pub fn covers_claims(&self, required: &Required<'_>) -> bool {
        claims_asked::are_told(required, &self.0)
    }

    /// The headers of the answer, except the age. Pass the rules that it was made with.
    pub fn headers<'p>(
        &'p self,
        rules: &'p [HeaderRule],
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'p {
        let head = self.0.head();
        let names = rules.iter().map(|rule| rule.name.clone()).chain(iter::once(TIER));
        let encoding = if head.is(Flag::EmailEncoded) { "percent" } else { "none" };
        let source =
            if head.is(Flag::FromUserinfo) { IdentitySource::Userinfo } else { IdentitySource::Claims };
        names.zip(self.0.header_values()).chain([
            (EMAIL_ENCODING, HeaderValue::from_static(encoding)),
            (SOURCE, HeaderValue::from_static(source.name())),
        ])
    }

    /// The age of the record, in whole seconds.
    #[must_use]
    pub fn age_secs(&self, now: Timestamp) -> u64 {
        now.since(self.0.head().verified_at).as_secs()
    }

    /// Whether it may be served at `now` without another check: from its creation until its end. Without the
    /// first bound, a clock that was ahead at its creation would make it valid for that much longer.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        let Head { serve_from, serve_until, .. } = self.0.head();
        serve_from <= now && now < serve_until
    }

    /// Its tier.
    #[must_use]
    pub fn tier(&self) -> TierIndex {
        self.0.head().tier
    }

    /// What its token is bound to. The sender must prove that it has the key, for each request.
    #[must_use]
    pub fn binding(&self) -> Binding {
        binding::unpack(&self.0)
    }

    /// Whether a call to the issuer would bring nothing younger: it is in the youngest tier, or the issuer
    /// was just asked without success.
    #[must_use]
    pub fn cannot_be_younger(&self) -> bool {
        self.tier() == TierIndex::YOUNGEST || self.is_stale()
    }

    /// Whether the issuer could not be asked.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.0.head().is(Flag::Stale)
    }

    /// Its approximate heap size in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.weight() as u64
    }

    /// Whether the requirements of a route are met at `now`.
    ///
    /// # Errors
    /// As [`Pass::meets`]. If another login is required, the error has what its challenge needs.
    pub fn meets_required(
        &self,
        required: &Required<'_>,
        table: &TierTable,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let met = match required {
            Required::Nothing => Ok(()),
            Required::Query(query) => self.meets(in_query(query), table, now),
            Required::Header(value) => {
                let text = value.to_str().map_err(|_| Rejection::Bad(BadRequirement::Header))?;
                self.meets(in_query(text), table, now)
            }
            Required::Rule(requirements) => self.meets(requirements.iter(), table, now),
        };
        met.map_err(|rejection| rejection.with_login(required))
    }

    /// Whether these requirements are met at `now`.
    ///
    /// # Errors
    /// [`Rejection`], for the first one that is not met or not understood.
    pub fn meets<V: Borrow<str>>(
        &self,
        asked: impl Iterator<Item = Result<(Requirement, V), BadRequirement>> + Clone,
        table: &TierTable,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        facts::meet(&self.0, asked, table, now)
    }
}

/// Shows nothing about the identity.
impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pass").field(&self.0.head()).finish()
    }
}

impl From<Unproven> for Decision {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::UnknownRequest(closed) => Self::Closed(closed),
            Unproven::Busy(_) => Self::from(&CannotTell::Busy),
            Unproven::CacheFull => Self::Undecided { reason: unproven.reason(), retry_after: PROOFS_RETRY },
            unproven => Self::Unproven(unproven),
        }
    }
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

    pub(super) const NOW: Timestamp = Timestamp::from_secs(1_500);

    pub(super) fn identity(claims: &str) -> Identity {
        Identity {
            issuer: "https://t/".into(),
            subject: "auth0|a".to_owned(),
            email: Email::parse("a@x.org"),
            email_verified: Some(true),
            email_not_allowed: false,
            source: IdentitySource::Claims,
            audience_checked: true,
            at_jwt: false,
            binding: Binding::Bearer,
            claims: json::object(claims.as_bytes()).unwrap(),
            own_claims: true,
            name: None,
            verified_at: Timestamp::from_secs(1_000),
        }
    }

    pub(super) fn rules(headers: &str) -> Arc<[HeaderRule]> {
        let text = format!("[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[headers]\n{headers}");
        Settings::read(&crate::config::Source::text("test.toml", &text)).unwrap().headers
    }

    pub(super) fn serving(tier: TierIndex, stale: bool) -> Serving {
        let (from, until) = (Timestamp::from_secs(1_000), Timestamp::from_secs(2_000));
        Serving { tier, stale: stale.then_some(Timestamp::MAX), from, until }
    }

    pub(super) fn pass(identity: &Identity, headers: &str) -> Result<Pass, Unmet> {
        let serving = serving(TierIndex::YOUNGEST, false);
        Pass::new(identity, &rules(headers), (&TierTable::default(), serving), &ClaimsAsked::default())
    }

    pub(super) fn header(pass: &Pass, headers: &str, name: &str) -> Option<String> {
        let rules = rules(headers);
        let mut values = pass.headers(&rules).filter(|(header, _)| header == name);
        let value = values.next().and_then(|(_, value)| Some(value.to_str().ok()?.to_owned()));
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn a_pass_carries_every_configured_header_once_and_not_empty() {
        let who = identity(r#"{"user":{"level":7},"empty":"","list":[1]}"#);
        let rows = "X-Level = \"/user/level\"\nX-Plan = { claim = \"plan\", default = \"none\" }\nX-Empty = \
                    { claim = \"empty\", default = \"-\" }";
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
            assert_eq!(header(&pass, rows, name).as_deref(), Some(value));
        }
        assert_eq!(header(&pass, rows, "x-user-email-encoding").as_deref(), Some("none"));
        assert_eq!(pass.age_secs(Timestamp::from_secs(1_512)), 512);
    }

    #[test]
    fn every_header_that_is_not_configured_stands_in_the_list_of_fixed_ones() {
        let (pass, rules) = (pass(&identity("{}"), "").unwrap(), rules(""));
        let configured = |name: &HeaderName| rules.iter().any(|rule| rule.name == name);
        let mut sent: Vec<_> = pass.headers(&rules).map(|(name, _)| name).collect();
        sent.retain(|name| !configured(name));
        // The responder adds the age, which changes with each answer.
        sent.push(names::AGE);
        let mut fixed = names::FIXED.to_vec();
        fixed.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        sent.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        assert_eq!(sent, fixed);
    }

    #[test]
    fn whether_the_email_is_verified_is_told_of_the_email_that_is_sent() {
        let rows = "X-Verified = { claim = \"email_verified\", default = \"-\" }";
        let mut who = identity(r#"{"email":"not usable","email_verified":true}"#);
        for (verified, expected) in [(Some(true), "true"), (Some(false), "false"), (None, "-")] {
            who.email_verified = verified;
            let pass = pass(&who, rows).unwrap();
            assert_eq!(header(&pass, rows, "x-verified").as_deref(), Some(expected), "{verified:?}");
        }
    }

    #[test]
    fn the_issuer_that_is_told_is_the_configured_one_whatever_a_claim_says() {
        let rows = "X-Issuer = \"iss\"";
        for claims in ["{}", r#"{"iss":"https://evil.example/"}"#, r#"{"iss":null}"#] {
            let pass = pass(&identity(claims), rows).unwrap();
            assert_eq!(header(&pass, rows, "x-issuer").as_deref(), Some("https://t/"), "{claims}");
        }
    }

    #[test]
    fn an_email_that_its_issuer_may_not_name_has_a_reason_of_its_own() {
        let mut who = identity("{}");
        (who.email, who.email_not_allowed) = (None, true);
        assert!(matches!(pass(&who, ""), Err(Unmet::EmailNotAllowed)));
        let rows = "X-User-Email = { claim = \"email\", default = \"-\" }";
        assert_eq!(header(&pass(&who, rows).unwrap(), rows, "x-user-email").as_deref(), Some("-"));
    }

    #[test]
    fn a_pass_is_given_out_unseen_from_when_it_was_made_until_its_time_is_over() {
        let pass = pass(&identity("{}"), "").unwrap();
        let holds = |millis| pass.holds_at(Timestamp::from_millis(millis));
        assert_eq!([999_999, 1_000_000, 1_999_999, 2_000_000].map(holds), [false, true, true, false]);
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
        let rows = "X-N = \"n\"";
        let pass = pass(&who, rows).unwrap();
        assert_eq!(header(&pass, rows, "x-n").as_deref(), Some("a%0D%0AX-Admin:%201"));
        assert_eq!(header(&pass, rows, "x-user-email").as_deref(), Some("j%C3%BCrgen@x.org"));
        assert_eq!(header(&pass, rows, "x-user-email-encoding").as_deref(), Some("percent"));
    }

    #[test]
    fn requirements_are_any_of_one_name_and_all_of_different_names() {
        let who = identity(
            r#"{"scope":"read write","permissions":["p:1"],"https://ns/roles":["admin"],"org_id":"org_1"}"#,
        );
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
            ("issuer=https://t/", Ok(())),
            ("issuer=https%3A%2F%2Ft%2F", Ok(())),
            ("issuer=https://t", unmet("issuer")),
            ("issuer=HTTPS://t/", bad("issuer")),
            ("issuer=https://other/&issuer=https://t/", Ok(())),
            ("issuer=", bad("issuer")),
            ("verified=false", bad("verified")),
            ("max_tier=none", bad("max_tier")),
            ("scope=", bad("scope")),
            ("scope", bad("scope")),
            ("scope=%ff", bad("scope")),
            ("email=A%40X.org", Ok(())),
            ("email=b@x.org&email=a@x.org&verified=true", Ok(())),
            ("email=b@x.org", unmet("email")),
            ("email=a@x.org.evil.example", unmet("email")),
            ("email=x.org", bad("email")),
            ("email=a@b@x.org", bad("email")),
            ("email_domain=a@x.org", bad("email_domain")),
            ("Scope=read", Err(Rejection::Bad(BadRequirement::Unknown("Scope".into())))),
            ("x=1", Err(Rejection::Bad(BadRequirement::Unknown("x".into())))),
        ] {
            let asked = Pass::claims_asked(&Required::Query(query), None);
            let serving = serving(TierIndex::YOUNGEST, false);
            let pass = Pass::new(&who, &rules(""), (&table, serving), &asked).unwrap();
            assert_eq!(pass.meets(in_query(query), &table, NOW), expected, "{query}");
        }
    }

    #[test]
    fn one_text_is_a_list_of_one_and_a_list_of_scopes_is_their_words() {
        let who = identity(
            r#"{"scope":["read write","admin"],"permissions":"p:1 p:2",
                "https://ns/roles":"site admin","roles":[7]}"#,
        );
        let pass = pass(&who, "").unwrap();
        for (query, met) in [
            ("scope=write&scope=x", true),
            ("scope=admin&permission=p:1+p:2&role=site+admin", true),
            ("permission=p:1", false),
            ("role=admin", false),
            ("role=7", false),
        ] {
            assert_eq!(pass.meets(in_query(query), &TierTable::default(), NOW).is_ok(), met, "{query}");
        }
    }

    #[test]
    fn an_address_that_no_header_has_as_it_is_meets_requirements_all_the_same() {
        let mut who = identity("{}");
        let table = TierTable::default();
        for (email, query) in [
            ("jürgen@x.org", "email=j%C3%BCrgen@X.org&email_domain=x.org"),
            ("a@BüCHER.example", "email_domain=b%C3%BCcher.Example"),
        ] {
            who.email = Email::parse(email);
            let pass = pass(&who, "").unwrap();
            assert_eq!(pass.meets(in_query(query), &table, NOW), Ok(()), "{query}");
            let other = pass.meets(in_query("email_domain=cher.example"), &table, NOW);
            assert_eq!(other, Err(Rejection::Unmet(Unmet::Requirement("email_domain"))));
        }
    }

    #[test]
    fn letters_that_unicode_folds_into_others_are_other_letters() {
        let mut who = identity("{}");
        // The Kelvin sign, the long s, the dotted capital I, the sharp S, a Greek final sigma, and plain
        // capitals.
        for (email, query) in [
            ("eve@\u{212a}aufmann.example", "email_domain=kaufmann.example"),
            ("eve@\u{212a}aufmann.example", "email=eve@kaufmann.example"),
            ("\u{212a}im@x.example", "email=kim@x.example"),
            ("eve@\u{17f}hop.example", "email_domain=shop.example"),
            ("eve@\u{130}nfo.example", "email_domain=i%CC%87nfo.example"),
            ("eve@stra\u{1e9e}e.example", "email_domain=stra%C3%9Fe.example"),
            ("eve@B\u{dc}CHER.example", "email_domain=b%C3%BCcher.example"),
        ] {
            who.email = Email::parse(email);
            let pass = pass(&who, "").unwrap();
            let met = pass.meets(in_query(query), &TierTable::default(), NOW);
            assert!(matches!(met, Err(Rejection::Unmet(Unmet::Requirement(_)))), "{email} {query}");
        }
    }

    #[test]
    fn an_unchecked_audience_and_an_old_answer_fail_their_requirements() {
        let mut who = identity("{}");
        who.audience_checked = false;
        let table = TierTable::default();
        let tier = table.find("emergency").unwrap();
        let serving = serving(tier, true);
        let pass = Pass::new(&who, &rules(""), (&table, serving), &ClaimsAsked::default()).unwrap();
        assert_eq!(
            pass.meets(in_query("audience=checked"), &table, NOW),
            Err(Rejection::Unmet(Unmet::Requirement("audience")))
        );
        assert_eq!(
            pass.meets(in_query("max_tier=secondary"), &table, NOW),
            Err(Rejection::Unmet(Unmet::TooOld))
        );
        assert_eq!(pass.meets(in_query("max_tier=emergency"), &table, NOW), Ok(()));
    }
}
