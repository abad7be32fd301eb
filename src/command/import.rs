//! `holdfast import`: imports the issuer's user export into a running holdfast, or into the data directory of
//! a stopped one.

mod csv;
mod input;
mod json;
mod users;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use holdfast::clock::{Clock, Timestamp};
use holdfast::config::Settings;
use holdfast::identity::importer::{Importer, Outcome};
use holdfast::instance;
use holdfast::issuer::settings::IssuerSettings;
use holdfast::server::import::ImportRequest;
use holdfast::store::archive::Archive;
use holdfast::store::stores::Stores;
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::policy::{Known, RecordKind};
use holdfast::token::json::Object;

use self::users::{Entry, Users};
use super::admin::{Admin, AdminError};
use super::reach::{AnyInstance, reach};
use super::{AdminFlag, ConfigFlag, DataFlag, SourceArguments, block_on, fail, misused};

/// The exit code when some users were skipped.
const SKIPPED: u8 = 3;

/// The most users of a batch. Each batch is stored and synced at once.
const BATCH: usize = 2000;
/// A batch ends when its users have this much text, in bytes.
const BATCH_BYTES: usize = 512 * 1024;

/// How many skipped users are listed.
const NAMED: usize = 20;

/// The size of the memory store when importing into a data directory, in bytes.
const MEMORY: u64 = 1024 * 1024;

/// The arguments of `import`.
#[derive(Args)]
pub struct ImportArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    data: DataFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    any: AnyInstance,
    /// The export: a JSON object per line, a JSON array, or CSV with a header; also gzip.
    #[arg(long, value_name = "FILE")]
    profiles: PathBuf,
    /// The issuer of these users, if several are configured.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// When the export was made, as 2026-01-31T12:00:00Z. Default: the file's time.
    #[arg(long, value_name = "TIME")]
    exported_at: Option<String>,
}

/// Where the users are imported to.
enum Destination {
    Directory(Box<Importer>),
    Running { admin: Admin, issuer: String, exported_at: Timestamp },
}

/// The counts of the import so far.
#[derive(Default)]
struct Report {
    read: u64,
    kept: u64,
    known: u64,
    skipped: u64,
    named: Vec<String>,
}

/// Imports the users, and prints the counts.
pub fn run(arguments: ImportArguments) -> Result<(), ExitCode> {
    let ImportArguments { config, data, admin, any, profiles, issuer, exported_at } = arguments;
    let settings = SourceArguments { config, data, admin, ..SourceArguments::default() }.read_for_upkeep()?;
    let clock = Clock::system();
    let issuer = named(&settings, issuer.as_deref()).map_err(misused)?.clone();
    let exported_at = time_of_export(&profiles, exported_at.as_deref(), clock.now()).map_err(misused)?;
    let policy = instance::policy(&settings).map_err(misused)?;
    let known = Known { kind: RecordKind::Profile, verified_at: exported_at, not_after: None };
    if policy.useless_from(&known) <= clock.now() {
        return Err(misused(format!(
            "the export of {} is older than the oldest tier: none of its profiles would ever be served",
            date(exported_at)
        )));
    }
    let users = Users::open(&profiles).map_err(|error| misused(cannot_read(&profiles, &error)))?;
    block_on(async {
        let destination = match reach(&settings, any).await {
            Ok(admin) => Destination::Running { admin, issuer: issuer.url, exported_at },
            Err(AdminError::NotThere(_)) => {
                Destination::Directory(Box::new(open(&settings, issuer, exported_at, clock)?))
            }
            Err(error) => return Err(fail(error)),
        };
        let mut report = Report::default();
        let done = import(users, &destination, &mut report).await;
        report.show(exported_at);
        match done {
            Err(error) => Err(fail(format!(
                "the import ended early: {error}; profiles that were kept stay, and a second run of the same \
                 file continues"
            ))),
            Ok(()) if report.read == 0 => Err(fail(format!("there is no user in {}", profiles.display()))),
            Ok(()) if report.skipped > 0 => Err(ExitCode::from(SKIPPED)),
            Ok(()) => Ok(()),
        }
    })
}

