//! The command line; nothing else.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::Arguments::parse().run()
}
