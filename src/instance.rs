//! An instance is one configuration with all that is needed to answer requests. Only its caches change.
//!
//! A reload builds a second instance and swaps it with the first. Running requests finish with the instance
//! that they began with.

mod kept_keys;

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus::IntCounter;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::kept_keys::{keep_keys, start};
use crate::admin_token::{AdminToken, AdminTokenError};
use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::{Fingerprint, Settings};
use crate::decision::Anonymous;
use crate::fleet::Fleet;
use crate::guard::SingleflightSettings;
use crate::identity::Identities;
use crate::issuer::client::{Client, ClientError};
use crate::issuer::settings::ForeignTokens;
use crate::issuer::{Issuer, IssuerContext, IssuerError};
use crate::login::{Login, LoginError};
use crate::logout::BackchannelLogout;
use crate::resource::ProtectedResource;
use crate::respond::Responder;
use crate::revocation::RevocationCheck;
use crate::sender::{Proofs, SenderCheck};
use crate::store::archive::Archive;
use crate::store::open::ArchiveError;
use crate::store::revocations::{RevocationTask, Revocations};
use crate::store::stores::Stores;
use crate::store::subscriber::Subscriber;
use crate::telemetry::logs::RateLimitedLog;
use crate::telemetry::metrics::Metrics;
use crate::tiers::digest::TokenDigester;
use crate::tiers::policy::{CeilingOutsideTable, Limits, Policy};
use crate::tiers::secret::DerivationFailed;
use crate::tiers::table::{TierIndex, TierTable};
use crate::tls::{ServerTls, TlsError, TlsSettings};
use crate::token::jwe::KeyFileError;
use crate::token::pool::Pool;
use crate::verifier::{Issuers, Verifier};

/// A running configuration.
pub struct Instance {
    /// The settings.
    pub settings: Settings,
    /// Tells these settings from another instance's.
    pub fingerprint: Fingerprint,
    /// The hash of all settings.
    pub hash: String,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Makes token digests.
    pub digester: Arc<TokenDigester>,
    /// The stores.
    pub stores: Arc<Stores>,
    /// The revocations.
    pub revocations: Arc<Revocations>,
    /// Cached answers.
    pub answers: Arc<Answers>,
    /// The issuers.
    pub issuers: Issuers,
    /// Verifies tokens: token → claims.
    pub verifier: Verifier,
    /// Checks that requests come from the senders of their tokens.
    pub senders: SenderCheck,
    /// Resolves identities: claims → identity.
    pub identities: Arc<Identities>,
    /// Builds answers: decision → answer.
    pub responder: Responder,
    /// Where browsers without a valid credential are redirected.
    pub login: Option<Login>,
    /// The server certificate and the check of client certificates, for auth listeners with TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// The same for an admin listener with TLS.
    pub admin_tls: Option<Arc<ServerTls>>,
    /// Receives logouts from issuers, if configured.
    pub logout: Option<BackchannelLogout>,
    /// Limits log lines about refused logout requests. Anybody can send them.
    pub refused_logouts: RateLimitedLog,
    /// The token that operator requests must carry.
    pub admin_token: Option<AdminToken>,
    /// The answer "allow" for requests without an identity.
    pub anonymous: Anonymous,
    /// The counters of memory hits, one for each tier.
    pub tier_hits: TierHits,
    /// Limits log lines about wrong requirements from a proxy. Any request may cause one.
    pub wrong_requirements: RateLimitedLog,
    /// Limits log lines about encrypted tokens that nobody could verify. Anybody can send one.
    pub unopened_tokens: RateLimitedLog,
    /// Limits log lines about subrequests that do not describe the original request. Clients can cause them.
    pub undescribed_requests: RateLimitedLog,
    /// Limits log lines about identities whose headers are too large for an answer.
    pub large_answers: RateLimitedLog,
    /// Limits log lines about repeated or incomplete credentials. Anybody can send them.
    pub unclear_credentials: RateLimitedLog,
    /// Limits log lines about users without access. Each of their requests may cause one.
    pub forbidden: RateLimitedLog,
    /// Issuers that a reload removed from the configuration.
    former_issuers: BTreeSet<Arc<str>>,
    pool: Pool,
    client: Client,
    archive: Option<Arc<Archive>>,
    subscriber: Option<Arc<Subscriber>>,
    fleet: Option<Arc<Fleet>>,
    revocation_task: Arc<RevocationTask>,
    tasks: Vec<JoinHandle<()>>,
}

