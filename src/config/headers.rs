//! `[headers]`: which identity headers a 200 carries.

use hyper::header::HeaderName;

use super::node::Node;
use super::origin::Origin;
use super::section::Section;
use super::value;
use crate::decision::header_rule::{HeaderRule, WhenAbsent};
use crate::decision::names::{EMAIL, FIXED};
use crate::route::settings::RouteSettings;
use crate::token::pointer::ClaimPath;

impl HeaderRule {
    /// Reports rows whose defaults alone, or whose anonymous values, are too long for an answer.
    pub(super) fn check_room(rules: &[Self], routes: &RouteSettings, root: &Section<'_>) {
        let bytes = |value: fn(&'_ Self) -> &'_ str| -> usize {
            rules.iter().map(|rule| Self::line_bytes(&rule.name, value(rule))).sum()
        };
        let without_claims = bytes(|rule| match &rule.absent {
            WhenAbsent::Default(text) => text,
            WhenAbsent::Refuse => "-",
        });
        let report = |key: &str, bytes: usize| {
            root.report(
                key,
                format!("{bytes} bytes of headers"),
                format!(
                    "up to {} bytes in an answer, names included: nginx takes no answer whose head is \
                     longer than 4 KiB",
                    Self::MAX_BYTES
                ),
            );
        };
        if without_claims > Self::MAX_BYTES {
            report("headers", without_claims);
        }
        let anonymous = rules.len() * routes.anonymous.len() + bytes(|_| "");
        if routes.pass_nobody() && anonymous > Self::MAX_BYTES {
            report("auth.anonymous", anonymous);
        }
    }

    /// A row is `"X-Name" = "claim"` (required) or `{ claim = "…", required = true }` or
    /// `{ claim = "…", default = "…" }`. Each table may have `join = ","`, for a list.
    pub(super) fn read_all(section: Section<'_>) -> Vec<Self> {
        let mut rules = default_headers();
        for (key, node, problems) in section.into_members() {
            // A variable's name cannot hold a hyphen.
            let key =
                if matches!(node.origin(), Origin::Environment(_)) { key.replace('_', "-") } else { key };
            let row = match node {
                Node::Scalar { .. } => {
                    let origin = node.origin().clone();
                    Node::Table([("claim".to_owned(), node)].into(), origin)
                }
                table => table,
            };
            let mut row = Section::new(format!("headers.{key}"), row, problems);
            let name = value::header_name(&key);
            let claim = row.optional("claim", |text| text.parse());
            let join = row.optional("join", join);
            let one_text = |claim: &ClaimPath| ONE_TEXT.iter().any(|name| claim.is_member(name));
            let is_email = key.eq_ignore_ascii_case(EMAIL.as_str());
            if join.is_some() && (is_email || claim.as_ref().is_some_and(one_text)) {
                let allowed = format!("no join in X-User-Email and for {}: never lists", ONE_TEXT.join(", "));
                row.report("join", "given", allowed);
            }
            let required = row.optional("required", value::boolean);
            let default = row.optional("default", default_value);
            let absent = match (required, default) {
                (None | Some(true), None) => Some(WhenAbsent::Refuse),
                (None | Some(false), Some(default)) => Some(WhenAbsent::Default(default)),
                _ => None,
            };
            match (&name, &claim, &absent) {
                (Err(allowed), ..) => row.report_name(&key, allowed.as_str()),
                (Ok(name), ..) if is_reserved(name) => {
                    row.report_name(&key, "a name that HTTP or holdfast itself does not use in its answers");
                }
                (_, None, _) => {
                    row.report("claim", "nothing", "a claim's name, or a JSON pointer such as /user/email")
                }
                (.., None) => row.report(
                    "required",
                    "true by default",
                    "required = true, or required = false with a non-empty default: if a 200 lacks the \
                     header, some proxies pass on the client's own",
                ),
                _ => {}
            }
            if let (Ok(name), Some(claim), Some(absent)) = (name, claim, absent) {
                rules.retain(|rule| rule.name != name);
                rules.push(Self { name, claim, join, absent });
            }
        }
        rules
    }
}

/// Claims whose value holdfast determines itself: always one text.
const ONE_TEXT: [&str; 4] = ["email", "email_verified", "iss", "sub"];

/// The identity headers when `[headers]` is not set, and the rows that stay when it is.
fn default_headers() -> Vec<HeaderRule> {
    [("x-user-email", "email"), ("x-user-id", "sub")]
        .into_iter()
        .map(|(name, claim)| HeaderRule {
            name: HeaderName::from_static(name),
            claim: ClaimPath::member(claim),
            join: None,
            absent: WhenAbsent::Refuse,
        })
        .collect()
}

/// The character between the items of a list. Items are percent-encoded, so that no item contains it.
fn join(text: &str) -> Result<char, String> {
    let mut all = text.chars();
    match (all.next(), all.next()) {
        (Some(one), None) if one == ' ' || (one.is_ascii_punctuation() && one != '%') => Ok(one),
        _ => Err("one ASCII character that is no letter, digit or %, such as a comma".to_owned()),
    }
}

/// A value for a header without an identity: never empty, and without characters that need encoding.
pub(super) fn default_value(text: &str) -> Result<String, String> {
    let plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'%';
    if (1..=256).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 256 visible ASCII characters without %".to_owned())
    }
}

/// Headers that the answer uses for itself, or that change what HTTP means.
fn is_reserved(name: &HeaderName) -> bool {
    let of_http = matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "content-type"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "te"
            | "trailer"
            | "date"
            | "host"
            | "cache-control"
            | "set-cookie"
            | "www-authenticate"
            | "retry-after"
            | "location"
            | "x-auth-login-url"
    );
    of_http || FIXED.contains(name)
}
