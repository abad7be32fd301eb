//! The commands, one file each.

mod admin;
mod breaker;
mod check;
mod copies;
mod inspect;
mod purge;
mod serve;
mod tiers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use holdfast::config::{ConfigErrors, Flag, Settings, Source};

/// A ForwardAuth sidecar: verifies tokens for nginx and Traefik, and keeps answering when Auth0 does not.
#[derive(Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer a proxy's auth requests.
    Serve(SourceArguments),
    /// Check the configuration, and that the issuers answer.
    Check(SourceArguments),
    /// Explain what would be answered to a token, and why.
    Inspect(inspect::InspectArguments),
    /// Copy the data directory's records, also while holdfast runs.
    Backup(copies::BackupArguments),
    /// Put a backup in the place of the data directory's records.
    Restore(copies::RestoreArguments),
    /// Show the tiers in force, and what they answered so far.
    Tiers(SourceArguments),
    /// Have the running holdfast forget a subject, a token, or everybody.
    Purge(purge::PurgeArguments),
    /// Show the circuit breakers of the running holdfast, force them open or closed for a time, or reset them.
    Breaker(breaker::BreakerArguments),
}

/// Where the configuration comes from. Flags win over variables (`HOLDFAST_SECTION__KEY`), variables over the file.
#[derive(Args)]
struct SourceArguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The issuer's URL, exactly as in the token's `iss`.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// An audience that tokens may name; repeatable.
    #[arg(long, value_name = "AUD")]
    audience: Vec<String>,
    /// Where proxies ask: ADDRESS:PORT or unix:/PATH; repeatable.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where metrics and health are: ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The data directory; without one, everything is kept in memory.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<String>,
}

impl SourceArguments {
    fn source(self) -> Source {
        let flag = |path, name, values| Flag { path, name, values };
        Source {
            file: self.config,
            text: None,
            environment: std::env::vars().collect(),
            flags: vec![
                flag(&["issuer", "0", "url"], "--issuer", self.issuer.into_iter().collect()),
                flag(&["issuer", "0", "audience"], "--audience", self.audience),
                flag(&["auth", "listen"], "--listen", self.listen),
                flag(&["admin", "listen"], "--admin", self.admin.into_iter().collect()),
                flag(&["store", "path"], "--data", self.data.into_iter().collect()),
            ],
        }
    }

    /// Reads the settings, telling on stderr all that is wrong with them.
    fn read(self) -> Result<(Settings, Source), ExitCode> {
        self.read_by(Settings::read)
    }

    /// The same for a command that asks no issuer.
    fn read_for_upkeep(self) -> Result<Settings, ExitCode> {
        self.read_by(Settings::read_for_upkeep).map(|(settings, _)| settings)
    }

    fn read_by(
        self,
        read: fn(&Source) -> Result<Settings, ConfigErrors>,
    ) -> Result<(Settings, Source), ExitCode> {
        let source = self.source();
        match read(&source) {
            Ok(settings) => Ok((settings, source)),
            Err(errors) => {
                eprintln!("{errors}");
                Err(ExitCode::from(2))
            }
        }
    }
}

impl Arguments {
    /// Does what was asked for.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(source) => {
                source.read().and_then(|(settings, source)| serve::run(settings, source))
            }
            Command::Inspect(arguments) => inspect::run(arguments),
            Command::Check(source) => source.read().and_then(|(settings, _)| check::run(settings)),
            Command::Backup(arguments) => copies::backup(arguments),
            Command::Restore(arguments) => copies::restore(arguments),
            Command::Tiers(source) => source.read_for_upkeep().and_then(|settings| tiers::run(&settings)),
            Command::Purge(arguments) => purge::run(arguments),
            Command::Breaker(arguments) => breaker::run(arguments),
        };
        result.map_or_else(|code| code, |()| ExitCode::SUCCESS)
    }
}

/// Tells why a command failed.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::FAILURE
}

/// Runs a command's future to its end.
fn block_on<T>(future: impl Future<Output = Result<T, ExitCode>>) -> Result<T, ExitCode> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // tokio reads this variable itself, if it is not told a number.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(answering_threads());
    }
    let runtime = builder.enable_all().build().map_err(fail)?;
    runtime.block_on(future)
}

/// Half the cores. The proxy usually runs on the same machine, one thread answers more requests than a proxy puts through,
/// and waking a second one for each of them costs more than it helps. What takes long has threads of its own.
fn answering_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).div_ceil(2)
}
