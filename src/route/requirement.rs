//! The language of requirements: names and values.
//!
//! Three places use this language: the auth URL's query, a header that the proxy sets, and the rules of the
//! configuration. A repeated name means any of its values. Different names must all be met. An unknown name
//! is an error and never ignored, because a misspelled requirement would otherwise let everybody in.

use std::borrow::Cow;

use thiserror::Error;

use crate::tiers::table::TierTable;

/// A name that may be required.
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
    /// `checked`: the token was verified here, its audience with it.
    Audience,
    /// The `url` of the issuer that vouches for the identity, byte for byte.
    Issuer,
    /// The oldest tier that is accepted.
    MaxTier,
    /// `current`: this instance cannot have missed a revocation.
    Revocation,
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
    /// The header that should hold them is missing, empty, repeated or not text.
    #[error("not exactly one header with requirements (or `any`); the proxy must set it on every request")]
    Header,
}

impl Requirement {
    const ALL: [Self; 11] = [
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
    ];
    /// The names of all requirements.
    pub const NAMES: [&'static str; 11] = [
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

/// The requirements in `query`, one after the other. Nothing is allocated unless a value is percent-encoded.
pub fn in_query(query: &str) -> impl Iterator<Item = Result<(Requirement, Cow<'_, str>), BadRequirement>> {
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
