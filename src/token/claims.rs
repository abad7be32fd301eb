//! Claims whose signature was verified → claims that hold now, for us (RFC 7519 §4.1). Pure.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::compact::Malformed;
use super::json::{self, Object};
use super::refusal::Refusal;
use crate::clock::Timestamp;

/// The latest `NumericDate` that is accepted: the end of the year 9999. A later one is a mistake or an
/// attack.
const MAX_DATE: u64 = 253_402_300_799;

/// The longest `sub`, in bytes (OpenID Connect Core §2: 255 ASCII characters).
const MAX_SUBJECT_BYTES: usize = 255;

/// A payload that is authenticated as its issuer's. It can be made only by verifying a signature, or by
/// decrypting a JWE under a key that only the issuer and we hold.
#[derive(Clone, Debug)]
pub struct AuthenticatedPayload(Object);

impl AuthenticatedPayload {
    /// Reads a payload that was just verified by a signature or a shared key. Do not call it elsewhere: an
    /// unverified text must not make us build large values.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a JSON object.
    pub(super) fn read(text: &[u8]) -> Result<Self, Malformed> {
        json::object(text).map(Self).map_err(Malformed::Claims)
    }

    /// All claims, taken out.
    #[must_use]
    pub fn into_claims(self) -> Object {
        self.0
    }

    /// The `iss` that it names.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }
}

/// What the claims are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// The issuer's name: `iss`, byte for byte, unless that is one of `aliases`.
    pub issuer: &'e Arc<str>,
    /// Other names of the issuer in `iss`.
    pub aliases: &'e [String],
    /// `aud` must contain one of these.
    pub audience: &'e [String],
    /// Tolerated clock skew.
    pub leeway: Duration,
    /// `expired_grace`, and since when the issuer's breaker has been open, if it is: a token that expired
    /// during the outage is accepted for that much longer.
    pub grace: Option<(Duration, Timestamp)>,
}

/// Claims that were verified, and were valid when they were checked.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    issuer: Arc<str>,
    subject: String,
    expires_at: Timestamp,
    not_after: Timestamp,
    in_grace: bool,
    all: Object,
}

impl VerifiedClaims {
    /// Checks `payload` as the claims of an access token at the time `now`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        payload: AuthenticatedPayload,
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let all = payload.0;
        refuse_other_kinds(&all)?;
        let named = all.get("iss").and_then(Value::as_str);
        if !named
            .is_some_and(|name| *name == **expected.issuer || expected.aliases.iter().any(|one| one == name))
        {
            return Err(Refusal::IssuerUnknown { configured: expected.issuer.to_string() });
        }
        let expires_at = date(&all, "exp")?.ok_or(Refusal::ClaimUnfit { claim: "exp" })?;
        let mut not_after = expires_at.after(expected.leeway);
        // Only an expired token is in grace: a record of a valid one must not outlive the token.
        let in_grace = now >= not_after;
        if let Some((grace, open_since)) = expected.grace
            && in_grace
            && open_since <= expires_at
        {
            not_after = not_after.after(grace);
        }
        if now >= not_after {
            return Err(Refusal::Expired { ago_secs: now.since(expires_at).as_secs() });
        }
        for claim in ["nbf", "iat"] {
            if let Some(start) = date(&all, claim)?
                && start > now.after(expected.leeway)
            {
                return Err(Refusal::NotYetValid { claim, in_secs: start.since(now).as_secs() });
            }
        }
        check_audience(&all, expected.audience)?;
        let subject = match all.get("sub") {
            Some(Value::String(sub)) if (1..=MAX_SUBJECT_BYTES).contains(&sub.len()) => sub.clone(),
            _ => return Err(Refusal::ClaimUnfit { claim: "sub" }),
        };
        Ok(Self { issuer: expected.issuer.clone(), subject, expires_at, not_after, in_grace, all })
    }

    /// The configured issuer that `iss` names, by its name or an alias.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// `sub`, not empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `exp`, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// `iat`; the Unix epoch if it has none.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        // An invalid one was refused above.
        date(&self.all, "iat").ok().flatten().unwrap_or(Timestamp::EPOCH)
    }

    /// The end of the token's life: `exp` plus leeway. After that only grace accepts it, and this is when the
    /// token must be checked again.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether only `expired_grace` accepts it: for this request only, since the breaker may close at any
    /// moment.
    #[must_use]
    pub fn in_grace(&self) -> bool {
        self.in_grace
    }

    /// All claims.
    #[must_use]
    pub fn all(&self) -> &Object {
        &self.all
    }

    /// All claims, by value.
    #[must_use]
    pub fn into_all(self) -> Object {
        self.all
    }
}

