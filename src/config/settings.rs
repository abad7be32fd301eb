//! All sections, read and checked together.

use std::sync::Arc;

use super::admin::AdminSettings;
use super::auth::AuthSettings;
use super::error::ConfigErrors;
use super::problems::Problems;
use super::section::Section;
use super::source::Source;
use super::{guard, tiers};
use crate::credential::CredentialSettings;
use crate::decision::header_rule::HeaderRule;
use crate::guard::GuardSettings;
use crate::issuer::settings::IssuerSettings;
use crate::login::LoginSettings;
use crate::resource::ResourceSettings;
use crate::revocation::settings::{LogoutSettings, RevocationSettings};
use crate::route::settings::RouteSettings;
use crate::sender::settings::DpopSettings;
use crate::store::open::StoreSettings;
use crate::telemetry::logs::LogSettings;
use crate::tiers::table::TierTable;
use crate::verifier::settings::PolicySettings;

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[auth]`: the listener that proxies ask.
    pub auth: AuthSettings,
    /// What a request needs: part of `[auth]`, and `[[rule]]`.
    pub routes: RouteSettings,
    /// `[admin]`: metrics and health.
    pub admin: AdminSettings,
    /// `[store]`: where records are kept.
    pub store: StoreSettings,
    /// `[[issuer]]`: whose tokens are accepted; at least one.
    pub issuers: Vec<IssuerSettings>,
    /// `[policy]`: rules for every issuer.
    pub policy: PolicySettings,
    /// `[revocation]`: how long deny records are kept, and where a token names its session.
    pub revocation: RevocationSettings,
    /// `[backchannel_logout]`: whose logout tokens are accepted. Nobody's by default.
    pub backchannel_logout: Option<LogoutSettings>,
    /// `[credential]`: where the token is looked for besides `Authorization`.
    pub credential: CredentialSettings,
    /// `[dpop]`: the proofs of tokens that are bound to a key.
    pub dpop: DpopSettings,
    /// `[login]`: where browsers without a good credential are sent. Nowhere by default.
    pub login: Option<LoginSettings>,
    /// `[resource]`: the API as its clients know it. It is not described by default.
    pub resource: Option<ResourceSettings>,
    /// `[headers]`: the identity headers of a 200.
    pub headers: Arc<[HeaderRule]>,
    /// `[[tier]]`: the age classes of records. Default: seven, from four hours to a year.
    pub tiers: TierTable,
    /// `[breaker]` and `[budget]`: when and how often an issuer is asked.
    pub guard: GuardSettings,
    /// `[log]`: what is logged, and how.
    pub log: LogSettings,
}

impl Settings {
    /// Reads and checks the whole configuration.
    ///
    /// # Errors
    /// Every problem found, each naming its place.
    pub fn read(source: &Source) -> Result<Self, ConfigErrors> {
        Self::read_with(source, true)
    }

    /// The same for commands that only use the stores and ask no issuer: there may be none.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn read_for_upkeep(source: &Source) -> Result<Self, ConfigErrors> {
        Self::read_with(source, false)
    }

    fn read_with(source: &Source, needs_issuer: bool) -> Result<Self, ConfigErrors> {
        let tree = source.tree().map_err(|error| ConfigErrors(vec![error]))?;
        let problems = Problems::default();
        problems.locate(&tree);
        let mut root = Section::new("", tree, &problems);
        let mut auth = root.section("auth");
        let settings = Self {
            routes: RouteSettings::read(&mut auth, &mut root, &problems),
            auth: AuthSettings::read(auth),
            admin: AdminSettings::read(root.section("admin"), needs_issuer),
            store: StoreSettings::read(root.section("store")),
            issuers: IssuerSettings::read_all(&mut root, needs_issuer),
            policy: PolicySettings::read(root.section("policy")),
            revocation: RevocationSettings::read(root.section("revocation")),
            backchannel_logout: root.table("backchannel_logout").and_then(LogoutSettings::read),
            credential: CredentialSettings::read(root.section("credential")),
            dpop: DpopSettings::read(root.section("dpop")),
            login: root.table("login").and_then(LoginSettings::read),
            resource: root.table("resource").and_then(ResourceSettings::read),
            headers: HeaderRule::read_all(root.section("headers")).into(),
            tiers: tiers::read(&mut root),
            guard: guard::read(&mut root),
            log: LogSettings::read(root.section("log")),
        };
        settings.policy.check_tiers(&settings.tiers, &root);
        settings.routes.check_tiers(&settings.tiers, &root);
        if needs_issuer && !root.has_problem("issuer") {
            IssuerSettings::check_rules(&settings.issuers, &settings.routes, &root);
        }
        HeaderRule::check_room(&settings.headers, &settings.routes, &root);
        if settings.login.as_ref().is_some_and(|login| !login.return_hosts.is_empty())
            && settings.routes.trusted_peers.is_empty()
        {
            root.report(
                "auth.trusted_peers",
                "nothing",
                "the proxies that are trusted to describe the original request, such as 127.0.0.1 or unix, \
                 because login.return_hosts depend on it",
            );
        }
        drop(root);
        let problems = problems.found.into_inner();
        if problems.is_empty() { Ok(settings) } else { Err(ConfigErrors(problems)) }
    }
}
