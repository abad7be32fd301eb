//! A request that is under way during an invalidation does not bring the record back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use holdfast::answers::Answers;
use holdfast::clock::{Clock, Timestamp};
use holdfast::revocation::{Checked, RevocationKey, RevocationSet};
use holdfast::store::purge::{Purge, Subject};
use holdfast::store::refused::Refused;
use holdfast::store::stores::Stores;
use holdfast::tiers::digest::{SubjectKey, TokenDigest};
use holdfast::token::refusal::Refusal;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use support::service::{Running, held_clock, issuer, tenant, value};
use support::until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

struct Scene {
    tenant: Tenant,
    holdfast: Arc<Running>,
    opaque: String,
    no_email: String,
}

impl Scene {
    async fn new(store: &str) -> Self {
        let tenant = tenant().await;
        let clock = held_clock(&tenant);
        let config = format!("{store}\n[budget]\nburst = 100\n{}", issuer(&tenant, ""));
        let holdfast = Arc::new(Running::start(&config, clock).await);
        let opaque = tenant.mint().opaque().build().unwrap();
        let no_email = tenant.mint().build().unwrap();
        Self { tenant, holdfast, opaque, no_email }
    }

    fn digest(&self, token: &str) -> TokenDigest {
        self.holdfast.service.instance().digester.token(token.as_bytes())
    }

    /// Who alice is, as stores and operators know her.
    async fn alice(&self) -> (SubjectKey, Subject) {
        let instance = self.holdfast.service.instance();
        let name = instance.issuers.iter().next().unwrap().name().to_string();
        let reply = self.holdfast.ask(&self.no_email).await;
        let subject = value(&reply, "x-user-id").unwrap().to_owned();
        (instance.digester.subject(&name, &subject), Subject { subject, issuers: vec![name] })
    }

    /// Whether there is a prepared answer for this token.
    fn is_known(&self, token: &str) -> bool {
        self.holdfast.service.instance().answers.get(&self.digest(token)).is_some()
    }

