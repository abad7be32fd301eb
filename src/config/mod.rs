//! The configuration: a file, variables and flags → checked, typed [`Settings`].
//!
//! Three steps, one file each: `node` lays the sources over one another, `section` reads a table strictly, `value`
//! knows the kinds of values. This file is the list of all settings and their defaults; to add one, add a field here
//! and a line where its section is read.
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

mod group;
mod login;
mod node;
mod routes;
mod section;
mod store;
mod tls;
mod value;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use thiserror::Error;
use url::Url;

pub use login::{LoginAnswer, LoginSettings};
pub use node::{Node, Origin};
pub use routes::{RequirementsFrom, RouteSettings};
use section::Section;
pub use store::StoreSettings;
pub use tls::TlsSettings;
pub use value::Listen;

use crate::guard::GuardSettings;
use crate::tiers::table::{Role, Tier, TierTable};
use crate::token::algorithm::{self, SignatureAlgorithm};
use crate::token::pointer::ClaimPath;

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
    /// `[[tier]]`: the age classes of records. Default: the seven of the design.
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
    /// `drain_timeout`: how long SIGTERM waits for requests under way. Default 10 s.
    pub drain_timeout: Duration,
    /// `undecided_status`: the status for "cannot tell". Default 503.
    pub undecided_status: u16,
    /// `max_connections`: above it, accepting waits. Default 10000.
    pub max_connections: usize,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `listen`, `--admin`: a loopback address by default, `127.0.0.1:9180`.
    pub listen: SocketAddr,
}

/// One `[[issuer]]`.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// `url`, `--issuer`: compared byte for byte with `iss`, so as it was written.
    pub url: String,
    /// The same, parsed, to find the discovery document.
    pub base: Url,
    /// `audience`, `--audience`: a token must name one of them.
    pub audience: Vec<String>,
    /// `algorithms`: the allow-list for signatures. Default `RS256`.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// `secret_file`: the shared secret of HS256/384/512, at least 32 bytes.
    pub secret_file: Option<PathBuf>,
    /// `email_claims`: where the email is looked for, in this order.
    pub email_claims: Vec<ClaimPath>,
    /// `userinfo`: whether `/userinfo` may be asked for a missing email. Default true.
    pub userinfo: bool,
    /// `foreign_tokens`: whether the issuer is asked about tokens that only it can judge. Default `ask-issuer`.
    pub foreign_tokens: ForeignTokens,
    /// `decryption_keys`: files of private or shared keys that open JWEs.
    pub decryption_keys: Vec<PathBuf>,
    /// `bare_claims`: whether a JWE under a *shared* key may carry claims without a nested JWS. Default false.
    pub bare_claims: bool,
    /// `jwks_refresh`: how often the keys are fetched anew. Default 10 min.
    pub jwks_refresh: Duration,
}

/// What is done with a token that only the issuer can judge: opaque, or a JWE that we have no key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignTokens {
    /// `/userinfo` is asked. Its audience cannot be checked: any application of the same tenant can obtain one.
    AskIssuer,
    /// It is refused.
    Refuse,
}

/// `[policy]`.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `leeway`: tolerated clock skew for `exp`, `nbf`, `iat`. Default 30 s, at most 120 s.
    pub leeway: Duration,
    /// `negative_ttl`: how long a definitive no is remembered. Default 60 s.
    pub negative_ttl: Duration,
    /// `expired_grace`: how long past its life a token is admitted that expired while the breaker was already open.
    /// Default 0, which switches it off.
    pub expired_grace: Duration,
    /// `verdict_ceiling`: the oldest tier whose verdict on a foreign token may be served. Default `emergency`.
    pub verdict_ceiling: String,
    /// `require_verified_email`: an email counts only with `email_verified: true`. Default false.
    pub require_verified_email: bool,
}

/// `[credential]`.
#[derive(Clone, Debug, Default)]
pub struct CredentialSettings {
    /// `cookie`: name of a cookie that carries the token when there is no `Authorization` header. None by default.
    pub cookie: Option<String>,
}

