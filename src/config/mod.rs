//! The configuration: a file, variables and flags → checked, typed [`Settings`].
//!
//! Three steps, one file each: `node` lays the sources over one another, `section` reads a table strictly, `value`
//! knows the kinds of values. This file is the list of all sections; those with more to them than their fields have a file
//! of their own. To add a setting, add a field with its default and a line where its section is read.
//!
//! ```
//! # use holdfast::config::{Settings, Source};
//! let text = r#"
//!     [[issuer]]
//!     url = "https://tenant.eu.auth0.com/"
//!     audience = ["https://api.example.com"]
//! "#;
//! let settings = Settings::read(&Source::text("holdfast.toml", text)).unwrap();
//! assert_eq!(settings.policy.leeway.as_secs(), 30);
//! ```

mod fingerprint;
mod group;
mod guard;
mod headers;
mod issuer;
mod login;
pub mod mangled;
mod node;
mod policy;
mod routes;
mod section;
mod store;
mod tiers;
mod tls;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub use fingerprint::Fingerprint;
pub use headers::{HeaderRule, WhenAbsent};
pub use issuer::{ForeignTokens, IssuerSettings};
pub use login::{LoginAnswer, LoginSettings};
pub use node::{Node, Origin};
pub use policy::PolicySettings;
pub use routes::{RequirementsFrom, RouteSettings};
use section::Section;
pub use store::StoreSettings;
pub use tls::TlsSettings;
pub use value::Listen;

