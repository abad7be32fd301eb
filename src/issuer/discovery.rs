//! Where an issuer's endpoints are (OpenID Connect Discovery 1.0 §4).

use serde_json::Value;
use url::Url;

use crate::token::json;
use crate::token::lenient;

/// An endpoint of an issuer. Each kind has its own guard and its own metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// The discovery document.
    Discovery,
    /// The keys.
    Jwks,
    /// The issuer's answer about a token, which is its own credential.
    Userinfo,
    /// The issuer's answer about a token, for which holdfast authenticates as a client (RFC 7662).
    Introspection,
}

impl EndpointKind {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Discovery, Self::Jwks, Self::Userinfo, Self::Introspection];

    /// The metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
            Self::Userinfo => "userinfo",
            Self::Introspection => "introspection",
        }
    }

    /// Whether it is called at each fetch of the keys, also without requests.
    #[must_use]
    pub const fn is_fetched(self) -> bool {
        matches!(self, Self::Discovery | Self::Jwks)
    }
}

/// The endpoints that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `jwks_uri`.
    pub jwks: Url,
    /// `userinfo_endpoint`, if the issuer has one.
    pub userinfo: Option<Url>,
    /// `introspection_endpoint`, if the issuer has one.
    pub introspection: Option<Url>,
    /// Whether clients authenticate there with `client_secret_post`, because the issuer offers that and not
    /// `client_secret_basic` (RFC 8414 §2).
    pub introspection_by_post: bool,
}

impl Discovery {
    /// Where the document of the issuer at `base` is.
    #[must_use]
    pub fn url(base: &Url) -> Url {
        let mut url = base.clone();
        let path = format!("{}/.well-known/openid-configuration", base.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// The URL of an endpoint that requests ask; `None` if the issuer does not have it, and for documents.
    #[must_use]
    pub const fn of(&self, kind: EndpointKind) -> Option<&Url> {
        match kind {
            EndpointKind::Userinfo => self.userinfo.as_ref(),
            EndpointKind::Introspection => self.introspection.as_ref(),
            EndpointKind::Discovery | EndpointKind::Jwks => None,
        }
    }

    /// Reads the document, which must be about exactly the issuer that was configured as `issuer` (§4.3):
    /// else another issuer's keys would count as its own. Plain http is followed only from an issuer that is
    /// itself plain http, which the configuration allows on loopback alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(document: &[u8], issuer: &str) -> Result<Self, &'static str> {
        let fields = json::object(document).map_err(|_| "the discovery document is not a JSON object")?;
        let named = fields.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if named != issuer {
            return Err(if named.strip_suffix('/') == Some(issuer) {
                "the discovery document names the issuer with a final slash, and the configuration without \
                 one: add it to issuer.url"
            } else if issuer.strip_suffix('/') == Some(named) {
                "the discovery document names the issuer without a final slash, and the configuration with \
                 one: remove it from issuer.url"
            } else {
                "the discovery document names another issuer than the configuration"
            });
        }
        let secure = issuer.starts_with("https://");
        let url = |name: &str| -> Option<Url> {
            let url = Url::parse(fields.get(name)?.as_str()?).ok()?;
            (url.scheme() == "https" || (!secure && url.scheme() == "http")).then_some(url)
        };
        let methods = |name: &str| Some(lenient::texts(fields.get(name)?).collect::<Vec<_>>());
        let methods = methods("introspection_endpoint_auth_methods_supported")
            .or_else(|| methods("token_endpoint_auth_methods_supported"))
            .unwrap_or_default();
        Ok(Self {
            jwks: url("jwks_uri").ok_or("the discovery document has no usable jwks_uri")?,
            userinfo: url("userinfo_endpoint"),
            introspection: url("introspection_endpoint"),
            introspection_by_post: methods.contains(&"client_secret_post")
                && !methods.contains(&"client_secret_basic"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_must_be_about_the_configured_issuer_and_stay_secure() {
        let document = |issuer: &str, jwks: &str| {
            format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks}","userinfo_endpoint":"https://t/userinfo"}}"#)
        };
        let read = |text: &str| Discovery::read(text.as_bytes(), "https://t/");
        assert!(read(&document("https://t/", "https://t/jwks")).is_ok());
        let slash = |named: &str, configured: &str| {
            let document = document(named, "https://t/jwks");
            Discovery::read(document.as_bytes(), configured).unwrap_err()
        };
        assert!(slash("https://t", "https://t/").contains("remove it"));
        assert!(slash("https://t/", "https://t").contains("add it to"));
        assert!(slash("https://evil/", "https://t/").contains("another issuer"));
        assert!(read(&document("https://t/", "http://t/jwks")).is_err());
        assert!(read(&document("https://t/", "file:///etc/passwd")).is_err());
        assert!(read("[]").is_err() && read("<html>").is_err());
    }

    #[test]
    fn how_to_introspect_is_as_the_document_says_and_by_basic_if_it_does_not_say() {
        let read = |more: &str| {
            let issuer = r#""issuer":"https://t/","jwks_uri":"https://t/jwks""#;
            let text = format!(r#"{{{issuer},"introspection_endpoint":"https://t/i"{more}}}"#);
            Discovery::read(text.as_bytes(), "https://t/").unwrap()
        };
        let of =
            |name: &str, methods: &str| format!(r#","{name}_endpoint_auth_methods_supported":{methods}"#);
        let (own, token) = (|methods| of("introspection", methods), |methods| of("token", methods));
        let (basic, post) = (r#"["client_secret_basic"]"#, r#"["private_key_jwt","client_secret_post"]"#);
        for (more, by_post) in [
            (String::new(), false),
            (own(basic), false),
            (own(post), true),
            (own(r#"["client_secret_post","client_secret_basic"]"#), false),
            (token(post), true),
            (own(basic) + &token(post), false),
            (own(r#"["private_key_jwt"]"#), false),
        ] {
            assert_eq!(read(&more).introspection_by_post, by_post, "{more}");
        }
        assert_eq!(read("").introspection.unwrap().as_str(), "https://t/i");
        assert_eq!(read(r#","introspection_endpoint":"https://evil/""#).introspection, None, "named twice");
    }

    #[test]
    fn the_documents_address_follows_the_issuers_path() {
        let url = |base: &str| Discovery::url(&Url::parse(base).unwrap()).to_string();
        assert_eq!(url("https://t.auth0.com/"), "https://t.auth0.com/.well-known/openid-configuration");
        assert_eq!(url("https://idp/realms/a"), "https://idp/realms/a/.well-known/openid-configuration");
    }
}