async fn import(users: Users, destination: &Destination, report: &mut Report) -> Result<(), String> {
    let (mut lines, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut broken = None;
    for entry in users {
        let Entry { line, user } = match entry {
            Ok(entry) => entry,
            Err(why) => {
                broken = Some(why);
                break;
            }
        };
        report.read += 1;
        match user {
            Err(why) => report.skip(line, &why),
            Ok(user) => {
                bytes += user.values().filter_map(|value| value.as_str()).map(str::len).sum::<usize>();
                lines.push(line);
                batch.push(user);
            }
        }
        if batch.len() == BATCH || bytes >= BATCH_BYTES {
            destination.keep(&mut batch, &mut lines, report).await?;
            bytes = 0;
        }
    }
    destination.keep(&mut batch, &mut lines, report).await?;
    broken.map_or(Ok(()), Err)
}

impl Destination {
    /// Stores a batch, and empties it.
    async fn keep(
        &self,
        users: &mut Vec<Object>,
        lines: &mut Vec<u64>,
        report: &mut Report,
    ) -> Result<(), String> {
        let (users, lines) = (std::mem::take(users), std::mem::take(lines));
        if users.is_empty() {
            return Ok(());
        }
        let outcome = match self {
            Self::Directory(importer) => importer.keep(&users).await.map_err(|error| error.to_string())?,
            Self::Running { admin, issuer, exported_at } => {
                let request =
                    ImportRequest { issuer: issuer.clone(), exported_at: exported_at.as_millis(), users };
                let request = serde_json::to_string(&request).map_err(|error| error.to_string())?;
                let said = admin.post("/import", request).await.map_err(|error| error.to_string())?;
                serde_json::from_str(&said).map_err(|error| format!("the answer of /import: {error}"))?
            }
        };
        report.add(&outcome, &lines);
        Ok(())
    }
}

impl Report {
    fn add(&mut self, outcome: &Outcome, lines: &[u64]) {
        self.kept += outcome.kept;
        self.known += outcome.known;
        for refused in &outcome.refused {
            self.skip(lines.get(refused.index).copied().unwrap_or_default(), &refused.why);
        }
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r{} users read, {} kept", self.read, self.kept);
        }
    }

    fn skip(&mut self, line: u64, why: &str) {
        self.skipped += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("line {line}: {why}"));
        }
    }

    fn show(&self, exported_at: Timestamp) {
        if io::stderr().is_terminal() {
            let _ = writeln!(io::stderr());
        }
        println!("users read, as of {}: {}", date(exported_at), self.read);
        println!("kept: {}", self.kept);
        println!("known already, as young or younger: {}", self.known);
        println!("skipped: {}", self.skipped);
        for named in &self.named {
            println!("  {named}");
        }
        if self.skipped > NAMED as u64 {
            println!("  and {} more", self.skipped - NAMED as u64);
        }
    }
}

/// The issuer of the users: the one named `name`, or the only one.
fn named<'s>(settings: &'s Settings, name: Option<&str>) -> Result<&'s IssuerSettings, String> {
    let all = || settings.issuers.iter().map(|issuer| issuer.url.as_str()).collect::<Vec<_>>().join(", ");
    match (name, settings.issuers.as_slice()) {
        (_, []) => Err("no issuer is configured: name the configuration with --config".to_owned()),
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(format!("several issuers are configured: name one of them with --issuer: {}", all()))
        }
        (Some(name), issuers) => issuers
            .iter()
            .find(|issuer| issuer.is_named(name))
            .ok_or_else(|| format!("no issuer {name:?} is configured; configured are {}", all())),
    }
}

/// When the export was made. Never in the future, because a record from the future would be served too long.
fn time_of_export(file: &Path, given: Option<&str>, now: Timestamp) -> Result<Timestamp, String> {
    let Some(given) = given else {
        let changed = std::fs::metadata(file).and_then(|metadata| metadata.modified());
        return changed.map(|at| timestamp(at).min(now)).map_err(|error| cannot_read(file, &error));
    };
    let time = humantime::parse_rfc3339_weak(given)
        .map_err(|_| format!("--exported-at {given:?}: a time looks like 2026-01-31T12:00:00Z"))?;
    let time = timestamp(time);
    if time <= now { Ok(time) } else { Err(format!("--exported-at {given}: the time is in the future")) }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.after(since)
}

/// Opens the data directory of a stopped holdfast.
fn open(
    settings: &Settings,
    issuer: IssuerSettings,
    exported_at: Timestamp,
    clock: Clock,
) -> Result<Importer, ExitCode> {
    let admin = settings.admin.listen;
    let disk = settings.store.disk().ok_or_else(|| {
        misused(format!(
            "no holdfast answers at {admin}, and no data directory is configured: set store.path in the \
             file, or --data; or name the address of a running holdfast with --admin"
        ))
    })?;
    eprintln!("no holdfast answers at {admin}; importing into the data directory {}:", disk.path.display());
    let metrics = Arc::new(Metrics::new().map_err(fail)?);
    let secret_file = settings.store.secret_file.as_deref();
    let (mut archive, mut digester) =
        Archive::open(disk, secret_file, clock, metrics.clone()).map_err(fail)?;
    if let Some(old) = &settings.store.secret_file_old {
        (archive, digester) = archive.rotating(digester, old, None).map_err(fail)?;
    }
    let policy = instance::policy(settings).map_err(misused)?;
    Ok(Importer {
        issuer,
        require_verified_email: settings.policy.require_verified_email,
        digester: Arc::new(digester),
        stores: Arc::new(Stores::new(MEMORY, Some(Arc::new(archive)), policy, metrics)),
        exported_at,
    })
}

fn cannot_read(file: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", file.display())
}

fn date(at: Timestamp) -> String {
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at.as_secs());
    humantime::format_rfc3339_seconds(at).to_string()
}
