//! The checks as rows: the expected value, the value of the token, and the result.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::instance::Instance;
use crate::issuer::Issuer;
use crate::token::algorithm;
use crate::token::compact::{Compact, UnverifiedHeader, UnverifiedJws};
use crate::token::json::{self, Object};
use crate::token::jws;
use crate::token::refusal::Refusal;

/// The most characters of a value that are shown.
const MAX_SHOWN: usize = 200;

/// The check of the signature, whose value says nothing to a reader.
const SIGNATURE: &str = "signature";

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Whether it passed; `None` if unknown, mostly because an earlier check failed.
    pub ok: Option<bool>,
    /// What is expected.
    pub expected: String,
    /// What the token has.
    pub found: String,
}

/// Where the checks stopped.
pub(super) enum Stop {
    /// All passed, and the issuer was not needed.
    End,
    /// Not a token by its grammar.
    Credential(String),
    /// A check failed.
    Refused(Refusal),
    /// The keys could not be fetched.
    NoKeys(String),
    /// Only the issuer can judge it: the reason, and its answer, if it was asked.
    Asking { local: Option<String>, word: Option<Result<(), (Option<bool>, String)>> },
}

/// What can be read from a token without trusting it.
pub(super) struct Outline {
    shape: Shape,
    pub header: Option<UnverifiedHeader>,
    pub nested_header: Option<UnverifiedHeader>,
    pub issuer: Option<Arc<Issuer>>,
    /// The issuer in the header of a JWE is not configured.
    header_issuer_unknown: bool,
    /// `typ` says that it is another kind of token.
    typ_unfit: bool,
    opened_with: Option<String>,
    claims: Option<Object>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Malformed,
    Opaque,
    Jws,
    /// A JWE, opened or not.
    Jwe,
}

impl Outline {
    pub fn of(instance: &Instance, token: &str) -> Self {
        let mut outline = Self {
            shape: Shape::Malformed,
            header: None,
            nested_header: None,
            issuer: None,
            header_issuer_unknown: false,
            typ_unfit: false,
            opened_with: None,
            claims: None,
        };
        match Compact::parse(token) {
            Err(_) => {}
            Ok(Compact::Opaque) => outline.shape = Shape::Opaque,
            Ok(Compact::Jws(jws)) => {
                outline.shape = Shape::Jws;
                outline.header = Some(jws.header.clone());
                outline.read(instance, &jws);
            }
            Ok(Compact::Jwe(jwe)) => {
                outline.shape = Shape::Jwe;
                outline.header = Some(jwe.header.clone());
                let name = jwe.header.iss.as_deref();
                let named = name.and_then(|name| instance.issuers.named(Some(name)).ok());
                outline.issuer = named.cloned();
                outline.header_issuer_unknown = name.is_some() && named.is_none();
                let keys = instance.verifier.keys_for(name);
                if let Some(opened) = keys.ok().and_then(|(_, keys)| keys.open(&jwe).ok()) {
                    match std::str::from_utf8(&opened.payload).map(Compact::parse) {
                        Ok(Ok(Compact::Jws(jws))) => {
                            outline.nested_header = Some(jws.header.clone());
                            outline.read(instance, &jws);
                        }
                        _ => {
                            outline.claims = json::object(&opened.payload).ok();
                            outline.issuer = outline.issuer.or_else(|| {
                                let name = outline.claims.as_ref()?.get("iss")?.as_str();
                                instance.issuers.named(name).ok().cloned()
                            });
                        }
                    }
                    outline.opened_with = Some(opened.key);
                }
            }
        }
        outline
    }

    fn read(&mut self, instance: &Instance, jws: &UnverifiedJws<'_>) {
        self.claims = URL_SAFE_NO_PAD.decode(jws.payload).ok().and_then(|text| json::object(&text).ok());
        let name = self.claims.as_ref().and_then(|claims| claims.get("iss")?.as_str());
        if let Ok(issuer) = instance.issuers.named(name) {
            let allowed = jws::allowed_algorithm(jws, jws::TokenUse::Access, &issuer.settings().algorithms);
            self.typ_unfit = matches!(allowed, Err(Refusal::NotAnAccessToken(_)));
            self.issuer.get_or_insert_with(|| issuer.clone());
        }
    }

