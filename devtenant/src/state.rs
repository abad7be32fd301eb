//! The shared state of all handles, tokens and connections of one tenant.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::error::TenantError;
use crate::faults::{Endpoint, Fault, Faults};
use crate::jwe::JweKeys;
use crate::keys::{self, KeyRing};
use crate::limits::Limits;
use crate::lock;
use crate::tenant::Options;

/// A user of the tenant, as `/userinfo` describes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// The subject, such as `auth0|alice`.
    pub sub: String,
    /// The address; without one, `/userinfo` gives none.
    pub email: Option<String>,
    /// Whether the address was confirmed.
    pub email_verified: Option<bool>,
    /// The name for people.
    pub name: Option<String>,
    /// Further claims in the answer of `/userinfo`, such as those an Action sets.
    pub claims: Map<String, Value>,
}

impl User {
    /// A user without an address or a name.
    #[must_use]
    pub fn new(sub: impl Into<String>) -> Self {
        Self { sub: sub.into(), ..Self::default() }
    }

    /// With this address, confirmed.
    #[must_use]
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self.email_verified = Some(true);
        self
    }

    /// Whether the address was confirmed.
    #[must_use]
    pub fn email_verified(mut self, verified: bool) -> Self {
        self.email_verified = Some(verified);
        self
    }

    /// With this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With one more claim in the answer of `/userinfo`.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// `auth0|alice` and `auth0|bob` with addresses, and `auth0|noemail` without.
    #[must_use]
    pub fn demo() -> Vec<Self> {
        vec![
            Self::new("auth0|alice").email("alice@example.com").name("Alice"),
            Self::new("auth0|bob").email("bob@example.com").name("Bob"),
            Self::new("auth0|noemail").name("No Email"),
        ]
    }

    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut answer = Map::new();
        answer.insert("sub".to_owned(), json!(self.sub));
        let optional = [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("email", self.email.as_ref().map(|email| json!(email))),
            ("email_verified", self.email_verified.map(Value::Bool)),
        ];
        answer.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        answer.extend(self.claims.clone());
        answer
    }
}

/// How often the tenant was asked, since its start or the last [`reset_calls`](crate::Tenant::reset_calls). A
/// call counts when it arrives, whatever becomes of it; `/dev/…` does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls of `/.well-known/openid-configuration`.
    pub discovery: u64,
    /// Calls of `/.well-known/jwks.json`.
    pub jwks: u64,
    /// Calls of `/userinfo`.
    pub userinfo: u64,
    /// All calls, those of unknown paths among them.
    pub total: u64,
    /// Answers of `/userinfo` by status; a call that hangs or is cut off has none.
    pub userinfo_by_status: BTreeMap<u16, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct CallLog {
    pub(crate) calls: Calls,
    pub(crate) userinfo_times: Vec<Instant>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// What [`State::instant`] counts from.
    beginning: Instant,
    address: SocketAddr,
    issuer: String,
    audience: String,
    pub(crate) jwe: JweKeys,
    pub(crate) keys: Mutex<KeyRing>,
    pub(crate) users: Mutex<BTreeMap<String, User>>,
    /// Claims by opaque token.
    pub(crate) opaque: Mutex<HashMap<String, Map<String, Value>>>,
    pub(crate) revoked: Mutex<HashSet<String>>,
    pub(crate) hs_secrets: Mutex<Vec<Vec<u8>>>,
    /// A time since the Unix epoch that stands still, or the system's clock.
    pub(crate) time: Mutex<Option<Duration>>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) limits: Mutex<Limits>,
    pub(crate) log: Mutex<CallLog>,
}

impl State {
    pub(crate) fn new(address: SocketAddr, options: Options) -> Result<Self, TenantError> {
        let beginning = Instant::now();
        Ok(Self {
            beginning,
            address,
            issuer: format!("http://{address}/"),
            audience: options.audience,
            jwe: JweKeys::new()?,
            keys: Mutex::new(KeyRing::new()?),
            users: Mutex::new(options.users.into_iter().map(|user| (user.sub.clone(), user)).collect()),
            opaque: Mutex::default(),
            revoked: Mutex::default(),
            hs_secrets: Mutex::default(),
            time: Mutex::default(),
            faults: Mutex::default(),
            limits: Mutex::new(Limits::new(options.userinfo_limit, options.per_user_limit, beginning)),
            log: Mutex::default(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn audience(&self) -> &str {
        &self.audience
    }

    /// Unix seconds: the time set by a test, or the system's.
    pub(crate) fn now(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// The same clock for limits, with fractions of a second.
    pub(crate) fn instant(&self) -> Instant {
        self.beginning + self.since_epoch()
    }

    fn since_epoch(&self) -> Duration {
        let system = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        lock(&self.time).unwrap_or_else(system)
    }

    pub(crate) fn remember_hs_secret(&self, secret: &[u8]) {
        let mut secrets = lock(&self.hs_secrets);
        if !secrets.iter().any(|known| known == secret) {
            secrets.push(secret.to_vec());
        }
    }

    /// Sets a fault from now on.
    pub(crate) fn set_fault(&self, endpoint: Endpoint, fault: &Fault) {
        if *fault == Fault::WrongKey {
            // If this fails, the JWKS answers 500, which is a fault as well.
            let _ = keys::prepare_wrong_key();
        }
        lock(&self.faults).set(endpoint, fault);
    }

    /// Counts a call that has just arrived.
    pub(crate) fn count(&self, endpoint: Option<Endpoint>) {
        let mut log = lock(&self.log);
        log.calls.total += 1;
        match endpoint {
            Some(Endpoint::Discovery) => log.calls.discovery += 1,
            Some(Endpoint::Jwks) => log.calls.jwks += 1,
            Some(Endpoint::Userinfo) => {
                log.calls.userinfo += 1;
                log.userinfo_times.push(Instant::now());
            }
            Some(Endpoint::All) | None => {}
        }
    }

    /// Counts an answer of `/userinfo`.
    pub(crate) fn count_userinfo_status(&self, status: u16) {
        *lock(&self.log).calls.userinfo_by_status.entry(status).or_default() += 1;
    }
}
