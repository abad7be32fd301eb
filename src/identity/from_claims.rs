//! Converts claims about a subject, as `/userinfo` returns them, to the profile that is stored.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::issuer::settings::IssuerSettings;
use crate::tiers::record::ProfileRecord;
use crate::token::email::FoundEmail;
use crate::token::json::Object;

/// The profile of the subject of these claims. `found` is the email that counts among them.
pub(super) fn record(
    claims: &Object,
    found: Option<FoundEmail>,
    settings: &IssuerSettings,
    verified_at: Timestamp,
) -> ProfileRecord {
    ProfileRecord {
        verified_at,
        email_verified: found.as_ref().and_then(|found| found.verified),
        email: found.map(|found| found.email.as_str().to_owned()),
        name: claims.get("name").and_then(Value::as_str).map(str::to_owned),
        email_rules: email_rules(settings),
    }
}

/// A fingerprint of `email_claims` and `email_domains`. A restart with the same settings gives the same.
pub(super) fn email_rules(settings: &IssuerSettings) -> [u8; 4] {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        context.update(&text.len().to_le_bytes());
        context.update(text.as_bytes());
    };
    settings.email_claims.iter().for_each(|path| add(path.as_str()));
    if !settings.email_domains.is_empty() {
        // A path is never empty, so no list of paths alone produces these bytes.
        add("");
        settings.email_domains.iter().for_each(|domain| add(domain));
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}