/// Counters of memory hits, looked up once.
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
    /// The files of `[auth.tls]` or `[admin.tls]`.
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
    /// The stores.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// Metrics.
    #[error("cannot declare the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Instance {
    /// Builds an instance. It takes over from `previous` what the configuration does not change: metrics,
    /// records, public keys, and the state of the guards about the health of the issuers.
    ///
    /// # Errors
    /// [`BuildError`]. `previous` is not affected.
    pub fn build(settings: Settings, clock: Clock, previous: Option<&Self>) -> Result<Arc<Self>, BuildError> {
        let metrics = match previous {
            Some(previous) => previous.metrics.clone(),
            None => Arc::new(Metrics::new()?),
        };
        let policy = policy(&settings)?;
        let login = settings.login.as_ref().map(Login::load).transpose()?;
        let admin_token = settings.admin.token_file.as_deref().map(AdminToken::load).transpose()?;
        let load = |tls: &Option<TlsSettings>, before: Option<&Option<Arc<ServerTls>>>| match tls {
            Some(tls) => ServerTls::load(tls).map(Arc::new).map(Some),
            // Listeners do not change until the next start, so they still need the TLS that they began with.
            None => Ok(before.cloned().flatten()),
        };
        let tls = load(&settings.auth.tls, previous.map(|previous| &previous.tls))?;
        let admin_tls = load(&settings.admin.tls, previous.map(|previous| &previous.admin_tls))?;
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
                let (archive, digester) = Archive::open_all(&settings.store, &clock, &metrics)?;
                let stores = Stores::new(memory, archive.clone(), policy.clone(), metrics.clone());
                let pool = Pool::start_default("first-sight").map_err(BuildError::Threads)?;
                (pool, Client::new()?, Arc::new(digester), archive, stores)
            }
        };
        let stores = Arc::new(stores);
        let (revocations, revocation_task) = match previous {
            Some(previous) => (previous.revocations.clone(), previous.revocation_task.clone()),
            None => {
                let revocations =
                    Revocations::open(archive.clone(), &digester, clock.clone(), metrics.clone());
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
            leeway: settings.policy.leeway,
        };
        let issuers = settings
            .issuers
            .iter()
            .map(|issuer| {
                let before = previous.and_then(|previous| previous.issuers.of_url(&issuer.url));
                let on_fetch = keep_keys(archive.clone(), clock.clone(), policy.clone(), metrics.clone());
                Issuer::new(issuer.clone(), &surroundings, before.map(Arc::as_ref), on_fetch)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let issuers = Issuers::new(issuers);
        let fetching = issuers.iter().filter(|issuer| issuer.settings().secret_file.is_none());
        fetching.for_each(|issuer| metrics.condition.has_keys_of(issuer.name()));
        let former = previous.map_or_else(BTreeSet::new, |previous| {
            let before = previous.issuers.iter().map(|issuer| issuer.name().clone());
            let names = previous.former_issuers.iter().cloned().chain(before);
            names.filter(|name| issuers.of_url(name).is_none()).collect()
        });
        let verifier = Verifier::new(issuers.clone(), settings.policy.clone(), pool.clone(), clock.clone())?;
        let proofs = match previous {
            Some(previous) => previous.senders.proofs(),
            None => Proofs::start().map_err(BuildError::Threads)?,
        };
        let senders = SenderCheck::new(
            (settings.dpop.clone(), settings.policy.leeway),
            proofs,
            clock.clone(),
            stores.clone(),
        );
        let identities = Identities::new(
            stores.clone(),
            digester.clone(),
            policy,
            RevocationCheck::new(
                revocations.set(),
                revocations.former().map(|former| former.set()),
                settings.revocation.clone(),
                digester.clone(),
            ),
            settings.policy.clone(),
            &SingleflightSettings::with_wait(settings.guard.budget.wait),
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
                    metrics.clone(),
                ))
            })
            .collect();
        let fleet = match previous {
            Some(previous) => previous.fleet.clone(),
            None => archive
                .as_ref()
                .and_then(|archive| Fleet::start(archive, clock.clone(), metrics.clone()))
                .map(Arc::new),
        };
        fleet.iter().for_each(|fleet| fleet.serve(&issuers));
        let forgets = || archive.as_ref().and_then(|archive| archive.forgets());
        let former_forgets = archive.as_ref().and_then(|archive| archive.former_forgets());
        let subscriber = match previous {
            Some(previous) => previous.subscriber.clone(),
            None => forgets().map(|forgets| Arc::new(Subscriber::start(forgets, former_forgets))),
        };
        if let Some(subscriber) = &subscriber {
            subscriber.serve(&stores);
        }
        let resource = settings.resource.as_ref();
        let resource = resource
            .and_then(|resource| ProtectedResource::new(resource, &settings.issuers, &settings.routes));
        let instance = Self {
            verifier,
            senders,
            responder: Responder::new(settings.auth.undecided_status, settings.headers.clone(), resource),
            login,
            logout: settings.backchannel_logout.clone().map(BackchannelLogout::new),
            refused_logouts: RateLimitedLog::default(),
            admin_token,
            tls,
            admin_tls,
            anonymous: Anonymous::new(&settings.headers, &settings.routes.anonymous),
            wrong_requirements: RateLimitedLog::default(),
            unopened_tokens: RateLimitedLog::default(),
            undescribed_requests: RateLimitedLog::default(),
            large_answers: RateLimitedLog::default(),
            unclear_credentials: RateLimitedLog::default(),
            forbidden: RateLimitedLog::default(),
            tier_hits: TierHits::new(identities.policy().table(), &metrics),
            fingerprint: settings.fingerprint(),
            hash: settings.hash(),
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
            fleet,
            tasks,
        };
        instance.metrics.condition.configured(&instance.hash, instance.clock.now());
        instance.log_configuration();
        Ok(Arc::new(instance))
    }

    /// The thread pool that checks new tokens.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Removes the metrics of issuers that a reload removed from the configuration. This runs whenever
    /// metrics are read, because a call or a reader that began before the reload may write them again after
    /// it.
    pub fn forget_former_issuers(&self) {
        self.former_issuers.iter().for_each(|name| self.metrics.forget_issuer(name));
    }

    /// Writes pending records to the shared store. Call it at the end of the process.
    pub async fn flush(&self) {
        for shared in [self.stores.shared(), self.stores.former_shared()].into_iter().flatten() {
            shared.flush().await;
        }
    }

    /// Logs one line for each issuer about how its tokens are treated, and one line if some requests pass
    /// without a token. Warns about rules by host, and about several issuers that may name any email.
    fn log_configuration(&self) {
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
                "some rules make requests public by host, which is safe only if the proxy itself matches the \
                 host: a proxy that serves every host passes on whatever the client writes in its Host header"
            );
        }
        info!("budget of calls to each issuer: {}", self.settings.guard.budget);
        let unbound = self.issuers.iter().filter(|issuer| issuer.settings().email_domains.is_empty()).count();
        if self.issuers.iter().count() > 1 && unbound > 1 {
            warn!(
                issuers = unbound,
                "several issuers may name any email, so each of them can pass off one of its users as \
                 anybody; set email_domains to the addresses that an issuer may name"
            );
        }
        for issuer in self.issuers.iter() {
            let settings = issuer.settings();
            let foreign = match settings.foreign_tokens {
                ForeignTokens::AskIssuer if settings.introspection.is_some() => {
                    "asked about by introspection (RFC 7662)"
                }
                ForeignTokens::AskIssuer => {
                    "asked about at /userinfo; their audience cannot be checked, so any application of the \
                     tenant can obtain one (routes can require audience=checked)"
                }
                ForeignTokens::Refuse => "refused",
            };
            let decryption_keys = issuer.decryption_keys().describe().count();
            info!(
                issuer = &*settings.url,
                aliases = settings.aliases.join(", "),
                audience = settings.audience.join(", "),
                decryption_keys,
                "issuer configured; foreign tokens are {foreign}"
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

/// The policy of these settings: which answers records of which age may give.
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