/// An ID token or a logout token is signed by the same keys and means something else. Auth0 does not allow
/// these claims in an access token, so they identify such tokens.
fn refuse_other_kinds(claims: &Object) -> Result<(), Refusal> {
    let markers = [
        ("nonce", "it has a `nonce`, so it is an ID token"),
        ("at_hash", "it has an `at_hash`, so it is an ID token"),
        ("c_hash", "it has a `c_hash`, so it is an ID token"),
        ("s_hash", "it has an `s_hash`, so it is an ID token"),
        ("events", "it has `events`, so it is a security event or logout token"),
    ];
    match markers.into_iter().find(|(claim, _)| claims.contains_key(*claim)) {
        Some((_, what)) => Err(Refusal::NotAnAccessToken(what)),
        None => Ok(()),
    }
}

/// A `NumericDate` (RFC 7519 §2), in whole seconds or with a fraction. `None` if it is absent.
///
/// # Errors
/// [`Refusal::ClaimUnfit`] if it cannot be used.
pub fn date(claims: &Object, claim: &'static str) -> Result<Option<Timestamp>, Refusal> {
    match claims.get(claim).map(numeric_date) {
        None => Ok(None),
        Some(None) => Err(Refusal::ClaimUnfit { claim }),
        Some(time) => Ok(time),
    }
}

fn numeric_date(value: &Value) -> Option<Timestamp> {
    let Value::Number(number) = value else { return None };
    if let Some(secs) = number.as_u64() {
        return (secs <= MAX_DATE).then(|| Timestamp::from_secs(secs));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was just checked, and a fraction of a second may be dropped"
    )]
    #[expect(clippy::cast_precision_loss, reason = "MAX_DATE is far below 2^53")]
    match number.as_f64() {
        Some(secs) if secs >= 0.0 && secs <= MAX_DATE as f64 => Some(Timestamp::from_secs(secs as u64)),
        _ => None,
    }
}

/// When the user logged in: `auth_time` (OpenID Connect Core 1.0 §2), or the only claim of this name under a
/// namespace. A time after `iat` is nonsense, since nobody logs in after the token was issued; so, within the
/// clock skew that is tolerated for `iat`, it is never in the future.
#[must_use]
pub fn auth_time(claims: &Object) -> Option<Timestamp> {
    let time = numeric_date(own_or_namespaced(claims, "auth_time")?)?;
    (time <= date(claims, "iat").ok()??).then_some(time)
}

/// How the user logged in: `acr` (OpenID Connect Core 1.0 §2), or the only claim of this name under a
/// namespace.
#[must_use]
pub fn acr(claims: &Object) -> Option<&str> {
    own_or_namespaced(claims, "acr")?.as_str()
}

/// Auth0 lets nobody set a claim of such a name, so an Action writes it under a namespace. If there are
/// several, none counts.
fn own_or_namespaced<'c>(claims: &'c Object, name: &str) -> Option<&'c Value> {
    let is_namespaced = |claim: &str| {
        let namespace = claim.strip_suffix(name).and_then(|rest| rest.strip_suffix('/'));
        namespace.is_some_and(|rest| rest.starts_with("https://") || rest.starts_with("http://"))
    };
    let mut namespaced = claims.iter().filter(|(claim, _)| is_namespaced(claim));
    match (claims.get(name), namespaced.next(), namespaced.next()) {
        (Some(own), ..) => Some(own),
        (None, Some((_, only)), None) => Some(only),
        _ => None,
    }
}

