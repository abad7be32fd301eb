//! `holdfast completions` and `holdfast man`: a package's completion scripts and manual pages, made from the
//! same description as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, fail};

/// The script's shell.
#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

/// Where the pages go.
#[derive(Args)]
pub struct ManArguments {
    /// An existing directory. A page of the same name in it is replaced.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
}

/// Prints the completion script.
pub fn completions(CompletionsArguments { shell }: CompletionsArguments) -> Result<(), ExitCode> {
    // Into memory first: the generator panics if its writer fails, as stdout does when it is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "holdfast", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(fail)
}

/// Writes `holdfast.1`, and a page for each command.
pub fn man(ManArguments { to }: ManArguments) -> Result<(), ExitCode> {
    clap_mangen::generate_to(Arguments::command(), &to)
        .map_err(|error| fail(format_args!("the pages cannot be written into {}: {error}", to.display())))
}
