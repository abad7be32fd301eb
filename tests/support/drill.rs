//! The setup of a drill: holdfast with a held clock, a dev tenant in place of Auth0, optionally a real nginx
//! in front, and counts of the answers to users.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Source;
use holdfast::guard::GuardStatus;
use holdfast::guard::breaker::State;
use holdfast::issuer::Issuer;
use holdfast::service::Service;
use holdfast_devtenant::{EchoBackend, Options, Tenant, User};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::support::example::changed;
use crate::support::{Reply, exchange, exchange_unix, until};

pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 24 * HOUR;
pub const START: u64 = 1_800_000_000;

pub struct Stage {
    pub tenant: Tenant,
    pub clock: Clock,
    pub service: Service,
    /// Where users ask: sockets, because a flood of TCP connections uses up the machine's ports.
    socket: PathBuf,
    /// Further instances, each with its socket. Users ask one after the other.
    others: Vec<(Service, PathBuf)>,
    asked: AtomicUsize,
    front: Option<Front>,
    tally: Tally,
    _directory: TempDir,
}

/// The answers to users, and how long they waited for them.
pub struct Tally {
    drill: &'static str,
    requests: u64,
    statuses: [u64; 4],
    /// Calls to `/userinfo` that [`Stage::forget_calls`] has forgotten.
    calls: u64,
    longest: Duration,
}

impl Tally {
    pub fn of(drill: &'static str) -> Self {
        Self { drill, requests: 0, statuses: [0; 4], calls: 0, longest: Duration::ZERO }
    }

    pub fn count(&mut self, status: u16, took: Duration) {
        let column = match status {
            200 => 0,
            401 => 1,
            503 => 2,
            _ => 3,
        };
        self.statuses[column] += 1;
        self.requests += 1;
        self.longest = self.longest.max(took);
    }

    /// The drill is over: prints its row of the table. No user was told anything else than yes, no, or "come
    /// back".
    pub fn row(&self, more_calls: u64) {
        let Self { drill, requests, statuses: [ok, no, later, other], calls, longest } = self;
        println!(
            "| {drill:<44} | {requests:>8} | {:>17} | {:>8} | {:>7.3} s |",
            format!("{ok}/{no}/{later}"),
            calls + more_calls,
            longest.as_secs_f64()
        );
        assert_eq!(*other, 0, "answers of another status");
    }
}

impl Stage {
    pub async fn set(drill: &'static str) -> Self {
        Self::set_with(drill, "").await
    }

    /// With this further configuration. On a held clock no call waits for the budget, because the wait would
    /// not end.
    pub async fn set_with(drill: &'static str, config: &str) -> Self {
        let budget = "[budget]\nwait = \"0s\"\n";
        let config = match config.contains("[budget]\n") {
            true => config.replace("[budget]\n", budget),
            false => format!("{budget}{config}"),
        };
        Self::set_at(drill, &config, START).await
    }

    /// The same at another time; `config` must say that no call waits for the budget.
    pub async fn set_at(drill: &'static str, config: &str, start: u64) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        tenant.set_time(Some(start));
        Self::start(drill, config, tenant, Clock::held_at(Timestamp::from_secs(start))).await
    }

    /// On a held clock on which calls wait for the budget all the same, with this further configuration: the
    /// drill moves the clock while they wait, see `Crowd`.
    pub async fn set_waiting(drill: &'static str, config: &str) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        tenant.set_time(Some(START));
        Self::start(drill, config, tenant, Clock::held_at(Timestamp::from_secs(START))).await
    }

    /// In real time, with this further configuration: for what callers wait for.
    pub async fn set_live(drill: &'static str, config: &str) -> Self {
        let tenant = Tenant::start(Options::default()).await.unwrap();
        Self::start(drill, config, tenant, Clock::system()).await
    }

    async fn start(drill: &'static str, config: &str, tenant: Tenant, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("auth.sock");
        let service = started(&socket, config, &tenant, &clock).await;
        let (others, asked, tally) = (Vec::new(), AtomicUsize::new(0), Tally::of(drill));
        Self { tenant, clock, service, socket, others, asked, front: None, tally, _directory: directory }
    }