/// One row of `[headers]`: a response header and the claim it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// The header.
    pub name: HeaderName,
    /// The claim; `email` and `sub` mean the resolved email and subject.
    pub claim: ClaimPath,
    /// What to do when there is no such claim.
    pub absent: WhenAbsent,
}

/// A 200 carries every configured header, non-empty: some proxies let the client's own through when ours is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenAbsent {
    /// `required = true`: no 200 without it.
    Refuse,
    /// `default = "…"`: this is sent instead.
    Default(String),
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
            None => Node::empty(Origin::Flag("--issuer and --audience, or --config")),
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

/// Collects what is wrong.
#[derive(Default)]
struct Problems(RefCell<Vec<ConfigError>>);

impl Problems {
    fn add(&self, error: ConfigError) {
        self.0.borrow_mut().push(error);
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
        let problems = Problems::default();
        let tree = source.tree().map_err(|error| ConfigErrors(vec![error]))?;
        let mut root = Section::new("", tree, &problems);
        let mut auth = root.section("auth");
        let settings = Self {
            routes: RouteSettings::read(&mut auth, &mut root, &problems),
            auth: AuthSettings::read(auth),
            admin: AdminSettings::read(root.section("admin")),
            store: StoreSettings::read(root.section("store")),
            issuers: read_issuers(&mut root, needs_issuer),
            policy: PolicySettings::read(root.section("policy")),
            credential: CredentialSettings::read(root.section("credential")),
            login: root.table("login").and_then(LoginSettings::read),
            headers: read_headers(root.section("headers")).into(),
            tiers: read_tiers(&mut root),
            guard: read_guard(&mut root),
            log: LogSettings::read(root.section("log")),
        };
        if settings.tiers.find(&settings.policy.verdict_ceiling).is_none() {
            let names: Vec<&str> = settings.tiers.iter().map(|(_, row)| row.name.as_str()).collect();
            root.complain(
                "policy.verdict_ceiling",
                &*settings.policy.verdict_ceiling,
                format!("one of {}", names.join(", ")),
            );
        }
        settings.routes.check_tiers(&settings.tiers, &root);
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
        let problems = problems.0.into_inner();
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
        let settings = Self { listen: section.value("listen", default, value::address) };
        section.finish();
        settings
    }
}

