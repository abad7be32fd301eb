//! Records were made under earlier settings; answers follow the present settings.

use std::path::PathBuf;

use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Source;
use holdfast::guard::Priority;
use holdfast::service::Service;
use holdfast_devtenant::{Tenant, User};
use tempfile::TempDir;

use crate::support::service::{self, Running, assert_undecided, issuer, value};
use crate::support::{Reply, until};
use crate::{HOUR, START};

/// A service with a disk whose configuration can be changed.
struct Changing {
    directory: TempDir,
    clock: Clock,
    running: Option<Running>,
}

impl Changing {
    async fn start(config: &str) -> Self {
        let clock = Clock::held_at(Timestamp::from_secs(START));
        let mut this = Self { directory: tempfile::tempdir().unwrap(), clock, running: None };
        this.write(config);
        this.begin().await;
        for issuer in this.now().service.instance().issuers.iter() {
            issuer.refresh(Priority::Foreground).await.unwrap();
        }
        this
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("holdfast.toml")
    }

    fn write(&self, config: &str) {
        let data = self.directory.path().join("data");
        let head = "[auth]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(self.file(), format!("{head}[store]\npath = \"{}\"\n{config}", data.display()))
            .unwrap();
    }

    async fn begin(&mut self) {
        let source = Source { file: Some(self.file()), ..Source::default() };
        let service = until("the directory is free", async || {
            Service::start(source.clone(), self.clock.clone()).await.ok()
        });
        let service = service.await;
        let auth = service.auth_addresses()[0].parse().unwrap();
        let admin = service.admin_address().parse().unwrap();
        self.running = Some(Running { service, auth, admin });
        until("keys", async || {
            self.now().service.instance().issuers.iter().all(|one| one.is_ready()).then_some(())
        })
        .await;
    }

    fn now(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn reload(&self, config: &str) {
        self.write(config);
        self.now().service.reload().unwrap();
    }

    async fn restart(&mut self) {
        self.running.take().unwrap().service.drain().await;
        self.begin().await;
    }

    async fn ask(&self, token: &str) -> Reply {
        self.now().ask(token).await
    }
}

async fn tenant() -> Tenant {
    let tenant = service::tenant().await;
    tenant.set_time(Some(START));
    tenant
}

