//! `holdfast check`: checks everything that `serve` reads at its start, and that the issuers answer.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use holdfast::clock::Clock;
use holdfast::config::{Settings, mangled};
use holdfast::guard::Priority;
use holdfast::issuer::client::Client;
use holdfast::issuer::{Issuer, IssuerContext};
use holdfast::login::Login;
use holdfast::store::open::{SAME_SECRET, SECRET_FILE, StoreSettings};
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::digest::TokenDigester;
use holdfast::tiers::secret::InstanceSecret;
use holdfast::tls::ServerTls;
use holdfast::token::jwe::DecryptionKeys;

use super::{SourceArguments, block_on, fail, misconfigured};

/// The arguments of `check`.
#[derive(Args)]
pub struct CheckArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Ask no issuer: check only what is on this machine.
    #[arg(long)]
    offline: bool,
}

/// Reads the files that the configuration names, asks every issuer for its discovery document and keys, and
/// prints the results. A value that looks mangled is a warning, not a failure, because it may be intended.
pub fn run(CheckArguments { source, offline }: CheckArguments) -> Result<(), ExitCode> {
    let (settings, source) = source.read()?;
    block_on(async {
        let with = IssuerContext {
            client: Client::new().map_err(fail)?,
            clock: Clock::system(),
            metrics: Arc::new(Metrics::new().map_err(fail)?),
            guard: settings.guard.clone(),
            leeway: settings.policy.leeway,
        };
        let Loaded { issuers, notes } =
            read_files(&settings, &with).map_err(|errors| misconfigured(&errors.join("\n")))?;
        println!("configuration: good");
        println!("budget of calls to each issuer: {}", settings.guard.budget);
        for note in notes {
            println!("{note}");
        }
        for warning in mangled::warnings(&source, &settings) {
            println!("warning: {warning}");
        }
        let mut all_answer = true;
        for issuer in issuers {
            if offline {
                println!("issuer {}: not asked", issuer.name());
            } else {
                match issuer.refresh(Priority::Foreground).await {
                    Ok(()) => {
                        println!("issuer {}: answers; keys: {}", issuer.name(), issuer.key_ids().join(", "));
                        all_answer &= introspects(&issuer).await;
                    }
                    Err(error) => {
                        all_answer = false;
                        println!("issuer {}: {error}", issuer.name());
                    }
                }
            }
            if !issuer.settings().aliases.is_empty() {
                println!("  also named {}", issuer.settings().aliases.join(", "));
            }
            for key in issuer.skipped_keys() {
                println!("  a key is not used: {key}");
            }
            for key in issuer.decryption_keys().describe() {
                let id = key.kid.as_deref().unwrap_or("no kid");
                println!("  decryption key {id} ({}) from {}", key.kty, key.file.display());
            }
        }
        if all_answer { Ok(()) } else { Err(ExitCode::FAILURE) }
    })
}

/// Whether introspection works, if it is configured; prints the result.
async fn introspects(issuer: &Arc<Issuer>) -> bool {
    if issuer.settings().introspection.is_none() {
        return true;
    }
    match issuer.test_introspection(Priority::Foreground).await {
        Ok(()) => {
            println!("  introspection: answers");
            true
        }
        Err(error) => {
            println!("  introspection: {error}");
            false
        }
    }
}

/// The contents of the files that the configuration names.
struct Loaded {
    /// The issuers, with their keys.
    issuers: Vec<Arc<Issuer>>,
    /// Lines about the other files.
    notes: Vec<String>,
}

/// Reads the files, or returns all errors in them.
fn read_files(settings: &Settings, with: &IssuerContext) -> Result<Loaded, Vec<String>> {
    let (mut issuers, mut notes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for tls in settings.auth.tls.iter().chain(&settings.admin.tls) {
        match ServerTls::load(tls) {
            Ok(loaded) => {
                let (table, file, until) = (tls.table, tls.certificate.display(), loaded.expires());
                notes.push(format!("{table}: certificate {file} is good until {until}"));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Some(login) = &settings.login {
        match Login::load(login) {
            Ok(_) => notes.push(format!("login: browsers are sent to {}", login.url)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Some(path) = &settings.store.path
        && let Err(error) = is_writable(path)
    {
        errors.push(format!("store.path: nothing can be kept in {}: {error}", path.display()));
    }
    if let Some(file) = &settings.store.secret_file
        && let Err(error) = InstanceSecret::load(file)
    {
        errors.push(format!("store.secret_file: {error}"));
    }
    if let Some(old) = &settings.store.secret_file_old {
        match InstanceSecret::load(old) {
            Err(error) => errors.push(format!("store.secret_file_old: {error}")),
            Ok(old) if is_current(&old, &settings.store) => errors.push(SAME_SECRET.to_owned()),
            Ok(_) => {}
        }
    }
    for issuer in &settings.issuers {
        match Issuer::new(issuer.clone(), with, None, Box::new(|_, _| {})) {
            Ok(issuer) => issuers.push(issuer),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.decryption_keys().clone()).collect();
    if let Err(error) = DecryptionKeys::union(&keys) {
        errors.push(error.to_string());
    }
    if errors.is_empty() { Ok(Loaded { issuers, notes }) } else { Err(errors) }
}

/// Whether this is the secret in `secret_file` or in the data directory. A file that cannot be read is
/// reported elsewhere.
fn is_current(secret: &InstanceSecret, store: &StoreSettings) -> bool {
    let file = store.secret_file.clone().or_else(|| Some(store.path.as_ref()?.join(SECRET_FILE)));
    let current = file.and_then(|file| InstanceSecret::load(&file).ok());
    let digest = |secret: &InstanceSecret| Some(TokenDigester::new(secret).ok()?.token(b""));
    current.is_some_and(|current| digest(&current) == digest(secret))
}

/// Whether files can be created in the directory, or in its nearest existing ancestor: `serve` creates the
/// directory, `check` leaves nothing behind.
fn is_writable(directory: &Path) -> io::Result<()> {
    let existing = directory.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let trial = existing.join(format!(".holdfast-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&trial)?;
    fs::remove_file(&trial)
}
