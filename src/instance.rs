//! One configuration, put together: everything that answering needs, immutable but for its caches.
//!
//! A reload builds a second instance beside the first and swaps them; requests under way finish with the one
//! they began with.

mod kept_keys;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use prometheus::IntCounter;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::kept_keys::{keep_keys, start};
use crate::admin_token::{AdminToken, AdminTokenError};
use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::Settings;
use crate::decision::Anonymous;
use crate::identity::Identities;
use crate::issuer::client::{Client, ClientError};
use crate::issuer::settings::ForeignTokens;
use crate::issuer::{Issuer, IssuerContext, IssuerError};
use crate::login::{Login, LoginError};
use crate::logout::BackchannelLogout;
use crate::respond::Responder;
use crate::revocation::RevocationCheck;
use crate::store::archive::Archive;
use crate::store::open::ArchiveError;
use crate::store::revocations::{RevocationTask, Revocations};
use crate::store::settings::StoreSettings;
use crate::store::stores::Stores;
use crate::store::subscriber::Subscriber;
use crate::telemetry::logs::RateLimitedLog;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::TokenDigester;
use crate::tiers::policy::{CeilingOutsideTable, Limits, Policy};
use crate::tiers::secret::{DerivationFailed, InstanceSecret};
use crate::tiers::table::{TierIndex, TierTable};
use crate::tls::{ServerTls, TlsError};
use crate::token::jwe::KeyFileError;
use crate::token::pool::Pool;
use crate::verifier::{Issuers, Verifier};

/// A running configuration.
pub struct Instance {
    /// What was configured.
    pub settings: Settings,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Makes token digests.
    pub digester: Arc<TokenDigester>,
    /// The stores.
    pub stores: Arc<Stores>,
    /// What is revoked.
    pub revocations: Arc<Revocations>,
    /// Answers that lie ready.
    pub answers: Arc<Answers>,
    /// The issuers.
    pub issuers: Issuers,
    /// Token → claims.
    pub verifier: Verifier,
    /// Claims → identity.
    pub identities: Arc<Identities>,
    /// Decision → answer.
    pub responder: Responder,
    /// Where browsers without a good credential are sent.
    pub login: Option<Login>,
    /// What listeners that speak TLS show and ask for.
    pub tls: Option<Arc<ServerTls>>,
    /// Logouts that issuers send, if they may.
    pub logout: Option<BackchannelLogout>,
    /// Log lines about logout requests that are refused: anybody can send them.
    pub refused_logouts: RateLimitedLog,
    /// What orders on the admin listener must bring.
    pub admin_token: Option<AdminToken>,
    /// The allow that is nobody's.
    pub anonymous: Anonymous,
    /// The counters of hits in memory, one a tier.
    pub tier_hits: TierHits,
    /// Log lines about requirements that a proxy gets wrong: any request may cause one.
    pub wrong_requirements: RateLimitedLog,
    /// Log lines about encrypted tokens that nobody could judge: anybody can send one.
    pub unopened_tokens: RateLimitedLog,
    /// Log lines about original requests that are not told. Apart from the others, since clients can cause
    /// these.
    pub untold_requests: RateLimitedLog,
    /// Log lines about identities whose headers are too large for an answer.
    pub large_answers: RateLimitedLog,
    /// Log lines about credentials that came more than once or not whole: anybody can send them.
    pub unclear_credentials: RateLimitedLog,
    /// Log lines about users who may not pass: each of their requests may cause one.
    pub forbidden: RateLimitedLog,
    /// Those that a reload took out of the configuration.
    former_issuers: BTreeSet<Arc<str>>,
    pool: Pool,
    client: Client,
    archive: Option<Arc<Archive>>,
    subscriber: Option<Arc<Subscriber>>,
    revocation_task: Arc<RevocationTask>,
    tasks: Vec<JoinHandle<()>>,
}

/// Counters of hits in memory, looked up once.
pub struct TierHits {
    memory: Vec<IntCounter>,
    beyond: IntCounter,
}

impl TierHits {
    fn new(table: &TierTable, metrics: &Metrics) -> Self {
        table.iter().for_each(|(_, row)| metrics.has_tier(&row.name));
        let memory = table.iter().map(|(_, row)| metrics.tier_hit_counter(&row.name, "memory")).collect();
        Self { memory, beyond: metrics.tier_hit_counter("unknown", "memory") }
    }

    /// The counter of a tier.
    #[must_use]
    pub fn memory(&self, tier: TierIndex) -> &IntCounter {
        self.memory.get(tier.as_usize()).unwrap_or(&self.beyond)
    }
}