/// A signed token without an email, and an opaque one.
fn tokens(tenant: &Tenant, subject: &str) -> [String; 2] {
    let mint = || tenant.mint().subject(subject).expires_in(7 * 24 * 3_600);
    [mint().build().unwrap(), mint().opaque().build().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_not_configured_any_more_lets_nobody_in_as_anothers_user() {
    let (first, second) = (tenant().await, tenant().await);
    let both = issuer(&first, "") + &issuer(&second, "");
    let [_, token] = tokens(&first, "auth0|alice");
    let mut holdfast = Changing::start(&both).await;
    assert_eq!(holdfast.ask(&token).await.status, 200);
    holdfast.reload(&issuer(&second, ""));
    assert_eq!(holdfast.ask(&token).await.status, 401);
    assert_eq!(second.calls().userinfo, 1, "it is a question to the one that is configured");

    // The same from the disk. While the other issuer cannot be asked, no other issuer's answer replaces its
    // own.
    let mut holdfast_of_disk = Changing::start(&both).await;
    assert_eq!(holdfast_of_disk.ask(&token).await.status, 200);
    holdfast_of_disk.write(&issuer(&second, ""));
    holdfast_of_disk.restart().await;
    second.go_down().await;
    assert_undecided(&holdfast_of_disk.ask(&token).await, "the second is away");
    second.come_back().await.unwrap();
    holdfast_of_disk.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(holdfast_of_disk.ask(&token).await.status, 401);
    holdfast.restart().await;
    assert_eq!(holdfast.ask(&token).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_is_not_verified_does_not_count_from_the_moment_at_which_it_has_to_be() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|mallory").email("mallory@example.com").email_verified(false));
    let lenient = issuer(&tenant, "");
    let strict = lenient.clone() + "[policy]\nrequire_verified_email = true\n";
    let [signed, opaque] = tokens(&tenant, "auth0|mallory");
    let verified = tokens(&tenant, "auth0|alice");
    let mut holdfast = Changing::start(&lenient).await;
    for token in [&signed, &opaque, &verified[0], &verified[1]] {
        assert_eq!(holdfast.ask(token).await.status, 200);
    }
    // In an outage only records can answer; first after a reload, then after a restart.
    tenant.go_down().await;
    holdfast.reload(&strict);
    for again in [false, true] {
        if again {
            holdfast.restart().await;
        }
        assert_undecided(&holdfast.ask(&signed).await, "the issuer may know a verified one by now");
        assert_eq!(holdfast.ask(&opaque).await.status, 403);
        for token in &verified {
            assert_eq!(value(&holdfast.ask(token).await, "x-user-email"), Some("alice@example.com"));
        }
    }
    tenant.come_back().await.unwrap();
    holdfast.clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(holdfast.ask(&signed).await.status, 403);
    tenant.add_user(User::new("auth0|mallory").email("mallory@example.com"));
    holdfast.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(value(&holdfast.ask(&signed).await, "x-user-email"), Some("mallory@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_out_of_a_claim_that_does_not_count_any_more_is_not_served() {
    let tenant = tenant().await;
    let user = User::new("auth0|bob").email("bob@example.com");
    tenant.add_user(user.claim("https://claims.example/email", "bob@claims.example"));
    let [signed, opaque] = tokens(&tenant, "auth0|bob");
    let mut holdfast = Changing::start(&issuer(&tenant, "")).await;
    for token in [&signed, &opaque] {
        assert_eq!(value(&holdfast.ask(token).await, "x-user-email"), Some("bob@example.com"));
    }
    let other = issuer(&tenant, "email_claims = [\"https://claims.example/email\"]\n");
    holdfast.reload(&other);
    for token in [&signed, &opaque] {
        assert_eq!(value(&holdfast.ask(token).await, "x-user-email"), Some("bob@claims.example"));
    }
    // New answers are remembered for as long as before.
    tenant.go_down().await;
    holdfast.restart().await;
    for token in [&signed, &opaque] {
        assert_eq!(value(&holdfast.ask(token).await, "x-user-email"), Some("bob@claims.example"));
    }
    // And the former settings do not find what these settings found.
    holdfast.reload(&issuer(&tenant, ""));
    assert_undecided(&holdfast.ask(&signed).await, "the first of the claims is not known");
    assert_eq!(value(&holdfast.ask(&opaque).await, "x-user-email"), Some("bob@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_the_issuer_has_withdrawn_does_not_come_back_from_the_disk() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|bob").email("bob@example.com"));
    let [signed, _] = tokens(&tenant, "auth0|bob");
    let mut holdfast = Changing::start(&issuer(&tenant, "")).await;
    assert_eq!(holdfast.ask(&signed).await.status, 200);
    tenant.add_user(User::new("auth0|bob"));
    holdfast.clock.advance(std::time::Duration::from_secs(13 * HOUR));
    assert_eq!(holdfast.ask(&signed).await.status, 403);
    tenant.go_down().await;
    holdfast.restart().await;
    assert_undecided(&holdfast.ask(&signed).await, "after the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_issuer_may_not_name_any_more_is_nobodys_email_whatever_is_remembered() {
    let tenant = tenant().await;
    tenant.add_user(User::new("auth0|mallory").email("ceo@corp.example").email_verified(true));
    let [signed, opaque] = tokens(&tenant, "auth0|mallory");
    let named = tenant.mint().subject("auth0|mallory").email_direct("ceo@corp.example").build().unwrap();
    let own = tokens(&tenant, "auth0|alice");
    let mut holdfast = Changing::start(&issuer(&tenant, "")).await;
    for token in [&signed, &opaque, &named, &own[0], &own[1]] {
        assert_eq!(holdfast.ask(token).await.status, 200);
    }
    // In an outage only records can answer; first after a reload, then from the disk.
    tenant.go_down().await;
    let config = issuer(&tenant, "email_domains = [\"Example.com\", \"partner.example\"]\n");
    holdfast.reload(&config);
    for again in [false, true] {
        if again {
            holdfast.restart().await;
        }
        assert_undecided(&holdfast.ask(&signed).await, "the issuer may name another address by now");
        for token in [&opaque, &named] {
            let reply = holdfast.ask(token).await;
            assert_eq!((reply.status, value(&reply, "x-user-email")), (403, None));
        }
        assert!(holdfast.now().answered("email_not_allowed").await > 0);
        for token in &own {
            holdfast.clock.advance(std::time::Duration::from_secs(600));
            let reply = holdfast.ask(token).await;
            // A profile that was kept under other rules does not count; a verdict is judged again.
            let known = *token == own[1];
            assert_eq!(value(&reply, "x-user-email"), known.then_some("alice@example.com"), "{reply:?}");
        }
    }
    tenant.come_back().await.unwrap();
    holdfast.clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(holdfast.ask(&signed).await.status, 403);
    assert_eq!(value(&holdfast.ask(&own[0]).await, "x-user-email"), Some("alice@example.com"));
}
