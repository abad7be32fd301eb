//! Keyed digests, by which stores know a token and a subject. A token or subject cannot be recovered or
//! guessed from its digest.
//!
//! HMAC-SHA-256 under keys derived from the instance secret. Because it is keyed, the digest is uniform, and
//! an attacker cannot search for two tokens whose digests share a prefix. So a hash table can use the first 8
//! bytes as the hash and needs no second hash function ([`DigestHasher`]).

//!
//! While the secret is rotated, a digester also knows the digests under the old secret.
//! [`TokenDigester::before`] gives the name under which a store has an older record.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use std::sync::Arc;

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::secret::{DerivationFailed, InstanceSecret};

/// The length of a digest, in bytes.
pub const DIGEST_LENGTH: usize = 32;

/// The digest of a token, its key in stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; DIGEST_LENGTH]);

/// The digest of a subject of an issuer, its key in stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubjectKey(pub [u8; DIGEST_LENGTH]);

/// How many digests under the old secret are remembered: more than the number of tokens and subjects that can
/// be under way between their digest and its use. If one is forgotten nevertheless, `before` returns `None`.
const REMEMBERED: usize = 1 << 17;

/// Makes digests under one instance's keys.
#[derive(Clone, Debug)]
pub struct TokenDigester {
    tokens: hmac::Key,
    subjects: hmac::Key,
    revocations: hmac::Key,
    former: Option<Arc<Former>>,
}

/// The digester under the old secret, and what it said of the latest digests.
struct Former {
    digester: TokenDigester,
    digests: Cache<[u8; DIGEST_LENGTH], [u8; DIGEST_LENGTH]>,
}

impl TokenDigester {
    /// A digester under the keys of this secret.
    ///
    /// # Errors
    /// Never in practice: see [`DerivationFailed`].
    pub fn new(secret: &InstanceSecret) -> Result<Self, DerivationFailed> {
        Ok(Self {
            tokens: secret.hmac_key("token digest 1")?,
            subjects: secret.hmac_key("subject key 1")?,
            revocations: secret.hmac_key("revocation key 1")?,
            former: None,
        })
    }

    /// The same digester, which also remembers the digests that `former` makes: the one under the old secret.
    #[must_use]
    pub fn rotating_from(self, former: Self) -> Self {
        let former = Former { digester: former, digests: Cache::new(REMEMBERED) };
        Self { former: Some(Arc::new(former)), ..self }
    }

    /// The digester under the old secret, while the secret is rotated.
    #[must_use]
    pub fn former(&self) -> Option<&Self> {
        self.former.as_ref().map(|former| &former.digester)
    }

    /// The digest under the old secret of the token or subject with this digest, if it was made recently.
    #[must_use]
    pub fn before(&self, digest: &[u8; DIGEST_LENGTH]) -> Option<[u8; DIGEST_LENGTH]> {
        self.former.as_ref()?.digests.get(digest)
    }

    /// The digest of a token. Allocates nothing.
    #[must_use]
    pub fn token(&self, token: &[u8]) -> TokenDigest {
        let digest = TokenDigest(bytes(&hmac::sign(&self.tokens, token)));
        if let Some(former) = &self.former {
            former.digests.insert(digest.0, former.digester.token(token).0);
        }
        digest
    }

    /// The key of a subject. The NUL between issuer and subject keeps (`ab`, `c`) apart from (`a`, `bc`): an
    /// issuer is a URL and contains no NUL.
    #[must_use]
    pub fn subject(&self, issuer: &str, subject: &str) -> SubjectKey {
        let key = SubjectKey(digest_of(&self.subjects, [issuer, subject]));
        if let Some(former) = &self.former {
            former.digests.insert(key.0, former.digester.subject(issuer, subject).0);
        }
        key
    }

    /// The key of a deny record about `name` of an issuer. `kind` keeps a session apart from a `kid` of the
    /// same name.
    #[must_use]
    pub fn revocation(&self, kind: &str, issuer: &str, name: &str) -> [u8; DIGEST_LENGTH] {
        digest_of(&self.revocations, [kind, issuer, name])
    }
}

impl fmt::Debug for Former {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Former")
    }
}