    pub fn format(&self) -> &'static str {
        match self.shape {
            Shape::Malformed => "malformed",
            Shape::Opaque => "opaque",
            Shape::Jws => "jws",
            Shape::Jwe => "jwe",
        }
    }

    /// The rows, in the order in which the verifier checks.
    pub fn checks(&self, instance: &Instance, issuer: Option<&Arc<Issuer>>, stop: &Stop) -> Vec<Check> {
        let mut checks = vec![check("format", "a JWS, a JWE or an opaque token", self.format())];
        let signed = self.signed_header();
        if self.shape == Shape::Jwe {
            self.push_decryption(instance, issuer, &mut checks);
        }
        if let Some(claims) = &self.claims {
            checks.push(check("iss", issuer_names(instance), claim(claims, "iss")));
            if let Some(header) = signed {
                push_signature(header, issuer, &mut checks);
            }
            push_claims(instance, issuer, claims, &mut checks);
        }
        settle(&mut checks, self, stop);
        for row in checks.iter_mut().filter(|row| row.name == SIGNATURE) {
            row.found = match row.ok {
                Some(true) => "it is",
                Some(false) => "it is not",
                None => "not checked",
            }
            .to_owned();
        }
        checks
    }

    /// The header of the signed part, wherever that is.
    pub fn signed_header(&self) -> Option<&UnverifiedHeader> {
        match self.shape {
            Shape::Jws => self.header.as_ref(),
            _ => self.nested_header.as_ref(),
        }
    }

    fn push_decryption(&self, instance: &Instance, issuer: Option<&Arc<Issuer>>, checks: &mut Vec<Check>) {
        let header = self.header.as_ref();
        if let Some(iss) = header.and_then(|header| header.iss.as_ref()) {
            checks.push(check("header iss", issuer_names(instance), clip(iss)));
        }
        let issuers = instance.issuers.iter().filter(|one| issuer.is_none_or(|own| Arc::ptr_eq(one, own)));
        let keys = issuers.flat_map(|issuer| {
            issuer.decryption_keys().describe().map(|key| {
                let id =
                    key.kid.as_deref().map_or_else(|| "without kid".to_owned(), |kid| format!("{kid:?}"));
                format!("{} key {id} from {}", key.kty, key.file.display())
            })
        });
        let keys = keys.collect::<Vec<_>>().join(", ");
        let expected = if keys.is_empty() { "no decryption key is configured".to_owned() } else { keys };
        let found = match (&self.opened_with, header) {
            (Some(key), _) => format!("opened with key {key:?}"),
            (None, Some(header)) => {
                format!("alg {}, kid {}", clip(&header.alg), optional(header.kid.as_ref()))
            }
            (None, None) => "nothing".to_owned(),
        };
        checks.push(check("decryption", expected, found));
        if self.opened_with.is_some() {
            let found = match (&self.nested_header, &self.claims) {
                (Some(_), _) => "a signed token",
                (None, Some(_)) => "bare claims",
                (None, None) => "something else",
            };
            checks.push(check("content", "a signed token (JWS)", found));
        }
    }
}

/// All names by which `iss` may name a configured issuer.
fn issuer_names(instance: &Instance) -> String {
    let all = instance.issuers.iter().map(|issuer| issuer.settings());
    all.flat_map(|settings| [&settings.url].into_iter().chain(&settings.aliases).cloned())
        .collect::<Vec<_>>()
        .join(" or ")
}

fn push_signature(header: &UnverifiedHeader, issuer: Option<&Arc<Issuer>>, checks: &mut Vec<Check>) {
    checks.push(check("typ", "JWT, at+jwt, or none", optional(header.typ.as_ref())));
    let allowed = issuer.map_or_else(unknown, |issuer| algorithm::names(&issuer.settings().algorithms));
    checks.push(check("alg", allowed, clip(&header.alg)));
    let keys = issuer.map_or_else(unknown, |issuer| {
        let held = issuer.held_key_ids().into_iter().map(|id| format!("{id} (held)"));
        match issuer.key_ids().into_iter().chain(held).collect::<Vec<_>>() {
            ids if ids.is_empty() => "none is known".to_owned(),
            ids => ids.join(", "),
        }
    });
    checks.push(check("key", keys, optional(header.kid.as_ref())));
    checks.push(check(SIGNATURE, "made with that key", ""));
}

fn push_claims(instance: &Instance, issuer: Option<&Arc<Issuer>>, claims: &Object, checks: &mut Vec<Check>) {
    let now = instance.clock.now();
    let leeway = humantime::format_duration(instance.settings.policy.leeway);
    let others = ["nonce", "at_hash", "c_hash", "s_hash", "events"];
    let markers: Vec<_> = others.into_iter().filter(|name| claims.contains_key(*name)).collect();
    let markers = if markers.is_empty() { "none of them".to_owned() } else { markers.join(", ") };
    checks.push(check("not an ID token", format!("none of {}", others.join(", ")), markers));
    checks.push(check("exp", format!("not past, with a leeway of {leeway}"), when(claims.get("exp"), now)));
    for name in ["nbf", "iat"] {
        let expected = format!("absent, or not in the future, with a leeway of {leeway}");
        checks.push(check(name, expected, when(claims.get(name), now)));
    }
    let audience = issuer.map_or_else(unknown, |issuer| issuer.settings().audience.join(" or "));
    checks.push(check("aud", audience, claim(claims, "aud")));
    checks.push(check("sub", "a text of 1 to 255 bytes", claim(claims, "sub")));
    if claims.contains_key("cnf") {
        checks.push(check("cnf", "jkt or x5t#S256, and nothing else", claim(claims, "cnf")));
    }
}

