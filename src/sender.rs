//! Whether a request comes from the sender that its token is bound to (RFC 9449, RFC 8705).
//!
//! A token is verified once, and its answer is kept. The sender belongs to the request, so it is checked for
//! each request, also if the answer is in memory: a stolen token is worth nothing without the key. Method,
//! URL and client certificate of a request are read only from trusted peers.

pub mod certificate;
mod error;
pub mod settings;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;

pub use self::error::Unproven;
use self::settings::DpopSettings;
use crate::clock::Clock;
use crate::credential::{Credential, Scheme};
use crate::route::Closed;
use crate::route::forwarded::Subrequest;
use crate::route::peer::Peer;
use crate::route::settings::RouteSettings;
use crate::store::stores::Stores;
use crate::token::binding::{Binding, Thumbprint};
use crate::token::dpop::replay::{ProofId, Replay, ReplayCache};
use crate::token::dpop::{self, Expected};
use crate::token::pool::Pool;

/// The header of a proof (RFC 9449 §4.1).
const PROOF: HeaderName = HeaderName::from_static("dpop");

/// A request with a token.
#[derive(Clone, Copy)]
pub struct Sender<'r> {
    /// The token, and how the request carries it.
    pub credential: &'r Credential<'r>,
    /// The request as the proxy describes it.
    pub subrequest: Subrequest<'r>,
    /// The peer that describes it.
    pub peer: Peer,
    /// The settings of trusted peers, and of their headers.
    pub routes: &'r RouteSettings,
}

/// Checks senders.
pub struct SenderCheck {
    settings: DpopSettings,
    leeway: Duration,
    proofs: Proofs,
    clock: Clock,
    stores: Arc<Stores>,
}

/// The state that survives a reload: the replay cache, and the threads that check proofs. Only requests with
/// a good token occupy these threads, so no flood of other tokens keeps a sender out.
#[derive(Clone)]
pub struct Proofs {
    pool: Pool,
    cache: Arc<ReplayCache>,
}

impl Proofs {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self { pool: Pool::start_default("proof")?, cache: Arc::default() })
    }
}

impl SenderCheck {
    /// A check that records proofs in `proofs`, and in the shared store if there is one.
    #[must_use]
    pub fn new(
        (settings, leeway): (DpopSettings, Duration),
        proofs: Proofs,
        clock: Clock,
        stores: Arc<Stores>,
    ) -> Self {
        Self { settings, leeway, proofs, clock, stores }
    }

    /// The state that survives a reload.
    #[must_use]
    pub fn proofs(&self) -> Proofs {
        self.proofs.clone()
    }

    /// Checks that the request comes from the sender of its token. Call it once for each request, because a
    /// proof is accepted only once.
    ///
    /// # Errors
    /// [`Unproven`].
    pub async fn check(&self, binding: Binding, sender: Sender<'_>) -> Result<(), Unproven> {
        let (key, certificate) = match binding {
            Binding::Ignored => return Ok(()),
            Binding::Bearer => (None, None),
            Binding::UNKNOWN => return Err(Unproven::Unreadable),
            Binding::Sender { key, certificate } => (key, certificate),
        };
        if let Some(expected) = certificate
            && certificate_of(sender)? != expected
        {
            return Err(Unproven::OtherCertificate);
        }
        match key {
            Some(key) => self.check_proof(key, sender).await,
            // The sender believes that the token is bound to a key, but the token does not say so.
            None if sender.subrequest.headers.contains_key(PROOF) => Err(Unproven::NotBound),
            None if certificate.is_none() && sender.credential.scheme() == Scheme::Dpop => {
                Err(Unproven::NotBound)
            }
            None => Ok(()),
        }
    }

    async fn check_proof(&self, key: Thumbprint, sender: Sender<'_>) -> Result<(), Unproven> {
        let Sender { credential, subrequest, peer, routes } = sender;
        // RFC 9449 §7.2: a bound token is refused as a bearer token, with or without a proof.
        if credential.scheme() != Scheme::Dpop {
            return Err(Unproven::AsBearer);
        }
        let mut proofs = subrequest.headers.get_all(PROOF).iter();
        let proof = match (proofs.next(), proofs.next()) {
            (Some(proof), None) => proof.to_str().map_err(|_| Unproven::NotAscii)?.to_owned(),
            (Some(_), Some(_)) => return Err(Unproven::SeveralProofs),
            (None, _) => return Err(Unproven::NoProof),
        };
        if !routes.trusts(peer) {
            return Err(Unproven::UnknownRequest(Closed::Untrusted));
        }
        let method = routes.forwarded.method(subrequest)?.to_owned();
        let url = routes.forwarded.url(subrequest)?;
        let (token, now) = (credential.token().to_owned(), self.clock.now());
        let (age, leeway) = (self.settings.proof_age, self.leeway);
        let checked = self.proofs.pool.run(move || {
            let expected = Expected { method: &method, url: &url, token: &token, key, now, age, leeway };
            dpop::check(&proof, &expected)
        });
        self.check_first(checked.await??).await
    }

    /// Checks that a proof is not a replay, in this instance and in every instance that shares the Redis.
    /// While Redis is unreachable, each instance detects only replays to itself.
    async fn check_first(&self, id: ProofId) -> Result<(), Unproven> {
        // A second longer than a proof is valid, because clocks differ.
        let keep = self.settings.proof_age + self.leeway + Duration::from_secs(1);
        match self.proofs.cache.check(id, self.clock.ticks(), keep) {
            Replay::FirstUse => {}
            Replay::Replayed => return Err(Unproven::Replayed),
            Replay::CacheFull => return Err(Unproven::CacheFull),
        }
        match self.stores.shared() {
            Some(shared) if shared.is_replay(id.as_bytes(), keep).await => Err(Unproven::Replayed),
            _ => Ok(()),
        }
    }
}

/// The client certificate, as a trusted peer passes it on.
fn certificate_of(sender: Sender<'_>) -> Result<Thumbprint, Unproven> {
    let Sender { subrequest, peer, routes, .. } = sender;
    let name = routes.client_certificate_header.as_ref().ok_or(Unproven::NoCertificate)?;
    let mut values = subrequest.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Unproven::NoCertificate),
        (Some(value), None) if value.is_empty() => Err(Unproven::NoCertificate),
        _ if !routes.trusts(peer) => Err(Unproven::UnknownRequest(Closed::Untrusted)),
        (Some(value), None) => {
            value.to_str().ok().and_then(certificate::thumbprint).ok_or(Unproven::UnclearCertificate)
        }
        (Some(_), Some(_)) => Err(Unproven::UnclearCertificate),
    }
}
