//! Where an issuer's endpoints are (OpenID Connect Discovery 1.0 §4).

use serde_json::Value;
use url::Url;

use crate::token::json;

/// An endpoint of an issuer. Each kind has its own guard and its own metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// The discovery document.
    Discovery,
    /// The keys.
    Jwks,
    /// The issuer's answer about a token.
    Userinfo,
}

impl EndpointKind {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Discovery, Self::Jwks, Self::Userinfo];

    /// The metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
            Self::Userinfo => "userinfo",
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
        Ok(Self {
            jwks: url("jwks_uri").ok_or("the discovery document has no usable jwks_uri")?,
            userinfo: url("userinfo_endpoint"),
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
    fn the_documents_address_follows_the_issuers_path() {
        let url = |base: &str| Discovery::url(&Url::parse(base).unwrap()).to_string();
        assert_eq!(url("https://t.auth0.com/"), "https://t.auth0.com/.well-known/openid-configuration");
        assert_eq!(url("https://idp/realms/a"), "https://idp/realms/a/.well-known/openid-configuration");
    }
}
