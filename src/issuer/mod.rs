//! Calls to an issuer: for its keys, and for its answer about a token.
//!
//! | file | what |
//! |---|---|
//! | `client` | one HTTP client with all its bounds |
//! | `endpoint` | a call through its guard; the only way to make a call |
//! | `keys` | the keys: known, looked up, fetched |
//! | `fresh` | calls without a request |
//! | `outage` | the recent states of a breaker |
//! | `discovery`, `jwks`, `userinfo`, `introspection` | each kind of call: where it goes, what is answered |
//! | `signed` | answers of `/userinfo` that are signed or encrypted |
//! | `judge` | the question whether the issuer accepts a token |

pub mod cause;
pub mod client;
pub mod discovery;
pub mod endpoint;
mod error;
mod fresh;
mod introspection;
mod judge;
pub mod jwks;
mod keys;
pub mod outage;
pub mod rejection;
pub mod settings;
mod signed;
pub mod userinfo;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::client::Client;
use self::discovery::{Discovery, EndpointKind};
pub use self::endpoint::CannotTell;
use self::endpoint::Endpoint;
pub use self::error::IssuerError;
use self::introspection::ClientCredentials;
pub use self::jwks::KeyLookup;
use self::jwks::KeySet;
use self::settings::{IntrospectionSettings, IssuerSettings};
pub use self::userinfo::UserinfoQuery;
use crate::clock::{Clock, Ticks, Timestamp};
use crate::guard::{GuardSettings, Singleflight, SingleflightSettings};
use crate::private_file;
use crate::telemetry::metrics::Metrics;
use crate::token::jwe::DecryptionKeys;

/// The shortest shared secret, in bytes: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The longest file of a shared secret, in bytes. Real secrets are shorter.
const MAX_SECRET_BYTES: u64 = 4096;

/// The keys as they were fetched, to be stored.
#[derive(Clone, Debug)]
pub struct FetchedKeys {
    /// The JWKS document.
    pub jwks: Vec<u8>,
    /// The discovery document.
    pub discovery: Vec<u8>,
}

/// What an issuer needs besides its settings.
#[derive(Clone)]
pub struct IssuerContext {
    /// The HTTP client.
    pub client: Client,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The settings of its guards.
    pub guard: GuardSettings,
    /// `leeway`: tolerated clock skew.
    pub leeway: Duration,
}

/// One configured issuer, with its keys as far as they are known.
pub struct Issuer {
    settings: IssuerSettings,
    name: Arc<str>,
    clock: Clock,
    metrics: Arc<Metrics>,
    leeway: Duration,
    decryption: DecryptionKeys,
    /// Holdfast as a client, if it introspects.
    client: Option<ClientCredentials>,
    /// Whether the issuer has refused these since they last worked.
    client_refused: AtomicBool,
    /// Whether a signed answer of `/userinfo` has not verified since one last did.
    userinfo_unverified: AtomicBool,
    keys: ArcSwapOption<KeySet>,
    discovery: ArcSwapOption<Discovery>,
    /// In the order of [`EndpointKind::ALL`].
    endpoints: [Endpoint; EndpointKind::ALL.len()],
    refreshes: Singleflight<(), Result<(), CannotTell>>,
    /// When the latest successful fetch began.
    fetched: Mutex<Option<Ticks>>,
    looks: Singleflight<(), Result<(), CannotTell>>,
    /// When keys were last fetched because of an unknown `kid`, and the result.
    looked: Mutex<Option<(Ticks, Result<(), CannotTell>)>>,
    on_fetch: OnFetch,
}

/// Called with the keys after each successful fetch.
pub type OnFetch = Box<dyn Fn(&str, FetchedKeys) + Send + Sync>;

