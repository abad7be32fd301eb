//! Every definitive refusal. No tier ever turns one of these into an allow.

use thiserror::Error;

use super::compact::Malformed;
use super::jwe::JweError;

/// Why a token is refused. The sentence is for the operator (log, `holdfast inspect`). The client only gets
/// an error code of RFC 6750 §3.1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not a token.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// `alg` is not in the issuer's allow-list.
    #[error("the token's algorithm is not allowed for this issuer; allowed: {allowed}")]
    AlgorithmNotAllowed {
        /// The allow-list.
        allowed: String,
    },
    /// `iss` is missing or names no configured issuer.
    #[error("the token's issuer is not configured; configured: {configured}")]
    IssuerUnknown {
        /// The configured issuers.
        configured: String,
    },
    /// No key of the issuer fits the token's `kid`.
    #[error("the issuer has no key with the token's `kid`, or several keys fit a token without one")]
    KeyUnknown,
    /// The key that `kid` names is of another type or for another use.
    #[error("the key that the token's `kid` names is not for signatures with the token's algorithm")]
    KeyUnfit,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    SignatureInvalid,
    /// A claim is missing or of the wrong type.
    #[error("the claim `{claim}` is missing or has a wrong type or range")]
    ClaimUnfit {
        /// The claim.
        claim: &'static str,
    },
    /// `exp` has passed.
    #[error("the token expired {ago_secs} s ago")]
    Expired {
        /// How long ago, in seconds.
        ago_secs: u64,
    },
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid before {in_secs} s from now (`{claim}`); check both clocks")]
    NotYetValid {
        /// `nbf` or `iat`.
        claim: &'static str,
        /// In how many seconds.
        in_secs: u64,
    },
    /// `aud` names none of the configured audiences.
    #[error("the token is for another audience; expected one of: {expected}")]
    AudienceMismatch {
        /// The configured audiences.
        expected: String,
    },
    /// A JWE cannot be opened, and not because the key is the issuer's alone.
    #[error("{0}")]
    Jwe(JweError),
    /// A JWE under a public key that holds bare claims.
    #[error(
        "the token is encrypted to a public key and contains no signed token: anybody can make one, so it \
         proves nothing"
    )]
    BareClaims,
    /// A JWE under a shared key that holds bare claims, which the configuration does not allow.
    #[error(
        "the token is encrypted under a shared key and contains no signed token; `bare_claims` would allow it"
    )]
    BareClaimsNotAllowed,
    /// A JWE in a JWE.
    #[error("the token is nested deeper than a signed token in an encrypted one")]
    NestedTooDeep,
    /// A token that only the issuer can judge, where `foreign_tokens = "refuse"`.
    #[error("only the issuer could judge this token ({why}), and `foreign_tokens` is \"refuse\"")]
    ForeignRefused {
        /// Why it cannot be judged here.
        why: String,
    },
    /// `/userinfo` answered 401, or introspection that the token is not active.
    #[error("the issuer does not accept the token ({said}{local})")]
    IssuerRejects {
        /// The issuer's words.
        said: &'static str,
        /// Why it was not judged here, to go into brackets; empty if it was.
        local: String,
        /// Whether the issuer gave a reason, which proves that the refusal is its own.
        certain: bool,
    },
    /// `/userinfo` answered 403.
    #[error(
        "the issuer accepts the token, but not for this (403 from /userinfo); does it have the scope \
         `openid`?"
    )]
    IssuerForbids {
        /// As for [`Refusal::IssuerRejects`].
        certain: bool,
    },
    /// It should be a logout token, and is not.
    #[error("this is not a logout token: {0}")]
    NotALogoutToken(&'static str),
    /// A deny record covers the token.
    #[error("the token is revoked, by a deny record about its {kind}")]
    Revoked {
        /// What the deny record is about.
        kind: &'static str,
    },
    /// `cnf` binds the token to something that cannot be checked here.
    #[error(
        "the token's `cnf` has a member that is neither `jkt` nor `x5t#S256`, so its sender cannot be checked"
    )]
    BindingUnknown,
    /// An ID token, a logout token, or another kind of JWT.
    #[error("this is not an access token: {0}")]
    NotAnAccessToken(&'static str),
}

impl Refusal {
    /// The refusal of the issuer, in its words; `forbids`: by a 403 of `/userinfo`; `certain`: with a reason.
    #[must_use]
    pub fn of_issuer(said: &'static str, forbids: bool, certain: bool) -> Self {
        match forbids {
            true => Self::IssuerForbids { certain },
            false => Self::IssuerRejects { said, local: String::new(), certain },
        }
    }

    /// The same, with the reason why the token was not judged here.
    #[must_use]
    pub fn not_judged_here(self, why: &str) -> Self {
        match self {
            Self::IssuerRejects { said, certain, .. } => {
                Self::IssuerRejects { said, local: format!("; not judged here, because {why}"), certain }
            }
            other => other,
        }
    }

    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::AlgorithmNotAllowed { .. } => "algorithm_not_allowed",
            Self::IssuerUnknown { .. } => "issuer_unknown",
            Self::KeyUnknown => "key_unknown",
            Self::KeyUnfit => "key_unfit",
            Self::SignatureInvalid => "signature_invalid",
            // No auth request ends with the second.
            Self::ClaimUnfit { .. } | Self::NotALogoutToken(_) => "claim_unfit",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::AudienceMismatch { .. } => "audience_mismatch",
            Self::NotAnAccessToken(_) => "not_an_access_token",
            Self::Jwe(error) => error.reason(),
            Self::BareClaims | Self::BareClaimsNotAllowed => "bare_claims",
            Self::NestedTooDeep => "nested_too_deep",
            Self::ForeignRefused { .. } => "foreign_refused",
            Self::IssuerRejects { .. } => "issuer_rejects",
            Self::IssuerForbids { .. } => "issuer_forbids",
            Self::Revoked { .. } => "revoked",
            Self::BindingUnknown => "binding_unknown",
        }
    }

    /// Whether the issuer itself refused, at `/userinfo` or by introspection.
    #[must_use]
    pub fn is_the_issuers(&self) -> bool {
        matches!(self, Self::IssuerRejects { .. } | Self::IssuerForbids { .. })
    }

    /// Whether records of the token are no longer valid: the issuer itself refuses it and says why.
    #[must_use]
    pub fn ends_records(&self) -> bool {
        matches!(self, Self::IssuerRejects { certain: true, .. } | Self::IssuerForbids { certain: true })
    }

    /// Whether the only reason is the time.
    #[must_use]
    pub fn is_the_clocks(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }

    /// How many bytes of text it holds. Some variants list everything that is configured, and anybody can
    /// cause them.
    #[must_use]
    pub fn text_length(&self) -> usize {
        match self {
            Self::AlgorithmNotAllowed { allowed: text }
            | Self::IssuerUnknown { configured: text }
            | Self::AudienceMismatch { expected: text }
            | Self::ForeignRefused { why: text }
            | Self::IssuerRejects { local: text, .. } => text.capacity(),
            // At most 32 characters each, which are within what a refusal takes anyway.
            _ => 0,
        }
    }

    /// Whether it may be stored under the token's digest. Not if time, a new key or an operator can change
    /// it.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::NotYetValid { .. } | Self::KeyUnknown | Self::KeyUnfit | Self::Revoked { .. })
    }
}
