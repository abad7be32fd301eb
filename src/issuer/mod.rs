//! What an issuer is asked for: its keys, and its answer about a token.
//!
//! | file | what |
//! |---|---|
//! | `client` | one HTTP client with all its bounds |
//! | `endpoint` | a call through its guard; the only way to make a call |
//! | `fresh` | calls without a request |
//! | `outage` | what a breaker went through |
//! | `discovery`, `jwks`, `userinfo` | reading the three documents |

pub mod cause;
pub mod client;
pub mod discovery;
pub mod endpoint;
mod error;
mod fresh;
pub mod jwks;
pub mod outage;
pub mod rejection;
pub mod settings;
pub mod userinfo;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tracing::{debug, info, warn};

use self::client::Client;
use self::discovery::Discovery;
pub use self::endpoint::CannotTell;
use self::endpoint::Endpoint;
pub use self::error::IssuerError;
use self::jwks::{KeySet, Lookup, Skipped};
use self::settings::IssuerSettings;
use self::userinfo::{Reach, UserinfoAnswer};
use crate::clock::{Clock, Ticks, Timestamp};
use crate::guard::{GuardSettings, Priority, Role, Singleflight, SingleflightSettings, SubjectKey};
use crate::private_file;
use crate::telemetry::metrics::Metrics;
use crate::token::algorithm::SignatureAlgorithm;
use crate::token::json::Object;
use crate::token::jwe::DecryptionKeys;
use crate::token::jws::VerificationKey;

/// How often an unknown `kid` may cause a fetch of the keys, however many tokens ask.
const UNKNOWN_KID_PAUSE: Duration = Duration::from_secs(60);

/// The shortest shared secret, in bytes: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// How many endpoints an issuer has.
pub const ENDPOINTS: usize = 3;

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
    discovery_endpoint: Endpoint,
    jwks_endpoint: Endpoint,
    userinfo_endpoint: Endpoint,
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

