//! Whose tokens are accepted, and by which rules.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::token::algorithm::SignatureAlgorithm;
use crate::token::binding::SenderConstrained;
use crate::token::email::EmailRules;
use crate::token::pointer::ClaimPath;

/// One `[[issuer]]`.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// `url`, `--issuer`, unchanged, because it is compared byte for byte with `iss`.
    pub url: String,
    /// The same, parsed, to find the discovery document.
    pub base: Url,
    /// `aliases`: other names of the issuer in `iss`, such as its custom domains. Default empty.
    pub aliases: Vec<String>,
    /// `audience`, `--audience`: a token must name one of them.
    pub audience: Vec<String>,
    /// `algorithms`: the allow-list for signatures. Default `RS256`.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// `pss_with_rs_keys`: whether a key whose JWK says RS256, RS384 or RS512 is for the PS algorithm of the
    /// same hash as well. Default false.
    pub pss_with_rs_keys: bool,
    /// `secret_file`: the shared secret of HS256/384/512, at least 32 bytes.
    pub secret_file: Option<PathBuf>,
    /// `email_claims`: where the email is looked for, in this order.
    pub email_claims: Vec<ClaimPath>,
    /// `email_domains`: the domains of which it may name addresses, in lower case; of any, if this is empty.
    /// Default empty.
    pub email_domains: Vec<String>,
    /// `userinfo`: whether `/userinfo` may be asked for a missing email. Default true.
    pub userinfo: bool,
    /// `foreign_tokens`: whether the issuer is asked about tokens that only it can judge. Default
    /// `ask-issuer`.
    pub foreign_tokens: ForeignTokens,
    /// `[issuer.introspection]`: how the issuer is asked about them, if not at `/userinfo`. Default none.
    pub introspection: Option<IntrospectionSettings>,
    /// `sender_constrained`: whether the sender of a token with `cnf` must prove that it has the key. Default
    /// `verify`.
    pub sender_constrained: SenderConstrained,
    /// `decryption_keys`: files of private or shared keys that open JWEs.
    pub decryption_keys: Vec<PathBuf>,
    /// `bare_claims`: whether a JWE under a *shared* key may carry claims without a nested JWS. Default
    /// false.
    pub bare_claims: bool,
    /// `jwks_refresh`: how often the keys are fetched again. Default 10 min.
    pub jwks_refresh: Duration,
}

/// `[issuer.introspection]`: holdfast as a client of the issuer (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret_file`: at most 4096 bytes.
    pub client_secret_file: PathBuf,
}

/// What to do with a token that only the issuer can judge: an opaque token, or a JWE without a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignTokens {
    /// Introspection is asked if it is configured, else `/userinfo`. From the latter the audience cannot be
    /// checked: any application of the same tenant can obtain such a token.
    AskIssuer,
    /// It is refused.
    Refuse,
}

impl IssuerSettings {
    /// Whether `iss` with this value names the issuer: by its URL or by an alias, byte for byte.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.url == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Which emails in its claims count.
    #[must_use]
    pub fn email_rules(&self, require_verified: bool) -> EmailRules<'_> {
        EmailRules { paths: &self.email_claims, require_verified, domains: &self.email_domains }
    }
}
