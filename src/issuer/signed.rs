//! Signed and encrypted answers of `/userinfo` (OpenID Connect Core 1.0 §5.3.2, `application/jwt`).
//!
//! Whether an issuer signs or encrypts the answer is part of its agreement with the client that got the
//! token, and holdfast is not that client. So the form is read from the answer: a JSON object begins with
//! `{`, a JWT never does.
//!
//! A signature is verified as that of a token: `iss`, the issuer's keys and its allow-list of algorithms.
//! `aud` is not compared: it names the client of the token, which may be any. An answer that does not verify
//! says nothing, and never counts as an unsigned one. An encrypted answer without a signature counts as a
//! plain one, because it came from the issuer over the same connection.

use std::time::Duration;

use super::jwks::{KeyLookup, KeySet};
use super::settings::IssuerSettings;
use crate::clock::{Ticks, Timestamp};
use crate::token::claims::date;
use crate::token::compact::{Compact, UnverifiedJws};
use crate::token::json::{self, Object};
use crate::token::jwe::DecryptionKeys;
use crate::token::jws::{self, TokenUse};

const NOT_JSON: &str = "the answer of /userinfo is not a JSON object";
const SEALED: &str = "the answer of /userinfo is encrypted, and no key in decryption_keys opens it";
const NESTED: &str = "the encrypted answer of /userinfo contains neither JSON nor a signed JWT";
const ALGORITHM: &str = "the signed answer of /userinfo has a `typ` other than JWT, or an algorithm that the \
                         issuer's `algorithms` do not have";
const SIGNATURE: &str = "the signature of the answer of /userinfo does not verify";
const ISSUER: &str = "the signed answer of /userinfo names another issuer, or none";
const TIME: &str = "the signed answer of /userinfo has expired, or is not valid yet";
const OTHER: &str = "the signed answer of /userinfo is an ID token or a logout token";
/// No key of the issuer verifies the answer.
pub const NO_KEY: &str = "the answer of /userinfo is signed by a key that the issuer's JWKS does not have";

/// What is wrong with an answer that is a JWT.
pub const OF_JWTS: [&str; 8] = [SEALED, NESTED, ALGORITHM, SIGNATURE, ISSUER, TIME, OTHER, NO_KEY];

/// The claims of a signed answer that are about the answer and not about the user.
const OF_THE_ANSWER: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// The claims that only tokens of other kinds have.
const OF_OTHER_KINDS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// What an answer is verified with.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// The issuer's settings.
    pub settings: &'r IssuerSettings,
    /// The keys that open JWEs.
    pub decryption: &'r DecryptionKeys,
    /// The issuer's keys, if they are known.
    pub keys: Option<&'r KeySet>,
    /// Tolerated clock skew.
    pub leeway: Duration,
    /// The present.
    pub now: (Timestamp, Ticks),
}

/// Why an answer has no claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its key is not known; another fetch of the keys may help.
    UnknownKey,
    /// What is wrong with it.
    Bad(&'static str),
}

/// The claims of an answer.
///
/// # Errors
/// [`Unread`].
pub fn claims(body: &[u8], rules: Rules<'_>) -> Result<Object, Unread> {
    let Some(text) = compact(body) else { return json::object(body).map_err(|_| Unread::Bad(NOT_JSON)) };
    match Compact::parse(text) {
        Ok(Compact::Jws(jws)) => verified(&jws, rules),
        Ok(Compact::Jwe(jwe)) => {
            let opened = rules.decryption.open(&jwe).map_err(|_| Unread::Bad(SEALED))?;
            let Some(text) = compact(&opened.payload) else {
                return json::object(&opened.payload).map_err(|_| Unread::Bad(NESTED));
            };
            match Compact::parse(text) {
                Ok(Compact::Jws(jws)) => verified(&jws, rules),
                _ => Err(Unread::Bad(NESTED)),
            }
        }
        _ => Err(Unread::Bad(NOT_JSON)),
    }
}

/// The text of an answer that may be a JWT; `None` if it is JSON.
fn compact(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok().map(str::trim_ascii).filter(|text| !text.starts_with('{'))
}

/// Verifies on the thread that reads the answer: there are few calls, for each has passed the budget.
fn verified(jws: &UnverifiedJws<'_>, rules: Rules<'_>) -> Result<Object, Unread> {
    let Rules { settings, leeway, now: (now, ticks), .. } = rules;
    let algorithm = jws::allowed_algorithm(jws, TokenUse::Userinfo, &settings.algorithms)
        .map_err(|_| Unread::Bad(ALGORITHM))?;
    let keys = match rules.keys.map(|keys| keys.find(jws.header.kid.as_deref(), algorithm, ticks)) {
        Some(KeyLookup::Found(keys)) => keys,
        Some(KeyLookup::Unfit) => return Err(Unread::Bad(SIGNATURE)),
        Some(KeyLookup::Unknown) | None => return Err(Unread::UnknownKey),
    };
    let payload =
        jws::verify_by_any(jws.signing_input, jws.signature, keys.iter().map(|key| &**key), algorithm)
            .map_err(|_| Unread::Bad(SIGNATURE))?;
    if !payload.issuer().is_some_and(|issuer| settings.is_named(issuer)) {
        return Err(Unread::Bad(ISSUER));
    }
    let mut claims = payload.into_claims();
    if OF_OTHER_KINDS.iter().any(|claim| claims.contains_key(*claim)) {
        return Err(Unread::Bad(OTHER));
    }
    let time = |claim| date(&claims, claim).map_err(|_| Unread::Bad(TIME));
    let (end, starts) = (time("exp")?, [time("nbf")?, time("iat")?]);
    let is_over = end.is_some_and(|end| now >= end.after(leeway));
    if is_over || starts.into_iter().flatten().any(|start| start > now.after(leeway)) {
        return Err(Unread::Bad(TIME));
    }
    for claim in OF_THE_ANSWER {
        claims.remove(claim);
    }
    Ok(claims)
}