/// Sets the results: checks before the failed one passed, later ones were not reached.
fn settle(checks: &mut Vec<Check>, outline: &Outline, stop: &Stop) {
    match stop {
        Stop::End => mark_held(checks),
        Stop::Credential(why) => fail_at(checks, "format", Some(false), Some(why)),
        Stop::Refused(refusal @ Refusal::ForeignRefused { why }) => {
            mark_held(checks);
            fail_here(checks, outline, why);
            checks.push(check("foreign tokens", "not refused by the configuration", refusal.to_string()));
            checks.last_mut().into_iter().for_each(|row| row.ok = Some(false));
        }
        Stop::Refused(refusal) => {
            let row = row_of(refusal, outline);
            let why = matches!(row, "format" | "decryption" | "content").then(|| refusal.to_string());
            fail_at(checks, row, Some(false), why.as_deref());
        }
        Stop::NoKeys(error) => fail_at(checks, "key", None, Some(error)),
        Stop::Asking { local, word } => {
            mark_held(checks);
            if let Some(why) = local {
                fail_here(checks, outline, why.split_once(": ").map_or(why.as_str(), |(_, why)| why));
            }
            let (ok, found) = match word {
                None => (None, "not asked; use --ask"),
                Some(Ok(())) => (Some(true), "it accepts the token"),
                Some(Err((ok, says))) => (*ok, says.as_str()),
            };
            let mut row = check("issuer's word", "200 from /userinfo", found);
            row.ok = ok;
            checks.push(row);
        }
    }
}

/// The row of a token that could not be read here.
fn fail_here(checks: &mut Vec<Check>, outline: &Outline, why: &str) {
    checks.retain(|check| check.name != "decryption");
    let name = if outline.shape == Shape::Jwe { "decryption" } else { "claims" };
    let mut row = check(name, "can be read here", why);
    row.ok = Some(false);
    checks.push(row);
}

fn mark_held(checks: &mut [Check]) {
    for check in checks {
        check.ok = Some(true);
    }
}

fn fail_at(checks: &mut Vec<Check>, name: &'static str, ok: Option<bool>, why: Option<&str>) {
    let at = checks.iter().position(|check| check.name == name).unwrap_or_else(|| {
        checks.push(check(name, "", ""));
        checks.len() - 1
    });
    mark_held(&mut checks[..at]);
    checks[at].ok = ok;
    if let Some(why) = why {
        checks[at].found = why.to_owned();
    }
}

/// The check that a refusal belongs to.
fn row_of(refusal: &Refusal, outline: &Outline) -> &'static str {
    match refusal {
        Refusal::Malformed(_) if outline.shape == Shape::Jwe => "content",
        Refusal::Malformed(_) => "format",
        Refusal::IssuerUnknown { .. } if outline.header_issuer_unknown => "header iss",
        Refusal::IssuerUnknown { .. } => "iss",
        Refusal::AlgorithmNotAllowed { .. } => "alg",
        Refusal::KeyUnknown | Refusal::KeyUnfit => "key",
        Refusal::SignatureInvalid => "signature",
        Refusal::ClaimUnfit { claim } | Refusal::NotYetValid { claim, .. } => claim,
        Refusal::Expired { .. } => "exp",
        Refusal::AudienceMismatch { .. } => "aud",
        Refusal::NotAnAccessToken(_) if outline.typ_unfit => "typ",
        Refusal::NotAnAccessToken(_) => "not an ID token",
        Refusal::Jwe(_) => "decryption",
        Refusal::BareClaims | Refusal::BareClaimsNotAllowed | Refusal::NestedTooDeep => "content",
        Refusal::ForeignRefused { .. } => "foreign tokens",
        Refusal::IssuerRejects { .. } | Refusal::IssuerForbids { .. } => "issuer's word",
        Refusal::BindingUnknown => "cnf",
        // Deny records are the running instance's; none is known here.
        Refusal::Revoked { .. } | Refusal::NotALogoutToken(_) => "not revoked",
    }
}

pub(super) fn check(name: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Check {
    Check { name, ok: None, expected: expected.into(), found: found.into() }
}

fn unknown() -> String {
    "depends on the issuer".to_owned()
}

fn optional(value: Option<&String>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| clip(value))
}

pub(super) fn claim(claims: &Object, name: &str) -> String {
    claims.get(name).map_or_else(|| "absent".to_owned(), shown)
}

/// A value as JSON, truncated.
pub(super) fn shown(value: &Value) -> String {
    clip(&value.to_string())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A `NumericDate`, and how far from `now` that is.
pub(super) fn when(value: Option<&Value>, now: Timestamp) -> String {
    let Some(value) = value else { return "absent".to_owned() };
    let date = value.as_u64().and_then(|secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs)));
    let (Some(secs), Some(date)) = (value.as_u64().filter(|secs| *secs <= 253_402_300_799), date) else {
        return shown(value);
    };
    let date = humantime::format_rfc3339_seconds(date);
    let distance = secs.abs_diff(now.as_secs());
    let length = humantime::format_duration(Duration::from_secs(distance));
    match secs.cmp(&now.as_secs()) {
        std::cmp::Ordering::Less => format!("{date}, {length} ago"),
        std::cmp::Ordering::Equal => format!("{date}, now"),
        std::cmp::Ordering::Greater => format!("{date}, in {length}"),
    }
}
