//! Decrypts a JWE and finds its issuer. This runs on the thread pool, not on threads that answer requests.

use std::sync::Arc;

use super::issuers::Issuers;
use super::resolved::ResolvedJws;
use crate::issuer::Issuer;
use crate::token::claims::AuthenticatedPayload;
use crate::token::compact::{Compact, MAX_TOKEN_BYTES, Malformed};
use crate::token::jwe::{DecryptionKeys, JweError, SealedWith};
use crate::token::jws::{self, TokenUse};
use crate::token::refusal::Refusal;

/// The content of a JWE.
pub(super) enum Content {
    /// A JWS, which is verified like any other.
    Signed(ResolvedJws),
    /// Bare claims, authenticated by the encryption itself.
    Authenticated(Arc<Issuer>, AuthenticatedPayload),
}

/// Decrypts a JWE and checks its content.
///
/// **A JWE that is encrypted to a public key proves nothing about its sender**: everybody has that key. Its
/// content must be a JWS that verifies. If only the issuer and we hold the key, the encryption itself
/// authenticates bare claims, provided that the configuration says that the issuer makes such tokens. Auth0
/// omits `cty`, so the form is read from the content.
///
/// `iss` in the content names the issuer. The key that decrypted the token must be configured for this
/// issuer. Before decryption the keys of all issuers may be tried, because Auth0 does not name the issuer in
/// the header.
pub(super) fn open(token: &str, keys: &DecryptionKeys, issuers: &Issuers) -> Result<Content, Refusal> {
    let Compact::Jwe(jwe) = Compact::parse(token)? else { return Err(Malformed::Parts.into()) };
    let opened = keys.open(&jwe).map_err(Refusal::Jwe)?;
    let holders = issuers.iter().filter(|issuer| issuer.decryption_keys().have_opened(&opened));
    let holders = Issuers::new(holders.cloned().collect());
    let content = std::str::from_utf8(&opened.payload).map_err(|_| Malformed::Parts)?;
    if content.trim_start().starts_with('{') {
        return match opened.sealed_with {
            SealedWith::PublicKey => Err(Refusal::BareClaims),
            SealedWith::SharedKey if !holders.iter().any(|issuer| issuer.settings().bare_claims) => {
                Err(Refusal::BareClaimsNotAllowed)
            }
            SealedWith::SharedKey => {
                let claims = jws::authenticated_by_shared_key(content.as_bytes())?;
                let issuer = holders.named(claims.issuer())?;
                match issuer.settings().bare_claims {
                    true => Ok(Content::Authenticated(issuer.clone(), claims)),
                    false => Err(Refusal::BareClaimsNotAllowed),
                }
            }
        };
    }
    // Content under a shared key may be longer than a token, but a nested token may not.
    if content.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::Jwe(JweError::TooLarge { most: MAX_TOKEN_BYTES }));
    }
    match Compact::parse(content)? {
        Compact::Jws(jws) => ResolvedJws::new(&jws, content, TokenUse::Access, &holders).map(Content::Signed),
        Compact::Jwe(_) => Err(Refusal::NestedTooDeep),
        Compact::Opaque => Err(Malformed::Parts.into()),
    }
}
