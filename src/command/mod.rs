//! The commands, one file each.

/// Replaces the macro of the standard library, which panics if stdout is closed, as in `holdfast check | head
/// -1`.
macro_rules! println {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod address_space;
mod admin;
mod breaker;
mod check;
mod config;
mod copies;
mod health;
mod import;
mod inspect;
mod operator;
mod packaging;
mod purge;
mod reach;
mod revoke;
mod serve;
mod threads;
mod tiers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use holdfast::config::{ConfigErrors, Flag, Settings, Source};
use holdfast::telemetry::lines;

/// Verifies tokens for nginx, Traefik, Caddy, Envoy and HAProxy, even while Auth0 is down.
#[derive(Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer a proxy's auth requests.
    #[command(after_help = "Examples:
  holdfast serve --issuer https://tenant.eu.auth0.com/ --audience https://api.example.com
  holdfast serve --config /etc/holdfast/holdfast.toml --listen unix:/run/holdfast/auth.sock")]
    Serve(SourceArguments),
    /// Check the configuration, and that the issuers answer.
    #[command(after_help = "Examples:
  holdfast check --config /etc/holdfast/holdfast.toml
  holdfast check --config holdfast.toml --offline")]
    Check(check::CheckArguments),
    /// Print the settings that are set, and where each is set; passwords are masked.
    #[command(after_help = "Examples:
  holdfast config --config /etc/holdfast/holdfast.toml")]
    Config(config::ConfigArguments),
    /// Explain how a token would be answered, and why.
    #[command(after_help = "Examples:
  holdfast inspect --config holdfast.toml --file token.txt
  holdfast inspect --config holdfast.toml --file token.txt --require 'scope=read:orders&role=admin'
  holdfast inspect --config holdfast.toml --file token.txt --json --ask")]
    Inspect(inspect::InspectArguments),
    /// Back up the records in the data directory, also while holdfast runs.
    #[command(after_help = "Examples:
  holdfast backup --config holdfast.toml --to /var/backups/holdfast-monday")]
    Backup(copies::BackupArguments),
    /// Replace the records in the data directory with a backup.
    #[command(after_help = "Examples:
  holdfast restore --config holdfast.toml --from /var/backups/holdfast-monday")]
    Restore(copies::RestoreArguments),
    /// Import user profiles from the issuer's export, so that no call is needed for these users.
    #[command(after_help = "Examples:
  holdfast import --config holdfast.toml --profiles users.ndjson.gz
  holdfast import --config holdfast.toml --profiles users.csv --exported-at 2026-03-01T12:00:00Z")]
    Import(import::ImportArguments),
    /// Show the tiers in force, and how often each tier answered.
    #[command(after_help = "Examples:
  holdfast tiers --config holdfast.toml")]
    Tiers(reach::AdminArguments),
    /// Make the running holdfast forget a subject, a token, or everybody.
    #[command(after_help = "Examples:
  holdfast purge --config holdfast.toml --subject 'auth0|5f7c8ec7c33c6c004bbafe82'
  holdfast purge --config holdfast.toml --token-file token.txt")]
    Purge(purge::PurgeArguments),
    /// Refuse the tokens of a subject, a session, a key or everybody, or list what is revoked.
    #[command(after_help = "Examples:
  holdfast revoke --config holdfast.toml --subject 'auth0|5f7c8ec7c33c6c004bbafe82'
  holdfast revoke --config holdfast.toml --all --issued-before 2026-03-01T12:00:00Z
  holdfast revoke --config holdfast.toml --list")]
    Revoke(revoke::RevokeArguments),
    /// Lift a revocation.
    #[command(after_help = "Examples:
  holdfast unrevoke --config holdfast.toml --subject 'auth0|5f7c8ec7c33c6c004bbafe82'")]
    Unrevoke(revoke::UnrevokeArguments),
    /// Show the running holdfast's circuit breakers, force them open or closed, or reset them.
    #[command(after_help = "Examples:
  holdfast breaker status
  holdfast breaker force-open --endpoint userinfo --for 30min
  holdfast breaker reset")]
    Breaker(breaker::BreakerArguments),
    /// Ask whether the running holdfast is alive, for a container's health check.
    #[command(after_help = "Examples:
  holdfast health
  holdfast health --ready --admin 127.0.0.1:9180")]
    Health(health::HealthArguments),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:
  holdfast completions bash > /usr/share/bash-completion/completions/holdfast
  holdfast completions zsh > /usr/share/zsh/vendor-completions/_holdfast
  holdfast completions fish > /usr/share/fish/vendor_completions.d/holdfast.fish")]
    Completions(packaging::CompletionsArguments),
    /// Write the manual pages.
    #[command(after_help = "Examples:
  holdfast man --to /usr/share/man/man1")]
    Man(packaging::ManArguments),
}

/// The sources of the configuration. Flags override variables (`HOLDFAST_SECTION__KEY`), and variables
/// override the file.
#[derive(Args, Default)]
struct SourceArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    issuer: IssuerFlags,
    #[command(flatten)]
    listen: ListenFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    data: DataFlag,
}

// Each struct has one flag, or two that belong together. A command takes only the flags that it uses.

#[derive(Args, Default)]
struct ConfigFlag {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Default)]
struct IssuerFlags {
    /// The issuer's URL, exactly as in the token's `iss`.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// An audience that tokens may name; repeatable.
    #[arg(long, value_name = "AUD")]
    audience: Vec<String>,
}