impl Issuer {
    /// An issuer. It takes over the public keys and the guards of `previous`, so that a reload of the
    /// configuration neither forgets an outage or a forced state, nor fetches known keys; changed settings of
    /// the guards have no effect then. Files of keys and secrets are read again.
    ///
    /// # Errors
    /// [`IssuerError`], if a file of secrets or keys cannot be used.
    pub fn new(
        settings: IssuerSettings,
        with: &IssuerContext,
        previous: Option<&Self>,
        on_fetch: OnFetch,
    ) -> Result<Arc<Self>, IssuerError> {
        let name: Arc<str> = settings.url.as_str().into();
        let failed = |setting, file: &Path, problem| IssuerError::Secret {
            issuer: settings.url.clone(),
            setting,
            file: file.to_owned(),
            problem,
        };
        let decryption = DecryptionKeys::load(&settings.decryption_keys)
            .map_err(|problem| IssuerError::DecryptionKey { issuer: settings.url.clone(), problem })?;
        let keys = match &settings.secret_file {
            Some(file) => Some(Arc::new(KeySet::of_secret(
                &read_secret(file).map_err(|problem| failed("secret_file", file, problem))?,
            ))),
            None => previous
                .filter(|previous| previous.settings.secret_file.is_none())
                .and_then(|previous| previous.keys.load_full())
                // Read with the new settings, and without keys that the newest answer lacks.
                .and_then(|keys| KeySet::read(keys.document(), settings.pss_with_rs_keys).ok())
                .map(Arc::new),
        };
        let client =
            settings.introspection.as_ref().map(|IntrospectionSettings { client_id, client_secret_file }| {
                ClientCredentials::load(client_id, client_secret_file).map_err(|problem| {
                    failed("introspection.client_secret_file", client_secret_file, problem)
                })
            });
        let client = client.transpose()?;
        let endpoint = |kind: EndpointKind| match previous {
            Some(previous) => previous.endpoint(kind).clone(),
            None => Endpoint::new(
                name.clone(),
                kind.name(),
                with.client.clone(),
                with.guard.clone(),
                with.clock.clone(),
                with.metrics.clone(),
            ),
        };
        let issuer = Self {
            endpoints: EndpointKind::ALL.map(endpoint),
            settings,
            name,
            clock: with.clock.clone(),
            metrics: with.metrics.clone(),
            leeway: with.leeway,
            client,
            client_refused: AtomicBool::new(false),
            userinfo_unverified: AtomicBool::new(false),
            decryption,
            keys: ArcSwapOption::new(keys),
            discovery: ArcSwapOption::new(previous.and_then(|previous| previous.discovery.load_full())),
            refreshes: Singleflight::new(SingleflightSettings::default()),
            fetched: Mutex::new(previous.and_then(Self::fetched_at)),
            looks: Singleflight::new(SingleflightSettings::default()),
            looked: Mutex::new(None),
            on_fetch,
        };
        issuer.endpoints().for_each(Endpoint::register);
        Ok(Arc::new(issuer))
    }

    /// Its URL, as in `iss`, unless that is an alias.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &IssuerSettings {
        &self.settings
    }

    /// The keys that open JWEs for its tokens.
    #[must_use]
    pub fn decryption_keys(&self) -> &DecryptionKeys {
        &self.decryption
    }

    /// Its endpoints that may be called.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let introspects = self.settings.introspection.is_some();
        let kinds = EndpointKind::ALL.into_iter();
        kinds
            .filter(move |kind| introspects || *kind != EndpointKind::Introspection)
            .map(|kind| self.endpoint(kind))
    }

    fn endpoint(&self, kind: EndpointKind) -> &Endpoint {
        &self.endpoints[kind as usize]
    }

    /// Since when the breaker of `/userinfo`, introspection or the keys is not closed; see
    /// [`Endpoint::outage`].
    #[must_use]
    pub fn open_since(&self) -> Option<Timestamp> {
        let kinds = EndpointKind::ALL.into_iter().filter(|kind| *kind != EndpointKind::Discovery);
        kinds.filter_map(|kind| Some(self.endpoint(kind).outage()?.since)).min()
    }
}

fn read_secret(file: &Path) -> Result<Vec<u8>, String> {
    let secret = private_file::read_line(file, MAX_SECRET_BYTES).map_err(|error| error.to_string())?;
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("it has {} bytes; at least {MIN_SECRET_BYTES} are needed", secret.len()));
    }
    Ok(secret)
}
