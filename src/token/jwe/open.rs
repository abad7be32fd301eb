//! Which keys may open a token, and opening it.

use josekit::jwe::enc::aescbc_hmac::AescbcHmacJweEncryption;
use josekit::jwe::enc::aesgcm::AesgcmJweEncryption;
use josekit::jwe::{JweContentEncryption, JweHeader};

use super::content::{Ciphertext, inflate};
use super::key::{Key, Opener};
use super::{ContentEncryption, DecryptionKeys, JweError, KeyManagement, Opened};
use crate::token::compact::{UnopenedJwe, UnverifiedHeader, decode};
use crate::token::json;

/// The most keys that are tried on one token, so that a forged one costs a bounded time.
pub(super) const MAX_TRIES: usize = 4;

impl DecryptionKeys {
    /// The cheap check, without any cryptography: whether the token's algorithms are accepted and a key fits.
    ///
    /// # Errors
    /// Whatever [`Self::open`] would answer, but for [`JweError::Decryption`] and [`JweError::TooLarge`].
    pub fn can_open(&self, header: &UnverifiedHeader) -> Result<(), JweError> {
        Plan::new(&self.keys, header).map(drop)
    }

    /// Decrypts a token, and inflates its content if it was deflated.
    ///
    /// If the header's `kid` is that of a fitting key, only keys of that `kid` are tried; if it is unknown, the fitting
    /// keys without `kid`; if there is none in the header, all fitting keys, those without `kid` first. Never more than
    /// four.
    ///
    /// # Errors
    /// [`JweError`]. A `dir` token that no key opens is [`JweError::NoKey`] unless its `kid` is ours, because it may be
    /// one that the issuer made for itself.
    pub fn open(&self, jwe: &UnopenedJwe<'_>) -> Result<Opened, JweError> {
        let plan = Plan::new(&self.keys, &jwe.header)?;
        let parts = Parts::decode(jwe.token, plan.alg).ok_or(JweError::Decryption)?;
        for (key, opener) in &plan.candidates {
            let Some(content_key) = opener.content_key(&parts.sealed_key, plan.enc, &parts.agreement) else {
                continue;
            };
            let Some(content) = plan.enc.decrypt(&content_key, &parts.ciphertext) else {
                continue;
            };
            let payload = if plan.deflated { inflate(&content)? } else { content };
            return Ok(Opened { payload, sealed_with: plan.alg.sealed_with(), key: key.label() });
        }
        if plan.alg == KeyManagement::Dir && !plan.kid_is_ours {
            return Err(no_key(plan.alg, &jwe.header));
        }
        Err(JweError::Decryption)
    }
}

/// All choices for one token, made from its header's `alg`, `enc`, `zip` and `kid` alone.
struct Plan<'k> {
    alg: KeyManagement,
    enc: ContentEncryption,
    deflated: bool,
    kid_is_ours: bool,
    /// At least one, at most [`MAX_TRIES`].
    candidates: Vec<(&'k Key, &'k Opener)>,
}

impl<'k> Plan<'k> {
    fn new(keys: &'k [Key], header: &UnverifiedHeader) -> Result<Self, JweError> {
        let alg = KeyManagement::parse(&header.alg)
            .ok_or_else(|| JweError::AlgorithmNotAllowed { alg: excerpt(&header.alg) })?;
        let enc = header.enc.as_deref().and_then(ContentEncryption::parse);
        let enc =
            enc.ok_or_else(|| JweError::EncryptionNotAllowed { enc: header.enc.as_deref().map(excerpt) })?;
        let deflated = match header.zip.as_deref() {
            None => false,
            Some("DEF") => true,
            Some(zip) => return Err(JweError::CompressionNotAllowed { zip: excerpt(zip) }),
        };

        let fitting = |wanted: &dyn Fn(&Key) -> bool| -> Vec<(&'k Key, &'k Opener)> {
            keys.iter()
                .filter(|key| wanted(key))
                .filter_map(|key| Some((key, key.openers.iter().find(|opener| opener.fits(alg, enc))?)))
                .collect()
        };
        let mut candidates = Vec::new();
        if header.kid.is_some() {
            candidates = fitting(&|key| key.kid == header.kid);
        }
        let kid_is_ours = !candidates.is_empty();
        if !kid_is_ours {
            candidates = fitting(&|key| key.kid.is_none());
        }
        if header.kid.is_none() {
            candidates.extend(fitting(&|key| key.kid.is_some()));
        }
        candidates.truncate(MAX_TRIES);
        if candidates.is_empty() {
            return Err(no_key(alg, header));
        }
        Ok(Self { alg, enc, deflated, kid_is_ours, candidates })
    }
}

/// A token's five parts, decoded.
struct Parts<'t> {
    /// The header's fields for key agreement, and no others; empty for other algorithms.
    agreement: JweHeader,
    sealed_key: Vec<u8>,
    ciphertext: Ciphertext<'t>,
}

impl<'t> Parts<'t> {
    fn decode(token: &'t str, alg: KeyManagement) -> Option<Self> {
        let mut parts = token.split('.');
        let header = parts.next()?;
        let mut part = || decode(parts.next()?).ok();
        let (sealed_key, iv, text, tag) = (part()?, part()?, part()?, part()?);
        let agreement = match alg {
            KeyManagement::EcdhEs | KeyManagement::EcdhEsA128kw | KeyManagement::EcdhEsA256kw => {
                let mut fields = json::object(&decode(header).ok()?).ok()?;
                fields.retain(|name, _| matches!(name.as_str(), "epk" | "apu" | "apv"));
                JweHeader::from_map(fields).ok()?
            }
            _ => JweHeader::new(),
        };
        Some(Self { agreement, sealed_key, ciphertext: Ciphertext { aad: header.as_bytes(), iv, text, tag } })
    }
}

impl ContentEncryption {
    /// josekit's name for it, by which its decrypters know how long a content key to derive.
    pub(super) fn josekit(self) -> &'static dyn JweContentEncryption {
        match self {
            Self::A128gcm => &AesgcmJweEncryption::A128gcm,
            Self::A256gcm => &AesgcmJweEncryption::A256gcm,
            Self::A128cbcHs256 => &AescbcHmacJweEncryption::A128cbcHs256,
            Self::A256cbcHs512 => &AescbcHmacJweEncryption::A256cbcHs512,
        }
    }
}

fn no_key(alg: KeyManagement, header: &UnverifiedHeader) -> JweError {
    JweError::NoKey { alg: alg.name(), kid: header.kid.clone() }
}

/// Enough of a stranger's text to recognise it by.
fn excerpt(text: &str) -> String {
    text.chars().take(32).collect()
}