/// RFC 7519 §4.1.3: a string or an array of strings. An array with anything else in it is not an audience.
///
/// # Errors
/// [`Refusal::AudienceMismatch`] if none is configured, [`Refusal::ClaimUnfit`] if it cannot be read.
pub fn check_audience(claims: &Object, configured: &[String]) -> Result<(), Refusal> {
    let is_ours = |audience: &str| configured.iter().any(|ours| ours == audience);
    let unfit = Refusal::ClaimUnfit { claim: "aud" };
    let found = match claims.get("aud") {
        Some(Value::String(audience)) => is_ours(audience),
        Some(Value::Array(audiences)) => {
            let texts: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
            texts.ok_or(unfit)?.into_iter().any(is_ours)
        }
        _ => return Err(unfit),
    };
    if found { Ok(()) } else { Err(Refusal::AudienceMismatch { expected: configured.join(", ") }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tiers::policy::{Limits, Policy, TokenLife};
    use crate::tiers::table::{TierIndex, TierTable};

    const NOW: u64 = 1_800_000_000;

    fn check(text: &str) -> Result<VerifiedClaims, Refusal> {
        let issuer: Arc<str> = "https://t.example/".into();
        let audience = ["https://api".to_owned(), "https://other".to_owned()];
        let expected = Expected {
            issuer: &issuer,
            aliases: &[],
            audience: &audience,
            leeway: Duration::from_secs(30),
            grace: None,
        };
        let payload = AuthenticatedPayload::read(text.as_bytes()).unwrap();
        VerifiedClaims::check(payload, expected, Timestamp::from_secs(NOW))
    }

    /// A good token's claims with one member set to `value`, or left out if it is empty.
    fn with(member: &str, value: &str) -> String {
        let mut members = vec![
            ("iss", "\"https://t.example/\"".to_owned()),
            ("aud", "\"https://api\"".to_owned()),
            ("sub", "\"auth0|a\"".to_owned()),
            ("exp", (NOW + 100).to_string()),
            ("iat", NOW.to_string()),
        ];
        members.retain(|(name, _)| *name != member);
        if !value.is_empty() {
            members.push((member, value.to_owned()));
        }
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn a_good_token_passes() {
        let claims = check(&with("scope", "\"read\"")).unwrap();
        assert_eq!(claims.subject(), "auth0|a");
        assert_eq!(claims.not_after(), Timestamp::from_secs(NOW + 130));
    }

    #[test]
    fn each_broken_rule_has_its_reason() {
        let later = (NOW + 31).to_string();
        for (member, value, reason) in [
            ("exp", "", "claim_unfit"),
            ("exp", "\"1900000000\"", "claim_unfit"),
            ("exp", "-1", "claim_unfit"),
            ("exp", "-0.5", "claim_unfit"),
            ("exp", "1e300", "claim_unfit"),
            ("exp", "253402300800", "claim_unfit"),
            ("exp", "null", "claim_unfit"),
            ("exp", "0", "expired"),
            ("exp", "1799999970", "expired"),
            ("nbf", &later, "not_yet_valid"),
            ("nbf", "true", "claim_unfit"),
            ("iat", &later, "not_yet_valid"),
            ("aud", "", "claim_unfit"),
            ("aud", "\"https://evil\"", "audience_mismatch"),
            ("aud", "\"https://api/\"", "audience_mismatch"),
            ("aud", "[]", "audience_mismatch"),
            ("aud", "[\"https://evil\"]", "audience_mismatch"),
            ("aud", "[\"https://api\",7]", "claim_unfit"),
            ("aud", "{\"https://api\":1}", "claim_unfit"),
            ("iss", "", "issuer_unknown"),
            ("iss", "\"https://t.example\"", "issuer_unknown"),
            ("iss", "[\"https://t.example/\"]", "issuer_unknown"),
            ("sub", "", "claim_unfit"),
            ("sub", "\"\"", "claim_unfit"),
            ("sub", "7", "claim_unfit"),
            ("nonce", "\"n\"", "not_an_access_token"),
            ("at_hash", "\"n\"", "not_an_access_token"),
            ("events", "{}", "not_an_access_token"),
        ] {
            let refusal = check(&with(member, value)).unwrap_err();
            assert_eq!(refusal.reason(), reason, "{member} = {value}");
        }
    }

    /// Claims that expire at `exp`, checked at `now` with this leeway, grace, and time at which the breaker
    /// opened.
    fn in_outage(
        exp: u64,
        now: u64,
        times: [u64; 2],
        open_since: Option<u64>,
    ) -> Result<VerifiedClaims, Refusal> {
        let issuer: Arc<str> = "https://t.example/".into();
        let audience = ["https://api".to_owned()];
        let [leeway, grace] = times.map(Duration::from_secs);
        let grace = open_since.map(|since| (grace, Timestamp::from_secs(since)));
        let expected = Expected { issuer: &issuer, aliases: &[], audience: &audience, leeway, grace };
        let text = with("exp", &exp.to_string()).replace("\"iat\"", "\"x\"");
        let payload = AuthenticatedPayload::read(text.as_bytes()).unwrap();
        VerifiedClaims::check(payload, expected, Timestamp::from_secs(now))
    }

    #[test]
    fn grace_is_for_what_has_expired_and_adds_nothing_to_what_has_not() {
        let open = Some(NOW - 1_000);
        let claims = in_outage(NOW, NOW + 29, [30, 600], open).unwrap();
        assert_eq!((claims.in_grace(), claims.not_after()), (false, Timestamp::from_secs(NOW + 30)));
        let claims = in_outage(NOW, NOW + 30, [30, 600], open).unwrap();
        assert_eq!((claims.in_grace(), claims.not_after()), (true, Timestamp::from_secs(NOW + 630)));
        assert!(in_outage(NOW, NOW + 629, [30, 600], open).is_ok());
        for (now, times, open_since) in [
            (NOW + 630, [30, 600], open),
            (NOW + 30, [30, 0], open),
            (NOW + 30, [30, 600], None),
            (NOW + 30, [30, 600], Some(NOW + 1)),
        ] {
            let refusal = in_outage(NOW, now, times, open_since).unwrap_err();
            assert!(matches!(refusal, Refusal::Expired { .. }), "{refusal}");
        }
    }

    proptest! {
        /// So the proof of the policy's rule also holds for tokens that contain their email and never reach
        /// the policy.
        #[test]
        fn a_tokens_life_ends_by_the_rule_of_the_policy(
            now in NOW - 300..NOW + 300, leeway in 0..120_u64, grace in 0..200_u64,
            open_since in prop::option::of(NOW - 300..NOW + 300),
        ) {
            let limits = Limits {
                verdict_ceiling: TierIndex::YOUNGEST,
                leeway: Duration::from_secs(leeway),
                expired_grace: Duration::from_secs(grace),
            };
            let policy = Policy::new(TierTable::default(), limits).unwrap();
            let at = Timestamp::from_secs;
            let life = policy.token_life(Some(at(NOW)), at(now), open_since.map(at));
            match in_outage(NOW, now, [leeway, grace], open_since) {
                Err(_) => prop_assert_eq!(life, TokenLife::Over),
                Ok(claims) => {
                    prop_assert_eq!(life, if claims.in_grace() { TokenLife::Grace } else { TokenLife::Good });
                    prop_assert!(at(now) < claims.not_after());
                    let end = NOW + leeway + if claims.in_grace() { grace } else { 0 };
                    prop_assert_eq!(claims.not_after(), at(end));
                }
            }
        }
    }

    #[test]
    fn leeway_is_granted_to_the_second() {
        assert!(check(&with("exp", &(NOW - 29).to_string())).is_ok());
        assert!(check(&with("exp", &(NOW - 30).to_string())).is_err());
        assert!(check(&with("nbf", &(NOW + 30).to_string())).is_ok());
        assert!(check(&with("exp", &format!("{}.9", NOW + 1))).is_ok());
        assert!(check(&with("aud", "[\"https://evil\",\"https://other\"]")).is_ok());
    }
}
