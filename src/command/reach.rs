//! Connects to the running holdfast, and checks that it is the right one.
//!
//! Several may run on a machine, and a wrong flag or a default leads to another one's admin listener. A purge
//! there forgets the wrong users. So a command prints the address that it asks, and compares its own
//! configuration with `/status`. A command with `--admin` alone has no configuration to compare.

use clap::Args;
use holdfast::config::Settings;
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::{AdminFlag, ConfigFlag, SourceArguments};

/// The arguments that select the running holdfast.
#[derive(Args)]
pub struct AdminArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    pub any: AnyInstance,
}

/// Whether the running holdfast may have another configuration.
#[derive(Args, Clone, Copy)]
pub struct AnyInstance {
    /// Go on even if the running holdfast has other issuers, or another data directory.
    #[arg(long)]
    any_instance: bool,
}

impl From<AdminArguments> for SourceArguments {
    fn from(AdminArguments { config, admin, .. }: AdminArguments) -> Self {
        Self { config, admin, ..Self::default() }
    }
}

/// The admin listener of these settings, after checking that its holdfast has the same configuration.
///
/// # Errors
/// [`AdminError::Another`], if it is not; else as [`Admin::get`].
pub async fn reach(settings: &Settings, any: AnyInstance) -> Result<Admin, AdminError> {
    let address = settings.admin.listen;
    let admin = Admin::at(&settings.admin)?.with_token(settings.admin.token_file.as_deref())?;
    let status: Value = serde_json::from_str(&admin.get("/status").await?).unwrap_or_default();
    eprintln!("holdfast at {address}:");
    let (own, its) = (settings.fingerprint(), &status["configuration"]);
    let differs =
        |own: &Option<String>, name: &str| own.as_deref().is_some_and(|own| its[name].as_str() != Some(own));
    let others = [(&own.issuers, "issuers"), (&own.store, "store")];
    let what = others.into_iter().find(|(own, name)| differs(own, name)).map(|(_, name)| name);
    match what {
        Some(what) if !any.any_instance => Err(AdminError::Another {
            address,
            what: if what == "issuers" { "other issuers or audiences" } else { "another data directory" },
        }),
        _ => Ok(admin),
    }
}
