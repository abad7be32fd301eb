//! The language of requirements: names and values.
//!
//! Three places use this language: the auth URL's query, a header that the proxy sets, and the rules of the
//! configuration. A repeated name means any of its values. Different names must all be met; for `claim`, the
//! pointer belongs to the name. An unknown name is an error and never ignored, because a misspelled
//! requirement would otherwise let everybody in.

use std::borrow::Cow;
use std::time::Duration;

use thiserror::Error;

use crate::tiers::table::TierTable;
use crate::token::pointer;

/// A name that may be required. If several are not met, the first in this order is reported. `Acr` and
/// `MaxAge` are last, so that the client is asked for another login only if that is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A value of the `scope` claim.
    Scope,
    /// An item of `permissions`.
    Permission,
    /// An item of a `roles` claim, under any namespace.
    Role,
    /// `org_id` or `org_name`.
    Org,
    /// The whole address. ASCII letters are compared without regard to case, before the `@` too: Auth0 keeps
    /// addresses in lower case, and no mailbox provider tells them apart.
    Email,
    /// The part after the `@`.
    EmailDomain,
    /// `true`: the email is verified.
    Verified,
    /// `checked`: the audience was checked, because the token was verified here or introspection named it.
    Audience,
    /// The `url` of the issuer that vouches for the identity, byte for byte.
    Issuer,
    /// The oldest tier that is accepted.
    MaxTier,
    /// `current`: this instance cannot have missed a revocation.
    Revocation,
    /// A JSON pointer, a colon, and a value: the token has this value there ([`claim`]).
    Claim,
    /// `at+jwt`: the token's header says that it is an access token (RFC 9068 §2.1).
    Typ,
    /// `none`: nobody acts for the user (`act`, RFC 8693 §4.1).
    Actor,
    /// The token's `acr`: how the user logged in (RFC 9470).
    Acr,
    /// How many seconds ago the user may have logged in, by `auth_time` (RFC 9470).
    MaxAge,
}

/// A requirement that cannot be understood: the proxy's configuration, or ours, is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRequirement {
    /// No such name, as far as it may be shown.
    #[error(
        "an unknown requirement, {name}; known are {known}",
        name = .0,
        known = Requirement::NAMES.join(", ")
    )]
    Unknown(Box<str>),
    /// No such value.
    #[error("an invalid value of the requirement {0}")]
    Value(&'static str),
    /// More than [`MAX_CLAIMS`].
    #[error("more than {MAX_CLAIMS} requirements named claim")]
    TooManyClaims,
    /// The header that should hold them is missing, empty, repeated or not text.
    #[error("not exactly one header with requirements (or `any`); the proxy must set it on every request")]
    Header,
}

impl Requirement {
    const ALL: [Self; 16] = [
        Self::Scope,
        Self::Permission,
        Self::Role,
        Self::Org,
        Self::Email,
        Self::EmailDomain,
        Self::Verified,
        Self::Audience,
        Self::Issuer,
        Self::MaxTier,
        Self::Revocation,
        Self::Claim,
        Self::Typ,
        Self::Actor,
        Self::Acr,
        Self::MaxAge,
    ];
    /// The names of all requirements.
    pub const NAMES: [&'static str; 16] = [
        "scope",
        "permission",
        "role",
        "org",
        "email",
        "email_domain",
        "verified",
        "audience",
        "issuer",
        "max_tier",
        "revocation",
        "claim",
        "typ",
        "actor",
        "acr",
        "max_age",
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// The name as it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn named(name: &str) -> Option<Self> {
        Self::all().find(|requirement| requirement.name() == name)
    }

    /// Whether it has this value at all.
    ///
    /// # Errors
    /// [`BadRequirement::Value`], if not.
    pub fn check(self, value: &str, table: &TierTable) -> Result<(), BadRequirement> {
        let good = match self {
            Self::Scope | Self::Permission | Self::Role | Self::Org => !value.is_empty(),
            Self::Email => value.bytes().filter(|byte| *byte == b'@').count() == 1,
            Self::EmailDomain => !value.is_empty() && !value.contains('@'),
            Self::Verified => value == "true",
            Self::Audience => value == "checked",
            Self::Issuer => value.starts_with("https://") || value.starts_with("http://"),
            Self::MaxTier => table.find(value).is_some(),
            Self::Revocation => value == "current",
            Self::Claim => claim(value).is_some(),
            Self::Acr => (1..=MAX_ACR).contains(&value.len()) && value.bytes().all(is_quotable),
            Self::MaxAge => max_age(value).is_some(),
            // In a query, a plus sign is a blank.
            Self::Typ => matches!(value, "at+jwt" | "at jwt"),
            Self::Actor => value == "none",
        };
        if good { Ok(()) } else { Err(BadRequirement::Value(self.name())) }
    }
}

impl BadRequirement {
    /// The longest unknown name that is shown, in bytes. Where a proxy adds a client's query, the name is the
    /// client's, and may be a token.
    const MAX_NAME: usize = 24;

    fn unknown(name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_shown = name.len() <= Self::MAX_NAME && name.bytes().all(plain);
        Self::Unknown(if is_shown { name.into() } else { format!("({} bytes)", name.len()).into() })
    }
}

/// The most claim requirements for one request. Each is kept in the answer.
pub const MAX_CLAIMS: usize = 32;

/// The longest value of `claim` with its pointer, in bytes.
const MAX_CLAIM: usize = 512;

/// The longest value of `acr`, in bytes.
const MAX_ACR: usize = 128;

/// A value of `claim`: the JSON pointer (RFC 6901) and the value that the token must have there.
///
/// The first colon ends the pointer, unless `~1~1` follows, which is the `//` of a claim that has a URL as
/// its name. Any other colon in a name is written `~2`.
#[must_use]
pub fn claim(text: &str) -> Option<(&str, &str)> {
    let mut colons = text.match_indices(':').map(|(at, _)| text.split_at(at));
    let (pointer, value) = colons.find(|(_, rest)| !rest.starts_with(":~1~1"))?;
    let value = &value[1..];
    (pointer::is_pointer(pointer) && !value.is_empty() && text.len() <= MAX_CLAIM).then_some((pointer, value))
}

/// A value of `max_age`, from a second to a year. OpenID Connect has 0 for a login at this moment; a resource
/// that requires it would never be reached.
#[must_use]
pub fn max_age(value: &str) -> Option<Duration> {
    let secs = value.parse().ok().filter(|secs| (1..=31_536_000).contains(secs))?;
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| Duration::from_secs(secs))
}

/// Whether a list of words in a quoted text may have this byte (RFC 6749 §3.3, which OpenID Connect has for
/// `acr_values`).
fn is_quotable(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

/// The requirements in `query`, one after the other. Nothing is allocated unless a value is percent-encoded.
pub fn in_query(
    query: &str,
) -> impl Iterator<Item = Result<(Requirement, Cow<'_, str>), BadRequirement>> + Clone {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let requirement = Requirement::named(name).ok_or_else(|| BadRequirement::unknown(name))?;
        Ok((requirement, decode(value).ok_or(BadRequirement::Value(requirement.name()))?))
    })
}

/// Percent-decoding and `+` for a space, as in a form (URL Standard §5.1).
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let spaced = value.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}
