//! The kinds of values a setting may have. Each parser returns what is allowed as its error, to be shown to a
//! person.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::HeaderName;
use url::{Host, Url};

use crate::route::forwarded::is_host;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where a listener waits for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A TCP address that accepts only TLS.
    Tls(SocketAddr),
    /// A unix socket at this path.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // A unix socket path has to fit into sockaddr_un, 108 bytes with its final NUL.
        return if path.starts_with('/') && path.len() < 108 {
            Ok(Listen::Unix(PathBuf::from(path)))
        } else {
            Err("unix: and an absolute path under 108 bytes, such as unix:/run/holdfast/auth.sock".to_owned())
        };
    }
    tcp(text)
        .map(|(address, is_tls)| if is_tls { Listen::Tls(address) } else { Listen::Tcp(address) })
        .map_err(|allowed| format!("{allowed}, the same after tls:, or unix:/path"))
}

/// An address, and whether it is marked `tls:`.
pub(super) fn admin_listen(text: &str) -> Result<(SocketAddr, bool), String> {
    tcp(text).map_err(|allowed| format!("{allowed}, or the same after tls:"))
}

fn tcp(text: &str) -> Result<(SocketAddr, bool), String> {
    match text.strip_prefix("tls:") {
        Some(rest) => Ok((address(rest)?, true)),
        None => Ok((address(text)?, false)),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address and port such as 127.0.0.1:4180 or [::1]:4180".to_owned())
}

/// A host's name, without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if is_host(name) && !name.starts_with('[') {
        Ok(name.to_owned())
    } else {
        Err("the name of a host without a port, such as holdfast.monitoring.svc".to_owned())
    }
}

/// A duration such as `500ms`, `60s`, `4h`, `14d`, within bounds.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        humantime::parse_duration(text).ok().filter(|value| (least..=most).contains(value)).ok_or_else(|| {
            format!(
                "a duration from {} to {}, such as 500ms, 30s, 4h, 14d",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )
        })
    }
}

/// One of some words, each with what it stands for.
pub(super) fn one_of<T: Clone, const N: usize>(words: [(&str, T); N]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let words = words.each_ref().map(|(word, _)| *word);
            words
                .split_last()
                .map_or_else(String::new, |(last, rest)| format!("{} or {last}", rest.join(", ")))
        })
    }
}

/// A size in bytes such as `256MiB`, `64KiB`, `1GiB`, within bounds.
pub(super) fn size<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1_u64 << 30,
            _ => 0,
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        bytes
            .filter(|bytes| factor > 0 && (least..=most).contains(bytes))
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| format!("a size from {least} B to {most} B, such as 64KiB, 256MiB, 1GiB"))
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// A whole number within bounds.
pub(super) fn number<T: FromStr + Display + PartialOrd + Copy>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        text.parse()
            .ok()
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| format!("a whole number from {least} to {most}"))
    }
}

/// A fraction above 0, and at most 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value: &f64| *value > 0.0 && *value <= 1.0)
        .ok_or_else(|| "a fraction above 0 and at most 1, such as 0.5".to_owned())
}

/// A number of calls a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value > 0.0 && *value <= 100_000.0)
        .ok_or_else(|| "a number of calls a second above 0 and at most 100000".to_owned())
}

pub(super) fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a text, not empty".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn path(value: &str) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from).map_err(|_| "a path, not empty".to_owned())
}

/// The issuer's URL, exactly as in `iss`: https, or http on loopback only; no query, no fragment.
pub(super) fn issuer(text: &str) -> Result<Url, String> {
    let allowed = || {
        "the issuer's URL exactly as in the token's `iss`, such as https://tenant.eu.auth0.com/ \
         (http:// only for loopback)"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| allowed())?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(domain)) => domain == "localhost",
        None => return Err(allowed()),
    };
    let scheme_fits = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if scheme_fits && plain { Ok(url) } else { Err(allowed()) }
}

/// An HTTP header name that every proxy passes on: hyphens, no underscores.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    let allowed = "a header name of letters, digits and hyphens, such as X-User-Email";
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || text.is_empty() {
        return Err(allowed.to_owned());
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| allowed.to_owned())
}