impl PolicySettings {
    fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            leeway: section.value(
                "leeway",
                Duration::from_secs(30),
                value::duration(Duration::ZERO, Duration::from_secs(120)),
            ),
            negative_ttl: section.value(
                "negative_ttl",
                Duration::from_secs(60),
                value::duration(Duration::ZERO, Duration::from_secs(3600)),
            ),
            expired_grace: section.value(
                "expired_grace",
                Duration::ZERO,
                value::duration(Duration::ZERO, DAY),
            ),
            verdict_ceiling: section.value("verdict_ceiling", "emergency".to_owned(), value::text),
            require_verified_email: section.value("require_verified_email", false, value::boolean),
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

fn read_issuers(root: &mut Section<'_>, needed: bool) -> Vec<IssuerSettings> {
    let mut seen = BTreeSet::new();
    let rows = root.rows("issuer").unwrap_or_default();
    if needed && rows.is_empty() {
        root.complain("issuer", "nothing", "at least one [[issuer]] with url and audience");
    }
    let issuers = rows.into_iter().filter_map(|row| {
        let origin = row.origin().clone();
        let issuer = IssuerSettings::read(row)?;
        if !seen.insert(issuer.url.clone()) {
            root.complain("issuer", format!("{origin}: {}", issuer.url), "each issuer only once");
        }
        Some(issuer)
    });
    issuers.collect::<Vec<_>>()
}

impl IssuerSettings {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let written = section.optional("url", |text| value::issuer(text).map(|base| (text.to_owned(), base)));
        let audience = section.list("audience", value::text);
        let algorithms = section.list("algorithms", |text| {
            text.parse().map_err(|_| format!("one of {}", algorithm::names(&SignatureAlgorithm::ALL)))
        });
        let algorithms = algorithms.unwrap_or_else(|| vec![SignatureAlgorithm::RS256]);
        let secret_file = section.optional("secret_file", value::path);
        let email_claims =
            section.list("email_claims", |text| text.parse()).unwrap_or_else(ClaimPath::email_default);
        let userinfo = section.value("userinfo", true, value::boolean);
        let foreign_tokens = section.value("foreign_tokens", ForeignTokens::AskIssuer, |text| match text {
            "ask-issuer" => Ok(ForeignTokens::AskIssuer),
            "refuse" => Ok(ForeignTokens::Refuse),
            _ => Err("ask-issuer or refuse".to_owned()),
        });
        let decryption_keys = section.list("decryption_keys", value::path).unwrap_or_default();
        let bare_claims = section.value("bare_claims", false, value::boolean);
        let jwks_refresh = section.value(
            "jwks_refresh",
            Duration::from_secs(600),
            value::duration(Duration::from_secs(10), DAY),
        );
        let symmetric = algorithms.iter().filter(|algorithm| algorithm.is_symmetric()).count();
        if algorithms.is_empty() || (symmetric != 0 && symmetric != algorithms.len()) {
            let list = algorithm::names(&algorithms);
            section.complain(
                "algorithms",
                list,
                "either asymmetric algorithms or HS ones, at least one, never both",
            );
        }
        if (symmetric != 0) != secret_file.is_some() {
            section.complain("secret_file", "", "set if and only if algorithms are HS256, HS384 or HS512");
        }
        if audience.as_ref().is_none_or(Vec::is_empty) {
            section.complain("audience", "nothing", "at least one audience (the API's identifier in Auth0)");
        }
        if written.is_none() {
            section.complain("url", "nothing", "the issuer's URL exactly as in the token's `iss`");
        }
        section.finish();
        let (url, base) = written?;
        Some(Self {
            url,
            base,
            audience: audience?,
            algorithms,
            secret_file,
            email_claims,
            userinfo,
            foreign_tokens,
            decryption_keys,
            bare_claims,
            jwks_refresh,
        })
    }
}

/// `[[tier]]`: `name`, `age`, `role`; youngest first.
fn read_tiers(root: &mut Section<'_>) -> TierTable {
    let Some(rows) = root.rows("tier") else { return TierTable::default() };
    let year = 366 * DAY;
    let mut tiers = Vec::with_capacity(rows.len());
    for mut row in rows {
        let name = row.optional("name", value::text);
        let age = row.optional("age", value::duration(Duration::from_secs(1), 10 * year));
        let role = row.optional("role", |text| match text {
            "fresh" => Ok(Role::Fresh),
            "revalidate" => Ok(Role::Revalidate),
            "outage" => Ok(Role::Outage),
            _ => Err("fresh, revalidate or outage".to_owned()),
        });
        for (key, missing) in [("name", name.is_none()), ("age", age.is_none()), ("role", role.is_none())] {
            if missing {
                row.complain(key, "nothing usable", "a name, an age and a role for each tier");
            }
        }
        row.finish();
        if let (Some(name), Some(age), Some(role)) = (name, age, role) {
            tiers.push(Tier { name, age, role });
        }
    }
    TierTable::new(tiers).unwrap_or_else(|error| {
        root.complain("tier", "this table", error.to_string());
        TierTable::default()
    })
}

