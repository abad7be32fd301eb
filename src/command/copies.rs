//! `holdfast backup` and `holdfast restore`.
//!
//! A backup never contains the instance secret, because backup and secret together make the records readable.
//! So both commands print where the secret is.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast::clock::Clock;
use holdfast::config::Settings;
use holdfast::store::disk::DiskSettings;
use holdfast::store::disk::checkpoint;
use holdfast::store::open::{SECRET_FILE, StoreSettings};

use super::reach::{AnyInstance, reach};
use super::{AdminFlag, ConfigFlag, DataFlag, SourceArguments, block_on, fail};

/// The arguments of `backup`.
#[derive(Args)]
pub struct BackupArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    data: DataFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    any: AnyInstance,
    /// The directory to make; it must not exist yet.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
}

/// The arguments of `restore`.
#[derive(Args)]
pub struct RestoreArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    data: DataFlag,
    /// The backup, or a checkpoint.
    #[arg(long, value_name = "DIRECTORY")]
    from: PathBuf,
}

/// Makes a backup, and prints its source. Asks a running holdfast for a new checkpoint first, so that the
/// backup is current.
pub fn backup(BackupArguments { config, data, admin, any, to }: BackupArguments) -> Result<(), ExitCode> {
    let settings = SourceArguments { config, data, admin, ..SourceArguments::default() }.read_for_upkeep()?;
    let disk = disk(&settings)?;
    // Checked first, because a checkpoint costs the running holdfast time and disk space.
    checkpoint::can_be_made(&to).map_err(fail)?;
    let clock = Clock::system();
    let asked = block_on(async {
        Ok(match reach(&settings, any).await {
            Ok(admin) => admin.post("/checkpoint", "{}".to_owned()).await,
            Err(error) => Err(error),
        })
    })?;
    let made = checkpoint::backup(&disk, &clock, &to).map_err(fail)?;
    if made.from_checkpoint {
        if let Err(error) = asked {
            eprintln!("holdfast was not asked for a new checkpoint: {error}");
        }
        let age = humantime::format_duration(std::time::Duration::from_secs(
            clock.now().since(made.state_of).as_secs(),
        ));
        println!("holdfast is running, so this is its newest checkpoint, made {age} ago");
    }
    println!("backup made: {}", to.display());
    println!(
        "The backup does not contain the instance secret, and without the secret nothing in it can be read: \
         keep a copy of {} elsewhere.",
        secret_file(&settings.store, &disk).display()
    );
    Ok(())
}

/// Restores a backup, and prints where the previous records are.
pub fn restore(RestoreArguments { config, data, from }: RestoreArguments) -> Result<(), ExitCode> {
    let settings = SourceArguments { config, data, ..SourceArguments::default() }.read_for_upkeep()?;
    let disk = disk(&settings)?;
    let replaced = checkpoint::restore(&disk, &Clock::system(), &from).map_err(fail)?;
    println!("restored: {} from {}", disk.path.display(), from.display());
    if let Some(replaced) = replaced {
        println!("the former records are now in {}", replaced.display());
    }
    let secret = secret_file(&settings.store, &disk);
    if !secret.exists() {
        println!(
            "The instance secret {} is missing: before holdfast starts, put the secret of the instance that \
             made the backup there (mode 600). Without it no record can be read.",
            secret.display()
        );
    }
    Ok(())
}

fn disk(settings: &Settings) -> Result<DiskSettings, ExitCode> {
    settings.store.disk().ok_or_else(|| {
        eprintln!("holdfast: no data directory is configured: set store.path in the file, or --data");
        ExitCode::from(2)
    })
}

fn secret_file(store: &StoreSettings, disk: &DiskSettings) -> PathBuf {
    store.secret_file.clone().unwrap_or_else(|| disk.path.join(SECRET_FILE))
}