/// Why an instance cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// An issuer's files.
    #[error("{0}")]
    Issuer(#[from] IssuerError),
    /// The decryption keys of all issuers together.
    #[error("{0}")]
    DecryptionKeys(#[from] KeyFileError),
    /// The secret of `[login]`.
    #[error("{0}")]
    Login(#[from] LoginError),
    /// The file of `admin.token_file`.
    #[error("{0}")]
    AdminToken(#[from] AdminTokenError),
    /// The files of `[auth.tls]`.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The HTTP client.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The tiers.
    #[error("policy.{0}")]
    Ceiling(#[from] CeilingOutsideTable),
    /// The keys of stores.
    #[error("{0}")]
    Keys(#[from] DerivationFailed),
    /// Threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// The data directory.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// Random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Metrics.
    #[error("cannot declare the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Instance {
    /// Builds an instance; from `previous` it takes over what the configuration does not change: metrics,
    /// records, public keys, and the guards' memory of the issuers' health.
    ///
    /// # Errors
    /// [`BuildError`]; `previous` goes on unharmed.
    pub fn build(settings: Settings, clock: Clock, previous: Option<&Self>) -> Result<Arc<Self>, BuildError> {
        let metrics = match previous {
            Some(previous) => previous.metrics.clone(),
            None => Arc::new(Metrics::new()?),
        };
        let policy = policy(&settings)?;
        let login = settings.login.as_ref().map(Login::load).transpose()?;
        let admin_token = settings.admin.token_file.as_deref().map(AdminToken::load).transpose()?;
        let tls = match &settings.auth.tls {
            Some(tls) => Some(Arc::new(ServerTls::load(tls)?)),
            // Listeners stay until the next start, whatever the new configuration says.
            None => previous.and_then(|previous| previous.tls.clone()),
        };
        let memory = settings.store.memory;
        let (pool, client, digester, archive, stores) = match previous {
            Some(previous) => (
                previous.pool.clone(),
                previous.client.clone(),
                previous.digester.clone(),
                previous.archive.clone(),
                previous.stores.without_answers(memory, policy.clone()),
            ),
            None => {
                let (archive, digester) = open_archive(&settings.store, &clock, &metrics)?;
                let stores = Stores::new(memory, archive.clone(), policy.clone(), metrics.clone());
                let pool = Pool::start_default().map_err(BuildError::Threads)?;
                (pool, Client::new()?, Arc::new(digester), archive, stores)
            }
        };
        let stores = Arc::new(stores);
        let (revocations, revocation_task) = match previous {
            Some(previous) => (previous.revocations.clone(), previous.revocation_task.clone()),
            None => {
                let revocations = Revocations::open(archive.clone(), clock.clone(), metrics.clone());
                let task = Arc::new(revocations.follow());
                (revocations, task)
            }
        };
        let answers = Answers::new(memory, stores.clone(), revocations.set());
        let surroundings = IssuerContext {
            client: client.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            guard: settings.guard.clone(),
        };
        let issuers = settings
            .issuers
            .iter()
            .map(|issuer| {
                let before = previous.and_then(|previous| previous.issuers.named(Some(&issuer.url)).ok());
                let on_fetch = keep_keys(archive.clone(), clock.clone(), policy.clone());
                Issuer::new(issuer.clone(), &surroundings, before.map(Arc::as_ref), on_fetch)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let issuers = Issuers::new(issuers);
        let former = previous.map_or_else(BTreeSet::new, |previous| {
            let before = previous.issuers.iter().map(|issuer| issuer.name().clone());
            let names = previous.former_issuers.iter().cloned().chain(before);
            names.filter(|name| issuers.named(Some(name)).is_err()).collect()
        });
        let verifier = Verifier::new(issuers.clone(), settings.policy.clone(), pool.clone(), clock.clone())?;
        let identities = Identities::new(
            stores.clone(),
            digester.clone(),
            policy,
            RevocationCheck::new(revocations.set(), settings.revocation.clone(), digester.clone()),
            settings.policy.clone(),
            (clock.clone(), metrics.clone()),
        );
        let tasks = issuers
            .iter()
            .map(|issuer| {
                tokio::spawn(start(
                    issuer.clone(),
                    archive.clone(),
                    clock.clone(),
                    identities.policy().clone(),
                ))
            })
            .collect();
        let forgets = || archive.as_ref().and_then(|archive| archive.forgets());
        let subscriber = match previous {
            Some(previous) => previous.subscriber.clone(),
            None => forgets().map(|forgets| Arc::new(Subscriber::start(forgets))),
        };
        if let Some(subscriber) = &subscriber {
            subscriber.serve(&stores);
        }
        let instance = Self {
            verifier,
            responder: Responder::new(settings.auth.undecided_status, settings.headers.clone()),
            login,
            logout: settings.backchannel_logout.clone().map(BackchannelLogout::new),
            refused_logouts: RateLimitedLog::default(),
            admin_token,
            tls,
            anonymous: Anonymous::new(&settings.headers, &settings.routes.anonymous),
            wrong_requirements: RateLimitedLog::default(),
            unopened_tokens: RateLimitedLog::default(),
            untold_requests: RateLimitedLog::default(),
            large_answers: RateLimitedLog::default(),
            unclear_credentials: RateLimitedLog::default(),
            forbidden: RateLimitedLog::default(),
            tier_hits: TierHits::new(identities.policy().table(), &metrics),
            settings,
            clock,
            metrics,
            digester,
            stores,
            revocations,
            revocation_task,
            answers,
            issuers,
            former_issuers: former,
            identities,
            pool,
            client,
            archive,
            subscriber,
            tasks,
        };
        instance.introduce();
        Ok(Arc::new(instance))
    }

    /// Where tokens are checked that were never seen.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Tells no more of issuers that a reload took out of the configuration. Done whenever metrics are read,
    /// since a call or a reader that began before the reload may tell of one after it.
    pub fn forget_former_issuers(&self) {
        self.former_issuers.iter().for_each(|name| self.metrics.forget_issuer(name));
    }

    /// Writes what waits to be shared; for the end of the process.
    pub async fn flush(&self) {
        if let Some(shared) = self.stores.shared() {
            shared.flush().await;
        }
    }

    /// One line for each issuer that says what its tokens are worth, and one if there is a way past them.
    fn introduce(&self) {
        let routes = &self.settings.routes;
        let public_rules = routes.rules.public().count();
        if public_rules > 0 || routes.preflight {
            info!(
                public_rules,
                preflights = routes.preflight,
                "some requests pass without a token, as configured"
            );
        }
        let by_host = routes.rules.public().filter(|rule| !rule.hosts.is_empty()).count();
        if by_host > 0 {
            warn!(
                rules = by_host,
                "rules make something public by its host: that is only as good as the proxy's own match of the host. A proxy \
                 that serves every host alike tells what the client writes in its Host header"
            );
        }
        info!("budget of calls to each issuer: {}", self.settings.guard.budget);
        let unbound = self.issuers.iter().filter(|issuer| issuer.settings().email_domains.is_empty()).count();
        if self.issuers.iter().count() > 1 && unbound > 1 {
            warn!(
                issuers = unbound,
                "several issuers may name any email, so any of them can make one of its users anybody by email; email_domains \
                 says which addresses an issuer may name"
            );
        }
        for issuer in self.issuers.iter() {
            let settings = issuer.settings();
            let foreign = match settings.foreign_tokens {
                ForeignTokens::AskIssuer => {
                    "asked about at /userinfo; their audience cannot be checked, so any application of the tenant \
                     can obtain one (routes can require audience=checked)"
                }
                ForeignTokens::Refuse => "refused",
            };
            let decryption_keys = issuer.decryption_keys().describe().count();
            info!(
                issuer = &*settings.url,
                audience = settings.audience.join(", "),
                decryption_keys,
                "issuer configured; tokens that only it can judge are {foreign}"
            );
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Opens what is configured beyond memory, under the instance secret.
fn open_archive(
    store: &StoreSettings,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<(Option<Arc<Archive>>, TokenDigester), BuildError> {
    let secret_file = store.secret_file.as_deref();
    let (archive, digester) = match (store.shared(), store.disk()) {
        (Some((shared, secret_file)), disk) => {
            Archive::open_shared(shared, disk, secret_file, clock.clone(), metrics.clone())?
        }
        (None, Some(disk)) => Archive::open(disk, secret_file, clock.clone(), metrics.clone())?,
        (None, None) => return Ok((None, TokenDigester::new(&secret(secret_file)?)?)),
    };
    Ok((Some(Arc::new(archive)), digester))
}

/// What may be answered from records of which age, by these settings.
///
/// # Errors
/// When `policy.verdict_ceiling` names no tier.
pub fn policy(settings: &Settings) -> Result<Policy, CeilingOutsideTable> {
    let table = settings.tiers.clone();
    let verdict_ceiling = table.find(&settings.policy.verdict_ceiling).ok_or(CeilingOutsideTable)?;
    let limits = Limits {
        verdict_ceiling,
        leeway: settings.policy.leeway,
        expired_grace: settings.policy.expired_grace,
    };
    Policy::new(table, limits)
}

/// The secret of an instance that keeps everything in memory: it may as well be a new one each time.
fn secret(given: Option<&Path>) -> Result<InstanceSecret, BuildError> {
    if let Some(file) = given {
        return Ok(InstanceSecret::load(file).map_err(ArchiveError::from)?);
    }
    let mut bytes = [0; crate::tiers::secret::SECRET_LENGTH];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| BuildError::Random)?;
    Ok(InstanceSecret::from_bytes(&bytes))
}
