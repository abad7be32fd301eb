//! The compact serialization of JWS (RFC 7515 §7.1) and JWE (RFC 7516 §7.1), and the header that both start
//! with.
//!
//! Nothing here is verified: the types are called *unverified*, and serve only to choose the next
//! check. The header's fields that would let a token choose its own key or URL (`jwk`, `jku`, `x5c`, `x5u`)
//! are not read at all, so no later code can use them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use thiserror::Error;

use super::json::{self, JsonError};

/// The longest header that is read, in decoded bytes. Real ones have fewer than 300.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// The most values in a header, which anybody can send. Real ones have at most a dozen, with certificates.
const MAX_HEADER_VALUES: usize = 64;

/// The fields that are read, and the two whose presence is a refusal.
const READ: [&str; 9] = ["alg", "enc", "kid", "typ", "cty", "zip", "iss", "crit", "b64"];

/// The longest token that is read, in bytes, as a credential or inside another token. nginx takes header
/// lines up to 8 KiB by default, Traefik far longer ones.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The longest `kid` that is read, in bytes.
const MAX_KID_BYTES: usize = 256;

/// A credential by its outer form, before any check.
#[derive(Debug)]
pub enum Compact<'t> {
    /// Three parts: signed.
    Jws(UnverifiedJws<'t>),
    /// Five parts: encrypted.
    Jwe(UnopenedJwe<'t>),
    /// No dots: a reference that only the issuer can resolve.
    Opaque,
}

/// The part of a token that does not depend on its signature: the signing input of a JWS, or all of any other
/// token.
///
/// Anybody can turn a valid ECDSA signature (r, s) into another valid one, (r, n − s). So tokens are compared
/// by this part where a token must not come back in another form.
#[must_use]
pub fn without_signature(token: &str) -> &str {
    match Compact::parse(token) {
        Ok(Compact::Jws(jws)) => jws.signing_input,
        Ok(_) | Err(_) => token,
    }
}

/// A JWS whose signature is not checked yet.
#[derive(Debug)]
pub struct UnverifiedJws<'t> {
    /// The protected header.
    pub header: UnverifiedHeader,
    /// What the signature covers: `BASE64URL(header) . BASE64URL(payload)`.
    pub signing_input: &'t str,
    /// The payload, still in base64url.
    pub payload: &'t str,
    /// The signature, still in base64url; never empty.
    pub signature: &'t str,
}

/// A JWE that is not decrypted yet.
#[derive(Debug)]
pub struct UnopenedJwe<'t> {
    /// The protected header.
    pub header: UnverifiedHeader,
    /// All five parts.
    pub token: &'t str,
    /// Whether the second part, the encrypted key, is not empty. With `dir` and `ECDH-ES` it is empty.
    pub has_encrypted_key: bool,
}

/// The fields of the protected header that holdfast reads (RFC 7515 §4.1, RFC 7516 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnverifiedHeader {
    /// Algorithm of the signature or of the key encryption.
    pub alg: String,
    /// Content encryption, in a JWE.
    pub enc: Option<String>,
    /// Which key.
    pub kid: Option<String>,
    /// Media type of the whole token.
    pub typ: Option<String>,
    /// Media type of the payload; `JWT` says that it is nested.
    pub cty: Option<String>,
    /// Compression, in a JWE.
    pub zip: Option<String>,
    /// The issuer, which Auth0 puts into the header of a JWE that only it can open.
    pub iss: Option<String>,
}

