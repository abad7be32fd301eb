//! The original request as the proxy describes it, in the one configured way.
//!
//! Each proxy has its own way, and passes on the headers of the other ways as clients send them. So exactly
//! one way is read. Names are exact: `X_Forwarded_Uri` and `X.Forwarded.Uri` are other headers.
//! `X-Forwarded-Prefix`, `-Port` and `-For` are never read, and the scheme only for DPoP proofs. A header
//! that is missing or repeated refuses the request.

use std::borrow::Cow;

use hyper::header::HOST;
use hyper::{HeaderMap, Method, Uri};

use super::closed::Closed;
use super::path::NormalPath;
use crate::token::dpop::url::HttpUrl;

/// The path of subrequests, and of everything below it, because Envoy appends the original path.
pub const AUTH_PATH: &str = "/auth";

/// How the proxy describes the original request: `forwarded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `X-Forwarded-Method`, `-Host`, `-Uri`: Traefik, Caddy.
    #[default]
    XForwarded,
    /// `X-Original-Method`, `-Host`, `-URI`: nginx, as its configuration sets them.
    XOriginal,
    /// `X-Original-Method`, `-URL`: ingress-nginx.
    XOriginalUrl,
    /// The request itself, its path below `/auth`: Envoy.
    Request,
}

/// A subrequest of a proxy, as far as it describes the original request.
#[derive(Clone, Copy, Debug)]
pub struct Subrequest<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its target.
    pub uri: &'r Uri,
    /// Its headers.
    pub headers: &'r HeaderMap,
}

/// The original request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original<'r> {
    /// The method, in capital letters.
    pub method: &'r str,
    /// The host, without port, in any case.
    pub host: &'r str,
    /// The path.
    pub path: NormalPath<'r>,
}

impl Protocol {
    /// The original request.
    ///
    /// # Errors
    /// [`Closed`], if the description is missing or ambiguous.
    pub fn original<'r>(self, subrequest: Subrequest<'r>) -> Result<Original<'r>, Closed> {
        let method = self.method(subrequest)?;
        let (authority, target) = self.address(subrequest)?;
        Ok(Original {
            method,
            host: host(authority)?,
            path: NormalPath::parse(target).map_err(Closed::Path)?,
        })
    }

    /// Authority and target, unchecked; for [`Protocol::Request`] the target has no query.
    ///
    /// # Errors
    /// [`Closed`], if they are missing or repeated.
    pub fn address<'r>(self, subrequest: Subrequest<'r>) -> Result<(&'r [u8], &'r [u8]), Closed> {
        Ok(match self {
            Self::XForwarded => (subrequest.only("x-forwarded-host")?, subrequest.only("x-forwarded-uri")?),
            Self::XOriginal => (subrequest.only("x-original-host")?, subrequest.only("x-original-uri")?),
            Self::XOriginalUrl => split_url(subrequest.only("x-original-url")?)?,
            Self::Request if subrequest.uri.authority().is_some() => return Err(Closed::Host),
            Self::Request => {
                let target = subrequest.uri.path().strip_prefix(AUTH_PATH).unwrap_or_default();
                (subrequest.only(HOST.as_str())?, target.as_bytes())
            }
        })
    }

    /// The whole URL, which a DPoP proof is about: also the scheme, and a port that is not the scheme's
    /// default.
    ///
    /// # Errors
    /// [`Closed`], if a part is missing or repeated, or they are no URL.
    pub fn url(self, subrequest: Subrequest<'_>) -> Result<HttpUrl, Closed> {
        fn text(bytes: &[u8]) -> Result<&str, Closed> {
            std::str::from_utf8(bytes).map_err(|_| Closed::Url)
        }
        if self == Self::XOriginalUrl {
            return HttpUrl::parse(text(subrequest.only("x-original-url")?)?).ok_or(Closed::Url);
        }
        let (authority, target) = self.address(subrequest)?;
        let (authority, target) = (text(authority)?, text(target)?);
        let (scheme, authority) = match self {
            Self::XOriginal => {
                // nginx's `$host` has no port. Without this header the port is the scheme's default.
                let authority = match subrequest.only("x-original-port") {
                    Ok(port) => Cow::Owned(format!("{authority}:{}", text(port)?)),
                    Err(Closed::Missing(_)) => Cow::Borrowed(authority),
                    Err(closed) => return Err(closed),
                };
                (subrequest.only("x-original-proto")?, authority)
            }
            _ => (subrequest.only("x-forwarded-proto")?, Cow::Borrowed(authority)),
        };
        // The path is empty if the proxy replaced it by its auth URL.
        let target = if target.starts_with('/') { target } else { return Err(Closed::Url) };
        HttpUrl::of(text(scheme)?, &authority, target).ok_or(Closed::Url)
    }

    /// The original method alone.
    ///
    /// # Errors
    /// As [`Protocol::original`].
    pub fn method(self, subrequest: Subrequest<'_>) -> Result<&str, Closed> {
        let method = match self {
            Self::XForwarded => subrequest.only("x-forwarded-method")?,
            Self::XOriginal | Self::XOriginalUrl => subrequest.only("x-original-method")?,
            Self::Request => subrequest.method.as_str().as_bytes(),
        };
        std::str::from_utf8(method).ok().filter(|method| is_method(method)).ok_or(Closed::Method)
    }
}

impl<'r> Subrequest<'r> {
    /// The one value of a header.
    pub(super) fn only(self, name: &'static str) -> Result<&'r [u8], Closed> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Ok(value.as_bytes()),
            (Some(_), Some(_)) => Err(Closed::Repeated(name)),
            _ => Err(Closed::Missing(name)),
        }
    }
}

/// Capital letters and hyphens: every registered method, and no look-alikes.
#[must_use]
pub fn is_method(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

/// A host name or IPv4 address (letters, digits, hyphens, dots), or an IPv6 address in brackets.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let v6 = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok();
    text.len() <= 253 && (text.split('.').all(label) || v6().is_some())
}

/// The host of an authority without user information; its port is cut off.
fn host(authority: &[u8]) -> Result<&str, Closed> {
    let authority = std::str::from_utf8(authority).map_err(|_| Closed::Host)?;
    let (host, port) = split_port(authority);
    let is_port =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    Some(host).filter(|host| port.is_none_or(is_port) && is_host(host)).ok_or(Closed::Host)
}

/// Host and port, unchecked. The colons of an IPv6 address are in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Authority and target of an absolute URL of a web scheme. URL parsers are not used, because they repair.
fn split_url(url: &[u8]) -> Result<(&[u8], &[u8]), Closed> {
    let rest = [&b"https://"[..], b"http://", b"wss://", b"ws://"]
        .into_iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or(Closed::Host)?;
    let slash = rest.iter().position(|byte| *byte == b'/').ok_or(Closed::Host)?;
    Ok(rest.split_at(slash))
}