use crate::guard::GuardSettings;
use crate::tiers::table::TierTable;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[auth]`: the listener that proxies ask.
    pub auth: AuthSettings,
    /// What a request needs: part of `[auth]`, and `[[rule]]`.
    pub routes: RouteSettings,
    /// `[admin]`: metrics and health.
    pub admin: AdminSettings,
    /// `[store]`: where records are kept.
    pub store: StoreSettings,
    /// `[[issuer]]`: whose tokens are accepted; at least one.
    pub issuers: Vec<IssuerSettings>,
    /// `[policy]`: rules that hold for every issuer.
    pub policy: PolicySettings,
    /// `[credential]`: where the token is looked for besides `Authorization`.
    pub credential: CredentialSettings,
    /// `[login]`: where browsers without a good credential are sent. Nowhere by default.
    pub login: Option<LoginSettings>,
    /// `[headers]`: the identity headers of a 200.
    pub headers: Arc<[HeaderRule]>,
    /// `[[tier]]`: the age classes of records. Default: seven, from four hours to a year.
    pub tiers: TierTable,
    /// `[breaker]` and `[budget]`: when and how often an issuer is asked.
    pub guard: GuardSettings,
    /// `[log]`: what is logged, and how.
    pub log: LogSettings,
}

/// `[auth]`.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `listen`, `--listen`: TCP addresses, with TLS if so marked, and unix sockets. Default `127.0.0.1:4180`.
    pub listen: Vec<Listen>,
    /// `[auth.tls]`: what is shown and asked for at the addresses marked `tls:`. Set if and only if there is one.
    pub tls: Option<TlsSettings>,
    /// `socket_mode`: permissions of the unix sockets, octal. Default `660`.
    pub socket_mode: u32,
    /// `socket_group`: the group of the unix sockets, by name (in `/etc/group`) or number. Default: the process's.
    pub socket_group: Option<u32>,
    /// `idle_timeout`: how long a connection may wait for its next request, take to send one, or leave an answer
    /// unread. Longer than any proxy's pool keeps it. Default 120 s.
    pub idle_timeout: Duration,
    /// `lame_duck`: how long everybody is answered on after SIGTERM, while `/readyz` says 503. Default 0 s: a sidecar ends
    /// with its proxy. Behind a load balancer, longer than it takes to notice; 5 s behind a Kubernetes Service.
    pub lame_duck: Duration,
    /// `drain_timeout`: how long SIGTERM, after `lame_duck`, waits for requests under way. Default 10 s.
    pub drain_timeout: Duration,
    /// `undecided_status`: the status for "cannot tell". Default 503.
    pub undecided_status: u16,
    /// `max_connections`: above it, accepting waits. Default 10000.
    pub max_connections: usize,
    /// `max_head`: the longest head of a request, in bytes. Default 128 KiB: behind nginx a 431 becomes a 500, so this is
    /// well above what most proxies pass on.
    pub max_head: usize,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `listen`, `--admin`: a loopback address by default, `127.0.0.1:9180`.
    pub listen: SocketAddr,
    /// `hosts`: names by which it is asked, besides addresses and `localhost`. Default: none.
    pub hosts: Vec<String>,
}

/// `[credential]`.
#[derive(Clone, Debug, Default)]
pub struct CredentialSettings {
    /// `cookie`: name of a cookie that carries the token when there is no `Authorization` header. None by default.
    pub cookie: Option<String>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `format`: `text` or `json`. Default `text`.
    pub json: bool,
    /// `level`: a level or a list of `target=level`, as for `RUST_LOG`. Default `info`.
    pub level: String,
}

/// One thing that is wrong with the configuration, as a sentence that names the place, the key, the value, and what
/// is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {problem}")]
    Unreadable {
        /// The file.
        file: String,
        /// The operating system's word.
        problem: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        problem: String,
    },
    /// A key that holdfast does not know.
    #[error("{origin}: unknown key {key}{}", match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => format!("; known here are: {known}"),
    })]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// The known key that is most like it, if one is near.
        nearest: Option<String>,
        /// All keys known in the section.
        known: String,
    },
    /// A value that is not allowed, or missing.
    #[error("{origin}: {key} = {value}: allowed is {allowed}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// The bad value as written.
        value: String,
        /// What would be good.
        allowed: String,
    },
    /// Something that is wrong with a table, or with several settings together.
    #[error("{origin}: {key}: {problem}")]
    Unfit {
        /// Where.
        origin: Origin,
        /// The table.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl ConfigError {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } | Self::Syntax { .. } => None,
            Self::UnknownKey { key, .. } | Self::Value { key, .. } | Self::Unfit { key, .. } => Some(key),
        }
    }
}

/// All that is wrong with the configuration; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// Where the configuration comes from. Later ones win: file, then environment, then flags.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// A text to be read in place of the file's content.
    pub text: Option<String>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Values of flags: key path, flag name, values.
    pub flags: Vec<Flag>,
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key it sets.
    pub path: &'static [&'static str],
    /// How it is spelled.
    pub name: &'static str,
    /// Its values; a flag that may be repeated sets a list.
    pub values: Vec<String>,
}

impl Source {
    /// A text in place of a file, without environment and flags.
    #[must_use]
    pub fn text(name: impl AsRef<Path>, text: &str) -> Self {
        Self { file: Some(name.as_ref().to_owned()), text: Some(text.to_owned()), ..Self::default() }
    }

    fn tree(&self) -> Result<Node, ConfigError> {
        let mut tree = match &self.file {
            None => Node::empty(Origin::Nowhere),
            Some(file) => {
                let text = match &self.text {
                    Some(text) => text.clone(),
                    None => std::fs::read_to_string(file).map_err(|error| ConfigError::Unreadable {
                        file: file.display().to_string(),
                        problem: error.to_string(),
                    })?,
                };
                Node::from_toml(file, &text)?
            }
        };
        tree.overlay_environment(self.environment.iter().cloned())?;
        for flag in self.flags.iter().filter(|flag| !flag.values.is_empty()) {
            let origin = Origin::Flag(flag.name);
            let items = flag.values.iter().map(|text| Node::Scalar {
                text: text.clone(),
                quoted: true,
                origin: origin.clone(),
            });
            let mut items: Vec<Node> = items.collect();
            let value = if items.len() == 1 { items.remove(0) } else { Node::Array(items, origin.clone()) };
            tree.set(flag.path, value)?;
        }
        Ok(tree)
    }
}

/// Collects what is wrong, and knows where each key was set.
#[derive(Default)]
struct Problems {
    found: RefCell<Vec<ConfigError>>,
    places: RefCell<BTreeMap<String, (Origin, Option<String>)>>,
}

impl Problems {
    /// Remembers where `node`, at `key`, and all that is in it was set.
    fn locate(&self, key: &str, node: &Node) {
        match node {
            Node::Scalar { .. } => {}
            Node::Array(items, _) => {
                for (row, item) in items.iter().enumerate() {
                    self.locate(&format!("{key}[{row}]"), item);
                }
            }
            Node::Table(members, _) => {
                for (name, member) in members {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.locate(&key, member);
                }
            }
        }
        self.places.borrow_mut().insert(key.to_owned(), (node.origin().clone(), node.as_written()));
    }

    fn add(&self, error: ConfigError) {
        self.found.borrow_mut().push(error);
    }

    /// Where a key was set, and what it was set to if that is a plain value or a list of such.
    fn place(&self, key: &str) -> Option<(Origin, Option<String>)> {
        self.places.borrow().get(key).cloned()
    }

    /// Whether any is about `key` or something in it.
    fn concern(&self, key: &str) -> bool {
        let inside = |found: &str| {
            let rest = found.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.found.borrow().iter().filter_map(ConfigError::key).any(inside)
    }
}

impl Settings {
    /// Reads and checks the whole configuration.
    ///
    /// # Errors
    /// Every problem found, each naming its place.
    pub fn read(source: &Source) -> Result<Self, ConfigErrors> {
        Self::read_with(source, true)
    }

    /// The same for commands that look after the stores and ask no issuer: there may be none.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn read_for_upkeep(source: &Source) -> Result<Self, ConfigErrors> {
        Self::read_with(source, false)
    }

    fn read_with(source: &Source, needs_issuer: bool) -> Result<Self, ConfigErrors> {
        let tree = source.tree().map_err(|error| ConfigErrors(vec![error]))?;
        let problems = Problems::default();
        problems.locate("", &tree);
        let mut root = Section::new("", tree, &problems);
        let mut auth = root.section("auth");
        let settings = Self {
            routes: RouteSettings::read(&mut auth, &mut root, &problems),
            auth: AuthSettings::read(auth),
            admin: AdminSettings::read(root.section("admin")),
            store: StoreSettings::read(root.section("store")),
            issuers: IssuerSettings::read_all(&mut root, needs_issuer),
            policy: PolicySettings::read(root.section("policy")),
            credential: CredentialSettings::read(root.section("credential")),
            login: root.table("login").and_then(LoginSettings::read),
            headers: HeaderRule::read_all(root.section("headers")).into(),
            tiers: tiers::read(&mut root),
            guard: guard::read(&mut root),
            log: LogSettings::read(root.section("log")),
        };
        settings.policy.check_tiers(&settings.tiers, &root);
        settings.routes.check_tiers(&settings.tiers, &root);
        if needs_issuer && !root.is_flawed("issuer") {
            IssuerSettings::check_rules(&settings.issuers, &settings.routes, &root);
        }
        HeaderRule::check_room(&settings.headers, &settings.routes, &root);
        if settings.login.as_ref().is_some_and(|login| !login.return_hosts.is_empty())
            && settings.routes.trusted_peers.is_empty()
        {
            root.complain(
                "auth.trusted_peers",
                "nothing",
                "with login.return_hosts, the proxies whose word about the original request counts, such as 127.0.0.1 or \
                 unix; else no return address is ever given",
            );
        }
        root.finish();
        let problems = problems.found.into_inner();
        if problems.is_empty() { Ok(settings) } else { Err(ConfigErrors(problems)) }
    }
}

impl AuthSettings {
    fn read(mut section: Section<'_>) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 4180));
        let status = |text: &str| match text {
            "503" => Ok(503),
            "500" => Ok(500),
            "502" => Ok(502),
            "403" => Ok(403),
            "401" => Ok(401),
            _ => Err("503, 500, 502, 403 or 401".to_owned()),
        };
        let tls = section.table("tls");
        let has_tls = tls.is_some();
        let settings = Self {
            listen: section.list("listen", value::listen).unwrap_or_else(|| vec![Listen::Tcp(default)]),
            tls: tls.and_then(TlsSettings::read),
            socket_mode: section.value("socket_mode", 0o660, |text| {
                u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
                    .ok_or_else(|| "octal permissions such as \"660\"".to_owned())
            }),
            socket_group: section.optional("socket_group", group::id),
            idle_timeout: section.value(
                "idle_timeout",
                Duration::from_secs(120),
                value::duration(Duration::from_secs(1), Duration::from_secs(3600)),
            ),
            lame_duck: section.value(
                "lame_duck",
                Duration::ZERO,
                value::duration(Duration::ZERO, Duration::from_secs(600)),
            ),
            drain_timeout: section.value(
                "drain_timeout",
                Duration::from_secs(10),
                value::duration(Duration::ZERO, Duration::from_secs(600)),
            ),
            undecided_status: section.value("undecided_status", 503, status),
            max_connections: usize::try_from(section.value(
                "max_connections",
                10_000,
                value::number(1, 1_000_000),
            ))
            .unwrap_or(usize::MAX),
            max_head: usize::try_from(section.value("max_head", 128 << 10, value::size(64 << 10, 1 << 20)))
                .unwrap_or(usize::MAX),
        };
        if settings.listen.is_empty() {
            section.complain("listen", "[]", "at least one address or unix socket");
        }
        tls::check(&section, &settings.listen, has_tls);
        section.finish();
        settings
    }
}

impl AdminSettings {
    fn read(mut section: Section<'_>) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 9180));
        let settings = Self {
            listen: section.value("listen", default, value::address),
            hosts: section.list("hosts", value::host_name).unwrap_or_default(),
        };
        section.finish();
        settings
    }
}

impl CredentialSettings {
    fn read(mut section: Section<'_>) -> Self {
        let name = |text: &str| {
            // RFC 6265 §4.1.1: a cookie name is an RFC 9110 token. Empty switches it off.
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if text.bytes().all(token) { Ok(text.to_owned()) } else { Err("the name of a cookie".to_owned()) }
        };
        let settings = Self { cookie: section.optional("cookie", name).filter(|name| !name.is_empty()) };
        section.finish();
        settings
    }
}

impl LogSettings {
    fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            json: section.value("format", false, |text| match text {
                "json" => Ok(true),
                "text" => Ok(false),
                _ => Err("text or json".to_owned()),
            }),
            level: section.value("level", "info".to_owned(), |text| {
                text.parse::<tracing_subscriber::filter::Targets>()
                    .map(|_| text.to_owned())
                    .map_err(|_| "error, warn, info, debug or trace, or a list of target=level".to_owned())
            }),
        };
        section.finish();
        settings
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