/// Why a text is not a token. Always a definitive refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not one, three or five parts.
    #[error("a token has one, three or five parts separated by dots; this one has another number")]
    Parts,
    /// A part is empty that must not be.
    #[error("a part of the token that must not be empty is empty, such as the signature")]
    EmptyPart,
    /// Padding, white space, another alphabet, or stray bits at the end.
    #[error("a part of the token is not canonical base64url without padding (RFC 7515 §2)")]
    Base64,
    /// The header is too long.
    #[error("the token's header is longer than 8 KiB")]
    HeaderTooLarge,
    /// The header is not a proper JSON object.
    #[error("the token's header cannot be read: {0}")]
    Header(JsonError),
    /// The payload is not a proper JSON object.
    #[error("the token's claims cannot be read: {0}")]
    Claims(JsonError),
    /// A header field has the wrong type or length, or `alg` is missing.
    #[error("a field of the token's header has the wrong type, or `alg` is missing")]
    HeaderField,
    /// `crit` names an extension; holdfast knows none (RFC 7515 §4.1.11).
    #[error("the token's header demands an extension by `crit`, and none is supported")]
    Critical,
    /// `b64: false` (RFC 7797), which JWTs must not use (§7 there).
    #[error("the token's header says `b64`, which a JWT must not use")]
    UnencodedPayload,
}

impl Malformed {
    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Critical => "crit_unsupported",
            Self::Header(JsonError::DuplicateName) | Self::Claims(JsonError::DuplicateName) => {
                "duplicate_name"
            }
            _ => "malformed",
        }
    }
}

impl<'t> Compact<'t> {
    /// Splits `token` and reads its header.
    ///
    /// # Errors
    /// [`Malformed`], if it has no known form.
    pub fn parse(token: &'t str) -> Result<Self, Malformed> {
        let dots = token.bytes().filter(|byte| *byte == b'.').count();
        match dots {
            0 if token.is_empty() => Err(Malformed::EmptyPart),
            0 => Ok(Self::Opaque),
            2 => UnverifiedJws::parse(token).map(Self::Jws),
            4 => UnopenedJwe::parse(token).map(Self::Jwe),
            _ => Err(Malformed::Parts),
        }
    }
}

impl<'t> UnverifiedJws<'t> {
    /// Splits a JWS in compact serialization and reads its header.
    ///
    /// # Errors
    /// [`Malformed`], if there are not three parts, or one is empty, or the header is unfit.
    pub fn parse(token: &'t str) -> Result<Self, Malformed> {
        let (signing_input, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Malformed::Parts)?;
        if payload.contains('.') {
            return Err(Malformed::Parts);
        }
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Malformed::EmptyPart);
        }
        Ok(Self { header: UnverifiedHeader::parse(header)?, signing_input, payload, signature })
    }
}

impl<'t> UnopenedJwe<'t> {
    fn parse(token: &'t str) -> Result<Self, Malformed> {
        let mut parts = token.split('.');
        let mut part = || parts.next().ok_or(Malformed::Parts);
        let (header, key, iv, ciphertext, tag) = (part()?, part()?, part()?, part()?, part()?);
        if header.is_empty() || iv.is_empty() || ciphertext.is_empty() || tag.is_empty() {
            return Err(Malformed::EmptyPart);
        }
        Ok(Self { header: UnverifiedHeader::parse(header)?, token, has_encrypted_key: !key.is_empty() })
    }
}

impl UnverifiedHeader {
    /// The fields that are present, with their names.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rest = [
            ("enc", &self.enc),
            ("kid", &self.kid),
            ("typ", &self.typ),
            ("cty", &self.cty),
            ("zip", &self.zip),
            ("iss", &self.iss),
        ];
        let rest = rest.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        std::iter::once(("alg", self.alg.as_str())).chain(rest)
    }

    fn parse(part: &str) -> Result<Self, Malformed> {
        if part.len() > MAX_HEADER_BYTES {
            return Err(Malformed::HeaderTooLarge);
        }
        // For each field whether it is present, and its text; then the names of fields that are not read.
        // Values of those are not used, so names inside them are not compared.
        let mut found: [Option<Option<Cow<'_, str>>>; READ.len()] = Default::default();
        let mut others = Vec::new();
        let text = decode(part)?;
        json::members(&text, MAX_HEADER_VALUES, |name, value| {
            let is_first = match READ.iter().position(|read| *read == name) {
                Some(at) => found[at].replace(value).is_none(),
                None => {
                    let is_first = !others.contains(&name);
                    others.push(name);
                    is_first
                }
            };
            if is_first { Ok(()) } else { Err(JsonError::DuplicateName) }
        })
        .map_err(Malformed::Header)?;
        let [alg, enc, kid, typ, cty, zip, iss, crit, b64] = found;
        if crit.is_some() {
            return Err(Malformed::Critical);
        }
        if b64.is_some() {
            return Err(Malformed::UnencodedPayload);
        }
        let text = |field: Option<Option<Cow<'_, str>>>| match field {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.into_owned())),
            Some(None) => Err(Malformed::HeaderField),
        };
        let header = Self {
            alg: text(alg)?.ok_or(Malformed::HeaderField)?,
            enc: text(enc)?,
            kid: text(kid)?,
            typ: text(typ)?,
            cty: text(cty)?,
            zip: text(zip)?,
            iss: text(iss)?,
        };
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Malformed::HeaderField);
        }
        Ok(header)
    }
}

