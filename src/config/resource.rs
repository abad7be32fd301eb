//! `[resource]`: the API as its clients know it (RFC 9728).

use url::Url;

use super::section::Section;
use super::value;
use crate::resource::ResourceSettings;

/// The longest id, in bytes: it is part of an answer's head, for which nginx has 4 KiB.
const MAX_ID_BYTES: usize = 1024;

impl ResourceSettings {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let id = section.required("id", id, "the URL of the API, such as https://mcp.example.com/mcp");
        let scopes = section.list("scopes", scope).unwrap_or_default();
        Some(Self { id: id?, scopes })
    }
}

/// A URL that has one spelling, because clients compare it byte for byte (RFC 9728 §3.3).
fn id(text: &str) -> Result<String, String> {
    let is_normal = |url: &Url| url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    let fits = |url: &Url| is_normal(url) && url.password().is_none() && text.len() <= MAX_ID_BYTES;
    value::issuer(text).ok().filter(fits).map(|_| text.to_owned()).ok_or_else(|| {
        "the URL of the API exactly as clients have it, such as https://mcp.example.com/mcp: https:// \
         (http:// only for loopback), lower-case host, no default port, no user, no query, no fragment, no \
         dot segments, up to 1024 bytes"
            .to_owned()
    })
}

/// RFC 6749 §3.3.
fn scope(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if !text.is_empty() && text.bytes().all(is_token) {
        Ok(text.to_owned())
    } else {
        Err("a scope without spaces, such as read:tools".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, Source};

    fn read(lines: &str) -> Result<Settings, String> {
        let issuer = "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n";
        Settings::read(&Source::text("holdfast.toml", &format!("{issuer}{lines}")))
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn there_is_no_resource_by_default_and_one_is_taken_as_it_is_written() {
        assert!(read("").unwrap().resource.is_none());
        for id in [
            "https://mcp.example.com",
            "https://mcp.example.com/",
            "https://mcp.example.com/mcp",
            "https://mcp.example.com:8443/a/b/",
            "http://127.0.0.1:8080/mcp",
            "http://[::1]/mcp",
            "http://localhost/mcp",
        ] {
            let settings = read(&format!("[resource]\nid = \"{id}\"\nscopes = [\"read:tools\"]\n")).unwrap();
            let resource = settings.resource.unwrap();
            assert_eq!((resource.id.as_str(), resource.scopes), (id, vec!["read:tools".to_owned()]));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        let long = format!("https://a/{}", "x".repeat(1024));
        for id in [
            "http://mcp.example.com/mcp",
            "http://localhost.example.com/mcp",
            "https://mcp.example.com/mcp?a=b",
            "https://mcp.example.com/mcp?",
            "https://mcp.example.com/mcp#a",
            "https://mcp.example.com/mcp#",
            "https://user@mcp.example.com/mcp",
            "https://:secret@mcp.example.com/mcp",
            "https://MCP.example.com/mcp",
            "HTTPS://mcp.example.com/mcp",
            "https://mcp.example.com:443/mcp",
            "https://mcp.example.com/a/../mcp",
            "https://mcp.example.com/a%2e%2e/%2e/mcp",
            "https://mcp.example.com/a b",
            "https://mcp.example.com\\\\mcp",
            "https:mcp.example.com",
            "urn:example:api",
            "mcp",
            "",
            &long,
        ] {
            let said = read(&format!("[resource]\nid = \"{id}\"\n")).unwrap_err();
            assert!(said.contains("holdfast.toml:5: resource.id = "), "{id}\n{said}");
            assert!(said.contains("the URL of the API exactly as clients have it"), "{id}\n{said}");
        }
        let said = read("[resource]\n").unwrap_err();
        assert!(said.contains("holdfast.toml:4: resource.id = nothing"), "{said}");
        for scope in ["", "read tools", "a\\\"b", "a\\\\b", "ü"] {
            let lines = format!("[resource]\nid = \"https://a/\"\nscopes = [\"{scope}\"]\n");
            let said = read(&lines).unwrap_err();
            assert!(said.contains("a scope without spaces"), "{scope}\n{said}");
        }
    }
}
