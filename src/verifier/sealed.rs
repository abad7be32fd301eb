//! What a JWE holds, and whose it is: work for the pool, none of it done on a thread that answers.

use std::sync::Arc;

use super::issuers::Issuers;
use super::resolved::ResolvedJws;
use crate::issuer::Issuer;
use crate::token::claims::VouchedPayload;
use crate::token::compact::{Compact, MAX_TOKEN_BYTES, Malformed};
use crate::token::jwe::{DecryptionKeys, JweError, SealedWith};
use crate::token::jws::{self, TokenUse};
use crate::token::refusal::Refusal;

/// The content of a JWE.
pub(super) enum Content {
    /// A JWS, to be verified as any other.
    Signed(ResolvedJws),
    /// Claims that the seal itself vouches for.
    Vouched(Arc<Issuer>, VouchedPayload),
}

/// Opens a JWE and judges what is in it.
///
/// **A JWE sealed to a public key proves nothing about its sender**: everybody has that key. What is in it
/// must be a JWS that verifies. Under a key that only the issuer and we hold, the seal itself vouches for
/// bare claims, if the configuration says that the issuer makes such tokens. Auth0 leaves out `cty`, so the
/// content tells its form.
///
/// Whose token it is, `iss` says, and that issuer must be one for which we hold the key that opened it. Until
/// then all issuers' keys may be tried, since Auth0 does not say in the header whose it is.
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
                let claims = jws::vouched_by_shared_key(content.as_bytes())?;
                let issuer = holders.named(claims.issuer())?;
                match issuer.settings().bare_claims {
                    true => Ok(Content::Vouched(issuer.clone(), claims)),
                    false => Err(Refusal::BareClaimsNotAllowed),
                }
            }
        };
    }
    // A shared key may seal more than a token, but not as a token.
    if content.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::Jwe(JweError::TooLarge { most: MAX_TOKEN_BYTES }));
    }
    match Compact::parse(content)? {
        Compact::Jws(jws) => ResolvedJws::new(&jws, content, TokenUse::Access, &holders).map(Content::Signed),
        Compact::Jwe(_) => Err(Refusal::NestedTooDeep),
        Compact::Opaque => Err(Malformed::Parts.into()),
    }
}
