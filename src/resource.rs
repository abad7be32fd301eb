//! The protected resource (RFC 9728): a document says where a client gets tokens for this API, and every
//! challenge says where the document is. So a client that knows nothing but the API's URL, such as an MCP
//! client, finds the authorization server by itself.
//!
//! Both are made from the configuration alone, once. Nothing in a request changes them: if a `Host` header
//! could, it would send clients to an attacker's authorization server.

use bytes::Bytes;
use serde_json::json;
use url::Url;

use crate::issuer::settings::IssuerSettings;
use crate::route::settings::RouteSettings;
use crate::token::binding::SenderConstrained;
use crate::token::dpop;

/// What stands between the host and the path of the resource (RFC 9728 §3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// `[resource]`.
#[derive(Clone, Debug)]
pub struct ResourceSettings {
    /// `id`: the URL of the API, exactly as clients know it. It is in its normal form, except that the slash
    /// of an empty path may be missing; it has neither query nor fragment.
    pub id: String,
    /// `scopes`: the scopes that clients may ask for.
    pub scopes: Vec<String>,
}

/// The document, and where it is.
pub struct ProtectedResource {
    path: String,
    url: String,
    document: Bytes,
}

impl ProtectedResource {
    /// The resource of a configuration. `None` if the id is no URL, which the configuration refuses.
    #[must_use]
    pub fn new(
        settings: &ResourceSettings,
        issuers: &[IssuerSettings],
        routes: &RouteSettings,
    ) -> Option<Self> {
        let mut url = Url::parse(&settings.id).ok()?;
        // §3.1: without the slash that ends the host, but with any other.
        let path = format!("{WELL_KNOWN}{}", Some(url.path()).filter(|path| *path != "/").unwrap_or(""));
        url.set_path(&path);
        let url = url.into();
        Some(Self { path, url, document: document(settings, issuers, routes).into() })
    }

    /// The path of the document.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of the document, for challenges.
    #[must_use]
    pub fn metadata_url(&self) -> &str {
        &self.url
    }

    /// The document, JSON.
    #[must_use]
    pub fn document(&self) -> Bytes {
        self.document.clone()
    }
}

/// The metadata (RFC 9728 §2). A member with its default value is left out.
fn document(settings: &ResourceSettings, issuers: &[IssuerSettings], routes: &RouteSettings) -> String {
    let mut document = json!({
        "resource": settings.id,
        "authorization_servers": issuers.iter().map(|issuer| &issuer.url).collect::<Vec<_>>(),
        "bearer_methods_supported": ["header"],
    });
    if !settings.scopes.is_empty() {
        document["scopes_supported"] = json!(settings.scopes);
    }
    // Only a trusted peer describes the request that a proof is for.
    let verifies = issuers.iter().any(|issuer| issuer.sender_constrained == SenderConstrained::Verify);
    if verifies && !routes.trusted_peers.is_empty() {
        document["dpop_signing_alg_values_supported"] = json!(dpop::algorithm_names());
        if routes.client_certificate_header.is_some() {
            document["tls_client_certificate_bound_access_tokens"] = json!(true);
        }
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, Source};

    use super::*;

    const ISSUER: &str = "[[issuer]]\nurl = \"https://t.eu.auth0.com/\"\naudience = [\"a\"]\n";

    fn resource(config: &str) -> ProtectedResource {
        let settings = Settings::read(&Source::text("test.toml", config)).unwrap();
        let resource = settings.resource.as_ref().unwrap();
        ProtectedResource::new(resource, &settings.issuers, &settings.routes).unwrap()
    }

    /// RFC 9728 §3.1: between the host and the path.
    #[test]
    fn the_document_is_between_the_host_and_the_path_of_the_resource() {
        for (id, path) in [
            ("https://resource.example.com", ""),
            ("https://resource.example.com/", ""),
            ("https://resource.example.com/resource1", "/resource1"),
            ("https://resource.example.com/a/b/", "/a/b/"),
            ("https://resource.example.com:8443/a%20b", "/a%20b"),
        ] {
            let resource = resource(&format!("{ISSUER}[resource]\nid = \"{id}\"\n"));
            let origin = id.split('/').take(3).collect::<Vec<_>>().join("/");
            let expected = format!("/.well-known/oauth-protected-resource{path}");
            assert_eq!(resource.path(), expected);
            assert_eq!(resource.metadata_url(), format!("{origin}{expected}"));
            let document: serde_json::Value = serde_json::from_slice(&resource.document()).unwrap();
            assert_eq!(document["resource"], id, "exactly as it is configured");
        }
    }

    #[test]
    fn the_document_says_of_senders_what_is_checked() {
        let sender = |auth: &str, issuer: &str| {
            let id = "[resource]\nid = \"https://mcp.example.com/mcp\"\n";
            let resource = resource(&format!("{auth}{ISSUER}{issuer}{id}"));
            let document: serde_json::Value = serde_json::from_slice(&resource.document()).unwrap();
            let dpop = document["dpop_signing_alg_values_supported"].as_array().cloned();
            let dpop = dpop.map(|names| names.iter().any(|name| name == "ES256"));
            (dpop, document["tls_client_certificate_bound_access_tokens"].as_bool())
        };
        let trusted = "[auth]\ntrusted_peers = [\"127.0.0.1\"]\nforwarded = \"x-forwarded\"\n";
        let certificate = format!("{trusted}client_certificate_header = \"X-Client-Cert\"\n");
        assert_eq!(sender("", ""), (None, None));
        assert_eq!(sender(trusted, ""), (Some(true), None));
        assert_eq!(sender(&certificate, ""), (Some(true), Some(true)));
        assert_eq!(sender(&certificate, "sender_constrained = \"ignore\"\n"), (None, None));
    }
}