/// The digest of several texts with a NUL between them.
fn digest_of<const N: usize>(key: &hmac::Key, texts: [&str; N]) -> [u8; DIGEST_LENGTH] {
    let mut context = hmac::Context::with_key(key);
    for (number, text) in texts.iter().enumerate() {
        if number > 0 {
            context.update(&[0]);
        }
        context.update(text.as_bytes());
    }
    bytes(&context.sign())
}

fn bytes(tag: &hmac::Tag) -> [u8; DIGEST_LENGTH] {
    let mut bytes = [0; DIGEST_LENGTH];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(prefix(&self.0));
    }
}

impl Hash for SubjectKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(prefix(&self.0));
    }
}

fn prefix(digest: &[u8; DIGEST_LENGTH]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Shows the first four bytes, enough to follow one token through a log.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        abbreviate("TokenDigest", &self.0, f)
    }
}

/// Shows the first four bytes.
impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        abbreviate("SubjectKey", &self.0, f)
    }
}

fn abbreviate(name: &str, digest: &[u8; DIGEST_LENGTH], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [a, b, c, d, ..] = digest;
    write!(f, "{name}({a:02x}{b:02x}{c:02x}{d:02x})")
}

/// The hasher for maps whose keys are digests: the identity on the eight bytes that they feed it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestHasher(u64);

/// Builds [`DigestHasher`]s, for `quick_cache` and `HashMap`.
pub type BuildDigestHasher = BuildHasherDefault<DigestHasher>;

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, prefix: u64) {
        self.0 = prefix;
    }

    /// Not used by digests. Correct but slow for other keys (FNV-1a).
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    fn digester(secret: u8) -> TokenDigester {
        TokenDigester::new(&InstanceSecret::from_bytes(&[secret; 32])).unwrap()
    }

    #[test]
    fn a_digest_depends_on_the_token_and_on_the_secret_and_on_nothing_else() {
        let token = digester(1).token(b"token");
        assert_eq!(token, digester(1).token(b"token"));
        assert_ne!(token, digester(1).token(b"Token"));
        assert_ne!(token, digester(2).token(b"token"));
    }

    #[test]
    fn a_subject_key_tells_issuer_from_subject_and_is_no_token_digest() {
        let digester = digester(1);
        assert_ne!(digester.subject("ab", "c"), digester.subject("a", "bc"));
        assert_ne!(digester.subject("a", "b"), digester.subject("b", "a"));
        assert_ne!(digester.subject("a", "b").0, digester.token(b"a\0b").0);
    }

    #[test]
    fn while_the_secret_is_rotated_a_digest_leads_to_that_under_the_old_one() {
        let rotating = digester(2).rotating_from(digester(1));
        assert_eq!(rotating.before(&digester(2).token(b"token").0), None, "not made yet");
        let token = rotating.token(b"token");
        assert_eq!(token, digester(2).token(b"token"));
        assert_eq!(rotating.before(&token.0), Some(digester(1).token(b"token").0));
        let subject = rotating.subject("i", "s");
        assert_eq!(rotating.before(&subject.0), Some(digester(1).subject("i", "s").0));
        assert_eq!(digester(2).before(&token.0), None);
    }

    #[test]
    fn a_change_of_derivation_would_lose_every_stored_record() {
        // Fixed on purpose: later versions read the stores. Computed independently, by RFC 5869 and RFC 2104.
        let token = digester(1).token(b"token");
        assert_eq!(format!("{token:?}"), "TokenDigest(42f10a86)");
        let subject = digester(1).subject("https://tenant.example/", "auth0|1");
        assert_eq!(format!("{subject:?}"), "SubjectKey(80323fff)");
    }

    #[test]
    fn hashes_of_digests_are_their_first_bytes_and_spread() {
        let hashes: HashSet<_> = (0..10_000_u32)
            .map(|token| BuildDigestHasher::default().hash_one(digester(1).token(&token.to_le_bytes())))
            .collect();
        assert_eq!(hashes.len(), 10_000);
        let digest = digester(1).token(b"token");
        assert_eq!(BuildDigestHasher::default().hash_one(digest).to_le_bytes(), digest.0[..8]);
        // About a quarter of them is in each quarter of the space, within far more than chance would deviate.
        for quarter in 0..4 {
            let share = hashes.iter().filter(|hash| **hash >> 62 == quarter).count();
            assert!((2_200..2_800).contains(&share), "{share}");
        }
    }
}
