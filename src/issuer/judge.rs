//! The question whether an issuer accepts a token, and what it says of the subject.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{error, info, warn};

use super::Issuer;
use super::discovery::{Discovery, EndpointKind};
use super::endpoint::{Answer, CannotTell};
use super::introspection::{self, Expected, TEST_TOKEN};
use super::signed::{self, Unread};
use super::userinfo::{self, Reach, UserinfoAnswer, UserinfoQuery};
use crate::guard::{CallOutcome, Priority};
use crate::token::json::Object;
use crate::token::refusal::Refusal;

impl Issuer {
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
        let discovery = self.discovered(query.priority).await?;
        let url = discovery
            .userinfo
            .as_ref()
            .ok_or(CannotTell::Garbage("the issuer's discovery document names no userinfo_endpoint"))?;
        let subject = query.subject.as_deref();
        let call = userinfo::call(url, &query.token)?;
        let read = |answer: Answer<'_>| match answer {
            Answer::Good(body) => match self.signed_or_plain(body) {
                Ok(claims) => UserinfoAnswer::accepted(claims, subject).map(Ok),
                Err(Unread::UnknownKey) => Ok(Err(body.to_vec())),
                Err(Unread::Bad(what)) => Err(what),
            },
            Answer::Rejected { status, rejection } => Ok(Ok(UserinfoAnswer::refused(status, rejection))),
        };
        let said =
            match self.endpoint(EndpointKind::Userinfo).call(call, query.priority, query.about, read).await {
                Ok(Err(body)) => self.with_newer_keys(&body, subject).await,
                Ok(Ok(answer)) => Ok(answer),
                Err(error) => Err(error),
            };
        self.report_signature(&said);
        said
    }

    /// Reads an answer whose key was not known, after another look at the issuer's keys.
    async fn with_newer_keys(
        self: &Arc<Self>,
        body: &[u8],
        subject: Option<&str>,
    ) -> Result<UserinfoAnswer, CannotTell> {
        self.look_again().await?;
        let claims = self.signed_or_plain(body).map_err(|unread| match unread {
            Unread::UnknownKey => CannotTell::Garbage(signed::NO_KEY),
            Unread::Bad(what) => CannotTell::Garbage(what),
        })?;
        UserinfoAnswer::accepted(claims, subject).map_err(CannotTell::Garbage)
    }

    fn signed_or_plain(&self, body: &[u8]) -> Result<Object, Unread> {
        let keys = self.keys.load_full();
        let rules = signed::Rules {
            settings: &self.settings,
            decryption: &self.decryption,
            keys: keys.as_deref(),
            leeway: self.leeway,
            now: (self.clock.now(), self.clock.ticks()),
        };
        signed::claims(body, rules)
    }

    /// Says once that signed answers do not verify, and once that they do again.
    fn report_signature(&self, said: &Result<UserinfoAnswer, CannotTell>) {
        let issuer = &*self.name;
        match said {
            Err(CannotTell::Garbage(what))
                if signed::OF_JWTS.contains(what) && !self.userinfo_unverified.swap(true, Relaxed) =>
            {
                warn!(issuer, "/userinfo gives no usable answer: {what}");
            }
            Ok(UserinfoAnswer::Accepted { .. }) if self.userinfo_unverified.swap(false, Relaxed) => {
                info!(issuer, "/userinfo gives usable answers again");
            }
            _ => {}
        }
    }

    /// Asks whether the issuer accepts a foreign token: by introspection if that is configured, else at
    /// `/userinfo`. Equal queries are the caller's business, as for [`Self::ask`].
    ///
    /// # Errors
    /// [`CannotTell`], with nothing learnt about the token.
    pub async fn judge(self: &Arc<Self>, query: UserinfoQuery) -> Result<UserinfoAnswer, CannotTell> {
        let Some(client) = &self.client else { return self.ask(query).await };
        let discovery = self.discovered(query.priority).await?;
        let url = discovery
            .introspection
            .as_ref()
            .ok_or(CannotTell::Garbage("the issuer's discovery document names no introspection_endpoint"))?;
        let call = client.call(url, discovery.introspection_by_post, &query.token)?;
        let expected =
            Expected { settings: &self.settings, subject: query.subject.as_deref(), leeway: self.leeway };
        let read = |body: &[u8]| {
            let answer = introspection::read(body, expected, self.clock.now())?;
            let outcome = match &answer {
                UserinfoAnswer::Accepted { .. } => CallOutcome::Answered,
                UserinfoAnswer::Refused(_) => CallOutcome::Rejected,
            };
            Ok((outcome, answer))
        };
        let endpoint = self.endpoint(EndpointKind::Introspection);
        let said = endpoint.call_as_client(call, query.priority, query.about, read).await;
        self.report_client(&said);
        said
    }

    /// Whether the audience of a foreign token with these claims is checked; it cannot be if they name none,
    /// or if they come from `/userinfo`.
    ///
    /// # Errors
    /// [`Refusal`]: the token is for another audience.
    pub fn is_for_us(&self, claims: &Object) -> Result<bool, Refusal> {
        introspection::is_for_us(claims, &self.settings)
    }

    /// Whether the claims of a foreign token are its own: they are if they come from introspection.
    #[must_use]
    pub fn are_own(&self, claims: &Object) -> bool {
        introspection::are_own(claims, &self.settings)
    }

    /// Tests introspection with a token that nobody has issued; no error if it is not configured.
    ///
    /// # Errors
    /// [`CannotTell`]: it does not work.
    pub async fn test_introspection(self: &Arc<Self>, priority: Priority) -> Result<(), CannotTell> {
        if self.client.is_none() {
            return Ok(());
        }
        let query = UserinfoQuery { token: TEST_TOKEN.to_owned(), subject: None, about: None, priority };
        self.judge(query).await.map(|_| ())
    }

    /// Says once that the issuer refuses our credentials, and once that it accepts them again.
    fn report_client(&self, said: &Result<UserinfoAnswer, CannotTell>) {
        let issuer = &*self.name;
        match said {
            Err(refused @ CannotTell::ClientRefused { .. }) if !self.client_refused.swap(true, Relaxed) => {
                error!(issuer, reason = refused.reason(), "foreign tokens cannot be judged: {refused}");
            }
            Ok(_) if self.client_refused.swap(false, Relaxed) => {
                info!(issuer, "the issuer accepts holdfast's client credentials again");
            }
            _ => {}
        }
    }

    async fn discovered(self: &Arc<Self>, priority: Priority) -> Result<Arc<Discovery>, CannotTell> {
        if self.discovery.load().is_none() {
            self.refresh(priority).await?;
        }
        self.discovery.load_full().ok_or_else(|| CannotTell::NoKeys(self.settings.url.clone()))
    }
}