    /// With further instances, of this configuration, up to so many.
    pub async fn in_a_fleet_of(mut self, instances: usize, config: &str) -> Self {
        for number in 1..instances {
            let socket = self._directory.path().join(format!("auth-{number}.sock"));
            let service = started(&socket, config, &self.tenant, &self.clock).await;
            self.others.push((service, socket));
        }
        self
    }

    /// All instances.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        std::iter::once(&self.service).chain(self.others.iter().map(|(service, _)| service))
    }

    /// The status of the guard of `/userinfo` at each instance.
    pub fn guards(&self) -> Vec<GuardStatus> {
        self.services().map(userinfo_of).collect()
    }

    /// How many calls wait for their turn.
    pub fn waiting(&self) -> usize {
        self.guards().iter().map(|guard| guard.waiting).sum()
    }

    /// Puts nginx in front, which is what users then ask.
    pub async fn behind_nginx(mut self) -> Self {
        self.front = Some(Front::start(&self.service.auth_addresses()[0]).await);
        self
    }

    pub fn issuer(&self) -> Arc<Issuer> {
        self.service.instance().issuers.iter().next().unwrap().clone()
    }

    /// The status of the guard of `/userinfo`.
    pub fn userinfo(&self) -> GuardStatus {
        userinfo_of(&self.service)
    }

    pub fn userinfo_is_open(&self) -> bool {
        self.userinfo().state == State::Open
    }

    /// How many calls to `/userinfo` the tenant has counted since they were last forgotten.
    pub fn calls(&self) -> u64 {
        self.tenant.calls().userinfo
    }

    /// How many of them it answered with this status.
    pub fn answered(&self, status: u16) -> u64 {
        self.tenant.calls().userinfo_by_status.get(&status).copied().unwrap_or_default()
    }

    /// Counts calls from zero again; the row of the table has them all.
    pub fn forget_calls(&mut self) {
        self.tally.calls += self.calls();
        self.tenant.reset_calls();
    }

    /// Users that the tenant knows from now on, each with a token that names no email and outlives every
    /// tier.
    pub fn users(&self, name: &str, count: usize) -> Vec<String> {
        (0..count)
            .map(|number| {
                let subject = format!("auth0|{name}-{number}");
                self.tenant.add_user(User::new(&subject).email(format!("{name}-{number}@example.com")));
                self.token(&subject)
            })
            .collect()
    }

    pub fn token(&self, subject: &str) -> String {
        let life = i64::try_from(400 * DAY).unwrap();
        self.tenant.mint().algorithm("ES256").subject(subject).expires_in(life).build().unwrap()
    }

    /// Users whom holdfast knows: each has been here once. The clock moves on so that the budget allows it.
    pub async fn known_users(&mut self, name: &str, count: usize) -> Vec<String> {
        let tokens = self.users(name, count);
        let budget = self.userinfo().budget;
        for some in tokens.chunks(budget.burst as usize) {
            self.advance((f64::from(budget.burst) / budget.rate).ceil() as u64);
            assert_eq!(self.ask_all(some).await.statuses(), vec![200; some.len()]);
        }
        tokens
    }

    /// Moves the clock on by seconds, the tenant's too.
    pub fn advance(&self, seconds: u64) {
        self.advance_by(Duration::from_secs(seconds));
    }

    pub fn advance_by(&self, time: Duration) {
        self.clock.advance(time);
        self.tenant.hold_time_at(self.clock.now().since(Timestamp::EPOCH));
    }

    pub async fn ask(&mut self, token: &str) -> Reply {
        self.ask_all(&[token.to_owned()]).await.0.pop().unwrap()
    }

    /// All at the same time; the replies in the order of the tokens.
    pub async fn ask_all(&mut self, tokens: &[String]) -> Replies {
        let asking: Vec<_> = tokens.iter().map(|token| tokio::spawn(self.request(token))).collect();
        let mut replies = Vec::new();
        for asking in asking {
            replies.push(asking.await.unwrap());
        }
        self.told(replies)
    }

    /// Requests under way, each with how long it took; give their results to [`Stage::told`].
    pub fn asking(&self, tokens: &[String]) -> JoinSet<(Reply, Duration)> {
        tokens.iter().map(|token| self.request(token)).collect()
    }

    /// One request, made when it is polled; give its result to [`Stage::told`].
    pub fn request(&self, token: &str) -> impl Future<Output = (Reply, Duration)> + Send + 'static {
        let next = self.asked.fetch_add(1, Ordering::Relaxed) % (1 + self.others.len());
        let own = next.checked_sub(1).map_or(&self.socket, |other| &self.others[other].1);
        let socket = self.front.as_ref().map_or(own, |front| &front.socket).clone();
        let request = format!(
            "GET /auth HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        async move {
            let started = Instant::now();
            (exchange_unix(&socket, request.as_bytes()).await, started.elapsed())
        }
    }

    pub fn told(&mut self, replies: Vec<(Reply, Duration)>) -> Replies {
        for (reply, took) in &replies {
            self.tally.count(reply.status, *took);
        }
        Replies(replies.into_iter().map(|(reply, _)| reply).collect())
    }

    /// The sum of the samples whose line begins with `name` and contains `label`.
    pub async fn counted(&self, name: &str, label: &str) -> u64 {
        let metrics = self.metrics().await;
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let stream = TcpStream::connect(self.service.admin_address()).await.unwrap();
        exchange(stream, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.body
    }

    /// The drill is over: prints its row of the table.
    pub fn row(&self) {
        self.tally.row(self.calls());
    }
}

