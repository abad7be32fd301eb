//! The redirect of a browser without a good credential: which clients are browsers, the URL of the login
//! page, and its signature.
//!
//! A login page sends users back to where they came from. If an attacker can choose
//! that address, it is an open redirect. So the address is built here from the original request as a trusted
//! proxy describes it, only for configured hosts, checked by character sets instead of repaired, and signed,
//! so that the login page can trust it.

mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, UPGRADE};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use url::Url;

use crate::clock::Timestamp;
use crate::private_file::{self, PrivateFileError};
use crate::route::Closed;
use crate::route::forwarded::Subrequest;
use crate::route::peer::Peer;
use crate::route::settings::RouteSettings;

use self::settings::is_host;
pub use self::settings::{LoginAnswer, LoginSettings, ReturnHost};

/// The purpose in a signature, so that the secret may serve other purposes, too.
const PURPOSE: &str = "holdfast-login-v1";

/// The shortest secret, in bytes: as long as the hash (RFC 2104 §3).
const MIN_SECRET_BYTES: usize = 32;

/// The longest file of a secret that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 4096;

/// The longest URL in an answer, in bytes. nginx accepts 4 KiB of headers in an answer.
const MAX_URL_BYTES: usize = 3000;

/// Characters that browsers do not encode in a path or query (WHATWG URL §1.3), although RFC 3986 requires
/// it. A `\` is included in a query only: in a path some readers take it for a slash.
const LEFT_RAW: &AsciiSet = &CONTROLS.add(b'|').add(b'{').add(b'}').add(b'^').add(b'`').add(b'\\');

/// Why there is no secret for `[login]`.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The file cannot be used.
    #[error("login.secret_file: {} {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: PrivateFileError,
    },
    /// The secret is too short.
    #[error(
        "login.secret_file: {} has {bytes} bytes; at least {MIN_SECRET_BYTES} are needed",
        file.display()
    )]
    TooShort {
        /// The file.
        file: PathBuf,
        /// Its length, without line ends at its end.
        bytes: usize,
    },
}

/// The login page, ready to send browsers to.
pub struct Login {
    url: Url,
    answer: LoginAnswer,
    return_hosts: Vec<ReturnHost>,
    key: Option<hmac::Key>,
    lifetime: Duration,
}

impl Login {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`LoginError`], if the file cannot be used.
    pub fn load(settings: &LoginSettings) -> Result<Self, LoginError> {
        let key = settings.secret_file.as_deref().map(read_key).transpose()?;
        Ok(Self {
            url: settings.url.clone(),
            answer: settings.answer,
            return_hosts: settings.return_hosts.clone(),
            key,
            lifetime: settings.lifetime,
        })
    }

    /// How browsers are sent there.
    #[must_use]
    pub fn answer(&self) -> LoginAnswer {
        self.answer
    }

    /// Where to send the client, `None` if it is not a browser, or already requests the login page.
    #[must_use]
    pub fn url_for(
        &self,
        subrequest: Subrequest<'_>,
        peer: Peer,
        routes: &RouteSettings,
        now: Timestamp,
    ) -> Option<HeaderValue> {
        let trusted = routes.trusts(peer);
        let method_fits = match routes.forwarded.method(subrequest) {
            _ if !trusted => true,
            Ok(method) => matches!(method, "GET" | "HEAD"),
            Err(closed) => matches!(closed, Closed::Missing(_)),
        };
        if !method_fits || !is_navigation(subrequest.headers) {
            return None;
        }
        let original = if trusted { routes.forwarded.address(subrequest).ok() } else { None };
        let place = original.and_then(|(authority, target)| self.place(authority, target));
        if let Some((host, target)) = &place
            && Some(host.as_str()) == self.url.host_str()
            && target.split('?').next() == Some(self.url.path())
        {
            return None;
        }
        let signed = place.and_then(|(host, target)| self.signed(&host, &target, now));
        let url = signed.filter(|url| url.len() <= MAX_URL_BYTES);
        HeaderValue::try_from(url.unwrap_or_else(|| self.url.to_string())).ok()
    }

    /// Host and target of the original request, if they are unambiguous. The target is encoded as RFC 3986
    /// requires.
    fn place(&self, authority: &[u8], target: &[u8]) -> Option<(String, String)> {
        let authority = std::str::from_utf8(authority).ok()?.to_ascii_lowercase();
        // A port other than the scheme's default would be another server.
        let port = if self.url.scheme() == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(port).unwrap_or(&authority);
        let target = std::str::from_utf8(target).ok()?;
        (is_host(host) && is_target(target))
            .then(|| (host.to_owned(), utf8_percent_encode(target, LEFT_RAW).to_string()))
    }

    fn signed(&self, host: &str, target: &str, now: Timestamp) -> Option<String> {
        let key = self.key.as_ref()?;
        self.return_hosts.iter().any(|allowed| allowed.covers(host)).then(|| {
            // The login page's own scheme: a scheme from a header could downgrade to plain text.
            let return_to = format!("{}://{host}{target}", self.url.scheme());
            let expires = now.after(self.lifetime).as_secs();
            let signature = sign(key, &return_to, expires);
            let return_to = utf8_percent_encode(&return_to, NON_ALPHANUMERIC);
            format!("{}?return_to={return_to}&expires={expires}&signature={signature}", self.url)
        })
    }
}

/// HMAC-SHA-256 of purpose, expiry and address, a line each without the last line's end; in base64url.
fn sign(key: &hmac::Key, return_to: &str, expires: u64) -> String {
    let message = format!("{PURPOSE}\n{expires}\n{return_to}");
    URL_SAFE_NO_PAD.encode(hmac::sign(key, message.as_bytes()))
}

/// A path that begins with exactly one slash, and its query: the characters of RFC 3986, those that browsers
/// send in addition, and no others.
fn is_target(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%[]|{}^`".contains(&byte);
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let starts_well = path.starts_with('/') && !path.starts_with("//");
    starts_well && path.bytes().all(allowed) && query.bytes().all(|byte| byte == b'\\' || allowed(byte))
}

/// Whether a browser wants to show a page. A script, an image, a frame or a program gets the 401, because a
/// login page is of no use to it.
fn is_navigation(headers: &HeaderMap) -> bool {
    let says = |name: &str, expected: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => true,
            (Some(value), None) => value == expected,
            _ => false,
        }
    };
    accepts_html(headers)
        && !headers.contains_key(AUTHORIZATION)
        && !headers.contains_key(UPGRADE)
        && !headers.contains_key("x-requested-with")
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
}

/// RFC 9110 §12.5.1. Programs send `*/*`.
fn accepts_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let refused = |part: &str| {
            part.split_once('=').is_some_and(|(name, weight)| {
                name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0)
            })
        };
        html && !parts.any(refused)
    })
}

fn read_key(file: &Path) -> Result<hmac::Key, LoginError> {
    let file = file.to_owned();
    let secret = match private_file::read_line(&file, MAX_SECRET_BYTES) {
        Ok(secret) => secret,
        Err(problem) => return Err(LoginError::File { file, problem }),
    };
    if secret.len() < MIN_SECRET_BYTES {
        return Err(LoginError::TooShort { file, bytes: secret.len() });
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

#[cfg(test)]
mod tests;