/// Decodes base64url without padding (RFC 7515 §2). Only the canonical spelling of the bytes is accepted.
///
/// # Errors
/// [`Malformed::Base64`].
pub fn decode(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Base64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn b64(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn jws(header: &str) -> String {
        format!("{}.{}.{}", b64(header), b64("{}"), b64("sig"))
    }

    #[test]
    fn the_number_of_parts_decides_the_form() {
        let header = b64(r#"{"alg":"x","enc":"y"}"#);
        assert!(matches!(Compact::parse("abcdef"), Ok(Compact::Opaque)));
        assert!(matches!(Compact::parse(&jws(r#"{"alg":"RS256"}"#)), Ok(Compact::Jws(_))));
        let jwe = format!("{header}..aa.aa.aa");
        assert!(matches!(Compact::parse(&jwe), Ok(Compact::Jwe(j)) if !j.has_encrypted_key));
        for token in ["a.b", "a.b.c.d", "a.b.c.d.e.f", ".", "....."] {
            assert_eq!(Compact::parse(token).unwrap_err(), Malformed::Parts, "{token}");
        }
        for token in ["", "..", "....", &format!("{header}.e30."), &format!("{header}....")] {
            assert_eq!(Compact::parse(token).unwrap_err(), Malformed::EmptyPart, "{token}");
        }
    }

    #[test]
    fn only_one_spelling_of_base64_is_read() {
        assert_eq!(decode("aGk"), Ok(b"hi".to_vec()));
        for spelling in ["aGk=", "aGl", "aG k", "aGk\n", "a+/k", "a"] {
            assert_eq!(decode(spelling), Err(Malformed::Base64), "{spelling:?}");
        }
    }

    #[test]
    fn unfit_headers_are_refused() {
        for (header, expected) in [
            (r#"{"alg":"RS256","crit":["exp"]}"#, Malformed::Critical),
            (r#"{"alg":"RS256","crit":[]}"#, Malformed::Critical),
            (r#"{"alg":"RS256","b64":false}"#, Malformed::UnencodedPayload),
            (r#"{"alg":1}"#, Malformed::HeaderField),
            (r#"{"typ":"JWT"}"#, Malformed::HeaderField),
            (r#"{"alg":"RS256","kid":["a"]}"#, Malformed::HeaderField),
            (r#"{"alg":"RS256","alg":"none"}"#, Malformed::Header(JsonError::DuplicateName)),
            (r#"{"alg":"RS256","x":1,"y":2,"\u0078":3}"#, Malformed::Header(JsonError::DuplicateName)),
            (r#"["alg"]"#, Malformed::Header(JsonError::NotAnObject)),
        ] {
            assert_eq!(Compact::parse(&jws(header)).unwrap_err(), expected, "{header}");
        }
        let long_kid = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(257));
        assert_eq!(Compact::parse(&jws(&long_kid)).unwrap_err(), Malformed::HeaderField);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(token in r"[a-zA-Z0-9_.\-=]{0,200}") {
            let _ = Compact::parse(&token);
        }
    }
}
