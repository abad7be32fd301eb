//! Which login page, and to which hosts it may send a browser back.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

/// `[login]`.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `url`: the login page.
    pub url: Url,
    /// `answer`: how the browser is sent there. Default: by a redirect.
    pub answer: LoginAnswer,
    /// `return_hosts`: the hosts to which the login page may send the browser back. None by default.
    pub return_hosts: Vec<ReturnHost>,
    /// `secret_file`: the secret that signs return addresses, which the login page has, too. Set if and only
    /// if there are `return_hosts`.
    pub secret_file: Option<PathBuf>,
    /// `lifetime`: how long a signed return address is good. Default 10 min.
    pub lifetime: Duration,
}

/// How a browser is sent to the login page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// `redirect`: by a 302, which Traefik, Caddy and Envoy pass on.
    Redirect,
    /// `header`: by a 401 whose `X-Auth-Login-Url` the proxy makes a redirect of. nginx makes a 500 of any
    /// 3xx.
    Header,
}

/// A host to which a browser may be sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnHost {
    /// This one.
    Exact(String),
    /// Every one below it; with its leading dot.
    Below(String),
}

impl ReturnHost {
    pub(super) fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Below(suffix) => host.strip_suffix(suffix.as_str()).is_some_and(|rest| !rest.is_empty()),
        }
    }
}

impl FromStr for ReturnHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, below) = text.strip_prefix('.').map_or((text, false), |name| (name, true));
        // A suffix of one label would include everything under a top-level domain.
        match is_host(name) && (!below || name.contains('.')) {
            true if below => Ok(Self::Below(text.to_owned())),
            true => Ok(Self::Exact(text.to_owned())),
            false => {
                Err("a host name in lower case, such as app.example.com, or .example.com for all below it"
                    .to_owned())
            }
        }
    }
}

/// Labels of lower-case letters, digits and hyphens. No port, no user, no address in brackets, no final dot.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
