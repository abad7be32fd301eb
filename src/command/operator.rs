//! Sends operator requests that change what the running holdfast knows of users: `purge`, `revoke`,
//! `unrevoke`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use reqwest::StatusCode;

use super::admin::AdminError;
use super::reach::{AdminArguments, reach};
use super::{SourceArguments, block_on, fail, misused};

/// The exit code when the change is in force in memory, and a degraded store does not have it yet.
const UNFINISHED: u8 = 3;

/// The question before a change that concerns everybody, and the message if the answer is no.
pub(super) struct Confirmation {
    /// The question without the instance and the question mark.
    pub(super) question: &'static str,
    /// The message if the answer is no.
    pub(super) declined: &'static str,
}

/// Sends `request` to `path` and prints the answer. On a terminal, `confirmation` is asked for first.
pub(super) fn send(
    to: AdminArguments,
    path: &str,
    request: String,
    confirmation: Option<Confirmation>,
) -> Result<(), ExitCode> {
    let any = to.any;
    let settings = SourceArguments::from(to).read_for_upkeep()?;
    block_on(async {
        let admin = reach(&settings, any).await.map_err(fail)?;
        if let Some(Confirmation { question, declined }) = confirmation
            && io::stdin().is_terminal()
            && !is_confirmed(&format!("{question} holdfast at {}?", settings.admin.listen))
        {
            return Err(fail(declined));
        }
        let (status, said) = admin.post_for_status(path, request).await.map_err(|error| match error {
            // A request that is refused for its content is refused each time.
            AdminError::Refused { status: StatusCode::BAD_REQUEST, .. } => misused(error),
            error => fail(error),
        })?;
        print!("{said}");
        // It is in force in memory. The degraded stores get it only if holdfast runs until they recover.
        if status == StatusCode::ACCEPTED { Err(ExitCode::from(UNFINISHED)) } else { Ok(()) }
    })
}

fn is_confirmed(question: &str) -> bool {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ");
    asked.and_then(|()| io::stdin().read_line(&mut answer)).is_ok() && answer.trim().eq_ignore_ascii_case("y")
}