/// An instance that listens at this socket and knows the keys.
async fn started(socket: &Path, config: &str, tenant: &Tenant, clock: &Clock) -> Service {
    let text = format!(
        "[auth]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[issuer]]\nurl = \"{}\"\naudience = [\"{}\"]\nalgorithms = [\"ES256\"]\n{config}",
        socket.display(),
        tenant.issuer(),
        tenant.audience()
    );
    let service = Service::start(Source::text("drill.toml", &text), clock.clone()).await.unwrap();
    let issuer = service.instance().issuers.iter().next().unwrap().clone();
    until("keys", async || issuer.is_ready().then_some(())).await;
    service
}

fn userinfo_of(service: &Service) -> GuardStatus {
    let instance = service.instance();
    let issuer = instance.issuers.iter().next().unwrap();
    issuer.endpoints().find(|endpoint| endpoint.name() == "userinfo").unwrap().status()
}

#[derive(Debug)]
pub struct Replies(pub Vec<Reply>);

impl Replies {
    pub fn statuses(&self) -> Vec<u16> {
        self.0.iter().map(|reply| reply.status).collect()
    }

    pub fn count(&self, status: u16) -> usize {
        self.0.iter().filter(|reply| reply.status == status).count()
    }

    /// How many were answered as of this tier.
    pub fn of_tier(&self, tier: &str) -> usize {
        self.0.iter().filter(|reply| reply.is_of_tier(tier)).count()
    }
}

impl Reply {
    /// Whether it is as of this tier. The backend's page names it if nginx is in front.
    pub fn is_of_tier(&self, tier: &str) -> bool {
        self.header("x-auth-tier") == [tier] || self.body.contains(&format!("X-Auth-Tier: {tier}\n"))
    }
}

/// nginx as in `examples/nginx/`, asking holdfast over TCP.
struct Front {
    socket: PathBuf,
    nginx: Child,
    _backend: EchoBackend,
    _directory: TempDir,
}

impl Front {
    async fn start(holdfast: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let backend = EchoBackend::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx");
        let mut text = std::fs::read_to_string(example.join("nginx.conf")).unwrap();
        for (from, to) in [
            ("127.0.0.1:8080", format!("unix:{}", path("other.sock"))),
            ("127.0.0.1:8081", format!("unix:{}", path("front.sock"))),
            ("127.0.0.1:4191", backend.address().to_string()),
            ("127.0.0.1:4180", holdfast.to_owned()),
        ] {
            assert!(text.contains(from), "the example does not say {from:?}");
            text = changed(&text, from, &to);
        }
        std::fs::write(directory.path().join("nginx.conf"), text).unwrap();
        std::os::unix::fs::symlink(example.join("snippets"), directory.path().join("snippets")).unwrap();
        let nginx = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off;", "-p"])
            .arg(directory.path())
            .env("PATH", path_to_servers())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run nginx; was `make setup` run? {error}"));
        let socket = directory.path().join("front.sock");
        until("nginx listens", async || UnixStream::connect(&socket).await.ok()).await;
        Self { socket, nginx, _backend: backend, _directory: directory }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx goes before its directory does.
        let _ = self.nginx.start_kill();
    }
}

/// Debian keeps servers where only root looks.
pub fn path_to_servers() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap())
}
