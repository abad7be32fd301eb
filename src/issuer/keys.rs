//! The keys of an issuer: known, looked up, fetched.
//!
//! Callers share one fetch. An unknown `kid` causes at most one fetch a minute ([`UNKNOWN_KID_PAUSE`]).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use reqwest::{Method, Request};
use tracing::{debug, info, warn};

use super::discovery::{Discovery, EndpointKind};
use super::endpoint::CannotTell;
use super::jwks::{KeyLookup, KeySet, Skipped};
use super::{FetchedKeys, Issuer};
use crate::clock::Ticks;
use crate::guard::{Priority, Role};
use crate::token::algorithm::SignatureAlgorithm;

/// How often an unknown `kid` may cause a fetch of the keys, however many tokens ask.
const UNKNOWN_KID_PAUSE: Duration = Duration::from_secs(60);

impl Issuer {
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
                KeyLookup::Unknown if attempt == 0 && self.settings.secret_file.is_none() => {
                    self.look_again().await?;
                }
                lookup => return Ok(lookup),
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
    pub(super) async fn look_again(self: &Arc<Self>) -> Result<(), CannotTell> {
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

    pub(super) fn fetched_at(&self) -> Option<Ticks> {
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
        let (found, document) = self
            .endpoint(EndpointKind::Discovery)
            .call(Request::new(Method::GET, url), priority, None, |answer| {
                let body = answer.of_a_document()?;
                Ok((Arc::new(Discovery::read(body, &self.settings.url)?), body.to_vec()))
            })
            .await?;
        if self.settings.userinfo && found.userinfo.is_none() && self.discovery.load().is_none() {
            warn!(
                issuer = &*self.name,
                "the discovery document names no userinfo_endpoint, so holdfast can neither learn the email \
                 of a token without one nor have a foreign token judged; to refuse such tokens, set userinfo \
                 = false and foreign_tokens = \"refuse\""
            );
        }
        if self.settings.introspection.is_some()
            && found.introspection.is_none()
            && self.discovery.load().is_none()
        {
            warn!(
                issuer = &*self.name,
                "the discovery document names no introspection_endpoint, so holdfast cannot have a foreign \
                 token judged; remove [issuer.introspection] to ask /userinfo instead"
            );
        }
        self.discovery.store(Some(found.clone()));
        let fetched = || *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        if self.settings.secret_file.is_some() {
            fetched();
            return Ok(());
        }
        let (keys, jwks) = self
            .endpoint(EndpointKind::Jwks)
            .call(Request::new(Method::GET, found.jwks.clone()), priority, None, |answer| {
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
    pub(super) fn holds_keys(&self) -> bool {
        !self.held_key_ids().is_empty()
    }

    fn count(&self, role: Role) {
        if role == Role::Joined {
            self.metrics.joined();
        }
    }
}
