//! `holdfast health`: checks whether the running holdfast is alive, for images without an HTTP client.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::admin::Admin;
use super::{AdminFlag, ConfigFlag, SourceArguments, block_on, fail};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The arguments of `health`.
#[derive(Args)]
pub struct HealthArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    admin: AdminFlag,
    /// Ask whether it is ready, that is, knows the keys of every issuer.
    #[arg(long)]
    ready: bool,
}

/// Succeeds if the running holdfast answers that it is alive, or ready with `--ready`.
pub fn run(HealthArguments { config, admin, ready }: HealthArguments) -> Result<(), ExitCode> {
    let settings = SourceArguments { config, admin, ..SourceArguments::default() }.read_for_upkeep()?;
    block_on(async {
        let admin = Admin::with_timeout(&settings.admin, TIMEOUT).map_err(fail)?;
        let said = admin.get(if ready { "/readyz" } else { "/healthz" }).await.map_err(fail)?;
        println!("{}", said.trim_end());
        Ok(())
    })
}
