//! `holdfast purge`: the running holdfast forgets.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast::config::Settings;
use holdfast::server::purge::PurgeRequest;
use reqwest::StatusCode;

use super::reach::{AdminArguments, reach};
use super::revoke::read_token;
use super::{SourceArguments, block_on, fail};

/// The exit code when a store that is not well has still to forget.
const UNFINISHED: u8 = 3;

/// What is to be forgotten. `--issuer` narrows `--subject` to that issuer's.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["subject", "token_file", "all"])))]
pub struct PurgeArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// The issuer whose subject it is, exactly as in the token's `iss`; without it, every issuer's.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The subject (`sub`) to forget.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// A file with the token to forget; on a command line, others could read it.
    #[arg(long, value_name = "FILE", conflicts_with = "issuer")]
    token_file: Option<PathBuf>,
    /// Forget everybody. Asks first, on a terminal.
    #[arg(long, conflicts_with = "issuer")]
    all: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Asks for the purge and says what came of it.
pub fn run(arguments: PurgeArguments) -> Result<(), ExitCode> {
    let PurgeArguments { admin, issuer, subject, token_file, all, yes } = arguments;
    let any = admin.any;
    let settings: Settings = SourceArguments::from(admin).read_for_upkeep()?;
    let token = token_file.as_deref().map(read_token).transpose()?;
    let request = serde_json::to_string(&PurgeRequest { subject, issuer, token, all }).map_err(fail)?;
    block_on(async {
        let admin = reach(&settings, any).await.map_err(fail)?;
        if all && !yes && io::stdin().is_terminal() && !is_confirmed(settings.admin.listen) {
            return Err(fail("nobody was forgotten"));
        }
        let (status, said) = admin.order("/purge", request).await.map_err(fail)?;
        print!("{said}");
        // Forgotten in memory, and in the other stores only if holdfast lives until they are well.
        if status == StatusCode::ACCEPTED { Err(ExitCode::from(UNFINISHED)) } else { Ok(()) }
    })
}

fn is_confirmed(instance: SocketAddr) -> bool {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "Forget everybody whom holdfast at {instance} knows? [y/N] ");
    asked.and_then(|()| io::stdin().read_line(&mut answer)).is_ok() && answer.trim().eq_ignore_ascii_case("y")
}