/// The keys that may have signed a token.
pub enum KeyLookup {
    /// At least one, at most four.
    Found(Vec<Arc<VerificationKey>>),
    /// The issuer has no such key.
    Unknown,
    /// The issuer has a key of this `kid` for another algorithm or use.
    Unfit,
}

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
        let endpoint = |label, of: fn(&Self) -> &Endpoint| match previous {
            Some(previous) => of(previous).clone(),
            None => Endpoint::new(
                name.clone(),
                label,
                with.client.clone(),
                with.guard.clone(),
                with.clock.clone(),
                with.metrics.clone(),
            ),
        };
        Ok(Arc::new(Self {
            discovery_endpoint: endpoint("discovery", |issuer| &issuer.discovery_endpoint),
            jwks_endpoint: endpoint("jwks", |issuer| &issuer.jwks_endpoint),
            userinfo_endpoint: endpoint("userinfo", |issuer| &issuer.userinfo_endpoint),
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

    /// Its URL, as in `iss`.
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

    /// Whether tokens can be verified now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.load().is_some()
    }

    /// The known `kid`s, for `/status`.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        self.keys.load().as_ref().map_or_else(Vec::new, |keys| keys.ids().map(str::to_owned).collect())
    }

    /// The `kid`s of keys that are held for a while, although the newest answer of the issuer lacks them.
    #[must_use]
    pub fn held_key_ids(&self) -> Vec<String> {
        let now = self.clock.ticks();
        self.keys
            .load()
            .as_ref()
            .map_or_else(Vec::new, |keys| keys.held_ids(now).map(str::to_owned).collect())
    }

    /// The keys of the issuer that are skipped, with the reasons.
    #[must_use]
    pub fn skipped_keys(&self) -> Vec<Skipped> {
        self.keys.load().as_ref().map_or_else(Vec::new, |keys| keys.skipped().to_vec())
    }

    /// Its endpoints: `discovery`, `jwks`, `userinfo`.
    #[must_use]
    pub fn endpoints(&self) -> [&Endpoint; ENDPOINTS] {
        [&self.discovery_endpoint, &self.jwks_endpoint, &self.userinfo_endpoint]
    }

    /// Since when the breaker of `/userinfo` or of the keys is not closed; see [`Endpoint::outage`].
    #[must_use]
    pub fn open_since(&self) -> Option<Timestamp> {
        let endpoints = [&self.userinfo_endpoint, &self.jwks_endpoint];
        endpoints.into_iter().filter_map(|endpoint| Some(endpoint.outage()?.since)).min()
    }

    /// Takes stored keys of an earlier fetch, so that a restart during an outage still verifies. Keys that
    /// were fetched since then stay.
    ///
    /// # Errors
    /// What is wrong with the documents.
    pub fn restore(&self, kept: &FetchedKeys) -> Result<(), &'static str> {
        let keys = KeySet::read(&kept.jwks, self.settings.pss_with_rs_keys)?;
        let discovery = Discovery::read(&kept.discovery, &self.settings.url)?;
        if self.keys.load().is_none() {
            self.keys.store(Some(Arc::new(keys)));
        }
        if self.discovery.load().is_none() {
            self.discovery.store(Some(Arc::new(discovery)));
        }
        Ok(())
    }

    /// Finds the keys that may have signed a token. If no keys are known, they are fetched; for an unknown
    /// `kid`, at most once a minute.
    ///
    /// # Errors
    /// [`CannotTell`], if the keys had to be fetched and could not be.
    pub async fn keys_for(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<KeyLookup, CannotTell> {
        for attempt in 0..2 {
            let keys = self.known_keys().await?;
            match keys.find(kid, algorithm, self.clock.ticks()) {
                Lookup::Found(keys) => return Ok(KeyLookup::Found(keys)),
                Lookup::Unfit => return Ok(KeyLookup::Unfit),
                Lookup::Unknown if attempt == 0 && self.settings.secret_file.is_none() => {
                    self.look_again().await?;
                }
                Lookup::Unknown => break,
            }
        }
        Ok(KeyLookup::Unknown)
    }

    async fn known_keys(self: &Arc<Self>) -> Result<Arc<KeySet>, CannotTell> {
        if let Some(keys) = self.keys.load_full() {
            return Ok(keys);
        }
        self.refresh(Priority::Foreground).await?;
        self.keys.load_full().ok_or_else(|| CannotTell::NoKeys(self.settings.url.clone()))
    }

    /// Fetches the keys because of an unknown `kid`, at most once a minute. Callers during that fetch wait
    /// for it, and later callers in that minute get its result: while the issuer cannot be asked, an unknown
    /// key is no reason to refuse a token.
    ///
    /// If the fetch succeeded, an unknown key is a refusal for the rest of that minute, even for a key that
    /// the issuer made since then. If it were "cannot tell", one forged token a minute would turn the
    /// refusals for all old keys into 503s, and holders of such tokens would not be sent to log in again.
    /// Issuers publish keys before they sign with them, so a key is rarely that new.
    async fn look_again(self: &Arc<Self>) -> Result<(), CannotTell> {
        if let Some(result) = self.looked_just_now() {
            return result;
        }
        let this = self.clone();
        let look = self.looks.run((), move || async move {
            // For a caller that came here before the latest fetch was recorded, and started this one after
            // it.
            if let Some(result) = this.looked_just_now() {
                return result;
            }
            let began = this.clock.ticks();
            let result = this.refresh(Priority::Foreground).await;
            // Recorded inside the shared call, which goes on if the client that caused it goes away.
            *this.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some((began, result.clone()));
            result
        });
        let (result, role) = look.await?;
        self.count(role);
        result
    }

    fn looked_just_now(&self) -> Option<Result<(), CannotTell>> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, result) = looked.as_ref()?;
        (self.clock.ticks().since(*at) < UNKNOWN_KID_PAUSE).then(|| result.clone())
    }

    fn fetched_at(&self) -> Option<Ticks> {
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the discovery document and the keys. Concurrent callers share one fetch.
    ///
    /// # Errors
    /// [`CannotTell`]; the known keys stay.
    pub async fn refresh(self: &Arc<Self>, priority: Priority) -> Result<(), CannotTell> {
        let this = self.clone();
        let (result, role) =
            self.refreshes.run((), move || async move { this.fetch(priority).await }).await?;
        self.count(role);
        result
    }

    async fn fetch(&self, priority: Priority) -> Result<(), CannotTell> {
        let began = self.clock.ticks();
        let url = Discovery::url(&self.settings.base);
        let endpoint = &self.discovery_endpoint;
        let (found, document) = endpoint
            .call(&url, None, priority, None, |answer| {
                let body = answer.of_a_document()?;
                Ok((Arc::new(Discovery::read(body, &self.settings.url)?), body.to_vec()))
            })
            .await?;
        if self.settings.userinfo && found.userinfo.is_none() && self.discovery.load().is_none() {
            warn!(
                issuer = &*self.name,
                "it names no userinfo_endpoint, so nobody can tell the email of a token that has none, nor \
                 judge a token that only the issuer can; set userinfo = false and foreign_tokens = \
                 \"refuse\" to refuse them instead"
            );
        }
        self.discovery.store(Some(found.clone()));
        let fetched = || *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        if self.settings.secret_file.is_some() {
            fetched();
            return Ok(());
        }
        let (keys, jwks) = self
            .jwks_endpoint
            .call(&found.jwks, None, priority, None, |answer| {
                let body = answer.of_a_document()?;
                Ok((KeySet::read(body, self.settings.pss_with_rs_keys)?, body.to_vec()))
            })
            .await?;
        debug!(issuer = &*self.name, keys = keys.count(), "keys fetched");
        self.take_keys(keys);
        fetched();
        (self.on_fetch)(&self.name, FetchedKeys { jwks, discovery: document });
        Ok(())
    }

    /// Takes keys that were fetched just now. Skipped keys are logged once, not at each fetch.
    fn take_keys(&self, mut keys: KeySet) {
        let before = self.keys.load_full();
        if before.as_ref().map_or(&[][..], |before| before.skipped()) != keys.skipped() {
            for key in keys.skipped() {
                info!(issuer = &*self.name, "a key of the issuer is not used: {key}");
            }
        }
        if let Some(before) = before {
            keys = keys.after(&before, self.clock.ticks(), self.settings.jwks_refresh);
        }
        self.keys.store(Some(Arc::new(keys)));
    }

    /// Whether keys are held that the newest answer lacks.
    fn holds_keys(&self) -> bool {
        !self.held_key_ids().is_empty()
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
        self.userinfo_endpoint
            .call(url, Some(&query.token), query.priority, query.about, |answer| {
                UserinfoAnswer::read(answer, subject)
            })
            .await
    }

    fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
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
