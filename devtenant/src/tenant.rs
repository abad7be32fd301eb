//! The handle of a tenant, for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::error::TenantError;
use crate::faults::{Endpoint, Fault, Faults};
use crate::keys::KeyRing;
use crate::limits::RateLimit;
use crate::lock;
use crate::mint::TokenBuilder;
use crate::serve::{self, Server};
use crate::state::{CallLog, Calls, State, User};

/// How a tenant starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, loopback only; `127.0.0.1:0`, any free port, by default.
    pub listen: SocketAddr,
    /// The audience of its tokens; `https://api.example.com` by default.
    pub audience: String,
    /// The limit of all `/userinfo` calls together; none by default.
    pub userinfo_limit: Option<RateLimit>,
    /// The limit of `/userinfo` calls for one user; none by default.
    pub per_user_limit: Option<RateLimit>,
    /// Its users; [`User::demo`] by default.
    pub users: Vec<User>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            audience: "https://api.example.com".to_owned(),
            userinfo_limit: None,
            per_user_limit: None,
            users: User::demo(),
        }
    }
}

/// A running tenant. Handles are cheap to clone; the server stops when the last one is dropped, or at
/// [`stop`](Self::stop).
#[derive(Clone, Debug)]
pub struct Tenant {
    state: Arc<State>,
    server: Arc<Mutex<Option<Server>>>,
}

impl Tenant {
    /// Starts a tenant on the current tokio runtime.
    ///
    /// # Errors
    /// If the address is not loopback or taken, or a key cannot be made.
    pub async fn start(options: Options) -> Result<Self, TenantError> {
        let (listener, address) = serve::listen(options.listen).await?;
        // The first tenant of a process makes RSA keys, which takes tenths of a second.
        let state = tokio::task::spawn_blocking(move || State::new(address, options));
        let state = Arc::new(state.await.map_err(|_| TenantError::Task)??);
        let server = Arc::new(Mutex::new(Some(start_server(listener, &state))));
        Ok(Self { state, server })
    }

    /// The issuer's URL, with the slash at its end: `http://127.0.0.1:PORT/`.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.state.issuer().to_owned()
    }

    /// Where the tenant listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.state.address()
    }

    /// The audience of its tokens.
    #[must_use]
    pub fn audience(&self) -> String {
        self.state.audience().to_owned()
    }

    /// Adds a user, or replaces the one with the same subject.
    pub fn add_user(&self, user: User) {
        lock(&self.state.users).insert(user.sub.clone(), user);
    }

    /// Removes a user: `/userinfo` answers 401 to their tokens.
    pub fn remove_user(&self, sub: &str) {
        lock(&self.state.users).remove(sub);
    }

    /// Begins a token.
    pub fn mint(&self) -> TokenBuilder {
        TokenBuilder::new(Arc::clone(&self.state))
    }

    /// How often the tenant was asked so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        lock(&self.state.log).calls.clone()
    }

    /// When each `/userinfo` call arrived, in order.
    #[must_use]
    pub fn userinfo_call_times(&self) -> Vec<Instant> {
        lock(&self.state.log).userinfo_times.clone()
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        *lock(&self.state.log) = CallLog::default();
    }

    /// Sets the fault of `endpoint`, in place of an earlier one.
    pub fn set_fault(&self, endpoint: Endpoint, fault: Fault) {
        self.state.set_fault(endpoint, &fault);
    }

    /// Removes all faults. A call that hangs or is delayed stays so.
    pub fn clear_faults(&self) {
        *lock(&self.state.faults) = Faults::default();
    }

    /// Makes new signing keys the current ones. The JWKS lists them first and the older ones after them. May
    /// take tenths of a second. If the system cannot make a key, the current ones stay.
    pub fn rotate_keys(&self) {
        // Not an error to the caller: it happens only where no tenant could have started.
        let _ = KeyRing::rotate(&self.state.keys);
    }

    /// Drops every signing key but the current ones from the JWKS; `/userinfo` no longer accepts what they
    /// signed.
    pub fn revoke_old_keys(&self) {
        lock(&self.state.keys).revoke_old();
    }

    /// Sets or lifts the limit of all `/userinfo` calls together; it starts with a full bucket.
    pub fn set_userinfo_limit(&self, limit: Option<RateLimit>) {
        lock(&self.state.limits).set_tenant(limit, self.state.instant());
    }

    /// Sets or lifts the limit of `/userinfo` calls for one user; each starts with a full bucket.
    pub fn set_per_user_limit(&self, limit: Option<RateLimit>) {
        lock(&self.state.limits).set_per_user(limit);
    }

    /// Holds the tenant's wall clock at these Unix seconds, or gives it back to the system. The clock sets
    /// the times in tokens and in `X-RateLimit-Reset`, decides when `/userinfo` refuses a token as expired,
    /// and refills limits. A limit does not change when the clock is set back.
    pub fn set_time(&self, now: Option<u64>) {
        *lock(&self.state.time) = now.map(Duration::from_secs);
    }

    /// The same with fractions of a second, since the Unix epoch.
    pub fn hold_time_at(&self, now: Duration) {
        *lock(&self.state.time) = Some(now);
    }

    /// The tenant's wall clock, in Unix seconds.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.state.now()
    }

    /// `/userinfo` answers 401 to this token from now on.
    pub fn revoke_token(&self, token: &str) {
        lock(&self.state.revoked).insert(token.to_owned());
    }

    /// Stops listening and cuts every open connection. New connections are refused. Returns when both are
    /// done.
    pub async fn go_down(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.close().await;
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// If the port has been taken meanwhile.
    pub async fn come_back(&self) -> Result<(), TenantError> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            let (listener, _) = serve::listen(self.state.address()).await?;
            *server = Some(start_server(listener, &self.state));
        }
        Ok(())
    }

    /// Stops the server for all handles.
    pub async fn stop(self) {
        self.go_down().await;
    }

    /// The RSA public key that the API's owner has uploaded for nested JWE (PEM, SubjectPublicKeyInfo).
    #[must_use]
    pub fn jwe_public_key_pem(&self) -> String {
        self.state.jwe.rsa_public_pem.clone()
    }

    /// The private half of [`jwe_public_key_pem`](Self::jwe_public_key_pem) (PEM, PKCS#8): for the API, that
    /// is, for holdfast. All tenants of a process share it.
    #[must_use]
    pub fn jwe_private_key_pem(&self) -> String {
        self.state.jwe.rsa_private_pem.clone()
    }

    /// The EC P-256 private key for ECDH-ES (PEM, PKCS#8).
    #[must_use]
    pub fn jwe_ec_private_key_pem(&self) -> String {
        self.state.jwe.ec_private_pem.clone()
    }

    /// The symmetric key for `dir` with A256GCM: a JWK of 32 bytes.
    #[must_use]
    pub fn jwe_symmetric_jwk(&self) -> String {
        self.jwe_symmetric_jwk_for("dir", "A256GCM")
    }

    /// The symmetric key for `alg` (dir, A128KW or A256KW) and `enc`, as a JWK. Each pair has its own, of the
    /// length it needs, except that a wrapping key serves every `enc`. A pair the tenant does not know gives
    /// `{}`.
    #[must_use]
    pub fn jwe_symmetric_jwk_for(&self, alg: &str, enc: &str) -> String {
        self.state.jwe.symmetric_jwk(alg, enc)
    }
}

fn start_server(listener: TcpListener, state: &Arc<State>) -> Server {
    let state = Arc::clone(state);
    Server::start(listener, move |stream| serve::serve_connection(stream, Arc::clone(&state)))
}
