//! Calls to an issuer: for its keys, and for its answer about a token.
//!
//! | file | what |
//! |---|---|
//! | `client` | one HTTP client with all its bounds |
//! | `endpoint` | a call through its guard; the only way to make a call |
//! | `keys` | the keys: known, looked up, fetched |
//! | `fresh` | calls without a request |
//! | `outage` | the recent states of a breaker |
//! | `discovery`, `jwks`, `userinfo` | the three kinds of call: where they go, what their answers mean |

pub mod cause;
pub mod client;
pub mod discovery;
pub mod endpoint;
mod error;
mod fresh;
pub mod jwks;
mod keys;
pub mod outage;
pub mod rejection;
pub mod settings;
pub mod userinfo;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;

use self::client::Client;
use self::discovery::{Discovery, EndpointKind};
pub use self::endpoint::CannotTell;
use self::endpoint::Endpoint;
pub use self::error::IssuerError;
pub use self::jwks::KeyLookup;
use self::jwks::KeySet;
use self::settings::IssuerSettings;
use self::userinfo::{Reach, UserinfoAnswer};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::guard::{GuardSettings, Priority, Singleflight, SingleflightSettings, SubjectKey};
use crate::private_file;
use crate::telemetry::metrics::Metrics;
use crate::token::json::Object;
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
}

/// One configured issuer, with its keys as far as they are known.
pub struct Issuer {
    settings: IssuerSettings,
    name: Arc<str>,
    clock: Clock,
    metrics: Arc<Metrics>,
    decryption: DecryptionKeys,
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
    /// the guards have no effect then. Files of keys and secrets are read anew.
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
        let decryption = DecryptionKeys::load(&settings.decryption_keys)
            .map_err(|problem| IssuerError::DecryptionKey { issuer: settings.url.clone(), problem })?;
        let keys = match &settings.secret_file {
            Some(file) => Some(Arc::new(KeySet::of_secret(&read_secret(file).map_err(|problem| {
                IssuerError::Secret { issuer: settings.url.clone(), file: file.clone(), problem }
            })?))),
            None => previous
                .filter(|previous| previous.settings.secret_file.is_none())
                .and_then(|previous| previous.keys.load_full())
                // Read with the new settings, and without keys that the newest answer lacks.
                .and_then(|keys| KeySet::read(keys.document(), settings.pss_with_rs_keys).ok())
                .map(Arc::new),
        };
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
        Ok(Arc::new(Self {
            endpoints: EndpointKind::ALL.map(endpoint),
            settings,
            name,
            clock: with.clock.clone(),
            metrics: with.metrics.clone(),
            decryption,
            keys: ArcSwapOption::new(keys),
            discovery: ArcSwapOption::new(previous.and_then(|previous| previous.discovery.load_full())),
            refreshes: Singleflight::new(SingleflightSettings::default()),
            fetched: Mutex::new(previous.and_then(Self::fetched_at)),
            looks: Singleflight::new(SingleflightSettings::default()),
            looked: Mutex::new(None),
            on_fetch,
        }))
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

    /// Its endpoints, in the order of [`EndpointKind::ALL`].
    #[must_use]
    pub fn endpoints(&self) -> [&Endpoint; EndpointKind::ALL.len()] {
        self.endpoints.each_ref()
    }

    fn endpoint(&self, kind: EndpointKind) -> &Endpoint {
        &self.endpoints[kind as usize]
    }

    /// Since when the breaker of `/userinfo` or of the keys is not closed; see [`Endpoint::outage`].
    #[must_use]
    pub fn open_since(&self) -> Option<Timestamp> {
        let kinds = EndpointKind::ALL.into_iter().filter(|kind| *kind != EndpointKind::Discovery);
        kinds.filter_map(|kind| Some(self.endpoint(kind).outage()?.since)).min()
    }

    /// Whether `/userinfo` may have the email of a verified token with these claims; [`Reach::None`] if it
    /// may not be asked for that at all.
    #[must_use]
    pub fn reach(&self, claims: &Object) -> Reach {
        if !self.settings.userinfo {
            return Reach::None;
        }
        match self.discovery.load().as_ref().and_then(|found| found.userinfo.as_ref()) {
            Some(endpoint) => Reach::of(claims, endpoint.as_str()),
            // Not known yet: Auth0's.
            None => Reach::of(claims, &format!("{}userinfo", self.settings.base)),
        }
    }

    /// Asks `/userinfo`. The caller shares one call among equal queries, because it knows which ones are
    /// equal.
    ///
    /// # Errors
    /// [`CannotTell`], with nothing learnt about the token.
    pub async fn ask(self: &Arc<Self>, query: UserinfoQuery) -> Result<UserinfoAnswer, CannotTell> {
        if self.discovery.load().is_none() {
            self.refresh(query.priority).await?;
        }
        let discovery = self.discovery.load_full();
        let url = discovery
            .as_ref()
            .and_then(|discovery| discovery.userinfo.as_ref())
            .ok_or(CannotTell::Garbage("the issuer's discovery document names no userinfo_endpoint"))?;
        let subject = query.subject.as_deref();
        let call = userinfo::call(url, &query.token)?;
        self.endpoint(EndpointKind::Userinfo)
            .call(call, query.priority, query.about, |answer| UserinfoAnswer::read(answer, subject))
            .await
    }
}

/// A query to `/userinfo`.
#[derive(Clone)]
pub struct UserinfoQuery {
    /// The token, which is the credential for the query.
    pub token: String,
    /// The subject that the token names, if that was verified; the answer must be about it.
    pub subject: Option<String>,
    /// The subject of the issuer's per-user limit.
    pub about: Option<SubjectKey>,
    /// Whether a request waits for the answer.
    pub priority: Priority,
}

fn read_secret(file: &std::path::Path) -> Result<Vec<u8>, String> {
    let secret = private_file::read_line(file, MAX_SECRET_BYTES).map_err(|error| error.to_string())?;
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("it has {} bytes; at least {MIN_SECRET_BYTES} are needed", secret.len()));
    }
    Ok(secret)
}