#[derive(Args, Default)]
struct ListenFlag {
    /// The auth listener: ADDRESS:PORT, tls:ADDRESS:PORT or unix:/PATH; repeatable.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
}

#[derive(Args, Default)]
struct AdminFlag {
    /// The admin listener: ADDRESS:PORT, or tls:ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

#[derive(Args, Default)]
struct DataFlag {
    /// The data directory; without one, everything is kept in memory.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<String>,
}

impl SourceArguments {
    fn source(self) -> Result<Source, ExitCode> {
        let flag = |path, name, values| Flag { path, name, values };
        let environment = environment().map_err(|error| misconfigured(&error))?;
        Ok(Source {
            file: self.config.config,
            text: None,
            environment,
            flags: vec![
                flag(&["issuer", "0", "url"], "--issuer", self.issuer.issuer.into_iter().collect()),
                flag(&["issuer", "0", "audience"], "--audience", self.issuer.audience),
                flag(&["auth", "listen"], "--listen", self.listen.listen),
                flag(&["admin", "listen"], "--admin", self.admin.admin.into_iter().collect()),
                flag(&["store", "path"], "--data", self.data.data.into_iter().collect()),
            ],
        })
    }

    /// Reads the settings. Prints all errors in them to stderr.
    fn read(self) -> Result<(Settings, Source), ExitCode> {
        self.read_by(Settings::read)
    }

    /// Like `read`, for a command that asks no issuer.
    fn read_for_upkeep(self) -> Result<Settings, ExitCode> {
        self.read_by(Settings::read_for_upkeep).map(|(settings, _)| settings)
    }

    fn read_by(
        self,
        read: fn(&Source) -> Result<Settings, ConfigErrors>,
    ) -> Result<(Settings, Source), ExitCode> {
        let source = self.source()?;
        match read(&source) {
            Ok(settings) => Ok((settings, source)),
            Err(errors) => Err(misconfigured(&errors)),
        }
    }
}

/// The variables whose names begin with `HOLDFAST_`. Other variables are not read, and may have values that
/// are not UTF-8.
fn environment() -> Result<Vec<(String, String)>, String> {
    let ours = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.starts_with("HOLDFAST_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(format!("environment variable {name}: its value is not UTF-8")),
        })
        .collect()
}

/// Prints the errors of the configuration.
fn misconfigured(errors: &impl std::fmt::Display) -> ExitCode {
    lines::say(errors);
    ExitCode::from(2)
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(source) => serve::run(source),
            Command::Inspect(arguments) => inspect::run(arguments),
            Command::Check(arguments) => check::run(arguments),
            Command::Backup(arguments) => copies::backup(arguments),
            Command::Restore(arguments) => copies::restore(arguments),
            Command::Import(arguments) => import::run(arguments),
            Command::Tiers(arguments) => tiers::run(arguments),
            Command::Purge(arguments) => purge::run(arguments),
            Command::Revoke(arguments) => revoke::revoke(arguments),
            Command::Unrevoke(arguments) => revoke::unrevoke(arguments),
            Command::Breaker(arguments) => breaker::run(arguments),
            Command::Health(arguments) => health::run(arguments),
            Command::Config(arguments) => config::run(arguments),
            Command::Completions(arguments) => packaging::completions(arguments),
            Command::Man(arguments) => packaging::man(arguments),
        };
        result.map_or_else(|code| code, |()| ExitCode::SUCCESS)
    }
}

/// Prints why a command failed. Does not block if stderr is not read.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    lines::say(format_args!("holdfast: {error}"));
    ExitCode::FAILURE
}

/// As [`fail`], for bad usage.
fn misused(error: impl std::fmt::Display) -> ExitCode {
    fail(error);
    ExitCode::from(2)
}

/// Runs a command's future to its end.
fn block_on<T>(future: impl Future<Output = Result<T, ExitCode>>) -> Result<T, ExitCode> {
    let threads = answering_threads().map_err(|error| misconfigured(&error))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).enable_all().build().map_err(fail)?;
    runtime.block_on(future)
}

/// The number of threads in tokio's own variable. It is read here, because tokio panics if it is not a
/// number.
fn answering_threads() -> Result<usize, String> {
    const VARIABLE: &str = "TOKIO_WORKER_THREADS";
    match std::env::var_os(VARIABLE) {
        None => Ok(default_threads()),
        Some(value) => {
            let number = value.to_str().and_then(|text| text.parse().ok());
            number.filter(|number| (1..=1024).contains(number)).ok_or_else(|| {
                format!("environment variable {VARIABLE} = {value:?}: allowed is a number from 1 to 1024")
            })
        }
    }
}

/// Half the cores. The proxy usually runs on the same machine. One thread answers more requests than a proxy
/// forwards, and waking a second thread for each request costs more than it helps. Long work has threads of
/// its own.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn each_command_has_examples_and_each_example_is_understood() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = examples.lines().skip(1).map(str::trim).collect();
            assert!(!lines.is_empty(), "holdfast {name} --help shows no example");
            for line in lines {
                let words = line.split(" > ").next().unwrap_or_default().split(' ');
                let words: Vec<String> = words.map(|word| word.replace('\'', "")).collect();
                assert_eq!(words[1], name, "{line}");
                if let Err(error) = Arguments::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
