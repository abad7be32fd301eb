//! The running service: start, reload, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{ConfigErrors, Settings, Source};
use crate::instance::{BuildError, Instance};
use crate::server::descriptors;
use crate::server::listener::{Bounds, Client, ListenError, Listener, SocketAccess, announce};
use crate::server::status::Observer;
use crate::server::{admin, auth};

/// How long a start waits for revocations from Redis. It takes milliseconds if Redis is reachable.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Why the service cannot start, or cannot take a new configuration.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The configuration is valid, but cannot be put into effect.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// A socket cannot be opened.
    #[error("{0}")]
    Listen(#[from] ListenError),
}

/// A running service.
pub struct Service {
    instance: Arc<ArcSwap<Instance>>,
    source: Source,
    leaving: Arc<AtomicBool>,
    observer: Arc<Observer>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    auth_names: Vec<String>,
    admin_name: String,
}

impl Service {
    /// Reads the configuration, binds all sockets and begins to serve. Keys are fetched in the background, so
    /// the service also starts while its issuer is down.
    ///
    /// # Errors
    /// [`ServiceError`]. Nothing is left running.
    pub async fn start(source: Source, clock: Clock) -> Result<Self, ServiceError> {
        let settings = Settings::read(&source)?;
        Self::start_with(settings, source, clock).await
    }

    /// Starts with settings that are already read.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start_with(settings: Settings, source: Source, clock: Clock) -> Result<Self, ServiceError> {
        let access = SocketAccess { mode: settings.auth.socket_mode, group: settings.auth.socket_group };
        let mut bound = Vec::new();
        for listen in &settings.auth.listen {
            bound.push(Listener::bind(listen, access).await?);
        }
        let admin_listener = Listener::bind(&settings.admin.listener(), access).await?;
        let shares = descriptors::share_out(settings.auth.max_connections, bound.len());
        let bounds = Bounds {
            idle_timeout: settings.auth.idle_timeout,
            max_connections: shares.auth,
            max_head: settings.auth.max_head,
            drain_timeout: settings.auth.drain_timeout,
        };
        let instance = Instance::build(settings, clock, None)?;
        // If Redis is reachable, the first answer already respects the revocations of other instances.
        let _ = tokio::time::timeout(CATCH_UP, instance.revocations.caught_up()).await;
        let instance = Arc::new(ArcSwap::new(instance));
        let (stop, stopped) = watch::channel(false);

        let auth_names: Vec<String> = bound.iter().map(|listener| listener.name.clone()).collect();
        let admin_name = admin_listener.name.clone();
        let mut listeners = Vec::new();
        for listener in bound {
            announce("auth", &listener.name);
            let (instance, for_tls) = (instance.clone(), instance.clone());
            let service =
                move |request, client: Client| auth::answer(instance.load_full(), request, client.peer);
            let tls = move || for_tls.load().tls.clone();
            listeners.push(tokio::spawn(listener.serve(service, tls, bounds, stopped.clone())));
        }
        announce("admin", &admin_name);
        let leaving = Arc::new(AtomicBool::new(false));
        let observer = Arc::new(Observer::new(instance.clone(), leaving.clone()));
        let (for_admin, for_tls) = (observer.clone(), instance.clone());
        let service = move |request, client| admin::answer(for_admin.clone(), request, client);
        let tls = move || for_tls.load().admin_tls.clone();
        let bounds = Bounds { max_connections: shares.admin, ..bounds };
        listeners.push(tokio::spawn(admin_listener.serve(service, tls, bounds, stopped)));
        Ok(Self { instance, source, leaving, observer, stop, listeners, auth_names, admin_name })
    }

    /// The addresses to which the auth listeners are bound.
    #[must_use]
    pub fn auth_addresses(&self) -> &[String] {
        &self.auth_names
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin_address(&self) -> &str {
        &self.admin_name
    }

    /// What `/status` shows.
    #[must_use]
    pub fn status(&self) -> Value {
        self.observer.status()
    }

    /// The current instance.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// Reads the configuration again and swaps it in. Listeners do not change; that needs a restart.
    ///
    /// # Errors
    /// [`ServiceError`]. The old configuration stays in effect.
    pub fn reload(&self) -> Result<(), ServiceError> {
        let before = self.instance.load_full();
        let result = self.rebuild(&before);
        before.metrics.reloaded(if result.is_ok() { "ok" } else { "refused" });
        result
    }

    fn rebuild(&self, before: &Instance) -> Result<(), ServiceError> {
        let settings = Settings::read(&self.source)?;
        let (new, old) = (&settings, &before.settings);
        for (key, changed) in [
            ("auth.listen", new.auth.listen != old.auth.listen),
            ("auth.socket_mode", new.auth.socket_mode != old.auth.socket_mode),
            ("auth.socket_group", new.auth.socket_group != old.auth.socket_group),
            ("auth.idle_timeout", new.auth.idle_timeout != old.auth.idle_timeout),
            ("auth.drain_timeout", new.auth.drain_timeout != old.auth.drain_timeout),
            ("auth.max_connections", new.auth.max_connections != old.auth.max_connections),
            ("auth.max_head", new.auth.max_head != old.auth.max_head),
            ("admin.listen", new.admin.listener() != old.admin.listener()),
            ("store", new.store != old.store),
            ("[breaker] or [budget]", new.guard != old.guard),
            ("log", new.log != old.log),
        ] {
            if changed {
                warn!("{key} changed in the configuration; that takes effect at the next start");
            }
        }
        let instance = Instance::build(settings, before.clock.clone(), Some(before))?;
        self.instance.store(instance);
        info!("configuration reloaded");
        Ok(())
    }

    /// Reports "not ready" at `/readyz`, and continues to answer requests for `auth.lame_duck`, so that
    /// callers notice it. Ends earlier if `cut_short` completes.
    pub async fn leave(&self, cut_short: impl Future<Output = ()>) {
        self.leaving.store(true, Ordering::Relaxed);
        let lame_duck = self.instance.load().settings.auth.lame_duck;
        if lame_duck.is_zero() {
            return;
        }
        info!(
            "not ready any more; holdfast serves for another {}, or until the next SIGTERM or SIGINT",
            humantime::format_duration(lame_duck)
        );
        tokio::select! {
            () = tokio::time::sleep(lame_duck) => {}
            () = cut_short => {}
        }
    }

    /// Stops accepting connections, lets running requests finish within `drain_timeout`, writes what is still
    /// to be shared, and ends.
    pub async fn drain(self) {
        let _ = self.stop.send(true);
        for listener in self.listeners {
            let _ = listener.await;
        }
        self.instance.load_full().flush().await;
    }
}
