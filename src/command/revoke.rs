//! `holdfast revoke` and `holdfast unrevoke`: make the running holdfast refuse valid tokens, or lift a
//! revocation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use holdfast::server::revoke::RevocationRequest;
use serde_json::Value;

use super::operator::{self, Confirmation};
use super::reach::{AdminArguments, reach};
use super::{SourceArguments, block_on, fail};

/// The flags that name a target. Each command takes exactly one of them.
const TARGETS: [&str; 5] = ["subject", "session", "token_file", "kid", "all"];

/// What to refuse. Tokens that are issued later pass.
#[derive(Args)]
#[command(group(ArgGroup::new("target").required(true).args(TARGETS).arg("list")))]
pub struct RevokeArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Refuse tokens issued until this time, as 2026-01-31T12:00:00Z. Default: now.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["token_file", "list"])]
    issued_before: Option<String>,
    /// Do not ask for confirmation before everybody is revoked.
    #[arg(long)]
    yes: bool,
    /// List what is revoked.
    #[arg(long, conflicts_with = "issuer")]
    list: bool,
}

/// The revocation to lift.
#[derive(Args)]
#[command(group(ArgGroup::new("target").required(true).args(TARGETS)))]
pub struct UnrevokeArguments {
    #[command(flatten)]
    target: TargetArguments,
}

/// The tokens that are meant.
#[derive(Args)]
struct TargetArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// The issuer, exactly as in the token's `iss`. Default: every issuer.
    #[arg(long, value_name = "URL", conflicts_with = "token_file")]
    issuer: Option<String>,
    /// All tokens of a subject (`sub`).
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// All tokens of a session (`sid`, or what `revocation.session_claims` names).
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// The token in this file, so that other users cannot read it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// All tokens signed with the key of this `kid`.
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// All tokens.
    #[arg(long)]
    all: bool,
}

impl TargetArguments {
    fn request(&self, issued_before: Option<String>) -> Result<String, ExitCode> {
        let request = RevocationRequest {
            subject: self.subject.clone(),
            session: self.session.clone(),
            token: self.token_file.as_deref().map(read_token).transpose()?,
            kid: self.kid.clone(),
            all: self.all,
            issuer: self.issuer.clone(),
            issued_before,
        };
        serde_json::to_string(&request).map_err(fail)
    }
}

/// The token in a file.
///
/// # Errors
/// The file cannot be read. The error is printed.
pub fn read_token(file: &Path) -> Result<String, ExitCode> {
    let read = std::fs::read_to_string(file).map(|token| token.trim().to_owned());
    read.map_err(|error| fail(format!("cannot read the token in {}: {error}", file.display())))
}

/// Posts the revocation, or prints the list.
pub fn revoke(arguments: RevokeArguments) -> Result<(), ExitCode> {
    let RevokeArguments { target, issued_before, yes, list } = arguments;
    if list {
        return show(target.admin);
    }
    let request = target.request(issued_before)?;
    let confirmation =
        Confirmation { question: "Refuse every token that is in use at", declined: "nobody was revoked" };
    operator::send(target.admin, "/revoke", request, (target.all && !yes).then_some(confirmation))
}

/// Posts the request to lift a revocation.
pub fn unrevoke(UnrevokeArguments { target }: UnrevokeArguments) -> Result<(), ExitCode> {
    let request = target.request(None)?;
    operator::send(target.admin, "/unrevoke", request, None)
}

fn show(admin: AdminArguments) -> Result<(), ExitCode> {
    let any = admin.any;
    let settings = SourceArguments::from(admin).read_for_upkeep()?;
    block_on(async {
        let admin = reach(&settings, any).await.map_err(fail)?;
        let list = admin.get("/revocations").await.map_err(fail)?;
        let list: Value = serde_json::from_str(&list).map_err(fail)?;
        for row in list["revocations"].as_array().into_iter().flatten() {
            println!("{}", line(row));
        }
        if list["behind"].as_bool() == Some(true) {
            eprintln!("this instance may have missed revocations, because its disk or Redis fails");
        }
        Ok(())
    })
}

/// One row of `/revocations` as a line for people.
fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("-");
    let force = match row["issued_before"].as_str() {
        Some(before) => format!("issued until {before}"),
        None => format!("lifted {}", text("changed_at")),
    };
    let (kind, which) = match text("kind") {
        // A logout that names a session revokes these, too, since they may be of that session.
        "sessionless" => ("subject", ", tokens that name no session"),
        kind => (kind, ""),
    };
    format!("{kind} {}{which}: {force}, kept until {}", text("what"), text("kept_until"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_is_refused_and_what_was_taken_back() {
        let mut row = json!({ "kind": "subject", "what": "a of https://t/", "issued_before": "T",
            "changed_at": "C", "kept_until": "U" });
        assert_eq!(line(&row), "subject a of https://t/: issued until T, kept until U");
        row["issued_before"] = Value::Null;
        assert_eq!(line(&row), "subject a of https://t/: lifted C, kept until U");
        row["kind"] = "sessionless".into();
        assert_eq!(
            line(&row),
            "subject a of https://t/, tokens that name no session: lifted C, kept until U"
        );
    }
}
