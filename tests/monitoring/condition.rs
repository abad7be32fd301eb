//! The gauges about the present state, where the drills do not show them: the configuration, the keys of an
//! earlier start, the certificate, and stores that are not well.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::drill::HOUR;
use crate::support::service::{held_clock, issuer, request, tenant};
use crate::support::{exchange, until};

const LISTEN: &str = "listen = [\"127.0.0.1:0\"]\n";

/// holdfast with a configuration in a file, so that it can change.
struct Scene {
    directory: TempDir,
    service: Service,
}

impl Scene {
    async fn set(config: impl Fn(&Path) -> String, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = Self::write(directory.path(), &config(directory.path()));
        let source = Source { file: Some(file), ..Source::default() };
        // An earlier one may not have closed its data directory yet.
        let started = async || Service::start(source.clone(), clock.clone()).await.ok();
        Self { service: until("holdfast starts", started).await, directory }
    }

    /// Writes the file, and gives its path. `config` begins with the lines of `[auth]`.
    fn write(directory: &Path, config: &str) -> PathBuf {
        let file = directory.join("holdfast.toml");
        std::fs::write(&file, format!("[admin]\nlisten = \"127.0.0.1:0\"\n[auth]\n{config}")).unwrap();
        file
    }

    /// The samples of a metric, each with its labels.
    async fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let stream = TcpStream::connect(self.service.admin_address()).await.unwrap();
        let page = exchange(stream, &request("/metrics", "")).await.body;
        let lines = page.lines().filter_map(|line| line.strip_prefix("holdfast_")?.strip_prefix(name));
        let samples = lines.filter(|line| line.starts_with([' ', '{']));
        samples
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(l, v)| (l.to_owned(), v.parse().unwrap()))
            .collect()
    }

    async fn value(&self, name: &str) -> f64 {
        let samples = self.samples(name).await;
        assert_eq!(samples.len(), 1, "{name}: {samples:?}");
        samples[0].1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_in_force_is_told_and_no_other() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let config = |more: &str| format!("{LISTEN}{}{more}", issuer(&tenant, ""));
    let scene = Scene::set(|_| config(""), clock.clone()).await;
    let started = clock.now().as_secs() as f64;
    let first = scene.samples("configuration_info").await;
    assert_eq!(first.len(), 1);
    assert_eq!(scene.value("configuration_loaded_timestamp_seconds").await, started);

    clock.advance(Duration::from_secs(60));
    Scene::write(scene.directory.path(), &config("[policy]\nleeway = \"11s\"\n"));
    scene.service.reload().unwrap();
    let second = scene.samples("configuration_info").await;
    assert_eq!((second.len(), second[0].1), (1, 1.0), "{second:?}");
    assert_ne!(second, first);
    assert_eq!(scene.value("configuration_loaded_timestamp_seconds").await, started + 60.0);

    clock.advance(Duration::from_secs(60));
    Scene::write(scene.directory.path(), &config("[policy]\nleeway = \"often\"\n"));
    scene.service.reload().unwrap_err();
    assert_eq!(scene.samples("configuration_info").await, second);
    assert_eq!(scene.value("configuration_loaded_timestamp_seconds").await, started + 60.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_before_a_restart_are_as_old_as_they_are() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let fetched = clock.now().as_secs() as f64;
    let data = tempfile::tempdir().unwrap();
    let config = format!("{LISTEN}[store]\npath = {:?}\n{}", data.path(), issuer(&tenant, ""));
    let has_keys = async |scene: &Scene| {
        until("keys", async || (scene.value("keys_fetched_timestamp_seconds").await > 0.0).then_some(()))
            .await;
        scene.value("keys_fetched_timestamp_seconds").await
    };
    let scene = Scene::set(|_| config.clone(), clock.clone()).await;
    assert_eq!(has_keys(&scene).await, fetched);
    let on_disk = async || scene.samples("records").await.contains(&("{store=\"disk\"}".to_owned(), 1.0));
    until("the keys are on disk", async || on_disk().await.then_some(())).await;
    scene.service.drain().await;

    tenant.go_down().await;
    clock.advance(Duration::from_secs(30 * HOUR));
    let scene = Scene::set(|_| config.clone(), clock.clone()).await;
    assert_eq!(has_keys(&scene).await, fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_told_with_its_end_and_redis_with_its_absence() {
    let tenant = tenant().await;
    let config = |directory: &Path| {
        let server = Authority::new("test CA").server(directory, "server");
        let secret = directory.join("secret");
        std::fs::write(&secret, [7; 32]).unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        format!(
            "listen = [\"tls:127.0.0.1:0\"]\n[auth.tls]\ncertificate = {:?}\nkey = {:?}\n[store]\n\
             redis = \"redis://127.0.0.1:9\"\nsecret_file = {secret:?}\n{}",
            server.certificate,
            server.key,
            issuer(&tenant, "")
        )
    };
    let scene = Scene::set(config, held_clock(&tenant)).await;
    let pem = std::fs::read(scene.directory.path().join("server.pem")).unwrap();
    let certificate = X509::from_pem(&pem).unwrap();
    let expiry = scene.samples("certificate_expiry_timestamp_seconds").await;
    assert_eq!(expiry.len(), 1, "{expiry:?}");
    assert_eq!(expiry[0].0, "{listener=\"auth\"}");
    assert_eq!(&*Asn1Time::from_unix(expiry[0].1 as i64).unwrap(), certificate.not_after());

    until("Redis is found away", async || {
        let stores = scene.samples("store_degraded").await;
        let expected = [("{store=\"disk\"}".to_owned(), 0.0), ("{store=\"shared\"}".to_owned(), 1.0)];
        (stores == expected).then_some(())
    })
    .await;
    assert_eq!(scene.value("revocations_behind").await, 1.0);
}