/// `[breaker]` and `[budget]`.
fn read_guard(root: &mut Section<'_>) -> GuardSettings {
    let mut guard = GuardSettings::default();
    let second = Duration::from_secs(1);
    let count = |least| move |text: &str| value::number(least, 1_000_000)(text).map(|number| number as u32);
    let mut section = root.section("breaker");
    let breaker = &mut guard.breaker;
    breaker.window = section.value("window", breaker.window, value::duration(second, 3600 * second));
    breaker.minimum_calls = section.value("minimum_calls", breaker.minimum_calls, count(1));
    breaker.failure_rate = section.value("failure_rate", breaker.failure_rate, value::fraction);
    breaker.slow_call =
        section.value("slow_call", breaker.slow_call, value::duration(second / 100, 60 * second));
    breaker.slow_rate = section.value("slow_rate", breaker.slow_rate, value::fraction);
    breaker.open_for =
        section.value("open_for", breaker.open_for, value::duration(second / 100, 3600 * second));
    breaker.open_for_max =
        section.value("open_for_max", breaker.open_for_max, value::duration(second / 100, DAY));
    breaker.probes = section.value("probes", breaker.probes, count(1));
    if breaker.open_for_max < breaker.open_for {
        section.complain("open_for_max", "less than open_for", "at least as long as open_for");
    }
    section.finish();
    let mut section = root.section("budget");
    let budget = &mut guard.budget;
    budget.rate = section.value("rate", budget.rate, value::rate);
    budget.burst = section.value("burst", budget.burst, count(1));
    budget.background_share = section.value("background_share", budget.background_share, value::fraction);
    budget.suspect_share = section.value("suspect_share", budget.suspect_share, value::fraction);
    section.finish();
    guard
}

/// The identity headers when `[headers]` is not set, and the rows that stay when it is.
fn default_headers() -> Vec<HeaderRule> {
    [("x-user-email", "email"), ("x-user-id", "sub")]
        .into_iter()
        .map(|(name, claim)| HeaderRule {
            name: HeaderName::from_static(name),
            claim: ClaimPath::member(claim),
            absent: WhenAbsent::Refuse,
        })
        .collect()
}

/// `[headers]`: a row is `"X-Name" = "claim"` (required) or `{ claim = "…", required = true }` or
/// `{ claim = "…", default = "…" }`.
fn read_headers(section: Section<'_>) -> Vec<HeaderRule> {
    let mut rules = default_headers();
    for (key, node, problems) in section.into_members() {
        // A variable's name cannot hold a hyphen.
        let key = if matches!(node.origin(), Origin::Environment(_)) { key.replace('_', "-") } else { key };
        let row = match node {
            Node::Scalar { .. } => {
                let origin = node.origin().clone();
                Node::Table([("claim".to_owned(), node)].into(), origin)
            }
            table => table,
        };
        let mut row = Section::new(format!("headers.{key}"), row, problems);
        let name = value::header_name(&key);
        let claim = row.optional("claim", |text| text.parse());
        let required = row.optional("required", value::boolean);
        let default = row.optional("default", default_value);
        let absent = match (required, default) {
            (None | Some(true), None) => Some(WhenAbsent::Refuse),
            (None | Some(false), Some(default)) => Some(WhenAbsent::Default(default)),
            _ => None,
        };
        match (&name, &claim, &absent) {
            (Err(allowed), ..) => row.complain("", key.as_str(), allowed.as_str()),
            (Ok(name), ..) if is_reserved(name) => {
                row.complain(
                    "",
                    key.as_str(),
                    "a name that HTTP or holdfast itself does not use in its answers",
                );
            }
            (_, None, _) => {
                row.complain("claim", "nothing", "a claim's name, or a JSON pointer such as /user/email")
            }
            (.., None) => row.complain(
                "required",
                "with this default",
                "either required = true, or required = false together with a non-empty default: \
                 a 200 must carry every header, else some proxies pass on the client's own",
            ),
            _ => {}
        }
        row.finish();
        if let (Ok(name), Some(claim), Some(absent)) = (name, claim, absent) {
            rules.retain(|rule| rule.name != name);
            rules.push(HeaderRule { name, claim, absent });
        }
    }
    rules
}

fn default_value(text: &str) -> Result<String, String> {
    let visible =
        !text.is_empty() && text.len() <= 256 && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if visible { Ok(text.to_owned()) } else { Err("1 to 256 visible ASCII characters".to_owned()) }
}

/// Headers that the answer uses for itself, or that change what HTTP means.
fn is_reserved(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "content-type"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "te"
            | "trailer"
            | "date"
            | "host"
            | "cache-control"
            | "set-cookie"
            | "www-authenticate"
            | "retry-after"
            | "location"
            | "x-auth-tier"
            | "x-auth-age"
            | "x-auth-source"
            | "x-auth-login-url"
            | "x-user-email-encoding"
    )
}

#[cfg(test)]
mod tests;
