//! `holdfast config`: prints the settings that are set, and where each is set.

use std::process::ExitCode;

use clap::Args;

use super::{SourceArguments, misconfigured};

/// Which configuration is shown.
#[derive(Args)]
pub struct ConfigArguments {
    #[command(flatten)]
    source: SourceArguments,
}

/// Prints a line for each setting, in the order of the keys, with its source as a comment. Passwords are
/// masked. The configuration must be good: a bad value might be a mistyped password.
pub fn run(ConfigArguments { source }: ConfigArguments) -> Result<(), ExitCode> {
    let (_, source) = source.read_by(holdfast::config::Settings::read_for_upkeep)?;
    let written = source.written().map_err(|error| misconfigured(&error))?;
    for setting in written {
        println!("{} = {}  # {}", setting.key, setting.value, setting.origin);
    }
    println!("# Every other setting has its default; see docs/configuration.md.");
    Ok(())
}
