//! `holdfast purge`: the running holdfast forgets.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast::server::purge::PurgeRequest;

use super::fail;
use super::operator::{self, Confirmation};
use super::reach::AdminArguments;
use super::revoke::read_token;

/// What to forget. `--issuer` limits `--subject` to that issuer.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["subject", "token_file", "all"])))]
pub struct PurgeArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// The subject's issuer, exactly as in the token's `iss`. Default: every issuer.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The subject (`sub`) to forget.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// A file with the token to forget, so that other users cannot read it.
    #[arg(long, value_name = "FILE", conflicts_with = "issuer")]
    token_file: Option<PathBuf>,
    /// Forget everybody. Asks for confirmation on a terminal.
    #[arg(long, conflicts_with = "issuer")]
    all: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

/// Posts the purge, and prints the answer.
pub fn run(arguments: PurgeArguments) -> Result<(), ExitCode> {
    let PurgeArguments { admin, issuer, subject, token_file, all, yes } = arguments;
    let token = token_file.as_deref().map(read_token).transpose()?;
    let request = serde_json::to_string(&PurgeRequest { subject, issuer, token, all }).map_err(fail)?;
    let confirmation =
        Confirmation { question: "Forget everybody who is known to", declined: "nobody was forgotten" };
    operator::send(admin, "/purge", request, (all && !yes).then_some(confirmation))
}
