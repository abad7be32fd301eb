//! `[[issuer]]`: whose tokens are accepted, and by which rules.

use std::collections::BTreeSet;

use super::section::Section;
use super::value::{self, DAY, SECOND};
use crate::issuer::settings::{ForeignTokens, IntrospectionSettings, IssuerSettings};
use crate::route::requirement::Requirement;
use crate::route::settings::RouteSettings;
use crate::token::algorithm::{self, SignatureAlgorithm};
use crate::token::binding::SenderConstrained;
use crate::token::email::Email;
use crate::token::pointer::ClaimPath;

/// What to do about a configuration without an issuer. First-time users read this.
const NO_ISSUER: &str = "at least one [[issuer]] with url and audience: give --issuer \
                         https://TENANT.REGION.auth0.com/ and --audience IDENTIFIER-OF-YOUR-API, or set \
                         both in a file and name it with --config";

impl IssuerSettings {
    /// All rows; if `needed`, there is at least one.
    pub(super) fn read_all(root: &mut Section<'_>, needed: bool) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut aliases = Vec::new();
        let rows = root.rows("issuer").unwrap_or_default();
        if needed && rows.is_empty() {
            root.report("issuer", "nothing", NO_ISSUER);
        }
        let issuers = rows.into_iter().enumerate().filter_map(|(number, row)| {
            let issuer = Self::read(row)?;
            if !seen.insert(issuer.url.clone()) {
                let key = format!("issuer[{number}].url");
                root.report(&key, issuer.url.as_str(), "each issuer only once");
            }
            aliases.extend(issuer.aliases.iter().map(|alias| (number, alias.clone())));
            Some(issuer)
        });
        let issuers = issuers.collect::<Vec<_>>();
        for (number, alias) in aliases {
            if !seen.insert(alias.clone()) {
                let key = format!("issuer[{number}].aliases");
                root.report(
                    &key,
                    alias,
                    "names that no other issuer has as its url or alias, each only once",
                );
            }
        }
        issuers
    }

    /// Reports rules that require an issuer that is not configured: nobody could meet them.
    pub(super) fn check_rules(issuers: &[Self], routes: &RouteSettings, root: &Section<'_>) {
        let urls: Vec<&str> = issuers.iter().map(|issuer| issuer.url.as_str()).collect();
        for (row, url) in routes.required(Requirement::Issuer).filter(|(_, url)| !urls.contains(url)) {
            root.report(&format!("rule[{row}].require.issuer"), url, format!("one of {}", urls.join(", ")));
        }
    }

    fn read(mut section: Section<'_>) -> Option<Self> {
        let url = |text: &str| value::issuer(text).map(|base| (text.to_owned(), base));
        let url = section.required("url", url, "the issuer's URL exactly as in the token's `iss`");
        let aliases = section.list("aliases", |text| value::issuer(text).map(|_| text.to_owned()));
        let audience = section.required_list(
            "audience",
            value::text,
            "at least one audience (the API's identifier in Auth0): give --audience, or set it here",
        );
        let algorithms = section.list("algorithms", |text| {
            text.parse().map_err(|_| format!("one of {}", algorithm::names(&SignatureAlgorithm::ALL)))
        });
        let algorithms = algorithms.unwrap_or_else(|| vec![SignatureAlgorithm::RS256]);
        let pss_with_rs_keys = section.value("pss_with_rs_keys", false, value::boolean);
        if pss_with_rs_keys && !algorithms.iter().any(|algorithm| algorithm.name().starts_with("PS")) {
            section.report("pss_with_rs_keys", "true", "false, unless algorithms have PS256, PS384 or PS512");
        }
        let secret_file = section.optional("secret_file", value::path);
        let email_claims =
            section.list("email_claims", |text| text.parse()).unwrap_or_else(ClaimPath::email_default);
        let some_domain = "at least one domain; without the key, any domain is allowed";
        let email_domains = section.some("email_domains", email_domain, some_domain);
        let userinfo = section.value("userinfo", true, value::boolean);
        let words = [("ask-issuer", ForeignTokens::AskIssuer), ("refuse", ForeignTokens::Refuse)];
        let foreign_tokens = section.value("foreign_tokens", ForeignTokens::AskIssuer, value::one_of(words));
        let words = [("verify", SenderConstrained::Verify), ("ignore", SenderConstrained::Ignore)];
        let sender_constrained =
            section.value("sender_constrained", SenderConstrained::Verify, value::one_of(words));
        let introspection = section.table("introspection").and_then(IntrospectionSettings::read);
        if introspection.is_some() && foreign_tokens == ForeignTokens::Refuse {
            section.report(
                "foreign_tokens",
                "refuse",
                "ask-issuer, since the issuer has [issuer.introspection]; or remove that",
            );
        }
        let decryption_keys = section.list("decryption_keys", value::path).unwrap_or_default();
        let bare_claims = section.value("bare_claims", false, value::boolean);
        let jwks_refresh = section.value("jwks_refresh", 600 * SECOND, value::duration(10 * SECOND, DAY));
        let symmetric = algorithms.iter().filter(|algorithm| algorithm.is_symmetric()).count();
        if algorithms.is_empty() || (symmetric != 0 && symmetric != algorithms.len()) {
            section.report(
                "algorithms",
                "nothing",
                "at least one algorithm, all asymmetric or all HS, never mixed",
            );
        }
        if (symmetric != 0) != secret_file.is_some() && !section.has_problem("algorithms") {
            section.report(
                "secret_file",
                "nothing",
                "set if and only if algorithms are HS256, HS384 or HS512",
            );
        }
        let (url, base) = url?;
        Some(Self {
            url,
            base,
            aliases: aliases.unwrap_or_default(),
            audience: audience?,
            algorithms,
            pss_with_rs_keys,
            secret_file,
            email_claims,
            email_domains: email_domains.unwrap_or_default(),
            userinfo,
            foreign_tokens,
            introspection,
            sender_constrained,
            decryption_keys,
            bare_claims,
            jwks_refresh,
        })
    }
}

impl IntrospectionSettings {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let client_id = section.optional("client_id", value::text);
        let client_secret_file = section.optional("client_secret_file", value::path);
        if client_id.is_none() {
            section.report("client_id", "nothing", "the id of holdfast as a client of the issuer");
        }
        if client_secret_file.is_none() {
            section.report("client_secret_file", "nothing", "a private file with the secret of that client");
        }
        Some(Self { client_id: client_id?, client_secret_file: client_secret_file? })
    }
}

/// A valid domain of an address.
fn email_domain(text: &str) -> Result<String, String> {
    match Email::parse(&format!("a@{text}")) {
        Some(_) => Ok(text.to_ascii_lowercase()),
        None => Err("a domain, the part of an address after the @, such as example.com".to_owned()),
    }
}
