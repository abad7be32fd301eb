//! `holdfast breaker`: shows the breakers of the running holdfast, forces them for a time, or resets them.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use holdfast::issuer::discovery::EndpointKind;
use holdfast::server::breaker::{Action, BreakerRequest};
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::reach::{AdminArguments, reach};
use super::{SourceArguments, block_on, fail};

/// The action. `--issuer` and `--endpoint` select the breakers.
#[derive(Args)]
pub struct BreakerArguments {
    /// What to do with the breakers.
    action: BreakerAction,
    #[command(flatten)]
    admin: AdminArguments,
    /// The issuer, exactly as in the token's `iss`. Default: every issuer.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Default: all.
    #[arg(long, value_parser = EndpointKind::ALL.map(EndpointKind::name))]
    endpoint: Option<String>,
    /// How long a forced state lasts, at most 24h. Default: 10m.
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum BreakerAction {
    /// Make no calls for a time; answers come from records.
    ForceOpen,
    /// Make calls for a time, whatever their results.
    ForceClosed,
    /// Close the breakers, forget all results, and end a forced state.
    Reset,
    /// Only show the breakers.
    Status,
}

/// Posts the request, and shows the state of the breakers.
pub fn run(arguments: BreakerArguments) -> Result<(), ExitCode> {
    let BreakerArguments { action, admin, issuer, endpoint, lasting } = arguments;
    let any = admin.any;
    let settings = SourceArguments::from(admin).read_for_upkeep()?;
    let action = match action {
        BreakerAction::ForceOpen => Some(Action::ForceOpen),
        BreakerAction::ForceClosed => Some(Action::ForceClosed),
        BreakerAction::Reset => Some(Action::Reset),
        BreakerAction::Status => None,
    };
    block_on(async {
        let admin = reach(&settings, any).await.map_err(fail)?;
        if let Some(action) = action {
            let request =
                BreakerRequest { action, issuer: issuer.clone(), endpoint: endpoint.clone(), lasting };
            let request = serde_json::to_string(&request).map_err(fail)?;
            admin.post("/breaker", request).await.map_err(fail)?;
        }
        let shown = show(&admin, issuer.as_deref(), endpoint.as_deref()).await.map_err(fail)?;
        if shown { Ok(()) } else { Err(fail("the running holdfast has no breaker of that name")) }
    })
}

/// Shows the breakers. Returns whether there were any.
async fn show(admin: &Admin, issuer: Option<&str>, endpoint: Option<&str>) -> Result<bool, AdminError> {
    let mut shown = false;
    let status: Value = serde_json::from_str(&admin.get("/status").await?).unwrap_or_default();
    for of in status["issuers"].as_array().into_iter().flatten() {
        let url = of["url"].as_str().unwrap_or_default();
        for (name, guard) in of["endpoints"].as_object().into_iter().flatten() {
            let asked = |asked: Option<&str>, name: &str| asked.is_none_or(|asked| asked == name);
            if asked(issuer, url) && asked(endpoint, name) {
                println!("{url} {name}: {}", line(guard));
                shown = true;
            }
        }
    }
    Ok(shown)
}

/// One breaker of `/status` as a line for people.
fn line(guard: &Value) -> String {
    let text = |key: &str| guard[key].as_str();
    let mut line = text("breaker").unwrap_or("unknown").to_owned();
    for (word, value) in [("since", text("since")), ("until", text("until")), ("reason", text("reason"))] {
        if let Some(value) = value {
            line += &format!(", {word} {value}");
        }
    }
    let budget = &guard["budget"];
    line += &format!("; budget {} of {}, {}/s", budget["available"], budget["burst"], budget["rate"]);
    if let Some(until) = budget["learned"]["until"].as_str() {
        line += &format!(", and {} until {until}, as the issuer said", budget["learned"]["available"]);
    }
    line + &format!("; {} subjects in back-off", guard["subjects_in_backoff"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_leaves_out_what_is_not() {
        let budget = json!({ "available": 20, "burst": 20, "rate": 4.0, "learned": null });
        let closed = json!({ "breaker": "closed", "since": null, "until": null, "reason": null,
            "budget": budget, "subjects_in_backoff": 0 });
        assert_eq!(line(&closed), "closed; budget 20 of 20, 4.0/s; 0 subjects in back-off");
        let budget =
            json!({ "available": 2, "burst": 20, "rate": 4.0, "learned": { "available": 2, "until": "U" } });
        let open = json!({ "breaker": "open", "since": "S", "until": "T", "reason": "forced",
            "budget": budget, "subjects_in_backoff": 1 });
        assert_eq!(
            line(&open),
            "open, since S, until T, reason forced; budget 2 of 20, 4.0/s, and 2 until U, as the issuer \
             said; 1 subjects in back-off"
        );
    }
}