    async fn start_to_purge(&self, body: &str) -> TcpStream {
        let mut admin = TcpStream::connect(self.holdfast.admin).await.unwrap();
        let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        admin.write_all(request.as_bytes()).await.unwrap();
        admin
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_looked_for_before_a_purge_is_not_kept_after_it() {
    let scene = Scene::new("").await;
    let instance = scene.holdfast.service.instance();
    let (stores, answers) = (&instance.stores, &instance.answers);
    let digest = scene.digest(&scene.opaque);
    let (key, who) = scene.alice().await;
    for purge in [Purge::Token(digest), Purge::Subject(who, vec![key]), Purge::Everybody] {
        assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
        assert_eq!(scene.holdfast.ask(&scene.no_email).await.status, 200);
        let (since, profile_since) = (stores.epoch(&digest), stores.epoch_of_profile(&key));
        let pass = answers.get(&digest).unwrap();
        let (verdict, _) = stores.verdict(&digest, since).await.unwrap();
        let (profile, _) = stores.profile(&key).await.unwrap();

        let of_token = matches!(purge, Purge::Token(_));
        stores.purge(purge).await.unwrap();
        answers.keep(digest, pass.clone(), checked(&digest), since);
        stores.keep_verdict(digest, verdict.clone(), since);
        stores.keep_profile(key, profile, profile_since);
        assert!(answers.get(&digest).is_none());
        assert!(stores.verdict(&digest, since).await.is_none());
        assert_eq!(stores.profile(&key).await.is_some(), of_token, "the profile of its subject stays");

        let since = stores.epoch(&digest);
        answers.keep(digest, pass, checked(&digest), since);
        stores.keep_verdict(digest, verdict, since);
        assert!(answers.get(&digest).is_some() && stores.verdict(&digest, since).await.is_some());
        stores.purge(Purge::Everybody).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_made_while_the_issuer_said_no_is_not_kept() {
    let scene = Scene::new("").await;
    let instance = scene.holdfast.service.instance();
    let digest = scene.digest(&scene.opaque);
    let since = instance.stores.epoch(&digest);
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
    let pass = instance.answers.get(&digest).unwrap();
    let refusal = Arc::new(Refusal::IssuerForbids { certain: true });
    instance.stores.refuse(digest, Refused::new(refusal, Duration::from_secs(60), &instance.clock));
    instance.answers.keep(digest, pass, checked(&digest), since);
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_are_refused_for_does_not_keep_anybodys_answer_from_being_kept() {
    let scene = Scene::new("").await;
    let stores = scene.holdfast.service.instance().stores.clone();
    let digest = scene.digest(&scene.opaque);
    let since = stores.epoch(&digest);
    let clock = &scene.holdfast.service.instance().clock;
    for number in 0..2_000 {
        let refusal = Arc::new(Refusal::Expired { ago_secs: 1 });
        stores.refuse(
            scene.digest(&format!("bad {number}")),
            Refused::new(refusal, Duration::from_secs(60), clock),
        );
    }
    assert_eq!(stores.epoch(&digest), since);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_under_way_when_everybody_is_purged_is_asked_again() {
    let scene = Scene::new("").await;
    scene.tenant.set_fault(Endpoint::Userinfo, Fault::Slow(Duration::from_millis(1500)));
    let (holdfast, opaque) = (scene.holdfast.clone(), scene.opaque.clone());
    let asking = tokio::spawn(async move { holdfast.ask(&opaque).await });
    until("the question", async || (scene.tenant.calls().userinfo == 1).then_some(())).await;
    scene.holdfast.service.instance().stores.purge(Purge::Everybody).await.unwrap();
    let _ = asking.await.unwrap();
    assert!(!scene.is_known(&scene.opaque));
    scene.tenant.clear_faults();
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
    assert_eq!(scene.tenant.calls().userinfo, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_done_even_if_its_caller_hangs_up() {
    let data = tempfile::tempdir().unwrap();
    let scene = Scene::new(&format!("[store]\npath = \"{}\"", data.path().display())).await;
    for round in 0..10 {
        assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
        assert!(scene.is_known(&scene.opaque));
        let stores = scene.holdfast.service.instance().stores.clone();
        let since = stores.epoch(&scene.digest(&scene.opaque));
        let caller = scene.start_to_purge(r#"{"all": true}"#).await;
        while stores.epoch(&scene.digest(&scene.opaque)) == since {
            tokio::task::yield_now().await;
        }
        drop(caller);
        until(&format!("purge {round}"), async || (!scene.is_known(&scene.opaque)).then_some(())).await;
    }
}

/// Numbers that look random and are the same in each run (Knuth's generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// What one configuration remembers.
struct Memory {
    stores: Arc<Stores>,
    answers: Arc<Answers>,
}

/// Requests end with the configuration that they began with, so several answer at the same time. Whatever one
/// of them learns to be over is over for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_and_a_purge_reach_the_answers_of_every_configuration_in_use() {
    let scene = Scene::new("").await;
    let instance = scene.holdfast.service.instance();
    let digest = scene.digest(&scene.opaque);
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
    let pass = instance.answers.get(&digest).unwrap();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let first = Memory { stores: instance.stores.clone(), answers: instance.answers.clone() };
        let mut living = vec![Arc::new(first)];
        let mut before = instance.stores.epoch(&digest);
        for step in 0..80 {
            let one = living[dice.below(living.len())].clone();
            let (stores, answers) = (&one.stores, &one.answers);
            let what = dice.below(7);
            match what {
                0 => {
                    let policy = instance.identities.policy().clone();
                    let stores = Arc::new(living.last().unwrap().stores.without_answers(1 << 16, policy));
                    living.push(Arc::new(Memory {
                        answers: Answers::new(1 << 16, stores.clone(), instance.revocations.set()),
                        stores,
                    }));
                }
                1 if living.len() > 1 => drop(living.remove(0)),
                2 => before = stores.epoch(&digest),
                3 => answers.keep(digest, pass.clone(), checked(&digest), stores.epoch(&digest)),
                // As a request that began some time ago.
                4 => answers.keep(digest, pass.clone(), checked(&digest), before),
                5 => {
                    let refusal = Arc::new(Refusal::IssuerForbids { certain: true });
                    stores.refuse(digest, Refused::new(refusal, Duration::from_secs(60), &instance.clock));
                    assert!(living.iter().all(|any| any.stores.refusal(&digest, &instance.clock).is_some()));
                }
                6 if dice.below(2) == 0 => stores.purge(Purge::Token(digest)).await.unwrap(),
                6 => stores.purge(Purge::Everybody).await.unwrap(),
                _ => {}
            }
            if what >= 5 {
                living
                    .iter()
                    .for_each(|any| any.answers.keep(digest, pass.clone(), checked(&digest), before));
                let left = living.iter().filter(|any| any.answers.get(&digest).is_some()).count();
                assert_eq!(left, 0, "seed {seed}, step {step}: of {} configurations", living.len());
            }
        }
    }
}

/// A request began before a reload and brings the issuer's no; meanwhile the new configuration has made a yes
/// of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_to_a_request_from_before_a_reload_ends_the_yes_of_after_it() {
    let scene = Scene::new("").await;
    let before = scene.holdfast.service.instance();
    scene.holdfast.service.reload().unwrap();
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 200);
    let digest = scene.digest(&scene.opaque);
    let refusal = Arc::new(Refusal::of_issuer("401", false, true));
    before.stores.refuse(digest, Refused::new(refusal, Duration::from_secs(60), &before.clock));
    assert_eq!(scene.holdfast.ask(&scene.opaque).await.status, 401);
}

/// The mark of an answer when nothing was revoked.
fn checked(token: &TokenDigest) -> Checked {
    RevocationSet::new(Clock::held_at(Timestamp::EPOCH))
        .mark(&RevocationKey::subject(&SubjectKey(token.0)), None)
}
