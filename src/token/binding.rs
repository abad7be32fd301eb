//! What a token is bound to: the claim `cnf` (RFC 7800 §3.1).
//!
//! A bound token is good only together with a proof that its sender has a certain key: a DPoP proof
//! (RFC 9449) or a client certificate (RFC 8705). Without the proof it may be stolen.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::json::Object;
use super::refusal::Refusal;

/// The claim.
const CLAIM: &str = "cnf";

/// How sender-constrained tokens of an issuer are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderConstrained {
    /// The sender must prove that it has the key.
    Verify,
    /// `cnf` is ignored: another component checks it, or any holder may use the token.
    Ignore,
}

/// A SHA-256 thumbprint of a key (RFC 7638) or of a certificate (RFC 8705 §3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint([u8; 32]);

/// What a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Nothing: any holder may use the token.
    Bearer,
    /// Not read, because of [`SenderConstrained::Ignore`].
    Ignored,
    /// A key, a certificate, or both. The sender must prove each of them.
    Sender {
        /// `jkt`: the key of DPoP proofs (RFC 9449 §6.1).
        key: Option<Thumbprint>,
        /// `x5t#S256`: the client certificate (RFC 8705 §3.1).
        certificate: Option<Thumbprint>,
    },
}

impl Binding {
    /// A binding that cannot be checked here.
    pub const UNKNOWN: Self = Self::Sender { key: None, certificate: None };

    /// Reads `cnf`. Unknown members are refused, because they bind the token to something that cannot be
    /// checked here.
    ///
    /// # Errors
    /// [`Refusal::ClaimUnfit`], [`Refusal::BindingUnknown`].
    pub fn of(claims: &Object, how: SenderConstrained) -> Result<Self, Refusal> {
        const UNFIT: Refusal = Refusal::ClaimUnfit { claim: CLAIM };
        let members = match (how, claims.get(CLAIM)) {
            (SenderConstrained::Ignore, _) => return Ok(Self::Ignored),
            (SenderConstrained::Verify, None) => return Ok(Self::Bearer),
            // A claim that occurs twice reads as null.
            (SenderConstrained::Verify, Some(Value::Object(members))) if !members.is_empty() => members,
            (SenderConstrained::Verify, Some(_)) => return Err(UNFIT),
        };
        let (mut key, mut certificate) = (None, None);
        for (name, value) in members {
            let thumbprint = match name.as_str() {
                "jkt" => &mut key,
                "x5t#S256" => &mut certificate,
                _ => return Err(Refusal::BindingUnknown),
            };
            *thumbprint = Some(value.as_str().and_then(Thumbprint::parse).ok_or(UNFIT)?);
        }
        Ok(Self::Sender { key, certificate })
    }
}

impl Thumbprint {
    /// The thumbprint of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Reads base64url, as it stands in `cnf`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Thumbprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// base64url.
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::json;

    /// RFC 9449 §6.1 and RFC 8705 §3.1.
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    const X5T: &str = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";

    fn of(claims: &str) -> Result<Binding, &'static str> {
        let claims = json::object(claims.as_bytes()).unwrap();
        assert_eq!(Binding::of(&claims, SenderConstrained::Ignore), Ok(Binding::Ignored));
        Binding::of(&claims, SenderConstrained::Verify).map_err(|refusal| refusal.reason())
    }

    #[test]
    fn the_examples_of_the_rfcs_are_read() {
        let (key, certificate) = (Thumbprint::parse(JKT), Thumbprint::parse(&format!("{}4", &X5T[..42])));
        assert!(key.is_some_and(|key| key.to_string() == JKT));
        assert_eq!(of("{}"), Ok(Binding::Bearer));
        assert_eq!(
            of(&format!(r#"{{"cnf":{{"jkt":"{JKT}"}}}}"#)),
            Ok(Binding::Sender { key, certificate: None })
        );
        let both = format!(r#"{{"cnf":{{"x5t#S256":"{}4","jkt":"{JKT}"}}}}"#, &X5T[..42]);
        assert_eq!(of(&both), Ok(Binding::Sender { key, certificate }));
    }

    #[test]
    fn a_binding_that_is_not_understood_is_never_none() {
        for (cnf, reason) in [
            ("null".to_owned(), "claim_unfit"),
            ("{}".to_owned(), "claim_unfit"),
            ("[]".to_owned(), "claim_unfit"),
            (format!("\"{JKT}\""), "claim_unfit"),
            (r#"{"jkt":null}"#.to_owned(), "claim_unfit"),
            (r#"{"jkt":""}"#.to_owned(), "claim_unfit"),
            (r#"{"jkt":7}"#.to_owned(), "claim_unfit"),
            (format!(r#"{{"jkt":"{JKT}="}}"#), "claim_unfit"),
            (format!(r#"{{"jkt":"{JKT}","jkt":"{JKT}"}}"#), "claim_unfit"),
            (format!(r#"{{"jkt":"{}"}}"#, &JKT[1..]), "claim_unfit"),
            // Stray bits at the end: another spelling of the same bytes.
            (format!(r#"{{"x5t#S256":"{X5T}"}}"#), "claim_unfit"),
            (r#"{"jwk":{}}"#.to_owned(), "binding_unknown"),
            (r#"{"kid":"a"}"#.to_owned(), "binding_unknown"),
            (format!(r#"{{"jkt":"{JKT}","x":1}}"#), "binding_unknown"),
        ] {
            assert_eq!(of(&format!(r#"{{"cnf":{cnf}}}"#)), Err(reason), "{cnf}");
        }
        assert_eq!(of(&format!(r#"{{"cnf":{{"jkt":"{JKT}"}},"cnf":{{}}}}"#)), Err("claim_unfit"));
    }
}
